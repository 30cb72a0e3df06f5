"""Validation without labels: utterances held out of training, each cut in two, the second half in another room.

Halves of one utterance are of one speaker, those of two nearly always of two. The second halves are moved to rooms and
noises drawn as in training, so that recognising the microphone is not enough.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sv_ssl import audio
from sv_ssl.audio.transform import Pipeline
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.core.seeds import stream

LEAST_SECONDS = 2.0  # of an utterance that is cut
MOST_SECONDS = 8.0  # of a half
MOST_SHARE = 0.05  # of the training utterances
FEW = 10  # utterances that tell nothing
IMPOSTORS = 10  # trials of an utterance with others


def choose(train: pd.DataFrame, n: int, seed: int) -> np.ndarray:
    """Return an (N,) mask of `n` utterances, or 5 % of all if that is less, long enough to be cut; none if few are.

    >>> int(choose(pd.DataFrame({"duration": [4.0] * 1000}), n=20, seed=0).sum())
    20
    """
    long = np.flatnonzero(train.duration.to_numpy() >= LEAST_SECONDS)
    n = min(n, int(MOST_SHARE * len(train)), len(long))
    chosen = stream(seed, "held out").permutation(long)[: n if n >= FEW else 0]
    return np.isin(np.arange(len(train)), chosen)


def write(held: pd.DataFrame, folder: Path, transforms: Pipeline | None, seed: int, rate: int) -> Path:
    """Cut the utterances into `folder` and return the trial list there. What is there already is not made again."""
    listed = folder / "valid.txt"
    if not listed.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        usable = [
            number
            for number, row in enumerate(held.itertuples())
            if _halves(row, folder, number, transforms, stream(seed, "room of a half", number), rate)
        ]
        if len(usable) < 2:
            raise InputError(
                f"{len(held)} utterances were held out for validation and {len(usable)} can be read: "
                "pass --valid_utterances 0, or look at the files"
            )
        with atomic_write(listed) as temporary:
            temporary.write_text("".join(_trials(usable, stream(seed, "held-out trials"))))
    return listed


def _halves(row, folder: Path, number: int, transforms: Pipeline | None, rng: np.random.Generator, rate: int) -> bool:
    """Write 0001-a.wav and 0001-b.wav; an utterance that cannot be read, or is silent in one half, is passed over."""
    try:
        wave = audio.read(row.wav, int(row.start), int(row.stop), rate=rate)
        middle, most = len(wave) // 2, round(MOST_SECONDS * rate)
        first, second = wave[max(0, middle - most) : middle], wave[middle : middle + most]
        if min(np.abs(first).max(), np.abs(second).max()) <= audio.STEP:
            return False
        halves = {"a": first, "b": _moved(second, transforms, rng)}
    except audio.AudioError:  # of the recording, or of the noise or room that was drawn
        return False
    for name, half in halves.items():
        audio.write(folder / f"{number:04d}-{name}.wav", half, rate)
    return True


def _moved(wave: np.ndarray, transforms: Pipeline | None, rng: np.random.Generator) -> np.ndarray:
    """Return a (T,) wave in a room and with a noise, no louder than a file can hold."""
    if transforms is None:
        return wave
    drawn = {name: torch.from_numpy(np.array(value))[None] for name, value in transforms.draw(rng, len(wave)).items()}
    moved = transforms.apply(torch.from_numpy(wave)[None], drawn)[0].numpy()
    return moved / max(1.0, float(np.abs(moved).max()))


def _trials(numbers: list[int], rng: np.random.Generator) -> list[str]:
    """Return the lines of a target trial of each utterance, and of some trials of it with others."""

    def line(label: int, first: int, second: int) -> str:
        return f"{label} {first:04d}-a.wav {second:04d}-b.wav\n"

    lines = []
    for place, number in enumerate(numbers):
        others = rng.choice(len(numbers) - 1, min(IMPOSTORS, len(numbers) - 1), replace=False)
        lines += [line(1, number, number)]
        lines += [line(0, number, numbers[other + (other >= place)]) for other in sorted(others)]
    return lines
