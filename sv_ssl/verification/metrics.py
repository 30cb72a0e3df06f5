"""Verification metrics: one written definition each, float64, tied scores merged, bad input refused.

Accept a trial if its score >= threshold. P_miss is the share of target trials below the threshold, P_fa the share of
non-target trials at or above it. There is one operating point per *distinct* score and one at +inf, so the order of the
trials can never matter. Infinite scores are ordered values; NaN is an error.

EER          where P_miss = P_fa on the straight lines between neighbouring operating points
ROCCH-EER    the same on the convex hull of the operating points; never above the EER, nor above 1/2
minDCF       min over the operating points of (c_miss p P_miss + c_fa (1-p) P_fa) / min(c_miss p, c_fa (1-p)); at most 1
actDCF       that cost at the Bayes threshold ln(c_fa (1-p) / (c_miss p)), scores read as natural-log likelihood ratios
Cllr         [mean over targets log2(1 + e^-s) + mean over non-targets log2(1 + e^s)] / 2, in bits, scores read likewise
minCllr      Cllr after the best monotone map of the scores (pool adjacent violators)
AUC          P(target > non-target) + P(equal) / 2
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError

Point = tuple[float, float, float]  # p_target, c_miss, c_fa
POINTS: tuple[Point, ...] = ((0.01, 1, 1), (0.05, 1, 1))
BLOCK = 1 << 18  # scores handled at once: they stay in the cache


class Curve(NamedTuple):
    """(K,) each: operating points from accept-all to reject-all (threshold +inf)."""

    threshold: np.ndarray
    misses: np.ndarray  # targets below the threshold, int64
    false_alarms: np.ndarray  # non-targets at or above it, int64

    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """() -> (K,) P_miss, (K,) P_fa."""
        return self.misses / self.misses[-1], self.false_alarms / self.false_alarms[0]


def check(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(N,) numbers, (N,) 0 or 1 -> (N,) float64, or float32 as they came, and (N,) bool; else InputError says why."""
    try:
        scores, given = np.asarray(scores), np.asarray(labels)
        if scores.dtype != np.float32:
            scores = scores.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"scores must be numbers: {error}") from error
    if scores.ndim != 1 or scores.shape != given.shape:
        raise InputError(f"one label a score is needed, but scores are {scores.shape} and labels {given.shape}")
    if not scores.size:
        raise InputError("no trials: there is nothing to measure")
    target = given if given.dtype == bool else given == 1
    if given.dtype != bool and (bad := ~(target | (given == 0))).any():
        label = given[bad.argmax()].tolist() if given.dtype != object else given[bad.argmax()]
        raise InputError(f"label {label!r} at trial {bad.argmax() + 1}: labels must be 1 (target) or 0 (non-target)")
    if np.isnan(scores).any():
        raise InputError(f"the score of trial {np.isnan(scores).argmax() + 1} is NaN ({np.isnan(scores).sum()} in all)")
    for value, name in ((True, "target"), (False, "non-target")):
        if not (target == value).any():
            raise InputError(f"no {name} trial (label {value:d}): error rates need both kinds")
    return scores + np.float32(0), target  # + 0: -0.0 and 0.0 are one value


def operating_points(scores: ArrayLike, labels: ArrayLike) -> Curve:
    """(N,), (N,) -> Curve of (K + 1,), K the number of distinct scores.

    >>> operating_points([0.1, 0.5, 0.5, 0.9], [0, 0, 1, 1])
    Curve(threshold=array([0.1, 0.5, 0.9, inf]), misses=array([0, 0, 1, 2]), false_alarms=array([2, 1, 0, 0]))
    """
    scores, target = check(scores, labels)
    ordered, target = _ascending(scores, target)
    last = _last(ordered)
    misses = np.append(0, np.cumsum(target)[last])
    rejected = np.append(0, last + 1) - misses
    return Curve(np.append(ordered[last], np.inf), misses, rejected[-1] - rejected)


def _ascending(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,), (N,) -> both in the order of the scores. Of float32 score and label are sorted as one whole number."""
    if scores.dtype != np.float32:
        order = np.argsort(scores)
        return scores[order], target[order]
    packed = _flipped(scores.view(np.int32)).astype(np.int64)
    packed *= 2
    packed += target
    packed.sort()
    return _flipped((packed >> 1).astype(np.int32)).view(np.float32), (packed & 1).astype(bool)


def _flipped(bits: np.ndarray) -> np.ndarray:
    """(N,) bits of float32 -> (N,) int32 that rise where they do; and back again."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)  # of two negative numbers the greater has the smaller bits


