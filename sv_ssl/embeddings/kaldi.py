"""Kaldi's arks of vectors, without the commands and pickles that an entry could hold: nothing from a file is run."""

from __future__ import annotations

import os
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from sv_ssl.core.files import atomic_write, check_ordinary
from sv_ssl.embeddings import claims

ARK = re.compile(r"(\.ark|:\d+)\s*$")  # at the end of an entry of an scp: it lies in an ark
WIDENED = 4  # times that a compressed matrix, or text, grows at most when it is read
TEXT = re.compile(rb"\s*\[([-+.\w\s]*)\][^\S\n]*(\n|$)")  # a vector, or a matrix of a row a line


def read_ark(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """Read an ark, binary or text: N ids, N arrays as they stand there."""
    data = path.read_bytes()
    ids: list[str] = []
    vectors: list[np.ndarray] = []
    at = 0
    while at < len(data):
        end = data.find(b" ", at)
        if end < 0:
            raise ValueError(f"at byte {at} there is no id")
        ids.append(data[at:end].decode())
        vector, at = _vector(data, end + 1)
        vectors.append(vector)
    return ids, vectors


def _vector(data: bytes, at: int) -> tuple[np.ndarray, int]:
    """Return the array that begins at a byte, and where it ends."""
    dtype = {b"\0BFV \4": "<f4", b"\0BDV \4": "<f8"}.get(data[at : at + 6])
    if dtype:
        size = int.from_bytes(data[at + 6 : at + 10], "little")
        vector = np.frombuffer(data, dtype, size, at + 10)
        return vector, at + 10 + vector.nbytes
    if data[at : at + 2] == b"\0B":  # a matrix, which may be compressed
        from kaldiio.matio import read_kaldi

        file = BytesIO(data)
        file.seek(at)
        return read_kaldi(file), file.tell()
    text = TEXT.match(data, at)
    if not text:
        raise ValueError(f"at byte {at} there is no Kaldi vector")
    return np.array([line.split() for line in text[1].strip().split(b"\n")], np.float32), text.end()


def read_scp(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """Read an scp (`id file.ark:byte`, a file as named or below the scp's folder): N ids, N arrays."""
    lines = [line.split(maxsplit=1) for line in path.read_bytes().split(b"\n") if line.strip()]
    bad = next((line for line in lines if len(line) < 2 or line[1].rstrip().endswith(b"|")), None)
    if bad:
        raise ValueError(f"the entry of {bad[0].decode()} has no file (a command is not run)")
    ids = [name.decode() for name, _ in lines]
    places = [_place(place.decode().strip()) for _, place in lines]
    vectors: list[Any] = [None] * len(ids)
    open_ark, data = "", b""
    held = taken = 0
    for index in sorted(range(len(ids)), key=places.__getitem__):  # each ark once, one in memory at a time
        ark, byte = places[index]
        if ark != open_ark:
            open_ark, data = ark, _bytes(ark if os.path.exists(ark) else path.parent / ark)
            held += len(data)
        vector = _vector(data, byte)[0]
        taken += vector.nbytes
        claims.check(taken, held, WIDENED)  # many entries may name one place
        vectors[index] = vector.copy()
    return ids, vectors


def _bytes(ark: str | os.PathLike) -> bytes:
    check_ordinary(ark)
    return Path(ark).read_bytes()


def files_behind(path: Path) -> list[str]:
    """Return the arks that an scp names, each once: as named, or below its folder."""
    lines = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    names = {_place(line[1].strip())[0] for line in lines if len(line) > 1 and ARK.search(line[1])}
    return sorted(name if os.path.exists(name) else str(path.parent / name) for name in names)


def _place(place: str) -> tuple[str, int]:
    """Split `file:byte`, or `file` for byte 0."""
    name, colon, byte = place.rpartition(":")
    return (name, int(byte)) if colon and byte.isdecimal() else (place, 0)


def write(path: Path, ids: list[str], rows: np.ndarray) -> None:
    """Write N ids without blanks and (N, D) as the pair .ark and .scp, each whole or absent."""
    import kaldiio

    ark = path.with_suffix(".ark")
    with atomic_write(path.with_suffix(".scp")) as new_scp, atomic_write(ark) as new_ark:
        with open(new_ark, "wb") as vectors, open(new_scp, "w", encoding="utf-8") as places:
            kaldiio.save_ark(vectors, dict(zip(ids, rows)), scp=places)
        text = new_scp.read_text(encoding="utf-8")
        new_scp.write_text(text.replace(f" {new_ark}:", f" {ark}:"), encoding="utf-8")
        path.with_suffix(".scp").unlink(missing_ok=True)  # a kill from here on leaves no wrong pair
