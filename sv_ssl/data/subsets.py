"""Choose the part of a labelled collection whose labels are used. More labels hold the fewer."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream


def subset(labels: ArrayLike, share: float, seed: int, groups: ArrayLike | None = None) -> np.ndarray:
    """Choose the clips that keep their label: `share` of the clips of each class, as near as that goes.

    (N,) -> (N,) bool

    With `groups` (N,), such as speakers, it is that share of the groups, whole. With one seed a smaller share lies
    within every greater one. There is always one clip, or group, at least.

    >>> subset(["a", "b"] * 50, 0.1, seed=0).reshape(50, 2).sum(axis=0).tolist()
    [5, 5]
    """
    if not 0 < share <= 1:
        raise InputError(f"a share of {share:g} of the labels: want more than 0, and at most 1")
    rng = stream(seed, "labelled part")
    names, codes = np.unique(np.asarray(labels if groups is None else groups), return_inverse=True)
    if groups is not None:
        return np.isin(codes, rng.permutation(len(names))[: max(1, round(share * len(names)))])
    place = np.empty(len(codes))  # of a clip in its class, from 0 to 1
    for code in range(len(names)):
        members = rng.permutation(np.flatnonzero(codes == code))
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    kept = np.zeros(len(codes), dtype=bool)
    kept[np.argsort(place, kind="stable")[: max(1, round(share * len(codes)))]] = True
    return kept


def some_of_each(labels: ArrayLike, n: int, seed: int) -> np.ndarray:
    """Choose `n` of each class, all of those that have no more: (N,) -> (N,) bool.

    >>> int(some_of_each(["a", "b", "a", "a"], 2, seed=0).sum())
    3
    """
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    order = stream(seed, "labelled of each").permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]  # class by class, each in the order drawn
    first = np.searchsorted(codes[order], codes[order])
    kept = np.zeros(len(codes), dtype=bool)
    kept[order[np.arange(len(codes)) - first < n]] = True
    return kept
