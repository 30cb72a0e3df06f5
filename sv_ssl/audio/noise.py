"""Rooms and noise for crops: drawn for each crop in the loader's workers, applied to whole batches on any device."""

from __future__ import annotations

import csv
import os
import wave as pcm
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
from sv_ssl.core.errors import InputError

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
        """{kind: paths}, of the kinds that are there."""
        kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for path, kind in _listed(self.source, "noise.csv", self.split):
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
        return [path for path, _ in _listed(self.source, "rir.csv", self.split)]


def _listed(source: str | os.PathLike, usual: str, split: str) -> list[tuple[str, str]]:
    """[(path, kind)] of the files that a CSV lists for a split, or that a folder holds."""
    if source is None or not os.path.exists(source):
        raise InputError(f"{source}: no such file: want a list like {usual} or a folder of audio files")
    table = Path(source, usual) if os.path.isdir(source) else Path(source)
    if table.is_file():
        files = _rows(table, split)
    else:
        firsts = [(file, file.split("/")[0]) for file in audio.find(os.fspath(source))]
        files = [(os.path.join(source, file), first if first in KINDS else "noise") for file, first in firsts]
    if not files:
        raise InputError(
            f'{source}: no audio files listed for split "{split}"'
            if table.is_file()
            else f"{source}: no audio files in it or below"
        )
    return files


def _rows(table: Path, split: str) -> list[tuple[str, str]]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the list {table}: {error}") from None
    for number, row in rows:
        if not row.get("wav") or None in row or None in row.values():
            raise InputError(f'{table}:{number}: want a "wav" and as many fields as in the header')
    return [
        (os.path.join(table.parent, row["wav"]), row.get("kind") or "noise")
        for _, row in rows
        if row.get("split") in (split, None)
    ]


class Augment:
    """Draws a noise, its SNR and a room for a crop; `apply` does the rest.

    The kind of noise is uniform over those at hand, then the file, then the place in it. Of kind "speech", `talkers`
    files are drawn and summed at equal levels; "babble" is files in which that has been done.
    """

    def __init__(
        self,
        noises: Noises | None = None,
        rooms: Rooms | None = None,
        noise_prob: float = 1.0,
        reverb_prob: float = 1.0,
        snr_db: Mapping[str, Sequence[float]] = SNR_DB,
        talkers: Sequence[int] = (3, 7),
        rir_seconds: float = 0.5,
        rate: int = 16000,
    ):
        self.noises, self.rooms = noises, rooms
        self.noise_prob, self.reverb_prob = noise_prob, reverb_prob
        self.snr_db, self.talkers, self.rate = snr_db, talkers, rate
        self.rir_samples = round(rir_seconds * rate) if rooms else 1

    def draw(self, rng: np.random.Generator, n_samples: int) -> dict[str, np.ndarray]:
        """-> {"noise": (n_samples,), "snr_db": (), "rir": (L,)} float32; infinite SNR and a unit impulse are none.

        >>> drawn = Augment().draw(np.random.default_rng(0), n_samples=32000)
        >>> drawn["noise"].shape, float(drawn["snr_db"]), drawn["rir"].tolist()
        ((32000,), inf, [1.0])
        """
        if self.noises and rng.random() < self.noise_prob:
            noise, snr_db = self._draw_noise(rng, n_samples)
        else:
            noise, snr_db = np.zeros(n_samples, np.float32), np.inf
        if self.rooms and rng.random() < self.reverb_prob:
            path = self.rooms.paths[rng.integers(len(self.rooms.paths))]
            rir = _impulse_response(path, self.rir_samples, self.rate).copy()
        else:
            rir = np.eye(1, self.rir_samples, dtype=np.float32)[0]
        return {"noise": noise, "snr_db": np.array(snr_db, np.float32), "rir": rir}

    def _draw_noise(self, rng: np.random.Generator, n_samples: int) -> tuple[np.ndarray, float]:
        assert self.noises
        kinds = list(self.noises.paths)
        kind = kinds[rng.integers(len(kinds))]
        if kind not in self.snr_db:
            raise InputError(f'snr_db has no range for the kind "{kind}" of {self.noises.source}: add one, in dB')
        paths = self.noises.paths[kind]
        count = int(rng.integers(self.talkers[0], self.talkers[1] + 1)) if kind == "speech" else 1
        chosen = rng.choice(len(paths), count, replace=count > len(paths))
        pieces = [_crop(paths[i], rng.random(), n_samples, self.rate) for i in chosen]
        if count > 1:
            for piece in pieces:  # in place, as below: what costs is memory
                piece /= max(_rms(piece), QUIET)
        low, high = self.snr_db[kind]
        return reduce(iadd, pieces), rng.uniform(low, high)


