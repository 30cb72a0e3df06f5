"""What the shards of one sv-extract make: each a part of the whole, in a file of its own, until they are merged."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside, some
from sv_ssl.core.host import cores

Row = tuple[str, str, str, str]  # of OUT's .windows.csv


class Part(NamedTuple):
    """The embeddings of one shard of a run, the whole of them for shard 1 of 1."""

    run: str  # equal for the shards of one run; see `run_of`
    shard: int  # from 1 on
    shards: int
    crops: int  # 0: none
    ids: list[str]  # (N,)
    rows: np.ndarray  # (N, V, D)
    seconds: float  # of audio that was embedded
    unplanned: list[tuple[str, str]]  # what was skipped before the work was divided: the same in all parts
    skipped: list[tuple[str, str]]  # what was skipped in this shard
    windows: list[Row]  # of the ids, if they are windows


def run_of(*what: Any) -> str:
    """What tells a run from another: the model, the options, ids and their samples, but not where the files are."""
    return hashlib.sha1(json.dumps(what).encode()).hexdigest()


def cuts(seconds: Sequence[float], shards: int) -> list[int]:
    """N lengths -> where each of the shards begins, and N: each a run of neighbours, of nearly equal sums.

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
    """Where a shard's part is kept: beside OUT.

    >>> str(path_of("embeddings.npz", 1, 4))
    'embeddings.1-of-4.part'
    """
    return Path(out).with_suffix(f".{shard}-of-{shards}.part")


def write(path: Path, part: Part) -> None:
    """A part -> its file, an .npz whatever its name: the rows, and all else as JSON."""
    about = json.dumps({name: value for name, value in part._asdict().items() if name != "rows"})
    with aside(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, rows=part.rows, about=np.frombuffer(about.encode(), np.uint8))


def read(path: str | os.PathLike) -> Part:
    """The file of a part -> the part."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            about: dict[str, Any] = json.loads(arrays["about"].tobytes())
            for name in ("unplanned", "skipped", "windows"):
                about[name] = [tuple(one) for one in about[name]]
            return Part(rows=arrays["rows"], **about)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except Exception:  # a foreign or damaged file fails in any of a dozen ways
        raise InputError(f"{path}: wanted a part that sv-extract --shard wrote") from None


def merged(paths: Sequence[str | os.PathLike]) -> Part:
    """The files of all parts of a run, in any order -> the whole, as one process would have made it."""
    parts = [read(path) for path in paths]
    first = parts[0]
    for path, part in zip(paths, parts):
        if (part.run, part.shards) != (first.run, first.shards):
            raise InputError(
                f"{path} and {paths[0]} are of different runs: wanted parts of the same model, INPUT and options"
            )
    numbers = [part.shard for part in parts]
    if absent := [str(shard) for shard in range(1, first.shards + 1) if shard not in numbers]:
        raise InputError(f"of {first.shards} parts these are not there: {some(absent)}")
    if len(numbers) > first.shards:
        raise InputError(f"{len(numbers)} parts of {first.shards}: one comes twice")
    parts.sort(key=lambda part: part.shard)
    return first._replace(
        shard=1,
        shards=1,
        ids=[i for part in parts for i in part.ids],
        rows=np.concatenate([part.rows for part in parts]),
        seconds=sum(p.seconds for p in parts),
        skipped=[one for part in parts for one in part.skipped],
        windows=[row for part in parts for row in part.windows],
    )


# --- the processes that torchrun starts -------------------------------------------------------------------------------


def numbers(text: str) -> tuple[int, int]:
    """What --shard is given -> the number of the shard, and of all.

    >>> numbers("2/4")
    (2, 4)
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {text}: wanted K/N with K from 1 to N, such as 1/4")
    return int(found[1]), int(found[2])


def processes() -> int:
    """How many torchrun has started, on all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1


def cores_each() -> int:
    """Return how many cores a process has, where those that torchrun has started on this machine divide them."""
    return max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))) if processes() > 1 else cores()


def by_first(make: Callable[[], Any]) -> Any:
    """What the first process makes, for all of them; or its error."""
    from sv_ssl.core import distributed

    return by_all(lambda: make() if distributed.is_main() else None)


def by_all(make: Callable[[], Any]) -> Any:
    """What the first process has made, once all are done; the error of any is an error of all."""
    from sv_ssl.core import distributed

    try:
        mine = make()
    except InputError as error:
        mine = InputError(str(error))
    made = distributed.gather_objects(mine)
    if errors := [one for one in made if isinstance(one, InputError)]:
        raise errors[0]
    return made[0]
