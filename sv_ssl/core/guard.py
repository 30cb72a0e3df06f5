"""One guard for what a command writes: nothing that it reads, or that another option writes, is replaced."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sv_ssl.core.errors import InputError

Named = Iterable[tuple[str, Any]]  # an option or argument as the user knows it, and the path that it names, or None


def check_outputs(reads: Named, writes: Named) -> None:
    """Refuse an output that is an input, another output, no ordinary file, or in a place that cannot be written.

    Commands call it before any work, with what they read and write in passing too: the ids beside an .npy, the table of
    skipped recordings. Of a folder that is read the files right in it count.

    >>> check_outputs([("TRIALS", "a.txt")], [("--json", "./a.txt")])
    Traceback (most recent call last):
    ...
    sv_ssl.core.errors.InputError: --json ./a.txt would overwrite what TRIALS reads: name another file
    """
    writes = [(option, path) for option, path in writes if path is not None]
    if not writes:
        return  # an embeddings folder that is read may hold many files
    named: dict[str, str] = {}
    for option, path in reads:
        for file in _files(path):
            named[os.path.realpath(file)] = f"what {option} reads"
    for option, path in writes:
        _check_place(option, os.fspath(path))
        real = os.path.realpath(path)
        same = named.get(real) or next((named[other] for other in named if _are_one(real, other)), None)
        if same:
            raise InputError(f"{option} {path} would overwrite {same}: name another file")
        named[real] = f"what {option} writes"


def _files(path: Any) -> list[str]:
    """Return a file, or the files right in a folder."""
    if path is None:
        return []
    name = os.fspath(path)
    if not os.path.isdir(name):
        return [name]
    return [entry.path for entry in os.scandir(name) if entry.is_file()]


def check_room(option: str, path: str | os.PathLike, least: int) -> None:
    """Refuse a place whose disk has fewer bytes left than `least`, which will be written there in any case.

    >>> check_room("--out", "embeddings.npz", least=2**60)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    sv_ssl.core.errors.InputError: --out: cannot write embeddings.npz: 1,152,921,504,606,846,976 bytes are needed, ...
    """
    disk = os.statvfs(_nearest_folder(path))
    left = disk.f_frsize * (disk.f_bavail if os.geteuid() else disk.f_bfree)  # root may use what is kept in reserve
    if left < least and disk.f_blocks:  # of 0: a file system that does not count
        room = f"{least:,} bytes are needed, the disk has {left:,} left" if left else "the disk is full"
        raise InputError(f"{option}: cannot write {os.fspath(path)}: {room}")


def _check_place(option: str, path: str) -> None:
    """Refuse what is there and no ordinary file, and a place below a file, without leave to write or room."""
    if path == "-" or os.path.exists(path) and not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "no ordinary file"
        raise InputError(f"{option} {path}: wanted the name of a file, this is {kind}")
    above = _nearest_folder(path)
    if not above.is_dir():
        raise InputError(f"{option}: cannot write {path}: {above} is no folder")
    try:
        tempfile.TemporaryFile(dir=above).close()  # root has leave to write, and yet not everywhere can be written
    except OSError as error:
        raise InputError(f"{option}: cannot write {path}: {above} cannot be written to ({error.strerror})") from None
    check_room(option, path, least=1)


def _nearest_folder(path: str | os.PathLike) -> Path:
    """Return the folder of a path, or what is there of the way to it: the folders below will be made."""
    above = Path(path).absolute().parent
    while not os.path.lexists(above):
        above = above.parent
    return above


def _are_one(one: str, other: str) -> bool:
    """Return whether two names are those of one file: a hard link, or a file system that ignores case."""
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)
