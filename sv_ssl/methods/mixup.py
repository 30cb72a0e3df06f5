"""Mixup: recordings mixed with others, and their labels in the same shares."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sv_ssl.core.distributed import rank
from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream
from sv_ssl.losses.soft import SoftLabels


class Mixup(nn.Module):
    """Mix each row with another one, in `share` of the training batches: (R, T), (R,) -> (R, T), SoftLabels.

    https://arxiv.org/abs/1710.09412: x <- p x_i + (1 - p) x_j, y likewise, with one p ~ Beta(strength, strength) a
    batch. The labels are smoothed over all classes too; `smoothing` needs `n_classes`, given here or by `resize`.
    Used by hparams/add_soft.yaml of both families of recipes.
    """

    def __init__(
        self,
        share: float = 0.5,
        strength: float = 10.0,
        smoothing: float = 0.0,
        n_classes: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if not (0 <= share <= 1 and 0 <= smoothing < 1):
            raise InputError(f"mixup is {share} and smoothing {smoothing}: want shares, from 0 to 1")
        self.share = share
        self.strength = strength
        self.smoothing = smoothing
        self.seed = seed
        self.drawn = 0  # batches: the number of the random stream, kept over a resume
        self.resize(n_classes or 0)

    def resize(self, n_classes: int) -> None:
        """Set the number of classes that smoothing spreads over."""
        self.n_classes = n_classes

    def get_extra_state(self) -> int:
        return self.drawn

    def set_extra_state(self, state: int) -> None:
        self.drawn = state

    def draw(self, rng: np.random.Generator, n_rows: int) -> dict[str, np.ndarray]:
        """Draw the part that stays and the row that each is mixed with; nothing for a batch that is not mixed."""
        part = rng.beta(self.strength, self.strength)
        if rng.random() >= self.share:
            return {}
        return {"part": np.array([part], np.float32), "partner": rng.permutation(n_rows)}

    def mix(self, rows: Tensor, labels: Tensor, parameters: dict[str, Tensor]) -> tuple[Tensor, SoftLabels]:
        """Mix rows and labels by what was drawn. (`apply` is a method of every nn.Module.)"""
        smoothing = (self.smoothing, max(1, self.n_classes))
        if not parameters:
            return rows, SoftLabels(labels[:, None], rows.new_ones(len(rows), 1), *smoothing)
        part = parameters["part"].to(rows.dtype)
        partner = parameters["partner"]
        shares = torch.cat([part, 1 - part]).repeat(len(rows), 1)
        mixed = torch.lerp(rows[partner], rows, part)
        return mixed, SoftLabels(torch.stack([labels, labels[partner]], dim=1), shares, *smoothing)

    def forward(self, rows: Tensor, labels: Tensor) -> tuple[Tensor, SoftLabels]:
        if not self.training:
            return self.mix(rows, labels, {})
        self.drawn += 1
        drawn = self.draw(stream(self.seed, "mixup", rank(), self.drawn), len(rows))
        parameters = {key: torch.from_numpy(value).to(rows.device) for key, value in drawn.items()}
        return self.mix(rows, labels, parameters)
