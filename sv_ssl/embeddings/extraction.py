"""Audio to embeddings. Nothing is padded, and no neighbour, batch or process changes a number.

On a CPU, where a batch is slower than one recording after the other, processes of one thread each share the work. On a
GPU recordings of one length pass together, while threads read the next ones.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, groupby
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.data.sources import Skipped, Utterance
from sv_ssl.embeddings.cache import Cache, content
from sv_ssl.models.embedder import Embedder

PRECISIONS = ("fp32", "bf16")
BLOCK = 4  # utterances that a worker process gets at a time,
PIECE = 512  # or as many windows of one recording, which it opens once for them;
HELD = 64  # and a reading thread, whose windows wait in memory
WAITING = 16  # batches' worth of waves that may wait for others of their length

Task = TypeVar("Task")
Done = TypeVar("Done")


class How(NamedTuple):
    """How recordings are embedded. Of these, all but `batch` and `longest` change the numbers."""

    precision: str = "fp32"  # bf16: twice as fast, three digits
    batch: int = 1  # waves of one length that pass together
    grid: float = 0.0  # seconds: lengths are cut down to a multiple of this, so that more of them are equal; 0: are not
    crops: int = 0  # evenly spaced crops instead of the whole utterance, which is repeated if it is shorter than one
    crop_seconds: float = 3.5
    longest: float = np.inf  # seconds of a whole utterance or window; what is longer is left out


class Extracted(NamedTuple):
    """V is 1, or the number of crops."""

    ids: list[str]  # (N,)
    rows: np.ndarray  # (N, V, dim) float32
    skipped: Skipped  # what is not among them
    seconds: float  # of audio that was embedded; what was kept from before is not


# --- what others call -----------------------------------------------------------------------------------------------


def embed_wave(embedder: Embedder, wave: np.ndarray) -> np.ndarray:
    """(T,) float32 at the embedder's rate -> (dim,) float32."""
    return _forward(embedder, wave[None], How())[0]


def embed(
    embedder: Embedder,
    utterances: Sequence[Utterance],
    progress: bool = True,
    kept: Cache | None = None,
) -> tuple[list[str], np.ndarray, Skipped]:
    """Whole utterances -> ids, (N, dim) float32 and [(id, reason)] of those that could not be embedded.

    With a cache (`cache_of`) a recording whose content was embedded before is not embedded again.
    """
    found = extract(embedder, utterances, kept=kept, progress=progress)
    return found.ids, found.rows[:, 0], found.skipped


def embed_trials(
    embedder: Embedder,
    names: Sequence[str],
    audio_root: str | os.PathLike,
    progress: bool = True,
    skip: bool = False,
    kept: Cache | None = None,
) -> tuple[list[str], np.ndarray]:
    """Embed what a trial list names, below `audio_root`; a recording that cannot be used is an error unless `skip`."""
    utterances = [Utterance(name, str(Path(audio_root) / name)) for name in names]
    ids, rows, skipped = embed(embedder, utterances, progress, kept)
    if skipped and not (skip and ids):
        raise InputError(
            f"{len(skipped)} of {len(names)} recordings of the trial list cannot be used; the first: {skipped[0][1]}"
        )
    return ids, rows


def cache_of(embedder: Embedder) -> Cache:
    """The embeddings kept of this very model on this kind of device."""
    kind = f"{type(embedder.features).__name__} {type(embedder.encoder).__name__}"
    return Cache(f"{kind} {_device(embedder).type} {digest(embedder)}")


def digest(embedder: Embedder) -> str:
    """What tells a model from all others, wherever it is: its settings and weights, as sha1."""
    found = hashlib.sha1(json.dumps([embedder.features.config, embedder.encoder.config]).encode())
    for name, tensor in embedder.state_dict().items():
        if isinstance(tensor, torch.Tensor):  # and no counter of a random stream
            found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def extract(
    embedder: Embedder,
    utterances: Sequence[Utterance],
    how: How = How(),
    kept: Cache | None = None,
    workers: int = 0,
    progress: bool = True,
) -> Extracted:
    """Utterances -> their embeddings, in the order given, whatever the batch and the workers.

    `workers` are processes on a CPU, and threads that read for a GPU; with 0 all is done here. A script that asks for
    workers must be importable: what it does stands below `if __name__ == "__main__"`.
    """
    if how.precision not in PRECISIONS:
        raise InputError(f"precision {how.precision!r}: wanted {' or '.join(PRECISIONS)}")
    rows = np.zeros((len(utterances), max(1, how.crops), embedder.dim), np.float32)
    failed: dict[int, str] = {}
    was_training, seconds = embedder.training, 0.0
    embedder.eval()
    try:
        extractor = Extractor(embedder, how, kept)
        in_processes = workers and _device(embedder).type == "cpu"
        done = _in_processes(extractor, utterances, workers) if in_processes else extractor(utterances, workers)
        for one in _watched(done, len(utterances), progress):
            seconds += one.seconds
            if isinstance(one.found, InputError):
                failed[one.number] = str(one.found)
            else:
                rows[one.number] = one.found
    finally:
        embedder.train(was_training)
    ids = [utterance.id for utterance in utterances]
    there = [number for number in range(len(ids)) if number not in failed]
    skipped = [(ids[number], failed[number]) for number in sorted(failed)]
    return Extracted([ids[number] for number in there], rows[there] if failed else rows, skipped, seconds)


