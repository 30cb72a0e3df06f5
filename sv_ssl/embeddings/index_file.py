"""The file of an index. faiss.read_index opens it as well: what is not faiss's follows behind its data.

    faiss's data    laid out as one of four kinds, and checked before faiss reads it: data of other kinds name files,
                    which faiss opens and cuts; sizes and neighbours out of range make it read foreign memory
    JSON            kind, dim, names (null: removed), and last sha256, of all bytes before its own digits
    8 bytes         the length of the JSON
    svssl-i1

Files of version 0.1 have no sha256: of those, what a flipped bit leaves in range is not noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write, check_ordinary

MAGIC = b"svssl-i1"
END = 16  # bytes: the length of the JSON, and MAGIC
DIGITS = 64  # of sha256, with two bytes behind them that close the JSON
ONE = 1e-3  # how far the square of a unit row's norm may be from 1
BLOCK = 1 << 14  # rows that are checked at a time


class About(NamedTuple):
    """What an index has beside faiss's data."""

    kind: str
    dim: int
    names: list[str | None]  # a speaker's number in faiss is its place here; None: removed


def write(path: str | os.PathLike, about: About, rows: Any) -> None:
    """Write faiss's index `rows` and what is about it as one file."""
    import faiss

    text = json.dumps({**about._asdict(), "sha256": "0" * DIGITS}).encode()
    with atomic_write(path) as temporary:
        try:
            faiss.write_index(rows, os.fspath(temporary))
        except RuntimeError:
            raise InputError(f"cannot write {path}: faiss could not finish the file; is the disk full?") from None
        with open(temporary, "ab") as file:
            file.write(text[: -DIGITS - 2])
        digits = hashlib.sha256(np.memmap(temporary, mode="r").data).hexdigest()
        with open(temporary, "ab") as file:
            file.write(digits.encode() + text[-2:] + len(text).to_bytes(8, "little") + MAGIC)


def read(path: str | os.PathLike) -> tuple[About, Any]:
    """Read what `write` wrote: what is about the index, and faiss's own; a damaged or foreign file is refused."""
    faiss: Any = import_module("faiss")  # whose types do not name all that it has
    check_ordinary(path)
    try:
        with open(path, "rb") as file:
            about = _checked(file, path)
            file.seek(0)
            # Not by its name: another process may have put a new file there, with other rows than the names just read.
            return about, faiss.read_index(faiss.PyCallbackIOReader(file.read))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except InputError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:  # RecursionError is one of these
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} is damaged: {reason}; delete it and make it anew: sv-index {path} --enrol EMBEDDINGS"
        ) from None


def _checked(file: Any, path: str | os.PathLike) -> About:
    """Return what is about the index in an open file, after a look at every byte."""
    if os.fstat(file.fileno()).st_size < END:
        raise InputError(f"{path} is not a whole index of sv-index")
    data = np.memmap(file, mode="r")
    length = int.from_bytes(data[-END:-8].tobytes(), "little")
    if data[-8:].tobytes() != MAGIC or length > len(data) - END:
        raise InputError(f"{path} is not a whole index of sv-index")
    start = len(data) - END - length
    described = json.loads(data[start:-END].tobytes().decode())
    if "sha256" in described:
        digits = hashlib.sha256(data[: -END - 2 - DIGITS].data).hexdigest()
        _want(described["sha256"] == digits, "its bytes are not those that were written (sha256)")
    _want({*described, "sha256"} == {*About._fields, "sha256"}, f"it describes {', '.join(described)}")
    about = About(*(described[name] for name in About._fields))
    _check_about(about)
    _check_rows(about, data[:start])
    return about


def _check_about(about: About) -> None:
    """Raise ValueError for a kind, a width or names that `write` never writes."""
    _want(about.kind in LAYOUTS, f"no kind {about.kind!r} of index is known")
    _want(type(about.dim) is int and about.dim > 0, f"{about.dim!r} dimensions")
    _want(type(about.names) is list, "its names are no list")
    names = [name for name in about.names if name is not None]
    _want(all(isinstance(name, str) for name in names), "a name is no text")
    _want(len(set(names)) == len(names), "a name comes twice")


