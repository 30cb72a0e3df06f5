"""Utterances to views: random crops with the parameters of their transforms, the same whatever the workers.

Every random choice about an utterance comes from a stream of its own by (seed, epoch, row), so neither the number of
workers nor an interruption changes what is drawn. The sampler hands (epoch, row) to the dataset, which has no state
that a worker could miss; an utterance that comes again in an epoch is (epoch, row, time), so that it is cropped anew.
Transforms, short crops, clean crops and speeds have streams beside that of the crops: with and without them the rest is
the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from sv_ssl.audio import AudioError
from sv_ssl.audio.transform import Pipeline
from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream
from sv_ssl.data.readers import Reader

STREAMS = {"views": "crops", "short": "short crops", "clean": "clean crops"}  # of each kind of crops
ATTEMPTS = 20  # files that may be unusable one after the other


class Note(NamedTuple):
    """What became of a file: "skipped" (another took its place), "converted" or "left out of augmentation"."""

    wav: str
    outcome: str
    reason: str
    kind: str = ""  # of the AudioError: silent, short, unreadable, missing, ...


class Views(Dataset):
    """(epoch, row[, time]) -> V random crops of an utterance, with what its transforms draw for each.

    A damaged recording is replaced by another row, drawn from the same stream, and a noise or room by another one; the
    item's "notes" name them.

    reader      of a manifest's files, of shards or of clips
    n_views     long crops of `crop_seconds`
    transforms  what they draw is applied on the device, by `batch.to_batch`
    n_short     short crops of `short_seconds` beside the long ones
    n_clean     crops of `clean_seconds` that no transform changes
    speeds      an utterance is played at one of them, drawn anew each time, all its crops alike. This changes tempo and
                pitch, and so the speaker. In `self.speeds` 1 is first and the others follow as given.
    """

    def __init__(
        self,
        reader: Reader,
        n_views: int = 2,
        crop_seconds: float = 2.0,
        transforms: Pipeline | None = None,
        seed: int = 0,
        n_short: int = 0,
        short_seconds: float = 1.0,
        speeds: Sequence[float] = (1.0,),
        n_clean: int = 0,
        clean_seconds: float = 4.0,
    ):
        self.reader = reader
        self.n_samples = round(crop_seconds * reader.sample_rate)
        self.kinds = {  # how many crops, of how many samples
            "views": (n_views, self.n_samples),
            "short": (n_short, round(short_seconds * reader.sample_rate)),
            "clean": (n_clean, round(clean_seconds * reader.sample_rate)),
        }
        self.transforms = transforms
        self.seed = seed
        self.speeds = _exact(speeds)

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def n_crops(self) -> int:
        """Return how many crops of an utterance there are in all."""
        return sum(n for n, _ in self.kinds.values())

    def __getitem__(self, key: tuple[int, ...]) -> dict[str, Any]:
        """Return {"views": (V, T), "row", "speed": its place in the list or None, "drawn": [{...}] of the V, "notes"}.

        With short crops also "short" (S, Ts) and "short_drawn", with clean ones "clean" (C, Tc).
        """
        notes: list[Note] = []
        speed = int(stream(self.seed, "speeds", *key).integers(len(self.speeds))) if len(self.speeds) > 1 else None
        streams = {kind: stream(self.seed, name, *key) for kind, name in STREAMS.items() if self.kinds[kind][0]}
        chooser = streams.get("views") or stream(self.seed, STREAMS["views"], *key)
        row, crops = self._read(key[1], chooser, streams, self.speeds[speed or 0], notes)
        views = crops.get("views", np.empty((0, self.n_samples), np.float32))
        item = {"views": views, "row": row, "speed": speed, "drawn": [], "notes": notes}
        if self.transforms is not None:
            item["drawn"] = self._draw(stream(self.seed, "transforms", *key), *self.kinds["views"], notes)
        if "short" in crops:
            item["short"], item["short_drawn"] = crops["short"], []
            if self.transforms is not None:
                item["short_drawn"] = self._draw(streams["short"], *self.kinds["short"], notes)
        if "clean" in crops:
            item["clean"] = crops["clean"]
        return item

    def _read(
        self,
        row: int,
        chooser: np.random.Generator,
        streams: Mapping[str, np.random.Generator],
        speed: Fraction,
        notes: list[Note],
    ) -> tuple[int, dict[str, np.ndarray]]:
        """Return the crops of a row, or of the next usable one that `chooser` draws, and which row it was."""
        for _attempt in range(ATTEMPTS):
            wanted = [(rng.random(self.kinds[kind][0]), self.kinds[kind][1]) for kind, rng in streams.items()]
            try:
                return row, dict(zip(streams, self._cut(row, wanted, speed, notes)))
            except AudioError as error:
                notes.append(Note(self.reader.wav[row], "skipped", str(error), error.kind))
                row = int(chooser.integers(len(self)))
        raise InputError(f"{ATTEMPTS} training files in a row cannot be used; the last: {notes[-1].reason}")

    def _cut(
        self, row: int, wanted: list[tuple[np.ndarray, int]], speed: Fraction, notes: list[Note]
    ) -> list[np.ndarray]:
        """Return the wanted crops of a row at a speed, and note a file of another kind than the encoder's."""
        if speed == 1:
            crops, info = self.reader.crops(row, wanted)
        else:
            longer = [(fractions, math.ceil(n_samples * speed)) for fractions, n_samples in wanted]
            crops, info = self.reader.crops(row, longer)
            crops = [_play(views, speed)[:, :n_samples] for views, (_, n_samples) in zip(crops, wanted)]
        rate = self.reader.sample_rate
        if info.rate != rate or info.channels != 1:
            reason = f"{info.rate} Hz, {info.channels} channel(s): made {rate} Hz mono"
            notes.append(Note(self.reader.wav[row], "converted", reason))
        return crops

    def _draw(self, rng: np.random.Generator, n_crops: int, n_samples: int, notes: list[Note]) -> list[dict]:
        """Draw the parameters of the transforms for each crop."""
        return [self._draw_one(rng, n_samples, notes) for _ in range(n_crops)]

    def _draw_one(self, rng: np.random.Generator, n_samples: int, notes: list[Note]) -> dict[str, np.ndarray]:
        assert self.transforms is not None
        for _attempt in range(ATTEMPTS):
            try:
                return self.transforms.draw(rng, n_samples)
            except AudioError as error:
                notes.append(Note(error.path, "left out of augmentation", str(error), error.kind))
        raise InputError(f"{ATTEMPTS} noises or rooms in a row cannot be used; the last: {notes[-1].reason}")


def _exact(speeds: Sequence[float]) -> list[Fraction]:
    """Return the speeds as ratios of small numbers, 1 before the others."""
    exact = [Fraction(speed).limit_denominator(100) for speed in speeds]
    if not exact or len(set(exact)) < len(exact) or not 0.5 <= min(exact) <= max(exact) <= 2:
        raise InputError(f"speeds are {list(speeds)}: want different ones from 0.5 to 2, such as [1.0, 0.9, 1.1]")
    return sorted(exact, key=lambda speed: speed != 1)


def _play(views: np.ndarray, speed: Fraction) -> np.ndarray:
    """Play crops faster, as a tape would, (V, T) -> (V, T / speed) float32."""
    from scipy.signal import resample_poly  # a slow import that most runs do not need

    return resample_poly(views, speed.denominator, speed.numerator, axis=1).astype(np.float32, copy=False)
