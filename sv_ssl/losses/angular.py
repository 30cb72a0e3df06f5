"""Losses on the angles or cosines of all pairs of a batch: ACL's angular term, ADD, and orthogonal projection (OPL).

Pairs are ordered (i, j), i != j, in the batch of all processes: each compares its own rows with all rows, and the sums
are added up. An empty set of pairs contributes 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sv_ssl.core.distributed import gather, gather_plain, rank, total
from sv_ssl.core.errors import InputError
from sv_ssl.losses.contrastive import NTXent
from sv_ssl.losses.geometry import cosines, unit
from sv_ssl.losses.soft import SoftLabels

Reduction = str | tuple[str, float]


class ACL(nn.Module):
    """(N, D), (N,), (N, E) -> (): alpha * main(z, labels) + (1 - alpha) * angular_pairs(h, labels).

    z is the head's output and h the embedding before it (z again where there is no head). `main` is symmetric NT-Xent
    by default; with a classifier's loss it is the supervised ACL.

    >>> z = torch.eye(2).repeat(2, 1)  # two views at angle 0, two utterances further apart than the margin
    >>> round(ACL(alpha=0.3, temperature=1.0)(z, torch.tensor([0, 1, 0, 1])).item(), 4)  # 0.3 log(1 + 2 / e)
    0.1654
    """

    def __init__(
        self,
        alpha: float,
        temperature: float = 0.2,
        margin_rad: float = 0.5,
        reduction: Reduction = "mean_pairs",
        main: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.alpha = alpha
        self.margin_rad = margin_rad
        self.reduction = reduction
        self.main = main or NTXent(temperature)

    def forward(self, z: Tensor, labels: Tensor, h: Tensor | None = None) -> Tensor:
        pair_loss = angular_pairs(z if h is None else h, labels, self.margin_rad, self.reduction)
        return self.alpha * self.main(z, labels) + (1 - self.alpha) * pair_loss


def angular_pairs(h: Tensor, labels: Tensor, margin_rad: float, reduction: Reduction = "mean_pairs") -> Tensor:
    """(N, D), (N,) -> (): theta^2 for pairs of one label, max(0, margin - theta)^2 for the others.

    `reduction` is "mean_pairs", "mean_pos_plus_mean_neg" (whose balance does not depend on the batch size), or
    ("sum_over", c): the sum divided by the constant c, as in the paper's code.

    >>> round(angular_pairs(torch.eye(2), torch.tensor([0, 0]), margin_rad=0.5).item(), 4)  # (pi / 2)^2
    2.4674
    """
    cosine = _gram(h)
    same, different = _pairs(labels)
    costs = pair_costs(cosine, same, margin_rad)
    (positive, n_same), (negative, n_different) = _sum(costs, same), _sum(costs, different)
    if reduction == "mean_pairs":
        return (positive + negative) / (n_same + n_different).clamp_min(1)
    if reduction == "mean_pos_plus_mean_neg":
        return positive / n_same.clamp_min(1) + negative / n_different.clamp_min(1)
    if len(reduction) == 2 and reduction[0] == "sum_over":
        return (positive + negative) / float(reduction[1])
    raise InputError(f"reduction is {reduction!r}: choose mean_pairs, mean_pos_plus_mean_neg or (sum_over, number)")


def pair_costs(cosine: Tensor, same: Tensor, margin_rad: float) -> Tensor:
    """Cosines -> theta^2 where `same` is set, and else the square of what theta lacks of the margin.

    The slope of theta^2 stays finite as theta goes to 0, where arccos alone has an infinite one; elsewhere the slope
    is 0 where the cosine is 1 or -1.

    >>> pair_costs(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([True, True, False]), margin_rad=0.5)
    tensor([0.0000, 2.4674, 0.2500])
    """
    return _PairCosts.apply(cosine, same, margin_rad)


class _PairCosts(torch.autograd.Function):
    """One pass makes values and slopes: a third of the time that autograd takes over the formulas."""

    @staticmethod
    def forward(ctx, cosine: Tensor, same: Tensor, margin_rad: float) -> Tensor:
        inside = cosine.clamp(-1, 1)
        theta = inside.acos()
        lacking = (margin_rad - theta).clamp_min_(0)
        # theta^2 = (2 asin(sqrt(x) / 2))^2, x = |u - v|^2, as a series: at x = 1e-3 the next term, x^4 / 560, is 2e-15.
        x = 2 - 2 * inside
        near = same & (x < 1e-3)
        squares = torch.where(near, x * (1 + x * (1 / 12 + x / 90)), torch.where(same, theta, lacking).square())
        slope = torch.where(same, -theta, lacking).mul_(2).div_(((1 - inside) * (1 + inside)).sqrt_())
        slope.masked_fill_(cosine.abs() >= 1, 0)
        ctx.save_for_backward(torch.where(near, -2 - x * (1 / 3 + x / 15), slope))
        return squares

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.saved_tensors[0], None, None


class ADD(nn.Module):
    """(N, D), (N,) -> (): angular distance distribution, for distances d = 1 - cosine.

    Mean and standard deviation of d^2 over pairs of one label, and of (1 - d)^2 over the others, weighted by `lambdas`
    (mu_p, sigma_p, mu_n, sigma_n): classes become tight, and orthogonal to each other.

    >>> ADD()(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])).item()
    0.0
    """

    def __init__(self, lambdas: Sequence[float] = (1.0, 1.0, 1.0, 1.0)):
        super().__init__()
        if len(lambdas) != 4 or any(weight < 0 for weight in lambdas):
            raise InputError(
                f"lambdas is {list(lambdas)}: want four numbers, of mu_p, sigma_p, mu_n and sigma_n, none below 0"
            )
        self.lambdas = tuple(lambdas)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        cosine = _gram(z)
        same, different = _pairs(labels)
        terms = (*_moments((1 - cosine) ** 2, same), *_moments(cosine**2, different))
        return torch.stack([weight * term for weight, term in zip(self.lambdas, terms)]).sum()


class SoftADD(nn.Module):
    """(N, D), (N, C) or SoftLabels -> (): ADD for label probabilities, as mixup and label smoothing give them.

    lambda_mu times the mean of (d(yi, yj) - d(zi, zj))^2 over all pairs, plus lambda_sigma times the standard deviation
    of d(zi, zj)^2 over pairs of identical labels. d of labels is 1 - cosine, or 1 - yi.yj with label_metric="dot".

    >>> SoftADD()(torch.eye(2), torch.eye(2)).item()
    0.0
    """

    def __init__(self, lambda_mu: float = 1.0, lambda_sigma: float = 1.0, label_metric: str = "cosine"):
        super().__init__()
        if label_metric not in ("cosine", "dot"):
            raise InputError(f"label_metric is {label_metric!r}: choose cosine or dot")
        self.lambda_mu = lambda_mu
        self.lambda_sigma = lambda_sigma
        self.label_metric = label_metric

    def forward(self, z: Tensor, labels: Tensor | SoftLabels) -> Tensor:
        distance = 1 - _gram(z)
        with torch.autocast(z.device.type, enabled=False):
            product = label_cosine = labels.cosines() if isinstance(labels, SoftLabels) else _gram(labels)
            if self.label_metric == "dot":
                product = labels.products() if isinstance(labels, SoftLabels) else labels @ gather(labels).mT
        label_distance = 1 - product
        others = ~_itself(distance)
        mean, _ = _moments((label_distance - distance) ** 2, others)
        _, deviation = _moments(distance**2, others & (1 - label_cosine < 1e-3))
        return self.lambda_mu * mean + self.lambda_sigma * deviation


class OPL(nn.Module):
    """(N, D), (N,) -> (): weight * ((1 - s) + gamma * |d|), s and d the mean cosine of pairs of one and of two labels.

    abs_mode="mean_of_abs" takes the mean of the |cosine| instead, as the released code does.

    >>> OPL()(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])).item()
    0.0
    """

    def __init__(self, gamma: float = 0.5, weight: float = 1.0, abs_mode: str = "abs_of_mean"):
        super().__init__()
        if abs_mode not in ("abs_of_mean", "mean_of_abs"):
            raise InputError(f"abs_mode is {abs_mode!r}: choose abs_of_mean or mean_of_abs")
        self.gamma = gamma
        self.weight = weight
        self.abs_mode = abs_mode

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        cosine = _gram(z)
        same, different = _pairs(labels)
        attract, _ = _moments(1 - cosine, same)
        repel, _ = _moments(cosine.abs() if self.abs_mode == "mean_of_abs" else cosine, different)
        return self.weight * (attract + self.gamma * repel.abs())


def _gram(z: Tensor) -> Tensor:
    """(n, D) -> (n, N): the cosine of each own row with each row of all processes, in full precision for the angles."""
    with torch.autocast(z.device.type, enabled=False):
        rows = unit(z)
        return cosines(rows, gather(rows))


def _pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) -> two (n, N) masks: the pairs of one label, without a row and itself, and those of two labels."""
    equal = labels[:, None] == gather_plain(labels)
    return equal & ~_itself(equal), ~equal


def _itself(matrix: Tensor) -> Tensor:
    """(n, N) -> (n, N) mask of the places where a row meets itself."""
    own = torch.arange(len(matrix), device=matrix.device) + rank() * len(matrix)
    return own[:, None] == torch.arange(matrix.shape[1], device=matrix.device)


def _sum(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """-> the sum of the values where the mask is set and their number, over all processes."""
    return total(torch.where(mask, values, 0).sum()), total(mask.sum())


def _moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """-> mean and unbiased standard deviation where the mask is set; 0 for too few values."""
    summed, count = _sum(values, mask)
    mean = summed / count.clamp_min(1)
    variance = _sum((values - mean) ** 2, mask)[0] / (count - 1).clamp_min(1)
    spread = variance > 0  # the square root has an infinite slope at 0
    return mean, torch.where(spread, torch.where(spread, variance, 1).sqrt(), 0)
