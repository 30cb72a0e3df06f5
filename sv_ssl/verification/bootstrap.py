"""Confidence intervals and paired tests: speakers are drawn with replacement, the errors are measured anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError
from sv_ssl.core.progress import watched
from sv_ssl.verification.metrics import (
    POINTS,
    Point,
    check,
    crossing,
    headline,
    normalised_cost,
    point_name,
    tie_blocks,
)


def intervals(
    scores: ArrayLike,
    labels: ArrayLike,
    enroll_speakers: ArrayLike,
    test_speakers: ArrayLike,
    points: Sequence[Point] = POINTS,
    n: int = 1000,
    seed: int = 0,
) -> dict:
    """(N,) each -> 95 % intervals of the EER and of each point's minDCF, named as in `metrics.evaluate`.

    >>> intervals([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], ["a", "b", "a", "b"], ["b", "a", "a", "b"])["eer"]
    [0.0, 0.0]
    """
    values = bootstrap(scores, labels, enroll_speakers, test_speakers, points, n, seed)
    ends = {name: list(percentiles(value)) for name, value in values.items()}
    return {"eer": ends.pop("eer"), "min_dcf": ends, "n": n, "seed": seed}


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """(n,) replicates -> 2.5th and 97.5th percentile, those without a value (NaN) left out."""
    if np.isnan(values).all():
        raise InputError("no interval: every resampling left no target or no non-target trial (too few speakers)")
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def bootstrap(
    scores: ArrayLike,
    labels: ArrayLike,
    enroll_speakers: ArrayLike,
    test_speakers: ArrayLike,
    points: Sequence[Point] = POINTS,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """(N,) each -> (n,) replicates of "eer" and of each point's minDCF, speakers drawn with replacement.

    A speaker drawn m times brings m copies of himself to both sides: a trial of speakers a, b weighs m_a m_b, one of a
    speaker with himself m_a. Trials of one speaker stand and fall together, so the interval is as wide as it must be.
    Where speakers are unknown give utterances: better than single trials, still too narrow. NaN marks a replicate
    without a target or a non-target trial. The same seed draws the same speakers: two systems can be compared in pairs.
    """
    scores, target = check(scores, labels)
    order, last = tie_blocks(scores)
    first, second, pair = _speaker_pairs(enroll_speakers, test_speakers, len(scores))
    pair, target = pair[order], target[order].astype(np.float64)
    rng, n_speakers = np.random.default_rng(seed), int(second.max()) + 1
    values = np.full((n, 1 + len(points)), np.nan)
    for i in watched(range(n), "resampling", " replicates", few=0 if len(scores) > 50_000 else n):
        copies = np.bincount(rng.integers(0, n_speakers, n_speakers), minlength=n_speakers)
        weight = np.where(first == second, copies[first], copies[first] * copies[second]).astype(np.float64)[pair]
        rates = _weighted_rates(weight, target, last)
        if rates is not None:
            values[i] = [crossing(*rates)[0], *(normalised_cost(*rates, point).min() for point in points)]
    return dict(zip(["eer", *map(point_name, points)], values.T))


def _speaker_pairs(enroll: ArrayLike, test: ArrayLike, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,), (N,) names -> (P,), (P,) speakers of each distinct pair, the second never below the first; (N,) pairs."""
    enroll, test = np.asarray(enroll), np.asarray(test)
    if not len(enroll) == len(test) == n:
        raise InputError(f"{n} trials but {len(enroll)} enrolment and {len(test)} test speakers")
    names, codes = np.unique(np.concatenate([enroll, test]), return_inverse=True)
    sides = np.sort(codes.reshape(2, n).astype(np.int64), axis=0)
    pairs, pair = np.unique(sides[0] * len(names) + sides[1], return_inverse=True)
    return pairs // len(names), pairs % len(names), pair.reshape(-1)


def _weighted_rates(weight: np.ndarray, target: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(N,) weights, (N,) 0 or 1, ascending by score; (K,) tie blocks -> (K + 1,) P_miss, (K + 1,) P_fa."""
    misses = np.cumsum(weight * target)[last]
    rejected = np.cumsum(weight)[last] - misses
    if not (misses[-1] and rejected[-1]):
        return None
    return np.append(0.0, misses / misses[-1]), np.append(1.0, 1.0 - rejected / rejected[-1])


def compare(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    enroll_speakers: ArrayLike,
    test_speakers: ArrayLike,
    points: Sequence[Point] = POINTS,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float | list[float]]]:
    """(N,) scores of two systems for the same trials -> what the first's EER and minDCFs exceed the second's by.

    For each: "difference", "ci" its 95 % interval over the same draws of speakers for both, and "p", the two-sided
    share of draws in which the sign is another: (1 + those) / (1 + n) of the rarer sign, doubled; ties count as both.

    >>> both = [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], ["a", "b", "a", "b"], ["b", "a", "a", "b"]
    >>> compare([0.1, 0.85, 0.8, 0.9], *both)["eer"]["difference"]
    0.5
    """
    values = [bootstrap(s, labels, enroll_speakers, test_speakers, points, n, seed) for s in (first, second)]
    whole = [headline(s, labels, points) for s in (first, second)]
    whole = [{"eer": w["eer"], **w["min_dcf"]} for w in whole]
    found = {}
    for name, value in whole[0].items():
        moved = values[0][name] - values[1][name]
        ends, drawn = list(percentiles(moved)), moved[~np.isnan(moved)]
        rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
        p = min(1.0, 2 * (1 + int(rarer)) / (1 + len(drawn)))
        found[name] = {"difference": value - whole[1][name], "ci": ends, "p": p}
    return found
