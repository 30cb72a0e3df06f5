"""Audio files: read any part of one as 16 kHz mono float32, and write one. The one place that knows codecs.

Reads WAV, FLAC, Ogg (Vorbis, Opus) and MP3 through libsndfile, by seeking: a crop costs the same in a file of any
length. Samples are those of a whole read: bit for bit in WAV, FLAC and Ogg/Vorbis, within 1e-5 in MP3, within 0.01 and
40 dB below the recording in Ogg/Opus, whose decoder starts 80 ms early and has not quite settled. Many parts of one
file are read on from each to the next (`parts`), since to seek in an MP3 means to look through it from its beginning.

What becomes of unusual files; each error is an `AudioError` of that kind, with the path and the fault in one line:

| file                                                      | outcome                                             |
|-----------------------------------------------------------|-----------------------------------------------------|
| other rate, several channels                              | resampled to `rate`, mean of the channels           |
| 24-bit, float, 8-bit samples                              | read as float32                                     |
| segment shorter than the crop                             | repeated up to the crop's length                    |
| absent, dangling link                                     | "missing"                                           |
| folder, no permission, text renamed to .wav, broken header| "unreadable"                                        |
| no bytes, no samples, stop not after start                | "empty"                                             |
| WAV header promises more than the file holds              | "truncated" when opened without `stop`              |
| fewer samples than `stop`                                 | "truncated"                                         |
| FLAC or MP3 cut or damaged                                | "truncated" once a read reaches the damage          |
| Ogg cut                                                   | a shorter file: "truncated" if `stop` asks for more |
| no length in the header (streamed FLAC)                   | "unreadable"                                        |
| NaN or infinity in what is read                           | "nan"                                               |
| no sample above one 16-bit step in what is read           | "silent", unless `strict` is off                    |
| segment below MIN_SECONDS                                 | "short", unless `strict` is off                     |
| part above `longest`                                      | "long"                                              |
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np
import soundfile

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
MIN_SECONDS = 0.1
STEP = np.float32(2**-15)  # of a 16-bit sample
STREAMED = 0x7FFFF000  # programs that write into a pipe promise this many bytes or more: no promise at all


class AudioError(InputError):
    """One line on what is wrong with an audio file; `kind` is its row in the table above."""

    def __init__(self, text: str, kind: str = "unreadable"):
        super().__init__(text)
        self.kind = kind


class AudioInfo(NamedTuple):
    """A file's own sample rate, its samples per channel and its channels."""

    rate: int
    frames: int
    channels: int


def info(path: str | os.PathLike) -> AudioInfo:
    """Rate, length and channels, from the header alone.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/tone.wav"
    >>> write(path, np.sin(np.arange(800) / 5), rate=8000)
    >>> info(path)
    AudioInfo(rate=8000, frames=800, channels=1)
    """
    with _open(path) as sound:
        _bounds(sound, path, 0, None)
        return AudioInfo(sound.samplerate, sound.frames, sound.channels)


def read(
    path: str | os.PathLike, start: int = 0, stop: int | None = None, rate: int = 16000, strict: bool = True
) -> np.ndarray:
    """Samples `start` to `stop` (the file's own) -> (T,) float32, mono, at `rate`; `strict` refuses short and silent.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/tone.wav"
    >>> write(path, np.sin(np.arange(8000) / 5), rate=8000)
    >>> read(path, start=2000, stop=6000).shape
    (8000,)
    """
    (part,) = parts(path, [(start, stop)], rate, strict)
    if isinstance(part, AudioError):
        raise part
    return part


def parts(
    path: str | os.PathLike,
    spans: Iterable[tuple[int, int | None]],
    rate: int = 16000,
    strict: bool = True,
    longest: float = np.inf,
) -> Iterator[np.ndarray | AudioError]:
    """Samples of each (start, stop) -> (T,) float32 as `read` gives it, or the error that `read` raises.

    One part is in memory at a time, and parts that overlap may share it. Those in order are read on, without seeking.
    None may have more than `longest` seconds.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/ramp.wav"
    >>> write(path, np.arange(16000) / 32768, rate=16000)
    >>> [len(part) for part in parts(path, [(0, 4000), (2000, 6000), (12000, None)])]
    [4000, 4000, 4000]
    """
    with _Track(path) as track:
        for start, stop in spans:
            try:
                wave, file_rate = track.take(start, stop, strict, longest)
                part = _checked(_resample(wave, file_rate, rate)[None], path, (start, stop), strict)[0]
            except AudioError as error:
                yield error
            else:
                yield part


