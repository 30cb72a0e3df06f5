"""Train from tar shards: few large files, read in long pieces and in order, as network file systems like it.

`data_prep/shards.py` makes a folder of them and a train.csv: a manifest with the columns shard, offset and size, where
an utterance's bytes are, and first, the sample at which it begins in them. Its `wav` is the file that was packed.

The same seed gives the same batches: what is drawn for an utterance depends on (seed, epoch, its row), so `ShardReader`
and `FileReader` of one train.csv give the same crops, noises and rooms, bit for bit. The order is another one than that
of `Batches`, since shards are not read at random: `ShardBatches` makes it from the seed, the epoch, the batch size and
the shards. It is the same for any number of workers and of processes, after an interruption, and for files.
"""

from __future__ import annotations

import io
import math
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sv_ssl import audio
from sv_ssl.audio.decoder import fault
from sv_ssl.audio.plain_wav import find_samples
from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream
from sv_ssl.data import manifest
from sv_ssl.data.batches import Batches
from sv_ssl.data.readers import Wanted

COLUMNS = ("shard", "offset", "size", "first")
CHUNK = 64  # utterances that are read at once and shuffled: 9 MB of VoxCeleb in FLAC
PARTS = 16  # places in the shards that a batch is from: processes up to this number read nothing twice
TURNS = 8  # batches from other places, before the first are read on: so do workers up to this number


class Layout:
    """Where the utterances of a manifest are: (N,) their shard, offset, size and chunk, (S,) the shards' paths."""

    def __init__(self, frame: pd.DataFrame):
        if absent := [column for column in COLUMNS if column not in frame]:
            raise InputError(
                f'the manifest has no column "{absent[0]}": want the train.csv that data_prep/shards.py '
                "has written beside its shards"
            )
        self.offset, self.size, self.first = (_numbers(frame, name) for name in COLUMNS[1:])
        self.shard, names = pd.factorize(frame["shard"], sort=True)
        self.paths = [manifest.resolve(name, frame.attrs["data_root"]) for name in names]
        self.flow = np.lexsort((self.offset, self.shard))  # all utterances as they lie
        begins = np.searchsorted(self.shard[self.flow], np.arange(len(names)))
        within = np.arange(len(frame)) - begins[self.shard[self.flow]]
        opens = within % CHUNK == 0
        self.chunk = np.empty(len(frame), np.int64)
        self.chunk[self.flow] = np.cumsum(opens) - 1
        self.bounds = np.append(np.flatnonzero(opens), len(frame))  # of the chunks, in the flow

    def check(self) -> None:
        """Raise InputError unless every shard is there, as long as it should be."""
        ends = np.zeros(len(self.paths), np.int64)
        np.maximum.at(ends, self.shard, self.offset + self.size)
        for path, end in zip(self.paths, ends.tolist()):
            if not os.path.isfile(path):
                raise InputError(f"{path}: no such shard, but the train.csv beside it lists one: copy it too")
            if os.path.getsize(path) < end:
                raise InputError(
                    f"{path}: has {os.path.getsize(path):,} bytes, but train.csv knows of {end:,}: copy the shard anew"
                )


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return a column of bytes or samples, (N,); numbers that no file has would add up to a wrong place."""
    try:
        numbers = frame[name].to_numpy().astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"a column of the manifest of shards is no number: {error}") from None
    if not (numbers.min() >= (name == "size") and numbers.max() < 2**62):
        raise InputError(f'the column "{name}" of the manifest of shards has {numbers.min()} to {numbers.max()}')
    return numbers


class ShardReader:
    """Read crops from a manifest of shards; a chunk is read when the first of its utterances is wanted.

    It is kept until all of them were.
    """

    def __init__(self, frame: pd.DataFrame, sample_rate: int):
        self.layout = Layout(frame)
        self.layout.check()
        self.wav = frame["wav"].to_numpy()
        self.start = self.layout.first
        self.stop = self.layout.first + (frame["stop"] - frame["start"]).to_numpy()
        self.sample_rate = sample_rate
        self.held: OrderedDict[int, dict[int, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.wav)

    def crops(self, row: int, wanted: Sequence[Wanted]) -> tuple[list[np.ndarray], audio.AudioInfo]:
        """Return the crops of a row's segment, and its file's info."""
        member: Any = self.take(row)
        start, stop = int(self.start[row]), int(self.stop[row])
        steps = _plain_samples(member.content, self.sample_rate)
        views, info = [], audio.AudioInfo(self.sample_rate, len(steps), 1)
        for fractions, n_samples in wanted:
            crops = _cut_plain(steps, start, stop, fractions, n_samples, self.sample_rate)
            if crops is None:
                crops, info = audio.crops(member, start, stop, fractions, n_samples, self.sample_rate)
            views.append(crops)
        return views, info

    def take(self, row: int) -> Member:
        """Return the file of an utterance; whoever reads in the order of `ShardBatches` reads each chunk once."""
        chunk = int(self.layout.chunk[row])
        if row not in self.held.get(chunk, {}):
            self.held[chunk] = self._read_chunk(chunk)
        content = self.held[chunk].pop(row)
        if not self.held[chunk]:
            del self.held[chunk]
        elif len(self.held) > PARTS * (TURNS + 1):  # of a part of the epoch that is over, or another worker's
            self.held.popitem(last=False)
        path = self.layout.paths[self.layout.shard[row]]
        if len(content) < self.layout.size[row]:
            raise fault(path, "cut short in the middle of an utterance", "truncated")
        return Member(content, path)

    def _read_chunk(self, chunk: int) -> dict[int, bytes]:
        """Read the files of a chunk's rows, which lie side by side, at once."""
        layout = self.layout
        rows = layout.flow[layout.bounds[chunk] : layout.bounds[chunk + 1]]
        path, begin = layout.paths[layout.shard[rows[0]]], int(layout.offset[rows[0]])
        try:
            with open(path, "rb") as file:
                file.seek(begin)
                block = file.read(int(layout.offset[rows[-1]] + layout.size[rows[-1]]) - begin)
        except OSError as error:
            raise fault(path, f"cannot be read: {error.strerror}", "missing") from None
        ends = layout.offset[rows] - begin + layout.size[rows]
        return {row: block[end - size : end] for row, end, size in zip(rows.tolist(), ends, layout.size[rows])}


