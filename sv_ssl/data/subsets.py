"""Choose the part of a labelled collection whose labels are used."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError


def subset(labels: ArrayLike, share: float, seed: int, groups: ArrayLike | None = None) -> np.ndarray:
    """(N,) -> (N,) mask of the clips that keep their label: `share` of the clips of each class, as near as that goes.

    With `groups` (N,), such as speakers, it is that share of the groups, whole. With one seed a smaller share lies
    within every greater one. There is always one clip, or group, at least.

    >>> subset(["a", "b"] * 50, 0.1, seed=0).reshape(50, 2).sum(axis=0).tolist()
    [5, 5]
    """
    if not 0 < share <= 1:
        raise InputError(f"a share of {share:g} of the labels: want more than 0, and at most 1")
    rng = np.random.default_rng(seed)
    names, code = np.unique(np.asarray(labels if groups is None else groups), return_inverse=True)
    if groups is not None:
        return np.isin(code, rng.permutation(len(names))[: max(1, round(share * len(names)))])
    place = np.empty(len(code))  # of a clip in its class, from 0 to 1
    for c in range(len(names)):
        mine = rng.permutation(np.flatnonzero(code == c))
        place[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
    kept = np.zeros(len(code), dtype=bool)
    kept[np.argsort(place, kind="stable")[: max(1, round(share * len(code)))]] = True
    return kept
