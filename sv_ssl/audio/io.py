"""Read any part of an audio file as mono float32 at 16 kHz, and write one; with `decoder` all that knows codecs.

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
| FIFO, device, socket                                      | "unreadable": never opened                          |
| rate outside of 1 to 384 kHz, more than 256 channels      | "unreadable"                                        |
| header promises more than so many bytes can hold          | "truncated"                                         |
| no bytes, no samples, stop not after start                | "empty"                                             |
| WAV header promises more than the file holds              | "truncated" when opened without `stop`              |
| MP3 without a frame where one should be, or with fewer    | "truncated" when opened without `stop`              |
| frames than its header promises                           |                                                     |
| MP3 of which libmpg123 would read a part: frames of many  | "unreadable" when opened without `stop`             |
| bit rates and no header that counts them, or two files    |                                                     |
| fewer samples than `stop`                                 | "truncated"                                         |
| FLAC damaged or cut, MP3 cut                              | "truncated" once a read reaches the damage          |
| Ogg cut                                                   | a shorter file: "truncated" if `stop` asks for more |
| other samples in place of those of a WAV, or of the body  | read as they are: nothing tells                     |
| of an MP3's frame                                         |                                                     |
| no length in the header (streamed FLAC)                   | "unreadable"                                        |
| NaN or infinity in what is read                           | "nan"                                               |
| no sample above one 16-bit step in what is read           | "silent", unless `strict` is off                    |
| segment below MIN_SECONDS                                 | "short", unless `strict` is off                     |
| part above `longest`, or too long for the memory          | "long"                                              |
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np
import soundfile

from sv_ssl.audio.decoder import (
    STEP,
    AudioError,
    Track,
    fault,
    open_sound,
    read_rows,
    segment_end,
)
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.core.tree import walk

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
WRITTEN = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}


class AudioInfo(NamedTuple):
    """A file's own sample rate, its samples per channel and its channels."""

    rate: int
    frames: int
    channels: int


def info(path: str | os.PathLike) -> AudioInfo:
    """Return rate, length and channels, from the header alone; the length of an MP3 from that of its frames too.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/tone.wav"
    >>> write(path, np.sin(np.arange(800) / 5), rate=8000)
    >>> info(path)
    AudioInfo(rate=8000, frames=800, channels=1)
    """
    with open_sound(path) as sound:
        return AudioInfo(sound.samplerate, segment_end(sound, path, 0, None), sound.channels)


