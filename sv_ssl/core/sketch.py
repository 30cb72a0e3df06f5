"""Whether names were met before: the least of their hashes are kept, and tell what share of other names is known.

Of two overlapping sets the least hashes are those of the same names, so a sample of one finds its share in the other
(a bottom-k sketch). A set of no more names than are kept is kept whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def hashes(names: Iterable[str]) -> np.ndarray:
    """Return a number for each of N names, the same everywhere and always: (N,) uint64."""
    digests = (hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def least(values: np.ndarray, most: int) -> np.ndarray:
    """Return the `most` least of the distinct values: (N,) uint64 -> (K,) ascending."""
    return np.unique(values)[:most]


def met(kept: np.ndarray, values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the values are among those that `least(..., most)` kept, and which of them would have been kept.

    (K,) ascending, (N,) uint64 -> (N,) bool, (N,) bool; the share is that of the first in the second.

    >>> kept = least(np.arange(0, 20, 2, dtype=np.uint64), most=5)
    >>> [found.tolist() for found in met(kept, np.array([0, 1, 2, 12], np.uint64), most=5)]
    [[True, False, True, False], [True, True, True, False]]
    """
    if not len(kept):
        return np.zeros(len(values), bool), np.ones(len(values), bool)
    would = values <= kept[-1] if len(kept) >= most else np.ones(len(values), bool)
    place = np.minimum(np.searchsorted(kept, values), len(kept) - 1)
    return kept[place] == values, would
