"""Confidence intervals and paired tests: speakers are drawn with replacement, the errors are measured anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError, check_number
from sv_ssl.core.progress import watched
from sv_ssl.core.seeds import stream
from sv_ssl.verification.error_curve import (
    POINTS,
    Point,
    check,
    crossing,
    normalised_cost,
    point_name,
    tie_blocks,
)
from sv_ssl.verification.metrics import headline


def intervals(
    scores: ArrayLike,
    labels: ArrayLike,
    enroll_speakers: ArrayLike,
    test_speakers: ArrayLike,
    points: Sequence[Point] = POINTS,
    n: int = 1000,
    seed: int = 0,
) -> dict:
    """Return 95 % intervals of the EER and of each point's minDCF, named as in `metrics.evaluate`: (N,) each -> dict.

    >>> intervals([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], ["a", "b", "a", "b"], ["b", "a", "a", "b"])["eer"]
    [0.0, 0.0]
    """
    values = bootstrap(scores, labels, enroll_speakers, test_speakers, points, n, seed)
    ends = {name: list(percentiles(value)) for name, value in values.items()}
    return {"eer": ends.pop("eer"), "min_dcf": ends, "n": n, "seed": seed}


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """Return the 2.5th and the 97.5th percentile, replicates without a value (NaN) left out: (n,) -> (), ()."""
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
    """Measure "eer" and each point's minDCF `n` times, speakers drawn with replacement: (N,) each -> (n,) each.

    A speaker drawn m times counts m times on both sides: a trial of speakers a, b weighs m_a m_b, one of a speaker with
    himself m_a. Trials of one speaker are kept or dropped together, so the interval is as wide as it must be. Where
    speakers are unknown give utterances: better than single trials, still too narrow. NaN marks a replicate without a
    target or a non-target trial. The same seed draws the same speakers: two systems can be compared in pairs.
    """
    check_number("the number of resamplings", n, at_least=1, whole=True)
    scores, target = check(scores, labels)
    order, last = tie_blocks(scores)
    first, second, pair = _speaker_pairs(enroll_speakers, test_speakers, len(scores))
    pair, target = pair[order], target[order].astype(np.float64)
    rng, n_speakers = stream(seed, "bootstrap of speakers"), int(second.max()) + 1
    values = np.full((n, 1 + len(points)), np.nan)
    for i in watched(range(n), "resampling", " replicates", few=0 if len(scores) > 50_000 else n):
        copies = np.bincount(rng.integers(0, n_speakers, n_speakers), minlength=n_speakers)
        weight = np.where(first == second, copies[first], copies[first] * copies[second]).astype(np.float64)[pair]
        rates = _weighted_rates(weight, target, last)
        if rates is not None:
            values[i] = [crossing(*rates)[0], *(normalised_cost(*rates, point).min() for point in points)]
    return dict(zip(["eer", *map(point_name, points)], values.T))


def _speaker_pairs(enroll: ArrayLike, test: ArrayLike, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the speakers, and the distinct pairs of them.

    (N,), (N,) names -> (P,), (P,) speakers of each pair, the second never below the first; (N,) pair of each trial
    """
    try:
        names, codes = np.unique(np.concatenate([enroll, test]), return_inverse=True)
    except (TypeError, ValueError) as error:
        raise InputError(f"speakers must be names or numbers, in two lists: {error}") from None
    enroll, test = np.asarray(enroll), np.asarray(test)
    if not len(enroll) == len(test) == n or enroll.ndim > 1:
        raise InputError(f"{n} trials but {len(enroll)} enrolment and {len(test)} test speakers: wanted one for each")
    sides = np.sort(codes.reshape(2, n).astype(np.int64), axis=0)
    pairs, pair = np.unique(sides[0] * len(names) + sides[1], return_inverse=True)
    return pairs // len(names), pairs % len(names), pair.reshape(-1)


def _weighted_rates(weight: np.ndarray, target: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return P_miss and P_fa of weighted trials; None if one kind has no weight.

    (N,) weights and (N,) of 0 or 1, ascending by score; (K,) ends of tie blocks -> (K + 1,), (K + 1,)
    """
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
    """Test the first system against the second on the same trials: (N,) scores of each -> {metric: result}.

    A result has "difference", the first's metric minus the second's; "ci", its 95 % interval over the same draws of
    speakers for both; and "p", twice the share of draws with the rarer sign, (1 + those) / (1 + n), at most 1; a
    difference of 0 counts for both signs.

    >>> both = [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], ["a", "b", "a", "b"], ["b", "a", "a", "b"]
    >>> compare([0.1, 0.85, 0.8, 0.9], *both)["eer"]["difference"]
    0.5
    """
    replicates = [bootstrap(s, labels, enroll_speakers, test_speakers, points, n, seed) for s in (first, second)]
    measured = [headline(s, labels, points) for s in (first, second)]
    values = [{"eer": report["eer"], **report["min_dcf"]} for report in measured]
    return {
        name: _compared(values[0][name] - values[1][name], replicates[0][name] - replicates[1][name])
        for name in values[0]
    }


def _compared(difference: float, replicates: np.ndarray) -> dict[str, float | list[float]]:
    """Return the difference of a metric with its interval and p: (), (n,) differences of the replicates."""
    valid = replicates[~np.isnan(replicates)]
    rarer = int(min((valid <= 0).sum(), (valid >= 0).sum()))
    p = min(1.0, 2 * (1 + rarer) / (1 + len(valid)))
    return {"difference": difference, "ci": list(percentiles(replicates)), "p": p}
