"""The one way through a folder and the folders below it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from heapq import heappop, heappush

from sv_ssl.core.errors import InputError


def walk(folder: str | os.PathLike) -> Iterator[os.DirEntry]:
    """Yield every file below a folder but hidden ones, each folder once, whatever links lead to it.

    Links to folders are followed when all that lies here was seen, so that a folder is known by its own name rather
    than by a link's; a link to a folder in which it lies leads nowhere new. A link to a file is a file of its own name.
    A folder that cannot be read is an OSError: it would pass for an empty one.

    >>> import tempfile
    >>> place = tempfile.mkdtemp()
    >>> os.mkdir(place + "/b"), open(place + "/b/1.wav", "w").close(), os.symlink("b", place + "/a")
    (None, None, None)
    >>> [entry.path.removeprefix(place) for entry in walk(place)]
    ['/b/1.wav']
    """
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder")
    waiting: list[str] = [os.fspath(folder)]
    links: list[str] = []
    seen: set[tuple[int, int]] = set()
    while waiting or links:
        here = waiting.pop() if waiting else heappop(links)
        about = os.stat(here)
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        for entry in sorted(os.scandir(here), key=lambda entry: entry.name, reverse=True):
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                yield entry
            elif not entry.is_symlink():
                waiting.append(entry.path)
            elif not _holds(os.path.realpath(entry.path), os.path.realpath(here)):
                heappush(links, entry.path)


def _holds(folder: str, path: str) -> bool:
    return os.path.commonpath([folder, path]) == folder
