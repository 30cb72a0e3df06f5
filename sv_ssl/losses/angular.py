"""Losses on the angles or cosines of all pairs of a batch: ACL's angular term, ADD, and orthogonal projection (OPL).

Pairs are ordered (i, j), i != j, in the batch of all processes: each process compares its own rows with all rows, and
the sums are added up. An empty set of pairs contributes 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sv_ssl.core.distributed import gather, total
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.losses.contrastive import NTXent
from sv_ssl.losses.geometry import gram, is_itself, pairs
from sv_ssl.losses.rows import Loss, Rows, evaluate, resize, set_progress
from sv_ssl.losses.soft import SoftLabels

Reduction = str | tuple[str, float]


class ACL(nn.Module):
    """Compute the angular contrastive loss, alpha * main(z, labels) + (1 - alpha) * angular_pairs(h, labels).
    Rows -> (): z of the head, h the embedding before it (z again where there is no head).

    `main` is symmetric NT-Xent by default; with a classifier's loss it is the supervised ACL.

    >>> z = torch.eye(2).repeat(2, 1)  # two views at angle 0, two utterances further apart than the margin
    >>> loss = ACL(alpha=0.3, temperature=1.0)
    >>> round(loss(Rows(z, torch.tensor([0, 1, 0, 1]))).item(), 4)  # 0.3 log(1 + 2 / e)
    0.1654
    """

    takes_rows = True

    def __init__(
        self,
        alpha: float,
        temperature: float = 0.2,
        margin_rad: float = 0.5,
        reduction: Reduction = "mean_pairs",
        main: Loss | None = None,
    ):
        super().__init__()
        check_number("alpha", alpha, at_least=0, at_most=1)
        check_number("margin_rad", margin_rad, at_least=0, at_most=math.pi)
        self.alpha = alpha
        self.margin_rad = margin_rad
        self.reduction = reduction
        self.main = main or NTXent(temperature)

    def forward(self, rows: Rows) -> Tensor:
        if isinstance(rows.labels, SoftLabels):
            raise InputError("ACL knows pairs of one label and of two, and none of mixed labels: leave mixup out")
        pair_loss = angular_pairs(rows.embeddings, rows.labels, self.margin_rad, self.reduction)
        return self.alpha * evaluate(self.main, rows) + (1 - self.alpha) * pair_loss

    def set_progress(self, progress: float) -> None:
        """Pass the epochs done on to the main loss."""
        set_progress(self.main, progress)

    def resize(self, n_classes: int) -> None:
        """Pass the number of classes on to the main loss."""
        resize(self.main, n_classes)


def angular_pairs(h: Tensor, labels: Tensor, margin_rad: float, reduction: Reduction = "mean_pairs") -> Tensor:
    """Add up theta^2 for the pairs of one label and max(0, margin - theta)^2 for the others: (N, D), (N,) -> ().

    `reduction` is "mean_pairs", "mean_pos_plus_mean_neg" (whose balance does not depend on the batch size), or
    ("sum_over", c): the sum divided by the constant c, as in the paper's code.

    >>> round(angular_pairs(torch.eye(2), torch.tensor([0, 0]), margin_rad=0.5).item(), 4)  # (pi / 2)^2
    2.4674
    """
    cosine = gram(h, all_processes=True)
    same, different = pairs(labels, all_processes=True)
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
    """Turn cosines into theta^2 where `same` is set, and into max(0, margin - theta)^2 elsewhere.

    The slope of theta^2 stays finite as theta goes to 0, where that of arccos alone is infinite. Of the other pairs the
    slope is 0 where the cosine is 1 or -1.

    >>> pair_costs(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([True, True, False]), margin_rad=0.5)
    tensor([0.0000, 2.4674, 0.2500])
    """
    return _PairCosts.apply(cosine, same, margin_rad)


class _PairCosts(torch.autograd.Function):
    """Compute values and slopes in one pass, in a third of the time that autograd takes for the formulas."""

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
    """Compute the angular distance distribution loss, of distances d = 1 - cosine: (N, D), (N,) -> ().

    Mean and standard deviation of d^2 over the pairs of one label, and of (1 - d)^2 over the others, weighted by
    `lambdas` (mu_p, sigma_p, mu_n, sigma_n): classes become tight, and orthogonal to each other.

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
        cosine = gram(z, all_processes=True)
        same, different = pairs(labels, all_processes=True)
        terms = (*_moments((1 - cosine) ** 2, same), *_moments(cosine**2, different))
        return torch.stack([weight * term for weight, term in zip(self.lambdas, terms)]).sum()


