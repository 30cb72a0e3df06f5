"""Audio to embeddings. Nothing is padded, and no neighbour or shard changes a number.

On a CPU each recording passes alone, and processes of one thread each share the work. On a GPU recordings of one length
pass together, while threads read the next ones. The order of a sum, and so the last digits of an embedding (1e-6 of its
length), may depend on the number of threads of a process, and on a GPU on the size of a batch.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from sv_ssl.audio import AudioError
from sv_ssl.core.errors import InputError, Skipped
from sv_ssl.data.sources import Utterance
from sv_ssl.embeddings.cache import Cache
from sv_ssl.embeddings.extractor import Embedded, Extractor, Options, device_of, forward
from sv_ssl.embeddings.workers import in_processes
from sv_ssl.models.embedder import Embedder


class Extracted(NamedTuple):
    """Embeddings of N utterances; V is 1, or the number of crops."""

    ids: list[str]  # (N,)
    rows: np.ndarray  # (N, V, dim) float32
    skipped: list[Skipped]  # what is not among them
    seconds: float  # of audio that was embedded; what was kept from before is not


def embed_wave(embedder: Embedder, wave: np.ndarray) -> np.ndarray:
    """Embed samples at the embedder's rate: (T,) float32 -> (dim,) float32."""
    return forward(embedder, wave[None], Options())[0]


def embed(
    embedder: Embedder,
    utterances: Sequence[Utterance],
    progress: bool = True,
    kept: Cache | None = None,
) -> tuple[list[str], np.ndarray, list[Skipped]]:
    """Embed whole utterances -> ids, (N, dim) float32 and what could not be embedded.

    With a cache (`cache_of`) a recording whose content was embedded before is not embedded again.
    """
    extracted = extract(embedder, utterances, kept=kept, progress=progress)
    return extracted.ids, extracted.rows[:, 0], extracted.skipped


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
            f"{len(skipped)} of {len(names)} recordings of the trial list cannot be used; "
            f"the first: {skipped[0].reason}"
        )
    return ids, rows


def extract(
    embedder: Embedder,
    utterances: Sequence[Utterance],
    options: Options = Options(),
    kept: Cache | None = None,
    workers: int = 0,
    progress: bool = True,
) -> Extracted:
    """Embed utterances, in the order given, whatever the batch and the workers.

    `workers` are processes on a CPU, and threads that read for a GPU; with 0 all is done here. A script that asks for
    workers must be importable: what it does stands below `if __name__ == "__main__"`.
    """
    options.check()
    rows = np.zeros((len(utterances), max(1, options.crops), embedder.dim), np.float32)
    faults: dict[int, AudioError] = {}
    was_training, seconds, damaged = embedder.training, 0.0, 0
    embedder.eval()
    try:
        extractor = Extractor(embedder, options, kept)
        shared = workers and device_of(embedder).type == "cpu"
        done = in_processes(extractor, utterances, workers) if shared else extractor(utterances, workers)
        for embedded in _watched(done, len(utterances), progress):
            seconds += embedded.seconds
            damaged += embedded.was_damaged
            if isinstance(embedded.result, AudioError):
                faults[embedded.index] = embedded.result
            else:
                rows[embedded.index] = embedded.result
    finally:
        embedder.train(was_training)
    if damaged:
        print(f"note: {damaged:,} embeddings kept from before were damaged: they are made anew", file=sys.stderr)
    skipped = [Skipped(utterances[index].id, faults[index].kind, str(faults[index])) for index in sorted(faults)]
    there = [index for index in range(len(utterances)) if index not in faults]
    return Extracted([utterances[index].id for index in there], rows[there] if faults else rows, skipped, seconds)


def _watched(done: Iterable[Embedded], n: int, progress: bool) -> Iterator[Embedded]:
    """Yield the same; a bar on a terminal has the time left, and how many seconds are embedded in a second."""
    started, seconds = time.perf_counter(), 0.0
    shown = progress and sys.stderr.isatty()
    with tqdm(total=n, unit="utt", desc="embedding", disable=not shown, leave=False) as bar:
        for embedded in done:
            seconds += embedded.seconds
            bar.set_postfix_str(f"{seconds / (time.perf_counter() - started):.0f} x real time", refresh=False)
            bar.update()
            yield embedded


def cache_of(embedder: Embedder) -> Cache:
    """Return the embeddings kept of this very model on this kind of device."""
    kind = f"{type(embedder.features).__name__} {type(embedder.encoder).__name__}"
    return Cache(f"{kind} {device_of(embedder).type} {digest(embedder)}")


def digest(embedder: Embedder) -> str:
    """Return what tells a model from all others, wherever it is: its settings and weights, as sha1."""
    sha = hashlib.sha1(json.dumps([embedder.features.config, embedder.encoder.config]).encode())
    for name, tensor in embedder.state_dict().items():
        if isinstance(tensor, torch.Tensor):  # and no counter of a random stream
            sha.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