class Member(io.BytesIO):
    """A file in a shard; errors name the shard."""

    def __init__(self, content: bytes, path: str):
        super().__init__(content)
        self.content, self.path = content, path

    def __str__(self) -> str:
        return self.path


def _plain_samples(content: bytes, rate: int) -> np.ndarray:
    """Return the samples of a plain WAV in memory, (T,) int16; none of any other file.

    libsndfile reads any file, but comes back to Python a dozen times for one in memory: a third of an utterance's cost.
    """
    begin, n_samples = find_samples(content, len(content), rate)
    return np.frombuffer(content, "<i2", n_samples, begin)


def _cut_plain(
    steps: np.ndarray, start: int, stop: int, fractions: np.ndarray, n_samples: int, rate: int
) -> np.ndarray | None:
    """Cut the crops of a segment as `audio.crops` does, (V, n_samples) float32.

    None where there is less than a crop, silence, or a fault: `audio.crops` is to see to those.
    """
    spare = stop - start - n_samples
    if min(start, spare) < 0 or stop > len(steps) or n_samples < audio.MIN_SECONDS * rate:
        return None
    begins = [start + round(fraction * spare) for fraction in fractions]
    rows = np.stack([steps[begin : begin + n_samples] for begin in begins])
    if not (rows.max(axis=1) > 1).all():
        return None
    return np.multiply(rows, audio.STEP, dtype=np.float32)


class ShardBatches(Batches):
    """Yield batches in an order that reads shards in long pieces; otherwise as `Batches`.

    An epoch's shards, shuffled, are one long row of chunks. It is cut into PARTS x TURNS streams; batch i takes as much
    from each of the streams (part, i modulo TURNS), going through them chunk by chunk, a chunk's utterances shuffled.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        labels: np.ndarray | None = None,
        per_speaker: int = 0,
    ):
        if per_speaker:
            raise InputError(
                f"per_speaker is {per_speaker}, but shards are read in the order in which they lie, not "
                "by speaker: leave it 0, or train from the files that were packed"
            )
        super().__init__(len(frame), batch_size, seed, rank, world_size)
        self.layout = Layout(frame)

    def order(self) -> np.ndarray:
        """Return the epoch's rows, batch after batch."""
        rng, layout = stream(self.seed, "order", self.epoch), self.layout
        place = rng.permutation(len(layout.paths))[layout.shard]
        flow = np.lexsort((rng.random(len(place)), layout.chunk, place))
        parts = math.gcd(self.batch_size, PARTS)
        batches = np.empty((len(self), self.batch_size // parts, parts), np.int64)
        begin = 0
        for part in range(parts):
            for turn in range(TURNS):
                rows = batches[turn::TURNS, :, part]
                rows[:] = flow[begin : begin + rows.size].reshape(rows.shape)
                begin += rows.size
        return batches.reshape(-1)
