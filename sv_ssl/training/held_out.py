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
from sv_ssl.audio import noise
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside

LEAST_SECONDS = 2.0  # of an utterance that is cut
MOST_SECONDS = 8.0  # of a half
MOST_SHARE = 0.05  # of the training utterances
FEW = 10  # utterances that tell nothing
IMPOSTORS = 10  # trials of an utterance with others


def choose(train: pd.DataFrame, n: int, seed: int) -> np.ndarray:
    """(N,) bool: `n` utterances, or 5 % of all if that is less, that are long enough to be cut; none if these are few.

    >>> int(choose(pd.DataFrame({"duration": [4.0] * 1000}), n=20, seed=0).sum())
    20
    """
    long = np.flatnonzero(train.duration.to_numpy() >= LEAST_SECONDS)
    n = min(n, int(MOST_SHARE * len(train)), len(long))
    chosen = np.random.default_rng((seed, 1)).permutation(long)[: n if n >= FEW else 0]
    return np.isin(np.arange(len(train)), chosen)


def write(held: pd.DataFrame, folder: Path, augmented: noise.Augment | None, seed: int, rate: int) -> Path:
    """Cut the utterances into `folder` -> the trial list there. What is there already is not made again."""
    listed = folder / "valid.txt"
    if not listed.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        usable = [
            number
            for number, row in enumerate(held.itertuples())
            if _halves(row, folder, number, augmented, np.random.default_rng((seed, 2, number)), rate)
        ]
        if len(usable) < 2:
            raise InputError(
                f"{len(held)} utterances were held out for validation and {len(usable)} can be read: "
                "pass --valid_utterances 0, or look at the files"
            )
        with aside(listed) as temporary:
            temporary.write_text("".join(_trials(usable, np.random.default_rng((seed, 3)))))
    return listed


def _halves(
    row, folder: Path, number: int, augmented: noise.Augment | None, rng: np.random.Generator, rate: int
) -> bool:
    """Write 0001-a.wav and 0001-b.wav; an utterance that cannot be read, or is silent in one half, is passed over."""
    try:
        wave = audio.read(row.wav, int(row.start), int(row.stop), rate=rate)
        middle, most = len(wave) // 2, round(MOST_SECONDS * rate)
        first, second = wave[max(0, middle - most) : middle], wave[middle : middle + most]
        if min(np.abs(first).max(), np.abs(second).max()) <= audio.STEP:
            return False
        halves = {"a": first, "b": _moved(second, augmented, rng)}
    except audio.AudioError:  # of the recording, or of the noise or room that was drawn
        return False
    for name, half in halves.items():
        audio.write(folder / f"{number:04d}-{name}.wav", half, rate)
    return True


def _moved(wave: np.ndarray, augmented: noise.Augment | None, rng: np.random.Generator) -> np.ndarray:
    """(T,) -> (T,): in a room and with a noise, no louder than a file can hold."""
    if augmented is None:
        return wave
    drawn = augmented.draw(rng, len(wave))
    rows = [torch.from_numpy(np.array(drawn[key]))[None] for key in ("noise", "snr_db", "rir")]
    moved = noise.apply(torch.from_numpy(wave)[None], *rows)[0].numpy()
    return moved / max(1.0, float(np.abs(moved).max()))


def _trials(numbers: list[int], rng: np.random.Generator) -> list[str]:
    """A target trial of each utterance, and some of it with others."""

    def line(label: int, first: int, second: int) -> str:
        return f"{label} {first:04d}-a.wav {second:04d}-b.wav\n"

    lines = []
    for place, number in enumerate(numbers):
        others = rng.choice(len(numbers) - 1, min(IMPOSTORS, len(numbers) - 1), replace=False)
        lines += [line(1, number, number)]
        lines += [line(0, number, numbers[other + (other >= place)]) for other in sorted(others)]
    return lines
