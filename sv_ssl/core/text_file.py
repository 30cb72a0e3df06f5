"""Text files that others have written: lists, tables, turns. Never more of one is in memory than a line may have."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import nullcontext
from io import StringIO
from itertools import chain
from typing import TextIO

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import check_ordinary

LONGEST = 2**20  # characters of a line, or of a row of a table


def lines(path: str | os.PathLike, file: TextIO | None = None) -> Iterator[str]:
    """Yield the lines of a file of UTF-8 text, or of one that is open already, each with its end.

    What cannot be read, is no text, or has a line that is longer than any list's is an InputError.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/a.txt"
    >>> _ = open(path, "wb").write(b"one\\r\\ntwo")
    >>> list(lines(path))
    ['one\\n', 'two']
    """
    for block in _blocks(path, file):
        yield from StringIO(block, newline=None)


def csv_rows(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV, each with the number of its last line.

    A byte order mark, CRLF, blanks after commas and blank lines are taken as they come.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/a.csv"
    >>> _ = open(path, "w").write('ID, wav\\n1,"a, b.wav"\\n')
    >>> list(csv_rows(path))
    [(1, ['ID', 'wav']), (2, ['1', 'a, b.wav'])]
    """
    ended = 0  # the line on which the last row has ended

    def blocks() -> Iterator[StringIO]:
        before, taken = 0, 0
        for block in _blocks(path):
            taken = taken + len(block) if ended == before else len(block)
            if taken > 3 * LONGEST:  # a block has up to two
                raise csv.Error(f"a row of more than {LONGEST:,} characters")
            before = ended
            yield StringIO(block, newline="")

    reader = csv.reader(chain.from_iterable(blocks()), skipinitialspace=True, strict=True)
    try:
        for row in reader:
            ended = reader.line_num
            if row:
                yield ended, row
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV: {error}: is a quotation mark not closed?") from None


def _blocks(path: str | os.PathLike, file: TextIO | None = None) -> Iterator[str]:
    """Yield the text in pieces of whole lines, whose ends stay as they are."""
    number, rest = 0, ""
    try:
        if file is None:
            check_ordinary(path)
        with nullcontext(file) if file else open(path, encoding="utf-8-sig", newline="") as text:
            while chunk := text.read(LONGEST):
                if "\0" in chunk:
                    raise InputError(f"{path}: not UTF-8 text: a zero byte, somewhere after line {number}")
                block = rest + chunk
                end = block.rfind("\n") + 1 or block.rfind("\r", 0, -1) + 1
                number += block.count("\n", 0, end)
                if len(block) - end > LONGEST:
                    raise InputError(f"{path}:{number + 1}: a line of more than {LONGEST:,} characters, as no list has")
                rest = block[end:]
                yield block[:end]
        yield rest
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text, somewhere after line {number}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
