"""Where there is speech. A detector is any callable `(wave, rate) -> regions`; this one goes by energy alone.

It hears no difference between speech and other sounds that stand out of a steady background as much: use it on
recordings of people talking, or pass a better detector.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sv_ssl.data.rttm import Region

Detector = Callable[[np.ndarray, int], list[Region]]  # (T,) float32, its rate -> disjoint regions in order, in seconds
FRAME, HOP = 0.15, 0.01  # seconds
QUIET, LOUD = 10, 99  # percentiles of the frames' levels: the background, the speech
LEAST_DB, MOST_DB = 10.0, 50.0  # no speech if it stands out less; what is deeper than that counts as that deep
SHARE = 0.3  # of the way from the background to the speech lies the threshold
PAUSE, SHORTEST = 0.5, 0.2  # seconds: gaps that are closed, regions that are dropped


def energy(wave: np.ndarray, rate: int) -> list[Region]:
    """Find the regions of (T,) float32 whose level is above a threshold of this very recording.

    The background is the level that a tenth of the frames (0.15 s, every 0.01 s) do not exceed, speech the one that a
    hundredth does. The threshold lies three tenths of the decibels above the background. Where both are less than 10 dB
    apart, as in silence or in steady noise, there is no speech. Frames are long, so a region begins and ends up to
    0.08 s outside of what is loud. Gaps below 0.5 s are closed, then regions below 0.2 s are dropped.

    >>> wave = 0.001 * np.random.default_rng(0).standard_normal(48000).astype(np.float32)
    >>> wave[16000:32000] += np.sin(np.arange(16000))
    >>> [(round(start, 1), round(stop, 1)) for start, stop in energy(wave, 16000)]
    [(0.9, 2.1)]
    """
    level = _levels(wave, rate)
    if not len(level):
        return []
    quiet, loud = np.percentile(level, [QUIET, LOUD])
    if loud - quiet < LEAST_DB:
        return []
    quiet = max(quiet, loud - MOST_DB)
    return _regions(level > quiet + SHARE * (loud - quiet), len(wave) / rate)


def _levels(wave: np.ndarray, rate: int) -> np.ndarray:
    """Measure the level of each whole frame of (T,) samples: (F,) dB; digital silence is -200."""
    frame = round(FRAME * rate)
    begins = (np.arange(max(0, int((len(wave) - frame) / (HOP * rate)) + 1)) * (HOP * rate)).round().astype(int)
    if not len(begins):
        return np.zeros(0)
    power = np.cumsum(np.append(0.0, np.square(wave - wave.mean(), dtype=np.float64)))
    return 10 * np.log10((power[begins + frame] - power[begins]) / frame + 1e-20)


def _regions(speech: np.ndarray, seconds: float) -> list[Region]:
    """Return the regions between the middles of frames of (F,) bool, in a recording of so many seconds."""
    change = np.flatnonzero(np.diff(speech, prepend=False, append=False))
    times = change * HOP + FRAME / 2
    times[change == 0], times[change == len(speech)] = 0.0, seconds
    inner = times[1:-1].reshape(-1, 2)
    closed = inner[inner[:, 1] - inner[:, 0] >= PAUSE].ravel()
    spans = np.concatenate([times[:1], closed, times[-1:]]).reshape(-1, 2).round(3)
    return [Region(start, stop) for start, stop in spans.tolist() if stop - start >= SHORTEST]
