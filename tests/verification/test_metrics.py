import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import det_curve

from sv_ssl.core.errors import InputError
from sv_ssl.verification import error_curve, metrics

GOLDEN = Path(__file__).parents[1] / "golden"
METRICS = json.loads((GOLDEN / "metrics.json").read_text())
LOSSES = [case for case in json.loads((GOLDEN / "losses.json").read_text())["cases"] if case["group"] == "metrics"]
REASONS = {
    "empty": "no trials",
    "no_nontarget": "no non-target trial",
    "no_target": "no target trial",
    "nan_score": "score of trial 2 is NaN",
    "length_mismatch": r"scores are \(3,\) and labels \(2,\)",
    "bad_label": "label (2|-1) at trial",
}


def points_of(costs):
    return [tuple(map(float, key.split(","))) for key in costs]


def close(found, expected):
    return found == float(expected) or abs(found - expected) <= 1e-12 * max(1, abs(expected))


# --- golden cases -----------------------------------------------------------------------------------------------------


def test_the_golden_files_are_whole():
    assert (len(METRICS["cases"]), len(METRICS["errors"]), len(LOSSES)) == (30, 8, 8)


@pytest.mark.parametrize("case", METRICS["cases"], ids=lambda case: case["name"])
def test_golden_metrics(case):
    expected = case["expected"]
    costs = {**expected["min_dcf"], **expected["min_dcf_extra"]}
    found = metrics.evaluate([float(s) for s in case["scores"]], case["labels"], points_of(costs))
    for key in ("n_target", "n_nontarget", "eer", "eer_rocch", "cllr", "min_cllr", "auc"):
        assert close(found[key], expected[key]), key
    for point, cost in zip(points_of(costs), costs.values()):
        assert close(found["min_dcf"][error_curve.point_name(point)], cost), point
    for key, cost in expected["act_dcf_scores_as_llr"].items():
        assert close(found["act_dcf"][error_curve.point_name(points_of([key])[0])], cost), key
    between = [float(end) for end in expected["eer_threshold_between"]]
    assert found["eer_threshold_between"] == between
    assert between[0] <= found["eer_threshold"] <= between[1]


@pytest.mark.parametrize("case", METRICS["cases"], ids=lambda case: case["name"])
def test_single_functions_give_what_evaluate_gives(case):
    scores, labels = [float(s) for s in case["scores"]], case["labels"]
    found = metrics.evaluate(scores, labels)
    assert metrics.eer(scores, labels) == (found["eer"], found["eer_threshold"])
    assert metrics.min_dcf(scores, labels, 0.05) == (found["min_dcf"]["0.05"], found["min_dcf_threshold"]["0.05"])
    assert metrics.act_dcf(scores, labels, 0.05) == found["act_dcf"]["0.05"]
    for name, function in (
        ("eer_rocch", metrics.rocch_eer),
        ("cllr", metrics.cllr),
        ("min_cllr", metrics.min_cllr),
        ("auc", metrics.auc),
    ):
        assert function(scores, labels) == found[name]


@pytest.mark.parametrize("case", METRICS["errors"], ids=lambda case: case["name"])
def test_golden_errors_are_refused_by_name(case):
    scores = [float(s) for s in case["scores"]]
    for function in (metrics.evaluate, metrics.eer, metrics.cllr, metrics.min_cllr, metrics.auc, metrics.rocch_eer):
        with pytest.raises(InputError, match=REASONS[case["error"]]):
            function(scores, case["labels"])


def eer_nearest(scores, labels):
    """Not offered: the larger rate at the operating point where both are nearest."""
    p_miss, p_fa = error_curve.operating_points(scores, labels).rates()
    return np.maximum(p_miss, p_fa)[np.abs(p_miss - p_fa).argmin()]


FUNCTIONS = {
    "eer_interp": lambda **inputs: metrics.eer(**inputs)[0],
    "min_dcf": lambda **inputs: metrics.min_dcf(**inputs)[0],
    "eer_nearest": eer_nearest,
}


