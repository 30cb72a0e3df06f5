"""Embeddings in Python: `sv_ssl.load(FOLDER)`, then `verify`, `embed` and `windows` of the model.

A recording is the path of an audio file, or `(samples, rate)` with samples (T,), (T, channels) or (channels, T), floats
or integers as WAV files have them. Rates are converted, channels are averaged, and what sv-extract would skip (damaged,
silent, too short) is an `InputError` that says what is wrong. No result depends on what else is embedded with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from sv_ssl.core.errors import InputError, check_number
from sv_ssl.data import sources
from sv_ssl.data.sources import Memory, Utterance
from sv_ssl.embeddings.extraction import Extracted, Options, extract
from sv_ssl.models import folder as model
from sv_ssl.models.embedder import Embedder
from sv_ssl.verification import scoring

Recording = str | os.PathLike | tuple[Any, int]
LONGEST = 36_000.0  # seconds of all crops of a recording, which are in memory together: two gigabytes
FASTEST = 1_000_000  # samples a second
INTEGERS = (np.uint8, np.int16, np.int32)


def load(folder: str | os.PathLike, device: str = "cpu", precision: str = "fp32") -> Model:
    """Load a model folder. `device` is cpu, cuda or cuda:1; `precision` bf16 is faster and keeps three digits."""
    path = os.fspath(folder) if isinstance(folder, (str, os.PathLike)) else None
    if not isinstance(path, str) or "\0" in path:
        raise InputError(f"wanted the path of a model folder, not {folder!r}")
    return Model(model.load(folder, device), precision)


class Model:
    """An embedder that takes recordings of any rate and compares them.

    >>> from sv_ssl.models.resnet import FastResNet34
    >>> from sv_ssl.models.features import LogMel
    >>> untrained = Model(Embedder(LogMel(40), FastResNet34(40, "small")))
    >>> one, other = (np.random.default_rng(seed).normal(size=(16000, 2)) for seed in (0, 1))
    >>> round(untrained.verify((one, 16000), (one, 16000)), 3)
    1.0
    >>> untrained.embed((one, 16000)).shape, untrained.embed([(one, 16000), (other, 44100)]).shape
    ((512,), (2, 512))
    >>> starts, stops, rows = untrained.windows((one, 8000))
    >>> starts, stops, rows.shape
    (array([0. , 0.5]), array([1.5, 2. ]), (2, 512))
    """

    def __init__(self, embedder: Embedder, precision: str = "fp32"):
        Options(precision).check()
        self.embedder = embedder.eval()
        self.precision = precision

    @property
    def dim(self) -> int:
        """How many numbers an embedding has."""
        return self.embedder.dim

    @property
    def sample_rate(self) -> int:
        """The rate of the audio that the model hears; recordings of other rates are converted."""
        return self.embedder.sample_rate

    def verify(self, one: Recording, other: Recording, crops: int = 0, crop_seconds: float = 3.5) -> float:
        """Return the cosine of two recordings, from -1 to 1: the higher, the likelier they are of one speaker.

        With `crops`, the mean of the cosines of all pairs of that many crops of each. A threshold belongs to a corpus:
        `sv-verify --help` shows how to get one.
        """
        crops = _whole("crops", crops, at_most=10_000)
        check_number("crop_seconds", crop_seconds, at_least=0.1, at_most=LONGEST / max(crops, 1))
        utterances = [_utterance(recording) for recording in (one, other)]
        rows = self._extract(utterances, Options(self.precision, crops=crops, crop_seconds=crop_seconds)).rows
        return scoring.crop_score(rows[0], rows[1])

    def embed(self, recordings: Recording | list[Recording], workers: int = 0, progress: bool = False) -> np.ndarray:
        """Embed a recording -> (dim,) float32, or a list of N recordings -> (N, dim) in its order.

        On a CPU a list may be shared by `workers` processes, which pays from some dozens of recordings on; the calling
        script must then stand below `if __name__ == "__main__"`. On a GPU they are threads that read.
        """
        listed = recordings if isinstance(recordings, list) else [recordings]
        utterances = [_utterance(recording) for recording in listed]
        rows = self._extract(utterances, Options(self.precision), workers, progress).rows[:, 0]
        return rows if isinstance(recordings, list) else rows[0]

    def windows(
        self, recording: Recording, window: float = 1.5, hop: float = 0.75, workers: int = 0, progress: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Embed windows of a recording of any length: W starts and stops in seconds, (W, dim) float32.

        Windows stand every `hop` seconds, the last ends where the recording does, and those that are digitally silent
        are left out.
        """
        workers = _whole("workers", workers)
        for name, value in {"window": window, "hop": hop}.items():
            check_number(name, value)
        listed, faults = sources.windows([_utterance(recording)], window, hop)
        if faults:
            raise InputError(faults[0].reason)
        workers = workers if isinstance(listed[0].utterance.wav, str) else 0  # samples would go to them once a window
        utterances = [found.utterance for found in listed]
        extracted = self._extract(utterances, Options(self.precision), workers, progress, skip=("silent",))
        embedded = set(extracted.ids)
        times = np.array([(found.start, found.stop) for found in listed if found.utterance.id in embedded])
        times = times.reshape(-1, 2)
        return times[:, 0], times[:, 1], extracted.rows[:, 0]

    def _extract(
        self,
        utterances: Sequence[Utterance],
        options: Options,
        workers: int = 0,
        progress: bool = False,
        skip: Sequence[str] = (),
    ) -> Extracted:
        """Embed utterances; what cannot be embedded is an error, but for the kinds that may be skipped."""
        workers = _whole("workers", workers)
        extracted = extract(self.embedder, utterances, options, None, workers, progress)
        faults = [skipped.reason for skipped in extracted.skipped if skipped.kind not in skip]
        if faults:
            raise InputError(faults[0])
        return extracted


