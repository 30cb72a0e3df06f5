"""A folder in another's place: whenever the process is killed, the old one or the new one is there, whole.

A full folder cannot be renamed over, so two more stand beside FOLDER meanwhile:

    .FOLDER-new        what is being written or deleted; whole where FOLDER is absent and the next is there
    .FOLDER-new-old    the old one, whole, from just before the new one takes its place until just after
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sv_ssl.core.errors import InputError


@contextmanager
def replacing(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder; put it in `folder`'s place if the block succeeds. A link stays: what it leads to changes.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "a"
    >>> for text in ("old", "new"):
    ...     with replacing(place) as aside:
    ...         _ = (aside / "b.txt").write_text(text)
    >>> (place / "b.txt").read_text(), [path.name for path in place.parent.iterdir()]
    ('new', ['a'])
    """
    finish(folder)
    place, new, old = _three(folder)
    if place.exists() and not place.is_dir():
        raise InputError(f"cannot write the folder {folder}: a file of this name is there: name another folder")
    try:
        _clear(place, new, old)
        new.mkdir(parents=True)
        yield new
        if place.exists():
            place.rename(old)
            finish(folder)
        else:
            new.rename(place)
    finally:
        _clear(place, new, old)


def finish(folder: str | os.PathLike) -> None:
    """Finish a replacement between its two renamings, where a kill left it, or where a reader meets it."""
    place, new, old = _three(folder)
    if old.exists() and not place.exists():
        with suppress(FileNotFoundError):  # another process has finished it
            (new if new.exists() else old).rename(place)


def _clear(place: Path, new: Path, old: Path) -> None:
    """Delete what is left beside the folder; the old one goes back where the new one could not take its place."""
    shutil.rmtree(new, ignore_errors=True)
    if old.exists():
        old.rename(new if place.exists() else place)
        shutil.rmtree(new, ignore_errors=True)


def _three(folder: str | os.PathLike) -> tuple[Path, Path, Path]:
    place = Path(os.path.realpath(folder))
    return place, place.with_name(f".{place.name}-new"), place.with_name(f".{place.name}-new-old")