@pytest.mark.parametrize("case", [c for c in LOSSES if c["function"] != "crop_score"], ids=lambda case: case["name"])
def test_golden_rates_among_the_losses(case):
    found = FUNCTIONS[case["function"]](**case["inputs"], **case["params"])
    assert found == pytest.approx(case["expected"], abs=1e-9)


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_operating_points_run_from_accept_all_to_reject_all_with_ties_merged():
    curve = error_curve.operating_points([0.5, 0.5, 0.1, 0.9], [1, 0, 0, 1])
    assert curve.threshold.tolist() == [0.1, 0.5, 0.9, math.inf]
    p_miss, p_fa = curve.rates()
    assert p_miss.tolist() == [0, 0, 0.5, 1]
    assert p_fa.tolist() == [1, 0.5, 0, 0]


def test_the_eer_threshold_is_the_middle_of_its_interval():
    # Accepting from 0.6 on misses one of two targets, from 0.4 on accepts one of two non-targets: equal between them.
    assert metrics.eer([0.3, 0.4, 0.4, 0.6], [1, 0, 0, 1]) == (0.5, 0.5)
    assert metrics.eer([5, 5], [0, 1]) == (0.5, 5)  # the interval ends at infinity: its finite end
    assert metrics.eer([-1e308, 1.7e308, 1.7e308], [1, 1, 0])[1] < math.inf
    assert metrics.eer([-math.inf, math.inf], [0, 1]) == (0, math.inf)


def test_the_min_dcf_threshold_attains_the_cost():
    scores, labels = np.array([0.1, 0.4, 0.5, 0.6, 0.7, 0.9]), np.array([0, 1, 0, 0, 1, 1])
    cost, threshold = metrics.min_dcf(scores, labels, 0.3, 2, 1)
    miss, fa = np.mean(scores[labels == 1] < threshold), np.mean(scores[labels == 0] >= threshold)
    assert cost == pytest.approx((0.6 * miss + 0.7 * fa) / 0.6)
    assert metrics.min_dcf([1, 0], [0, 1], 0.01) == (1, math.inf)  # nothing beats refusing all


def test_costs_and_prior_join_in_the_effective_prior():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    scores = rng.normal(size=500) + labels
    effective = 0.01 * 10 / (0.01 * 10 + 0.99)
    assert metrics.min_dcf(scores, labels, 0.01, 10)[0] == pytest.approx(metrics.min_dcf(scores, labels, effective)[0])
    assert metrics.act_dcf(scores, labels, 0.01, 10) == pytest.approx(metrics.act_dcf(scores, labels, effective))


@pytest.mark.parametrize("point", [(0, 1, 1), (1, 1, 1), (-0.1, 1, 1), (0.5, 0, 1), (0.5, 1, -1), (math.nan, 1, 1)])
def test_impossible_operating_points_are_refused(point):
    with pytest.raises(InputError, match="p_target must lie between 0 and 1"):
        metrics.min_dcf([0, 1], [0, 1], *point)
    with pytest.raises(InputError, match="p_target must lie between 0 and 1"):
        metrics.act_dcf([0, 1], [0, 1], *point)


def test_labels_and_scores_of_other_kinds():
    assert metrics.eer(np.float32([0.1, 0.9]), np.array([False, True]))[0] == 0
    with pytest.raises(InputError, match="scores must be numbers"):
        metrics.evaluate(["a", "b"], [0, 1])
    with pytest.raises(InputError, match="label '0' at trial 1"):
        metrics.evaluate([0.1, 0.9], ["0", "1"])
    with pytest.raises(InputError, match="label nan at trial 2"):
        metrics.evaluate([0.1, 0.9], [0, math.nan])
    with pytest.raises(InputError, match="one label a score"):
        metrics.evaluate([[0.1, 0.9]], [[0, 1]])


def test_point_names():
    assert error_curve.point_name((0.01, 1, 1)) == "0.01"
    assert error_curve.point_name((0.001, 1, 1)) == "0.001"
    assert error_curve.point_name((0.01, 10, 1)) == "0.01,10,1"


# --- properties -------------------------------------------------------------------------------------------------------

trial = st.tuples(st.one_of(st.integers(-4, 4), st.floats(-1, 1, width=16)), st.booleans())
trial_sets = st.lists(trial, min_size=2, max_size=40).filter(lambda trials: len({label for _, label in trials}) == 2)


def values(scores, labels):
    found = metrics.evaluate(scores, labels)
    return [found["eer"], found["eer_rocch"], *found["min_dcf"].values(), found["min_cllr"], found["auc"]]


