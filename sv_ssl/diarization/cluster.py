"""Cluster the embeddings of one recording's windows into speakers: spectral clustering, average linkage.

spectral       The graph of each window's nearest ones by cosine, each side counting half: no threshold, and nothing
               that depends on how large a model's cosines are. Its normalised adjacency has one eigenvalue of 1 for
               each part that stands apart; the number of speakers is where the next eigenvalue is furthest below.
               k-means on the leading eigenvectors tells the windows apart. The graph is sparse and made in blocks, so
               that memory grows with the number of windows, not with its square.
agglomerative  Average linkage of cosines, to a threshold or a number of speakers. Of more than 5,000 windows, each
               5,000 in a row are first linked to an eighth as many, whose means are linked.

Labels are numbered as they appear: the first window has 0. The same rows give the same labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream

MOST = 10  # speakers that are told apart where their number is not given
FEW = 1000  # windows whose graph is solved as a dense matrix
LARGE = 5000  # windows whose distances are held at once
CELLS = 1 << 22  # cosines held at once


def spectral(rows: ArrayLike, n_speakers: int | None = None, most: int = MOST) -> np.ndarray:
    """Label rows by spectral clustering: (N, D) -> (N,).

    There are `n_speakers`, or as many as the largest gap between eigenvalues tells, `most` at most.

    >>> windows = np.repeat(np.eye(2, 16), 20, axis=0) + np.random.default_rng(0).normal(0, 0.1, (40, 16))
    >>> bool((spectral(windows) == np.repeat([0, 1], 20)).all())
    True
    """
    unit = _unit(rows, n_speakers)
    wanted = min(n_speakers or most, len(unit))
    if wanted <= 1:
        return np.zeros(len(unit), int)
    values, vectors = _leading(_graph(unit), min(wanted + 1, len(unit)))
    gaps = (values[:-1] - values[1:]).round(6)
    count = wanted if n_speakers else len(gaps) - int(np.argmax(gaps[::-1]))
    if count == 1:
        return np.zeros(len(unit), int)
    from sklearn.cluster import KMeans  # a second to import

    places = vectors[:, :count]
    places = places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-12)
    return _in_order(KMeans(count, n_init=10, random_state=0).fit_predict(places))


def agglomerative(rows: ArrayLike, n_speakers: int | None = None, threshold: float | None = None) -> np.ndarray:
    """Label rows by average linkage: (N, D) -> (N,).

    Clusters are merged down to `n_speakers`, or until no two have a mean cosine of `threshold` or more.

    >>> agglomerative([[1, 0], [0, 1], [1, 0.2]], threshold=0.5).tolist()
    [0, 1, 0]
    """
    if (n_speakers is None) == (threshold is None):
        raise InputError("average linkage needs either a number of speakers or a threshold")
    unit = _unit(rows, n_speakers)
    if len(unit) > LARGE:
        parts = np.array_split(unit, -(-len(unit) // LARGE))
        offsets = np.cumsum([0, *(len(part) // 8 for part in parts)])
        group = np.concatenate([_linked(part, len(part) // 8) + offset for part, offset in zip(parts, offsets)])
        means = np.zeros((offsets[-1], unit.shape[1]))
        np.add.at(means, group, unit)
        return _in_order(agglomerative(means, n_speakers, threshold)[group])
    return _in_order(_linked(unit, n_speakers, threshold))


def _linked(unit: np.ndarray, count: int | None, threshold: float | None = None) -> np.ndarray:
    """Label unit rows (N, D) by average linkage -> (N,)."""
    if len(unit) < 2:
        return np.zeros(len(unit), int)
    from scipy.cluster.hierarchy import linkage
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import squareform

    n = len(unit)
    tree = linkage(squareform((1 - unit @ unit.T).clip(0), checks=False), "average")
    merges = max(0, n - (count or n)) if threshold is None else np.searchsorted(tree[:, 2], 1 - threshold, "right")
    ends = tree[:merges, :2].astype(int).ravel(), n + np.arange(merges).repeat(2)  # merge i makes the node n + i
    return connected_components(coo_array((np.ones(2 * merges), ends), shape=(2 * n, 2 * n)))[1][:n]


def _unit(rows: ArrayLike, n_speakers: int | None) -> np.ndarray:
    """Check rows (N, D) and return them with length 1."""
    given = np.asarray(rows, np.float32)
    if given.ndim != 2:
        raise InputError(f"embeddings to cluster must be (windows, dimensions), not {given.shape}")
    if not np.isfinite(given).all():
        raise InputError(f"embedding {int((~np.isfinite(given)).any(axis=1).argmax()) + 1} to cluster is not finite")
    if n_speakers is not None and n_speakers < 1:
        raise InputError(f"the number of speakers is {n_speakers}, wanted 1 or more")
    return given / np.maximum(np.linalg.norm(given, axis=1, keepdims=True), 1e-12)


def neighbours(n: int) -> int:
    """Return how many neighbours each of n windows has: a third of the others, at least 5, at most 10 to 30.

    >>> [neighbours(n) for n in (2, 12, 24, 60, 300, 4800)]
    [1, 5, 8, 10, 21, 30]
    """
    few, many = max(5, n // 3), max(10, min(30, round(1.2 * n**0.5)))
    return min(few, many, n - 1)


def _graph(unit: np.ndarray) -> Any:
    """Make the graph of unit rows (N, D) -> sparse (N, N): 1 where both are near each other, 1/2 where only one is."""
    from scipy.sparse import csr_array

    n = len(unit)
    k = neighbours(n)
    near = np.empty((n, k), np.int64)
    step = max(1, CELLS // n)
    for start in range(0, n, step):
        cosines = unit[start : start + step] @ unit.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -2  # not its own neighbour
        near[start : start + step] = np.argpartition(cosines, n - k, axis=1)[:, n - k :]
    graph = csr_array((np.full(n * k, 0.5), near.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    return graph + graph.T


def _leading(graph: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the K largest eigenvalues of the normalised adjacency, descending (K,), and their eigenvectors (N, K).

    Each connected part is solved alone: of the equal eigenvalues of several parts an iterative solver misses some.
    """
    from scipy.sparse import diags_array
    from scipy.sparse.csgraph import connected_components

    scale = diags_array(1 / np.sqrt(graph.sum(axis=0)))
    normal = (scale @ graph @ scale).tocsr()
    n_parts, part = connected_components(graph)
    pairs: list[tuple[float, np.ndarray, np.ndarray]] = []  # eigenvalue, the windows of the part, their eigenvector
    for number in range(n_parts):
        here = np.flatnonzero(part == number)
        values, vectors = _solved(normal[here][:, here], min(count, len(here)))
        pairs += [(value, here, vector) for value, vector in zip(values.tolist(), vectors.T)]
    pairs = sorted(pairs, key=lambda pair: -round(pair[0], 9))[:count]
    every = np.zeros((len(part), len(pairs)))
    for column, (_, here, vector) in zip(every.T, pairs):
        column[here] = vector
    return np.array([value for value, _, _ in pairs]), every


def _solved(matrix: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the K largest eigenvalues (K,) of a sparse symmetric (N, N), and their eigenvectors (N, K)."""
    n = matrix.shape[0]
    if n <= FEW:
        values, vectors = np.linalg.eigh(matrix.toarray())
        return values[-count:], vectors[:, -count:]
    from scipy.sparse.linalg import eigsh

    first = stream(0, "first eigenvector").standard_normal(n)
    return eigsh(matrix, count, which="LA", v0=first, ncv=4 * count + 20, tol=1e-6)


def _in_order(labels: np.ndarray) -> np.ndarray:
    """Number the same clusters as they appear: (N,) -> (N,)."""
    _, first, number = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]
