"""Rooms and noise for crops: drawn for each crop in the loader's workers, applied to whole batches on any device."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property, lru_cache, reduce
from operator import iadd
from pathlib import Path

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from sv_ssl import audio
from sv_ssl.audio.decoder import fault
from sv_ssl.audio.plain_wav import HEADER_BYTES, find_samples
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.core.text_file import csv_rows

KINDS = ("noise", "music", "speech", "babble")
SNR_DB = {"noise": (0, 15), "music": (5, 15), "speech": (13, 20), "babble": (13, 20)}  # as usual with MUSAN
ROOMS_KEPT = 256  # impulse responses in memory: 8 MB at half a second each
QUIET = 1e-12  # an RMS below any sound's, so that silence is never divided by zero


class Noises:
    """Noise files by kind: a CSV `wav,kind[,split,...]`, or a folder whose first subfolders are the kinds.

    A folder with a `noise.csv` is read by it; in any other, files outside of noise/, music/, speech/ and babble/ are
    noise. Rows of another `split` are left out. Nothing is opened before the first use.
    """

    def __init__(self, folder_or_csv: str | os.PathLike, split: str = "train"):
        self.source, self.split = folder_or_csv, split

    @cached_property
    def paths(self) -> dict[str, list[str]]:
        """The paths of each kind that is there."""
        kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for path, kind in _list_files(self.source, "noise.csv", self.split):
            if kind not in kinds:
                raise InputError(f'{self.source}: {path} is of kind "{kind}", want one of {", ".join(KINDS)}')
            kinds[kind].append(path)
        return {kind: paths for kind, paths in kinds.items() if paths}


class Rooms:
    """Room impulse responses: a CSV `wav[,split,...]`, or a folder; one with a `rir.csv` is read by it.

    Rows of another `split` are left out. Nothing is opened before the first use.
    """

    def __init__(self, folder_or_csv: str | os.PathLike, split: str = "train"):
        self.source, self.split = folder_or_csv, split

    @cached_property
    def paths(self) -> list[str]:
        """The paths of the impulse responses."""
        return [path for path, _ in _list_files(self.source, "rir.csv", self.split)]


def _list_files(source: str | os.PathLike, usual: str, split: str) -> list[tuple[str, str]]:
    """Return (path, kind) of the files that a CSV lists for a split, or that a folder holds."""
    if source is None or not os.path.exists(source):
        raise InputError(f"{source}: no such file: want a list like {usual} or a folder of audio files")
    table = Path(source, usual) if os.path.isdir(source) else Path(source)
    if table.is_file():
        files = _read_table(table, split)
        fault = f'no audio files listed for split "{split}"'
    else:
        firsts = [(file, file.split("/")[0]) for file in audio.find(os.fspath(source))]
        files = [(os.path.join(source, file), first if first in KINDS else "noise") for file, first in firsts]
        fault = "no audio files in it or below"
    if not files:
        raise InputError(f"{source}: {fault}")
    return files


def _read_table(table: Path, split: str) -> list[tuple[str, str]]:
    rows = csv_rows(table)
    _, header = next(rows, (0, []))
    files = []
    for number, fields in rows:
        row = dict(zip(header, fields))
        if not row.get("wav") or len(fields) != len(header):
            raise InputError(f'{table}:{number}: want a "wav" and as many fields as in the header')
        if row.get("split") in (split, None):
            files.append((os.path.join(table.parent, row["wav"]), row.get("kind") or "noise"))
    return files


class Reverberation:
    """Put each crop into a room, at the level that it had.

    rooms    the impulse responses to draw from
    prob     of a crop to be put into a room; others get a unit impulse, which changes nothing
    seconds  of an impulse response that are used
    rate     of the crops; impulse responses of other rates are resampled

    >>> dry = Reverberation(Rooms("/data/rirs"), prob=0.0, seconds=0.01)
    >>> dry.draw(np.random.default_rng(0), n_samples=32000)["rir"][:3].tolist()
    [1.0, 0.0, 0.0]
    """

    def __init__(self, rooms: Rooms, prob: float = 1.0, seconds: float = 0.5, rate: int = 16000):
        check_number("prob of a room", prob, at_least=0, at_most=1)
        self.rooms = rooms
        self.prob = prob
        self.n_taps = round(seconds * rate)
        self.rate = rate

    def draw(self, rng: np.random.Generator, n_samples: int) -> dict[str, np.ndarray]:
        """Draw a room: {"rir": (L,)} float32."""
        if rng.random() < self.prob:
            path = self.rooms.paths[rng.integers(len(self.rooms.paths))]
            return {"rir": _impulse_response(path, self.n_taps, self.rate).copy()}
        return {"rir": np.eye(1, self.n_taps, dtype=np.float32)[0]}

    def apply(self, waves: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Reverberate each row by its impulse response, in float32.

        (R, T), {"rir": (R, L)} -> (R, T)
        """
        return reverberate(waves.float(), parameters["rir"].float())


