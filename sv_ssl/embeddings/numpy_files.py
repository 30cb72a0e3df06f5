"""Embeddings as numpy's files: .npz, .npy and a folder of one .npy an id. `store` chooses and checks."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO
from zipfile import ZipFile, ZipInfo

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.embeddings import claims
from sv_ssl.embeddings.table_files import Stored, to_array, torch_load

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: Path) -> Stored:
    with ZipFile(path) as archive:
        claims.check_zip(archive, os.path.getsize(path))
        members = [(member.filename.removesuffix(".npy"), member) for member in archive.infolist()]
        named = dict(members)
        if "ids" not in named:
            return [name for name, _ in members], [_member(archive, member) for _, member in members]
        if "embeddings" not in named:
            raise ValueError("embeddings is not a file in the archive")
        ids, rows = _member(archive, named["ids"]), _member(archive, named["embeddings"])
    if ids.dtype.kind == "S":
        ids = np.char.decode(ids, "utf-8")
    if ids.dtype.kind != "U" or ids.ndim != 1:
        raise ValueError(f"`ids` are {ids.dtype} of shape {ids.shape}")
    return ids.tolist(), rows


def read_arrays(path: Path, names: Iterable[str]) -> list[np.ndarray]:
    """Read the named arrays of an npz."""
    with ZipFile(path) as archive:
        claims.check_zip(archive, os.path.getsize(path))
        return [_member(archive, archive.getinfo(f"{name}.npy")) for name in names]


def _member(archive: ZipFile, member: ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        _check_header(file, member.file_size)
    with archive.open(member) as file:  # anew: one that was wound back has no checksum from Python 3.13 on
        return np.lib.format.read_array(file, allow_pickle=False)


def _check_header(file: IO[bytes], size: int) -> None:
    """Raise ValueError for an npy of `size` bytes whose header claims other than what follows."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"npy of version {version}")
    shape, _, dtype = HEADERS[version](file)
    claimed, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if not dtype.hasobject and (claimed != held or not dtype.itemsize):
        raise ValueError(f"its header claims {shape} of {dtype}, {claimed:,} bytes, and {held:,} are there")


def write_npz(path: Path, ids: list[str], rows: np.ndarray) -> None:
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, ids=np.array(ids, dtype=np.str_), embeddings=rows)


def read_npy(path: Path) -> Stored:
    beside = [path.with_suffix(ending) for ending in (".ids", ".txt")]
    listed = next((file for file in beside if file.is_file()), None)
    if listed is None:
        raise ValueError(f"there is neither {beside[0]} nor {beside[1]}")
    text = listed.read_text(encoding="utf-8" if listed.suffix == ".ids" else "utf-8-sig")
    return text.removesuffix("\n").split("\n"), _npy(path)


def _npy(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        _check_header(file, os.fstat(file.fileno()).st_size)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def write_npy(path: Path, ids: list[str], rows: np.ndarray) -> None:
    with atomic_write(path.with_suffix(".ids")) as listed, atomic_write(path) as temporary:
        _save(temporary, rows)
        listed.write_text("\n".join(ids) + "\n", encoding="utf-8")
        path.with_suffix(".ids").unlink(missing_ok=True)  # a kill from here on leaves no wrong pair


def _save(path: Path, rows: np.ndarray) -> None:
    """Write an .npy as `np.save` does, whose `tofile` does not notice that a disk is full."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(rows))
        file.write(np.ascontiguousarray(rows).data)


def read_folder(folder: Path) -> Stored:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".npy", ".pt") and path.is_file())
    ids = [path.relative_to(folder).as_posix().removesuffix(path.suffix) for path in files]
    return ids, map(_file_vector, files)


def _file_vector(path: Path) -> np.ndarray:
    try:
        return _npy(path) if path.suffix == ".npy" else to_array(torch_load(path))
    except Exception as error:
        raise ValueError(f"{path}: {one_line(error)}") from None


def write_folder(folder: Path, ids: list[str], rows: np.ndarray) -> None:
    folder = Path(os.path.abspath(folder))
    new = folder.with_name(f".{folder.name}-new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        for name, row in zip(ids, rows):
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            _save(new / f"{name}.npy", row)
        if folder.is_dir():
            folder.rmdir()  # only if it is empty
        new.rename(folder)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def one_line(error: Exception) -> str:
    """Return the text of an error as one line, not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 300 else text[:300] + "..."
