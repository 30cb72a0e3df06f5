"""Utterances to batches of augmented views, the same whatever the workers.

Every random choice about an utterance comes from a generator seeded by (seed, epoch, index), so neither the number
of workers nor an interruption changes what is drawn. The sampler hands (epoch, index) to the dataset, which has no
state of its own that a worker could miss; an utterance that comes again in an epoch is (epoch, index, time), so that it
is cropped anew. Short crops and speeds have generators of their own: with and without them the rest is the same.
"""

from __future__ import annotations

import math
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from multiprocessing.queues import Queue
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sv_ssl import audio
from sv_ssl.audio.noise import Augment
from sv_ssl.core.errors import InputError

SHORT, SPEED = 1, 2  # what has a generator of its own


class Note(NamedTuple):
    """A file that was `skipped` (damaged, another took its place), `converted` or `left out of augmentation`."""

    wav: str
    outcome: str
    reason: str


def speaker_labels(manifest: pd.DataFrame) -> np.ndarray:
    """A manifest -> (N,) int64: its sorted speakers, numbered from 0.

    >>> speaker_labels(pd.DataFrame({"ID": ["1", "2", "3"], "spk_id": ["zoe", "ada", "zoe"]})).tolist()
    [1, 0, 1]
    """
    if "spk_id" not in manifest:
        raise InputError(
            'the manifest has no column "spk_id", and this needs to know who speaks: add the column, or '
            "train without speakers"
        )
    names = manifest["spk_id"]
    if (nobody := (names.isna() | (names == "")).to_numpy()).any():
        raise InputError(
            f"{nobody.sum():,} of {len(names):,} utterances have no spk_id, the first is "
            f'"{manifest["ID"].iloc[int(nobody.argmax())]}": fill it in, or leave those lines out'
        )
    return pd.factorize(names, sort=True)[0].astype(np.int64)


def n_classes(labels: np.ndarray, speeds: Sequence[float] = (1.0,)) -> int:
    """How many classes there are where each speed of a speaker is one: labels count from 0.

    >>> n_classes(np.array([0, 1, 1, 2]), speeds=(0.9, 1.0, 1.1))
    9
    """
    return (int(np.max(labels)) + 1) * len(speeds)


