"""A recording that is hashed and decoded from the same bytes, though its file may be replaced or written meanwhile."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

AT_ONCE = 4 << 20  # bytes of a file that is held in memory: two minutes of 16-bit samples at 16 kHz
BLOCK = 1 << 20  # bytes of a larger file that are hashed at a time
SETTLED = 0.1  # seconds since a change, after which the next one gives a file another time: systems count in 10 ms
MOST_KNOWN = 64

Status = tuple[int, ...]
_known: dict[Status, str] = {}  # sha1 of larger files: a long recording is asked for once for each piece of its windows


class HeldFile:
    """A file: `content` is the sha1 of its bytes, `source` what the decoder reads.

    A small file is read once, into memory. A larger one is hashed and then decoded by its path; whether it was replaced
    or written in between is told by its status (`is_steady`).
    """

    def __init__(self, path: str):
        self.path = path
        began = time.time()
        with open(path, "rb") as file:
            self.status = _status(os.fstat(file.fileno()))
            data = file.read(min(os.fstat(file.fileno()).st_size, AT_ONCE) + 1)
            self.whole = len(data) <= AT_ONCE
            self.settled = os.fstat(file.fileno()).st_mtime < began - SETTLED
            self.source: Any = _Memory(data, path) if self.whole else path
            self.content = hashlib.sha1(data).hexdigest() if self.whole else self._content(file)

    def _content(self, file: IO[bytes]) -> str:
        if self.status in _known:
            return _known[self.status]
        digest = hashlib.sha1()
        for block in _blocks(file):
            digest.update(block)
        if self.is_steady():
            if len(_known) >= MOST_KNOWN:
                _known.clear()
            _known[self.status] = digest.hexdigest()
        return digest.hexdigest()

    def is_steady(self) -> bool:
        """Return whether all that was read until now is of the content."""
        if self.whole:
            return True
        try:
            return self.settled and _status(os.stat(self.path)) == self.status
        except OSError:
            return False


def held(path: Any) -> HeldFile | None:
    """Return a path's file; None for what is no path, no ordinary file, empty, or cannot be read: its reader says why.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"RIFF"), file.flush()
    ...     held(file.name).content, held(file.name + "no")
    ('6ca0a12c23f03719e0229fe85e34c98de7079397', None)
    """
    with suppress(OSError, ValueError):  # it is not there, its disk is broken, or its name is no name
        if isinstance(path, str) and stat.S_ISREG((found := os.stat(path)).st_mode) and found.st_size:
            return HeldFile(path)
    return None


class _Memory(io.BytesIO):
    """The bytes of a file, by its name in messages."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name = name

    def __str__(self) -> str:
        return self.name


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(BLOCK):
        yield block


def _status(found: os.stat_result) -> Status:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
