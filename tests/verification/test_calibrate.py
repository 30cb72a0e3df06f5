import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from sv_ssl.core.errors import InputError
from sv_ssl.verification import calibrate, logistic_regression, metrics
from sv_ssl.verification.calibrate import Calibration, fit
from sv_ssl.verification.trials import Trials, read_trials


def gaussian(n=2000, k=1, share=0.3, distance=2.0, seed=0):
    """(n, k) scores of equal variance in both classes, (n,) labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < share
    return rng.normal(size=(n, k)) + distance * labels[:, None], labels


def trials(text, tmp_path, name="scores.txt"):
    (tmp_path / name).write_text(text)
    return read_trials(tmp_path / name)


def objective(point, columns, labels, prior):
    odds = columns @ point[:-1] + point[-1] + math.log(prior / (1 - prior))
    return prior * np.logaddexp(0, -odds[labels]).mean() + (1 - prior) * np.logaddexp(0, odds[~labels]).mean()


# --- the optimum ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [0.5, 0.05, 0.9])
@pytest.mark.parametrize("k", [1, 3])
def test_the_optimum_is_scipys(k, prior):
    columns, labels = gaussian(k=k)
    columns = columns * [1, 10, 0.1][:k] + [0, 5, -3][:k]
    found = fit(columns, labels, prior, list("abc")[:k])
    best = minimize(
        objective,
        np.zeros(k + 1),
        (columns, labels, prior),
        "Nelder-Mead" if k == 1 else "BFGS",
        options={"xatol": 1e-9, "fatol": 1e-13} if k == 1 else {"gtol": 1e-9},
    )
    assert [*found.weights, found.offset] == pytest.approx(best.x, rel=1e-4)
    assert objective(np.array([*found.weights, found.offset]), columns, labels, prior) <= best.fun + 1e-12


@pytest.mark.parametrize("prior", [0.5, 0.01])
def test_the_optimum_is_that_of_weighted_logistic_regression(prior):
    columns, labels = gaussian(k=2, share=0.1)
    mass = np.where(labels, prior / labels.sum(), (1 - prior) / (~labels).sum()) * len(labels)
    other = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    other.fit(columns, labels, sample_weight=mass)
    found = fit(columns, labels, prior, ["a", "b"])
    assert found.weights == pytest.approx(other.coef_[0], rel=1e-6)
    assert found.offset == pytest.approx(other.intercept_[0] - math.log(prior / (1 - prior)), rel=1e-6)


def test_two_values_give_the_ratio_of_their_frequencies():
    scores = np.repeat([0.0, 1.0, 0.0, 1.0], [70, 10, 30, 50])  # of 80 targets 10 have a 1, of 80 others 50
    found = fit(scores, np.repeat([1, 1, 0, 0], [70, 10, 30, 50]), prior=0.2)
    assert calibrate.apply(found, [0, 1]) == pytest.approx([math.log(70 / 30), math.log(10 / 50)])


def test_gaussians_have_the_ratio_of_their_densities():
    columns, labels = gaussian(400_000)
    found = fit(columns, labels)
    assert found.weights[0] == pytest.approx(2, abs=0.03) and found.offset == pytest.approx(-2, abs=0.03)
    assert found.cllr_after == pytest.approx(metrics.min_cllr(columns[:, 0], labels), abs=1e-3)


def test_fusion_weighs_independent_systems_by_what_they_know():
    rng = np.random.default_rng(0)
    labels = rng.random(200_000) < 0.5
    scores = rng.normal(size=(200_000, 3)) + labels[:, None] * [1.0, 2.0, 0.0]
    found = fit(scores, labels, names=["a", "b", "noise"])
    assert found.weights == pytest.approx([1, 2, 0], abs=0.04)
    assert found.cllr_after < fit(scores[:, 1], labels).cllr_after


finite = st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda x: round(x, 2))


@given(st.lists(finite, min_size=2, max_size=40), st.lists(finite, min_size=1, max_size=40))
def test_calibration_never_raises_cllr_on_its_own_trials(target, nontarget):
    found = fit(target + nontarget, [1] * len(target) + [0] * len(nontarget))
    assert found.cllr_after <= min(1.0, found.cllr_before) + 1e-3 * bool(found.notes) + 1e-8


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.booleans())
def test_affine_maps_of_the_scores_change_nothing(shift, scale, negative):
    columns, labels = gaussian(200)
    scale = -scale if negative else scale
    moved = fit(scale * columns + shift, labels)
    assert calibrate.apply(moved, scale * columns + shift) == pytest.approx(
        calibrate.apply(fit(columns, labels), columns), abs=1e-6
    )


def test_the_order_of_trials_and_of_columns_changes_nothing():
    columns, labels = gaussian(k=2)
    order = np.random.default_rng(1).permutation(len(labels))
    first, second = fit(columns, labels, names="ab"), fit(columns[order][:, ::-1], labels[order], names="ba")
    assert second.weights[::-1] == pytest.approx(first.weights, rel=1e-9)
    assert second.offset == pytest.approx(first.offset, rel=1e-9)


def test_the_order_of_trials_changes_no_digit():
    columns, labels = gaussian(k=2)
    columns[:500] = columns[:500].round(1)  # ties
    first = fit(columns, labels, names="ab")
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(labels))
        assert fit(columns[order], labels[order], names="ab") == first


def test_a_prior_moves_the_fit_towards_its_own_threshold():
    rng = np.random.default_rng(0)
    labels = np.arange(20_000) % 2 == 0
    scores = np.where(labels, rng.normal(size=20_000), rng.standard_t(2, 20_000) - 2)  # heavy tails: no affine map fits
    costs = [metrics.act_dcf(calibrate.apply(fit(scores, labels, p), scores), labels, 0.01) for p in (0.01, 0.5)]
    assert costs[0] < costs[1]


# --- hard data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", [[0, 1, 2, 3], [0, 1, 1, 2], [3, 2, 1, 0]], ids=["apart", "touching", "reversed"])
def test_separable_scores_stay_finite_and_say_so(scores):
    found = fit(scores, [0, 0, 1, 1])
    assert np.isfinite([*found.weights, found.offset]).all()
    assert "part targets from non-targets" in found.notes[0]
    assert found.cllr_after <= metrics.min_cllr(np.sign(found.weights[0]) * np.array(scores), [0, 0, 1, 1]) + 1e-3


def test_overlapping_scores_carry_no_note():
    assert fit(*gaussian()).notes == ()
    assert fit(*gaussian(40_000, share=0.5, distance=6)).notes == ()  # EER 0.13 %


def test_more_columns_than_trials():
    rng = np.random.default_rng(0)
    found = fit(rng.normal(size=(6, 20)), [0, 1, 0, 1, 0, 1], names=[str(k) for k in range(20)])
    assert np.isfinite(found.weights).all() and found.notes


def test_a_column_given_twice_shares_its_weight():
    columns, labels = gaussian()
    once, twice = fit(columns, labels), fit(np.hstack([columns, columns]), labels, names=["a", "a again"])
    assert twice.weights == pytest.approx([once.weights[0] / 2] * 2, rel=1e-4)


def test_a_constant_column_has_no_weight():
    columns, labels = gaussian()
    found = fit(np.column_stack([np.full(len(labels), 0.1), columns]), labels, names=["flat", "score"])
    assert found.weights[0] == 0 and found.notes == ("constant in training, so of weight 0: flat",)
    assert found.offset == pytest.approx(fit(columns, labels).offset, rel=1e-12)


def test_scores_that_know_nothing_give_ratios_of_one():
    found = fit([5, 5, 5], [0, 1, 1], prior=0.1)
    assert calibrate.apply(found, [5, 9]) == pytest.approx([0, 0], abs=1e-12) and found.cllr_after == pytest.approx(1)


@pytest.mark.parametrize("prior", [0.5, 1e-6, 1 - 1e-6])
def test_heavy_tails_and_extreme_priors_converge(prior, monkeypatch):
    monkeypatch.setattr(logistic_regression, "STEPS", 60)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        labels = np.arange(60) < rng.integers(1, 60)
        scores = rng.standard_cauchy(60) + labels
        found = fit(scores, labels, prior)
        value = objective(np.array([*found.weights, found.offset]), scores[:, None], labels, prior)
        around = [[found.weights[0] * a, found.offset + b] for a in (0.99, 1, 1.01) for b in (-0.01, 0, 0.01)]
        assert value <= min(objective(np.array(near), scores[:, None], labels, prior) for near in around) + 1e-7


@pytest.mark.parametrize(
    "columns, labels, options, message",
    [
        ([1, np.nan, 2], [0, 1, 1], {}, "score of trial 2 is nan, wanted a finite number (1 such in all)"),
        ([[1, 2], [3, 4], [5, np.inf]], [0, 1, 1], {"names": "ab"}, "b of trial 3 is inf, wanted a finite number"),
        ([1, 2, 3], [1, 1, 1], {}, "no non-target trial"),
        ([1, 2, 3], [0, 0, 0], {}, "no target trial"),
        ([1, 2, 3], [0, 1, 2], {}, "label 2 at trial 3"),
        ([1, 2, 3], [0, 1], {}, "one label a score"),
        ([], [], {}, "no trials"),
        ([[1, 2], [3, 4]], [0, 1], {}, "the columns are (2, 2), wanted (2, 1), a column each for: score"),
        (np.empty((2, 0)), [0, 1], {"names": ()}, "the columns are (2, 0)"),
        (3.0, [0, 1], {}, "the columns are (), wanted (N, 1)"),
        (["a", "b"], [0, 1], {}, "columns must be numbers"),
        ([1e200, -1e200, 3], [0, 1, 1], {}, "score has values too large to calibrate"),
        ([1, 2, 3], [0, 1, 1], {"prior": 1}, "the prior must lie between 0 and 1, not 1"),
        ([1, 2, 3], [0, 1, 1], {"prior": math.nan}, "the prior must lie between 0 and 1, not nan"),
    ],
)
def test_bad_input_to_fit(columns, labels, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        fit(columns, labels, **options)


def test_apply_is_the_affine_map_and_wants_its_columns():
    found = fit(*gaussian(k=2), names=["a", "b"])
    rows = np.array([[1.0, 2.0], [3.0, -1.0]])
    assert calibrate.apply(found, rows) == pytest.approx(rows @ found.weights + found.offset)
    with pytest.raises(InputError, match=re.escape("the columns are (2, 1), wanted (2, 2), a column each for: a, b")):
        calibrate.apply(found, [1.0, 2.0])
    with pytest.raises(InputError, match="b of trial 1 is nan"):
        calibrate.apply(found, [[1.0, np.nan]])


def test_the_facts_of_the_training(tmp_path):
    listed = trials("a b 0.5 target\na c 0.4 nontarget\nb c 0.7 nontarget\nb d 0.9 target\n", tmp_path)
    found = fit(listed.scores, listed.labels, 0.1, lists=[listed])
    assert (found.n_target, found.n_nontarget, found.prior, found.columns) == (2, 2, 0.1, ("score",))
    assert found.ranges == ((0.4, 0.9),) and found.lists == ((listed.name, listed.sha1),)
    assert found.cllr_before == metrics.cllr(listed.scores, listed.labels)
    assert found.cllr_after == metrics.cllr(calibrate.apply(found, listed.scores), listed.labels)
    assert "trained on 2 target and 2 non-target trials of " + listed.name in found.summary()


# --- decisions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point, odds", [((0.5,), 1), ((0.01,), 99), ((0.01, 10, 1), 9.9), ((0.9, 1, 3), 1 / 3)])
def test_threshold_is_the_log_of_the_odds_against(point, odds):
    assert calibrate.threshold(*point) == pytest.approx(math.log(odds), abs=1e-12)


def test_threshold_is_the_best_one_for_true_ratios():
    columns, labels = gaussian(200_000, share=0.5)
    ratios = 2 * columns[:, 0] - 2
    costs = {t: 0.1 * np.mean(ratios[labels] < t) + 0.9 * np.mean(ratios[~labels] >= t) for t in np.arange(-5, 5, 0.1)}
    assert min(costs, key=costs.__getitem__) == pytest.approx(calibrate.threshold(0.1), abs=0.3)


@pytest.mark.parametrize("point", [(0,), (1,), (math.nan,), (0.5, 0, 1), (0.5, 1, math.inf)])
def test_impossible_operating_points(point):
    with pytest.raises(InputError, match="p_target must lie between 0 and 1 and costs above 0"):
        calibrate.threshold(*point)


# --- on disk --------------------------------------------------------------------------------------------------------


def test_a_written_calibration_is_read_bit_for_bit(tmp_path):
    columns, labels = gaussian(k=3, seed=4)
    listed = Trials("liste é.txt", "ab" * 20, "", [], *np.zeros((2, 0), np.int32), None, None)
    found = fit(columns / 3, labels, 0.013, ["a", "b", "min duration"], [listed])
    calibrate.write(tmp_path / "new" / "cal.json", found)
    again = calibrate.read(tmp_path / "new" / "cal.json")
    assert again == found and isinstance(again, Calibration) and repr(again) == repr(found)


@pytest.mark.parametrize(
    "old, new",
    [
        ('"offset": -', '"offset": '),
        ('"weights": [', '"weights": [1.0,'),
        ('"n_target": ', '"n_targets": '),
        ('"columns": [\n    "score"', '"columns": [\n    "llr"'),
        ('"notes": []', '"notes": NaN'),
        ('"digest"', '"mine"'),
        ('"prior": 0.5', '"prior": "0.5"'),
        ('"notes": []', '"notes": ' + "[" * 900 + "]" * 900),
    ],
)
def test_a_calibration_changed_by_hand_is_refused(tmp_path, old, new):
    path = tmp_path / "cal.json"
    calibrate.write(path, fit(*gaussian()))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=r"cal.json was changed after it was written"):
        calibrate.read(path)


def signed_again(path, **changes):
    """Change fields of a file as whoever makes a new digest can; a change to ... takes the field out."""
    document = {**json.loads(path.read_text()), **changes}
    kept = {name: value for name, value in document.items() if value is not ... and name not in ("format", "digest")}
    digest = hashlib.sha1(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"format": document["format"], **kept, "digest": digest}))


NOT_WRITTEN = {
    "not finite": {"offset": math.nan},
    "infinite": {"weights": [math.inf]},
    "text": {"offset": "1"},
    "text of a list": {"weights": "1"},
    "true": {"offset": True},
    "nothing": {"prior": None},
    "huge": {"weights": [10**400]},
    "prior": {"prior": 1},
    "one weight too many": {"weights": [1.0, 2.0]},
    "no columns": {"columns": [], "weights": [], "ranges": []},
    "columns": {"columns": 3},
    "column": {"columns": ["\x1b[2Jscore"]},
    "ranges": {"ranges": [[0.0]]},
    "count": {"n_target": 0},
    "count with a point": {"n_nontarget": 2.5},
    "lists": {"lists": [["a.txt"]]},
    "notes": {"notes": ["one\ntwo"]},
    "deep": {"notes": [[[[[]]]]]},
    "trials": {"trials": "odd"},
    "trials as a list": {"trials": ["00" * 8]},
}


@pytest.mark.parametrize("changes", NOT_WRITTEN.values(), ids=NOT_WRITTEN)
def test_what_is_signed_again_is_no_calibration_all_the_same(tmp_path, changes):
    path = tmp_path / "cal.json"
    calibrate.write(path, fit(*gaussian()))
    signed_again(path, **changes)
    name = next(iter(changes))
    with pytest.raises(InputError) as caught:
        calibrate.read(path)
    assert f"cal.json was not written by sv-score: its {name} are not such as it writes" in str(caught.value)


@pytest.mark.parametrize("changes", [{"offset": ...}, {"more": 1}])
def test_fields_that_are_missing_or_too_many(tmp_path, changes):
    calibrate.write(tmp_path / "cal.json", fit(*gaussian()))
    signed_again(tmp_path / "cal.json", **changes)
    with pytest.raises(InputError, match=r"cal.json was changed after it was written"):
        calibrate.read(tmp_path / "cal.json")


def test_ratios_that_are_no_numbers_are_refused():
    vast = fit(*gaussian())._replace(weights=(1e308,))
    with pytest.raises(InputError, match="the log-likelihood ratio of trial 2 is no finite number: calibrate anew"):
        calibrate.apply(vast, [0.5, 100.0])


def test_a_file_too_large_is_not_read(tmp_path):
    with open(tmp_path / "cal.json", "wb") as file:
        file.truncate(10**9)
    with pytest.raises(InputError, match="wanted a calibration, as JSON: it has more than 1,048,576 bytes"):
        calibrate.read(tmp_path / "cal.json")


def test_a_file_of_version_0_1_is_read(tmp_path):
    old = Path(__file__).parents[1] / "golden" / "v1" / "calibration.json"
    found = calibrate.read(old)
    assert found.trials == "" and (found.n_target, found.n_nontarget) == (4, 24)
    (tmp_path / "cal.json").write_text(old.read_text().replace("calibration 1", "calibration 1.1"))
    with pytest.raises(InputError, match="was changed after it was written"):
        calibrate.read(tmp_path / "cal.json")


# --- what flatters ----------------------------------------------------------------------------------------------------


def doubts(tmp_path, learnt, measured):
    """What is said of a calibration that was learnt from one text and is applied to the trials of another."""
    dev, test = trials(learnt, tmp_path, "dev.txt"), trials(measured, tmp_path, "test.txt")
    calibrate.write(tmp_path / "cal.json", fit(dev.scores, dev.labels, lists=[dev]))
    return calibrate.doubts(calibrate.read(tmp_path / "cal.json"), test)


LEARNT = "a b 0.5 target\na c 0.4 nontarget\nb c 0.7 nontarget\nb d 0.9 target\n"
FLATTERS = "the calibration was learnt from {}, so the numbers look better than they are: measure on others"


def test_a_calibration_on_its_own_trials_is_told_whatever_their_order_form_and_scores(tmp_path):
    assert doubts(tmp_path, LEARNT, LEARNT) == [FLATTERS.format("these very trials")]
    other = "enroll,test,score,label\nd,b,3,1\nc,b,1,0\nb,a,2,1\nc,a,4,0\n"
    assert doubts(tmp_path, LEARNT, other) == [FLATTERS.format("these very trials")]


def test_a_share_of_them_is_told_and_none_is_not(tmp_path):
    more = "".join(f"a x{i} 0.1 nontarget\n" for i in range(4))
    assert doubts(tmp_path, LEARNT, LEARNT + more) == [FLATTERS.format("about 50.0% of these trials")]
    assert doubts(tmp_path, LEARNT, more) == []


def test_an_old_file_knows_its_list_by_the_text_alone(tmp_path):
    dev = trials(LEARNT, tmp_path)
    old = fit(dev.scores, dev.labels, lists=[dev])._replace(trials="")
    assert calibrate.doubts(old, dev) == [FLATTERS.format("these very trials")]
    assert calibrate.doubts(old, trials(LEARNT + "x y 1 target\n", tmp_path)) == []


def test_a_ratio_that_falls_is_told():
    columns, labels = gaussian()
    (note,) = calibrate.doubts(fit(-columns, labels))
    assert note.startswith("the ratio falls as the score rises")
    assert calibrate.doubts(fit(columns, labels)) == []
    assert calibrate.doubts(fit(np.hstack([-columns, columns**2]), labels, names="ab")) == []  # of one system alone


def test_thresholds_that_are_out_of_reach_are_told():
    ratios = np.array([-1.0, 0.0, 2.0])
    assert calibrate.out_of_reach(ratios, [(0.5, 1, 1), (0.2, 1, 1)]) == []
    assert calibrate.out_of_reach(ratios, [(0.1, 1, 1), (0.8, 1, 1), (0.01, 10, 1)]) == [
        "no score reaches the Bayes threshold 2.197 of p_target 0.1: all trials are refused",
        "all scores reach the Bayes threshold -1.386 of p_target 0.8: none is refused",
        "no score reaches the Bayes threshold 2.293 of p_target 0.01,10,1: all trials are refused",
    ]


def test_a_threshold_beyond_all_cosines_is_told():
    found = fit(*gaussian())._replace(weights=(6.0,), offset=-4.0)
    assert calibrate.cosine_threshold(found, 0.5) == (pytest.approx(2 / 3), [])
    cosine, notes = calibrate.cosine_threshold(found, 0.001)
    assert cosine == pytest.approx((math.log(999) + 4) / 6)
    assert notes == ["at p_target 0.001 the threshold is a cosine of 1.818, which none can reach: all is refused"]
    assert "all exceed: all is accepted" in calibrate.cosine_threshold(found, 1 - 1e-7)[1][0]


def test_a_calibration_laid_out_anew_is_the_same(tmp_path):
    found = fit(*gaussian())
    calibrate.write(tmp_path / "cal.json", found)
    document = json.loads((tmp_path / "cal.json").read_text())
    (tmp_path / "cal.json").write_text(json.dumps(dict(sorted(document.items()))))
    assert calibrate.read(tmp_path / "cal.json") == found


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "wanted a calibration, as JSON"),
        (b"\xff\xfe", "wanted a calibration, as JSON"),
        (b"{", "wanted a calibration, as JSON"),
        (b"[" * 100_000, "wanted a calibration, as JSON"),
        (b"[1]", "not a calibration of this version"),
        (b'{"eer": 0.1}', "not a calibration of this version"),
        (b'{"format": "sv_ssl calibration 2"}', "not a calibration of this version"),
        (b'{"format": "sv_ssl calibration 1"}', "was changed after it was written"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "cal.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        calibrate.read(tmp_path / "cal.json")
    assert "cal.json" in str(caught.value) and "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot read .*none.json: No such file"):
        calibrate.read(tmp_path / "none.json")
