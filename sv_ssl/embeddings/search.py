"""Many speakers in a faiss index, searched by the cosine of their embeddings.

    flat    every speaker is compared: exact
    ivf     only the speakers in the cells nearest to the voice
    hnsw    a graph of neighbours is walked: the quickest, the longest to build, twice the memory
    pq      every speaker by an approximate cosine: a sixteenth of the memory

An index is one file, whole or absent (`index_file`), which faiss.read_index opens as well.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import index_file
from sv_ssl.embeddings.store import unit

KINDS = tuple(index_file.LAYOUTS)
LEAST = {"flat": 1, "ivf": 40, "hnsw": 1, "pq": 256}  # speakers that the first enrolment must have
BREADTH = 80  # of an hnsw: candidates that are kept on the way
Nearest = list[tuple[str, float]]  # speakers and cosines, the nearest first


class Index:
    """N speakers, each a direction; names are unique. Make it with `create` or `load`."""

    def __init__(self, kind: str, dim: int, rows: Any, names: list[str | None]):
        self.kind = kind
        self.dim = dim
        self.rows = rows  # faiss's; a speaker's number there is its place in names
        self.names = names  # None: removed
        self.numbers = {name: number for number, name in enumerate(names) if name is not None}

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, names: Sequence[str], rows: np.ndarray) -> None:
        """Enrol N new speakers, (N, D)."""
        rows = self._directions(rows)
        known = [name for name, count in Counter(names).items() if count > 1 or name in self.numbers]
        if known:
            raise InputError(
                f"{len(known)} speakers are enrolled already or twice, such as {known[0]}: remove the old "
                "first, or pass one row a speaker"
            )
        start = len(self.names)
        self.rows.add_with_ids(rows, np.arange(start, start + len(rows)))
        self.names += names
        self.numbers.update(zip(names, range(start, start + len(rows))))

    def remove(self, names: Sequence[str]) -> None:
        """Forget speakers. An hnsw keeps their nodes as stepping stones and no longer finds them."""
        if unknown := [name for name in names if name not in self.numbers]:
            raise InputError(f"{len(unknown)} of {len(names)} speakers are not enrolled, such as {unknown[0]}")
        numbers = [self.numbers.pop(name) for name in dict.fromkeys(names)]
        for number in numbers:
            self.names[number] = None
        if self.kind != "hnsw":
            self.rows.remove_ids(np.array(numbers, np.int64))

    def search(self, rows: np.ndarray, k: int = 1, threshold: float = -2.0) -> list[Nearest]:
        """Find the k nearest speakers of each of (Q, D) whose cosine reaches the threshold; none is an unknown voice.

        >>> index = create("flat", ["anna", "ben"], np.eye(2, dtype=np.float32))
        >>> index.search(np.float32([[3, 0.1], [-1, -1]]), threshold=0.5)
        [[('anna', 0.9994...)], []]
        """
        faiss: Any = import_module("faiss")  # whose types do not name all that it has
        if k < 1:
            raise InputError(f"{k} speakers cannot be looked for: at least 1")
        options = {}
        if self.kind == "hnsw" and len(self.numbers) < len(self.names):
            gone = np.array([number for number, name in enumerate(self.names) if name is None], np.int64)
            chosen = faiss.IDSelectorNot(faiss.IDSelectorBatch(gone))
            options["params"] = faiss.SearchParametersHNSW(sel=chosen, efSearch=BREADTH)
        cosines, numbers = self.rows.search(self._directions(rows), min(k, max(len(self), 1)), **options)
        pairs = [zip(*row) for row in zip(numbers.tolist(), cosines.tolist())]
        return [
            [(str(self.names[number]), cosine) for number, cosine in row if number >= 0 and cosine >= threshold]
            for row in pairs
        ]

    def save(self, path: str | os.PathLike) -> None:
        """Write the index and its names as one file."""
        index_file.write(path, index_file.About(self.kind, self.dim, self.names), self.rows)

    def _directions(self, rows: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(rows, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError(f"the index holds {self.dim} dimensions, the embeddings are of shape {rows.shape}")
        return unit(rows)


def create(kind: str, names: Sequence[str], rows: np.ndarray) -> Index:
    """Make an index of a kind, fitted to N speakers (N, D); more may be added later."""
    import faiss

    if kind not in KINDS:
        raise InputError(f"no kind {kind!r} of index is known: choose one of {', '.join(KINDS)}")
    count, dim = np.shape(rows)
    if count < LEAST[kind]:
        raise InputError(
            f"an index of the kind {kind} is fitted to {LEAST[kind]} speakers or more, not {count}: "
            "use flat, which is exact and quick up to 100,000"
        )
    cells = max(1, min(count // 39, int(count**0.5)))
    parts = next(parts for parts in range(max(dim // 4, 1), 0, -1) if dim % parts == 0)
    recipe = {"flat": "Flat", "ivf": f"IVF{cells},Flat", "hnsw": "HNSW32", "pq": f"PQ{parts}np"}[kind]
    index: Any = faiss.index_factory(dim, recipe, faiss.METRIC_INNER_PRODUCT)
    if kind == "ivf":
        index.cp.max_points_per_centroid, index.nprobe = 64, max(1, cells // 4)
    elif kind == "hnsw":
        index.hnsw.efConstruction, index.hnsw.efSearch = BREADTH, BREADTH
    elif kind == "pq":
        index.pq.cp.min_points_per_centroid = 1
        index.pq.cp.max_points_per_centroid = 64
        index.pq.cp.niter = 12
    if not index.is_trained:
        index.train(unit(np.ascontiguousarray(rows, np.float32)))
    made = Index(kind, dim, index if kind == "ivf" else faiss.IndexIDMap2(index), [])  # an IVF has numbers of its own
    made.add(names, rows)
    return made


def load(path: str | os.PathLike) -> Index:
    """Read what `Index.save` wrote; a damaged or foreign file is refused."""
    about, rows = index_file.read(path)
    return Index(about.kind, about.dim, rows, about.names)
