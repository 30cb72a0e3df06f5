"""The error curve: how many targets are missed and how many non-targets accepted, at every threshold.

A trial is accepted if its score >= threshold. P_miss is the share of target trials below the threshold, P_fa the share
of non-target trials at or above it. There is one operating point per *distinct* score and one at +inf, so the order of
the trials can never matter. Infinite scores are ordered values; NaN is an error.

`sv_ssl.verification.metrics` reads its numbers off this curve.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError

Point = tuple[float, float, float]  # p_target, c_miss, c_fa
POINTS: tuple[Point, ...] = ((0.01, 1, 1), (0.05, 1, 1))  # measured unless others are asked for


class Curve(NamedTuple):
    """(K,) each: operating points from accept-all to reject-all (threshold +inf)."""

    threshold: np.ndarray
    misses: np.ndarray  # targets below the threshold, int64
    false_alarms: np.ndarray  # non-targets at or above it, int64

    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return P_miss and P_fa, (K,) each."""
        return self.misses / self.misses[-1], self.false_alarms / self.false_alarms[0]


def check(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and labels as arrays, or raise InputError that says what is wrong with them.

    (N,) numbers, (N,) of 0 or 1 -> (N,) float32 if they came so, else float64; (N,) bool
    """
    scores = as_scores(scores)
    try:
        given = np.asarray(labels)
    except ValueError as error:
        raise InputError(f"labels must be 1 (target) or 0 (non-target): {error}") from error
    if scores.ndim != 1 or scores.shape != given.shape:
        raise InputError(f"one label a score is needed, but scores are {scores.shape} and labels {given.shape}")
    if not scores.size:
        raise InputError("no trials: there is nothing to measure")
    target = _targets(given)
    if np.isnan(scores).any():
        raise InputError(f"the score of trial {np.isnan(scores).argmax() + 1} is NaN ({np.isnan(scores).sum()} in all)")
    for value, name in ((True, "target"), (False, "non-target")):
        if not (target == value).any():
            raise InputError(f"no {name} trial (label {value:d}): error rates need both kinds")
    return scores + np.float32(0), target  # + 0: -0.0 and 0.0 are one value


def as_scores(scores: ArrayLike) -> np.ndarray:
    """Return numbers as float32 if they came so, else as float64; anything else is an InputError."""
    try:
        scores = np.asarray(scores)
        if scores.dtype == np.float32:
            return scores
        if scores.dtype.kind == "c":
            raise TypeError("they are complex")
        return scores.astype(np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(f"scores must be numbers: {error}") from error


def _targets(labels: np.ndarray) -> np.ndarray:
    """Return which labels are 1; anything but 0 and 1 is an InputError: (N,) -> (N,) bool."""
    if labels.dtype == bool:
        return labels
    target = labels == 1
    bad = ~(target | (labels == 0))
    if bad.any():
        first = bad.argmax()
        label = labels[first] if labels.dtype == object else labels[first].tolist()
        raise InputError(f"label {label!r} at trial {first + 1}: labels must be 1 (target) or 0 (non-target)")
    return target


def operating_points(scores: ArrayLike, labels: ArrayLike) -> Curve:
    """Return the whole curve of (K + 1,) points, K the number of distinct scores: (N,), (N,) -> Curve.

    >>> operating_points([0.1, 0.5, 0.5, 0.9], [0, 0, 1, 1])
    Curve(threshold=array([0.1, 0.5, 0.9, inf]), misses=array([0, 0, 1, 2]), false_alarms=array([2, 1, 0, 0]))
    """
    scores, target = check(scores, labels)
    ordered, target = _ascending(scores, target)
    last = _last_of_each(ordered)
    misses = np.append(0, np.cumsum(target)[last])
    rejected = np.append(0, last + 1) - misses
    return Curve(np.append(ordered[last], np.inf), misses, rejected[-1] - rejected)


def _ascending(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort scores and labels by the scores; a float32 and its label are sorted as one whole number, which is quicker.

    (N,), (N,) -> (N,), (N,)
    """
    if scores.dtype != np.float32:
        order = np.argsort(scores)
        return scores[order], target[order]
    packed = ordered_bits(scores.view(np.int32)).astype(np.int64)
    packed *= 2
    packed += target
    packed.sort()
    return ordered_bits((packed >> 1).astype(np.int32)).view(np.float32), (packed & 1).astype(bool)


def ordered_bits(bits: np.ndarray) -> np.ndarray:
    """Map the bits of float32 numbers to int32 that rise where the numbers do, and back again: (N,) -> (N,)."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)  # of two negative numbers the greater has the smaller bits


def tie_blocks(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ascending order, and the position in it of the last trial of each distinct score.

    (N,) -> (N,), (K,)
    """
    order = np.argsort(scores)
    return order, _last_of_each(scores[order])


def _last_of_each(ordered: np.ndarray) -> np.ndarray:
    """Return the position of the last of each distinct value: (N,) ascending -> (K,)."""
    return np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))


