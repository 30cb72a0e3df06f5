"""Losses that make the embeddings' distribution an isotropic Gaussian: SIGReg, LeJEPA and VISReg.

They need no negatives, no teacher and no queue. The rows z are raw; distributions are those of one view over the rows
of all processes, seen along random directions, which are drawn anew for each step and are the same on all processes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.core.distributed import gather, total, world_size
from sv_ssl.core.errors import check_number
from sv_ssl.core.seeds import torch_stream
from sv_ssl.losses.geometry import wide
from sv_ssl.losses.rows import views

LAST_KNOT, KNOTS = 3.0, 17


class Directions(nn.Module):
    """Draw random unit directions. How often it has drawn is kept over a resume."""

    def __init__(self, n: int, seed: int):
        super().__init__()
        check_number("directions", n, at_least=1, whole=True)
        self.n = n
        self.seed = seed
        self.drawn = 0

    def get_extra_state(self) -> int:
        return self.drawn

    def set_extra_state(self, state: int) -> None:
        self.drawn = state

    def project(self, z: Tensor) -> Tensor:
        """Return the rows along directions that are drawn now: (V, N, D) -> (V, N, n)."""
        drawn = torch.randn(z.shape[2], self.n, generator=torch_stream(self.seed, "directions", self.drawn))
        self.drawn += 1
        return z @ F.normalize(drawn, dim=0).to(z)


class SIGReg(nn.Module):
    """Compare characteristic functions along random directions with the normal one: (V * N, D), (V * N,) -> ().

    Epps and Pulley's statistic, N times the integral over t of |phi(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2), by the
    trapezoid rule on 17 knots in [0, 3], doubled because the integrand is even. Mean over directions and views.
    https://arxiv.org/abs/2511.08544

    >>> SIGReg(directions=1)(torch.zeros(8, 2), torch.arange(4).repeat(2))  # 4 times the integral for phi = 1
    tensor(1.6082)
    """

    def __init__(self, directions: int = 1024, n_views: int = 2, seed: int = 0):
        super().__init__()
        self.directions = Directions(directions, seed)
        self.n_views = n_views

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.of_views(wide(views(z, labels, self.n_views)))

    def of_views(self, z: Tensor) -> Tensor:
        """Return the statistic for rows that are in views: (V, N, D) -> ()."""
        with torch.autocast(z.device.type, enabled=False):
            projected = self.directions.project(z)
            t = torch.linspace(0, LAST_KNOT, KNOTS, dtype=z.dtype, device=z.device)[1:, None, None]  # 0 at t = 0
            angles = [projected * knot for knot in t]
            waves = [torch.stack([angle.cos().mean(1), angle.sin().mean(1)]) for angle in angles]
            cosine, sine = (total(torch.stack(waves)) / world_size()).unbind(1)  # each (knots, V, directions)
            normal = (-t.square() / 2).exp()
            misfit = ((cosine - normal).square() + sine.square()) * normal
            step = LAST_KNOT / (KNOTS - 1)
            integral = step * (misfit.sum(0) - misfit[-1] / 2)
            return z.shape[1] * world_size() * 2 * integral.mean()


class LeJEPA(nn.Module):
    """Compute (1 - weight) * invariance + weight * SIGReg: (V * N, D), (V * N,) -> ().

    https://arxiv.org/abs/2511.08544. The invariance is the mean squared distance of all views to the centre of the
    first `n_long` views of their recording, all of them by default.

    >>> z = torch.tensor([[1.0, 0.0], [3.0, 0.0]])  # two views, one recording
    >>> LeJEPA(weight=0.0)(z, torch.tensor([0, 0]))  # 1 in one of two dimensions
    tensor(0.5000)
    """

    def __init__(
        self, weight: float = 0.05, directions: int = 1024, n_views: int = 2, n_long: int | None = None, seed: int = 0
    ):
        super().__init__()
        check_number("weight of LeJEPA", weight, at_least=0, at_most=1)
        self.weight = weight
        self.sigreg = SIGReg(directions, n_views, seed)
        self.n_views, self.n_long = n_views, _long(n_views, n_long)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        rows = wide(views(z, labels, self.n_views))
        return (1 - self.weight) * invariance(rows, self.n_long) + self.weight * self.sigreg.of_views(rows)


class VISReg(nn.Module):
    """Compute (1 - weight) * invariance + weight * (scale + shape + centre): (V * N, D), (V * N,) -> ().

    https://arxiv.org/abs/2606.02572. Invariance as in LeJEPA; scale: the mean over dimensions of (1 - deviation)^2;
    centre: that of the squared mean; shape: the mean squared distance of the standardised rows, sorted along a random
    direction, to the normal distribution's quantiles, which are coarse below some 32 rows. With weight 1 it regularises
    and compares nothing.

    >>> z = torch.tensor([[1.0], [-1.0]]).repeat(2, 1)
    >>> VISReg(weight=1.0, directions=1)(z, torch.tensor([0, 1, 0, 1]))  # quantiles at 1/3 and 2/3: (1 - 0.4307)^2
    tensor(0.3240)
    """

    def __init__(
        self, weight: float = 0.6, directions: int = 1024, n_views: int = 2, n_long: int | None = None, seed: int = 0
    ):
        super().__init__()
        check_number("weight of VISReg", weight, at_least=0, at_most=1)
        self.weight = weight
        self.directions = Directions(directions, seed)
        self.n_views, self.n_long = n_views, _long(n_views, n_long)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        rows = wide(views(z, labels, self.n_views))
        return (1 - self.weight) * invariance(rows, self.n_long) + self.weight * self.regularise(rows)

    def regularise(self, z: Tensor) -> Tensor:
        """Return scale + shape + centre, means over the views: (V, N, D) -> ()."""
        with torch.autocast(z.device.type, enabled=False):
            rows = gather(z.transpose(0, 1)).transpose(0, 1)
            mean = rows.mean(1)
            # Equal rows have no deviation, and its slope there is infinite.
            deviation = rows.var(dim=1, correction=0).clamp_min(1e-12).sqrt()
            standard = (rows - mean[:, None]) / (deviation.detach()[:, None] + 1e-4)
            projected = self.directions.project(standard).sort(dim=1).values
            shares = torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype, device=rows.device) / (rows.shape[1] + 1)
            shape = (projected - torch.special.ndtri(shares)[:, None]).square().mean()
            return (1 - deviation).square().mean() + shape + mean.square().mean()


def invariance(z: Tensor, n_long: int) -> Tensor:
    """Return the mean squared distance to the centre of a recording's first views: (V, N, D) -> ().

    >>> invariance(torch.tensor([[[1.0]], [[3.0]], [[5.0]]]), n_long=2)  # (1 + 1 + 9) / 3
    tensor(3.6667)
    """
    return (z - z[:n_long].mean(0)).square().mean()


def _long(n_views: int, n_long: int | None) -> int:
    check_number("n_views", n_views, at_least=1, whole=True)
    n_long = n_views if n_long is None else n_long
    check_number("n_long", n_long, at_least=1, at_most=n_views, whole=True)
    return n_long
