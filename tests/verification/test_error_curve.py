import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sv_ssl.verification import error_curve, error_curve_fast, metrics


def test_a_long_hull_and_one_that_falls_point_by_point():
    n = np.arange(1, 100)
    # ever more targets, ever fewer non-targets: all are corners
    labels = np.repeat(np.tile([0, 1], len(n)), np.stack([n[::-1], n], 1).ravel())
    scores = np.arange(len(labels))
    assert len(error_curve.hull(error_curve.operating_points(scores, labels)).misses) == len(n) + 1 + 1
    labels = np.append(labels, np.zeros(10**6, int))  # now only the first drop is one
    assert len(error_curve.hull(error_curve.operating_points(np.arange(len(labels)), labels)).misses) == 3


# --- the pruned curve -------------------------------------------------------------------------------------------------

HARD = [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 1e300, -1e300, math.inf, -math.inf, 0.1, np.nextafter(0.1, 1)]
ANY_SCORE = st.sampled_from(HARD) | st.floats(allow_nan=False, allow_subnormal=True) | st.floats(-1, 1, width=16)


@given(st.lists(st.tuples(ANY_SCORE, st.booleans()), min_size=1, max_size=60), st.floats(0.001, 0.999), st.booleans())
def test_the_pruned_curve_loses_nothing_that_decides(trials, p_target, single):
    scores, labels = map(np.array, zip(*trials, (0.5, True), (0.25, False)))
    with np.errstate(over="ignore"):
        scores = scores.astype(np.float32 if single else np.float64)
    points = [*error_curve.POINTS, (p_target, 1, 1), (p_target, 10, 1)]
    pruned, whole = (
        error_curve_fast.decisive_points(scores, labels, points, few=0),
        error_curve.operating_points(scores, labels),
    )
    assert metrics._headline(pruned, points) == metrics._headline(whole, points)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_pruned_curve_is_short_and_gives_the_same_numbers(kind):
    rng = np.random.default_rng(0)
    labels = rng.random(300_000) < 0.1
    scores = (rng.normal(size=len(labels)) * 0.1 + 0.5 * labels).astype(kind)
    assert len(error_curve_fast.decisive_points(scores, labels).misses) < 0.2 * len(scores)
    whole = metrics.evaluate(scores, labels)
    assert metrics.headline(scores, labels) == {key: whole[key] for key in metrics.headline(scores, labels)}
