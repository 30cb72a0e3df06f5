"""Labelled clips for training and judging: their table, its three parts, and their audio, kept where it is not much."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from sv_ssl import audio
from sv_ssl.core import progress
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import some
from sv_ssl.data import manifest
from sv_ssl.data.subsets import subset

PARTS = ("train", "valid", "test")
SHORTEST = 0.1  # seconds of a clip that is embedded
KEPT_HOURS = 3.0  # of audio that stay in memory, as float32: 0.2 GB an hour
VALID_SHARE = 0.1  # of the training clips, where nothing says what to choose by


def table(folder: str | os.PathLike) -> pd.DataFrame:
    """A prepared folder -> a row a clip, with `label` and `fold`: train.csv, valid.csv and test.csv, or one CSV."""
    paths = files(folder)
    if len(paths) == 1:
        return _checked(manifest.read(paths[0]), paths[0])
    return _checked(
        pd.concat([manifest.read(path).assign(fold=path.stem) for path in paths], ignore_index=True), Path(folder)
    )


def files(folder: str | os.PathLike) -> list[Path]:
    """The CSVs of a prepared folder: one, or train.csv, valid.csv and test.csv."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is {'no folder' if folder.exists() else 'not there'}: check --data_folder")
    parts = [folder / f"{part}.csv" for part in PARTS]
    if all(path.is_file() for path in parts):
        return parts
    found = [folder / "clips.csv"] if (folder / "clips.csv").is_file() else sorted(folder.glob("*.csv"))
    found = [path for path in found if path.name != "problems.csv"]
    if len(found) != 1:
        raise InputError(
            f"{folder}: want clips.csv, or train.csv, valid.csv and test.csv, or one CSV; there are "
            f"{some(p.name for p in found) or 'none'}: prepare it with a command of data_prep/"
        )
    return found


def _checked(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
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
    """-> the same clips with a column `part`: train, valid or test.

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
                f"{some(sorted(set(frame[column].astype(str))))}"
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
    """Clips by number -> (T,) float32 at `rate`; decoded once and kept where they are few hours in all."""

    def __init__(self, frame: pd.DataFrame, rate: int):
        self.wav, self.start, self.stop = (frame[column].to_numpy() for column in ("wav", "start", "stop"))
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
        """Read these clips once, so that one that cannot be used is told of before the training and not after."""
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


class ClipViews(Dataset):
    """(epoch, place in `numbers`) -> V random crops of that clip, and its label; a shorter clip is repeated.

    The batches are those of `sv_ssl.data.views`: what is drawn depends on (seed, epoch, place) alone.
    """

    n_short = 0

    def __init__(
        self, waves: Audio, numbers: np.ndarray, labels: np.ndarray, n_views: int, crop_seconds: float, seed: int
    ):
        self.waves, self.numbers, self.labels, self.seed = waves, numbers, labels, seed
        self.n_views, self.n_samples = n_views, round(crop_seconds * waves.rate)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, key: tuple[int, ...]) -> dict[str, Any]:
        place, rng = key[1], np.random.default_rng((self.seed, *key))
        wave = self.waves[int(self.numbers[place])]
        if len(wave) < self.n_samples:
            wave = np.resize(wave, self.n_samples)
        begins = np.rint(rng.random(self.n_views) * (len(wave) - self.n_samples)).astype(int)
        views = np.stack([wave[begin : begin + self.n_samples] for begin in begins])
        return {"views": views, "label": self.labels[place], "notes": [], "drawn": []}


@torch.no_grad()
def outputs(module: torch.nn.Module, waves: Audio, numbers: np.ndarray, batch: int = 50) -> np.ndarray:
    """What `module` makes of whole clips, (N, D) float32 in the order of `numbers`; none is padded."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    rows: list[np.ndarray] = []
    for begin in range(0, len(numbers), batch):
        block = [waves[int(number)] for number in numbers[begin : begin + batch]]
        rows.append(_by_length(module, block, device))
    return np.concatenate(rows)


def _by_length(module: torch.nn.Module, block: list[np.ndarray], device: torch.device) -> np.ndarray:
    """Clips of one length pass together."""
    lengths = np.array([len(wave) for wave in block])
    found: dict[int, np.ndarray] = {}
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        made = module(torch.from_numpy(np.stack([block[i] for i in places])).to(device)).float().cpu().numpy()
        found.update(zip(places.tolist(), made))
    return np.stack([found[i] for i in range(len(block))])
