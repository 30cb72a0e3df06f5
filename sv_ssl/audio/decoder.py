"""Open audio files through libsndfile and read samples of them; what is wrong with one is an `AudioError`."""

from __future__ import annotations

import io
import os
import re
from typing import Any

import numpy as np
import soundfile

from sv_ssl.audio import mp3_frames
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import check_ordinary

VERSION = 1  # of the samples that a file gives: raise it with any change of them, and kept embeddings are made anew
MIN_SECONDS = 0.1
STEP = np.float32(2**-15)  # of a 16-bit sample
STREAMED = 0x7FFFF000  # programs that write into a pipe promise this many bytes or more: no promise at all
RATES = range(1_000, 384_001)  # Hz; the filter that turns one into another has up to 20 taps for each
CHANNELS = 256
FEW = 2**26  # samples of all channels, of which there may be as many in a file of any size: 256 MB in float32
# Samples of all channels that a byte can stand for: where a recording is silent, for what is compressed. Of what
# libsndfile reads otherwise GSM has most, five.
DENSEST = {"FLAC": 1000, "OGG": 1000, "MP3": 100}
PLAIN = 8
ADDED = 2 * (
    4095 + 1152
)  # samples that an MP3's encoder may put before and behind a recording, its first frame among them


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
    """Open a path, or a file in memory from its beginning; refuse what its header says of it where that cannot be."""
    try:
        if _is_path(path):
            check_ordinary(path)
            sound = soundfile.SoundFile(os.fsencode(path))  # as bytes a name may be of any encoding
        else:
            path.seek(0)
            sound = soundfile.SoundFile(path)
    except InputError as error:
        raise AudioError(str(error), "unreadable", path) from None
    except (RuntimeError, TypeError, OSError, ValueError) as error:
        raise _cannot_open(path, error) from None
    try:
        _check_header(sound, path)
    except AudioError:
        sound.close()
        raise
    return sound


def _is_path(path: Any) -> bool:
    return isinstance(path, (str, bytes, os.PathLike))


def _check_header(sound: soundfile.SoundFile, path: Any) -> None:
    """Refuse rates and channels that no recording has, and more samples than the file can hold."""
    rate, channels, frames = sound.samplerate, sound.channels, sound.frames
    if rate not in RATES:
        reason = f"its header gives a rate of {rate:,} Hz, want {RATES[0]:,} to {RATES[-1]:,}"
        raise fault(path, reason, "unreadable")
    if channels > CHANNELS:
        raise fault(path, f"its header gives {channels:,} channels, want {CHANNELS} at most", "unreadable")
    if frames >= 2**62:
        raise fault(path, "its header gives no length: write the file anew", "unreadable")
    if frames * channels > FEW:
        size = os.path.getsize(path) if _is_path(path) else path.getbuffer().nbytes
        if frames * channels > size * DENSEST.get(sound.format, PLAIN):
            reason = f"its header promises {frames:,} samples, more than its {size:,} bytes can hold"
            raise fault(path, reason, "truncated")


def _cannot_open(path: Any, error: Exception) -> AudioError:
    if _is_path(path):
        if not os.path.exists(path):
            return fault(path, "no such file", "missing")
        if not os.access(path, os.R_OK):
            return fault(path, "no permission to read it", "unreadable")
        if os.path.getsize(path) == 0:
            return fault(path, "is empty, it has no bytes", "empty")
    return fault(path, f"not readable as WAV, FLAC, Ogg, Opus or MP3: {_reason(error)}", "unreadable")


def _reason(error: Exception) -> str:
    if "SF_INFO struct incomplete" in str(error):
        return "its header gives a sample rate of 0, or one that is none"
    return " ".join(str(getattr(error, "error_string", error)).split()).rstrip(".")


def segment_end(
    sound: soundfile.SoundFile, path: str | os.PathLike, start: int, stop: int | None, strict: bool = False
) -> int:
    """Return `stop`, or the file's end; refuse a part that the file does not hold."""
    if sound.frames == 0:
        raise fault(path, "is empty, it has no samples", "empty")
    if stop is None:
        stop = _length(sound, path)
    if not 0 <= start < stop:
        raise fault(path, f"no samples from start {start} to stop {stop}", "empty")
    if stop > sound.frames:
        raise fault(path, f"truncated: has {sound.frames} samples, but stop is {stop}", "truncated")
    if strict and stop - start < MIN_SECONDS * sound.samplerate:
        seconds = (stop - start) / sound.samplerate
        raise fault(path, f"{seconds:.3f} s is too short, want at least {MIN_SECONDS} s", "short")
    return stop


def _length(sound: soundfile.SoundFile, path: Any) -> int:
    """Return the samples of a channel; refuse a file that has not what it promises, as far as that can be told."""
    if sound.format == "MP3":
        return _length_of_mp3(sound, path)
    if sound.format.startswith("WAV"):  # libsndfile takes one that was cut for a shorter one, and says so in its log
        promise = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
        if promise and int(promise[2]) < int(promise[1]) < STREAMED:
            reason = f"truncated: its header promises {promise[1]} bytes of samples, the file has {promise[2]}"
            raise fault(path, reason, "truncated")
    return sound.frames


def _length_of_mp3(sound: soundfile.SoundFile, path: Any) -> int:
    """Return what a header promises, if the frames hold it; without one what they hold, which libmpg123 has guessed."""
    with open(path, "rb") if _is_path(path) else io.BytesIO(path.getvalue()) as file:
        chain = mp3_frames.follow(file)
    promised = sound.frames
    if chain.broken:
        raise fault(path, f"damaged at byte {chain.broken}: no frame begins there, as one should", "truncated")
    if chain.counted and 0 < chain.samples < promised:
        reason = f"truncated: its header promises {promised} samples, its frames hold {chain.samples}"
        raise fault(path, reason, "truncated")
    if chain.samples > promised + ADDED:
        reason = f"its frames hold {chain.samples} samples, but {promised} are all that can be read: write it anew"
        raise fault(path, reason, "unreadable")
    return min(promised, chain.samples or promised)


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
    except MemoryError:
        reason = f"{n_samples:,} samples of {sound.channels} channels do not fit into memory"
        raise fault(path, reason, "long") from None
    if len(block) < n_samples:
        reason = f"truncated: it ends at sample {start + len(block)}, but its header promises {sound.frames}"
        raise fault(path, reason, "truncated")
    if dtype == "int16":
        block = np.multiply(block, STEP, dtype=np.float32)
    if block.shape[1] == 1:
        return block[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused later, where it is used
        return block.mean(axis=1)


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
