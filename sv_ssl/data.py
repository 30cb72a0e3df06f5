"""Utterances to batches of augmented views, the same whatever the workers.

Every random choice about an utterance comes from a generator seeded by (seed, epoch, index), so neither the number
of workers nor an interruption changes what is drawn. The sampler hands (epoch, index) to the dataset, which has no
state of its own that a worker could miss.
"""

from __future__ import annotations

import re
import signal
import time
from multiprocessing.queues import Queue
from typing import Any, Iterator, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sv_ssl import audio
from sv_ssl.augment import Augment
from sv_ssl.files import InputError


class Note(NamedTuple):
    """A file that was `skipped` (damaged, another took its place), `converted` or `left out of augmentation`."""

    wav: str
    outcome: str
    reason: str


class Views(Dataset):
    """(epoch, index) -> V random crops of an utterance, with the noise and the room drawn for each.

    A damaged file is replaced by another one, drawn from the same generator, and named in `notes`: an utterance, and
    its label with it, or a noise or a room.
    """

    ATTEMPTS = 20

    def __init__(self, manifest: pd.DataFrame, n_views: int = 2, crop_seconds: float = 2.0,
                 augment: Augment | None = None, seed: int = 0, sample_rate: int = 16000,
                 labels: np.ndarray | None = None):
        self.wav, self.start, self.stop = (manifest[c].to_numpy() for c in ("wav", "start", "stop"))
        self.labels = np.arange(len(manifest)) if labels is None else labels
        self.n_views, self.n_samples = n_views, round(crop_seconds * sample_rate)
        self.augment, self.seed, self.sample_rate = augment, seed, sample_rate

    def __len__(self) -> int:
        return len(self.wav)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        notes: list[Note] = []
        for attempt in range(self.ATTEMPTS):
            try:
                views = self._crops(index, rng, notes)
                break
            except audio.AudioError as error:
                notes.append(Note(self.wav[index], "skipped", str(error)))
                index = int(rng.integers(len(self)))
        else:
            raise InputError(f"{self.ATTEMPTS} training files in a row cannot be used; the last: {notes[-1].reason}")
        drawn = [self._draw(rng, notes) for _ in range(self.n_views)] if self.augment else []
        return {"views": views, "label": self.labels[index], "notes": notes, "drawn": drawn}

    def source(self, index: int) -> Any:
        """-> the path of an utterance's file, or the file itself, open."""
        return self.wav[index]

    def _crops(self, index: int, rng: np.random.Generator, notes: list[Note]) -> np.ndarray:
        views, info = audio.crops(self.source(index), int(self.start[index]), int(self.stop[index]),
                                  rng.random(self.n_views), self.n_samples, self.sample_rate)
        if info.rate != self.sample_rate or info.channels != 1:
            notes.append(Note(self.wav[index], "converted", f"{info.rate} Hz, {info.channels} channel(s): made "
                                                            f"{self.sample_rate} Hz mono"))
        return views

    def _draw(self, rng: np.random.Generator, notes: list[Note]) -> dict[str, np.ndarray]:
        assert self.augment is not None
        for attempt in range(self.ATTEMPTS):
            try:
                return self.augment.draw(rng, self.n_samples)
            except audio.AudioError as error:
                notes.append(Note(str(error).partition(": ")[0], "left out of augmentation", str(error)))
        raise InputError(f"{self.ATTEMPTS} noises or rooms in a row cannot be used; the last: {notes[-1].reason}")


def collate(items: list[dict]) -> dict:
    """Utterances -> {views (V, B, T), labels (B,), notes, [noise (V, B, T), snr_db (V, B), rir (V, B, L)]}."""
    batch = {"views": torch.from_numpy(np.stack([item["views"] for item in items], axis=1)),
             "labels": torch.tensor([int(item["label"]) for item in items]),
             "notes": [note for item in items for note in item["notes"]]}
    if items[0]["drawn"]:
        by_view = list(zip(*(item["drawn"] for item in items)))
        for key in by_view[0][0]:
            rows = np.stack([drawn[key] for view in by_view for drawn in view])
            batch[key] = torch.from_numpy(rows.reshape(len(by_view), len(items), *rows.shape[1:]))
    return batch


class Batches(Sampler):
    """The epoch's batches of (epoch, index), shuffled by (seed, epoch); a process takes every world-th of a batch.

    `batch_size` counts the utterances over all processes, so the batch does not change with their number.
    Set `epoch` before an epoch and `done` to the batches of it that are behind.

    >>> batches = Batches(n_utterances=5, batch_size=2, seed=0)
    >>> [len(batch) for batch in batches]
    [2, 2]
    """

    def __init__(self, n_utterances: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1):
        if batch_size > n_utterances:
            raise InputError(f"a batch of {batch_size} utterances cannot be drawn from {n_utterances}: "
                             f"pass --batch_size {max(2, n_utterances // 2)} or less, or add data")
        if batch_size % world_size:
            raise InputError(f"batch_size {batch_size} does not divide by {world_size} processes: "
                             f"pass --batch_size {batch_size // world_size * world_size}")
        self.n_utterances, self.batch_size, self.seed = n_utterances, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.done = 1, 0

    def __len__(self) -> int:
        return self.n_utterances // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self.order()
        for i in range(self.done, len(self)):
            batch = order[i * self.batch_size:(i + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in batch[self.rank::self.world_size]]

    def order(self) -> np.ndarray:
        """-> the indices of the epoch's utterances, batch after batch."""
        return np.random.default_rng((self.seed, self.epoch)).permutation(self.n_utterances)


class TimedLoader(DataLoader):
    """A DataLoader that counts, in `waited`, the seconds for which the training loop waited for a batch."""

    waited = 0.0

    def __iter__(self):
        iterator = super().__iter__()
        while True:
            asked = time.perf_counter()
            try:
                batch = next(iterator, None)
            except InputError as error:     # from a worker it comes with its traceback before it
                raise InputError(re.sub(r"^[\w.]+Error: ", "", str(error).strip().splitlines()[-1])) from None
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch


def loader(views: Views, batches: Batches, n_workers: int, pin_memory: bool = False) -> TimedLoader:
    """The training loader; workers live as long as it, and memory is pinned where that speeds the copy up."""
    return TimedLoader(views, batch_sampler=batches, collate_fn=collate, num_workers=n_workers,
                       persistent_workers=n_workers > 0, pin_memory=pin_memory, worker_init_fn=_leave_interrupts)


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C is for the main process, which then ends its workers: a batch that nobody takes any more is no error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = Queue._on_queue_feeder_error      # type: ignore[attr-defined]  # a hook, made to be overridden
    quiet = staticmethod(lambda error, item: None if isinstance(error, BrokenPipeError) else told(error, item))
    Queue._on_queue_feeder_error = quiet     # type: ignore[attr-defined]