def crossing(p_miss: np.ndarray, p_fa: np.ndarray) -> tuple[float, int]:
    """Return the rate where both are equal, and the first point at or past it: (K,), (K,) from (0, 1) to (1, 0)."""
    k = int(np.searchsorted(p_miss - p_fa, 0.0))
    before = p_fa[k - 1] - p_miss[k - 1]
    after = p_miss[k] - p_fa[k]
    step = p_miss[k] - p_miss[k - 1]
    return float(p_miss[k - 1] + before / (before + after) * step), k


# --- the lower convex hull ------------------------------------------------------------------------------------------


def hull(curve: Curve) -> Curve:
    """Return the operating points that are corners of the curve's lower convex hull; by counts, so exactly."""
    kept = np.arange(len(curve.misses))
    while len(kept) > 2:  # a point on or above the chord of its neighbours is no corner
        corner = _turns_left(curve.misses[kept], curve.false_alarms[kept])
        if corner.mean() > 0.9:
            break  # few go at a time now: a stack is quicker
        kept = kept[corner]
    x, y = curve.misses[kept].tolist(), curve.false_alarms[kept].tolist()
    stack: list[int] = []
    for c in range(len(kept)):
        while len(stack) > 1 and _cross(x, y, stack[-2], stack[-1], c) <= 0:
            stack.pop()
        stack.append(c)
    return Curve(*(part[kept[stack]] for part in curve))


def _turns_left(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return at which points the line turns left, both ends among them: (K,), (K,) -> (K,) bool."""
    dx, dy = np.diff(x), np.diff(y)
    return np.concatenate([[True], dx[:-1] * dy[1:] - dy[:-1] * dx[1:] > 0, [True]])


def _cross(x: list[int], y: list[int], a: int, b: int, c: int) -> int:
    """Return the cross product of the steps a to b and b to c: above 0 for a turn to the left."""
    return (x[b] - x[a]) * (y[c] - y[b]) - (y[b] - y[a]) * (x[c] - x[b])


# --- what errors cost -----------------------------------------------------------------------------------------------


def normalised_cost(p_miss: Any, p_fa: Any, point: Point) -> np.ndarray:
    """Return the detection cost at each pair of rates, divided by that of no system: (K,), (K,) -> (K,)."""
    miss, fa = error_weights(point)
    return (miss / min(miss, fa)) * p_miss + (fa / min(miss, fa)) * p_fa


def error_weights(point: Point) -> tuple[float, float]:
    """Return what P_miss and P_fa are multiplied by at an operating point."""
    p, c_miss, c_fa = _three(point)
    if not (0 < p < 1 and 0 < c_miss < math.inf and 0 < c_fa < math.inf):
        raise InputError(f"p_target must lie between 0 and 1 and costs above 0, not {p:g}, {c_miss:g}, {c_fa:g}")
    return c_miss * p, c_fa * (1 - p)


def _three(point: Point) -> Point:
    try:
        p, c_miss, c_fa = map(float, point)
    except (OverflowError, TypeError, ValueError):
        raise InputError(f"an operating point is p_target, c_miss, c_fa, three numbers, not {point!r:.80}") from None
    return p, c_miss, c_fa


def point_name(point: Point) -> str:
    """Return an operating point's key in a report.

    >>> point_name((0.01, 1, 1)), point_name((0.05, 10, 1))
    ('0.01', '0.05,10,1')
    """
    p, c_miss, c_fa = _three(point)
    return f"{p:g}" if c_miss == c_fa == 1 else f"{p:g},{c_miss:g},{c_fa:g}"
