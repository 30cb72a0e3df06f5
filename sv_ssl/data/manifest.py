"""Read, check and write manifests: CSV files of utterances, `ID,duration,wav,start,stop,spk_id` and others.

`start` and `stop` are samples at the file's own rate, `duration` is the segment's length in seconds, and `wav` is
absolute, relative to the data root (the CSV's folder unless said otherwise), or begins with `$data_root`. `spk_id` may
be absent.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from sv_ssl.core.errors import InputError, printable
from sv_ssl.core.files import atomic_write
from sv_ssl.core.text_file import csv_rows

COLUMNS = ("ID", "duration", "wav", "start", "stop", "spk_id")
NEEDED = COLUMNS[:5]
SHOWN = 10  # bad lines that one message lists
CHUNK = 256  # lines taken at a time
NAMES = ("ID", "wav", "spk_id")


def read(path: str | os.PathLike, data_root: str | os.PathLike | None = None) -> pd.DataFrame:
    """Read a CSV -> a row an utterance: `duration` float64, `start` and `stop` int64, all else text; `wav` is absolute.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "train.csv"
    >>> _ = path.write_text("ID,duration,wav,start,stop,spk_id\\na,2.0,$data_root/a.wav,0,32000,anna\\n")
    >>> list(read(path, data_root="/data").itertuples(index=False, name=None))
    [('a', 2.0, '/data/a.wav', 0, 32000, 'anna')]
    """
    root = os.path.abspath(data_root if data_root is not None else Path(path).parent)
    columns = _columns(path)
    if columns is None:
        raise InputError(_complaint(path))
    columns["wav"] = [resolve(wav, root) for wav in columns["wav"]]
    frame = pd.DataFrame(columns)
    frame.attrs["data_root"] = root
    return frame


def write(frame: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write a manifest that `read` accepts: the known columns first, then the others; `wav` as it stands.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/one.csv"
    >>> write(pd.DataFrame({"ID": ["a"], "duration": [0.5], "wav": ["/a.wav"], "start": [0], "stop": [8000]}), path)
    >>> print(Path(path).read_text().strip())
    ID,duration,wav,start,stop
    a,0.5,/a.wav,0,8000
    """
    _check_header(path, list(frame.columns))
    known = [column for column in COLUMNS if column in frame]
    others = [column for column in frame.columns if column not in COLUMNS]
    with atomic_write(path) as temporary:
        frame[known + others].to_csv(temporary, index=False, lineterminator="\n")


def resolve(wav: str, data_root: str | os.PathLike) -> str:
    """Turn a manifest's `wav` into the file's path.

    >>> resolve("$data_root/a.wav", "/data"), resolve("b/a.wav", "/data"), resolve("/c/a.wav", "/data")
    ('/data/a.wav', '/data/b/a.wav', '/c/a.wav')
    """
    root = os.fspath(data_root)
    return wav.replace("$data_root", root) if "$data_root" in wav else os.path.join(root, wav)


def _check_header(path: str | os.PathLike, header: list[str]) -> None:
    missing = [column for column in NEEDED if column not in header]
    twice = sorted(column for column, count in Counter(header).items() if count > 1)[:3]
    if missing or twice:
        fault = f"no column {_quoted(missing)}" if missing else f"column {_quoted(twice)} twice"
        raise InputError(
            f"{path}:1: {fault}: want the header {','.join(NEEDED)}[,spk_id][,others], "
            f"got {','.join(header)[:200] or 'nothing'}"
        )


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _columns(path: str | os.PathLike) -> dict | None:
    """Return the columns by name, or None where any line is bad: all lines are checked at once, for speed."""
    rows = csv_rows(path)
    _, header = next(rows, (0, []))
    _check_header(path, header)
    texts: list[list[str]] = [[] for _ in header]
    while block := [row for _, row in islice(rows, CHUNK)]:  # short, for many rows at once are slow to turn round
        if set(map(len, block)) != {len(header)}:
            return None
        for text, values in zip(texts, zip(*block)):
            text.extend(values)
    if not texts[0]:
        raise InputError(f"{path}: no utterances below the header")
    return _typed(dict(zip(header, texts)), len(texts[0]))


def _typed(columns: dict, n: int) -> dict | None:
    """Turn the texts of n lines into numbers where numbers are wanted; None where any line is bad."""
    try:
        duration, start, stop = (
            np.fromiter(map(kind, columns[name]), kind, n)
            for name, kind in (("duration", float), ("start", int), ("stop", int))
        )
    except (ValueError, OverflowError):
        return None
    good = np.isfinite(duration).all() and duration.min() > 0 and start.min() >= 0 and (stop > start).all()
    filled = all(all(texts) and not breaks_line("".join(texts)) for texts in map(columns.get, NAMES) if texts)
    columns.update(duration=duration, start=start, stop=stop)
    return columns if good and filled and len(set(columns["ID"])) == n else None


def _complaint(path: str | os.PathLike) -> str:
    """Describe the bad lines of a manifest that has some, the first ten in words."""
    rows = csv_rows(path)
    _, header = next(rows)
    seen: dict[str, int] = {}
    faults = ((number, _fault(header, row, seen, number)) for number, row in rows)
    bad = (f"{path}:{number}: {fault}" for number, fault in faults if fault)
    shown = list(islice(bad, SHOWN))
    more = sum(1 for _ in bad)
    return printable("; ".join(shown)) + (f"; and {more} more: {len(shown) + more} bad lines in all" if more else "")


def _fault(header: list[str], row: list[str], seen: dict[str, int], number: int) -> str | None:
    """Say what is wrong with a line, or return None; `seen` holds the line of each ID so far."""
    if len(row) != len(header):
        return f"{len(row)} fields, want {len(header)} ({','.join(header)[:200]})"
    fields = dict(zip(header, row))
    for column in NAMES:
        if fields.get(column) == "":
            return f'column "{column}" is empty'
        if breaks_line(fields.get(column, "")):
            return f'column "{column}" is {_short(fields[column])!r}, which has a line break'
    if not is_number(float, fields["duration"]) or not 0 < float(fields["duration"]) < np.inf:
        return f'column "duration" is "{_short(fields["duration"])}", want a positive number of seconds'
    for column in ("start", "stop"):
        if not is_number(int, fields[column]) or not 0 <= int(fields[column]) < 2**63:
            return f'column "{column}" is "{_short(fields[column])}", want a whole number of samples'
    if int(fields["stop"]) <= int(fields["start"]):
        return f'column "stop" is {fields["stop"]}, want more than "start", {fields["start"]}'
    key, first = _short(fields["ID"]), seen.setdefault(fields["ID"], number)
    return None if first == number else f'column "ID" is "{key}", as on line {first}: want each ID once'


def breaks_line(name: str) -> bool:
    """Tell whether a name has what none must have, since names are written one a line."""
    return "\n" in name or "\r" in name or "\0" in name


def name_fault(name: str) -> str:
    r"""Say why a manifest cannot hold a name, or return "".

    >>> name_fault("a b.wav"), name_fault("a\nb.wav"), name_fault("caf\udce9.wav")
    ('', 'has a line break', 'is not UTF-8 text')
    """
    if breaks_line(name):
        return "has a line break"
    return "is not UTF-8 text" if name.encode(errors="replace").decode() != name else ""


def _short(text: str) -> str:
    return text if len(text) < 90 else f"{text[:90]}..."


def is_number(kind: Callable, text: str) -> bool:
    """Tell whether `kind`, int or float, can read a text."""
    try:
        kind(text)
    except ValueError:
        return False
    return True
