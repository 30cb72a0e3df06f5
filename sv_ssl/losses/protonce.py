"""ProtoNCE: beside MoCo's loss, a query must find the centroid of its own cluster. https://arxiv.org/abs/2005.04966"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sv_ssl.losses.classification import known_cross_entropy
from sv_ssl.losses.geometry import cosines, unit, wide


def prototype_term(
    q: Tensor, centroids: Sequence[Tensor], assignments: Tensor, concentrations: Sequence[Tensor]
) -> Tensor:
    """Return the mean over M clusterings of -log softmax(cosine / concentration) at a query's own cluster:
    (N, D), M of (K, D), (M, N), M of (K,) -> (). A query of cluster -1 has none and is left out.

    All centroids are candidates, once each. The paper's code samples some, and adds the clusters of the whole batch:
    two members of one cluster then have it among their negatives.

    >>> prototype_term(torch.eye(2), [torch.eye(2)], torch.tensor([[0, 1]]), [torch.ones(2)])  # log(1 + 1 / e)
    tensor(0.3133)
    """
    rows = unit(q)
    costs = [
        known_cross_entropy(cosines(rows, unit(centres)) / wide(phi), clusters)
        for centres, clusters, phi in zip(centroids, assignments, concentrations)
    ]
    return torch.stack(costs).mean()


@torch.no_grad()
def concentration(
    z: Tensor,
    centroids: Tensor,
    assignments: Tensor,
    temperature: float = 0.2,
    alpha: float = 10.0,
    percentiles: tuple[float, float] = (10.0, 90.0),
) -> Tensor:
    """Return a temperature for each cluster, low for a tight one, and `temperature` on average:
    (N, D), (K, D), (N,) -> (K,).

    It is the mean distance of the members, as unit rows, to the centroid, over log(members + alpha), clipped to two
    percentiles of all clusters. A cluster with one member or none takes the largest. Rows of cluster -1 do not count.

    >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> concentration(rows, torch.tensor([[0.6, 0.6], [-1.0, 0.0]]), torch.tensor([0, 0, 1]))
    tensor([0.2000, 0.2000])
    """
    known = assignments >= 0
    rows, of = unit(z[known]), assignments[known]
    centres = centroids.to(rows.dtype)
    distance = torch.linalg.vector_norm(rows - centres[of], dim=1)
    n = torch.bincount(of, minlength=len(centres))
    mean = torch.zeros_like(centres[:, 0]).index_add_(0, of, distance) / n.clamp_min(1)
    phi = torch.where(n > 1, mean / (n + alpha).log(), 0)
    phi = torch.where(n > 1, phi, phi.max())
    low, high = phi.quantile(phi.new_tensor(percentiles) / 100)
    # Equal members have no distance; a temperature of 0 would give their cluster an infinite weight.
    phi = phi.clamp(low, high).clamp_min((phi.max() / 100).clamp_min(1e-12))
    return temperature * phi / phi.mean()
