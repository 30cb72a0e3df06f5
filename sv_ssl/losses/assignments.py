"""Predict assignments to prototypes: the cross-entropy that DINO, SDPN and SwAV have in common.

With 65,536 prototypes the logits of all crops are hundreds of megabytes, and autograd would keep their softmax as well.
So only logits and targets are kept, and a few rows are worked at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sv_ssl.core.errors import InputError
from sv_ssl.losses.geometry import wide

ELEMENTS = 2**20  # of a block of rows: 4 MB


def cross_entropy(student: Iterable[Tensor], targets: Tensor, temperature: float, skip_own: bool = True) -> Tensor:
    """Return the mean over pairs (g, v) of the mean over rows of -sum q_g log softmax(student_v / temperature):
    V logits (N, K), targets (G, N, K) -> ().

    With `skip_own` target g was made of the crop that student g sees: they are no pair. The student may be a generator:
    then the logits of a view are made when its turn comes.

    >>> targets = torch.full((1, 3, 4), 0.25)
    >>> cross_entropy([torch.zeros(3, 4)] * 2, targets, temperature=0.1)  # log 4
    tensor(1.3863)
    """
    costs, pairs = [], 0
    for view, logits in enumerate(student):
        if logits.shape != targets.shape[1:]:
            raise InputError(
                f"the student's logits are {tuple(logits.shape)} and the targets {tuple(targets.shape[1:])}: "
                "give both for the same recordings and prototypes"
            )
        chosen = [g for g in range(len(targets)) if g != view or not skip_own]
        if chosen:
            costs.append(_CrossEntropy.apply(logits, targets, chosen, temperature))
            pairs += len(chosen)
    if not pairs:
        raise InputError("the only crop of the student is the teacher's: give the student another one")
    return torch.stack(costs).sum() / pairs


def row_blocks(rows: Tensor) -> Iterator[slice]:
    """Yield slices of a few rows of (N, K), as many as ELEMENTS holds."""
    step = max(1, ELEMENTS // rows.shape[1])
    for begin in range(0, len(rows), step):
        yield slice(begin, begin + step)


class _CrossEntropy(torch.autograd.Function):
    """Add up, for the chosen targets, the mean over rows of the cross-entropy: (N, K), (G, N, K) -> ()."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, chosen: list[int], temperature: float) -> Tensor:
        ctx.save_for_backward(logits, targets)
        ctx.chosen, ctx.temperature = chosen, temperature
        total = torch.zeros((), dtype=targets.dtype, device=logits.device)
        for block in row_blocks(logits):
            log_p = (wide(logits[block]) / temperature).log_softmax(1)
            total -= log_p.mul_(_sum(targets, chosen, block)).sum()
        return total / len(logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        logits, targets = ctx.saved_tensors
        gradient, scale = torch.empty_like(logits), upstream / (len(logits) * ctx.temperature)
        for block in row_blocks(logits):
            wanted = _sum(targets, ctx.chosen, block)
            p = (wide(logits[block]) / ctx.temperature).softmax(1)
            gradient[block] = p.mul_(wanted.sum(1, keepdim=True)).sub_(wanted).mul_(scale)
        return gradient, None, None, None


def _sum(targets: Tensor, chosen: list[int], block: slice) -> Tensor:
    return reduce(torch.add, [targets[g, block] for g in chosen])