class Noise:
    """Add noise to each crop, by a drawn ratio below the level of the crop as it comes, so after its room.

    The kind is drawn evenly from those at hand, then the file, then the place in it.

    noises   the files to draw from
    prob     of a crop to get noise
    snr_db   the range of the ratio for each kind
    talkers  how many files of the kind "speech" are summed at equal levels; "babble" is files that are such sums
    rate     of the crops; noises of other rates are resampled

    >>> drawn = Noise(Noises("/data/musan"), prob=0.0).draw(np.random.default_rng(0), n_samples=32000)
    >>> drawn["noise"].shape, float(drawn["snr_db"])
    ((32000,), inf)
    """

    def __init__(
        self,
        noises: Noises,
        prob: float = 1.0,
        snr_db: Mapping[str, Sequence[float]] = SNR_DB,
        talkers: Sequence[int] = (3, 7),
        rate: int = 16000,
    ):
        check_number("prob of a noise", prob, at_least=0, at_most=1)
        self.noises = noises
        self.prob = prob
        self.snr_db = snr_db
        self.talkers = talkers
        self.rate = rate

    def draw(self, rng: np.random.Generator, n_samples: int) -> dict[str, np.ndarray]:
        """Draw a noise and its ratio: {"noise": (n_samples,), "snr_db": ()} float32; an infinite ratio is no noise."""
        if rng.random() < self.prob:
            noise, snr_db = self._draw_noise(rng, n_samples)
        else:
            noise, snr_db = np.zeros(n_samples, np.float32), np.inf
        return {"noise": noise, "snr_db": np.array(snr_db, np.float32)}

    def _draw_noise(self, rng: np.random.Generator, n_samples: int) -> tuple[np.ndarray, float]:
        kinds = list(self.noises.paths)
        kind = kinds[rng.integers(len(kinds))]
        if kind not in self.snr_db:
            raise InputError(f'snr_db has no range for the kind "{kind}" of {self.noises.source}: add one, in dB')
        paths = self.noises.paths[kind]
        if kind == "speech":
            noise = self._draw_babble(rng, paths, n_samples)
        else:
            noise = _read_crop(paths[rng.integers(len(paths))], rng.random(), n_samples, self.rate)
        low, high = self.snr_db[kind]
        return noise, rng.uniform(low, high)

    def _draw_babble(self, rng: np.random.Generator, paths: list[str], n_samples: int) -> np.ndarray:
        """Sum as many talkers as are drawn, at equal levels."""
        count = int(rng.integers(self.talkers[0], self.talkers[1] + 1))
        chosen = rng.choice(len(paths), count, replace=count > len(paths))
        pieces = [_read_crop(paths[i], rng.random(), n_samples, self.rate) for i in chosen]
        for piece in pieces:  # in place, as below: what costs is memory
            piece /= max(_rms(piece), QUIET)
        return reduce(iadd, pieces)

    def apply(self, waves: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Add to each row its noise, in float32.

        (R, T), {"noise": (R, T), "snr_db": (R,)} -> (R, T)
        """
        return add_noise(waves.float(), parameters["noise"].float(), parameters["snr_db"].float())


def _rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.dot(wave, wave) / len(wave)))


def _read_crop(path: str, fraction: float, n_samples: int, rate: int) -> np.ndarray:
    """Return the (n_samples,) that `audio.crops` gives, in a fifth of the time where the file is a plain WAV."""
    begin, frames = _plain_samples(path, rate)
    if frames >= n_samples:
        with suppress(OSError):
            start = begin + 2 * round(fraction * (frames - n_samples))
            steps = np.fromfile(path, "<i2", n_samples, offset=start)
            if len(steps) == n_samples:
                return np.multiply(steps, audio.STEP, dtype=np.float32)
    return audio.crops(path, 0, None, [fraction], n_samples, rate, strict=False)[0][0]


@cache
def _plain_samples(path: str, rate: int) -> tuple[int, int]:
    """Return where the samples of a plain WAV begin, and their number; (0, 0) for what must be opened to be read."""
    if not os.path.isfile(path):
        return 0, 0
    try:
        with open(path, "rb") as file:
            return find_samples(file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size, rate)
    except OSError:
        return 0, 0


@lru_cache(maxsize=ROOMS_KEPT)
def _impulse_response(path: str, n_samples: int, rate: int) -> np.ndarray:
    """Return the (n_samples,) from the direct path on, the largest sample, which becomes 1: no room delays."""
    rir = audio.read(path, rate=rate, strict=False)
    direct = int(np.abs(rir).argmax())
    if rir[direct] == 0:
        raise fault(path, "silent: want the impulse response of a room", "silent")
    rir = rir[direct : direct + n_samples] / rir[direct]
    return np.pad(rir, (0, n_samples - len(rir)))


def reverberate(waves: Tensor, rirs: Tensor) -> Tensor:
    """Convolve row by row, cut to T samples and bring each row back to the RMS that it had.

    (R, T), (R, L) -> (R, T)

    >>> reverberate(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.48, 0.6, 0.64]])).round(decimals=4)
    tensor([[0.4800, 0.6000, 0.6400]])
    """
    n_samples, n_taps = waves.shape[1], rirs.shape[1]
    n_fft = next_fast_len(n_samples + n_taps - 1, real=True)  # long enough that no tail wraps round
    wet = torch.fft.irfft(torch.fft.rfft(waves, n_fft) * torch.fft.rfft(rirs, n_fft), n_fft)[:, :n_samples]
    return wet * (_level(waves) / _level(wet).clamp_min(QUIET))


def add_noise(waves: Tensor, noises: Tensor, snr_db: Tensor) -> Tensor:
    """Add noise whose RMS is exactly so far below that of its row; silence stays silence.

    (R, T), (R, T), (R,) -> (R, T) of the waves' dtype

    >>> add_noise(torch.ones(1, 2), torch.tensor([[5.0, -5.0]]), torch.tensor([20.0]))
    tensor([[1.1000, 0.9000]])
    """
    wide = waves.to(torch.promote_types(waves.dtype, torch.float32))
    gain = _level(wide) / _level(noises).clamp_min(QUIET) * 10 ** (-snr_db[:, None] / 20)
    return (wide + gain * noises).to(waves.dtype)


def _level(waves: Tensor) -> Tensor:
    """Return the root of the mean square of each row, (R, T) -> (R, 1)."""
    return waves.square().mean(dim=1, keepdim=True).sqrt()
