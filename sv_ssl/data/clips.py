"""Labelled clips to train on and to judge by: their table, its three parts, and their audio, kept if it is not much."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sv_ssl import audio
from sv_ssl.core import progress
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import first_few
from sv_ssl.data import manifest
from sv_ssl.data.readers import Wanted
from sv_ssl.data.subsets import subset

PARTS = ("train", "valid", "test")
SHORTEST = 0.1  # seconds of a clip that is embedded
KEPT_HOURS = 3.0  # of audio that stay in memory, as float32: 0.2 GB an hour
VALID_SHARE = 0.1  # of the training clips, where nothing says what to choose by


def table(folder: str | os.PathLike) -> pd.DataFrame:
    """Read a prepared folder, train.csv, valid.csv and test.csv or one CSV -> a row a clip, with `label` and `fold`."""
    paths = files(folder)
    if len(paths) == 1:
        return _check(manifest.read(paths[0]), paths[0])
    return _check(
        pd.concat([manifest.read(path).assign(fold=path.stem) for path in paths], ignore_index=True), Path(folder)
    )


def files(folder: str | os.PathLike) -> list[Path]:
    """List the CSVs of a prepared folder: one, or train.csv, valid.csv and test.csv."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is {'no folder' if folder.exists() else 'not there'}: check --data_folder")
    parts = [folder / f"{part}.csv" for part in PARTS]
    if all(path.is_file() for path in parts):
        return parts
    tables = [folder / "clips.csv"] if (folder / "clips.csv").is_file() else sorted(folder.glob("*.csv"))
    tables = [path for path in tables if path.name != "problems.csv"]
    if len(tables) != 1:
        raise InputError(
            f"{folder}: want clips.csv, or train.csv, valid.csv and test.csv, or one CSV; there are "
            f"{first_few(p.name for p in tables) or 'none'}: prepare it with a command of data_prep/"
        )
    return tables


