"""Who spoke when: speech regions -> windows -> embeddings -> clusters -> turns.

Every part can be replaced: the detector of speech (`vad.Detector`), what embeds windows, and what clusters embeddings.
Turns of different speakers never overlap: overlapped speech goes to one of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.data.rttm import Region, Turn, common, merged
from sv_ssl.data.sources import Utterance, check_windows, cut
from sv_ssl.diarization.vad import Detector
from sv_ssl.embeddings import extraction
from sv_ssl.embeddings.extractor import device_of
from sv_ssl.models.embedder import Embedder

WINDOW, HOP, LEAST, LEAST_HOP = 1.5, 0.75, 0.5, 0.01  # seconds
BEYOND = 0.5  # seconds that a region may reach past the end of its recording
BLOCK = 600  # seconds given to a detector at once
RATE = 16000  # what a detector hears
BATCH = 32  # windows that pass a GPU together

EmbedWindows = Callable[[str, np.ndarray, np.ndarray], np.ndarray]  # path, (W,) starts, (W,) stops in s -> (W, D)
Cluster = Callable[[np.ndarray], np.ndarray]  # (W, D) -> (W,) ints


def diarize(
    path: str | os.PathLike,
    regions: Sequence[Region],
    embed_windows: EmbedWindows,
    cluster: Cluster,
    window: float = WINDOW,
    hop: float = HOP,
) -> list[Turn]:
    """Return the turns of spk1, spk2, ... in a recording's speech regions, in order; spk1 speaks first.

    Rows of `embed_windows` that are not finite mark windows that cannot be embedded, such as digital silence: these
    go to the speaker beside them, and a region without any other gets no turn.
    """
    about = audio.info(path)
    regions = _inside(regions, about.frames / about.rate, path)
    starts, stops, home = windows(regions, about.frames / about.rate, window, hop)
    if not len(starts):
        return []
    rows = embed_windows(str(path), starts, stops)
    usable = np.isfinite(rows).all(axis=1)
    labels = cluster(rows[usable])
    return turns(regions, home[usable], ((starts + stops) / 2)[usable], labels)


def detect(path: str | os.PathLike, detector: Detector) -> list[Region]:
    """Find the speech regions of a recording of any length, of which at most ten minutes are in memory at once."""
    about = audio.info(path)
    blocks = -(-about.frames // (BLOCK * about.rate))
    edges = np.linspace(0, about.frames, blocks + 1).round().astype(int).tolist()
    regions: list[Region] = []
    for begin, end in zip(edges, edges[1:]):
        wave = audio.read(path, begin, end, RATE, strict=False)
        offset = begin / about.rate
        regions += [Region(offset + start, offset + stop) for start, stop in detector(wave, RATE)]
    return merged(regions)


def windows(
    regions: Sequence[Region],
    seconds: float,
    window: float = WINDOW,
    hop: float = HOP,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut regions of a recording of `seconds` into windows: (W,) starts and stops in seconds, (W,) the region's number.

    Windows stand every `hop` from the start of a region as long as they fit; where they do not reach its end, a last
    one ends there. A region shorter than a window is one window of its length, and one shorter than 0.5 s is widened
    to that about its middle. All to a millisecond.

    >>> starts, stops, home = windows([Region(0, 2.5), Region(4, 5), Region(9.9, 10)], seconds=10)
    >>> starts.tolist(), stops.tolist(), home.tolist()
    ([0.0, 0.75, 1.0, 4.0, 9.5], [1.5, 2.25, 2.5, 5.0, 10.0], [0, 0, 0, 1, 2])
    """
    check_windows(window, hop, LEAST, LEAST_HOP)
    spans = []
    for number, (start, stop) in enumerate(regions):
        lack = max(0.0, LEAST - (stop - start))
        start = max(0.0, min(start - lack / 2, seconds - LEAST))
        stop = min(max(stop, start + LEAST), seconds)
        spans += [
            (begin, end, number)
            for begin, end in cut(round(1000 * start), round(1000 * stop), 1000 * window, 1000 * hop)
        ]
    every = np.array(spans, np.int64).reshape(-1, 3)
    return every[:, 0] / 1000, every[:, 1] / 1000, every[:, 2]


def turns(regions: Sequence[Region], home: np.ndarray, centres: np.ndarray, labels: np.ndarray) -> list[Turn]:
    """Make turns of windows: (W,) the number of the region, (W,) centres in seconds, (W,) the speaker's label.

    Neighbouring windows of one speaker are one turn; speakers change half-way between the centres of two windows.

    >>> turns([Region(0, 4), Region(6, 7)], np.array([0, 0, 0, 1]), np.array([1, 2, 3, 6.5]), np.array([7, 7, 2, 2]))
    ... # doctest: +NORMALIZE_WHITESPACE
    [Turn(start=0, stop=2.5, speaker='spk1'), Turn(start=2.5, stop=4, speaker='spk2'),
     Turn(start=6, stop=7, speaker='spk2')]
    """
    names: dict[int, str] = {}
    for label in labels.tolist():
        names.setdefault(label, f"spk{len(names) + 1}")
    made: list[Turn] = []
    first = np.searchsorted(home, np.arange(len(regions) + 1))
    for (start, stop), begin, end in zip(regions, first, first[1:]):
        if begin == end:
            continue
        changes = begin + 1 + np.flatnonzero(np.diff(labels[begin:end]))
        times = [start, *((centres[changes - 1] + centres[changes]) / 2).round(3).tolist(), stop]
        speakers = [names[label] for label in labels[[begin, *changes]].tolist()]
        made += [Turn(*turn) for turn in zip(times, times[1:], speakers)]
    return made


def embedded_by(embedder: Embedder, progress: bool = False) -> EmbedWindows:
    """Return what embeds each window alone and unpadded; a digitally silent one gets NaN."""
    options = extraction.Options(batch=1 if device_of(embedder).type == "cpu" else BATCH)

    def embed_windows(path: str, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        about = audio.info(path)
        samples = (np.stack([starts, stops], axis=1) * about.rate).round().astype(int).clip(0, about.frames).tolist()
        utterances = [Utterance(str(number), path, *span) for number, span in enumerate(samples)]
        extracted = extraction.extract(embedder, utterances, options, progress=progress)
        if faults := [skipped for skipped in extracted.skipped if skipped.kind != "silent"]:
            raise audio.AudioError(faults[0].reason, faults[0].kind)
        rows = np.full((len(utterances), embedder.dim), np.nan, np.float32)
        rows[[int(number) for number in extracted.ids]] = extracted.rows[:, 0]
        return rows

    return embed_windows


def _inside(regions: Sequence[Region], seconds: float, path: str | os.PathLike) -> list[Region]:
    """Return the union of regions up to the recording's end, if it is likely to be their recording."""
    union = merged(regions)
    if union and union[-1].stop > seconds + BEYOND:
        raise InputError(
            f"{path} has {seconds:.2f} s, but a speech region lasts until {union[-1].stop:.2f} s: pass "
            "the regions of this recording"
        )
    return common(union, [Region(0.0, seconds)])
