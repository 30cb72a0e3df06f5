"""Losses that keep the dimensions of an embedding varied and uncorrelated: VICReg, Barlow Twins and their neighbours.

The rows z are raw, never scaled to length 1. Statistics are those of the rows of all processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sv_ssl.losses.geometry import wide


def var(z: Tensor, gamma: float = 1.0, eps: float = 1e-4) -> Tensor:
    """Return the mean over dimensions of max(0, gamma - sqrt(variance + eps)), with N - 1: (N, D) -> ().

    >>> var(torch.ones(4, 2))
    tensor(0.9900)
    """
    return (gamma - (wide(z).var(dim=0) + eps).sqrt()).clamp_min(0).mean()


def cov(z: Tensor) -> Tensor:
    """Return the sum of the squared covariances of different dimensions, divided by D: (N, D) -> ().

    With fewer rows than dimensions the covariances are not made: 8,192 dimensions would have 268 MB of them.

    >>> cov(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))  # 2^2 twice, over 2
    tensor(4.)
    """
    with torch.autocast(z.device.type, enabled=False):
        centred = wide(z) - wide(z).mean(0)
        n, dim = centred.shape
        # |X'X| = |XX'|, in Frobenius' norm.
        gram = centred @ centred.mT if n < dim else centred.mT @ centred
        of_itself = centred.square().sum(0).square().sum()
        return (gram.square().sum() - of_itself) / ((n - 1) ** 2 * dim)
