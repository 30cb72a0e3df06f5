"""What a model learnt from, in its folder: hashes of the names of its training utterances, 8 bytes each.

An utterance is known by its id, and by the last three parts of its path (speaker/session/name in most corpora), without
the ending of the file. Whoever has a name can ask whether the model was trained on it; the names cannot be read. The
file may be deleted: the model is the same without it. numpy alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sv_ssl.core import sketch
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import check_ordinary

FILE = "trained_on.hashes"  # little-endian uint64, ascending
MOST = 1 << 21  # names that are kept, 16 MB: of more than a million utterances some are not known again
PARTS = 3  # of a path
ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")


def of(ids: Iterable[str], paths: Iterable[str]) -> np.ndarray:
    """Return what is kept of training utterances, their ids and their paths: (K,) uint64.

    >>> known(of(["anna-1"], ["/data/anna/1.flac"]), ["anna-1.wav", "x/data/anna/1.wav", "anna-2.wav"])
    array([ True,  True, False])
    """
    return sketch.least(sketch.hashes(filter(None, [*map(_whole, ids), *map(_end, paths)])), MOST)


def joined(*parts: np.ndarray | None) -> np.ndarray:
    """Return what is kept of several trainings, one after the other; None is one that is not known."""
    return sketch.least(np.concatenate([np.zeros(0, np.uint64), *(part for part in parts if part is not None)]), MOST)


def known(kept: np.ndarray, ids: Sequence[str], paths: Sequence[str] = ()) -> np.ndarray:
    """Return which of N ids, or of their paths where these are known, are of training: (K,) uint64 -> (N,) bool."""
    names = [map(_whole, ids), map(_end, ids), *([map(_end, paths)] if paths else [])]
    return np.any([sketch.met(kept, sketch.hashes(kind), MOST)[0] for kind in names], axis=0)


def write(folder: Path, kept: np.ndarray) -> None:
    """Write the file into a model folder."""
    (folder / FILE).write_bytes(kept.astype("<u8").tobytes())


def read(folder: str | os.PathLike) -> np.ndarray | None:
    """Return what a model folder keeps of its training utterances, (K,) uint64; None where it keeps nothing."""
    path = Path(folder) / FILE
    if not path.exists():
        return None
    check_ordinary(path)
    try:
        with open(path, "rb") as file:
            kept = file.read(8 * MOST + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if len(kept) % 8 or len(kept) > 8 * MOST:
        raise InputError(f"{path} is damaged: delete it, the model does without")
    return np.unique(np.frombuffer(kept, "<u8").astype(np.uint64))


def _whole(text: str) -> str:
    """Return an id without the ending of a file; "" for a number, which is a name in any corpus."""
    name = ENDING.sub("", text)
    return "" if name.isdigit() else name


def _end(path: str) -> str:
    """Return the last parts of a path, if it has so many."""
    parts = ENDING.sub("", path).split("/")
    return "/".join(parts[-PARTS:]) if len(parts) >= PARTS else ""
