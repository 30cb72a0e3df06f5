"""How labelled embeddings lie on the sphere: uniformity, tolerance, the distances of every two classes, a map.

Distances are d = 1 - cosine, as in the ADD paper, over ordered pairs of different rows, in float64. The definitions are
those of `sv_ssl.losses.geometry`; here all of them come from one pass over the pairs, in blocks.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError
from sv_ssl.embeddings.store import unit

BLOCK = 512  # rows whose distances to all rows are in memory at once


class Pairs(NamedTuple):
    """The distances of C classes, by two classes: (C, C) each.

    NaN where there is no pair, within a class of one row, and for the deviation of a single distance.
    """

    classes: list  # C, sorted
    number: np.ndarray  # of ordered pairs of rows
    mean: np.ndarray  # of d
    cv: np.ndarray  # standard deviation / mean
    uniformity: float  # over all pairs of rows


def pairs(rows: np.ndarray, labels: ArrayLike) -> Pairs:
    """Measure the distances between and within the classes: (N, D), (N,) -> Pairs.

    >>> measured = pairs(np.eye(3), ["a", "a", "b"])
    >>> measured.classes, measured.mean.tolist(), measured.number.tolist()
    (['a', 'b'], [[1.0, 1.0], [1.0, nan]], [[2, 2], [2, 0]])
    """
    z, classes, code = _sorted(rows, labels)
    starts, sizes = np.unique(code, return_index=True, return_counts=True)[1:]
    sums = np.zeros((2, len(classes), len(classes)))
    energy = -float(len(z))  # the rows with themselves are no pairs
    for begin in range(0, len(z), BLOCK):
        block = slice(begin, begin + BLOCK)
        d = np.maximum(1 - z[block] @ z.T, 0)
        np.fill_diagonal(d[:, block], 0.0)
        energy += np.exp(-4 * d).sum()  # |u - v|^2 = 2 d
        for total, values in zip(sums, (d, d * d)):
            np.add.at(total, code[block], np.add.reduceat(values, starts, axis=1))
    number = np.outer(sizes, sizes) - np.diag(sizes)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums[0] / number
        variance = np.maximum(sums[1] - number * mean**2, 0) / np.maximum(number - 1, 1)
        cv = np.sqrt(variance) / mean
    cv[number - np.diag(sizes * (sizes - 1) // 2) < 2] = np.nan  # one distance has no spread
    return Pairs(classes, number, mean, cv, math.log(energy / (len(z) * (len(z) - 1))))


def _sorted(rows: np.ndarray, labels: ArrayLike) -> tuple[np.ndarray, list, np.ndarray]:
    """Return rows of length one, class after class; the C classes; (N,) the class of each row."""
    classes, code = np.unique(np.asarray(labels), return_inverse=True)
    if len(code) != len(rows):
        raise InputError(f"{len(rows)} embeddings and {len(code)} labels: want one for each")
    if len(classes) < 2:
        raise InputError(f'all {len(code)} labels are "{classes[0]}": an analysis wants two classes at least')
    order = np.argsort(code, kind="stable")
    return unit(np.asarray(rows, np.float64))[order], classes.tolist(), code[order]


def centres(rows: np.ndarray, labels: ArrayLike) -> np.ndarray:
    """Return the mean of each class's rows of length one, of length one again, or 0 where they cancel.

    (N, D), (N,) -> (C, D)
    """
    z, _, code = _sorted(rows, labels)
    sums = np.add.reduceat(z, np.unique(code, return_index=True)[1])
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def welch(n: int, dim: int) -> float:
    """Return the Welch bound: the least mean of cosine^2 that n directions can have with each other.

    Its root is the least that the greatest |cosine| can be.

    >>> welch(3, 2), welch(192, 192), round(welch(5994, 192), 5)
    (0.25, 0.0, 0.00504)
    """
    return max(0.0, (n - dim) / (dim * (n - 1)))


def summary(rows: np.ndarray, labels: ArrayLike, measured: Pairs) -> dict:
    """Return the figures to quote of (N, D) rows, (N,) labels and their `pairs`; None where no class has two rows.

    `within` and `between` are means over the classes, or pairs of classes; `tolerance` and `alignment` over the rows.
    """
    same = np.eye(len(measured.classes), dtype=bool)
    n_same = measured.number[same].sum()
    tolerance = 1 - np.nansum((measured.mean * measured.number)[same]) / n_same if n_same else None
    cosine = centres(rows, labels)
    cosine = (cosine @ cosine.T)[~same]
    least = np.unravel_index(np.where(same, np.inf, measured.mean).argmin(), same.shape)
    bound = welch(len(measured.classes), rows.shape[1])
    return {
        "n": len(rows),
        "dim": rows.shape[1],
        "n_classes": len(measured.classes),
        "uniformity": measured.uniformity,
        "tolerance": tolerance,
        "alignment": None if tolerance is None else 2 - 2 * tolerance,
        "within": {"mean": _mean(measured.mean[same]), "cv": _mean(measured.cv[same])},
        "between": {"mean": _mean(measured.mean[~same]), "cv": _mean(measured.cv[~same])},
        "nearest": {"classes": [str(measured.classes[i]) for i in least], "mean": float(measured.mean[least])},
        "centres": {"mean_squared_cosine": float(np.mean(cosine**2)), "largest_cosine": float(np.abs(cosine).max())},
        "welch": {"mean_squared_cosine": bound, "largest_cosine": math.sqrt(bound)},
    }


def _mean(values: np.ndarray) -> float | None:
    """Return the mean of what is finite, None if nothing is."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else None


def pca(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project rows of length one on the plane in which they vary most: (N, D) -> (N, 2), the two shares of variance."""
    z = unit(np.asarray(rows, np.float64))
    z = z - z.mean(axis=0)
    values, directions = np.linalg.eigh(z.T @ z)
    plane = directions[:, [-1, -2]] if z.shape[1] > 1 else np.pad(directions, ((0, 0), (0, 1)))
    plane = plane * np.where(plane[np.abs(plane).argmax(axis=0), [0, 1]] < 0, -1, 1)  # one sign whatever the library
    return z @ plane, (z @ plane).var(axis=0) * len(z) / max(values.sum(), 1e-300)


def tsne(rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """Map rows by t-SNE: neighbours on the sphere stay neighbours, distances on the map mean nothing.

    (N, D) -> (N, 2)
    """
    from sklearn.manifold import TSNE

    if rows.shape[1] < 2:
        raise InputError("embeddings of one number have no map by t-SNE: choose the map pca")
    if len(rows) < 5:
        raise InputError(f"{len(rows)} embeddings are too few for t-SNE: want 5, or the map pca")
    z = unit(np.asarray(rows, np.float64))
    if np.ptp(z, axis=0).max() < 1e-6:  # the library would crash
        raise InputError(f"all {len(rows)} embeddings are one point: there is no map of them by t-SNE")
    return TSNE(init="pca", perplexity=min(30.0, (len(z) - 1) / 3), random_state=seed).fit_transform(z)
