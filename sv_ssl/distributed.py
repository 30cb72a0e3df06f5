"""The only torch.distributed: who am I, wait for the others, and gather from all processes.

Every function also works in a single process, where gathering is a no-op. All processes must bring the same number of
rows (drop the last, smaller batch).
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sv_ssl.files import InputError


def start(device: str | None = None) -> None:
    """Join the other processes if torchrun has started several: over NCCL on GPUs, over gloo on CPUs."""
    if "LOCAL_RANK" not in os.environ or _initialized():
        return
    on_gpu = torch.cuda.is_available() and device != "cpu"
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # One process scans folders and validates while the others wait, on a large corpus longer than the usual 10 minutes.
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(hours=6))


def device(named: str | None = None) -> str:
    """-> the device of this process: its own GPU, or the one that is named; a CPU where there is no GPU.

    >>> device("cpu")
    'cpu'
    """
    if named == "cpu" or (named is None and not torch.cuda.is_available()):
        return "cpu"
    if _initialized():
        return f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        torch.empty(0, device=named or "cuda")
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {named!r} cannot be used: {str(error).splitlines()[0]}") from error
    return named or "cuda"


def stop() -> None:
    """Leave the other processes."""
    if _initialized():
        dist.destroy_process_group()


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
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


def gather_objects(thing: Any) -> list:
    """-> what each rank brought, in the order of the ranks: small things that pickle, once in a while.

    >>> gather_objects("metrics")
    ['metrics']
    """
    if world_size() == 1:
        return [thing]
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
