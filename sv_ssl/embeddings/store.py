"""Embeddings on disk, in the formats that people use. numpy alone until a file wants more: `sv-score` starts at once.

    .npz            text `ids` (N,) and `embeddings` (N, D), as sv-extract writes it; or one vector an id
    .npy            (N, D), and beside it the ids, one a line: same name, .ids or .txt
    .ark, .scp      Kaldi, binary or text; written as a pair
    .parquet        a column of ids and one of lists; or one column a dimension, numbered: 0, 1, ... or dim_1, ...
    .pt             {"ids": [...], "embeddings": (N, D)} or {id: vector}
    .safetensors    one vector an id; read only
    a folder        one .npy or .pt an id, which is the path below the folder without its last ending

Numbers are floats of any width and become float32. A vector may be (D,) or (1, D). No code from a file is ever run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import check_ordinary
from sv_ssl.embeddings import kaldi, numpy_files, table_files
from sv_ssl.embeddings.numpy_files import one_line
from sv_ssl.embeddings.table_files import Stored

Embeddings = tuple[list[str], np.ndarray]  # N ids, (N, D) float32
BESIDE = {".npy": (".ids",), ".ark": (".scp",), ".scp": (".ark",)}  # what is written beside a file of an ending
WRITABLE = ".npz, .npy, .ark, .scp, .parquet, .pt or / (a folder of .npy)"


def unit(rows: np.ndarray) -> np.ndarray:
    """Return the unit rows of (N, D), whatever their scale: the largest number is made 1 before any square.

    >>> unit(np.array([[0, 4e30]], np.float32))
    array([[0., 1.]], dtype=float32)
    """
    rows = rows / np.maximum(rows.max(1), -rows.min(1))[:, None]
    rows /= np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return rows


def rows_of(embeddings: Embeddings, ids: Sequence[str]) -> np.ndarray:
    """Return the rows of U of the ids: (U, D)."""
    known, rows = embeddings
    place = dict(zip(known, range(len(known))))
    return rows[[place[i] for i in ids]]


def read(path: str | os.PathLike) -> Embeddings:
    """Read a file or folder: N unique ids, (N, D) float32, finite and not zero; anything else is an InputError."""
    name = os.fspath(path)
    if not os.path.exists(name):
        raise InputError(f"cannot read {name}: No such file or directory")
    kind = _kind(name)
    if kind not in READERS:
        raise InputError(f"{name}: wanted embeddings as {', '.join(READERS)}, by the ending of the name")
    wanted, reader = READERS[kind]
    if kind != "a folder":
        check_ordinary(name)
    try:
        ids, stored = reader(Path(name))
        rows = stored if isinstance(stored, np.ndarray) else _stacked(ids, stored)
    except InputError:
        raise
    except Exception as error:  # a foreign or damaged file fails in any of a dozen ways
        if isinstance(error, OSError) and error.filename:
            raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
        raise InputError(f"{name}: wanted {wanted}; {one_line(error)}") from None
    return _checked(ids, rows, name)


def write(path: str | os.PathLike, ids: Sequence[str], rows: np.ndarray) -> None:
    """Write N ids and (N, D) as float32 to a file or folder, whole or absent; what `read` would refuse is refused here.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/embeddings.npz"
    >>> write(path, ["a.wav", "b.wav"], np.eye(2))
    >>> read(path)[0]
    ['a.wav', 'b.wav']
    """
    name, ids, rows = checked(path, ids, rows)
    WRITERS[_kind(name)](Path(name), ids, rows)


def checked(path: str | os.PathLike, ids: Sequence[str], rows: np.ndarray) -> tuple[str, list[str], np.ndarray]:
    """Return path, ids and rows as `write` writes them, or refuse them: for whoever writes several files, or none."""
    name, ids = os.fspath(path), [str(i) for i in ids]
    check_target(name, ids)
    return name, *_checked(ids, np.asarray(rows), name)


def check_target(path: str | os.PathLike, ids: Iterable[str] = ()) -> None:
    """Refuse what `write` could not write there, before hours are spent on it.

    That is another ending, a file beside the embeddings that is there and not of earlier ones, or ids that do not fit.
    """
    name = os.fspath(path)
    kind = _kind(name)
    if kind not in WRITERS:
        raise InputError(f"cannot write {name}: wanted a name that ends in {WRITABLE}")
    if kind == "a folder" and (not Path(name).name or os.path.isdir(name) and os.listdir(name)):
        raise InputError(f"cannot write {name}: the folder is not empty; name a new one")
    for other in map(Path(name).with_suffix, BESIDE.get(kind, ())):
        if os.path.lexists(other) and not os.path.lexists(name):
            raise InputError(f"cannot write {name}: {other} would be written beside it and is there: name another file")
    for i in ids:
        _check_id(name, i)
        if kind in (".ark", ".scp") and i.split() != [i]:
            raise InputError(f"cannot write {name}: Kaldi's ids have no blanks, {i!r} has: use .npz, .parquet or .pt")
        if kind == "a folder" and {"", ".", ".."} & set(i.split("/")):
            raise InputError(f"cannot write {name}: the id {i!r} is no path below it: use .npz, .parquet or .pt")
        if kind in (".npy", ".ark", ".scp", ".parquet") and i.encode(errors="replace").decode() != i:
            raise InputError(f"cannot write {name}: the id {i!r} is not UTF-8 text: use .npz or .pt")


def files(path: str | os.PathLike) -> list[str]:
    """Return the files that are read with embeddings, or an scp of audio: ids beside an .npy, arks behind an scp."""
    name, known = os.fspath(path), Path(path)
    if known.suffix == ".npy":
        return [name, str(known.with_suffix(".ids")), str(known.with_suffix(".txt"))]
    if known.suffix == ".scp" and known.is_file():
        return [name, *kaldi.files_behind(known)]
    return [name]


def new_files(path: str | os.PathLike) -> list[Path]:
    """Return the files that `write` makes."""
    made = Path(path)
    kind = _kind(os.fspath(path))
    return [] if kind == "a folder" else [made, *map(made.with_suffix, BESIDE.get(kind, ()))]


def _kind(name: str) -> str:
    return "a folder" if name.endswith("/") or os.path.isdir(name) else Path(name).suffix.lower()


def _checked(ids: list[str], rows: np.ndarray, name: str) -> Embeddings:
    """Return what every format must hold, as float32, or raise InputError."""
    if rows.ndim != 2 or len(ids) != len(rows) or not rows.size:
        raise InputError(f"{name}: {len(ids)} ids and embeddings of shape {rows.shape}; wanted (N,) and (N, D)")
    if rows.dtype.kind != "f":
        raise InputError(f"{name}: the embeddings are {rows.dtype}; wanted floats")
    with np.errstate(over="ignore"):  # what overflows is named below
        rows = np.ascontiguousarray(rows, np.float32)
    norms = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)  # squares of float32 neither overflow nor vanish there
    for faulty, what in ((~np.isfinite(norms), "holds NaN or infinity"), (norms == 0, "is zero: it has no direction")):
        if faulty.any():
            raise InputError(f"{name}: the embedding of {ids[faulty.argmax()]} {what} ({faulty.sum()} such rows)")
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise InputError(f"{name}: the id {twice} has more than one embedding; ids must be unique")
    for i in ids:
        _check_id(name, i)
    return ids, rows


def _check_id(name: str, i: str) -> None:
    """Refuse an id that no list could hold: one a line."""
    if not i or "\n" in i or "\r" in i or "\0" in i:
        raise InputError(f"{name}: the id {i!r} is empty or breaks the line")


def _stacked(ids: Sequence[str], vectors: Iterable[Any]) -> np.ndarray:
    """Stack N arrays (D,) or (1, D) -> (N, D); the ids are for the message."""
    rows: list[np.ndarray] = []
    for name, vector in zip(ids, map(np.asarray, vectors)):
        if vector.dtype.kind != "f" or not vector.size or vector.shape[-1:] != (vector.size,):
            raise ValueError(f"that of {name} is {vector.dtype} of shape {vector.shape}, wanted one vector of floats")
        rows.append(vector.reshape(-1))
        if vector.size != rows[0].size:
            raise ValueError(f"that of {name} has {vector.size} dimensions, that of {ids[0]} {rows[0].size}")
    if not rows:
        raise ValueError("there are none")
    return np.stack(rows)


READERS: dict[str, tuple[str, Callable[[Path], Stored]]] = {
    ".npz": ("an npz with text `ids` (N,) and floats `embeddings` (N, D), or one vector an id", numpy_files.read_npz),
    ".npy": ("an npy (N, D), and beside it its ids, one a line", numpy_files.read_npy),
    ".ark": ("a Kaldi ark of vectors", kaldi.read_ark),
    ".scp": ("a Kaldi scp of vectors, lines of `id file.ark:byte`", kaldi.read_scp),
    ".parquet": (
        "a column of text `id` and one of float lists `embedding`, or columns 0, 1, ...",
        table_files.read_parquet,
    ),
    ".pt": ("a dictionary of id: vector, or of `ids` and `embeddings` (N, D)", table_files.read_pt),
    ".safetensors": ("one vector an id", table_files.read_safetensors),
    "a folder": ("one .npy or .pt vector an id", numpy_files.read_folder),
}
WRITERS: dict[str, Callable[[Path, list[str], np.ndarray], None]] = {
    ".npz": numpy_files.write_npz,
    ".npy": numpy_files.write_npy,
    ".ark": kaldi.write,
    ".scp": kaldi.write,
    ".parquet": table_files.write_parquet,
    ".pt": table_files.write_pt,
    "a folder": numpy_files.write_folder,
}
