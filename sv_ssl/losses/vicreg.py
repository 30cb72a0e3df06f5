"""Losses that keep the dimensions of an embedding varied and uncorrelated: VICReg, Barlow Twins and their neighbours.

The rows z are raw, never scaled to length 1. Statistics are those of the rows of all processes, in float32 at least;
each process computes the whole loss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.core.distributed import gather
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.losses.geometry import unit, wide
from sv_ssl.losses.rows import views


class OfTwoViews(nn.Module):
    """Compute a loss of two views of the same recordings: (2 * N, D), (2 * N,) -> (). Subclasses write `compare`."""

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            z1, z2 = (gather(wide(view)) for view in views(z, labels))
            if len(z1) < 2:
                raise InputError(f"{type(self).__name__} got a single recording, which has no variance: use more")
            return self.compare(z1, z2)

    def compare(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Return the loss of all processes: (N, D), (N, D) -> ()."""
        raise NotImplementedError(f"{type(self).__name__} has no compare")


class VICReg(OfTwoViews):
    """Compute inv * invariance + var * variance + cov * covariance: (2 * N, D), (2 * N,) -> ().

    https://arxiv.org/abs/2105.04906; the weights are those of https://arxiv.org/abs/2207.05506 for speakers. Three
    conventions differ between papers and codes: the variance term is the "sum" of both views or "half" of it, as in the
    authors' code, whose weights are 25, 25 and 1; the squared differences are the "mean" over the dimensions or, as the
    paper prints it, their "sum"; the covariance term is always the sum of both views.

    >>> z = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [2.0, -2.0], [-2.0, -2.0]])
    >>> VICReg()(z.repeat(2, 1), torch.arange(4).repeat(2)).item()  # alike, spread and uncorrelated
    0.0
    """

    def __init__(
        self,
        inv: float = 1.0,
        var: float = 1.0,
        cov: float = 0.1,
        var_reduction: str = "sum",
        inv_reduction: str = "mean",
    ):
        super().__init__()
        _check_weights(type(self).__name__, inv=inv, var=var, cov=cov)
        if var_reduction not in ("sum", "half"):
            raise InputError(f"var_reduction is {var_reduction!r}: choose sum or half")
        if inv_reduction not in ("mean", "sum"):
            raise InputError(f"inv_reduction is {inv_reduction!r}: choose mean or sum")
        self.weights = inv, var, cov
        self.var_reduction = var_reduction
        self.inv_reduction = inv_reduction

    def compare(self, z1: Tensor, z2: Tensor) -> Tensor:
        invariance, variance, covariance = terms = self.terms(z1, z2)
        lack = variance / (1 if self.var_reduction == "half" else 2)  # of a deviation of 1, a mean over dimensions
        self.log = {
            "invariance": invariance.detach(),
            "variance_lack": lack.detach(),
            "covariance": covariance.detach(),
        }
        return torch.stack([weight * term for weight, term in zip(self.weights, terms)]).sum()

    def terms(self, z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return invariance, variance and covariance, unweighted: (N, D), (N, D) -> three of ()."""
        spread = var(z1) + var(z2)
        return (
            F.mse_loss(z1, z2) * (z1.shape[1] if self.inv_reduction == "sum" else 1),
            spread / 2 if self.var_reduction == "half" else spread,
            cov(z1) + cov(z2),
        )


class VIbCReg(OfTwoViews):
    """Compute VICReg with correlations in place of covariances, their squares averaged over all D * D places.

    https://arxiv.org/abs/2109.00783. (2 * N, D), (2 * N,) -> ().

    >>> z = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [2.0, -2.0], [-2.0, -2.0]])
    >>> VIbCReg()(z.repeat(2, 1), torch.arange(4).repeat(2)).item()
    0.0
    """

    def __init__(self, inv: float = 1.0, var: float = 1.0, cov: float = 8.0):
        super().__init__()
        _check_weights(type(self).__name__, inv=inv, var=var, cov=cov)
        self.weights = inv, var, cov

    def compare(self, z1: Tensor, z2: Tensor) -> Tensor:
        inv_weight, var_weight, cov_weight = self.weights
        of_itself, spread = F.mse_loss(z1, z2), var(z1) + var(z2)
        correlations = _squares_of_others(_standard(z1)) + _squares_of_others(_standard(z2))
        return inv_weight * of_itself + var_weight * spread + cov_weight * correlations / z1.shape[1] ** 2


class Barlow(OfTwoViews):
    """Compute scale * (sum of (1 - c_dd)^2 + off_diagonal * sum of c_ab^2), c the correlations of view 1 with view 2.

    Barlow Twins, https://arxiv.org/abs/2103.03230: scale 1 and eps 0 in the paper; eps is added to the variances, as
    BatchNorm does. (2 * N, D), (2 * N,) -> ().

    >>> z = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [2.0, -2.0], [-2.0, -2.0]])
    >>> Barlow(scale=1.0, eps=0.0)(torch.cat([z, -z]), torch.arange(4).repeat(2)).item()  # 2 * (1 + 1)^2
    8.0
    """

    def __init__(self, off_diagonal: float = 0.005, scale: float = 0.025, eps: float = 1e-5):
        super().__init__()
        _check_weights(type(self).__name__, off_diagonal=off_diagonal, scale=scale, eps=eps)
        self.off_diagonal = off_diagonal
        self.scale = scale
        self.eps = eps

    def compare(self, z1: Tensor, z2: Tensor) -> Tensor:
        n1, n2 = ((z - z.mean(0)) * (z.var(dim=0, correction=0) + self.eps).rsqrt() for z in (z1, z2))
        c = n1.mT @ n2 / len(n1)
        same = c.diagonal()
        others = c.square().sum() - same.square().sum()
        return self.scale * ((1 - same).square().sum() + self.off_diagonal * others)


class WMSE(OfTwoViews):
    """Whiten each view by the inverse Cholesky factor of its covariance, then 2 - 2 cosine: (2 * N, D), (2 * N,) -> ().

    https://arxiv.org/abs/2007.06346. `shrink` is the share of the identity in the covariance, which must have full
    rank: without it there must be more recordings than dimensions.

    >>> z = torch.tensor([[2.0, 2.0], [-2.0, 2.0], [2.0, -2.0], [-2.0, -2.0]])
    >>> round(WMSE()(torch.cat([z, z * 3]), torch.arange(4).repeat(2)).item(), 4)  # scale does not matter
    0.0
    """

    def __init__(self, shrink: float = 0.0):
        super().__init__()
        check_number("shrink", shrink, at_least=0, at_most=1)
        self.shrink = shrink

    def compare(self, z1: Tensor, z2: Tensor) -> Tensor:
        return 2 - 2 * (unit(self._whitened(z1)) * unit(self._whitened(z2))).sum(1).mean()

    def _whitened(self, z: Tensor) -> Tensor:
        centred = z - z.mean(0)
        covariance = centred.mT @ centred / (len(z) - 1)
        identity = torch.eye(len(covariance), dtype=z.dtype, device=z.device)
        factor, failed = torch.linalg.cholesky_ex((1 - self.shrink) * covariance + self.shrink * identity)
        if failed:
            raise InputError(
                f"WMSE cannot whiten {len(z)} rows of {z.shape[1]} dimensions, which do not span the space: "
                "raise shrink, or use a larger batch or fewer dimensions"
            )
        return torch.linalg.solve_triangular(factor, centred.mT, upper=False).mT


def var(z: Tensor, gamma: float = 1.0, eps: float = 1e-4) -> Tensor:
    """Return the mean over dimensions of max(0, gamma - sqrt(variance + eps)), with N - 1: (N, D) -> ().

    >>> var(torch.ones(4, 2))
    tensor(0.9900)
    """
    return (gamma - (wide(z).var(dim=0) + eps).sqrt()).clamp_min(0).mean()


def cov(z: Tensor) -> Tensor:
    """Return the sum of the squared covariances of different dimensions, divided by D: (N, D) -> ().

    >>> cov(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))  # 2^2 twice, over 2
    tensor(4.)
    """
    centred = wide(z) - wide(z).mean(0)
    return _squares_of_others(centred) / ((len(z) - 1) ** 2 * z.shape[1])


def _standard(z: Tensor) -> Tensor:
    return F.normalize(z - z.mean(0), dim=0)


def _squares_of_others(x: Tensor) -> Tensor:
    """Return the sum of the squares of X'X off its diagonal, (N, D) -> ().

    With fewer rows than dimensions X'X is not made, which has 268 MB for 8,192 of them: XX' has the same norm.
    """
    with torch.autocast(x.device.type, enabled=False):
        product = x @ x.mT if len(x) < x.shape[1] else x.mT @ x
        return product.square().sum() - x.square().sum(0).square().sum()


def _check_weights(loss: str, **weights: float) -> None:
    for name, weight in weights.items():
        check_number(f"{name} of {loss}", weight, at_least=0)
