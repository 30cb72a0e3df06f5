"""Files that are whole or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sv_ssl.core.errors import InputError

LOCK = ".lock"


def first_few(items: Iterable[str], most: int = 10, separator: str = ", ") -> str:
    """Return the first few items, as a message shows them.

    >>> first_few("abc", most=2)
    'a, b, ...'
    """
    items = list(items)
    return separator.join([*items[:most], *["..."] * (len(items) > most)])


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it there if the block succeeds.

    A kill, a full disk or an error inside the block leaves the old file (or none), never half of one.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_write(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"cannot write {path}: it is no ordinary file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The ending is kept: several libraries choose the format by it.
        handle, name = tempfile.mkstemp(prefix=".aside-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    os.close(handle)
    os.chmod(name, 0o666 & ~_umask())
    try:
        yield Path(name)
        os.replace(name, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if os.path.exists(name):
            os.unlink(name)


@contextmanager
def exclusive(folder: str | os.PathLike, what: str, option: str) -> Iterator[None]:
    """Hold a folder for this process alone: a second one that works in it would write over it and is refused.

    >>> import tempfile
    >>> with exclusive(tempfile.mkdtemp(), "a run", "--output_folder"):
    ...     pass
    """
    import fcntl  # Linux and macOS have it

    folder = Path(folder)
    made = not folder.exists()
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(folder / LOCK, "w")
        except OSError as error:
            raise InputError(f"cannot write into {folder}: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(
                    f"{what} is running in {folder} already: wait for it, or name another {option}"
                ) from None
            if not is_at(folder / LOCK, file.fileno()):
                continue  # whoever held it before has just taken it away
            try:
                yield
            finally:
                _leave(folder, made)
            return


def is_at(path: Path, descriptor: int) -> bool:
    """Return whether a path still names the file that was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _leave(folder: Path, made: bool) -> None:
    """Take the lock away from a folder into which nothing was written, and the folder too if it was made for that."""
    if [path.name for path in folder.iterdir()] == [LOCK]:
        (folder / LOCK).unlink()
        if made:
            folder.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
