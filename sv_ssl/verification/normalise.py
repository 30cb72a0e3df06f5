"""Score normalisation: a score is measured by what its two utterances score against a cohort of other speakers.

e: enrolment, t: test, s: the cosine of e and t; mean and standard deviation (population) of the cosines of e with the
cohort, or of t with the cohort:

z    (s - mean_e) / sd_e
t    (s - mean_t) / sd_t
s    [z + t] / 2
as   [z + t] / 2, mean_e and sd_e over the top_n highest cosines of e only, mean_t and sd_t over those of t (AS-norm 1)

All rows have length one. Call in this order: `apart`, perhaps `speaker_means`, `statistics`, `normalise`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import first_few
from sv_ssl.verification.trial_lines import TrialText, read_text
from sv_ssl.verification.trials import Trials, speakers

SIDES = {"z": ["enroll"], "t": ["test"], "s": ["enroll", "test"], "as": ["enroll", "test"]}  # whose statistics are used
BLOCK = 256  # rows scored at once: memory does not grow with the list
GROUPS = 4  # groups for each of the top_n highest: of 2 to 8 about the fastest
LEAST_SD = 1e-6  # below it float32 cosines differ by rounding only
WANTED = "wanted lines of `utterance speaker`"
SHOWN = 3  # ids named in one message

Moments = tuple[np.ndarray, np.ndarray]  # (N,), (N,) float64: mean and standard deviation


def normalise(scores: np.ndarray, trials: Trials, mean: np.ndarray, sd: np.ndarray, method: str) -> np.ndarray:
    """Normalise the scores of T trials over U utterances by the statistics of their cohort scores.

    (T,) scores, (U,) means, (U,) standard deviations, "z", "t", "s" or "as" -> (T,) of the scores' type

    >>> enroll, test = np.array([0]), np.array([1])
    >>> trials = Trials("list", "", "", ["a", "b"], enroll, test, None, None)
    >>> normalise(np.array([0.9]), trials, mean=np.array([0.1, 0.5]), sd=np.array([0.2, 0.1]), method="s")
    array([4.])
    """
    if method not in SIDES:
        raise InputError(f"scores are normalised by {', '.join(SIDES)}, not {method!r}")
    sides = [getattr(trials, side) for side in SIDES[method]]
    for side in sides:
        flat = side[sd[side] < LEAST_SD]
        if flat.size:
            raise InputError(
                f"{trials.name}: all cohort scores of {trials.ids[flat[0]]} are equal (standard deviation "
                f"{sd[flat[0]]:.1g}, {len(np.unique(flat)):,} such utterances), so its scores have no scale: "
                "is the cohort one recording many times over? take another, or more of its scores"
            )
    return np.mean([(scores - mean[side]) / sd[side] for side in sides], axis=0).astype(scores.dtype)


def statistics(rows: np.ndarray, cohort: np.ndarray, top_n: int | None = None) -> Moments:
    """Return the mean and the standard deviation of each row's cosines with a cohort.

    (U, D), (C, D) float32 rows of length one -> (U,), (U,) float64; over the `top_n` highest cosines of each row, over
    all of them without `top_n` or where the cohort has no more.

    >>> statistics(np.float32([[1, 0]]), np.float32([[1, 0], [0, 1], [-1, 0]]), top_n=2)
    (array([0.5]), array([0.5]))
    """
    if rows.shape[1] != cohort.shape[1]:
        sizes = f"{rows.shape[1]} dimensions and those of the cohort {cohort.shape[1]}"
        raise InputError(f"the embeddings have {sizes}: both must come from one model")
    if len(cohort) < 2:
        raise InputError(f"a cohort of at least 2 embeddings (or speakers' means) is needed, there are {len(cohort)}")
    if top_n is not None and top_n < 2:
        raise InputError(f"top_n is {top_n}: a standard deviation needs at least 2 cohort scores")
    moments = _of_all(cohort) if top_n is None or top_n >= len(cohort) else _of_highest(cohort, top_n)
    means, sds = zip(*[moments(rows[start : start + BLOCK]) for start in range(0, len(rows), BLOCK)])
    return np.concatenate(means), np.concatenate(sds)


def _of_all(cohort: np.ndarray) -> Callable[[np.ndarray], Moments]:
    """Return a function from (N, D) to the moments over all C cosines, none of which is computed.

    With the cohort's mean m and covariance V, a row r has the mean r'm and the variance r'Vr.
    """
    centre = cohort.mean(0, dtype=np.float64)
    covariance = np.zeros((len(centre), len(centre)))
    for start in range(0, len(cohort), BLOCK):
        centred = cohort[start : start + BLOCK] - centre
        covariance += centred.T @ centred / len(cohort)

    def moments(rows: np.ndarray) -> Moments:
        variance = np.einsum("nd,nd->n", rows @ covariance, rows)
        return rows @ centre, np.sqrt(np.maximum(variance, 0))

    return moments


def _of_highest(cohort: np.ndarray, top_n: int) -> Callable[[np.ndarray], Moments]:
    """Return a function from (N, D) to the moments over each row's top_n highest cosines."""

    def moments(rows: np.ndarray) -> Moments:
        highest = _highest(rows @ cohort.T, top_n)
        return highest.mean(1, dtype=np.float64), highest.std(1, dtype=np.float64)

    return moments


