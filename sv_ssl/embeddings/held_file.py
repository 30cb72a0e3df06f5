"""A recording that is hashed and decoded from the same bytes, though its file may be replaced or written meanwhile."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

AT_ONCE = 4 << 20  # bytes of a file that is held in memory: two minutes of 16-bit samples at 16 kHz
BLOCK = 1 << 20  # bytes of a larger file that are hashed at a time
SETTLED = 0.1  # seconds since a change, after which the next one gives a file another time: systems count in 10 ms
MOST_KNOWN = 64

Status = tuple[int, ...]
_known: dict[Status, str] = {}  # sha1 of larger files: a long recording is asked for once for each piece of its windows


class HeldFile:
    """An open file: `content` is the sha1 of its bytes, `source` what the decoder reads.

    A small file is read once, into memory. A larger one is hashed and then decoded through one descriptor, which no
    rename can exchange; whether it was written in between is told by its status (`is_steady`).
    """

    def __init__(self, file: _Opened):
        began = time.time()
        self.file = file
        self.status = _status(file)
        data = file.read(min(os.fstat(file.fileno()).st_size, AT_ONCE) + 1)
        self.whole = len(data) <= AT_ONCE
        if self.whole:
            self.source: Any = _Memory(data, str(file))
            self.content = hashlib.sha1(data).hexdigest()
            return
        self.source = file
        self.settled = os.fstat(file.fileno()).st_mtime < began - SETTLED
        self.content = _known.get(self.status) or self._hashed()

    def _hashed(self) -> str:
        digest = hashlib.sha1()
        self.file.seek(0)
        while block := self.file.read(BLOCK):
            digest.update(block)
        if self.is_steady():
            if len(_known) >= MOST_KNOWN:
                _known.clear()
            _known[self.status] = digest.hexdigest()
        return digest.hexdigest()

    def is_steady(self) -> bool:
        """Return whether all that was read until now is of the content."""
        return self.whole or (self.settled and _status(self.file) == self.status)


@contextmanager
def hold(path: Any) -> Iterator[HeldFile | None]:
    """Yield a path's file; None for what is no path, no ordinary file, or cannot be opened: its reader says why.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file, hold(file.name) as held:
    ...     held.content
    'da39a3ee5e6b4b0d3255bfef95601890afd80709'
    """
    with ExitStack() as open_files:
        held = None
        with suppress(OSError, ValueError):  # it is not there, its disk is broken, or its name is no name
            if isinstance(path, str) and stat.S_ISREG(os.stat(path).st_mode):
                held = HeldFile(open_files.enter_context(_Opened(io.FileIO(path), 1 << 16)))
        yield held


class _Opened(io.BufferedReader):
    """An open file, by its name in messages."""

    def __str__(self) -> str:
        return str(self.name)


class _Memory(io.BytesIO):
    """The bytes of a file, by its name in messages."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name = name

    def __str__(self) -> str:
        return self.name


def _status(file: _Opened) -> Status:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
