"""Exponential moving average: a slow copy of a network, such as MoCo's key encoder or a teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn


class Ema:
    """Move a slow copy: theta_slow <- weight * theta_slow + (1 - weight) * theta, parameters only.

    `weight` is a number, or a function of the epochs done (a schedule). Buffers are not touched: a slow copy that sees
    batches of its own has BatchNorm statistics of its own.

    >>> slow, fast = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> Ema(0.0).update(slow, fast, progress=0.0)
    >>> torch.equal(slow.weight, fast.weight)
    True
    """

    def __init__(self, weight: float | Callable[[float], float]):
        self.weight = weight

    @torch.no_grad()
    def update(self, slow: nn.Module, fast: nn.Module, progress: float) -> None:
        """Move the parameters of `slow` towards those of `fast`."""
        weight = self.weight(progress) if callable(self.weight) else self.weight
        torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1.0 - weight)  # type: ignore[arg-type]


def slow_copy(module: nn.Module) -> nn.Module:
    """Return a copy whose parameters get no gradient."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def copy_weights(slow: nn.Module, fast: nn.Module) -> None:
    """Give a slow copy the parameters and buffers of the network that it is a copy of."""
    for tensors in ("parameters", "buffers"):
        for old, new in zip(getattr(slow, tensors)(), getattr(fast, tensors)()):
            old.copy_(new)
