"""Geometry of the unit sphere: cosines, masks of pairs, and statistics that tell whether training goes well.

The statistics are computed in float64 and without gradient; each is a tensor of one value. `sv_ssl.analysis.sphere`
computes the same ones for a whole corpus in blocks, and its test compares it with these definitions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sv_ssl.core.distributed import gather, gather_plain, rank


def wide(x: Tensor) -> Tensor:
    """Return the values in float32 at least, where sums and exponentials of half precision would be lost.

    >>> wide(torch.zeros(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def entropy(probs: Tensor) -> Tensor:
    """Return -sum p log p, in nats: (..., K) -> (...). 0 log 0 is 0, and its slope is finite.

    >>> entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    tensor([0.6931, 0.0000])
    """
    return (probs * -probs.clamp_min(torch.finfo(probs.dtype).tiny).log()).sum(-1)


def unit(z: Tensor) -> Tensor:
    """Scale rows to length 1, in float32 at least; a row of zeros stays zero: (N, D) -> (N, D).

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return F.normalize(wide(z), dim=1)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Multiply unit rows: (N, D), (M, D) -> (N, M). Autocast may use low precision; the result is float32 at least.

    >>> cosines(torch.eye(2), torch.eye(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    return wide(a @ b.mT)


def gram(z: Tensor, all_processes: bool = False) -> Tensor:
    """Return the cosine of each row with each row, or with each row of all processes: (N, D) -> (N, world * N).

    In full precision even under autocast, because angles need it.

    >>> gram(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
    tensor([[1., 0.],
            [0., 1.]])
    """
    with torch.autocast(z.device.type, enabled=False):
        rows = unit(z)
        return cosines(rows, gather(rows) if all_processes else rows)


def pairs(labels: Tensor, all_processes: bool = False) -> tuple[Tensor, Tensor]:
    """Return masks of the ordered pairs i != j: those of one label, those of two. (N,) -> two of (N, world * N).

    >>> same, different = pairs(torch.tensor([7, 7, 8]))
    >>> same.sum().item(), different.sum().item()
    (2, 4)
    """
    equal = labels[:, None] == (gather_plain(labels) if all_processes else labels)
    itself = is_itself(equal) if all_processes else torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return equal & ~itself, ~equal


def is_itself(matrix: Tensor) -> Tensor:
    """Return the mask of the places where a row of this process meets itself: (N, world * N) -> the same.

    >>> is_itself(torch.zeros(2, 2))
    tensor([[ True, False],
            [False,  True]])
    """
    own = torch.arange(len(matrix), device=matrix.device) + rank() * len(matrix)
    return own[:, None] == torch.arange(matrix.shape[1], device=matrix.device)


@torch.no_grad()
def uniformity(z: Tensor, t: float = 2.0) -> Tensor:
    """Return log of the mean over pairs of exp(-t |zi - zj|^2): (N, D) -> (). 0 for equal rows; lower is better.

    >>> round(uniformity(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).item(), 6)
    -4.0
    """
    squares = F.pdist(unit(z.double())) ** 2
    return squares.neg().mul(t).exp().mean().log()


@torch.no_grad()
def alignment(z: Tensor, labels: Tensor) -> Tensor:
    """Return the mean squared distance between the unit rows of one label: (N, D), (N,) -> (). 0 is perfect.

    >>> alignment(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])).item()
    2.0
    """
    return 2 - 2 * tolerance(z, labels)


@torch.no_grad()
def tolerance(z: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cosine of the pairs of one label: (N, D), (N,) -> (). ACL's tables give this conditional mean.

    >>> tolerance(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])).item()
    1.0
    """
    return gram(z.double())[pairs(labels)[0]].mean()


@torch.no_grad()
def pair_stats(x: Tensor, labels: Tensor, a: int, b: int) -> tuple[Tensor, Tensor]:
    """Return mean and coefficient of variation of 1 - cosine between class a and class b: (N, D), (N,) -> two of ().

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
    """Return the mean over dimensions of the standard deviation of the unit rows: (N, D) -> ().

    1 / sqrt(D) for rows all over the sphere, and 0 when the embeddings have collapsed into one.

    >>> spread(torch.ones(4, 8)).item()
    0.0
    """
    return unit(z.double()).std(dim=0, correction=0).mean()


@torch.no_grad()
def effective_rank(z: Tensor, centred: bool = True) -> Tensor:
    """Return exp of the entropy of the singular values, as shares of their sum: (N, D) -> (). 1 for rows on a line.

    https://ieeexplore.ieee.org/document/7098875. `centred` takes the mean of the rows away first.

    >>> effective_rank(torch.eye(4), centred=False).item()
    4.0
    """
    rows = z.double()
    values = torch.linalg.svdvals(rows - rows.mean(0) if centred else rows)
    return entropy(values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)).exp()


@torch.no_grad()
def usage(probs: Tensor) -> dict[str, Tensor]:
    """Return how the rows use K prototypes: (N, K) probabilities -> perplexity, row_entropy and winners, each ().

    The perplexity of the mean row is K where all are used alike and 1 where one takes everything; the mean entropy of a
    row is log K where nothing is decided; winners are the prototypes that are some row's best.

    >>> {name: value.item() for name, value in usage(torch.eye(4)).items()}
    {'perplexity': 4.0, 'row_entropy': 0.0, 'winners': 4}
    """
    p = probs.double()
    winners = p.argmax(1).unique().numel()
    return {
        "perplexity": entropy(p.mean(0)).exp(),
        "row_entropy": entropy(p).mean(),
        "winners": torch.tensor(winners, device=p.device),
    }