def _check_rows(about: About, data: np.ndarray) -> None:
    """Raise ValueError for data that is not of this kind, with a unit row of this width for each name."""
    numbers = [number for number, name in enumerate(about.names) if name is not None or about.kind == "hnsw"]
    walk = _Walk(data, about.dim, len(numbers))
    ids = LAYOUTS[about.kind](walk)
    _want(walk.at == len(data), f"{len(data) - walk.at} bytes are left over behind the rows")
    _want(np.array_equal(np.sort(ids), numbers), "the numbers of its rows are not those of its names")


class _Walk:
    """Faiss's data of N rows of D numbers, passed in the order in which faiss reads it."""

    def __init__(self, data: np.ndarray, dim: int, count: int):
        self.data = data
        self.dim = dim
        self.count = count
        self.at = 0

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Pass numbers, as `struct` names their types."""
        return struct.unpack_from(f"<{layout}", self.data.data, self._passed(struct.calcsize(f"<{layout}")))

    def array(self, dtype: str, count: int) -> np.ndarray:
        """Pass an array; it is not copied."""
        return np.frombuffer(self.data, dtype, count, self._passed(count * np.dtype(dtype).itemsize))

    def vector(self, dtype: str, count: int) -> np.ndarray:
        """Pass an array that has its length before it."""
        (held,) = self.numbers("Q")
        _want(held == count, f"{held} numbers where {count} belong")
        return self.array(dtype, count)

    def header(self, name: bytes, count: int | None = None) -> None:
        """Pass what begins each of faiss's kinds: name, width, rows, two unused numbers, trained, the metric."""
        count = self.count if count is None else count
        found, dim, rows, _, _, trained, metric = self.numbers("4siqqq?i")
        _want(found == name, f"faiss's kind {found.decode('latin1')!r} where sv-index writes {name.decode()!r}")
        _want((dim, rows) == (self.dim, count), f"{rows} rows of {dim} dimensions for {count} of {self.dim}")
        _want(trained and metric == 0, "it is not trained for cosines (inner products)")

    def flat(self, count: int | None = None, unit: bool = True) -> None:
        """Pass the rows of a flat index."""
        count = self.count if count is None else count
        self.header(b"IxFI", count)
        _check_unit(self.vector("<f4", count * self.dim).reshape(count, self.dim), unit)

    def _passed(self, size: int) -> int:
        _want(size <= len(self.data) - self.at, "it ends before its rows do")
        self.at += size
        return self.at - size


def _flat(walk: _Walk) -> np.ndarray:
    """Pass the data of a kind and return the numbers of its rows."""
    walk.header(b"IxM2")
    walk.flat()
    return walk.vector("<i8", walk.count)


def _pq(walk: _Walk) -> np.ndarray:
    walk.header(b"IxM2")
    walk.header(b"IxPq")
    dim, parts, bits = walk.numbers("QQQ")
    _want(dim == walk.dim and bits == 8 and parts > 0 and dim % parts == 0, f"{parts} codes of {bits} bits")
    _want(np.isfinite(walk.vector("<f4", dim << bits)).all(), "its codes stand for NaN or infinity")
    walk.vector("u1", walk.count * parts)
    _want(walk.numbers("i?i")[0] == 0, "it is not searched by product codes")
    return walk.vector("<i8", walk.count)


def _ivf(walk: _Walk) -> np.ndarray:
    walk.header(b"IwFl")
    cells, probes = walk.numbers("QQ")
    _want(0 < probes <= cells, f"{probes} of {cells} cells are searched")
    walk.flat(cells, unit=False)  # the centres of the cells
    _want(walk.numbers("bQ") == (0, 0), "it has a map of its rows")
    name, lists, size, form = walk.numbers("4sQQ4s")
    _want(name == b"ilar", f"its rows lie in {name.decode('latin1')!r} and not in the file")
    _want((lists, size) == (cells, 4 * walk.dim), f"{lists} cells of rows of {size} bytes")
    ids = [np.zeros(0, np.int64)]
    for count in _cell_sizes(walk, form, cells):
        _check_unit(walk.array("<f4", count * walk.dim).reshape(count, walk.dim))
        ids.append(walk.array("<i8", count))
    return np.concatenate(ids)


