"""Embeddings made before, kept by the content of model and recording, so that a file is embedded once."""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from sv_ssl.audio import decoder
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import locked
from sv_ssl.core.host import cache_folder
from sv_ssl.models import features

FRONT_END = f"{decoder.VERSION}.{features.VERSION}".encode()  # that made samples of a recording, and features of them
TABLE = "CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, row BLOB, seconds REAL, front_end BLOB, checksum BLOB)"
COLUMNS = [b"key", b"row", b"seconds", b"front_end", b"checksum"]


class Cache:
    """One SQLite file a model: whole after a kill, safe for several processes and threads.

    A row is kept with the seconds of its recording, the version of the front end, and a checksum of all of it. What was
    damaged is forgotten, and so is what an earlier version kept without them. Where nothing can be written, nothing is
    kept, and no error is raised.

    >>> import tempfile
    >>> cache = Cache("a model", Path(tempfile.mkdtemp()))
    >>> cache.put("a recording", np.float32([1, 2]), seconds=3.0)
    >>> cache.get("a recording"), cache.get("another"), cache.get("a recording", longest=2.5)
    (array([1., 2.], dtype=float32), None, None)
    """

    def __init__(self, model: str, place: Path | None = None):
        self.model = model
        self.place = place
        self.path = (place or cache_folder() / "embeddings") / f"{hashlib.sha1(model.encode()).hexdigest()}.sqlite"
        self.damaged: set[str] = set()  # keys whose rows were found to be
        self.changing = threading.Lock()
        self.rows = self._opened()

    def __reduce__(self) -> tuple[type[Cache], tuple[str, Path | None]]:
        """Another process opens the same file."""
        return Cache, (self.model, self.place)

    def get(self, key: str, longest: float = math.inf) -> np.ndarray | None:
        """Return the row kept under `key`, if any, and if its recording has no more than `longest` seconds."""
        fields = self._ask("SELECT row, seconds, front_end, checksum FROM rows WHERE key = ?", key)
        if fields is None:
            return None
        if fields[-1] != _checksum(key, *fields[:-1]):
            self.damaged.add(key)
            return None
        row, seconds, front_end, _ = fields
        return np.frombuffer(row, np.float32).copy() if front_end == FRONT_END and seconds <= longest else None

    def put(self, key: str, row: np.ndarray, seconds: float = 0.0) -> None:
        """Keep a row, at once on disk, in the place of one that is damaged or of another front end."""
        fields = key, np.float32(row).tobytes(), float(seconds), FRONT_END
        self._ask("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?)", *fields, _checksum(*fields))
        self.damaged.discard(key)

    def _ask(self, question: str, *values: Any) -> tuple | None:
        """Return the first row of the answer; begin a damaged file anew."""
        rows = self.rows
        try:
            return rows.execute(question, values).fetchone()
        except sqlite3.Error as error:
            if _is_damage(error):
                with self.changing:
                    if self.rows is rows:  # no other thread was here before
                        self.rows = self._opened(damaged=True)
            return None

    def _opened(self, damaged: bool = False) -> sqlite3.Connection:
        """Open the file, anew if it is damaged; where there can be none, memory has the rows of this process."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if damaged:
                self._take_away()
            try:
                return self._connected()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._take_away()
                return self._connected()
        except (OSError, InputError, sqlite3.Error):
            memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            memory.execute(TABLE)
            return memory

    def _connected(self) -> sqlite3.Connection:
        rows = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        self.file = _number(self.path)
        rows.text_factory = bytes  # damaged text is no text
        rows.execute("PRAGMA journal_mode=WAL")
        rows.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the last rows, no more
        if _columns(rows) not in ([], COLUMNS):
            _forget_old(rows)
        rows.execute(TABLE)
        return rows

    def _take_away(self) -> None:
        """Delete the file that was opened here and is damaged, unless another process has put a new one there."""
        with locked(self.path):
            if _number(self.path) == self.file:
                for ending in ("-wal", "-shm", ""):  # a log without its file does no harm, a file with another's would
                    Path(f"{self.path}{ending}").unlink(missing_ok=True)
                _tell(f"{self.path} is damaged: the embeddings kept there are forgotten and made anew when needed")


def _is_damage(error: sqlite3.Error) -> bool:
    return type(error) is sqlite3.DatabaseError  # a lock, a full disk and all else have classes of their own


def _checksum(*fields: Any) -> bytes:
    return hashlib.sha1(repr(fields).encode()).digest()


def _columns(rows: sqlite3.Connection) -> list[bytes]:
    return [name for _, name, *_ in rows.execute("PRAGMA table_info(rows)")]


def _forget_old(rows: sqlite3.Connection) -> None:
    """Begin the table anew if it is that of an earlier version, which one of several processes does."""
    rows.execute("BEGIN IMMEDIATE")
    if _columns(rows) != COLUMNS:
        (count,) = rows.execute("SELECT count(*) FROM rows").fetchone()
        rows.execute("DROP TABLE rows")
        rows.execute(TABLE)
        _tell(f"{count:,} embeddings that an earlier version kept are forgotten: they have no checksum")
    rows.execute("COMMIT")


def _number(path: Path) -> int:
    """Return what tells a file from one that takes its place; 0 where there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _tell(note: str) -> None:
    print(f"note: {note}", file=sys.stderr)