def _whole(name: str, value: Any, at_most: float | None = None) -> int:
    """Return a whole number of 0 or more, numpy's too, as Python's."""
    value = int(value) if isinstance(value, np.integer) else value
    check_number(name, value, at_least=0, at_most=at_most, whole=True)
    return value


def _utterance(recording: Recording) -> Utterance:
    """Return a path, or samples as a file in memory, as what is extracted."""
    if isinstance(recording, (str, os.PathLike)):
        return Utterance(os.fspath(recording), os.fspath(recording))
    if not (isinstance(recording, tuple) and len(recording) == 2):
        raise InputError(f"a recording is a path or (samples, rate), not {type(recording).__name__}")
    return Utterance("samples", _memory(*recording))


def _memory(samples: Any, rate: int) -> Memory:
    """Write samples to a WAV file in memory, so that they go the way of all recordings."""
    from scipy.io import wavfile

    try:
        wave = np.asarray(samples)
    except (ValueError, TypeError, RuntimeError) as error:  # a ragged list, or a tensor that is not to be read
        raise InputError(f"samples that are no array: {str(error).partition(chr(10))[0]}") from error
    wave = wave.T if wave.ndim == 2 and wave.shape[0] < wave.shape[1] else wave
    if wave.ndim not in (1, 2) or not (wave.dtype.kind == "f" or wave.dtype in INTEGERS):
        raise InputError(
            f"samples of shape {wave.shape} and type {wave.dtype}: wanted (T,) or (T, channels), floats, "
            f"or integers as WAV files have them ({', '.join(kind.__name__ for kind in INTEGERS)})"
        )
    if not isinstance(rate, (int, float, np.integer, np.floating)) or not 0 < rate <= FASTEST or rate != int(rate):
        raise InputError(f"a sample rate of {rate}: wanted a whole number of samples a second, {FASTEST:,} at most")
    file = Memory()
    wavfile.write(file, int(rate), wave.astype(np.float32) if wave.dtype.kind == "f" else wave)
    return file
