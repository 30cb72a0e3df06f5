"""Embeddings made before, kept by the content of model and recording, so that a file is embedded once."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from sv_ssl.core.host import cache_folder


class Cache:
    """One SQLite file a model: whole after a kill, safe for several processes and threads.

    Where it cannot be written or is damaged, nothing is kept, and no error is raised.

    >>> import tempfile
    >>> cache = Cache("a model", Path(tempfile.mkdtemp()))
    >>> cache.put("a recording", np.float32([1, 2]))
    >>> cache.get("a recording"), cache.get("another")
    (array([1., 2.], dtype=float32), None)
    """

    def __init__(self, model: str, place: Path | None = None):
        self.model = model
        self.place = place
        try:
            place = place or cache_folder() / "embeddings"
            place.mkdir(parents=True, exist_ok=True)
            name = hashlib.sha1(model.encode()).hexdigest()
            self.rows = sqlite3.connect(
                place / f"{name}.sqlite", timeout=30, isolation_level=None, check_same_thread=False
            )
            self.rows.execute("PRAGMA journal_mode=WAL")
            self.rows.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the last rows, no more
            self.rows.execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, row BLOB)")
        except (OSError, sqlite3.Error):
            self.rows = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self.rows.execute("CREATE TABLE rows (key TEXT PRIMARY KEY, row BLOB)")

    def __reduce__(self) -> tuple[type[Cache], tuple[str, Path | None]]:
        """Another process opens the same file."""
        return Cache, (self.model, self.place)

    def get(self, key: str) -> np.ndarray | None:
        """Return the row kept under `key`, if any."""
        fields = None
        with suppress(sqlite3.Error):
            fields = self.rows.execute("SELECT row FROM rows WHERE key = ?", (key,)).fetchone()
        return None if fields is None else np.frombuffer(fields[0], np.float32).copy()

    def put(self, key: str, row: np.ndarray) -> None:
        """Keep a row, at once on disk."""
        with suppress(sqlite3.Error):
            self.rows.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (key, np.float32(row).tobytes()))


def content(path: str | os.PathLike) -> str:
    """Return the sha1 of a file's bytes."""
    about = os.stat(path)
    return _content(os.fspath(path), about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=64)  # a long recording is asked for once a window
def _content(path: str, size: int, changed: int) -> str:
    digest = hashlib.sha1()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
