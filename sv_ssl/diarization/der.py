"""The diarization error rate from its components, as md-eval and pyannote.metrics have it.

Time is cut where any turn begins or ends. In a piece with r reference and h hypothesised speakers, of whom c are the
same people after the mapping, and which is s seconds long:

    total += s r    miss += s max(0, r - h)    false alarm += s max(0, h - r)    confusion += s (min(r, h) - c)
    DER = (miss + false alarm + confusion) / total;  without any reference speech 0 if there is no error, else 1

The mapping pairs each hypothesised speaker with at most one of the reference so that the seconds spoken by both are
the most, over the whole recording. Rates of several recordings come from the sums of their seconds.

uem           regions that count; all time without
collar        seconds on either side of each start and end of a reference turn that do not count (md-eval's -c; the
              collar of pyannote.metrics is the whole width, twice that)
skip_overlap  time in which several reference speakers talk does not count

A speaker whose turns overlap each other talks once there; pyannote.metrics counts it as often as there are turns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.data.rttm import Region, Turn, merged


class Errors(NamedTuple):
    """Seconds in error."""

    total: float  # of reference speech, each speaker counted
    miss: float
    false_alarm: float
    confusion: float

    @property
    def rate(self) -> float:
        """Return the diarization error rate.

        >>> Errors(total=40.0, miss=2.0, false_alarm=1.0, confusion=3.0).rate
        0.15
        """
        return self.share(self.miss + self.false_alarm + self.confusion)

    def share(self, seconds: float) -> float:
        """Return seconds as a share of the reference speech; where there is none, 0 if they are 0, else 1."""
        return seconds / self.total if self.total else float(seconds > 0)

    def text(self) -> str:
        """Return all of it in one line.

        >>> Errors(total=40.0, miss=2.0, false_alarm=1.0, confusion=3.0).text()
        'DER 15.00 % (miss 5.00, false alarm 2.50, confusion 7.50) of 40.0 s'
        """
        parts = [100 * self.share(part) for part in self[1:]]
        return (
            f"DER {100 * self.rate:.2f} % (miss {parts[0]:.2f}, false alarm {parts[1]:.2f}, confusion "
            f"{parts[2]:.2f}) of {self.total:.1f} s"
        )


def pooled(parts: Iterable[Errors]) -> Errors:
    """Add up the errors of several recordings.

    >>> pooled([Errors(10.0, 1.0, 0.0, 0.0), Errors(30.0, 0.0, 2.0, 3.0)]).rate
    0.15
    """
    return Errors(*(math.fsum(column) for column in zip(*parts, Errors(0, 0, 0, 0))))


def errors(
    reference: Sequence[Turn],
    hypothesis: Sequence[Turn],
    uem: Sequence[Region] | None = None,
    collar: float = 0.0,
    skip_overlap: bool = False,
) -> Errors:
    """Measure the seconds in error of the turns of one recording, hypothesised against true.

    >>> errors([Turn(0, 10, "ann"), Turn(10, 14, "bob")], [Turn(0, 9, "1"), Turn(9, 15, "2")])
    Errors(total=14.0, miss=0.0, false_alarm=1.0, confusion=1.0)
    """
    true, guessed, seconds = _pieces(reference, hypothesis, uem, collar, skip_overlap)
    shared = (true * seconds) @ guessed.T
    r, h = true.sum(axis=0), guessed.sum(axis=0)
    correct = shared[_pairs(shared)].sum()
    return Errors(
        total=float(seconds @ r),
        miss=float(seconds @ (r - h).clip(0)),
        false_alarm=float(seconds @ (h - r).clip(0)),
        confusion=max(0.0, float(seconds @ np.minimum(r, h)) - float(correct)),
    )


def mapping(
    reference: Sequence[Turn],
    hypothesis: Sequence[Turn],
    uem: Sequence[Region] | None = None,
    collar: float = 0.0,
    skip_overlap: bool = False,
) -> dict[str, str]:
    """Return who of the reference each hypothesised speaker is; one without a partner is left out.

    Arguments are those of `errors`, whose confusion follows from this mapping.

    >>> mapping([Turn(0, 10, "ann"), Turn(10, 14, "bob")], [Turn(0, 9, "1"), Turn(9, 15, "2")])
    {'1': 'ann', '2': 'bob'}
    """
    true, guessed, seconds = _pieces(reference, hypothesis, uem, collar, skip_overlap)
    shared = (true * seconds) @ guessed.T
    names, labels = _speakers(reference), _speakers(hypothesis)
    pairs = sorted(zip(*_pairs(shared)), key=lambda pair: pair[1])
    return {labels[j]: names[i] for i, j in pairs if shared[i, j] > 0}


def _pairs(shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair rows and columns of (R, H) seconds so that their sum is the largest."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(shared, maximize=True)


def _pieces(
    reference: Sequence[Turn],
    hypothesis: Sequence[Turn],
    uem: Sequence[Region] | None,
    collar: float,
    skip_overlap: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return who talks in each piece of time, (R, K) and (H, K), and (K,) its seconds, 0 where it does not count."""
    if not 0 <= collar < math.inf:
        raise InputError(f"the collar is {collar}, wanted seconds of 0 or more")
    given: list[Turn | Region] = [*reference, *hypothesis, *(uem or [])]
    for part in given:
        if not -math.inf < part.start <= part.stop < math.inf:  # a turn that ends before it begins would count as none
            raise InputError(f"a part from {part.start} to {part.stop} s: wanted numbers, the start before the end")
    ends = {time for turn in reference for time in turn[:2]}
    collars = [Region(time - collar, time + collar) for time in ends] if collar else []
    every = [*given, *collars]
    edges = np.unique(np.array([time for part in every for time in part[:2]], np.float64))
    true = _talking(reference, edges)
    guessed = _talking(hypothesis, edges)
    counts = ~_covered(collars, edges)
    if uem is not None:
        counts &= _covered(uem, edges)
    if skip_overlap:
        counts &= true.sum(axis=0) < 2
    return true, guessed, np.diff(edges) * counts


def _talking(turns: Sequence[Turn], edges: np.ndarray) -> np.ndarray:
    every = [_covered([turn for turn in turns if turn.speaker == speaker], edges) for speaker in _speakers(turns)]
    return np.array(every, np.int64).reshape(len(every), max(0, len(edges) - 1))


def _speakers(turns: Sequence[Turn]) -> list[str]:
    return sorted({turn.speaker for turn in turns})


def _covered(parts: Sequence[Turn | Region], edges: np.ndarray) -> np.ndarray:
    """Return whether a piece of time lies in any of the parts, (K,) bool."""
    union = np.array(merged(parts), np.float64).reshape(-1, 2)
    begun, ended = (np.searchsorted(union[:, side], edges[:-1], "right") for side in (0, 1))
    return begun > ended