def tie_blocks(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) -> (N,) ascending order, (K,) position in it of the last trial of each distinct score."""
    order = np.argsort(scores)
    return order, _last(scores[order])


def _last(ordered: np.ndarray) -> np.ndarray:
    """(N,) ascending -> (K,) position of the last of each distinct value."""
    return np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))


def decisive_points(
    scores: ArrayLike, labels: ArrayLike, points: Sequence[Point] = POINTS, few: int = 100_000
) -> Curve:
    """(N,), (N,) -> the part of the Curve that the EER and the least cost at each of `points` are found on, exactly.

    Trials are counted in buckets of neighbouring scores. What a bucket's best point could cost is bounded by the counts
    below and above it, so few buckets have to be sorted. Not more than `few` trials are sorted whole.
    """
    scores, target = check(scores, labels)
    if len(scores) <= few:
        return operating_points(scores, target)
    bucket, count = _buckets(scores, target)
    below = np.cumsum(count, axis=1) - count
    kept = _decisive(below, count, points)
    chosen = np.flatnonzero(kept[bucket])
    order, last = tie_blocks(scores[chosen])
    chosen = chosen[order]
    sorted_out = below - (np.cumsum(count * kept, axis=1) - count * kept)  # left out below each bucket, of both kinds
    first = np.append(0, last[:-1] + 1)
    misses = np.append(0, np.cumsum(target[chosen]))[first]
    lower = np.stack([misses, first - misses]) + sorted_out[:, bucket[chosen[first]]]
    totals = count.sum(axis=1)
    return Curve(
        np.append(scores[chosen[first]], np.inf), np.append(lower[0], totals[0]), np.append(totals[1] - lower[1], 0)
    )


def _buckets(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,), (N,) -> (N,) uint16 that never fall where scores rise; (2, 65536) targets and non-targets of each."""
    bucket, count = np.empty(len(scores), np.uint16), np.zeros(1 << 17, np.int64)
    for start in range(0, len(scores), BLOCK):
        block = slice(start, start + BLOCK)
        with np.errstate(over="ignore"):  # to infinity, which is in order
            bits = _flipped(scores[block].astype(np.float32, copy=False).view(np.int32)) >> 16
        bits += 1 << 15
        bucket[block] = bits
        count += np.bincount(2 * bits + ~target[block], minlength=1 << 17)
    return bucket, count.reshape(-1, 2).T


def _decisive(below: np.ndarray, count: np.ndarray, points: Sequence[Point]) -> np.ndarray:
    """(2, B) targets and non-targets below each bucket and in it -> (B,) whether it may hold a decisive point."""
    used = np.flatnonzero(count.any(axis=0))
    totals = count.sum(axis=1)
    p_miss, p_fa = below[0, used] / totals[0], (totals[1] - below[1, used]) / totals[1]  # of a bucket's first point
    past = int(np.searchsorted(p_miss - p_fa, 0.0))
    decisive = np.zeros(len(used), bool)
    decisive[[0, past - 1, min(past, len(used) - 1)]] = True  # the first holds the totals, the others the crossing
    for point in points:
        reached = min(float(normalised_cost(p_miss, p_fa, point).min()), float(normalised_cost(1.0, 0.0, point)))
        decisive |= normalised_cost(p_miss, np.append(p_fa[1:], 0.0), point) <= reached
    kept = np.zeros(count.shape[1], bool)
    kept[used[decisive]] = True
    return kept


