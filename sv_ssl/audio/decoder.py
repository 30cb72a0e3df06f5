"""Open audio files through libsndfile and read samples of them; what is wrong with one is an `AudioError`."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import soundfile

from sv_ssl.core.errors import InputError

VERSION = 1  # of the samples that a file gives: raise it with any change of them, and kept embeddings are made anew
MIN_SECONDS = 0.1
STEP = np.float32(2**-15)  # of a 16-bit sample
STREAMED = 0x7FFFF000  # programs that write into a pipe promise this many bytes or more: no promise at all


class AudioError(InputError):
    """One line on what is wrong with an audio file.

    `kind` is its row in the table of `sv_ssl.audio.io`, `path` the file, where it has one.
    """

    def __init__(self, text: str, kind: str = "unreadable", path: object = ""):
        super().__init__(text)
        self.kind = kind
        self.path = str(path)


def fault(path: object, reason: str, kind: str) -> AudioError:
    """Return the error that names a file before the reason."""
    return AudioError(f"{path}: {reason}", kind, path)


def open_sound(path: Any) -> soundfile.SoundFile:
    """Open a path, or a file in memory from its beginning."""
    try:
        if isinstance(path, (str, bytes, os.PathLike)):
            return soundfile.SoundFile(os.fsencode(path))  # as bytes a name may be of any encoding
        path.seek(0)
        return soundfile.SoundFile(path)
    except (RuntimeError, TypeError, OSError, ValueError) as error:
        raise _cannot_open(str(path), error) from None


def _cannot_open(path: str, error: Exception) -> AudioError:
    if not os.path.exists(path):
        return fault(path, "no such file", "missing")
    if os.path.isdir(path):
        return fault(path, "is a folder, want an audio file", "unreadable")
    if not os.access(path, os.R_OK):
        return fault(path, "no permission to read it", "unreadable")
    if os.path.getsize(path) == 0:
        return fault(path, "is empty, it has no bytes", "empty")
    return fault(path, f"not readable as WAV, FLAC, Ogg, Opus or MP3: {_reason(error)}", "unreadable")


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "error_string", error)).split()).rstrip(".")


def segment_end(
    sound: soundfile.SoundFile, path: str | os.PathLike, start: int, stop: int | None, strict: bool = False
) -> int:
    """Return `stop`, or the file's end; refuse a part that the file does not hold."""
    if sound.frames == 0:
        raise fault(path, "is empty, it has no samples", "empty")
    if sound.frames >= 2**62:
        raise fault(path, "its header gives no length: write the file anew", "unreadable")
    if stop is None:
        _refuse_broken_promise(sound, path)
        stop = sound.frames
    if not 0 <= start < stop:
        raise fault(path, f"no samples from start {start} to stop {stop}", "empty")
    if stop > sound.frames:
        raise fault(path, f"truncated: has {sound.frames} samples, but stop is {stop}", "truncated")
    if strict and stop - start < MIN_SECONDS * sound.samplerate:
        seconds = (stop - start) / sound.samplerate
        raise fault(path, f"{seconds:.3f} s is too short, want at least {MIN_SECONDS} s", "short")
    return stop


def _refuse_broken_promise(sound: soundfile.SoundFile, path: str | os.PathLike) -> None:
    """Refuse a WAV that was cut: libsndfile takes it for a shorter one, and says so in its log alone."""
    if not sound.format.startswith("WAV"):
        return
    promise = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    if promise and int(promise[2]) < int(promise[1]) < STREAMED:
        reason = f"truncated: its header promises {promise[1]} bytes of samples, the file has {promise[2]}"
        raise fault(path, reason, "truncated")


def read_rows(
    sound: soundfile.SoundFile, path: str | os.PathLike, begins: list[int], n_samples: int
) -> list[np.ndarray]:
    """Return the (n_samples,) from each of `begins`: in one read where they overlap enough."""
    first, last = min(begins), max(begins) + n_samples
    if last - first <= len(begins) * n_samples:
        span = read_samples(sound, path, first, last - first)
        return [span[begin - first : begin - first + n_samples] for begin in begins]
    # From the last to the first: after a read, libsndfile 1.2.2 seeks wrongly to a near later place in Ogg/Vorbis.
    rows = {begin: read_samples(sound, path, begin, n_samples) for begin in sorted(begins, reverse=True)}
    return [rows[begin] for begin in begins]


def read_samples(
    sound: soundfile.SoundFile, path: str | os.PathLike, start: int, n_samples: int, seek: bool = True
) -> np.ndarray:
    """Return (n_samples,) float32, the mean of the channels; without `seek` from where the last read ended.

    16-bit samples are scaled here, twice as fast as in libsndfile.
    """
    dtype = "int16" if sound.subtype == "PCM_16" else "float32"
    try:
        if seek:
            sound.seek(start)
        block = sound.read(n_samples, dtype=dtype, always_2d=True)
    except RuntimeError as error:
        reason = f"truncated or damaged between samples {start} and {start + n_samples}: {_reason(error)}"
        raise fault(path, reason, "truncated") from None
    if len(block) < n_samples:
        reason = f"truncated: it ends at sample {start + len(block)}, but its header promises {sound.frames}"
        raise fault(path, reason, "truncated")
    if dtype == "int16":
        block = np.multiply(block, STEP, dtype=np.float32)
    return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)


class Track:
    """A file that stays open from part to part: parts in order are read on, without seeking."""

    def __init__(self, path: str | os.PathLike):
        self.path = path
        self.begin, self.kept = 0, np.zeros(0, np.float32)  # kept: samples from `begin` on
        self.sound: soundfile.SoundFile | None = None  # which stands where what is kept ends

    def __enter__(self) -> Track:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.sound is not None:
            self.sound.close()
        self.sound, self.kept = None, self.kept[:0]

    def take(self, start: int, stop: int | None, strict: bool, longest: float) -> tuple[np.ndarray, int]:
        """Return samples `start` to `stop`, (T,) at the file's rate, and that rate."""
        if self.sound is None:
            self.sound = open_sound(self.path)
        stop, rate = segment_end(self.sound, self.path, start, stop, strict), self.sound.samplerate
        if stop - start > longest * rate:
            reason = f"{(stop - start) / rate:,.0f} s is too long, want at most {longest:,g} s"
            raise fault(self.path, reason, "long")
        try:
            self._advance(self.sound, start, stop)
        except AudioError:
            self.__exit__()  # a decoder that met damage is not to be trusted with the next part
            raise
        return self.kept[start - self.begin : stop - self.begin], rate

    def _advance(self, sound: soundfile.SoundFile, start: int, stop: int) -> None:
        """Read until samples `start` to `stop` are among those kept."""
        end = self.begin + len(self.kept)
        if len(self.kept) and self.begin <= start <= end:
            if stop > end:
                more = read_samples(sound, self.path, end, stop - end, seek=False)
                self.begin, self.kept = start, np.concatenate([self.kept[start - self.begin :], more])
            return
        if len(self.kept) and start > end and sound.format == "OGG":  # where it would seek wrongly: see read_rows
            sound.close()
            self.sound = sound = open_sound(self.path)
        self.begin, self.kept = start, read_samples(sound, self.path, start, stop - start)