class Views(Dataset):
    """(epoch, index[, time]) -> V random crops of an utterance, with the noise and the room drawn for each.

    A damaged file is replaced by another one, drawn from the same generator, and named in `notes`: an utterance, and
    its label with it, or a noise or a room.

    n_short  short crops of `short_seconds` beside the V long ones, each with its own noise and room
    speeds   an utterance is played at one of them, drawn anew each time, all its crops alike; this changes tempo and
             pitch, and so the speaker: its label is label + n_classes * i for the speed at place i of the list in
             which 1.0 is first and the others follow as given
    """

    ATTEMPTS = 20

    def __init__(
        self,
        manifest: pd.DataFrame,
        n_views: int = 2,
        crop_seconds: float = 2.0,
        augment: Augment | None = None,
        seed: int = 0,
        sample_rate: int = 16000,
        labels: np.ndarray | None = None,
        n_short: int = 0,
        short_seconds: float = 1.0,
        speeds: Sequence[float] = (1.0,),
    ):
        self.wav, self.start, self.stop = (manifest[c].to_numpy() for c in ("wav", "start", "stop"))
        self.labels = np.arange(len(manifest)) if labels is None else labels
        self.n_views, self.n_samples = n_views, round(crop_seconds * sample_rate)
        self.n_short, self.n_short_samples = n_short, round(short_seconds * sample_rate)
        self.augment, self.seed, self.sample_rate = augment, seed, sample_rate
        self.speeds, self.n_classes = _exact(speeds), n_classes(self.labels)

    def __len__(self) -> int:
        return len(self.wav)

    def __getitem__(self, key: tuple[int, ...]) -> dict:
        index, notes = key[1], list[Note]()
        rng = np.random.default_rng((self.seed, *key))
        short_rng = self._generator(key, SHORT) if self.n_short else None
        place = int(self._generator(key, SPEED).integers(len(self.speeds))) if len(self.speeds) > 1 else 0
        for _attempt in range(self.ATTEMPTS):
            try:
                crops = self._crops(index, rng, short_rng, self.speeds[place], notes)
                break
            except audio.AudioError as error:
                notes.append(Note(self.wav[index], "skipped", str(error)))
                index = int(rng.integers(len(self)))
        else:
            raise InputError(f"{self.ATTEMPTS} training files in a row cannot be used; the last: {notes[-1].reason}")
        item = {**crops, "label": self.labels[index] + self.n_classes * place, "notes": notes, "drawn": []}
        if self.augment:
            item["drawn"] = [self._draw(rng, self.n_samples, notes) for _ in range(self.n_views)]
        if self.augment and short_rng:
            item["short_drawn"] = [self._draw(short_rng, self.n_short_samples, notes) for _ in range(self.n_short)]
        return item

    def _generator(self, key: tuple[int, ...], what: int) -> np.random.Generator:
        """One for what is drawn beside the crops, which must not change them."""
        return np.random.default_rng((self.seed, *key, *[0] * (3 - len(key)), what))

    def source(self, index: int) -> Any:
        """-> the path of an utterance's file, or the file itself, open."""
        return self.wav[index]

    def _crops(
        self,
        index: int,
        rng: np.random.Generator,
        short_rng: np.random.Generator | None,
        speed: Fraction,
        notes: list[Note],
    ) -> dict[str, np.ndarray]:
        source = self.source(index)
        views, info = self._cut(source, index, rng.random(self.n_views), self.n_samples, speed)
        crops = {"views": views}
        if short_rng:
            crops["short"], _ = self._cut(source, index, short_rng.random(self.n_short), self.n_short_samples, speed)
        if info.rate != self.sample_rate or info.channels != 1:
            notes.append(
                Note(
                    self.wav[index],
                    "converted",
                    f"{info.rate} Hz, {info.channels} channel(s): made {self.sample_rate} Hz mono",
                )
            )
        return crops

    def _cut(
        self, source: Any, index: int, fractions: np.ndarray, n_samples: int, speed: Fraction
    ) -> tuple[np.ndarray, audio.AudioInfo]:
        need = math.ceil(n_samples * speed)
        views, info = audio.crops(
            source, int(self.start[index]), int(self.stop[index]), fractions, need, self.sample_rate
        )
        return (views if speed == 1 else _played(views, speed)[:, :n_samples]), info

    def _draw(self, rng: np.random.Generator, n_samples: int, notes: list[Note]) -> dict[str, np.ndarray]:
        assert self.augment is not None
        for _attempt in range(self.ATTEMPTS):
            try:
                return self.augment.draw(rng, n_samples)
            except audio.AudioError as error:
                notes.append(Note(str(error).partition(": ")[0], "left out of augmentation", str(error)))
        raise InputError(f"{self.ATTEMPTS} noises or rooms in a row cannot be used; the last: {notes[-1].reason}")


def _exact(speeds: Sequence[float]) -> list[Fraction]:
    """The speeds as ratios of small numbers, 1 before the others."""
    exact = [Fraction(speed).limit_denominator(100) for speed in speeds]
    if not exact or len(set(exact)) < len(exact) or not 0.5 <= min(exact) <= max(exact) <= 2:
        raise InputError(f"speeds are {list(speeds)}: want different ones from 0.5 to 2, such as [1.0, 0.9, 1.1]")
    return sorted(exact, key=lambda speed: speed != 1)


def _played(views: np.ndarray, speed: Fraction) -> np.ndarray:
    """(V, T) -> (V, T / speed) float32: as from a tape that runs so much faster."""
    from scipy.signal import resample_poly  # a slow import that most runs do not need

    return resample_poly(views, speed.denominator, speed.numerator, axis=1).astype(np.float32, copy=False)


def collate(items: list[dict]) -> dict:
    """Utterances -> {views (V, B, T), labels (B,), notes, [noise (V, B, T), snr_db (V, B), rir (V, B, L)]}.

    With short crops also {short (S, B, Ts), [short_noise, short_snr_db, short_rir]}.
    """
    batch = {
        "views": _stacked(items, "views"),
        "labels": torch.tensor([int(item["label"]) for item in items]),
        "notes": [note for item in items for note in item["notes"]],
        **_drawn(items, ""),
    }
    if "short" in items[0]:
        batch |= {"short": _stacked(items, "short"), **_drawn(items, "short_")}
    return batch


def _stacked(items: list[dict], name: str) -> Tensor:
    return torch.from_numpy(np.stack([item[name] for item in items], axis=1))