def _rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.dot(wave, wave) / len(wave)))


def _crop(path: str, fraction: float, n_samples: int, rate: int) -> np.ndarray:
    """(n_samples,): what `audio.crops` gives, in a fifth of the time for the files that most noises are."""
    begin, frames = _plain(path, rate)
    if frames >= n_samples:
        with suppress(OSError):
            start = begin + 2 * round(fraction * (frames - n_samples))
            steps = np.fromfile(path, "<i2", n_samples, offset=start)
            if len(steps) == n_samples:
                return np.multiply(steps, audio.STEP, dtype=np.float32)
    return audio.crops(path, 0, None, [fraction], n_samples, rate, strict=False)[0][0]


@cache
def _plain(path: str, rate: int) -> tuple[int, int]:
    """The byte at which the samples of a whole 16-bit mono WAV of this rate begin, and their number; else 0, 0."""
    try:
        with open(path, "rb") as file, pcm.open(file) as header:
            begin, frames = file.tell(), header.getnframes()
            kind = header.getsampwidth(), header.getnchannels(), header.getframerate()
            if kind == (2, 1, rate) and begin + 2 * frames <= os.fstat(file.fileno()).st_size:
                return begin, frames
    except (OSError, EOFError, pcm.Error):
        pass  # another kind of file, or a damaged one: reading it tells
    return 0, 0


@lru_cache(maxsize=ROOMS_KEPT)
def _impulse_response(path: str, n_samples: int, rate: int) -> np.ndarray:
    """(n_samples,) from the direct path, the largest sample, which becomes 1: reverberation does not delay."""
    rir = audio.read(path, rate=rate, strict=False)
    direct = int(np.abs(rir).argmax())
    if rir[direct] == 0:
        raise audio.AudioError(f"{path}: silent: want the impulse response of a room", "silent")
    rir = rir[direct : direct + n_samples] / rir[direct]
    return np.pad(rir, (0, n_samples - len(rir)))


def apply(wave: Tensor, noise: Tensor, snr_db: Tensor, rir: Tensor) -> Tensor:
    """(B, T), (B, T), (B,), (B, L) -> (B, T): each row in its room, at its old level, and noise below that by its SNR.

    The SNR is between the RMS of the reverberated row and that of the noise. Rows do not affect each other.

    >>> wave, noise = torch.ones(1, 8), torch.full((1, 8), 3.0)
    >>> apply(wave, noise, snr_db=torch.tensor([20.0]), rir=torch.tensor([[1.0]])).mean()
    tensor(1.1000)
    """
    speech = reverberate(wave.float(), rir.float())
    noise = noise.float()
    gain = _level(speech) / _level(noise).clamp_min(QUIET) * 10 ** (-snr_db.float()[:, None] / 20)
    return speech + gain * noise


def reverberate(wave: Tensor, rir: Tensor) -> Tensor:
    """(B, T), (B, L) -> (B, T): convolved row by row, cut to T and brought back to the RMS it had.

    >>> reverberate(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.48, 0.6, 0.64]])).round(decimals=4)
    tensor([[0.4800, 0.6000, 0.6400]])
    """
    n_samples, n_rir = wave.shape[1], rir.shape[1]
    n_fft = next_fast_len(n_samples + n_rir - 1, real=True)  # long enough that no tail wraps round
    wet = torch.fft.irfft(torch.fft.rfft(wave, n_fft) * torch.fft.rfft(rir, n_fft), n_fft)[:, :n_samples]
    return wet * (_level(wave) / _level(wet).clamp_min(QUIET))


def _level(wave: Tensor) -> Tensor:
    """(B, T) -> (B, 1), the root of the mean square."""
    return wave.square().mean(dim=1, keepdim=True).sqrt()
