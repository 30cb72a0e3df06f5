"""k-means on the unit sphere, all at once and step by step, and how good a clustering is."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import torch_stream

CELLS = 2**26  # cosines that are held at once


def spherical_kmeans(rows: Tensor, starts: Tensor, iterations: int = 10, reseed: bool = True) -> tuple[Tensor, Tensor]:
    """Cluster unit rows by cosine: (N, D), the numbers of K rows to start from -> clusters (N,), centroids (K, D).

    A row belongs to the nearest centroid, the first of several; a centroid is the mean of its rows, made a unit vector.
    An empty cluster takes the row of the largest cluster that fits there least (`reseed`), or stays where it was.

    >>> x = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
    >>> spherical_kmeans(x, torch.tensor([0, 2]))[0].tolist()
    [0, 0, 1]
    """
    centroids = rows[starts].clone()
    for _ in range(iterations):
        clusters, cosine = nearest(rows, centroids)
        sums, sizes = _sums(rows, clusters, len(centroids))
        centroids = torch.where(sizes[:, None] > 0, F.normalize(sums, dim=1), centroids)
        if reseed:
            _fill_empty(rows, clusters, cosine, sizes, centroids)
    return nearest(rows, centroids)[0], centroids


def nearest(rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest centroid of each unit row and its cosine, in blocks: (N, D), (K, D) -> (N,) int64, (N,)."""
    step = max(1, CELLS // len(centroids))
    parts = [(block @ centroids.T).max(dim=1) for block in rows.split(step)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])


def draw_starts(n_rows: int, k: int, seed: int, *numbers: int) -> Tensor:
    """Draw the rows from which k-means starts, none twice."""
    if k > n_rows:
        raise InputError(f"{k:,} clusters cannot be made of {n_rows:,} utterances: name fewer clusters")
    return torch.randperm(n_rows, generator=torch_stream(seed, "k-means", *numbers))[:k]


def follow(centroids: Tensor, rows: Tensor, momentum: float = 0.9) -> tuple[Tensor, Tensor]:
    """Move the centroids that a batch belongs to towards its rows: (K, D), (B, D) -> clusters (B,), centroids (K, D).

    Both are unit rows: c_k <- unit(momentum c_k + (1 - momentum) mean of its rows).

    >>> follow(torch.eye(2), torch.tensor([[1.0, 0.0]]), momentum=0.5)[0].tolist()
    [0]
    """
    clusters = nearest(rows, centroids)[0]
    sums, sizes = _sums(rows, clusters, len(centroids))
    moved = F.normalize(momentum * centroids + (1 - momentum) * sums / sizes.clamp(min=1)[:, None], dim=1)
    return clusters, torch.where(sizes[:, None] > 0, moved, centroids)


def neighbours(centroids: Tensor, m: int, of: Tensor | None = None) -> Tensor:
    """Return for each cluster itself (m = 0), or the m nearest others by cosine, nearest first: (K, D) -> (K, m or 1).

    With `of` (B,) those of these clusters alone.

    >>> neighbours(torch.eye(3), 0).tolist()
    [[0], [1], [2]]
    """
    k = len(centroids)
    of = torch.arange(k, device=centroids.device) if of is None else of
    if m == 0:
        return of[:, None]
    if m >= k:
        raise InputError(f"{m} neighbours of a cluster are wanted, and there are {k - 1} others: lower near")
    blocks = []
    for block in of.split(max(1, CELLS // k)):
        cosines = (centroids[block] @ centroids.T).scatter_(1, block[:, None], -torch.inf)
        blocks.append(cosines.topk(m, dim=1).indices)
    return torch.cat(blocks)


def _sums(rows: Tensor, clusters: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the sum of each cluster's rows, (K, D), and their number, (K,)."""
    sums = rows.new_zeros(k, rows.shape[1]).index_add_(0, clusters, rows)
    return sums, torch.bincount(clusters, minlength=k)


def _fill_empty(rows: Tensor, clusters: Tensor, cosine: Tensor, sizes: Tensor, centroids: Tensor) -> None:
    """Move each empty cluster to a row of the largest one: those that fit there least."""
    empty = torch.nonzero(sizes == 0)[:, 0]
    if not len(empty):
        return
    members = torch.nonzero(clusters == sizes.argmax())[:, 0]
    worst = members[cosine[members].argsort(stable=True)[: len(empty)]]
    centroids[empty[: len(worst)]] = rows[worst]


# --------------------------------------------------------------------------------------------- quality of a clustering
def quality(labels: ArrayLike, clusters: ArrayLike, beta: float = 1.0) -> dict[str, float]:
    """Compare clusters with known labels, (N,), (N,): nmi, homogeneity, completeness, v_measure, purity, ari, clusters.

    >>> quality([0, 0, 1, 1], [5, 5, 7, 8])["purity"]
    1.0
    """
    from sklearn import metrics  # a slow import that few runs need

    _, y = np.unique(np.asarray(labels), return_inverse=True)
    _, k = np.unique(np.asarray(clusters), return_inverse=True)
    counts = metrics.cluster.contingency_matrix(y, k, sparse=True)  # recordings times clusters may be gigabytes
    homogeneity, completeness, v = metrics.homogeneity_completeness_v_measure(y, k, beta=beta)
    return {
        "nmi": float(metrics.normalized_mutual_info_score(y, k)),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "v_measure": float(v),
        "purity": float(counts.max(axis=0).sum() / counts.sum()),
        "ari": float(metrics.adjusted_rand_score(y, k)),
        "clusters": int(counts.shape[1]),
    }
