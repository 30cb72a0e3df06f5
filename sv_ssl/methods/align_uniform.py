"""Alignment and uniformity: the two properties of a contrastive loss, learnt each by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.core.distributed import gather
from sv_ssl.core.errors import InputError
from sv_ssl.data.batch import Batch
from sv_ssl.losses.geometry import unit
from sv_ssl.methods.base import Method, Needs, Step


class AlignUniform(Method):
    """Bring the two views of a recording together and spread all recordings over the sphere. Step.z is (2 * B, D).

    loss = mean |z1 - z2|^2 + weight * the mean over both views of log mean exp(-t |zi - zj|^2) over pairs i < j, z of
    length 1: Wang and Isola, ICML 2020, https://arxiv.org/abs/2005.10242; hparams/align_uniform.yaml.
    """

    needs = Needs(views=2)

    def __init__(self, embedder: nn.Module, weight: float = 1.0, t: float = 2.0):
        super().__init__()
        if weight < 0 or t <= 0:
            raise InputError(f"weight is {weight:g} and t is {t:g}: want a weight of 0 or more and t above 0")
        self.embedder = embedder
        self.weight = weight
        self.t = t

    def forward(self, batch: Batch) -> Step:
        if len(batch.views) != 2 or batch.short is not None:
            raise InputError(f"alignment compares 2 views, {len(batch.views)} came: pass --n_views 2 --n_short 0")
        z = unit(self.embedder(batch.views.flatten(0, 1)))
        first, second = z.chunk(2)
        alignment = (first - second).square().sum(dim=1).mean()
        uniformity = (self._uniformity(first) + self._uniformity(second)) / 2
        loss = alignment + self.weight * uniformity
        parts = {"alignment_loss": alignment.detach(), "uniformity_loss": uniformity.detach()}
        return Step(loss, z.detach(), batch.rows.repeat(2), parts)

    def _uniformity(self, z: Tensor) -> Tensor:
        """Return log of the mean of exp(-t d^2) over the pairs of all processes: (B, D) -> ()."""
        squares = F.pdist(gather(z)).square()
        return torch.logsumexp(-self.t * squares, dim=0) - torch.tensor(float(len(squares))).log()