def _cell_sizes(walk: _Walk, form: bytes, cells: int) -> list[int]:
    """Return the rows of each cell that has any: all cells are listed (full), or number and rows of some (sprs)."""
    _want(form in (b"full", b"sprs"), f"cells as {form.decode('latin1')!r}")
    if form == b"full":
        return walk.vector("<u8", cells).tolist()
    (held,) = walk.numbers("Q")
    pairs = walk.array("<u8", held)
    _want(held % 2 == 0 and bool((pairs[::2] < cells).all()), "a cell is out of range")
    _want(len(np.unique(pairs[::2])) == held // 2, "a cell comes twice")
    return pairs[1::2].tolist()


def _hnsw(walk: _Walk) -> np.ndarray:
    walk.header(b"IxM2")
    walk.header(b"IHNf")
    (depth,) = walk.numbers("Q")
    walk.array("<f8", depth)
    slots = walk.vector("<i4", depth + 1)  # of a node up to a level
    tops = walk.vector("<i4", walk.count)  # how many levels a node is on
    offsets = walk.vector("<u8", walk.count + 1)  # of a node's slots
    (held,) = walk.numbers("Q")
    neighbours = walk.array("<i4", held)
    _check_graph(slots, tops, offsets, neighbours)
    entry, top, breadth_built, breadth, _ = walk.numbers("5i")
    highest = int(tops.max(initial=0)) - 1
    _want(top == highest and (entry == -1 if highest < 0 else 0 <= entry < walk.count), "its entry is out of range")
    _want(highest < 0 or tops[entry] > top, "its entry is not on the highest level")
    _want(0 < breadth < 1 << 16 and 0 < breadth_built < 1 << 16, f"{breadth} candidates are kept")
    walk.flat()
    return walk.vector("<i8", walk.count)


def _check_graph(slots: np.ndarray, tops: np.ndarray, offsets: np.ndarray, neighbours: np.ndarray) -> None:
    """Raise ValueError for a graph whose walk would leave it: a neighbour must be a node of the same level."""
    _want(slots[0] == 0 and bool((np.diff(slots) > 0).all()), "its levels are out of order")
    _want(bool(((tops > 0) & (tops < len(slots))).all()), "a node is on no level")
    _want(offsets[0] == 0 and np.array_equal(np.diff(offsets.astype(np.int64)), slots[tops]), "its nodes overlap")
    _want(offsets[-1] == len(neighbours), f"{len(neighbours)} neighbours for {offsets[-1]} places")
    _want(bool(((neighbours >= -1) & (neighbours < len(tops))).all()), "a neighbour is out of range")
    for level in range(1, int(tops.max(initial=0))):
        starts = offsets[:-1][tops > level].astype(np.int64)
        there = neighbours[starts[:, None] + np.arange(slots[level], slots[level + 1])]
        _want(bool((tops[there[there >= 0]] > level).all()), "a neighbour is on a lower level")


def _check_unit(rows: np.ndarray, unit: bool = True) -> None:
    """Raise ValueError for rows (N, D) that are not finite, or not of unit length."""
    for start in range(0, len(rows), BLOCK):
        block = np.ascontiguousarray(rows[start : start + BLOCK])  # the file's bytes are not aligned
        squares = np.einsum("nd,nd->n", block, block)
        fits = np.abs(squares - 1) < ONE if unit else np.isfinite(squares)
        _want(bool(fits.all()), f"row {start + int(fits.argmin())} is no direction")


def _want(right: Any, otherwise: str) -> None:
    """Raise ValueError with what is wrong."""
    if not right:
        raise ValueError(otherwise)


LAYOUTS: dict[str, Callable[[_Walk], np.ndarray]] = {"flat": _flat, "ivf": _ivf, "hnsw": _hnsw, "pq": _pq}
