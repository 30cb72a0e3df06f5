"""The only torch.distributed: who am I, wait for the others, gather from all processes, and end if one is lost.

Every function also works in a single process, where gathering is a no-op. All processes must bring the same number of
rows (drop the last, smaller batch).

A process that dies or hangs must not keep the others waiting. Each gives a sign of life through the store at which they
met, from a thread of its own, and whoever misses one for PATIENCE seconds ends the run. So a process may keep the
others waiting at a `barrier` for as long as it works; only within a step of training is STEP the limit.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from sv_ssl.core.errors import InputError

PATIENCE = float(os.environ.get("SV_SSL_PATIENCE", 20))  # seconds without a sign of life; torchrun's own 30 follow
STEP = timedelta(minutes=10)
RESUME = "all processes end, and the same command goes on from the last checkpoint"

_met: _Peers | None = None


def run(command: Callable[[], int]) -> int:
    """Run a command that torchrun may have started several times -> its exit code, the group left.

    If another process is lost, one line says so, and this one ends with exit code 1.

    >>> run(lambda: 2)
    2
    """
    code = 1
    try:
        code = command()
        return code
    except RuntimeError as error:
        if not (_initialized() and is_loss(error)):
            raise
        _peers().end("another process has died or does not answer")
    finally:
        stop(failed=code != 0)


def start(device: str | None = None) -> None:
    """Join the other processes if torchrun has started several: over NCCL on GPUs, over gloo on CPUs."""
    if "LOCAL_RANK" not in os.environ or _initialized():
        return
    on_gpu = torch.cuda.is_available() and device != "cpu"
    if on_gpu:
        if int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
            raise InputError(
                f"torchrun has started more processes than this machine has GPUs, "
                f"{torch.cuda.device_count()}: pass --nproc_per_node {torch.cuda.device_count()} or less"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=STEP)
    _end_when_terminated()
    barrier()  # each has given a sign of life: from here on one can be missed
    _peers().thread.start()


def device(named: str | None = None) -> str:
    """-> the device of this process: its own GPU, or the one that is named; a CPU where there is no GPU.

    >>> device("cpu")
    'cpu'
    """
    if named == "cpu" or (named is None and not torch.cuda.is_available()):
        return "cpu"
    if _initialized():
        named = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        torch.empty(0, device=named or "cuda")
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {named!r} cannot be used: {str(error).splitlines()[0]}") from error
    return named or "cuda"


def stop(failed: bool = False) -> None:
    """Leave the other processes; after a failure that was told here, they end too and say nothing."""
    global _met
    if _initialized():
        _peers().leave(failed)
        _met = None
        dist.destroy_process_group()


def is_loss(error: Exception) -> bool:
    """Whether an error is what gloo or NCCL say when another process is lost.

    >>> is_loss(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"))
    True
    """
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def rank() -> int:
    """-> the number of this process, 0 in a single one.

    >>> rank()
    0
    """
    return dist.get_rank() if _initialized() else 0


def world_size() -> int:
    """-> how many processes train together, 1 outside of torch.distributed.

    >>> world_size()
    1
    """
    return dist.get_world_size() if _initialized() else 1


def is_main() -> bool:
    """-> whether this process is the one that writes and prints.

    >>> is_main()
    True
    """
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here, for hours if one of them has so much to do."""
    if world_size() > 1:
        _peers().meet()


def gather_objects(thing: Any) -> list:
    """-> what each rank brought, in the order of the ranks: small things that pickle, once in a while.

    >>> gather_objects("metrics")
    ['metrics']
    """
    if world_size() == 1:
        return [thing]
    barrier()
    things: list = [None] * world_size()
    dist.all_gather_object(things, thing)
    return things


def gather(rows: Tensor) -> Tensor:
    """(N, ...) -> (world * N, ...): the rows of all ranks, in the order of the ranks, with their gradients.

    Let each rank take the mean over its own anchors: then the gradient that DDP averages over the ranks is the one of a
    single process with the whole batch, because what flows back into a row is the sum over the ranks.

    >>> gather(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    return _Gather.apply(rows) if world_size() > 1 else rows


@torch.no_grad()
def gather_plain(rows: Tensor) -> Tensor:
    """(N, ...) -> (world * N, ...): as `gather`, for labels, keys and counts, which have no gradient.

    >>> gather_plain(torch.arange(3))
    tensor([0, 1, 2])
    """
    if world_size() == 1:
        return rows.detach()
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


@torch.no_grad()
def gather_batch(rows: Tensor) -> Tensor:
    """(N, ...) -> (world * N, ...): as `gather_plain`, in the order of the batch, whose rows go round the processes.

    >>> gather_batch(torch.arange(3))
    tensor([0, 1, 2])
    """
    return gather_plain(rows).unflatten(0, (world_size(), -1)).transpose(0, 1).flatten(0, 1)


def total(value: Tensor) -> Tensor:
    """() -> (): the sum over the ranks, with its gradient. A loss made of such sums is the same on each rank.

    >>> total(torch.tensor(2.0))
    tensor(2.)
    """
    return gather(value[None]).sum(0)


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        return gather_plain(rows)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


class _Peers:
    """The processes, each known by a record in the store that its thread renews."""

    def __init__(self, store: dist.Store, rank: int, world_size: int):
        self.store, self.rank, self.world_size = store, rank, world_size
        self.meetings, self.signs = itertools.count(), itertools.count()
        self.heard: dict[str, float] = {}  # record -> when it was first seen
        self.looked, self.left, self.ending = time.monotonic(), threading.Event(), threading.Lock()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.sign()

    def sign(self) -> None:
        """Show that this process lives."""
        name = f"process {self.rank} of {self.world_size} (pid {os.getpid()} on {socket.gethostname()})"
        self.store.set(f"life/{self.rank}", f"{name}\n{next(self.signs)}")

    def meet(self) -> None:
        """Wait for all, without a limit: the thread sees to it that there is somebody to wait for."""
        place = f"meeting/{next(self.meetings)}"
        self.store.add(place, 1)
        while self.store.add(place, 0) < self.world_size:
            time.sleep(0.02)

    def missing(self, now: float) -> list[str]:
        """-> the processes whose record has not changed for PATIENCE seconds."""
        records = [r.decode() for r in self.store.multi_get([f"life/{rank}" for rank in range(self.world_size)])]
        if now - self.looked > PATIENCE / 2:
            self.heard = {}  # it was this process that was away, stopped and continued
        self.looked = now
        self.heard = {record: self.heard.get(record, now) for record in records if record != "left"}
        return [record.splitlines()[0] for record, since in self.heard.items() if now - since > PATIENCE]

    def watch(self) -> None:
        """What the thread does, until this process leaves."""
        try:
            while not self.left.wait(PATIENCE / 20):
                self.sign()
                if missing := self.missing(time.monotonic()):
                    self.end(f"{', '.join(missing)} gave no sign of life for {PATIENCE:g} s")
        except RuntimeError as error:  # the store is gone, and with it the machine that kept it
            if not self.left.is_set():
                self.end(f"the first machine does not answer ({str(error).splitlines()[0]})")

    def leave(self, failed: bool) -> None:
        """Be missed no more; or, after a failure that was told here, let the others end without a word."""
        self.left.set()
        if self.thread.is_alive():
            self.thread.join(PATIENCE)  # or it might give one more sign
        if failed:
            self.first_to_tell()
        else:
            self.store.set(f"life/{self.rank}", "left")

    def first_to_tell(self) -> bool:
        try:
            return self.store.add("told", 1) == 1
        except RuntimeError:
            return os.environ.get("LOCAL_RANK") == "0"

    def end(self, why: str) -> NoReturn:
        """Say why, once for all processes, and end this one, whatever it waits for."""
        while not self.ending.acquire(blocking=False):
            time.sleep(1)  # the other thread is at it
        if self.first_to_tell():
            print(f"\n{os.path.basename(sys.argv[0])}: {why}: {RESUME}", file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(1)


def _peers() -> _Peers:
    """The group's; its store is asked over a connection of its own, which nobody else keeps waiting."""
    global _met
    if _met is None:
        assert dist.group.WORLD is not None
        store: Any = dist.group.WORLD.get_group_store()
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun --max-restarts keeps the store
        _met = _Peers(dist.PrefixStore(f"attempt {attempt}", store.clone()), rank(), world_size())
    return _met


def _end_when_terminated() -> None:
    """torchrun sends SIGTERM to all processes when one has ended, or when it is told to end itself."""
    me = os.getpid()

    def end(*_: Any) -> None:
        if os.getpid() != me:  # a forked worker has this handler too
            os._exit(128 + signal.SIGTERM)
        if not _peers().ending.locked():  # else it is being told already, perhaps below this very call
            _peers().end("another process has died, or the run was stopped")

    signal.signal(signal.SIGTERM, end)
