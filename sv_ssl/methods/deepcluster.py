"""DeepCluster v2: recordings are clustered after each epoch, and all views learn to which cluster theirs belongs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sv_ssl.data.batch import Batch
from sv_ssl.losses.geometry import cosines, unit
from sv_ssl.methods.base import Facts, Method, Needs, Step
from sv_ssl.methods.clusters import Clusters
from sv_ssl.models.features import seed_masks
from sv_ssl.models.heads import width


class DeepCluster(Method):
    """Learn clusters of the epoch before: loss(cosines with their centroids, clusters). Step.z is (V * B, P).

    Caron et al. 2018 and the second version of 2020, https://arxiv.org/abs/2006.09882; hparams/deepcluster.yaml. The
    first epoch has no clusters: its loss is 0, and the bank is filled. It holds the first long crop of each recording;
    all crops learn the clusters.

    counts  clusters of each clustering
    """

    needs = Needs(views=2, short=True)

    def __init__(
        self,
        embedder: Any,
        loss: Any,
        head: nn.Module | None = None,
        counts: Sequence[int] = (3000, 3000, 3000),
        seed: int = 0,
    ):
        super().__init__()
        self.embedder = embedder
        self.head = head or nn.Identity()
        self.loss = loss
        self.clusters = Clusters(counts, seed=seed)
        self.epoch = 1

    def prepare(self, facts: Facts) -> None:
        seed_masks(self, facts.seed)
        self.clusters.prepare(facts, width(self.head, self.embedder.dim))

    def on_epoch_start(self, epoch: int) -> None:
        self.epoch = epoch

    def forward(self, batch: Batch) -> Step:
        views = batch.views
        h = self.embedder(views.flatten(0, 1))
        crops = [h] if batch.short is None else [h, self.embedder(batch.short.flatten(0, 1))]
        z = self.head(torch.cat(crops))  # ((V + S) * B, P)
        rows = unit(z)
        scores = [cosines(rows, c).unflatten(0, (-1, views.shape[1])) for c in self._centroids()]
        assigned = self.clusters.of(batch.rows)
        loss = self.loss(scores, assigned)
        if self.training:
            self.clusters.wait(batch.rows, z[: views.shape[1]])
        figures = {"assigned": (assigned[0] >= 0).float().mean()}
        return Step(loss, z[: len(h)].detach(), batch.rows.repeat(len(views)), figures, h.detach())

    def _centroids(self) -> list[torch.Tensor]:
        return [self.clusters.centroids(place) for place in range(len(self.clusters.counts))]

    def on_step_end(self, progress: float) -> None:
        self.clusters.push(self.epoch)

    def on_epoch_end(self, epoch: int) -> dict[str, float]:
        self.clusters.drop_waiting()
        return self.clusters.refresh(epoch)