def read(
    path: str | os.PathLike, start: int = 0, stop: int | None = None, rate: int = 16000, strict: bool = True
) -> np.ndarray:
    """Return samples `start` to `stop` (the file's own) as (T,) float32, mono, at `rate`.

    `strict` refuses what is short or silent.

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
    """Yield the samples of each (start, stop) as `read` returns them, (T,) float32, or the error that `read` raises.

    One part is in memory at a time, and parts that overlap may share it. Those in order are read on, without seeking.
    None may have more than `longest` seconds.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/ramp.wav"
    >>> write(path, np.arange(16000) / 32768, rate=16000)
    >>> [len(part) for part in parts(path, [(0, 4000), (2000, 6000), (12000, None)])]
    [4000, 4000, 4000]
    """
    with Track(path) as track:
        for start, stop in spans:
            try:
                wave, file_rate = track.take(start, stop, strict, longest)
                part = _check(_resample(wave, file_rate, rate)[None], path, (start, stop), strict)[0]
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
    """Return crops of samples `start` to `stop` (the file's own), mono, at `rate`, and the file's info.

    The crops are (V, n_samples) float32. Crop v leaves `fractions[v]` of what the segment has to spare before it; a
    segment shorter than a crop is repeated.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/ramp.wav"
    >>> write(path, np.arange(16000) / 32768, rate=16000)
    >>> views, _ = crops(path, 0, 16000, fractions=[0.0, 0.5, 1.0], n_samples=4000)
    >>> (views[:, 0] * 32768).tolist()
    [0.0, 6000.0, 12000.0]
    """
    with open_sound(path) as sound:
        stop = segment_end(sound, path, start, stop, strict)
        about = AudioInfo(sound.samplerate, sound.frames, sound.channels)
        need = min(-(-n_samples * about.rate // rate), stop - start)
        begins = [start + round(fraction * (stop - start - need)) for fraction in fractions]
        rows = read_rows(sound, path, begins, need)
    views = np.stack([fit(_resample(row, about.rate, rate), n_samples) for row in rows])
    return _check(views, path, (start, stop), strict), about


def write(path: str | os.PathLike, wave: np.ndarray, rate: int) -> None:
    """Write (T,) in [-1, 1] to a 16-bit .wav or .flac, or an .ogg (Vorbis), by the path's ending; clip what is louder.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/a.flac"
    >>> write(path, np.full(1600, 0.5), rate=16000)
    >>> float(read(path)[0])
    0.5
    """
    kind = WRITTEN.get(os.path.splitext(path)[1].lower())
    wave = np.asarray(wave, dtype=np.float32)
    if kind is None:
        raise InputError(f"{path}: want a path ending in .wav, .flac or .ogg to write audio")
    if wave.ndim != 1 or len(wave) == 0 or not np.isfinite(wave).all():
        raise InputError(f"{path}: want one channel of finite samples to write, got an array of shape {wave.shape}")
    steps = np.rint(wave / STEP).clip(-(2**15), 2**15 - 1).astype(np.int16)  # libsndfile would round down
    with atomic_write(path) as temporary:
        try:
            with soundfile.SoundFile(os.fsencode(temporary), "w", rate, 1, kind[1], format=kind[0]) as sound:
                for begin in range(0, len(steps), 65536):  # the Vorbis encoder overflows its stack on long blocks
                    sound.write(steps[begin : begin + 65536])
        except RuntimeError as error:
            raise InputError(f"cannot write {path}: {error}") from error


def find(folder: str | os.PathLike[str]) -> list[str]:
    """List the audio files below a folder, as sorted relative paths; `core.tree.walk` says what is left out.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write(folder + "/b/2.wav", np.ones(10), rate=16000)
    >>> write(folder + "/a.flac", np.ones(10), rate=16000)
    >>> find(folder)
    ['a.flac', 'b/2.wav']
    """
    above = len(os.path.join(os.fspath(folder), ""))
    return sorted(entry.path[above:] for entry in walk(folder) if entry.name.lower().endswith(AUDIO_SUFFIXES))


def _resample(wave: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    if rate_in == rate_out:
        return wave
    from scipy.signal import resample_poly  # a slow import that most files do not need

    common = gcd(rate_in, rate_out)
    up, down = rate_out // common, rate_in // common
    return resample_poly(wave, up, down, window=_low_pass(max(up, down)))


@lru_cache(maxsize=16)
def _low_pass(factor: int) -> np.ndarray:
    """Design a filter of ten zero crossings on each side under a Kaiser window; that costs more than to use it."""
    from scipy.signal import firwin

    return firwin(20 * factor + 1, 1 / factor, window=("kaiser", 5.0)).astype(np.float32)


def fit(wave: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut a wave to n_samples, or repeat it up to them.

    >>> fit(np.array([1.0, 2.0, 3.0]), 5).tolist(), fit(np.array([1.0, 2.0, 3.0]), 2).tolist()
    ([1.0, 2.0, 3.0, 1.0, 2.0], [1.0, 2.0])
    """
    return wave[:n_samples] if len(wave) >= n_samples else np.resize(wave, n_samples)  # np.resize repeats


def _check(views: np.ndarray, path: str | os.PathLike, span: tuple[int, int | None], strict: bool) -> np.ndarray:
    """Return the (V, T) as it came; refuse NaN and infinity, and silent rows where `strict`."""
    peaks = np.maximum(views.max(axis=1), -views.min(axis=1))
    if not np.isfinite(peaks).all():
        raise fault(path, f"NaN or infinite samples between {span[0]} and {span[1]}", "nan")
    if strict and peaks.min() <= STEP:
        reason = f"silent: a part of samples {span[0]} to {span[1]} does not exceed one 16-bit step"
        raise fault(path, reason, "silent")
    return views
