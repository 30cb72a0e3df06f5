"""The few points of an error curve that decide the EER and the least costs, found without sorting all scores.

`sv_ssl.verification.error_curve.operating_points` is the plain version: both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.verification.error_curve import (
    POINTS,
    Curve,
    Point,
    check,
    normalised_cost,
    operating_points,
    ordered_bits,
    tie_blocks,
)

BLOCK = 1 << 18  # scores handled at once: they stay in the cache


def decisive_points(
    scores: ArrayLike, labels: ArrayLike, points: Sequence[Point] = POINTS, few: int = 100_000
) -> Curve:
    """Return the part of the curve that the EER and the least cost at each of `points` lie on: (N,), (N,) -> Curve.

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
    n_target, n_nontarget = count.sum(axis=1)
    threshold = np.append(scores[chosen[first]], np.inf)
    return Curve(threshold, np.append(lower[0], n_target), np.append(n_nontarget - lower[1], 0))


def _buckets(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each trial's bucket, a number that never falls where scores rise, and the counts in the buckets.

    (N,), (N,) -> (N,) uint16; (2, 65536) targets and non-targets
    """
    bucket, count = np.empty(len(scores), np.uint16), np.zeros(1 << 17, np.int64)
    for start in range(0, len(scores), BLOCK):
        block = slice(start, start + BLOCK)
        with np.errstate(over="ignore"):  # to infinity, which is in order
            bits = ordered_bits(scores[block].astype(np.float32, copy=False).view(np.int32)) >> 16
        bits += 1 << 15
        bucket[block] = bits
        count += np.bincount(2 * bits + ~target[block], minlength=1 << 17)
    return bucket, count.reshape(-1, 2).T


def _decisive(below: np.ndarray, count: np.ndarray, points: Sequence[Point]) -> np.ndarray:
    """Return which buckets may hold a decisive point: (2, B) trials of both kinds below and in each -> (B,) bool."""
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
