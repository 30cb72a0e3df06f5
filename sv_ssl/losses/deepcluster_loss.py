"""DeepCluster: rows are classified into clusters of an earlier epoch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError, check_number
from sv_ssl.losses.classification import known_cross_entropy
from sv_ssl.losses.geometry import wide


class DeepClusterLoss(nn.Module):
    """Return the mean over P clusterings of the cross-entropy of cosines / temperature: P of (V, N, K), (P, N) -> ().

    DeepCluster v2, https://arxiv.org/abs/2006.09882. The cosines are those with a clustering's centroids, of V views of
    N recordings; the assignments are the recordings' clusters. -1 is none, as for all rows in the first epoch: the loss
    of a clustering without any is 0, and has a gradient of zeros.

    >>> DeepClusterLoss()([torch.zeros(2, 3, 4)], torch.tensor([[0, 1, -1]]))  # log 4
    tensor(1.3863)
    """

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        check_number("temperature of DeepCluster", temperature, at_least=1e-6)
        self.temperature = temperature

    def forward(self, scores: Sequence[Tensor], assignments: Tensor) -> Tensor:
        if len(scores) != len(assignments):
            raise InputError(f"{len(scores)} clusterings but {len(assignments)} assignments: give one for each")
        costs = [
            known_cross_entropy((wide(views) / self.temperature).flatten(0, 1), clusters.repeat(len(views)))
            for views, clusters in zip(scores, assignments)
        ]
        return torch.stack(costs).mean()
