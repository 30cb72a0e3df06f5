"""Files that are whole or absent."""

from __future__ import annotations

import csv
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sv_ssl.core.errors import InputError

LOCK = ".lock"
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
OTHER_KINDS = {
    stat.S_IFIFO: "a FIFO: write what comes from it into a file, and name that",
    stat.S_IFSOCK: "a socket: write what comes from it into a file, and name that",
    stat.S_IFCHR: "a device: copy what it holds into a file, and name that",
    stat.S_IFBLK: "a device: copy what it holds into a file, and name that",
    stat.S_IFDIR: "a folder: name a file in it",
}


def first_few(items: Iterable[str], most: int = 10, separator: str = ", ") -> str:
    """Return the first few items, as a message shows them.

    >>> first_few("abc", most=2)
    'a, b, ...'
    """
    items = list(items)
    return separator.join([*items[:most], *["..."] * (len(items) > most)])


def check_ordinary(path: str | os.PathLike) -> None:
    """Refuse to read what is no ordinary file: a FIFO that nobody writes to waits for ever, a device never ends.

    A link is what it leads to. What is absent or out of reach passes: `open` says so best.

    >>> check_ordinary("/dev/null")
    Traceback (most recent call last):
    ...
    sv_ssl.core.errors.InputError: /dev/null: wanted an ordinary file, this is a device: ...
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):  # a name with a zero byte
        return
    if kind != stat.S_IFREG:
        other = OTHER_KINDS.get(kind, "of another kind")
        raise InputError(f"{os.fspath(path)}: wanted an ordinary file, this is {other}")


def read_text(path: str | os.PathLike, what: str, at_most: int = 2**20) -> str:
    """Return the text of an ordinary file; `what` says what is wanted of it, in UTF-8 and `at_most` bytes."""
    check_ordinary(path)
    try:
        with open(path, "rb") as file:
            content = file.read(at_most + 1)
        if len(content) > at_most:
            raise InputError(f"cannot read {path}: more than {at_most:,} bytes: wanted {what}")
        return content.decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: {error}: wanted {what} in UTF-8") from error


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


def write_table(path: str | os.PathLike, rows: Iterable[Iterable[object]], end: str = "\r\n") -> None:
    """Write a table for people: a spreadsheet runs none of its cells as a formula.

    Tables that programs read back, such as manifests, keep every cell as it is and are not written here.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/a.csv"
    >>> write_table(path, [("wav", "change"), ("=HYPERLINK(0)", -0.5)])
    >>> print(Path(path).read_text(), end="")
    wav,change
    '=HYPERLINK(0),-0.5
    """
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file, lineterminator=end).writerows([plain(cell) for cell in row] for row in rows)


def plain(cell: object) -> object:
    """Return a cell with an apostrophe before what a spreadsheet would take for a formula; numbers stay.

    >>> [plain(cell) for cell in ("=1+1", "-x.wav", "-0.5", "-", -1)]
    ["'=1+1", "'-x.wav", '-0.5', '-', -1]
    """
    if not isinstance(cell, str) or len(cell) < 2 or not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


@contextmanager
def exclusive(folder: str | os.PathLike, what: str, option: str) -> Iterator[None]:
    """Hold a folder for this process alone: a second one that works in it would write over it and is refused.

    >>> import tempfile
    >>> with exclusive(tempfile.mkdtemp(), "a run", "--output_folder"):
    ...     pass
    """
    folder = Path(folder)
    with _held(folder / LOCK, f"into {folder}", wait=False) as (got, made):
        if not got:
            raise InputError(f"{what} is running in {folder} already: wait for it, or name another {option}")
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [LOCK]:
                _take_away(folder / LOCK, made)


@contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Wait until no other process reads, changes and writes this file, and keep others waiting meanwhile.

    >>> import tempfile
    >>> with locked(tempfile.mkdtemp() + "/staff.index"):
    ...     pass
    """
    lock = Path(path).parent / f".{Path(path).name}.lock"
    with _held(lock, os.fspath(path), wait=True) as (_, made):
        try:
            yield
        finally:
            _take_away(lock, made)


@contextmanager
def _held(lock: Path, target: str, wait: bool) -> Iterator[tuple[bool, bool]]:
    """Hold a lock; yield whether it was got, as it is with `wait`, and whether a folder was made for it."""
    import fcntl  # Linux and macOS have it

    made = not lock.parent.exists()
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = open(lock, "w")
        except OSError as error:
            raise InputError(f"cannot write {target}: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                got = True
            except BlockingIOError:
                got = False
            if got and not _is_at(lock, file.fileno()):
                continue  # whoever held it before has just taken it away
            yield got, made
            return


def _is_at(path: Path, descriptor: int) -> bool:
    """Return whether a path still names the file that was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _take_away(lock: Path, made: bool) -> None:
    """Delete a lock, and the folder too if it was made for that and nothing was written into it."""
    lock.unlink(missing_ok=True)
    if made and not any(lock.parent.iterdir()):
        lock.parent.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
