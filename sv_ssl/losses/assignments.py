"""Predict assignments to prototypes: the cross-entropy that DINO, SDPN and SwAV have in common.

With 65,536 prototypes the logits of all crops are hundreds of megabytes, and autograd would keep their softmax as well.
So only logits and targets are kept, not the logits that a function makes, and a few rows are worked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from sv_ssl.core.errors import InputError
from sv_ssl.losses.geometry import wide

Logits = Tensor | Callable[[], Tensor]  # (N, K), or what makes them
ELEMENTS = 2**20  # of a block of rows: 4 MB


def cross_entropy(student: Iterable[Logits], targets: Tensor, temperature: float, skip_own: bool = True) -> Tensor:
    """Return the mean over pairs (g, v) of the mean over rows of -sum q_g log softmax(student_v / temperature):
    V logits (N, K), targets (G, N, K) -> ().

    With `skip_own` target g was made of the crop that student g sees: they are no pair. A view's logits may
    be a function that makes them: it is called again for the gradient, and only one view's are in memory.

    >>> targets = torch.full((1, 3, 4), 0.25)
    >>> cross_entropy([torch.zeros(3, 4)] * 2, targets, temperature=0.1)  # log 4
    tensor(1.3863)
    """
    costs, pairs = [], 0
    for view, logits in enumerate(student):
        chosen = [g for g in range(len(targets)) if g != view or not skip_own]
        if not chosen:
            continue
        cost = partial(_cost, logits, targets, chosen, temperature)
        costs.append(cost() if isinstance(logits, Tensor) else checkpoint(cost, use_reentrant=False))
        pairs += len(chosen)
    if not pairs:
        raise InputError("the only crop of the student is the teacher's: give the student another one")
    return torch.stack(costs).sum() / pairs


def _cost(logits: Logits, targets: Tensor, chosen: list[int], temperature: float) -> Tensor:
    made = logits if isinstance(logits, Tensor) else logits()
    if made.shape != targets.shape[1:]:
        raise InputError(
            f"the student's logits are {tuple(made.shape)} and the targets {tuple(targets.shape[1:])}: "
            "give both for the same recordings and prototypes"
        )
    return _CrossEntropy.apply(made, targets, chosen, temperature)


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