@given(trial_sets, st.randoms(use_true_random=False))
def test_the_order_of_the_trials_does_not_matter(trials, random):
    shuffled = random.sample(trials, len(trials))
    assert values(*zip(*trials)) == values(*zip(*shuffled))
    assert metrics.cllr(*zip(*trials)) == metrics.cllr(*zip(*shuffled))


@given(trial_sets)
def test_a_monotone_map_of_the_scores_changes_no_rate(trials):
    scores, labels = map(np.array, zip(*trials))
    ranks = np.unique(scores, return_inverse=True)[1]
    assert values(scores, labels) == values(np.exp(ranks / 4), labels)


@given(trial_sets)
def test_duplicating_all_trials_changes_nothing(trials):
    assert values(*zip(*trials)) == pytest.approx(values(*zip(*trials * 3)), abs=1e-14)


@given(trial_sets)
def test_swapping_the_classes_and_the_sign_keeps_the_eer(trials):
    scores, labels = map(np.array, zip(*trials))
    assert metrics.eer(-scores, ~labels)[0] == pytest.approx(metrics.eer(scores, labels)[0], abs=1e-14)
    assert metrics.auc(-scores, ~labels) == pytest.approx(metrics.auc(scores, labels), abs=1e-14)


@given(trial_sets)
def test_bounds(trials):
    found = metrics.evaluate(*zip(*trials), points=[(0.01, 1, 1), (0.9, 1, 1), (0.5, 1, 7)])
    assert max(found["min_dcf"].values()) <= 1
    assert found["eer_rocch"] <= min(found["eer"] + 1e-15, 0.5)
    assert 0 <= found["min_cllr"] <= min(1, found["cllr"]) + 1e-12
    assert all(found["min_dcf"][name] <= found["act_dcf"][name] + 1e-12 for name in found["min_dcf"])


@given(trial_sets)
def test_rocch_eer_is_the_largest_least_bayes_error(trials):
    p_miss, p_fa = error_curve.operating_points(*zip(*trials)).rates()
    priors = np.linspace(0, 1, 2001)[:, None]
    least = (priors * p_miss + (1 - priors) * p_fa).min(1)
    assert least.max() <= metrics.rocch_eer(*zip(*trials)) + 1e-12
    assert least.max() == pytest.approx(metrics.rocch_eer(*zip(*trials)), abs=1e-3)


@given(trial_sets)
def test_agreement_with_scikit_learn(trials):
    scores, labels = map(np.array, zip(*trials))
    p_fa, p_miss, _ = det_curve(labels, scores)
    points = sorted({(0.0, 1.0), (1.0, 0.0), *zip(p_miss.tolist(), p_fa.tolist())}, key=lambda p: (p[0], -p[1]))
    k = next(i for i, (miss, fa) in enumerate(points) if miss >= fa)
    (m0, f0), (m1, f1) = points[k - 1], points[k]
    assert metrics.eer(scores, labels)[0] == pytest.approx((m1 * f0 - m0 * f1) / (f0 - m0 + m1 - f1), abs=1e-12)
    for p in (0.01, 0.05, 0.5):
        cost = min(p * miss + (1 - p) * fa for miss, fa in points) / min(p, 1 - p)
        assert metrics.min_dcf(scores, labels, p)[0] == pytest.approx(cost, abs=1e-12)


def test_the_order_of_float32_scores_changes_no_digit_of_any_metric():
    rng = np.random.default_rng(0)
    labels = rng.random(20_000) < 0.3
    scores = (rng.normal(size=20_000) + 1.5 * labels).astype(np.float32)
    scores[:3000] = scores[:3000].round(1)  # ties
    found = metrics.evaluate(scores, labels)
    assert found["cllr"] == pytest.approx(
        (
            np.log2(1 + np.exp(-scores[labels].astype(float))).mean()
            + np.log2(1 + np.exp(scores[~labels].astype(float))).mean()
        )
        / 2,
        rel=1e-13,
    )
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(20_000)
        assert metrics.evaluate(scores[order], labels[order]) == found
        assert metrics.cllr(scores[order], labels[order]) == found["cllr"]


@pytest.mark.parametrize("scores, wanted", [([-np.inf, np.inf], 0), ([np.inf, 0], np.inf), ([1e308, 1e308], 0.5e308)])
def test_cllr_of_extreme_scores(scores, wanted):
    assert metrics.cllr(scores, [0, 1]) == pytest.approx(wanted / np.log(2))
