"""Losses on two stages of a network: on the embeddings, before the head, and on the head's outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError, check_number
from sv_ssl.losses.rows import Rows, evaluate, logged, resize, set_progress


class Stages(nn.Module):
    """Add up losses of h and losses of z, each times its weight: Rows -> ().

    The two stages of https://arxiv.org/abs/2207.05506: VICReg on one and one-way NT-Xent,
    `NTXent(0.07, symmetric=False)`, on the other, or both on one. `weights` are those of on_h, then those of on_z; all
    are 1 by default.

    >>> from sv_ssl.losses import NTXent, VICReg
    >>> rows = Rows(z=torch.eye(2).repeat(2, 1), labels=torch.tensor([0, 1, 0, 1]), h=torch.ones(4, 3))
    >>> Stages(on_h=[VICReg()], on_z=[NTXent(1.0)], weights=[0.5, 1.0])(rows)  # 0.99 and log(1 + 2 / e)
    tensor(1.5414)
    """

    takes_rows = True

    def __init__(
        self,
        on_h: Sequence[nn.Module] = (),
        on_z: Sequence[nn.Module] = (),
        weights: Sequence[float] | None = None,
    ):
        super().__init__()
        n = len(on_h) + len(on_z)
        self.on_h = nn.ModuleList(on_h)
        self.on_z = nn.ModuleList(on_z)
        self.weights = [1.0] * n if weights is None else list(weights)
        if len(self.weights) != n or not n:
            raise InputError(f"{n} losses and {len(self.weights)} weights: give a loss at least, and a weight for each")
        for weight in self.weights:
            check_number("a weight of Stages", weight, at_least=0)

    def forward(self, rows: Rows) -> Tensor:
        of_h = rows._replace(z=rows.embeddings)
        values = [evaluate(loss, of_h) for loss in self.on_h] + [evaluate(loss, rows) for loss in self.on_z]
        return torch.stack([weight * value for weight, value in zip(self.weights, values)]).sum()

    @property
    def log(self) -> dict[str, Tensor]:
        """Return the terms of all losses that keep any."""
        return {name: term for loss in (*self.on_h, *self.on_z) for name, term in logged(loss).items()}

    def set_progress(self, progress: float) -> None:
        """Pass the epochs done on to all losses."""
        for loss in (*self.on_h, *self.on_z):
            set_progress(loss, progress)

    def resize(self, n_classes: int) -> None:
        """Pass the number of classes on to all losses."""
        for loss in (*self.on_h, *self.on_z):
            resize(loss, n_classes)