def crops(
    path: str | os.PathLike,
    start: int,
    stop: int | None,
    fractions: Sequence[float] | np.ndarray,
    n_samples: int,
    rate: int = 16000,
    strict: bool = True,
) -> tuple[np.ndarray, AudioInfo]:
    """Crops of samples `start` to `stop` (the file's own) -> (V, n_samples) float32, mono, at `rate`; and the info.

    Crop v leaves `fractions[v]` of what the segment has to spare before it; a segment shorter than a crop is repeated.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/ramp.wav"
    >>> write(path, np.arange(16000) / 32768, rate=16000)
    >>> views, _ = crops(path, 0, 16000, fractions=[0.0, 0.5, 1.0], n_samples=4000)
    >>> (views[:, 0] * 32768).tolist()
    [0.0, 6000.0, 12000.0]
    """
    with _open(path) as sound:
        stop = _bounds(sound, path, start, stop, strict)
        about = AudioInfo(sound.samplerate, sound.frames, sound.channels)
        need = min(-(-n_samples * about.rate // rate), stop - start)
        begins = [start + round(fraction * (stop - start - need)) for fraction in fractions]
        rows = _rows(sound, path, begins, need)
    views = np.stack([_fit(_resample(row, about.rate, rate), n_samples) for row in rows])
    return _checked(views, path, (start, stop), strict), about


def write(path: str | os.PathLike, wave: np.ndarray, rate: int) -> None:
    """(T,) in [-1, 1] -> a 16-bit .wav or .flac, or an .ogg (Vorbis), by the path's ending; louder is clipped.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/a.flac"
    >>> write(path, np.full(1600, 0.5), rate=16000)
    >>> float(read(path)[0])
    0.5
    """
    kind = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}.get(
        os.path.splitext(path)[1].lower()
    )
    wave = np.asarray(wave, dtype=np.float32)
    if kind is None:
        raise InputError(f"{path}: want a path ending in .wav, .flac or .ogg to write audio")
    if wave.ndim != 1 or len(wave) == 0 or not np.isfinite(wave).all():
        raise InputError(f"{path}: want one channel of finite samples to write, got an array of shape {wave.shape}")
    steps = np.rint(wave / STEP).clip(-(2**15), 2**15 - 1).astype(np.int16)  # libsndfile would round down
    with aside(path) as temporary:
        try:
            with soundfile.SoundFile(os.fsencode(temporary), "w", rate, 1, kind[1], format=kind[0]) as sound:
                for begin in range(0, len(steps), 65536):  # the Vorbis encoder overflows its stack on long blocks
                    sound.write(steps[begin : begin + 65536])
        except RuntimeError as error:
            raise InputError(f"cannot write {path}: {error}") from error


def find(folder: str | os.PathLike[str]) -> list[str]:
    """The audio files below a folder, as sorted relative paths with `/`; hidden ones are left out.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write(folder + "/b/2.wav", np.ones(10), rate=16000)
    >>> write(folder + "/a.flac", np.ones(10), rate=16000)
    >>> find(folder)
    ['a.flac', 'b/2.wav']
    """
    found = []
    for base, folders, names in os.walk(os.fspath(folder), followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(base, folder).replace(os.sep, "/")
        found += [
            name if below == "." else f"{below}/{name}"
            for name in names
            if name.lower().endswith(AUDIO_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


class _Track:
    """A file that stays open from part to part."""

    def __init__(self, path: str | os.PathLike):
        self.path, self.begin, self.kept = path, 0, np.zeros(0, np.float32)  # kept: samples from `begin` on
        self.sound: soundfile.SoundFile | None = None  # which stands where what is kept ends

    def __enter__(self) -> _Track:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.sound is not None:
            self.sound.close()
        self.sound, self.kept = None, self.kept[:0]

    def take(self, start: int, stop: int | None, strict: bool, longest: float) -> tuple[np.ndarray, int]:
        """-> (T,) at the file's rate, which is the other."""
        if self.sound is None:
            self.sound = _open(self.path)
        stop, rate = _bounds(self.sound, self.path, start, stop, strict), self.sound.samplerate
        if stop - start > longest * rate:
            raise AudioError(
                f"{self.path}: {(stop - start) / rate:,.0f} s is too long, want at most {longest:,g} s", "long"
            )
        try:
            self._advance(self.sound, start, stop)
        except AudioError:
            self.__exit__()  # a decoder that met damage is not to be trusted with the next part
            raise
        return self.kept[start - self.begin : stop - self.begin], rate

    def _advance(self, sound: soundfile.SoundFile, start: int, stop: int) -> None:
        """Samples `start` to `stop` are kept afterwards."""
        end = self.begin + len(self.kept)
        if len(self.kept) and self.begin <= start <= end:
            if stop > end:
                more = _take(sound, self.path, end, stop - end, seek=False)
                self.begin, self.kept = start, np.concatenate([self.kept[start - self.begin :], more])
            return
        if len(self.kept) and start > end and sound.format == "OGG":  # where it would seek wrongly: see _rows
            sound.close()
            self.sound = sound = _open(self.path)
        self.begin, self.kept = start, _take(sound, self.path, start, stop - start)


def _open(path: Any) -> soundfile.SoundFile:
    """A path, or a file in memory, from its beginning. As bytes a name may be of any encoding."""
    try:
        if isinstance(path, (str, bytes, os.PathLike)):
            return soundfile.SoundFile(os.fsencode(path))
        path.seek(0)
        return soundfile.SoundFile(path)
    except (RuntimeError, TypeError, OSError, ValueError) as error:
        raise _unopened(str(path), error) from None


def _unopened(path: str, error: Exception) -> AudioError:
    if not os.path.exists(path):
        return AudioError(f"{path}: no such file", "missing")
    if os.path.isdir(path):
        return AudioError(f"{path}: is a folder, want an audio file", "unreadable")
    if not os.access(path, os.R_OK):
        return AudioError(f"{path}: no permission to read it", "unreadable")
    if os.path.getsize(path) == 0:
        return AudioError(f"{path}: is empty, it has no bytes", "empty")
    return AudioError(f"{path}: not readable as WAV, FLAC, Ogg, Opus or MP3: {_reason(error)}", "unreadable")


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "error_string", error)).split()).rstrip(".")


def _bounds(
    sound: soundfile.SoundFile, path: str | os.PathLike, start: int, stop: int | None, strict: bool = False
) -> int:
    """`stop`, or the file's end; refuses a part that the file does not hold."""
    if sound.frames == 0:
        raise AudioError(f"{path}: is empty, it has no samples", "empty")
    if sound.frames >= 2**62:
        raise AudioError(f"{path}: its header gives no length: write the file anew", "unreadable")
    if stop is None:
        _refuse_broken_promise(sound, path)
        stop = sound.frames
    if not 0 <= start < stop:
        raise AudioError(f"{path}: no samples from start {start} to stop {stop}", "empty")
    if stop > sound.frames:
        raise AudioError(f"{path}: truncated: has {sound.frames} samples, but stop is {stop}", "truncated")
    if strict and stop - start < MIN_SECONDS * sound.samplerate:
        raise AudioError(
            f"{path}: {(stop - start) / sound.samplerate:.3f} s is too short, want at least {MIN_SECONDS} s", "short"
        )
    return stop


def _refuse_broken_promise(sound: soundfile.SoundFile, path: str | os.PathLike) -> None:
    """libsndfile takes a WAV that was cut for a shorter one, and says so in its log alone."""
    if not sound.format.startswith("WAV"):
        return
    promise = re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
    if promise and int(promise[2]) < int(promise[1]) < STREAMED:
        raise AudioError(
            f"{path}: truncated: its header promises {promise[1]} bytes of samples, the file has {promise[2]}",
            "truncated",
        )


def _rows(sound: soundfile.SoundFile, path: str | os.PathLike, begins: list[int], need: int) -> list[np.ndarray]:
    """The (need,) samples from each of `begins`: in one read where the crops overlap enough."""
    first, last = min(begins), max(begins) + need
    if last - first <= len(begins) * need:
        span = _take(sound, path, first, last - first)
        return [span[begin - first : begin - first + need] for begin in begins]
    # From the last to the first: after a read, libsndfile 1.2.2 seeks wrongly to a near later place in Ogg/Vorbis.
    rows = {begin: _take(sound, path, begin, need) for begin in sorted(begins, reverse=True)}
    return [rows[begin] for begin in begins]


def _take(sound: soundfile.SoundFile, path: str | os.PathLike, start: int, n: int, seek: bool = True) -> np.ndarray:
    """(n,) float32, the mean of the channels. 16-bit samples are scaled here, twice as fast as in libsndfile."""
    dtype = "int16" if sound.subtype == "PCM_16" else "float32"
    try:
        if seek:
            sound.seek(start)
        block = sound.read(n, dtype=dtype, always_2d=True)
    except RuntimeError as error:
        raise AudioError(
            f"{path}: truncated or damaged between samples {start} and {start + n}: {_reason(error)}", "truncated"
        ) from None
    if len(block) < n:
        raise AudioError(
            f"{path}: truncated: it ends at sample {start + len(block)}, but its header promises {sound.frames}",
            "truncated",
        )
    if dtype == "int16":
        block = np.multiply(block, STEP, dtype=np.float32)
    return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)


