"""What a manifest says of the utterances of a trial list, read without pandas: any CSV or TSV with ids will do."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import check_ordinary, first_few

Rows = Iterator[tuple[int, list[str]]]  # numbers of lines, their fields
Keys = Callable[[list[str]], Iterable[str]]  # the names that a row answers to


def read_manifest(path: str | os.PathLike, ids: Sequence[str]) -> dict[str, list[str]]:
    """Read the columns of a manifest, or of a CSV or TSV with a line of names and the id first: U ids -> U values each.

    An id is a row's id, or its `wav` (without `$data_root/`), or else the end of its `wav` after a slash. An id without
    a row, or with several, is an InputError.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/test.csv"
    >>> with open(path, "w") as file:
    ...     _ = file.write("ID,wav,gender\\n1,$data_root/wav/anna/1.wav,f\\n2,$data_root/wav/otto/1.wav,m\\n")
    >>> read_manifest(path, ["otto/1.wav", "1"])["gender"]
    ['m', 'f']
    """
    header, first = _head(path, set(ids))
    at = _id_column(header)
    rows: dict[str, list[str]] = {}
    for keys in _keys(header, at):
        rows.update(_matches(path, set(ids).difference(rows), keys))
        if rows.keys() >= set(ids):
            return {name: [rows[i][column] for i in ids] for column, name in enumerate(header)}
    lost = [i for i in dict.fromkeys(ids) if i not in rows]
    wanted = f'whose "{header[at]}" is the id'
    if "wav" in header:
        wanted += ', or whose "wav" ends with it'
    raise InputError(
        f"{path}: {len(lost):,} of {len(ids):,} utterances have no row: {first_few(lost)}; "
        f"wanted a row {wanted}; the first row here is {','.join(first)[:200]!r}"
    )


def _head(path: str | os.PathLike, ids: set[str]) -> tuple[list[str], list[str]]:
    """Return the line of names and the first row; InputError if either is missing."""
    header, *first = (row for _, row in islice(_rows(path), 2))
    named = "".join(header).isprintable() and len(set(header)) == len(header) > 1
    if named and not first:
        raise InputError(
            f"{path}: no rows below its line of names, {','.join(header)[:200]!r}; wanted it, then a row an utterance"
        )
    if not named or header[_id_column(header)] in ids:
        wanted = "wanted a line of different names, such as `ID,duration,wav,start,stop,spk_id,gender` or `id,gender`"
        raise InputError(f"{path}: {wanted}, then a row an utterance; it begins with {','.join(header)[:200]!r}")
    return header, first[0]


def _id_column(header: list[str]) -> int:
    return header.index("ID") if "ID" in header else 0


def _keys(header: list[str], at: int) -> Iterator[Keys]:
    """Yield the ways to name a row: by its id, by its path, by the ends of its path."""
    yield lambda row: [row[at]]
    if "wav" in header:
        wav = header.index("wav")
        yield lambda row: [row[wav].removeprefix("$data_root/")]
        yield lambda row: [row[wav][slash.end() :] for slash in re.finditer("/", row[wav])]


def _matches(path: str | os.PathLike, ids: set[str], keys: Keys) -> dict[str, list[str]]:
    """Return the row of each id that is among a row's keys; an id with several rows is an InputError."""
    matches: dict[str, list[tuple[int, list[str]]]] = {}
    for number, row in _rows(path):
        for key in ids.intersection(keys(row)):
            matches.setdefault(key, []).append((number, row))
    several = [f"{key} (lines {first_few(str(n) for n, _ in rows)})" for key, rows in matches.items() if len(rows) > 1]
    if several:
        raise InputError(
            f"{path}: {len(several):,} of the {len(ids):,} utterances have more than one row: "
            f"{first_few(several)}; wanted one for each"
        )
    return {key: rows[0][1] for key, rows in matches.items()}


def _rows(path: str | os.PathLike) -> Rows:
    """Yield the rows of a CSV, or of a TSV if its first line has a tab; refuse those of another width at the end."""
    check_ordinary(path)
    width, bad, number = 0, [], 0
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            delimiter = "\t" if "\t" in file.readline() else ","
            file.seek(0)
            for row in (reader := csv.reader(file, delimiter=delimiter, skipinitialspace=True)):
                number, row = reader.line_num, [field.strip() for field in row]
                if not any(row):
                    continue
                width = width or len(row)
                if len(row) == width:
                    yield number, row
                else:
                    bad.append(f"line {number}: {len(row)} fields where {width} are expected: {','.join(row)[:80]!r}")
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV in UTF-8, somewhere after line {number}: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if bad:
        raise InputError(f"{path}: {len(bad):,} bad rows: {first_few(bad, separator='; ')}")
    if not width:
        raise InputError(f"{path}: the file is empty")
