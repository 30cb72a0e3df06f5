"""Audio to embeddings within one process: look up, read, put waves of one length together, pass them through."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.data.sources import Utterance
from sv_ssl.embeddings.cache import Cache
from sv_ssl.embeddings.held_file import HeldFile, held
from sv_ssl.models.embedder import Embedder

PRECISIONS = ("fp32", "bf16")
HELD = 64  # windows that a reading thread takes at a time: they wait in memory
WAITING = 16  # batches' worth of waves that may wait for others of their length
NOTHING = np.zeros((0, 0), np.float32)  # in place of a wave

Task = TypeVar("Task")
Done = TypeVar("Done")


class Options(NamedTuple):
    """How recordings are embedded. All but `batch` and `longest` change the numbers."""

    precision: str = "fp32"  # bf16: twice as fast, three digits
    batch: int = 1  # waves of one length that pass together on a GPU; see `at_once`
    grid: float = 0.0  # seconds: lengths are cut down to a multiple of this, so that more of them are equal; 0: are not
    crops: int = 0  # evenly spaced crops instead of the whole utterance, which is repeated if it is shorter than one
    crop_seconds: float = 3.5
    longest: float = np.inf  # seconds of a whole utterance or window; what is longer is left out

    def check(self) -> None:
        """Raise InputError for what makes no sense."""
        if self.precision not in PRECISIONS:
            raise InputError(f"precision {self.precision!r}: wanted {' or '.join(PRECISIONS)}")

    def key(self) -> str:
        """Return what tells these numbers from others in a cache; its form stays, or all caches would be forgotten.

        >>> Options(crops=2, batch=8).key()
        "How(precision='fp32', batch=0, grid=0.0, crops=2, crop_seconds=3.5, longest=0)"
        """
        same = self._replace(batch=0, longest=0)
        return f"How({', '.join(f'{name}={value!r}' for name, value in same._asdict().items())})"


@dataclass(frozen=True, slots=True)
class Embedded:
    """What became of an utterance."""

    index: int
    result: np.ndarray | audio.AudioError  # (V, dim), or why there is none
    seconds: float = 0.0  # of audio that was embedded for it
    was_damaged: bool = False  # what was kept of it


@dataclass(frozen=True, slots=True)
class Loaded:
    """An utterance that was looked up and read."""

    index: int
    wav: str
    result: np.ndarray | audio.AudioError | None  # (V, dim) from before, or why there is no wave
    wave: np.ndarray  # (V, T)
    key: str = ""  # what it is kept under; "" if it is not
    seconds: float = 0.0  # of the recording, before a grid cuts it
    was_damaged: bool = False


class Extractor:
    """Utterances to what became of each; pickled, it does the same in another process."""

    def __init__(self, embedder: Embedder, options: Options, kept: Cache | None):
        self.embedder = embedder
        self.options = options
        self.kept = kept
        self.batch = at_once(embedder, options)

    def __call__(self, utterances: Sequence[Utterance], readers: int = 0) -> Iterator[Embedded]:
        """Yield them as they get ready, which is in another order than given if batches are larger than 1."""
        waiting: dict[int, list[Loaded]] = defaultdict(list)
        for loaded in self._read(utterances, readers):
            if loaded.result is not None:
                yield Embedded(loaded.index, loaded.result, was_damaged=loaded.was_damaged)
                continue
            waiting[loaded.wave.shape[1]].append(loaded)
            length, group = max(waiting.items(), key=lambda item: len(item[1]))
            if len(group) >= self.batch or sum(map(len, waiting.values())) >= WAITING * self.batch:
                yield from self._embed(waiting.pop(length))
        for group in waiting.values():
            yield from self._embed(group)

    def _read(self, utterances: Sequence[Utterance], readers: int) -> Iterator[Loaded]:
        """Yield the utterances in order, read here or by threads that are a little ahead."""
        if not readers:
            for first, run in runs(utterances):
                yield from self._load(first, run)
            return
        pieces = ((first + i, run[i : i + HELD]) for first, run in runs(utterances) for i in range(0, len(run), HELD))
        with ThreadPoolExecutor(readers) as pool:
            loaded = ahead(lambda piece: pool.submit(lambda: list(self._load(*piece))), pieces, 4 * readers)
            yield from chain.from_iterable(loaded)

    def _load(self, first: int, run: list[Utterance]) -> Iterator[Loaded]:
        """Yield utterances of one recording, of which `first` is the index of the first."""
        file = held(run[0].wav) if self.kept else None
        keys = [self._key(file, utterance) for utterance in run]
        rows = [self._row(key) for key in keys]
        source = file.source if file else run[0].open()
        waves = self._waves(source, [utterance for utterance, row in zip(run, rows) if row is None])
        for index, (utterance, key, row) in enumerate(zip(run, keys, rows), first):
            wav = str(utterance.wav)
            if row is not None:
                yield Loaded(index, wav, row, NOTHING)
                continue
            wave = next(waves)
            lost = self.kept is not None and key in self.kept.damaged
            if isinstance(wave, audio.AudioError):
                yield Loaded(index, wav, wave, NOTHING, was_damaged=lost)
                continue
            key = key if file and file.is_steady() else ""
            yield Loaded(index, wav, None, self._cut(wave), key, wave.shape[1] / self.embedder.sample_rate, lost)

    def _key(self, file: HeldFile | None, utterance: Utterance) -> str:
        return f"{file.content} {utterance[2:4]} {self.options.key()}" if file else ""

    def _row(self, key: str) -> np.ndarray | None:
        """Return (V, dim) kept from before, if any; of crops, a recording may be of any length."""
        longest = np.inf if self.options.crops else self.options.longest
        row = self.kept.get(key, longest) if self.kept and key else None
        return None if row is None else row.reshape(-1, self.embedder.dim)

    def _waves(self, source: Any, run: list[Utterance]) -> Iterator[np.ndarray | audio.AudioError]:
        """Yield (V, T) for each utterance of one recording, or why there is none."""
        if self.options.crops:
            yield from (self._crops(source, utterance) for utterance in run)
            return
        spans = [utterance[2:4] for utterance in run]
        for wave in audio.parts(source, spans, self.embedder.sample_rate, longest=self.options.longest):
            if isinstance(wave, audio.AudioError):
                yield audio.AudioError(f"{wave}: use --window", wave.kind) if wave.kind == "long" else wave
            else:
                yield wave[None]

    def _crops(self, source: Any, utterance: Utterance) -> np.ndarray | audio.AudioError:
        rate = self.embedder.sample_rate
        n_samples = round(self.options.crop_seconds * rate)
        fractions = np.linspace(0, 1, self.options.crops)
        try:
            return audio.crops(source, utterance.start, utterance.stop, fractions, n_samples, rate)[0]
        except audio.AudioError as error:
            return error

    def _cut(self, wave: np.ndarray) -> np.ndarray:
        """Cut a whole wave down to the grid: (V, T) -> (V, up to T)."""
        step, length = round(self.options.grid * self.embedder.sample_rate), wave.shape[1]
        return wave[:, : length // step * step] if 0 < step <= length and not self.options.crops else wave

    def _embed(self, group: list[Loaded]) -> Iterator[Embedded]:
        """Yield the embeddings of waves of one length."""
        rows = forward(self.embedder, np.concatenate([loaded.wave for loaded in group]), self.options)
        for loaded, result in zip(group, rows.reshape(len(group), -1, rows.shape[1])):
            seconds = loaded.wave.size / self.embedder.sample_rate
            if not (np.isfinite(result).all() and result.any(axis=1).all()):
                fault = audio.AudioError(f"{loaded.wav}: its embedding is zero or not finite", "no direction")
                yield Embedded(loaded.index, fault, seconds, loaded.was_damaged)
                continue
            if self.kept and loaded.key:
                self.kept.put(loaded.key, result, loaded.seconds)
            yield Embedded(loaded.index, result, seconds, loaded.was_damaged)


def runs(utterances: Iterable[Utterance]) -> Iterator[tuple[int, list[Utterance]]]:
    """Yield the utterances of one recording that follow each other, and the index of the first of them."""
    first = 0
    for _, run in groupby(utterances, key=lambda utterance: utterance.wav):
        listed = list(run)
        yield first, listed
        first += len(listed)


def ahead(submit: Callable[[Task], Future[Done]], tasks: Iterable[Task], n: int) -> Iterator[Done]:
    """Yield results in the order of the tasks, of which up to `n` are under way."""
    under_way: deque[Future[Done]] = deque()
    for task in tasks:
        under_way.append(submit(task))
        if len(under_way) >= n:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


@torch.inference_mode()
def forward(embedder: Embedder, waves: np.ndarray, options: Options) -> np.ndarray:
    """Embed waves of one length: (B, T) float32 -> (B, dim) float32."""
    device = device_of(embedder)
    # TF32 would make a number depend on the kernel, and that on the batch.
    with (
        torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        batches = torch.from_numpy(waves).split(at_once(embedder, options))
        return torch.cat([embedder(batch.to(device)).float().cpu() for batch in batches]).numpy()


def at_once(embedder: nn.Module, options: Options) -> int:
    """Return how many waves pass together: one on a CPU, where a batch of recordings is hardly faster than one by one.

    Kernels are chosen by the shape of a batch, and the order of their sums with them: a row of a batch differs by up to
    1e-6 of its length from one that passes alone.
    """
    return 1 if device_of(embedder).type == "cpu" else options.batch


def device_of(embedder: nn.Module) -> torch.device:
    """Return where the embedder's tensors are; an embedder without weights has constants at least."""
    return next(chain(embedder.buffers(), embedder.parameters())).device