# --- one process ----------------------------------------------------------------------------------------------------


class One(NamedTuple):
    """What became of an utterance."""

    number: int
    found: np.ndarray | InputError  # (V, dim), or why there is none
    seconds: float = 0.0  # of audio that was embedded for it


class Taken(NamedTuple):
    """An utterance that was looked up and read."""

    number: int
    wav: str
    key: str  # what it is kept under; "" if it is not
    found: np.ndarray | InputError | None  # (V, dim) from before, or why there is no wave
    wave: np.ndarray  # (V, T)


class Extractor:
    """Utterances -> what became of each; pickled, it does the same in another process."""

    def __init__(self, embedder: Embedder, how: How, kept: Cache | None):
        self.embedder, self.how, self.kept = embedder, how, kept

    def __call__(self, utterances: Sequence[Utterance], readers: int = 0) -> Iterator[One]:
        """As they get ready, which is in another order than given if batches are larger than 1."""
        waiting: dict[int, list[Taken]] = defaultdict(list)
        for taken in self._read(utterances, readers):
            if taken.found is not None:
                yield One(taken.number, taken.found)
                continue
            waiting[taken.wave.shape[1]].append(taken)
            length, group = max(waiting.items(), key=lambda item: len(item[1]))
            if len(group) >= self.how.batch or sum(map(len, waiting.values())) >= WAITING * self.how.batch:
                yield from self._embed(waiting.pop(length))
        for group in waiting.values():
            yield from self._embed(group)

    def _read(self, utterances: Sequence[Utterance], readers: int) -> Iterator[Taken]:
        if not readers:
            for first, run in _runs(utterances):
                yield from self._take(first, run)
            return
        held = ((first + i, run[i : i + HELD]) for first, run in _runs(utterances) for i in range(0, len(run), HELD))
        with ThreadPoolExecutor(readers) as pool:
            ahead = _ahead(lambda item: pool.submit(lambda: list(self._take(*item))), held, 4 * readers)
            yield from chain.from_iterable(ahead)

    def _take(self, first: int, run: list[Utterance]) -> Iterator[Taken]:
        """Utterances of one recording, of which `first` is the number of the first."""
        keys, nothing = [self._key(utterance) for utterance in run], np.zeros((0, 0), np.float32)
        rows = [self.kept.get(key) if self.kept and key else None for key in keys]
        waves = self._waves([utterance for utterance, row in zip(run, rows) if row is None])
        for number, (utterance, key, row) in enumerate(zip(run, keys, rows), first):
            wave = next(waves) if row is None else nothing
            if isinstance(wave, InputError):
                yield Taken(number, str(utterance.wav), key, wave, nothing)
            else:
                kept = None if row is None else row.reshape(-1, self.embedder.dim)
                yield Taken(number, str(utterance.wav), key, kept, wave)

    def _key(self, utterance: Utterance) -> str:
        if not self.kept or not isinstance(utterance.wav, str):
            return ""
        try:
            return f"{content(utterance.wav)} {utterance[2:4]} {self.how._replace(batch=0, longest=0)}"
        except (OSError, ValueError):  # it is not there, or its name is no name
            return ""

    def _waves(self, run: list[Utterance]) -> Iterator[np.ndarray | InputError]:
        """Utterances of one recording -> (V, T) each, or why there is none."""
        how, rate = self.how, self.embedder.sample_rate
        if how.crops:
            yield from map(self._crops, run)
            return
        step = round(how.grid * rate)
        for wave in audio.parts(run[0].open(), [utterance[2:4] for utterance in run], rate, longest=how.longest):
            if isinstance(wave, audio.AudioError):
                yield InputError(f"{wave}: use --window") if wave.kind == "long" else wave
            else:
                yield wave[None, : len(wave) // step * step] if 0 < step <= len(wave) else wave[None]

    def _crops(self, utterance: Utterance) -> np.ndarray | InputError:
        how, rate = self.how, self.embedder.sample_rate
        n_samples, fractions = round(how.crop_seconds * rate), np.linspace(0, 1, how.crops)
        try:
            return audio.crops(utterance.open(), utterance.start, utterance.stop, fractions, n_samples, rate)[0]
        except audio.AudioError as error:
            return error

    def _embed(self, group: list[Taken]) -> Iterator[One]:
        """Waves of one length."""
        rows = _forward(self.embedder, np.concatenate([taken.wave for taken in group]), self.how)
        for taken, found in zip(group, rows.reshape(len(group), -1, rows.shape[1])):
            seconds = taken.wave.size / self.embedder.sample_rate
            if not (np.isfinite(found).all() and found.any(axis=1).all()):
                yield One(taken.number, InputError(f"{taken.wav}: its embedding is zero or not finite"), seconds)
                continue
            if self.kept and taken.key:
                self.kept.put(taken.key, found)
            yield One(taken.number, found, seconds)


def _runs(utterances: Iterable[Utterance]) -> Iterator[tuple[int, list[Utterance]]]:
    """Utterances -> those of one recording that follow each other, and the number of the first of them."""
    first = 0
    for _, run in groupby(utterances, key=lambda utterance: utterance.wav):
        listed = list(run)
        yield first, listed
        first += len(listed)


@torch.inference_mode()
def _forward(embedder: Embedder, waves: np.ndarray, how: How) -> np.ndarray:
    """(B, T) float32 -> (B, dim) float32."""
    device = _device(embedder)
    # TF32 would make a number depend on the kernel, and that on the batch.
    with (
        torch.autocast(device.type, torch.bfloat16, enabled=how.precision == "bf16"),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        parts = torch.from_numpy(waves).split(how.batch)
        return torch.cat([embedder(part.to(device)).float().cpu() for part in parts]).numpy()


def _device(embedder: Embedder) -> torch.device:
    return next(chain(embedder.buffers(), embedder.parameters())).device


def _watched(done: Iterable[One], n: int, progress: bool) -> Iterator[One]:
    """The same, with a bar on a terminal: the time left, and how many seconds are embedded in a second."""
    started, seconds = time.perf_counter(), 0.0
    shown = progress and sys.stderr.isatty()
    with tqdm(total=n, unit="utt", desc="embedding", disable=not shown, leave=False) as bar:
        for one in done:
            seconds += one.seconds
            bar.set_postfix_str(f"{seconds / (time.perf_counter() - started):.0f} x real time", refresh=False)
            bar.update()
            yield one


# --- several --------------------------------------------------------------------------------------------------------


def _ahead(submit: Callable[[Task], Future[Done]], tasks: Iterable[Task], n: int) -> Iterator[Done]:
    """Results in the order of the tasks, of which up to `n` are under way."""
    under_way: deque[Future[Done]] = deque()
    for task in tasks:
        under_way.append(submit(task))
        if len(under_way) >= n:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _in_processes(extractor: Extractor, utterances: Sequence[Utterance], workers: int) -> Iterator[One]:
    blocks = _blocks(utterances, workers)
    # Spawned: a fork of a process that has used torch may hang. The model goes as bytes, not through shared memory,
    # of which containers have little.
    workers = min(workers, max(1, len(blocks)))
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (pickle.dumps(extractor),))

    def submit(block: range) -> Future[list[One]]:
        with _undisturbed():
            return pool.submit(_work, [utterances[i] for i in block])

    try:
        for block, done in zip(blocks, _ahead(submit, blocks, 4 * workers)):
            yield from (one._replace(number=block[one.number]) for one in done)
    except BrokenProcessPool:
        raise InputError(
            "a process that embeds recordings came to a sudden end, perhaps for want of memory: use fewer "
            "--workers, or --window for long recordings"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _blocks(utterances: Sequence[Utterance], workers: int) -> list[range]:
    """The numbers of the utterances that a process gets at a time: some recordings, or a piece of a long one."""
    blocks: list[range] = []
    for first, run in _runs(utterances):
        stop = first + len(run)
        if blocks and stop - blocks[-1].start <= BLOCK:
            blocks[-1] = range(blocks[-1].start, stop)
            continue
        size = max(BLOCK, min(PIECE, len(run) // (4 * workers)))
        blocks += [range(begin, min(begin + size, stop)) for begin in range(first, stop, size)]
    return blocks


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Processes that start in here never see a Ctrl-C; this one sees it at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_own: list[Extractor] = []  # one, in a worker process


def _start(pickled: bytes) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _own.append(pickle.loads(pickled))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(utterances: list[Utterance]) -> list[One]:
    return list(_own[0](utterances))