def eer(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """(N,), (N,) -> equal error rate, its threshold.

    Any threshold between the two operating points round the crossing serves; given is their middle (the point itself
    where it is met exactly, the finite end where the other is infinite).

    >>> eer([0.2, 0.3, 0.6, 0.4, 0.8, 0.9], [0, 0, 0, 1, 1, 1])
    (0.3333333333333333, 0.6)
    """
    rate, low, high = _eer(decisive_points(scores, labels, ()))
    return rate, _middle(low, high)


def _eer(curve: Curve) -> tuple[float, float, float]:
    """Curve -> rate, and the two thresholds between which it lies."""
    p_miss, p_fa = curve.rates()
    rate, k = crossing(p_miss, p_fa)
    high = float(curve.threshold[k])
    return rate, high if p_miss[k] == p_fa[k] else float(curve.threshold[k - 1]), high


def crossing(p_miss: np.ndarray, p_fa: np.ndarray) -> tuple[float, int]:
    """(K,), (K,) from (0, 1) to (1, 0) -> the rate where they are equal, the first point at or past it."""
    k = int(np.searchsorted(p_miss - p_fa, 0.0))
    before, after = p_fa[k - 1] - p_miss[k - 1], p_miss[k] - p_fa[k]
    step = p_miss[k] - p_miss[k - 1]
    return float(p_miss[k - 1] + before / (before + after) * step), k


def _middle(low: float, high: float) -> float:
    if low == high:
        return low
    if math.isinf(low) or math.isinf(high):
        return next((end for end in (low, high) if math.isfinite(end)), 0.0)
    return low / 2 + high / 2  # each halved first: their sum may overflow


def rocch_eer(scores: ArrayLike, labels: ArrayLike) -> float:
    """(N,), (N,) -> equal error rate on the convex hull of the operating points.

    >>> rocch_eer([0.5, 0.1, 0.9], [1, 0, 0])
    0.3333333333333333
    """
    return crossing(*hull(operating_points(scores, labels)).rates())[0]


def hull(curve: Curve) -> Curve:
    """Curve -> the operating points that are corners of its lower convex hull; counts, so exact."""
    kept = np.arange(len(curve.misses))
    while len(kept) > 2:  # whoever lies on or above the chord of its neighbours is no corner
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
    dx, dy = np.diff(x), np.diff(y)
    return np.concatenate([[True], dx[:-1] * dy[1:] - dy[:-1] * dx[1:] > 0, [True]])


def _cross(x: list[int], y: list[int], a: int, b: int, c: int) -> int:
    return (x[b] - x[a]) * (y[c] - y[b]) - (y[b] - y[a]) * (x[c] - x[b])


def min_dcf(
    scores: ArrayLike, labels: ArrayLike, p_target: float, c_miss: float = 1, c_fa: float = 1
) -> tuple[float, float]:
    """(N,), (N,) -> least normalised detection cost, its threshold (+inf: reject all).

    >>> min_dcf([0.2, 0.3, 0.6, 0.4, 0.8, 0.9], [0, 0, 0, 1, 1, 1], p_target=0.01)
    (0.3333333333333333, 0.8)
    """
    point = (p_target, c_miss, c_fa)
    curve = decisive_points(scores, labels, [point])
    cost = normalised_cost(*curve.rates(), point)
    return float(cost.min()), float(curve.threshold[cost.argmin()])


def normalised_cost(p_miss: Any, p_fa: Any, point: Point) -> np.ndarray:
    """(K,), (K,) -> (K,) normalised detection cost."""
    miss, fa = _weights(point)
    return (miss / min(miss, fa)) * p_miss + (fa / min(miss, fa)) * p_fa


def _weights(point: Point) -> tuple[float, float]:
    """An operating point -> what a miss and a false alarm weigh at it."""
    p, c_miss, c_fa = point
    if not (0 < p < 1 and 0 < c_miss < math.inf and 0 < c_fa < math.inf):
        raise InputError(f"p_target must lie between 0 and 1 and costs above 0, not {p:g}, {c_miss:g}, {c_fa:g}")
    return c_miss * p, c_fa * (1 - p)


def act_dcf(scores: ArrayLike, labels: ArrayLike, p_target: float, c_miss: float = 1, c_fa: float = 1) -> float:
    """(N,) natural-log likelihood ratios, (N,) -> normalised detection cost at the Bayes threshold.

    >>> act_dcf([-2.0, 3.0, 2.0, 4.0], [0, 0, 1, 1], p_target=0.5)
    0.5
    """
    scores, target = check(scores, labels)
    miss, fa = _weights((p_target, c_miss, c_fa))
    threshold = np.float64(math.log(fa / miss))  # not rounded to float32 beside float32 scores
    p_miss, p_fa = np.mean(scores[target] < threshold), np.mean(scores[~target] >= threshold)
    return float(normalised_cost(p_miss, p_fa, (p_target, c_miss, c_fa)))


def cllr(scores: ArrayLike, labels: ArrayLike) -> float:
    """(N,) natural-log likelihood ratios, (N,) -> bits; finite wherever the definition is.

    >>> cllr([0.0, 0.0], [0, 1])
    1.0
    """
    scores, target = check(scores, labels)
    costs = np.logaddexp(0, -scores[target]).mean() + np.logaddexp(0, scores[~target]).mean()
    return float(costs / (2 * math.log(2)))


def min_cllr(scores: ArrayLike, labels: ArrayLike) -> float:
    """(N,), (N,) -> Cllr in bits after the best monotone map of the scores.

    >>> min_cllr([1, 2, 3], [0, 0, 1])
    0.0
    """
    return _min_cllr(hull(operating_points(scores, labels)))


def _min_cllr(hull: Curve) -> float:
    # Pool adjacent violators = the hull: a side with t targets and n non-targets has the ratio (t / T) / (n / N).
    target, nontarget = np.diff(hull.rates()[0]), -np.diff(hull.rates()[1])
    mixed = (target > 0) & (nontarget > 0)
    target, nontarget = target[mixed], nontarget[mixed]
    bits = target * np.log1p(nontarget / target) + nontarget * np.log1p(target / nontarget)
    return float(bits.sum() / (2 * math.log(2)))


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """(N,), (N,) -> probability that a target trial scores above a non-target one, ties counting one half.

    >>> auc([0.1, 0.5, 0.5, 0.9], [0, 0, 1, 1])
    0.875
    """
    return _auc(operating_points(scores, labels))


def _auc(curve: Curve) -> float:
    below = 2 * curve.false_alarms[0] - curve.false_alarms[:-1] - curve.false_alarms[1:]  # twice, ties halved
    return float((np.diff(curve.misses) * below).sum() / (2 * curve.misses[-1] * curve.false_alarms[0]))


def point_name(point: Point) -> str:
    """(p_target, c_miss, c_fa) -> the key it has in results: "0.01", or "0.01,10,1" where the costs are not 1."""
    p, c_miss, c_fa = point
    return f"{p:g}" if c_miss == c_fa == 1 else f"{p:g},{c_miss:g},{c_fa:g}"


def evaluate(scores: ArrayLike, labels: ArrayLike, points: Sequence[Point] = POINTS) -> dict:
    """(N,), (N,) -> every metric of this module by name; the module's docstring defines them.

    >>> evaluate([0.2, 0.3, 0.6, 0.4, 0.8, 0.9], [0, 0, 0, 1, 1, 1])["min_dcf"]
    {'0.01': 0.3333333333333333, '0.05': 0.3333333333333333}
    """
    scores, target = check(scores, labels)
    curve = operating_points(scores, target)
    corners = hull(curve)
    return {
        **_headline(curve, points),
        "eer_rocch": crossing(*corners.rates())[0],
        "act_dcf": {point_name(point): act_dcf(scores, target, *point) for point in points},
        "cllr": cllr(scores, target),
        "min_cllr": _min_cllr(corners),
        "auc": _auc(curve),
        "tied": 1 - (len(curve.threshold) - 1) / len(scores),  # share of trials whose score another one has already
    }


def headline(scores: ArrayLike, labels: ArrayLike, points: Sequence[Point] = POINTS) -> dict:
    """(N,), (N,) -> counts, EER and minDCFs as in `evaluate`, without sorting all scores: a fraction of one sort.

    >>> headline([0.2, 0.3, 0.6, 0.4, 0.8, 0.9], [0, 0, 0, 1, 1, 1])["eer"]
    0.3333333333333333
    """
    return _headline(decisive_points(scores, labels, points), points)


def _headline(curve: Curve, points: Sequence[Point]) -> dict:
    rate, low, high = _eer(curve)
    costs = {point_name(point): normalised_cost(*curve.rates(), point) for point in points}
    return {
        "n_target": int(curve.misses[-1]),
        "n_nontarget": int(curve.false_alarms[0]),
        "eer": rate,
        "eer_threshold": _middle(low, high),
        "eer_threshold_between": [low, high],
        "min_dcf": {name: float(cost.min()) for name, cost in costs.items()},
        "min_dcf_threshold": {name: float(curve.threshold[cost.argmin()]) for name, cost in costs.items()},
    }
