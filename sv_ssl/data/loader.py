"""The training loader: worker processes that read, a count of the time spent waiting, errors in one line."""

from __future__ import annotations

import re
import signal
import sys
import time
from multiprocessing.queues import Queue

from torch.utils.data import DataLoader

from sv_ssl.core.errors import InputError
from sv_ssl.data.batch import collate
from sv_ssl.data.batches import Batches
from sv_ssl.data.views import Views


class TimedLoader(DataLoader):
    """A DataLoader that counts in `waited` the seconds for which the training loop waited for a batch."""

    dataset: Views
    batch_sampler: Batches
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
    """Return the training loader, whose workers live as long as it does.

    Pinned memory speeds up the copy to a GPU.
    """
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
    """Leave Ctrl-C to the main process, which then ends its workers: a batch that nobody takes any more is no error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    report = Queue._on_queue_feeder_error  # type: ignore[attr-defined]  # a hook, made to be overridden
    quiet = staticmethod(lambda error, item: None if isinstance(error, ConnectionError) else report(error, item))
    Queue._on_queue_feeder_error = quiet  # type: ignore[attr-defined]
    # The thread that hands over a batch's shared memory tells its errors in this way.
    hook = sys.excepthook
    sys.excepthook = lambda kind, *error: None if issubclass(kind, (ConnectionError, EOFError)) else hook(kind, *error)
