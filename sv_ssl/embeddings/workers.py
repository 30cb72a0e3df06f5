"""Audio to embeddings by several processes of one thread each, which on a CPU share the work.

There a batch is slower than one recording after the other, so recordings are what is shared. A script that asks for
workers must be importable: what it does stands below `if __name__ == "__main__"`.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace

import torch

from sv_ssl.core.errors import InputError
from sv_ssl.data.sources import Utterance
from sv_ssl.embeddings.extractor import Embedded, Extractor, ahead, runs

BLOCK = 4  # utterances that a worker process gets at a time,
PIECE = 512  # or as many windows of one recording, which it opens once for them

_own: list[Extractor] = []  # one, in a worker process


def in_processes(extractor: Extractor, utterances: Sequence[Utterance], workers: int) -> Iterator[Embedded]:
    """Yield what the extractor makes of the utterances, made by up to `workers` processes, in the order given."""
    shares = blocks(utterances, workers)
    workers = min(workers, max(1, len(shares)))
    # Spawned: a fork of a process that has used torch may hang. The model goes as bytes, not through shared memory,
    # of which containers have little.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (pickle.dumps(extractor),))

    def submit(block: range) -> Future[list[Embedded]]:
        with _undisturbed():
            return pool.submit(_work, [utterances[i] for i in block])

    try:
        for block, done in zip(shares, ahead(submit, shares, 4 * workers)):
            yield from (replace(embedded, index=block[embedded.index]) for embedded in done)
    except BrokenProcessPool:
        raise InputError(
            "a process that embeds recordings came to a sudden end, perhaps for want of memory: use fewer "
            "--workers, or --window for long recordings"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def blocks(utterances: Sequence[Utterance], workers: int) -> list[range]:
    """Return the indices that a process gets at a time: some recordings, or a piece of a long one."""
    shares: list[range] = []
    for first, run in runs(utterances):
        stop = first + len(run)
        if shares and stop - shares[-1].start <= BLOCK:
            shares[-1] = range(shares[-1].start, stop)
            continue
        size = max(BLOCK, min(PIECE, len(run) // (4 * workers)))
        shares += [range(begin, min(begin + size, stop)) for begin in range(first, stop, size)]
    return shares


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep Ctrl-C from processes that start in here; this one sees it at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(pickled: bytes) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _own.append(pickle.loads(pickled))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(utterances: list[Utterance]) -> list[Embedded]:
    return list(_own[0](utterances))