class SoftADD(nn.Module):
    """Compute ADD for label probabilities, as mixup and label smoothing give them: (N, D), (N, C) or SoftLabels -> ().

    lambda_mu times the mean of (d(yi, yj) - d(zi, zj))^2 over all pairs, plus lambda_sigma times the standard deviation
    of d(zi, zj)^2 over pairs of identical labels. d of labels is 1 - cosine, or 1 - yi.yj with label_metric="dot".

    >>> SoftADD()(torch.eye(2), torch.eye(2)).item()
    0.0
    """

    def __init__(self, lambda_mu: float = 1.0, lambda_sigma: float = 1.0, label_metric: str = "cosine"):
        super().__init__()
        check_number("lambda_mu", lambda_mu, at_least=0)
        check_number("lambda_sigma", lambda_sigma, at_least=0)
        if label_metric not in ("cosine", "dot"):
            raise InputError(f"label_metric is {label_metric!r}: choose cosine or dot")
        self.lambda_mu = lambda_mu
        self.lambda_sigma = lambda_sigma
        self.label_metric = label_metric

    def forward(self, z: Tensor, labels: Tensor | SoftLabels) -> Tensor:
        distance = 1 - gram(z, all_processes=True)
        with torch.autocast(z.device.type, enabled=False):
            label_cosine, product = self._agreement(labels)
        label_distance = 1 - product
        others = ~is_itself(distance)
        mean, _ = _moments((label_distance - distance) ** 2, others)
        _, deviation = _moments(distance**2, others & (1 - label_cosine < 1e-3))
        return self.lambda_mu * mean + self.lambda_sigma * deviation

    def _agreement(self, labels: Tensor | SoftLabels) -> tuple[Tensor, Tensor]:
        """Return the labels' cosines, and what their distance is measured by."""
        if isinstance(labels, SoftLabels):
            cosine = labels.cosines()
            return cosine, labels.products() if self.label_metric == "dot" else cosine
        cosine = gram(labels, all_processes=True)
        return cosine, labels @ gather(labels).mT if self.label_metric == "dot" else cosine


class OPL(nn.Module):
    """Compute orthogonal projection, weight * ((1 - s) + gamma * |d|): (N, D), (N,) -> ().

    s is the mean cosine of the pairs of one label, d that of the others; https://arxiv.org/abs/2103.14021.

    abs_mode="mean_of_abs" takes the mean of the |cosine| instead, as the released code does.

    >>> OPL()(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])).item()
    0.0
    """

    def __init__(self, gamma: float = 0.5, weight: float = 1.0, abs_mode: str = "abs_of_mean"):
        super().__init__()
        check_number("gamma of OPL", gamma, at_least=0)
        check_number("weight of OPL", weight, at_least=0)
        if abs_mode not in ("abs_of_mean", "mean_of_abs"):
            raise InputError(f"abs_mode is {abs_mode!r}: choose abs_of_mean or mean_of_abs")
        self.gamma = gamma
        self.weight = weight
        self.abs_mode = abs_mode

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        cosine = gram(z, all_processes=True)
        same, different = pairs(labels, all_processes=True)
        attract, _ = _moments(1 - cosine, same)
        repel, _ = _moments(cosine.abs() if self.abs_mode == "mean_of_abs" else cosine, different)
        return self.weight * (attract + self.gamma * repel.abs())


def _sum(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of the values where the mask is set, and their number, over all processes."""
    return total(torch.where(mask, values, 0).sum()), total(mask.sum())


def _moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased standard deviation where the mask is set; 0 for too few values."""
    summed, count = _sum(values, mask)
    mean = summed / count.clamp_min(1)
    variance = _sum((values - mean) ** 2, mask)[0] / (count - 1).clamp_min(1)
    spread = variance > 0  # the square root has an infinite slope at 0
    return mean, torch.where(spread, torch.where(spread, variance, 1).sqrt(), 0)
