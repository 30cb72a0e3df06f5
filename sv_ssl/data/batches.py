"""Which rows of the manifest are in which batch: the sampler of the training loader."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from torch.utils.data import Sampler

from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream


class Batches(Sampler):
    """Yield the epoch's batches of (epoch, row), shuffled by (seed, epoch); a process takes every world-th of a batch.

    `batch_size` counts the utterances over all processes, so the batch does not change with their number.
    Set `epoch` before an epoch and `done` to the batches of it that are behind. A row that comes again in an epoch is
    (epoch, row, time), so that it is cropped anew.

    With `labels` (N,), the speakers, and `per_speaker` = K each batch is of batch_size / K different speakers with K
    utterances each; with K = 1 no two are of one speaker. There are as many batches as without. Speakers take turns in
    proportion to their utterances, each of which comes about once; in the turn of a speaker with fewer than K they
    repeat, cropped anew. A speaker with so many that it would be twice in a batch is in every batch once instead, some
    of its utterances wait for another epoch, and those of the others repeat. Processes get whole speakers where their
    number divides batch_size / K.

    >>> batches = Batches(n_rows=5, batch_size=2, seed=0)
    >>> [len(batch) for batch in batches]
    [2, 2]
    """

    def __init__(
        self,
        n_rows: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        labels: np.ndarray | None = None,
        per_speaker: int = 0,
    ):
        if batch_size > n_rows:
            raise InputError(
                f"a batch of {batch_size} utterances cannot be drawn from {n_rows}: "
                f"pass --batch_size {max(2, n_rows // 2)} or less, or add data"
            )
        if batch_size % world_size:
            raise InputError(
                f"batch_size {batch_size} does not divide by {world_size} processes: "
                f"pass --batch_size {batch_size // world_size * world_size}"
            )
        self.n_rows = n_rows
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.per_speaker = per_speaker
        self.speakers = _number_speakers(labels, n_rows, batch_size, per_speaker)
        self.epoch, self.done = 1, 0

    def __len__(self) -> int:
        return self.n_rows // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        order = self.order()
        times = _times_before(order) if self.per_speaker else np.zeros_like(order)
        for i in range(self.done, len(self)):
            part = slice(i * self.batch_size + self.rank, (i + 1) * self.batch_size, self.world_size)
            yield [
                (self.epoch, row, time) if time else (self.epoch, row)
                for row, time in zip(order[part].tolist(), times[part].tolist())
            ]

    def order(self) -> np.ndarray:
        """Return the epoch's rows, batch after batch."""
        rng = stream(self.seed, "order", self.epoch)
        return self._by_speaker(rng) if self.per_speaker else rng.permutation(self.n_rows)

    def _by_speaker(self, rng: np.random.Generator) -> np.ndarray:
        sizes = np.bincount(self.speakers)
        flow = np.lexsort((rng.random(self.n_rows), self.speakers))  # each speaker's rows, shuffled
        begins = np.cumsum(sizes) - sizes
        chosen = _draw_turns(rng, sizes, len(self), self.batch_size // self.per_speaker)  # (batches, P)
        before = self.per_speaker * _times_before(chosen.ravel()).reshape(chosen.shape)
        place = before[:, None, :] + np.arange(self.per_speaker)[:, None]  # (batches, K, P)
        return flow[begins[chosen][:, None, :] + place % sizes[chosen][:, None, :]].ravel()


def _number_speakers(labels: np.ndarray | None, n_rows: int, batch_size: int, per_speaker: int) -> np.ndarray:
    """Number the speakers from 0, (N,), and check that they fill batches; () where speakers do not matter."""
    if not per_speaker:
        return np.zeros(0, np.int64)
    if labels is None or len(labels) != n_rows:
        raise InputError(
            f"per_speaker is {per_speaker} but there are {0 if labels is None else len(labels)} speaker "
            f"labels of {n_rows} utterances: give each its speaker, or leave per_speaker 0"
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


def _draw_turns(rng: np.random.Generator, sizes: np.ndarray, n_batches: int, n_speakers: int) -> np.ndarray:
    """Draw who is in each batch, nobody twice; `sizes` are the speakers' numbers of utterances.

    (S,) -> (n_batches, n_speakers)

    This is systematic sampling in whole numbers: who has r turns left in b batches is drawn with probability r / b, and
    exactly `n_speakers` are.
    """
    left = _share_turns(rng, sizes, n_batches, n_speakers)
    chosen = np.empty((n_batches, n_speakers), np.int64)
    for i, batches in enumerate(range(n_batches, 0, -1)):
        order = rng.permutation(len(sizes))
        marks = rng.integers(batches) + batches * np.arange(n_speakers)
        chosen[i] = order[np.searchsorted(np.cumsum(left[order]), marks, side="right")]
        left[chosen[i]] -= 1
    return chosen


def _share_turns(rng: np.random.Generator, sizes: np.ndarray, n_batches: int, n_speakers: int) -> np.ndarray:
    """Share n_batches * n_speakers turns in proportion to `sizes`, rounded by chance, one at most a batch; (S,)."""
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


def _times_before(values: np.ndarray) -> np.ndarray:
    """Count how often each value was there before, (N,) -> (N,).

    >>> _times_before(np.array([7, 8, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    return pd.Series(values).groupby(values).cumcount().to_numpy()
