"""The text of a trial list and its lines as arrays: the plain way, which names every fault.

`sv_ssl.verification.trial_lines_fast` makes the same arrays of large files without faults.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import os
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import check_ordinary
from sv_ssl.verification.columns import WANTED, Layout, fault, quoted, split

RATIO = 100  # of a gzip file's text to its own size: lists have 5 to 30
BLOCK = 1 << 24  # bytes read into lines at once
SHOWN = 10  # bad lines named in one message


def read_text(path: str | os.PathLike, wanted: str = WANTED) -> tuple[str, bytes, str]:
    """Return a file's name, its unpacked text with plain line ends, and the sha1 of it before; "-": standard input.

    `wanted` says in messages what lines a file should have.
    """
    name = "standard input" if str(path) == "-" else str(path)
    data = _unpacked(path, name)
    _check_utf8(name, data, wanted)
    if b"\0" in data:
        raise InputError(f"{name}: a binary file: {wanted}")
    sha1 = hashlib.sha1(data).hexdigest()
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return name, data, sha1


def _unpacked(path: str | os.PathLike, name: str) -> bytes:
    """Read a file or standard input, and unpack it if it is gzip."""
    if str(path) == "-" and sys.stdin is None:
        raise InputError("standard input is closed: give a file, or a list through a pipe")
    if str(path) != "-":
        check_ordinary(path)
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
        return _decompressed(data, name) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{name}: a damaged gzip file: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None


def _decompressed(data: bytes, name: str) -> bytes:
    """Unpack gzip; a list is text, which becomes no more than so many times smaller."""
    most = RATIO * len(data) + BLOCK
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        unpacked = file.read(most + 1)
    if len(unpacked) > most:
        raise InputError(f"{name}: a gzip file that unpacks to more than {RATIO} times its size: no list does")
    return unpacked


def _check_utf8(name: str, data: bytes, wanted: str) -> None:
    """Raise InputError with the line where the text is not UTF-8; block by block, so that nothing large is decoded."""
    if data.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), BLOCK):
        try:
            decoder.decode(data[start : start + BLOCK], final=start + BLOCK >= len(data))
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, max(0, start + error.start)) + 1
            raise InputError(f"{name}:{line}: not UTF-8 text: {wanted}") from None


class TrialText:
    """The lines of a text that are neither blank nor comments, in blocks: ten million are never held at once."""

    def __init__(self, name: str, data: bytes, start: int = 0, number: int = 1):
        self.name = name
        self.data = data
        self.start = start  # where the first line to read begins
        self.number = number  # of that line

    def blocks(self, size: int = BLOCK) -> Iterator[list[tuple[int, bytes]]]:
        """Yield blocks of lines, each with its number in the file."""
        start, number = self.start, self.number
        while start < len(self.data):
            end = self.data.find(b"\n", start + size)
            every = self.data[start : end if end >= 0 else len(self.data)].split(b"\n")
            lines = [(i, text) for i, text in enumerate(every, number) if text.strip() and text[:1] != b"#"]
            if lines:
                yield lines
            start, number = end + 1 if end >= 0 else len(self.data), number + len(every)

    def first(self, count: int) -> list[tuple[int, bytes]]:
        """Return the first `count` lines, or as many as there are; an InputError if there is none."""
        lines: list[tuple[int, bytes]] = []
        for block in self.blocks(1 << 16):
            lines += block
            if len(lines) >= count:
                break
        if not lines:
            raise InputError(f"{self.name}: no trials, the file is empty: {WANTED}")
        return lines[:count]

    def after_line(self, number: int) -> TrialText:
        """Return the text below a line of names; an InputError if nothing is below it."""
        start = 0
        for _ in range(number):
            start = self.data.find(b"\n", start) + 1 or len(self.data)
        below = TrialText(self.name, self.data, start, number + 1)
        if not next(below.blocks(), None):
            raise InputError(f"{self.name}: no trials, only a line of names")
        return below

    def bad_lines(self, fault_of: Callable[[int, bytes], str]) -> InputError:
        """Return the error that names the bad lines: `fault_of(i, text)` says what is wrong with line i, "" if none."""
        shown: list[str] = []
        bad = i = 0
        for number, text in (line for block in self.blocks() for line in block):
            if reason := fault_of(i, text):
                bad += 1
                if bad <= SHOWN:
                    shown.append(f"{number}: {reason}: {quoted(text)}")
            i += 1
        if bad == 1:
            return InputError(f"{self.name}:{shown[0]}")
        head = f"{self.name}: {bad:,} bad lines of {i:,}, nothing was scored"
        return InputError("\n  line ".join([head, *shown]))


# --- the arrays ------------------------------------------------------------------------------------------------------


class Lines(NamedTuple):
    """What N lines over U utterances hold."""

    ids: list[str]  # U, in the order in which they come
    enroll: np.ndarray  # (N,) int32, into ids
    test: np.ndarray  # (N,) int32, into ids
    labels: np.ndarray | None  # (N,) bool
    scores: np.ndarray | None  # (N,) float64
    columns: dict[str, list[str]]  # N values of each further column that was asked for


def parse(text: TrialText, layout: Layout, keep: Sequence[str]) -> Lines:
    """Read all lines, with the further columns `keep`; bad lines are an InputError that names them."""
    number: defaultdict[bytes, int] = defaultdict()
    number.default_factory = number.__len__  # a new utterance gets the next number: one look-up each
    read: dict[str, list] = {name: [] for name in ("enroll", "test", "label", "score", *keep) if name in layout.names}
    try:
        for block in text.blocks():
            _read_block(_columns([line for _, line in block], layout), number, read, layout, keep)
    except (KeyError, ValueError):
        raise text.bad_lines(lambda i, line: fault(line, layout)) from None
    labels = np.concatenate(read["label"]) if "label" in read else None
    scores = np.concatenate(read["score"]) if "score" in read else None
    if b"" in number or (scores is not None and np.isnan(scores).any()):
        raise text.bad_lines(lambda i, line: fault(line, layout))
    ids = [utterance.decode() for utterance in number]
    sides = np.concatenate(read["enroll"]), np.concatenate(read["test"])
    return Lines(ids, *sides, labels, scores, {name: read[name] for name in keep})


def _read_block(
    columns: dict[str, list[bytes]],
    number: defaultdict[bytes, int],
    read: dict[str, list],
    layout: Layout,
    keep: Sequence[str],
) -> None:
    """Append a block's values to those read before; KeyError or ValueError if one is not as the layout says."""
    for side in ("enroll", "test"):
        read[side].append(np.fromiter(map(number.__getitem__, columns[side]), np.int32))
    if "label" in read:
        read["label"].append(np.array([layout.vocabulary[value] for value in columns["label"]]))
    if "score" in read:
        read["score"].append(np.array([float(value) for value in columns["score"]]))
    for name in keep:
        read[name] += [value.decode() for value in columns[name]]


def _columns(texts: list[bytes], layout: Layout) -> dict[str, list[bytes]]:
    """Split lines into the columns of a layout; ValueError where a line has more or fewer."""
    fields: list[bytes] = []  # one flat list: a list a line would keep the garbage collector busy
    for text in texts:
        row = split(text, layout.separator)
        if len(row) != len(layout.names):
            raise ValueError("widths differ")
        fields += row
    return {name: fields[i :: len(layout.names)] for i, name in enumerate(layout.names)}
