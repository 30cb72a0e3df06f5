"""Exponential moving average: a slow copy of a network, such as MoCo's key encoder or a teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from sv_ssl.core.errors import InputError, check_number

BUFFERS = ("own", "copy", "ema")


class Ema:
    """Move a slow copy: theta_slow <- weight * theta_slow + (1 - weight) * theta.

    weight   a number, or a function of the epochs done, fractional: a schedule moves with every step.
    buffers  of the copy, such as BatchNorm's statistics. "own": they are not touched, because a slow copy that sees
             batches of its own gathers its own; "copy": those of the network; "ema": moved as the parameters are.

    >>> slow, fast = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> Ema(0.0).update(slow, fast, progress=0.0)
    >>> torch.equal(slow.weight, fast.weight)
    True
    """

    def __init__(self, weight: float | Callable[[float], float], buffers: str = "own"):
        if buffers not in BUFFERS:
            raise InputError(f"buffers is {buffers!r}: choose {', '.join(BUFFERS[:-1])} or {BUFFERS[-1]}")
        if not callable(weight):
            check_number("ema, the weight of the slow copy,", weight, at_least=0, at_most=1)
        self.weight = weight
        self.buffers = buffers

    @torch.no_grad()
    def update(self, slow: nn.Module, fast: nn.Module, progress: float) -> None:
        """Move the slow copy towards the network that it is a copy of."""
        weight = self.weight(progress) if callable(self.weight) else self.weight
        weights = list(slow.parameters())
        if weights:  # a head may have none
            torch._foreach_lerp_(weights, list(fast.parameters()), 1.0 - weight)  # type: ignore[arg-type]
        if self.buffers == "own":
            return
        for old, new in zip(slow.buffers(), fast.buffers()):
            if self.buffers == "ema" and old.is_floating_point():
                old.lerp_(new, 1.0 - weight)
            else:
                old.copy_(new)


def slow_copy(module: nn.Module) -> nn.Module:
    """Return a copy whose parameters get no gradient."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def copy_weights(slow: nn.Module, fast: nn.Module) -> None:
    """Give a slow copy the parameters and buffers of the network that it is a copy of."""
    for tensors in ("parameters", "buffers"):
        for old, new in zip(getattr(slow, tensors)(), getattr(fast, tensors)()):
            old.copy_(new)
