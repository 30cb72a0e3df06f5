"""Embeddings on the unit sphere: cosines, pairs of labels, and the statistics that tell whether training goes well.

The statistics are computed in float64 and without gradient; each gives a tensor of one value.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(z: Tensor) -> Tensor:
    """(N, D) -> (N, D) rows of length 1, in float32 at least; a row of zeros stays zero.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return F.normalize(_wide(z), dim=1)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """(N, D), (M, D) unit rows -> (N, M); autocast may multiply in low precision, the result is float32 at least.

    >>> cosines(torch.eye(2), torch.eye(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    return _wide(a @ b.mT)


def gram(z: Tensor) -> Tensor:
    """(N, D) -> (N, N): the cosine of every pair of rows, in full precision even under autocast, as angles need it.

    >>> gram(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
    tensor([[1., 0.],
            [0., 1.]])
    """
    with torch.autocast(z.device.type, enabled=False):
        rows = unit(z)
        return cosines(rows, rows)


def pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) -> two (N, N) masks of the ordered pairs i != j: those of the same label, those of different labels.

    >>> same, different = pairs(torch.tensor([7, 7, 8]))
    >>> same.sum().item(), different.sum().item()
    (2, 4)
    """
    equal = labels[:, None] == labels
    different = ~equal
    return equal.fill_diagonal_(False), different


def angle(cosine: Tensor) -> Tensor:
    """Cosines -> angles in radians, with slope 0 instead of infinity where the cosine is 1 or -1.

    >>> angle(torch.tensor([1.0, 0.0, -1.0]))
    tensor([0.0000, 1.5708, 3.1416])
    """
    inside = cosine.abs() < 1
    return torch.where(inside, torch.where(inside, cosine, 0).acos(), cosine.detach().clamp(-1, 1).acos())


@torch.no_grad()
def uniformity(z: Tensor, t: float = 2.0) -> Tensor:
    """(N, D) -> (): log of the mean over pairs of exp(-t |zi - zj|^2); 0 when all are equal, lower is better.

    >>> round(uniformity(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).item(), 6)
    -4.0
    """
    squares = F.pdist(unit(z.double())) ** 2
    return squares.neg().mul(t).exp().mean().log()


@torch.no_grad()
def alignment(z: Tensor, labels: Tensor) -> Tensor:
    """(N, D), (N,) -> (): mean squared distance between the unit rows of one label; 0 is perfect.

    >>> alignment(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])).item()
    2.0
    """
    return 2 - 2 * tolerance(z, labels)


@torch.no_grad()
def mean_angle(z: Tensor, labels: Tensor) -> Tensor:
    """(N, D), (N,) -> (): mean angle in radians between the rows of one label.

    >>> round(mean_angle(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])).item(), 4)
    1.5708
    """
    return angle(gram(z.double()))[pairs(labels)[0]].mean()


@torch.no_grad()
def tolerance(z: Tensor, labels: Tensor) -> Tensor:
    """(N, D), (N,) -> (): mean cosine of the pairs of one label (the conditional mean, as tabulated for ACL).

    >>> tolerance(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])).item()
    1.0
    """
    return gram(z.double())[pairs(labels)[0]].mean()


@torch.no_grad()
def pair_stats(x: Tensor, labels: Tensor, a: int, b: int) -> tuple[Tensor, Tensor]:
    """(N, D), (N,) -> mean and coefficient of variation of 1 - cosine between the rows of class a and of class b.

    >>> mean, cv = pair_stats(torch.eye(3), torch.tensor([0, 0, 1]), 0, 1)
    >>> mean.item(), cv.item()
    (1.0, 0.0)
    """
    between = (labels == a)[:, None] & (labels == b)
    distances = 1 - gram(x.double())[between.fill_diagonal_(False)]
    mean = distances.mean()
    return mean, distances.std(correction=min(1, len(distances) - 1)) / mean


@torch.no_grad()
def spread(z: Tensor) -> Tensor:
    """(N, D) -> (): mean over dimensions of the standard deviation of the unit rows.

    About 1 / sqrt(D) for rows all over the sphere, and 0 when the embeddings have collapsed into one.

    >>> spread(torch.ones(4, 8)).item()
    0.0
    """
    return unit(z.double()).std(dim=0, correction=0).mean()


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
