"""Predict a view's embedding from the other view's, without negatives: BYOL and SimSiam.

Without `stop_gradient` the targets learn too, and all embeddings become one. Neither value tells collapse: both are at
their best when all embeddings are one. `geometry.spread` tells it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sv_ssl.losses.geometry import unit


def byol(p: Sequence[Tensor], z: Sequence[Tensor], stop_gradient: bool = True) -> Tensor:
    """Return (2 - 2 cos(p1, z2)) + (2 - 2 cos(p2, z1)), means over rows: two of (N, D), two of (N, D) -> ().

    https://arxiv.org/abs/2006.07733. p are predictions, z embeddings of the slow network, which get no gradient.

    >>> byol([torch.eye(2)] * 2, [torch.eye(2), -torch.eye(2)])  # opposite, and alike
    tensor(4.)
    """
    return 4 - 2 * _agreement(p, z, stop_gradient)


def simsiam(p: Sequence[Tensor], z: Sequence[Tensor], stop_gradient: bool = True) -> Tensor:
    """Return -(cos(p1, z2) + cos(p2, z1)) / 2, means over rows: two of (N, D), two of (N, D) -> ().

    https://arxiv.org/abs/2011.10566. z are embeddings of the same network, and get no gradient either.

    >>> simsiam([torch.eye(2)] * 2, [torch.eye(2)] * 2)
    tensor(-1.)
    """
    return -_agreement(p, z, stop_gradient) / 2


def _agreement(p: Sequence[Tensor], z: Sequence[Tensor], stop_gradient: bool) -> Tensor:
    """Return cos(p1, z2) + cos(p2, z1), means over rows."""
    (p1, p2), (z1, z2) = p, [view.detach() if stop_gradient else view for view in z]
    pairs = [(unit(p1), unit(z2)), (unit(p2), unit(z1))]
    return torch.stack([(a * b).sum(1).mean() for a, b in pairs]).sum()
