"""Predict a view's embedding from the other view's, without negatives: BYOL and SimSiam.

Neither value tells collapse: both are at their best when all embeddings are one. `geometry.spread` tells it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sv_ssl.losses.geometry import unit


def byol(p: Sequence[Tensor], z: Sequence[Tensor]) -> Tensor:
    """Return (2 - 2 cos(p1, z2)) + (2 - 2 cos(p2, z1)), means over rows: two of (N, D), two of (N, D) -> ().

    https://arxiv.org/abs/2006.07733. p are predictions, z embeddings of the slow network, which get no gradient.

    >>> byol([torch.eye(2)] * 2, [torch.eye(2), -torch.eye(2)])  # opposite, and alike
    tensor(4.)
    """
    return 4 - 2 * _agreement(p, z)


def simsiam(p: Sequence[Tensor], z: Sequence[Tensor]) -> Tensor:
    """Return -(cos(p1, z2) + cos(p2, z1)) / 2, means over rows: two of (N, D), two of (N, D) -> ().

    https://arxiv.org/abs/2011.10566. z are embeddings of the same network, and get no gradient either.

    >>> simsiam([torch.eye(2)] * 2, [torch.eye(2)] * 2)
    tensor(-1.)
    """
    return -_agreement(p, z) / 2


def _agreement(p: Sequence[Tensor], z: Sequence[Tensor]) -> Tensor:
    """Return cos(p1, z2) + cos(p2, z1), means over rows."""
    (p1, p2), (z1, z2) = p, z
    pairs = [(unit(p1), unit(z2.detach())), (unit(p2), unit(z1.detach()))]
    return torch.stack([(a * b).sum(1).mean() for a, b in pairs]).sum()
