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
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside
from sv_ssl.embeddings import kaldi

Embeddings = tuple[list[str], np.ndarray]  # N ids, (N, D) float32
Found = tuple[list[str], Iterable[Any]]  # N ids, (N, D) or N vectors, as a file has them
WRITABLE = ".npz, .npy, .ark, .scp, .parquet, .pt or / (a folder of .npy)"


def unit(rows: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D) of length one, whatever their scale: the largest number is made 1 before any square.

    >>> unit(np.array([[0, 4e30]], np.float32))
    array([[0., 1.]], dtype=float32)
    """
    rows = rows / np.maximum(rows.max(1), -rows.min(1))[:, None]
    rows /= np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return rows


def rows_of(found: Embeddings, ids: Sequence[str]) -> np.ndarray:
    """N ids and (N, D); U of the ids -> (U, D)."""
    row = dict(zip(found[0], range(len(found[0]))))
    return found[1][[row[i] for i in ids]]


def read(path: str | os.PathLike) -> Embeddings:
    """Path of a file or folder -> N ids, (N, D) float32; ids unique, rows finite and not zero, or an InputError."""
    name = os.fspath(path)
    if not os.path.exists(name):
        raise InputError(f"cannot read {name}: No such file or directory")
    kind = _kind(name)
    if kind not in READERS:
        raise InputError(f"{name}: wanted embeddings as {', '.join(READERS)}, by the ending of the name")
    wanted, reader = READERS[kind]
    try:
        ids, found = reader(Path(name))
        rows = found if isinstance(found, np.ndarray) else _stacked(ids, found)
    except Exception as error:  # a foreign or damaged file fails in any of a dozen ways
        if isinstance(error, OSError) and error.filename:
            raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
        raise InputError(f"{name}: wanted {wanted}; {_reason(error)}") from None
    return _checked(ids, rows, name)


def write(path: str | os.PathLike, ids: Sequence[str], rows: np.ndarray) -> None:
    """N ids, (N, D) -> a file or folder, whole or absent, float32; what `read` would refuse is refused here.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/embeddings.npz"
    >>> write(path, ["a.wav", "b.wav"], np.eye(2))
    >>> read(path)[0]
    ['a.wav', 'b.wav']
    """
    name, ids = os.fspath(path), [str(i) for i in ids]
    check_target(name, ids)
    ids, rows = _checked(ids, np.asarray(rows), name)
    WRITERS[_kind(name)](Path(name), ids, rows)


def check_target(path: str | os.PathLike, ids: Iterable[str] = ()) -> None:
    """Refuse what `write` could not write there, before hours are spent on it: the ending, or ids that do not fit."""
    name = os.fspath(path)
    kind = _kind(name)
    if kind not in WRITERS:
        raise InputError(f"cannot write {name}: wanted a name that ends in {WRITABLE}")
    if kind == "a folder" and (not Path(name).name or os.path.isdir(name) and os.listdir(name)):
        raise InputError(f"cannot write {name}: the folder is not empty; name a new one")
    for i in ids:
        if kind in (".ark", ".scp") and i.split() != [i]:
            raise InputError(f"cannot write {name}: Kaldi's ids have no blanks, {i!r} has: use .npz, .parquet or .pt")
        if kind == "a folder" and {"", ".", ".."} & set(i.split("/")):
            raise InputError(f"cannot write {name}: the id {i!r} is no path below it: use .npz, .parquet or .pt")
        if kind in (".npy", ".ark", ".scp", ".parquet") and i.encode(errors="replace").decode() != i:
            raise InputError(f"cannot write {name}: the id {i!r} is not UTF-8 text: use .npz or .pt")


def _kind(name: str) -> str:
    return "a folder" if name.endswith("/") or os.path.isdir(name) else Path(name).suffix.lower()


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 300 else text[:300] + "..."


# --- what every format must hold --------------------------------------------------------------------------------------


def _checked(ids: list[str], rows: np.ndarray, name: str) -> Embeddings:
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
        if not i or "\n" in i or "\r" in i or "\0" in i:
            raise InputError(f"{name}: the id {i!r} is empty or breaks the line")
    return ids, rows


def _stacked(ids: Sequence[str], vectors: Iterable[Any]) -> np.ndarray:
    """N ids, N arrays (D,) or (1, D) -> (N, D)."""
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


# --- numpy ------------------------------------------------------------------------------------------------------------


def _read_npz(path: Path) -> Found:
    with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
        if "ids" not in arrays.files:
            return list(arrays.files), [arrays[name] for name in arrays.files]
        ids, rows = arrays["ids"], arrays["embeddings"]
    if ids.dtype.kind == "S":
        ids = np.char.decode(ids, "utf-8")
    if ids.dtype.kind != "U" or ids.ndim != 1:
        raise ValueError(f"`ids` are {ids.dtype} of shape {ids.shape}")
    return ids.tolist(), rows


def _write_npz(path: Path, ids: list[str], rows: np.ndarray) -> None:
    with aside(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, ids=np.array(ids, dtype=np.str_), embeddings=rows)


def _read_npy(path: Path) -> Found:
    beside = [path.with_suffix(ending) for ending in (".ids", ".txt")]
    listed = next((file for file in beside if file.is_file()), None)
    if listed is None:
        raise ValueError(f"there is neither {beside[0]} nor {beside[1]}")
    text = listed.read_text(encoding="utf-8" if listed.suffix == ".ids" else "utf-8-sig")
    return text.removesuffix("\n").split("\n"), _npy(path)


def _npy(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _write_npy(path: Path, ids: list[str], rows: np.ndarray) -> None:
    with aside(path.with_suffix(".ids")) as listed, aside(path) as temporary, open(temporary, "wb") as file:
        np.save(file, rows)
        listed.write_text("\n".join(ids) + "\n", encoding="utf-8")
        path.with_suffix(".ids").unlink(missing_ok=True)  # a kill from here on leaves no wrong pair


def _read_folder(folder: Path) -> Found:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".npy", ".pt") and path.is_file())
    ids = [path.relative_to(folder).as_posix().removesuffix(path.suffix) for path in files]
    return ids, map(_file_vector, files)


def _file_vector(path: Path) -> np.ndarray:
    try:
        return _npy(path) if path.suffix == ".npy" else _array(_torch_load(path))
    except Exception as error:
        raise ValueError(f"{path}: {_reason(error)}") from None


def _write_folder(folder: Path, ids: list[str], rows: np.ndarray) -> None:
    folder = Path(os.path.abspath(folder))
    new = folder.with_name(f".{folder.name}-new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        for name, row in zip(ids, rows):
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(new / f"{name}.npy", row)
        if folder.is_dir():
            folder.rmdir()  # only if it is empty
        new.rename(folder)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


# --- tables and tensors -----------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> Found:
    from pyarrow import parquet, types

    table = parquet.ParquetFile(path, page_checksum_verification=True).read()
    kinds = {field.name: field.type for field in table.schema}
    named = _only("id", [n for n, kind in kinds.items() if types.is_string(kind) or types.is_large_string(kind)])
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    listed = _only("embedding", [n for n, kind in kinds.items() if any(is_list(kind) for is_list in lists)])
    numbered = _numbered([n for n, kind in kinds.items() if types.is_floating(kind)])
    if not named or not (listed or numbered) or not table.num_rows or table[named].null_count:
        columns = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise ValueError(f"it has {table.num_rows} rows of {columns}: none, empty cells, or unclear columns")
    ids = table[named].to_pylist()
    return ids, _lists(table[listed], ids) if listed else np.column_stack([table[name].to_numpy() for name in numbered])


def _only(usual: str, names: list[str]) -> str | None:
    return usual if usual in names else names[0] if len(names) == 1 else None


def _numbered(names: list[str]) -> list[str]:
    """Names of columns -> the same in the order of the numbers that end them, or none if there is a gap."""
    parts = {name: re.fullmatch(r"(.*?)(\d+)", name) for name in names}
    found = sorted((int(part[2]), part[1], name) for name, part in parts.items() if part)
    numbers = [number for number, _, _ in found]
    whole = numbers == list(range(numbers[0], numbers[0] + len(names))) if found else False
    return [name for _, _, name in found] if whole and len({stem for _, stem, _ in found}) == 1 else []


def _lists(column: Any, ids: list[str]) -> np.ndarray:
    """pyarrow column of N lists -> (N, D)."""
    from pyarrow import compute

    lengths = compute.list_value_length(column).to_numpy()
    odd = (lengths != lengths[0]).argmax()
    if lengths[odd] != lengths[0]:
        raise ValueError(f"that of {ids[odd]} has {lengths[odd]:g} dimensions, that of {ids[0]} {lengths[0]:g}")
    numbers = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(numbers).reshape(len(ids), -1)


def _write_parquet(path: Path, ids: list[str], rows: np.ndarray) -> None:
    import pyarrow
    from pyarrow import parquet

    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.reshape(-1)), rows.shape[1])
    with aside(path) as temporary:
        table = pyarrow.table({"id": ids, "embedding": vectors})
        parquet.write_table(table, temporary, use_dictionary=False, write_page_checksum=True)


def _read_pt(path: Path) -> Found:
    loaded = _torch_load(path)
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds a {type(loaded).__name__}")
    ids = list(loaded.get("ids", loaded))
    if not all(isinstance(i, str) for i in ids):
        raise ValueError("its ids are not text")
    if "ids" in loaded:
        return ids, _array(loaded["embeddings"])
    return ids, map(_array, loaded.values())


def _torch_load(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:
        raise ValueError("it is damaged, or holds more than tensors and text (no code is run to read it)") from None


def _array(tensor: Any) -> np.ndarray:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"it holds a {type(tensor).__name__} where a tensor is wanted")
    return (tensor.detach().float() if tensor.is_floating_point() else tensor).numpy()


def _write_pt(path: Path, ids: list[str], rows: np.ndarray) -> None:
    import torch

    with aside(path) as temporary:
        try:
            torch.save({"ids": ids, "embeddings": torch.tensor(rows)}, temporary)
        except RuntimeError:
            raise InputError(f"cannot write {path}: torch could not finish the file; is the disk full?") from None


def _read_safetensors(path: Path) -> Found:
    from safetensors.numpy import load_file

    vectors = load_file(path)
    return list(vectors), vectors.values()


READERS: dict[str, tuple[str, Callable[[Path], Found]]] = {
    ".npz": ("an npz with text `ids` (N,) and floats `embeddings` (N, D), or one vector an id", _read_npz),
    ".npy": ("an npy (N, D), and beside it its ids, one a line", _read_npy),
    ".ark": ("a Kaldi ark of vectors", kaldi.read_ark),
    ".scp": ("a Kaldi scp of vectors, lines of `id file.ark:byte`", kaldi.read_scp),
    ".parquet": ("a column of text `id` and one of float lists `embedding`, or columns 0, 1, ...", _read_parquet),
    ".pt": ("a dictionary of id: vector, or of `ids` and `embeddings` (N, D)", _read_pt),
    ".safetensors": ("one vector an id", _read_safetensors),
    "a folder": ("one .npy or .pt vector an id", _read_folder),
}
WRITERS: dict[str, Callable[[Path, list[str], np.ndarray], None]] = {
    **{".npz": _write_npz, ".npy": _write_npy, ".ark": kaldi.write, ".scp": kaldi.write},
    **{".parquet": _write_parquet, ".pt": _write_pt, "a folder": _write_folder},
}
