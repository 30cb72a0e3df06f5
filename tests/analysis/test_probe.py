"""Probes: what is chosen where, intervals against other libraries and simulation, nested parts of the labels."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sv_ssl.analysis import probe
from sv_ssl.core.errors import InputError
from sv_ssl.data.subsets import subset

CLASSES = np.array(["a", "b", "c"])


def clouds(n=60, seed=0, spread=0.5, dim=6):
    """Three classes around three directions, the others noise; in no order."""
    rng = np.random.default_rng(seed)
    code = rng.permutation(np.arange(n) % 3)
    return np.eye(3, dim)[code] + spread * rng.standard_normal((n, dim)), CLASSES[code]


def accuracy(found, part):
    return np.mean(found.predict(part[0]) == part[1])


# --------------------------------------------------------------------------------------------------------------- probes
@pytest.mark.parametrize("kind", [probe.linear, probe.knn])
def test_a_probe_finds_classes_that_are_there(kind):
    train, valid, test = (clouds(seed=seed, spread=0.2) for seed in range(3))
    found = kind(train, valid)
    assert accuracy(found, test) > 0.95 and found.valid_accuracy == accuracy(found, valid)


@pytest.mark.parametrize("kind", [probe.linear, probe.knn])
def test_what_is_chosen_is_the_best_on_the_validation_part(kind):
    train, valid = clouds(spread=0.8), clouds(seed=1, spread=0.8)
    settings_of = {probe.linear: (1e-5, 1e-2, 1.0), probe.knn: (1, 10, 50)}[kind]
    alone = {setting: kind(train, valid, [setting]).valid_accuracy for setting in settings_of}
    found = kind(train, valid, settings_of)
    assert len(set(alone.values())) > 1 and found.valid_accuracy == max(alone.values())
    assert alone[found.chosen] == found.valid_accuracy


def test_the_validation_part_does_not_train():
    """A class that is there alone is never predicted."""
    train, (rows, labels) = clouds(), clouds(seed=1)
    found = probe.linear(train, (rows, np.where(labels == "c", "d", labels)))
    assert set(found.predict(rows)) <= set(CLASSES)


def test_a_linear_probe_does_not_care_for_scales_and_offsets():
    (rows, labels), (more, others) = clouds(), clouds(seed=1)
    scale, offset = np.array([1e-4, 1e3, 1, 1, 50, 1]), 100 * np.arange(6)
    plain = probe.linear((rows, labels), (more, others))
    moved = probe.linear((scale * rows + offset, labels), (scale * more + offset, others))
    assert (plain.predict(more) == moved.predict(scale * more + offset)).all() and plain.chosen == moved.chosen


def test_neighbours_are_told_by_angle():
    train = np.array([[1.0, 0.0], [100.0, 0.0], [0.0, 1.0], [0.0, 100.0]]), np.array(["x", "x", "y", "y"])
    found = probe.knn(train, train, [1, 99])  # 99 are not there
    assert found.predict(np.array([[90.0, 80.0], [0.01, 0.02]])).tolist() == ["x", "y"]


# ----------------------------------------------------------------------------------------------------------- intervals
@pytest.mark.parametrize("successes, n", [(0, 7), (7, 7), (3, 10), (571, 600), (1, 1)])
def test_wilsons_interval_is_scipys(successes, n):
    theirs = scipy.stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert probe.wilson(successes, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_an_interval_over_groups_is_as_wide_as_its_groups_make_it():
    """Ten speakers of 50 clips, all right or all wrong: as wide as that of 10 clips, not of 500."""
    correct, groups = np.repeat([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], 50).astype(bool), np.repeat(np.arange(10), 50)
    low, high = probe.by_group(correct, groups, n=50_000)  # 2.8 % of the draws have all right: many tell it from 2.5 %
    assert low == pytest.approx(scipy.stats.binom.ppf(0.025, 10, 0.7) / 10, abs=0.05)
    assert high == pytest.approx(scipy.stats.binom.ppf(0.975, 10, 0.7) / 10, abs=0.05)
    alone = probe.report(correct, np.ones(500, bool))["ci"]
    assert alone[1] - alone[0] < 0.2 < high - low
    assert probe.by_group(correct, groups) == probe.by_group(correct, groups)


def test_a_report():
    labels, predicted = ["a"] * 8 + ["b"] * 2, ["a"] * 8 + ["a", "b"]
    found = probe.report(predicted, labels, groups=list("xxxxxyyyyy"))
    assert found["accuracy"] == 0.9 and found["balanced"] == 0.75 and found["n"] == 10 and found["resampled"] == 2
    assert found["ci"] == [0.8, 1.0]
    assert probe.report(predicted, labels)["ci"] == pytest.approx(probe.wilson(9, 10), abs=1e-8)


@pytest.mark.parametrize("rotating", [False, True])
def test_an_interval_across_seeds_and_speakers_holds_what_it_says(rotating):
    """Simulated: three seeds are seen, with the same 30 speakers or with 10 others each; 95 % of 400 hold the truth."""
    rng = np.random.default_rng(0)
    seeds, speakers = np.repeat(np.arange(3), 60), np.tile(np.repeat(np.arange(30), 2), 3)
    if rotating:
        speakers = np.repeat(np.arange(30), 6)
    held = 0
    for _ in range(400):
        values = rng.normal(0, 0.3, 3)[seeds] + rng.normal(0, 1, 30)[speakers] + rng.normal(0, 0.5, 180)
        _, low, high = probe.across(values, seeds, speakers)
        held += low <= 0 <= high
    assert 0.95 <= held / 400 < 1


def test_an_interval_across_one_seed_or_one_value_is_students():
    values, four, one = np.array([0.1, 0.4, 0.2, 0.9]), np.arange(4), np.zeros(4)
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    for codes in ((four, one), (one, four), (four,)):
        assert probe.across(values, *codes) == pytest.approx((0.4, *theirs))
    assert probe.across(np.ones(15), np.arange(15) % 3, np.arange(15)) == (1, 1, 1)
    six = np.arange(6).repeat(10)  # speakers whose ten clips stand and fall together
    assert probe.across(six, six) == pytest.approx(probe.across(np.arange(6), np.arange(6)))


# ---------------------------------------------------------------------------------------------------- parts and counts
@given(
    st.lists(st.sampled_from("aabbbbc"), min_size=1, max_size=200),
    st.integers(0, 5),
    st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)),
)
@settings(deadline=None, max_examples=60)
def test_parts_are_nested_of_the_size_asked_for_and_the_same_each_time(labels, seed, shares):
    small, large = (subset(labels, share, seed) for share in sorted(shares))
    assert (small <= large).all() and small.sum() == max(1, round(min(shares) * len(labels)))
    assert (small == subset(labels, min(shares), seed)).all()
    groups = [str(i // 3) for i in range(len(labels))]
    small, large = (subset(labels, share, seed, groups) for share in sorted(shares))
    assert (small <= large).all()
    whole = [small[[g == name for g in groups]] for name in set(groups)]
    assert all(part.all() or not part.any() for part in whole)
    assert sum(part.all() for part in whole) == max(1, round(min(shares) * len(whole)))


def test_classes_keep_their_shares():
    labels = np.repeat(["a", "b", "c"], [600, 300, 100])
    for share in (0.01, 0.1, 0.2, 1.0):
        counts = [subset(labels, share, seed=3)[labels == name].sum() for name in "abc"]
        assert counts == pytest.approx([600 * share, 300 * share, 100 * share], abs=1.01)


def test_other_seeds_choose_others():
    labels = np.repeat(["a", "b"], 100)
    assert (subset(labels, 0.1, 0) != subset(labels, 0.1, 1)).any()
    speakers = np.arange(200) // 10
    assert (subset(labels, 0.1, 0, speakers) != subset(labels, 0.1, 1, speakers)).any()


def test_confusion_is_sklearns():
    from sklearn.metrics import confusion_matrix

    rng = np.random.default_rng(0)
    labels, predicted = rng.choice(CLASSES, 50), rng.choice([*CLASSES, "d"], 50)
    names, counts = probe.confusion(labels, predicted)
    assert names == ["a", "b", "c", "d"] and (counts == confusion_matrix(labels, predicted, labels=names)).all()


# ------------------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: probe.linear((np.eye(2), np.array(["a", "a"])), clouds()), 'all 2 training labels are "a"'),
        (
            lambda: probe.linear(clouds(), (np.zeros((0, 6)), np.array([]))),
            "the validation part has 0 embeddings and 0",
        ),
        (
            lambda: probe.knn((np.eye(3), np.array(["a", "b"])), clouds()),
            "the training part has 3 embeddings and 2 labels",
        ),
        (lambda: subset(["a"], 0.0, 0), "a share of 0 of the labels"),
        (lambda: subset(["a"], 10, 0), "a share of 10 of the labels"),
        (lambda: probe.across([[1.0]]), "values of the shape"),
        (lambda: probe.across([]), "values of the shape"),
        (lambda: probe.across([1.0], [1, 2]), "2 groups for 1 values"),
        (lambda: probe.report([], []), "0 predictions for 0 labels"),
        (lambda: probe.report(["a"], ["a"], ["x", "y"]), "2 groups for 1 predictions"),
        (lambda: probe.report(["a", "b"], ["a", "b"], ["x", "x"]), 'all 2 clips are of the group "x"'),
    ],
)
def test_what_cannot_be_judged_is_refused(call, text):
    with pytest.raises(InputError, match=text):
        call()
