"""Projection heads between the embedding and the loss, and prototypes. Contrastive papers' best systems use none."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sv_ssl.core.errors import InputError, check_number

ROWS = 2048  # of prototypes that are worked at once in the gradient: 2 MB for 256 dimensions


def mlp(dim: int, hidden: int = 2048, out: int = 256, hidden_layers: int = 1, last_norm: bool = False) -> nn.Sequential:
    """Make a head of `hidden_layers` times Linear-BatchNorm-ReLU, then Linear: (B, dim) -> (B, out).

    `last_norm` puts a BatchNorm without scale and shift behind it, as SimSiam's projector has one.

    >>> mlp(512)(torch.randn(4, 512)).shape
    torch.Size([4, 256])
    """
    _check(hidden=hidden, out=out, hidden_layers=hidden_layers)
    layers: list[nn.Module] = []
    for _ in range(hidden_layers):
        layers += [nn.Linear(dim, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()]
        dim = hidden
    return nn.Sequential(*layers, nn.Linear(dim, out), *[nn.BatchNorm1d(out, affine=False)] * last_norm)


def width(head: nn.Module, dim: int) -> int:
    """Return how wide the rows are that a head makes of rows of `dim`.

    >>> width(mlp(8, hidden=16, out=4), 8), width(nn.Identity(), 8)
    (4, 8)
    """
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    return linear[-1].out_features if linear else dim


class Bottleneck(nn.Module):
    """The head of DINO and SDPN: twice Linear-BatchNorm-GELU, then a narrow Linear: (B, dim) -> (B, out).

    Linear weights are drawn from a normal distribution of width 0.02, cut at two, with biases of 0. With hidden=0 it is
    no head: what comes is handed on, which short runs learn more by.

    >>> Bottleneck(512, hidden=64, out=32)(torch.randn(4, 512)).shape
    torch.Size([4, 32])
    """

    def __init__(self, dim: int, hidden: int = 2048, out: int = 256):
        super().__init__()
        self.wide: nn.Module = nn.Identity()
        self.narrow: nn.Module = nn.Identity()
        self.dim = dim
        if hidden == 0:
            if out != dim:
                raise InputError(f"without a head (hidden 0) what is compared is {dim} wide: pass --bottleneck {dim}")
            return
        _check(hidden=hidden, out=out)
        self.wide = nn.Sequential(*self._layer(dim, hidden), *self._layer(hidden, hidden))
        self.narrow = nn.Linear(hidden, out)
        self.dim = out
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                nn.init.zeros_(module.bias)

    @staticmethod
    def _layer(dim: int, out: int) -> list[nn.Module]:
        return [nn.Linear(dim, out), nn.BatchNorm1d(out), nn.GELU()]

    def forward(self, h: Tensor) -> Tensor:
        return self.narrow(self.wide(h))


class Prototypes(nn.Module):
    """Return the cosines of rows with K learnt directions: (..., dim) -> (..., K), float32 at least.

    The directions are kept at length 1: `normalise` is called after each step, since a slow copy would else weigh old
    directions by their length. In the first `frozen_epochs` their gradient is 0, and still shared by all processes.

    >>> Prototypes(dim=8, count=3)(torch.randn(2, 4, 8)).shape
    torch.Size([2, 4, 3])
    """

    def __init__(self, dim: int, count: int, frozen_epochs: int = 0):
        super().__init__()
        _check(dim=dim, count=count)
        check_number("frozen_epochs of the prototypes", frozen_epochs, at_least=0, whole=True)
        self.weight = nn.Parameter(F.normalize(torch.randn(count, dim), dim=1))
        self.frozen_epochs = frozen_epochs
        self.frozen = frozen_epochs > 0

    @property
    def count(self) -> int:
        """Return how many prototypes there are."""
        return len(self.weight)

    def start_epoch(self, epoch: int) -> None:
        """Freeze the directions, or let them move; epochs count from 1."""
        self.frozen = epoch <= self.frozen_epochs

    def forward(self, z: Tensor) -> Tensor:
        rows = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=-1)
        return _Cosines.apply(rows.reshape(-1, z.shape[-1]), self.weight, self.frozen).view(*z.shape[:-1], self.count)

    @torch.no_grad()
    def normalise(self) -> None:
        """Make the directions unit vectors again."""
        self.weight.copy_(F.normalize(self.weight, dim=1))


class _Cosines(torch.autograd.Function):
    """Compare unit rows with directions of any length, without a copy of these: (N, P), (K, P) -> (N, K).

    65,536 directions of 256 numbers are 64 MB. Autograd would keep them once more at length 1, and make two gradients.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, frozen: bool) -> Tensor:
        lengths = torch.linalg.vector_norm(weight, dim=1).clamp_min(1e-12)
        ctx.save_for_backward(rows, weight, lengths)
        ctx.frozen = frozen
        cosines = rows @ weight.mT
        return cosines.to(torch.promote_types(cosines.dtype, torch.float32)).div_(lengths)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight, lengths = ctx.saved_tensors
        of_rows, of_weight, _ = ctx.needs_input_grad
        rows_gradient = torch.zeros_like(rows) if of_rows else None
        weight_gradient = torch.zeros_like(weight) if of_weight else None
        for block in (slice(begin, begin + ROWS) for begin in range(0, len(weight), ROWS)):
            slope = upstream[:, block].to(weight.dtype) / lengths[block]
            if rows_gradient is not None:
                rows_gradient += slope @ weight[block]
            if weight_gradient is not None and not ctx.frozen:
                unit = weight[block] / lengths[block, None]
                raw = slope.mT @ rows
                weight_gradient[block] = raw - (raw * unit).sum(1, keepdim=True) * unit  # the length has no slope
        return rows_gradient, weight_gradient, None


def _check(**sizes: int) -> None:
    for name, value in sizes.items():
        check_number(f"{name} of the head", value, at_least=1, whole=True)