def _highest(values: np.ndarray, n: int) -> np.ndarray:
    """Return the n highest values of each row, in any order: (N, C) -> (N, n)."""
    rows, width = values.shape
    size = width // (GROUPS * n)
    if size < 2:
        return np.partition(values, width - n, axis=1)[:, width - n :]
    # n groups have a maximum of at least the n-th highest maximum, so n values at least are no less than that.
    maxima = values[:, : size * GROUPS * n].reshape(rows, size, GROUPS * n).max(1)
    least = np.partition(maxima, -n, axis=1)[:, -n, None]
    row, column = np.divmod(np.flatnonzero(values >= least), width)
    counts = np.bincount(row, minlength=rows)
    place = np.arange(len(row)) - np.cumsum(counts)[row]  # below 0: from the end
    survivors = np.full((rows, counts.max()), -np.inf, values.dtype)
    survivors[row, place] = values[row, column]
    return np.partition(survivors, -n, axis=1)[:, -n:]


# --- the cohort -------------------------------------------------------------------------------------------------------


def apart(
    ids: Sequence[str], trials: Trials, known: Mapping[str, str] | None = None, enrolled: Iterable[str] = ()
) -> np.ndarray:
    """Return which of C cohort ids are neither in the list nor of one of its speakers: (C,) bool.

    known     speaker of each utterance; besides, ids tell the speakers where those of the list do
    enrolled  the utterances of which models are made, if the list names models

    >>> pairs = dict(enroll=np.array([0, 0]), test=np.array([1, 2]), labels=np.array([True, False]))
    >>> trials = Trials("list", "", "", ["a/1", "a/2", "b/1"], **pairs, scores=None)
    >>> apart(["a/3", "ab/1", "c/1"], trials)
    array([False,  True,  True])
    """
    known = known or {}
    listed, named = {*trials.ids, *enrolled}, set(speakers(trials) or [])
    theirs = {known[i] for i in listed if i in known}
    in_list = np.array([i in listed for i in ids], dtype=bool)
    of_speaker = np.array([known.get(i) in theirs or not named.isdisjoint(_beginnings(i)) for i in ids], dtype=bool)
    keep = ~(in_list | of_speaker)
    if not keep.any():
        raise InputError(
            f"nothing is left of the cohort: of its {len(ids):,} utterances {in_list.sum():,} are in {trials.name} "
            f"and {(of_speaker & ~in_list).sum():,} more are of its speakers; take a cohort of other speakers"
        )
    return keep


def _beginnings(utterance: str) -> list[str]:
    """Return what `trials.speakers` may call the speaker of an utterance: a/b-1 -> a/, a/b-, a/b-1."""
    return list(accumulate(re.split(r"(?<=[/_-])", utterance)))


def speaker_means(
    ids: Sequence[str], rows: np.ndarray, known: Mapping[str, str] | None = None
) -> tuple[list[str], np.ndarray]:
    """Return the S speakers and the mean of each one's rows, of length one again: C ids, (C, D) -> (S, D) float32.

    The speaker is what `known` says, or without it the id's beginning up to the first /.

    >>> speaker_means(["b/1", "a/1", "a/2"], np.float32([[1, 0], [1, 0], [0, 1]]))
    (['a', 'b'], array([[0.70710677, 0.70710677],
           [1.        , 0.        ]], dtype=float32))
    """
    speaker_of = {i: i.split("/")[0] for i in ids if i.find("/") > 0} if known is None else known
    unknown = [i for i in ids if i not in speaker_of]
    if unknown:
        cure = "begin ids with `speaker/`, or pass a file" if known is None else "complete the file"
        who = f"{len(unknown):,} of {len(ids):,} cohort utterances have no known speaker ({first_few(unknown, SHOWN)})"
        raise InputError(f"{who}: {cure} of `utterance speaker` lines")
    names, speaker = np.unique([speaker_of[i] for i in ids], return_inverse=True)
    order = np.argsort(speaker)
    means = np.add.reduceat(rows[order], np.searchsorted(speaker[order], range(len(names))), dtype=np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", means, means))
    if (lengths < LEAST_SD).any():
        name = names[lengths.argmin()]
        raise InputError(f"the embeddings of cohort speaker {name} cancel out: leave them out or use no means")
    return names.tolist(), (means / lengths[:, None]).astype(np.float32)


def read_speakers(path: str | os.PathLike) -> dict[str, str]:
    """Read the speaker of each utterance from `utterance speaker` lines (Kaldi's utt2spk)."""
    name, data, _ = read_text(path, WANTED)
    known: dict[str, str] = {}
    for number, text in chain(*TrialText(name, data).blocks()):
        fields = [field.decode() for field in text.split()]
        if len(fields) != 2:
            raise InputError(f"{path}:{number}: {len(fields)} columns where `utterance speaker` are expected")
        if known.setdefault(*fields) != fields[1]:
            raise InputError(f"{path}:{number}: {fields[0]} is of {fields[1]} here, of {known[fields[0]]} above")
    if not known:
        raise InputError(f"{path}: empty: {WANTED}")
    return known
