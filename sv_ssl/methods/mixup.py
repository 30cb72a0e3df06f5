"""Mixup: recordings mixed with others, and their labels in the same parts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sv_ssl.core.distributed import rank
from sv_ssl.core.errors import InputError
from sv_ssl.losses.soft import SoftLabels


class Mixup(nn.Module):
    """(R, T), (R,) -> (R, T), SoftLabels: each row with a part of another one's, in `share` of the training batches.

    The part is drawn from Beta(strength, strength), one a batch. Without `n_classes` there can be no `smoothing`.
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
        self.share, self.strength, self.smoothing, self.seed, self.drawn = share, strength, smoothing, seed, 0
        self.resize(n_classes or 0)

    def resize(self, n_classes: int) -> None:
        """Smoothing spreads over so many classes."""
        self.n_classes = n_classes

    def get_extra_state(self) -> int:
        return self.drawn

    def set_extra_state(self, state: int) -> None:
        self.drawn = state

    def forward(self, rows: Tensor, labels: Tensor) -> tuple[Tensor, SoftLabels]:
        smooth = (self.smoothing, max(1, self.n_classes))
        whole = SoftLabels(labels[:, None], rows.new_ones(len(rows), 1), *smooth)
        if not self.training:
            return rows, whole
        self.drawn += 1
        rng = np.random.default_rng((self.seed, rank(), self.drawn))
        part = float(rng.beta(self.strength, self.strength))
        if rng.random() >= self.share:
            return rows, whole
        order = torch.from_numpy(rng.permutation(len(rows))).to(rows.device)
        shares = rows.new_tensor([part, 1 - part]).repeat(len(rows), 1)
        return torch.lerp(rows[order], rows, part), SoftLabels(torch.stack([labels, labels[order]], 1), shares, *smooth)