def _check(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the table as it came, or raise InputError for what is wrong with it."""
    for column in ("label", "fold"):
        if column not in frame or frame[column].isna().any() or (frame[column] == "").any():
            raise InputError(f"{path}: want a column {column} with a value for every clip")
    pieces = pd.Series(list(zip(frame.wav, frame.start, frame.stop)))
    if pieces.duplicated().any():
        again = frame.wav[pieces.duplicated(keep=False).to_numpy()].iloc[0]
        raise InputError(f"{path}: {again} is there twice, at the same place: want every clip in one part, once")
    if frame.label.nunique() < 2:
        raise InputError(f'{path}: all {len(frame)} clips have the label "{frame.label[0]}": want two at least')
    return frame


def split(frame: pd.DataFrame, test_fold: Any = None, valid_clips: str | None = None) -> pd.DataFrame:
    """Return the same clips with a column `part`: train, valid or test.

    Folds may be called so. Of others `test_fold` is the test part, the fold after it (after the last, the first) the
    validation part, and the rest trains. `valid_clips` (column=value) takes further training clips for validation.
    Where there are none, a tenth of the training clips of every class is taken; of the speakers, where they are known.

    >>> clips = pd.DataFrame({"label": ["a", "b"] * 3, "fold": ["1", "1", "2", "2", "3", "3"]})
    >>> split(clips, test_fold=3).part.tolist()
    ['valid', 'valid', 'train', 'train', 'test', 'test']
    """
    fold = frame.fold.astype(str)
    names = sorted(set(fold), key=lambda name: (len(name), name))
    if set(names) & set(PARTS):
        if not set(names) <= set(PARTS) or test_fold is not None:
            raise InputError(
                f"the folds are {', '.join(names)}: where some are called train, valid or test, want no "
                "others, and no --test_fold"
            )
        part = fold.to_numpy(dtype=object)
    elif str(test_fold) in names and len(names) > 2:
        following = names[(names.index(str(test_fold)) + 1) % len(names)]
        part = np.where(fold == str(test_fold), "test", np.where(fold == following, "valid", "train")).astype(object)
    else:
        raise InputError(f"the folds are {', '.join(names)}: pass --test_fold with one of them (three are needed)")
    if valid_clips:
        column, _, value = str(valid_clips).partition("=")
        if column not in frame:
            raise InputError(
                f"--valid_clips {valid_clips}: no column is called {column}: choose from {', '.join(frame.columns)}"
            )
        meant = (part == "train") & (frame[column].astype(str) == value).to_numpy()
        if not meant.any():
            raise InputError(
                f"--valid_clips {valid_clips}: no training clip has {column} {value}: its values are "
                f"{first_few(sorted(set(frame[column].astype(str))))}"
            )
        part[meant] = "valid"
    if "valid" not in part:
        train = np.flatnonzero(part == "train")
        speakers = frame.spk_id.to_numpy()[train] if "spk_id" in frame else None
        part[train[subset(frame.label.to_numpy()[train], VALID_SHARE, 0, speakers)]] = "valid"
    if absent := [name for name in PARTS if name not in part]:
        raise InputError(f"no clip is for {', '.join(absent)}: want train, valid and test, or three folds")
    if len(kinds := set(frame.label.to_numpy()[part == "train"])) < 2:
        raise InputError(f'all training clips have the label "{min(kinds)}": want two at least')
    return frame.assign(part=part)


class Audio:
    """The clips by number, (T,) float32 at `rate`; decoded once and kept where they are few hours in all."""

    def __init__(self, frame: pd.DataFrame, rate: int):
        self.wav = frame["wav"].to_numpy()
        self.start = frame["start"].to_numpy()
        self.stop = frame["stop"].to_numpy()
        self.rate = rate
        self.kept: dict[int, np.ndarray] | None = {} if frame.duration.sum() <= 3600 * KEPT_HOURS else None

    def __getitem__(self, index: int) -> np.ndarray:
        if self.kept is not None and index in self.kept:
            return self.kept[index]
        wave = audio.read(self.wav[index], int(self.start[index]), int(self.stop[index]), self.rate)
        if self.kept is not None:
            self.kept[index] = wave
        return wave

    def check(self, *numbers: Iterable[int]) -> None:
        """Read these clips once, so that one that cannot be used is reported before the training and not after."""
        every = [int(number) for part in numbers for number in part]
        faults = []
        for number in progress.watched(every, "reading", "clip"):
            try:
                wave = self[number]
                fault = "" if len(wave) >= SHORTEST * self.rate else f"shorter than {SHORTEST} s"
            except audio.AudioError as error:
                fault = str(error)
            if fault:
                faults.append(fault if self.wav[number] in fault else f"{self.wav[number]}: {fault}")
        if faults:
            raise InputError(
                f"{len(faults):,} of {len(every):,} clips cannot be used; the first: {faults[0]}: mend "
                "them, or take their lines out of the CSV"
            )


class ClipReader:
    """Read crops of clips; row i is the clip `numbers[i]`. A clip that is shorter than a crop is repeated."""

    def __init__(self, waves: Audio, numbers: np.ndarray):
        self.waves = waves
        self.numbers = numbers
        self.wav = waves.wav[numbers]
        self.sample_rate = waves.rate

    def __len__(self) -> int:
        return len(self.numbers)

    def crops(self, row: int, wanted: Sequence[Wanted]) -> tuple[list[np.ndarray], audio.AudioInfo]:
        """Return the crops of a clip, and what it is like as it is kept."""
        wave = self.waves[int(self.numbers[row])]
        crops = [_cut(wave, fractions, n_samples) for fractions, n_samples in wanted]
        return crops, audio.AudioInfo(self.sample_rate, len(wave), 1)


def _cut(wave: np.ndarray, fractions: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut crops at parts of what the wave has to spare, (T,), (V,) -> (V, n_samples)."""
    wave = audio.fit(wave, max(len(wave), n_samples))
    begins = np.rint(fractions * (len(wave) - n_samples)).astype(int)
    return np.stack([wave[begin : begin + n_samples] for begin in begins])


@torch.no_grad()
def by_length(module: torch.nn.Module, waves: Audio, numbers: np.ndarray, batch: int = 50) -> np.ndarray:
    """Return what `module` makes of whole clips, (N, D) float32 in the order of `numbers`.

    Of `batch` clips at a time those of one length pass together, so that none is padded.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    rows: list[np.ndarray] = [np.empty(0)] * len(numbers)
    for begin in range(0, len(numbers), batch):
        block = [waves[int(number)] for number in numbers[begin : begin + batch]]
        lengths = np.array([len(wave) for wave in block])
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            together = torch.from_numpy(np.stack([block[place] for place in places])).to(device)
            for place, row in zip(places.tolist(), module(together).float().cpu().numpy()):
                rows[begin + place] = row
    return np.stack(rows)
