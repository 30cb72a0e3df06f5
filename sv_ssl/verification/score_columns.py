"""The columns that a calibration maps to likelihood ratios: scores of several systems, side information on trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError
from sv_ssl.verification.trials import Trials

LONGEST = 20.0  # seconds beyond which more speech tells no more


def join(systems: Sequence[Trials], reference: Trials | None = None) -> np.ndarray:
    """Return the scores of K files of the same N trials, (N, K), in the order of `reference`, or of the first file.

    >>> x, y = np.array([0, 1]), np.array([1, 2])
    >>> a = Trials("a.txt", "", "", ["i", "j", "k"], x, y, labels=None, scores=np.array([0.1, 0.2]))
    >>> b = Trials("b.txt", "", "", ["i", "j", "k"], x[::-1], y[::-1], labels=None, scores=np.array([5.0, 6.0]))
    >>> join([a, b]).tolist()
    [[0.1, 6.0], [0.2, 5.0]]
    """
    reference = systems[0] if reference is None else reference
    number: dict[str, int] = {}
    wanted = _pairs(reference, number)
    return np.stack([_aligned(system, _pairs(system, number), reference, wanted) for system in systems], axis=1)


def _pairs(trials: Trials, number: dict[str, int]) -> np.ndarray:
    """Return a number for each trial's pair of ids, (N,) int64; `number` numbers the ids of all files."""
    codes = np.array([number.setdefault(i, len(number)) for i in trials.ids], np.int64)
    return codes[trials.enroll] << 32 | codes[trials.test]


def _aligned(system: Trials, pairs: np.ndarray, reference: Trials, wanted: np.ndarray) -> np.ndarray:
    """Return a system's scores in the order of the reference; InputError where the trials are not the same.

    M trials and (M,) pairs, N trials and (N,) pairs -> (N,)
    """
    if system.scores is None:
        raise InputError(f"{system.name} has no scores: wanted lines such as `enroll test 0.73`")
    order = np.argsort(pairs, kind="stable")
    ordered = pairs[order]
    first = np.append(True, ordered[1:] != ordered[:-1])
    twice = np.append(False, ~first[1:] & (system.scores[order][1:] != system.scores[order][:-1]))
    _refuse(system, order[twice], f"of {system.name} are listed again with another score")
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    _refuse(reference, np.flatnonzero(ordered[at] != wanted), f"of {reference.name} are missing from {system.name}")
    first[at] = False
    _refuse(system, order[first], f"of {system.name} are missing from {reference.name}")
    if system.labels is not None and reference.labels is not None:
        other = np.flatnonzero(system.labels[order[at]] != reference.labels)
        _refuse(reference, other, f"of {reference.name} have the other label in {system.name}")
    return system.scores[order[at]]


def _refuse(trials: Trials, bad: np.ndarray, what: str) -> None:
    """Raise InputError if there are bad trials, given by their positions."""
    if len(bad):
        pair = f"{trials.ids[trials.enroll[bad.min()]]} {trials.ids[trials.test[bad.min()]]}"
        raise InputError(f"{len(bad):,} of {len(trials.enroll):,} trials {what}, the first: {pair}")


def quality_columns(trials: Trials, qualities: Mapping[str, ArrayLike]) -> tuple[np.ndarray, list[str]]:
    """Return the least and the greatest of both sides for each quality, and the columns' names.

    N trials over U utterances, M qualities of (U,) -> (N, 2 M), 2 M names

    >>> trials = Trials("list", "", "", ["a", "b", "c"], np.array([0, 1]), np.array([1, 2]), None, None)
    >>> quality_columns(trials, {"duration": [2.0, 1.0, 3.0]})
    (array([[1., 2.],
           [1., 3.]]), ['min duration', 'max duration'])
    """
    columns, names = [], []
    for name, quality in qualities.items():
        values = np.asarray(quality, np.float64)
        if values.shape != (len(trials.ids),):
            raise InputError(f"{name}: {values.shape} values for {len(trials.ids):,} utterances of {trials.name}")
        if not np.isfinite(values).all():
            bad = int(np.isfinite(values).argmin())
            raise InputError(f"the {name} of {trials.ids[bad]} is {values[bad]}, wanted a finite number")
        sides = values[trials.enroll], values[trials.test]
        columns += [np.minimum(*sides), np.maximum(*sides)]
        names += [f"min {name}", f"max {name}"]
    return np.reshape(columns, (len(columns), len(trials.enroll))).T, names


def log_durations(seconds: ArrayLike) -> np.ndarray:
    """Return the natural logarithms of lengths in seconds, those above 20 s as 20 s: (U,) -> (U,).

    >>> np.exp(log_durations([5, 40])).round(6).tolist()
    [5.0, 20.0]
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # `quality_columns` names utterances without a length
        return np.log(np.minimum(seconds, LONGEST))