def _resample(wave: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    if rate_in == rate_out:
        return wave
    from scipy.signal import resample_poly  # a slow import that most files do not need

    common = gcd(rate_in, rate_out)
    up, down = rate_out // common, rate_in // common
    return resample_poly(wave, up, down, window=_low_pass(max(up, down)))


@lru_cache(maxsize=16)
def _low_pass(factor: int) -> np.ndarray:
    """Ten zero crossings on each side under a Kaiser window; designing it costs more than using it."""
    from scipy.signal import firwin

    return firwin(20 * factor + 1, 1 / factor, window=("kaiser", 5.0)).astype(np.float32)


def _fit(wave: np.ndarray, n_samples: int) -> np.ndarray:
    return wave[:n_samples] if len(wave) >= n_samples else np.resize(wave, n_samples)  # np.resize repeats


def _checked(views: np.ndarray, path: str | os.PathLike, span: tuple[int, int | None], strict: bool) -> np.ndarray:
    """(V, T) as it came, unless a row has NaN or infinity, or is silent where that is refused."""
    peaks = np.maximum(views.max(axis=1), -views.min(axis=1))
    if not np.isfinite(peaks).all():
        raise AudioError(f"{path}: NaN or infinite samples between {span[0]} and {span[1]}", "nan")
    if strict and peaks.min() <= STEP:
        raise AudioError(
            f"{path}: silent: a part of samples {span[0]} to {span[1]} does not exceed one 16-bit step", "silent"
        )
    return views