def _drawn(items: list[dict], prefix: str) -> dict[str, Tensor]:
    """{prefix + key: (V, B, ...)} of what was drawn for the crops."""
    by_view = list(zip(*(item.get(f"{prefix}drawn", []) for item in items)))
    made = {}
    for key in by_view[0][0] if by_view else []:
        rows = np.stack([drawn[key] for view in by_view for drawn in view])
        made[prefix + key] = torch.from_numpy(rows.reshape(len(by_view), len(items), *rows.shape[1:]))
    return made


class Batches(Sampler):
    """The epoch's batches of (epoch, index), shuffled by (seed, epoch); a process takes every world-th of a batch.

    `batch_size` counts the utterances over all processes, so the batch does not change with their number.
    Set `epoch` before an epoch and `done` to the batches of it that are behind.

    With `labels` (N,), the speakers, and `per_speaker` = K each batch is of batch_size / K different speakers with K
    utterances each; with K = 1 no two are of one speaker. There are as many batches as without. Speakers take turns in
    proportion to their utterances, each of which comes about once; in the turn of a speaker with fewer than K they
    repeat, cropped anew. A speaker with so many that it would be twice in a batch is in every batch once instead, some
    of its utterances wait for another epoch, and those of the others repeat. Processes get whole speakers where their
    number divides batch_size / K.

    >>> batches = Batches(n_utterances=5, batch_size=2, seed=0)
    >>> [len(batch) for batch in batches]
    [2, 2]
    """

    def __init__(
        self,
        n_utterances: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        labels: np.ndarray | None = None,
        per_speaker: int = 0,
    ):
        if batch_size > n_utterances:
            raise InputError(
                f"a batch of {batch_size} utterances cannot be drawn from {n_utterances}: "
                f"pass --batch_size {max(2, n_utterances // 2)} or less, or add data"
            )
        if batch_size % world_size:
            raise InputError(
                f"batch_size {batch_size} does not divide by {world_size} processes: "
                f"pass --batch_size {batch_size // world_size * world_size}"
            )
        self.n_utterances, self.batch_size, self.seed = n_utterances, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.per_speaker, self.speakers = per_speaker, _speakers(labels, n_utterances, batch_size, per_speaker)
        self.epoch, self.done = 1, 0

    def __len__(self) -> int:
        return self.n_utterances // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        order = self.order()
        times = _times(order) if self.per_speaker else np.zeros_like(order)
        for i in range(self.done, len(self)):
            part = slice(i * self.batch_size + self.rank, (i + 1) * self.batch_size, self.world_size)
            yield [
                (self.epoch, index, time) if time else (self.epoch, index)
                for index, time in zip(order[part].tolist(), times[part].tolist())
            ]

    def order(self) -> np.ndarray:
        """-> the indices of the epoch's utterances, batch after batch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        return self._by_speaker(rng) if self.per_speaker else rng.permutation(self.n_utterances)

    def _by_speaker(self, rng: np.random.Generator) -> np.ndarray:
        sizes = np.bincount(self.speakers)
        flow = np.lexsort((rng.random(self.n_utterances), self.speakers))  # each speaker's, shuffled
        begins = np.cumsum(sizes) - sizes
        chosen = _turns(rng, sizes, len(self), self.batch_size // self.per_speaker)  # (batches, P)
        before = self.per_speaker * _times(chosen.ravel()).reshape(chosen.shape)
        place = before[:, None, :] + np.arange(self.per_speaker)[:, None]  # (batches, K, P)
        return flow[begins[chosen][:, None, :] + place % sizes[chosen][:, None, :]].ravel()


def _speakers(labels: np.ndarray | None, n_utterances: int, batch_size: int, per_speaker: int) -> np.ndarray:
    """(N,) the speakers, numbered from 0, checked to fill batches; none where they do not matter."""
    if not per_speaker:
        return np.zeros(0, np.int64)
    if labels is None or len(labels) != n_utterances:
        raise InputError(
            f"per_speaker is {per_speaker} but there are {0 if labels is None else len(labels)} speaker "
            f"labels of {n_utterances} utterances: give each its speaker, or leave per_speaker 0"
        )
    if per_speaker < 0 or batch_size % per_speaker:
        raise InputError(
            f"batch_size {batch_size} is no multiple of per_speaker {per_speaker}: "
            f"pass --batch_size {max(1, batch_size // abs(per_speaker)) * abs(per_speaker)}"
        )
    names, speakers = np.unique(labels, return_inverse=True)
    if batch_size // per_speaker > len(names):
        raise InputError(
            f"a batch of {batch_size} utterances, {per_speaker} a speaker, wants "
            f"{batch_size // per_speaker} speakers but there are {len(names)}: pass --batch_size "
            f"{len(names) * per_speaker} or less"
        )
    return speakers


def _turns(rng: np.random.Generator, sizes: np.ndarray, n_batches: int, n_speakers: int) -> np.ndarray:
    """(S,) utterances of each -> (n_batches, n_speakers): who is in each batch, nobody twice.

    Systematic sampling in whole numbers: who has r turns left in b batches is drawn with probability r / b, and exactly
    `n_speakers` are.
    """
    left, chosen = _shares(rng, sizes, n_batches, n_speakers), np.empty((n_batches, n_speakers), np.int64)
    for i, batches in enumerate(range(n_batches, 0, -1)):
        order = rng.permutation(len(sizes))
        marks = rng.integers(batches) + batches * np.arange(n_speakers)
        chosen[i] = order[np.searchsorted(np.cumsum(left[order]), marks, side="right")]
        left[chosen[i]] -= 1
    return chosen


def _shares(rng: np.random.Generator, sizes: np.ndarray, n_batches: int, n_speakers: int) -> np.ndarray:
    """(S,): the n_batches * n_speakers turns in proportion to `sizes`, rounded by chance, n_batches for one at most."""
    everywhere = np.zeros(len(sizes), bool)
    while True:  # fewer than n_speakers can be in every batch: they want more than all the turns
        rest, n = n_batches * (n_speakers - int(everywhere.sum())), int(sizes[~everywhere].sum())
        more = ~everywhere & (sizes * rest > n_batches * n)
        if not more.any():
            break
        everywhere |= more
    shares = np.full(len(sizes), n_batches)
    shares[~everywhere] = np.diff((np.cumsum(sizes[~everywhere]) * rest + rng.integers(n)) // n, prepend=0)
    return shares


def _times(values: np.ndarray) -> np.ndarray:
    """(N,) -> (N,): how often each was there before.

    >>> _times(np.array([7, 8, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    return pd.Series(values).groupby(values).cumcount().to_numpy()


def collision_rate(labels: np.ndarray, batches: Iterable[Sequence[tuple[int, ...]]]) -> float:
    """(N,) speakers -> the share of the batches' utterances that meet another of their own speaker in their batch.

    >>> collision_rate(np.array([0, 0, 1]), [[(1, 0), (1, 2)], [(1, 0), (1, 1), (1, 2)]])
    0.4
    """
    met = total = 0
    for batch in batches:
        _, counts = np.unique(labels[[key[1] for key in batch]], return_counts=True)
        met, total = met + int(counts[counts > 1].sum()), total + len(batch)
    return met / total


class TimedLoader(DataLoader):
    """A DataLoader that counts, in `waited`, the seconds for which the training loop waited for a batch."""

    waited = 0.0

    def __iter__(self):
        iterator = super().__iter__()
        while True:
            asked = time.perf_counter()
            try:
                batch = next(iterator, None)
            except InputError as error:  # from a worker it comes with its traceback before it
                raise InputError(re.sub(r"^[\w.]+Error: ", "", str(error).strip().splitlines()[-1])) from None
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch


def loader(views: Views, batches: Batches, n_workers: int, pin_memory: bool = False) -> TimedLoader:
    """The training loader; workers live as long as it, and memory is pinned where that speeds the copy up."""
    return TimedLoader(
        views,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=n_workers,
        persistent_workers=n_workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_leave_interrupts,
    )


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C is for the main process, which then ends its workers: a batch that nobody takes any more is no error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = Queue._on_queue_feeder_error  # type: ignore[attr-defined]  # a hook, made to be overridden
    quiet = staticmethod(lambda error, item: None if isinstance(error, ConnectionError) else told(error, item))
    Queue._on_queue_feeder_error = quiet  # type: ignore[attr-defined]
    # The thread that hands over a batch's shared memory tells its errors in this way.
    hook = sys.excepthook
    sys.excepthook = lambda kind, *error: None if issubclass(kind, (ConnectionError, EOFError)) else hook(kind, *error)
