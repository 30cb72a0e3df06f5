"""Pairs that a trial list names again, or of an utterance with itself: contradictions are refused, the others noted."""

from __future__ import annotations

import numpy as np

from sv_ssl.verification.trial_lines import Lines, TrialText


def check(text: TrialText, lines: Lines, sides_apart: bool) -> list[str]:
    """Return notes on N lines that repeat a pair, and on pairs of one utterance; InputError where two lines disagree.

    A pair is the same the other way round, unless the ids of the two sides are of different things (`sides_apart`).
    """
    enroll, test, size = lines.enroll, lines.test, len(lines.ids)
    swapped = np.zeros(len(enroll), bool) if sides_apart else enroll > test
    pair = (
        _number(enroll, test, size)
        if sides_apart
        else _number(np.minimum(enroll, test), np.maximum(enroll, test), size)
    )
    again, clashes = _repeats(pair, swapped, lines.labels)
    if clashes or again and lines.scores is not None:
        directed = _number(enroll, test, size)
        _refuse(text, directed, lines.labels, "the pair has the other label on line ")
        _refuse(text, directed, lines.scores, "the pair has another score on line ")
        _refuse(
            text, pair, lines.labels, "the other way round (see --sides-apart) the pair has the other label on line "
        )
    notes = [f"{again:,} trials are listed more than once, and count as often"] if again else []
    return notes if sides_apart else [*notes, *_of_itself(enroll == test, lines.labels)]


def _number(first: np.ndarray, second: np.ndarray, size: int) -> np.ndarray:
    """Return a number for each pair of N codes below `size`: (N,), (N,) -> (N,) int64."""
    number = first.astype(np.int64)
    number *= size
    number += second
    return number


def _repeats(pair: np.ndarray, swapped: np.ndarray, labels: np.ndarray | None) -> tuple[int, bool]:
    """Return how many lines are listed again the same way round, and whether a pair has both labels; in one sort."""
    key = 2 * pair
    key += swapped
    key *= 2
    key += 0 if labels is None else labels
    key.sort()
    change = key[1:] ^ key[:-1]
    key >>= 2
    change = change[key[1:] == key[:-1]]
    return int((change < 2).sum()), bool((change & 1).any())


def _refuse(text: TrialText, pair: np.ndarray, values: np.ndarray | None, reason: str) -> None:
    """Raise InputError if lines of one pair differ in (N,) values; it names each, and the line of that pair before."""
    if values is None:
        return
    order = np.argsort(pair, kind="stable")
    later, before = order[1:], order[:-1]
    clash = (pair[later] == pair[before]) & (values[later] != values[before])
    if clash.any():
        earlier = dict(zip(later[clash].tolist(), before[clash].tolist()))
        numbers = [number for block in text.blocks() for number, _ in block]
        raise text.bad_lines(lambda i, line: f"{reason}{numbers[earlier[i]]}" if i in earlier else "")


def _of_itself(own: np.ndarray, labels: np.ndarray | None) -> list[str]:
    """Return a note if trials compare an utterance with itself: (N,) bool which do."""
    count = int(own.sum())
    if not count:
        return []
    odd = 0 if labels is None else count - int(labels[own].sum())
    wrong = f" ({odd:,} of them as a non-target)" if odd else ""
    return [f"{count:,} trials compare an utterance with itself{wrong}, which says nothing of speakers: leave them out"]
