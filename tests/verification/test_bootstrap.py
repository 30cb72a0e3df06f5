import math

import numpy as np
import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream
from sv_ssl.verification import bootstrap, metrics


def interval(scores, labels, enroll, test, point=None, n=1000, seed=0):
    """The interval of the EER, or of the minDCF at a point."""
    found = bootstrap.intervals(scores, labels, enroll, test, [point] if point else [], n, seed)
    return tuple(found["min_dcf"][metrics.point_name(point)] if point else found["eer"])


@pytest.fixture(scope="module")
def spoken():
    """Scores with an effect of the speaker: (scores, labels, enrolment speakers, test speakers)."""
    rng = np.random.default_rng(3)
    n, speakers = 4000, 25
    labels = np.arange(n) % 2
    enroll = rng.integers(0, speakers, n)
    test = np.where(labels == 1, enroll, (enroll + rng.integers(1, speakers, n)) % speakers)
    easy = rng.normal(size=speakers)
    scores = rng.normal(size=n) + labels * (3 + easy[enroll]) + 0.5 * easy[test]
    return np.round(scores, 2), labels, enroll, test


def test_a_replicate_is_what_repeating_the_trials_gives(spoken):
    scores, labels, enroll, test = spoken
    found = bootstrap.bootstrap(scores, labels, enroll, test, [(0.05, 1, 1)], n=5, seed=7)
    rng = stream(7, "bootstrap of speakers")
    for i in range(5):
        copies = np.bincount(rng.integers(0, 25, 25), minlength=25)
        times = np.where(enroll == test, copies[enroll], copies[enroll] * copies[test])
        s, y = np.repeat(scores, times), np.repeat(labels, times)
        assert found["eer"][i] == pytest.approx(metrics.eer(s, y)[0], abs=1e-12)
        assert found["0.05"][i] == pytest.approx(metrics.min_dcf(s, y, 0.05)[0], abs=1e-12)


def test_intervals_are_reproducible_hold_the_value_and_know_the_speakers(spoken):
    scores, labels, enroll, test = spoken
    low, high = interval(scores, labels, enroll, test, n=200)
    assert low < metrics.eer(scores, labels)[0] < high
    assert (low, high) == interval(scores, labels, enroll, test, n=200)
    assert (low, high) != interval(scores, labels, enroll, test, n=200, seed=1)
    names = np.array([f"speaker {i:02}" for i in range(25)])
    assert (low, high) == interval(scores, labels, names[enroll], names[test], n=200)
    alone = interval(scores, labels, np.arange(4000), np.arange(4000), n=200)  # as if trials were independent
    assert high - low > 1.5 * (alone[1] - alone[0])
    cost = interval(scores, labels, enroll, test, (0.01, 1, 1), n=200)
    assert cost[0] < metrics.min_dcf(scores, labels, 0.01)[0] < cost[1]


def test_the_order_of_the_trials_does_not_change_an_interval(spoken):
    order = np.random.default_rng(0).permutation(4000)
    shuffled = interval(*(part[order] for part in spoken), n=50)
    assert shuffled == pytest.approx(interval(*spoken, n=50), abs=1e-12)


def test_resamplings_without_a_class_are_left_out():
    found = bootstrap.bootstrap([0, 1, 2], [0, 1, 1], [0, 0, 1], [1, 0, 1], n=100)["eer"]
    assert 20 < np.isnan(found).sum() < 80  # half of the draws take one speaker twice: no non-target trial is left
    assert bootstrap.percentiles(found) == (0, 0)
    with pytest.raises(InputError, match="too few speakers"):
        bootstrap.percentiles(np.array([math.nan]))


def test_speakers_must_be_given_for_each_trial():
    with pytest.raises(InputError, match="2 trials but 1 enrolment and 2 test speakers"):
        interval([0, 1], [0, 1], ["a"], ["a", "b"])


def test_two_systems_are_compared_over_the_same_draws(spoken):
    scores, labels, enroll, test = spoken
    noise = np.random.default_rng(5).normal(size=len(scores))
    found = bootstrap.compare(scores + 2 * noise, scores, labels, enroll, test, n=200)
    assert found["eer"]["difference"] == metrics.eer(scores + 2 * noise, labels)[0] - metrics.eer(scores, labels)[0] > 0
    assert 0 < found["eer"]["ci"][0] < found["eer"]["difference"] < found["eer"]["ci"][1]
    assert found["eer"]["p"] == 2 / 201  # no draw of the 200 turns the sign
    back = bootstrap.compare(scores, scores + 2 * noise, labels, enroll, test, n=200)
    assert back["eer"]["ci"] == pytest.approx([-end for end in found["eer"]["ci"][::-1]], abs=1e-12)
    assert back["eer"]["p"] == found["eer"]["p"]


def test_equal_systems_do_not_differ(spoken):
    scores, *rest = spoken
    assert bootstrap.compare(scores, 2 * scores + 1, *rest, n=50)["0.05"] == {"difference": 0, "ci": [0, 0], "p": 1}


def test_a_null_comparison_is_significant_as_seldom_as_it_claims():
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        speaker = rng.integers(0, 30, (2, 600))
        labels = rng.random(600) < 0.5
        speaker[1] = np.where(labels, speaker[0], (speaker[0] + rng.integers(1, 30, 600)) % 30)
        a, b = rng.normal(size=(2, 600)) + 2 * labels
        found.append(bootstrap.compare(a, b, labels, *speaker, points=(), n=100)["eer"]["p"])
    assert np.mean(np.array(found) < 0.1) < 0.25  # 0.1 expected; seldom above 0.2 by chance
