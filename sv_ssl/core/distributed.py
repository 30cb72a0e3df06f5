"""The only torch.distributed: which process this is, wait for the others, gather from all, and end if one is lost.

Every function also works in a single process, where gathering is a no-op. All processes must bring the same number of
rows (drop the last, smaller batch).

A process that dies or hangs must not keep the others waiting. Each gives a sign of life through the store at which they
met, from a thread of its own, and whoever misses one for PATIENCE seconds ends the run. So a process may keep the
others waiting at a `barrier` for as long as it works; only within a step of training is STEP the limit.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sv_ssl.core.errors import InputError
from sv_ssl.core.host import number_of
from sv_ssl.core.peers import PATIENCE, Peers, patience

__all__ = [
    "PATIENCE",
    "barrier",
    "device",
    "gather",
    "gather_batch",
    "gather_objects",
    "gather_plain",
    "is_loss",
    "is_main",
    "made_by_all",
    "made_by_first",
    "rank",
    "run",
    "start",
    "stop",
    "total",
    "world_size",
]

STEP = timedelta(minutes=10)

_met: Peers | None = None


def run(command: Callable[[], int]) -> int:
    """Run a command that torchrun may have started several times, leave the group, return the exit code.

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
    _check_environment()
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


def _check_environment() -> None:
    """Refuse what torchrun does not set: numbers that are none, or one variable without the others."""
    for variable in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
        number_of(variable, 1)
    if not patience() > 0:
        text = os.environ["SV_SSL_PATIENCE"]
        raise InputError(f"the environment's SV_SSL_PATIENCE is {text!r}: wanted a number of seconds")
    if absent := [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise InputError(
            f"the environment has LOCAL_RANK and not {absent[0]}: let torchrun set all of them, or unset it"
        )


def device(named: str | None = None) -> str:
    """Return the device of this process: its own GPU, or the one that is named; a CPU where there is no GPU.

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
    """Leave the other processes; after a failure that was reported here, they end too and say nothing."""
    global _met
    if _initialized():
        _peers().leave(failed)
        _met = None
        dist.destroy_process_group()


def is_loss(error: Exception) -> bool:
    """Return whether an error is what gloo or NCCL say when another process is lost.

    >>> is_loss(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"))
    True
    """
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def rank() -> int:
    """Return the number of this process, 0 in a single one.

    >>> rank()
    0
    """
    return dist.get_rank() if _initialized() else 0


def world_size() -> int:
    """Return how many processes train together, 1 outside of torch.distributed.

    >>> world_size()
    1
    """
    return dist.get_world_size() if _initialized() else 1


def is_main() -> bool:
    """Return whether this process is the one that writes and prints.

    >>> is_main()
    True
    """
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here, for hours if one of them has so much to do."""
    if world_size() > 1:
        _peers().meet()


def gather_objects(thing: Any) -> list:
    """Return what each rank brought, in the order of the ranks: small things that pickle, once in a while.

    >>> gather_objects("metrics")
    ['metrics']
    """
    if world_size() == 1:
        return [thing]
    barrier()
    things: list = [None] * world_size()
    dist.all_gather_object(things, thing)
    return things


def made_by_first(make: Callable[[], Any]) -> Any:
    """Return what the first process makes, to all of them; its InputError is an error of all."""
    return made_by_all(lambda: make() if is_main() else None)


def made_by_all(make: Callable[[], Any]) -> Any:
    """Return what the first process has made, once all are done; the InputError of any is an error of all."""
    try:
        mine = make()
    except InputError as error:
        mine = InputError(str(error))  # one that every process can unpickle
    made = gather_objects(mine)
    if errors := [thing for thing in made if isinstance(thing, InputError)]:
        raise errors[0]
    return made[0]


def gather(rows: Tensor) -> Tensor:
    """Gather the rows of all ranks, in the order of the ranks, with their gradients: (N, ...) -> (world * N, ...).

    Let each rank take the mean over its own anchors: then the gradient that DDP averages over the ranks is the one of a
    single process with the whole batch, because what flows back into a row is the sum over the ranks.

    >>> gather(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    return _Gather.apply(rows) if world_size() > 1 else rows


@torch.no_grad()
def gather_plain(rows: Tensor) -> Tensor:
    """Gather as `gather` does labels, keys and counts, which have no gradient: (N, ...) -> (world * N, ...).

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
    """Gather as `gather_plain`, in the order of the batch, whose rows go round the ranks: (N, ...) -> (world * N, ...).

    >>> gather_batch(torch.arange(3))
    tensor([0, 1, 2])
    """
    return gather_plain(rows).unflatten(0, (world_size(), -1)).transpose(0, 1).flatten(0, 1)


def total(value: Tensor) -> Tensor:
    """Sum a tensor over the ranks, with its gradient. A loss made of such sums is the same on each rank.

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


def _peers() -> Peers:
    """Return the group's processes; the store is asked over a connection that nobody else keeps waiting."""
    global _met
    if _met is None:
        assert dist.group.WORLD is not None
        store: Any = dist.group.WORLD.get_group_store()
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun --max-restarts keeps the store
        _met = Peers(dist.PrefixStore(f"attempt {attempt}", store.clone()), rank(), world_size())
    return _met


def _end_when_terminated() -> None:
    """End at SIGTERM, which torchrun sends to all processes when one has ended, or when it ends itself."""
    me = os.getpid()

    def end(*_: Any) -> None:
        if os.getpid() != me:  # a forked worker has this handler too
            os._exit(128 + signal.SIGTERM)
        if not _peers().ending.locked():  # else it is being reported already, perhaps below this very call
            _peers().end("another process has died, or the run was stopped")

    signal.signal(signal.SIGTERM, end)
