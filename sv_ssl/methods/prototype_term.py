"""ProtoNCE's second term: a query is to find the centroid of its recording's cluster, in several clusterings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sv_ssl.core.errors import check_number
from sv_ssl.losses.protonce import concentration, prototype_term
from sv_ssl.methods.base import Facts
from sv_ssl.methods.clusters import Clusters


class PrototypeTerm(Clusters):
    """Return the weighted term for queries (R, D) of training rows (R,); 0 while no row has a cluster.

    Li et al., ICLR 2021, https://arxiv.org/abs/2005.04966. A tight cluster has a lower temperature, its concentration,
    so that all clusters become about equally tight. Every centroid is a candidate, once: the authors' code draws some.

    counts       clusters of each clustering
    temperature  the mean of the concentrations
    weight       of the term
    start        epochs before the first clustering; the authors' code has 20
    """

    def __init__(
        self, counts: Sequence[int], temperature: float = 0.2, weight: float = 1.0, seed: int = 0, start: int = 0
    ):
        super().__init__(counts, seed=seed, start=start)
        check_number("temperature of the prototypes", temperature, at_least=1e-6)
        check_number("weight of the prototypes", weight, at_least=0)
        self.temperature = temperature
        self.weight = weight

    def prepare(self, facts: Facts, dim: int) -> None:
        super().prepare(facts, dim)
        for place, count in enumerate(self.counts):
            self.register_buffer(f"concentration_{place}", torch.full((count,), self.temperature))

    def forward(self, queries: Tensor, rows: Tensor) -> Tensor:
        places = range(len(self.counts))
        centroids = [self.centroids(place) for place in places]
        spreads = [getattr(self, f"concentration_{place}") for place in places]
        return self.weight * prototype_term(queries, centroids, self.of(rows), spreads)

    def refresh(self, epoch: int) -> dict[str, float]:
        figures = super().refresh(epoch)
        for place, clusters in enumerate(self.assignments):
            known = clusters >= 0
            if known.any():
                rows = self.bank[known]
                spread = concentration(rows, self.centroids(place), clusters[known], self.temperature)
                getattr(self, f"concentration_{place}").copy_(spread)
        return figures
