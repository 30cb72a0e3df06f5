"""The parts of one extraction: what each of several processes made, in a file of its own, until they are merged."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sv_ssl.core.errors import InputError, Skipped, is_number
from sv_ssl.core.files import atomic_write, check_ordinary, first_few
from sv_ssl.embeddings.numpy_files import read_arrays

MOST = 100_000  # parts of a run
Row = tuple[str, str, str, str]  # of OUT's .windows.csv


class Part(NamedTuple):
    """The embeddings that one process made, all of them for part 1 of 1. Its fields are named as in the file."""

    run: str  # equal for the parts of one run; see `run_of`
    shard: int  # from 1 on
    shards: int
    crops: int  # 0: none
    ids: list[str]  # (N,)
    rows: np.ndarray  # (N, V, D)
    seconds: float  # of audio that was embedded
    unplanned: list[Skipped]  # what was skipped before the work was divided: the same in all parts
    skipped: list[Skipped]  # what was skipped in this part
    windows: list[Row]  # of the ids, if they are windows


def run_of(*what: Any) -> str:
    """Return what tells a run from another: the model, the options, ids and their samples, but no paths."""
    return hashlib.sha1(json.dumps(what).encode()).hexdigest()


def cuts(seconds: Sequence[float], shards: int) -> list[int]:
    """Return where each of the parts of N lengths begins, and N: each a run of neighbours, of nearly equal sums.

    >>> cuts([1, 1, 1, 1, 2], 3)
    [0, 2, 4, 5]
    >>> cuts([5, 1], 3)
    [0, 0, 1, 2]
    """
    lengths = np.asarray(seconds, np.float64) + 0.05  # what an utterance costs however short it is
    ends = np.cumsum(lengths)
    total = ends[-1] if len(ends) else 0.0
    inner = np.searchsorted(ends - lengths / 2, total * np.arange(1, shards) / shards)
    return [0, *inner.tolist(), len(lengths)]


def path_of(out: str, shard: int, shards: int) -> Path:
    """Return where a part is kept: beside OUT.

    >>> str(path_of("embeddings.npz", 1, 4))
    'embeddings.1-of-4.part'
    """
    return Path(out).with_suffix(f".{shard}-of-{shards}.part")


def write(path: Path, part: Part) -> None:
    """Write a part to its file, an .npz whatever its name: the rows, and all else as JSON."""
    about = json.dumps({name: value for name, value in part._asdict().items() if name != "rows"})
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, rows=part.rows, about=np.frombuffer(about.encode(), np.uint8))


def read(path: str | os.PathLike) -> Part:
    """Read the file of a part."""
    check_ordinary(path)
    try:
        rows, text = read_arrays(Path(path), ("rows", "about"))
        about: dict[str, Any] = json.loads(text.tobytes().decode())
        for name in ("unplanned", "skipped"):  # parts of version 0.1 have no kinds
            about[name] = [Skipped(row[0], row[1] if row[2:] else "unknown", row[-1]) for row in about[name]]
        about["windows"] = [tuple(row) for row in about["windows"]]
        part = Part(rows=rows, **about)
        _check(part)
        return part
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except Exception:  # a foreign or damaged file fails in any of a dozen ways
        raise InputError(f"{path}: wanted a part that sv-extract --shard wrote") from None


def _check(part: Part) -> None:
    """Raise ValueError for what `write` never writes."""
    texts = [*part.ids, part.run, *(field for row in part.unplanned + part.skipped + part.windows for field in row)]
    numbers = (part.shard, part.shards, part.crops)
    rows = part.rows
    if not (
        all(isinstance(text, str) for text in texts)
        and all(type(number) is int for number in numbers)
        and 1 <= part.shard <= part.shards <= MOST
        and rows.shape[1:2] == (max(1, part.crops),)
        and is_number(part.seconds)
        and (rows.dtype, rows.ndim, len(rows)) == (np.float32, 3, len(part.ids))
        and all(len(row) == 4 for row in part.windows)
    ):
        raise ValueError


def merged(paths: Sequence[str | os.PathLike]) -> Part:
    """Merge the files of all parts of a run, in any order, into the whole, as one process would have made it."""
    parts = [read(path) for path in paths]
    first = parts[0]
    for path, part in zip(paths, parts):
        if (part.run, part.shards, part.rows.shape[1:]) != (first.run, first.shards, first.rows.shape[1:]):
            raise InputError(
                f"{path} and {paths[0]} are of different runs: wanted parts of the same model, INPUT and options"
            )
    numbers = [part.shard for part in parts]
    if absent := [str(shard) for shard in range(1, first.shards + 1) if shard not in numbers]:
        raise InputError(f"of {first.shards} parts these are not there: {first_few(absent)}")
    if len(numbers) > first.shards:
        raise InputError(f"{len(numbers)} parts of {first.shards}: one comes twice")
    parts.sort(key=lambda part: part.shard)
    return first._replace(
        shard=1,
        shards=1,
        ids=[i for part in parts for i in part.ids],
        rows=np.concatenate([part.rows for part in parts]),
        seconds=sum(part.seconds for part in parts),
        skipped=[left_out for part in parts for left_out in part.skipped],
        windows=[row for part in parts for row in part.windows],
    )
