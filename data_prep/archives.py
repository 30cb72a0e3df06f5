"""Read zip archives, whole or in the part files in which they are distributed, in place: never joined on the disk."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from threading import Lock
from typing import Any
from zipfile import BadZipFile, ZipFile, ZipInfo

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import check_ordinary

DENSEST, FREE = 50, 2**26  # bytes that one of an archive may become, for recordings are noise; and what any may hold
HEADER = b"PK\3\4"  # what every member of a zip begins with
PART = re.compile(r"(.+_part)([a-z]{2})$")


class Joined(io.RawIOBase):
    """Files that are read as if they were one."""

    def __init__(self, paths: Sequence[str]):
        for path in paths:
            check_ordinary(path)
        self.files = [open(path, "rb", buffering=0) for path in paths]
        self.ends = list(accumulate(os.fstat(file.fileno()).st_size for file in self.files))
        self.place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = offset + (0, self.place, self.ends[-1])[whence]
        if self.place < 0:
            raise OSError("before the beginning of the file")
        return self.place

    def readinto(self, buffer: Any) -> int:
        part = self.part(self.place)
        if part == len(self.files):
            return 0
        left = self.ends[part] - self.place
        self.files[part].seek(-left, os.SEEK_END)
        count = self.files[part].readinto(memoryview(buffer)[:left]) or 0
        self.place += count
        return count

    def part(self, place: int) -> int:
        """Return the number of the file that holds a place."""
        return bisect_right(self.ends, place)

    def close(self) -> None:
        for file in self.files:
            file.close()
        super().close()


class Archive:
    """A zip in one file or in parts; `members` in their order in it."""

    def __init__(self, parts: Sequence[str]):
        self.parts = parts
        self.joined = Joined(parts)
        self.buffer = io.BufferedReader(self.joined, 1 << 16)
        self.lock = Lock()
        try:
            self.zip = ZipFile(self.buffer)
        except (BadZipFile, ValueError, NotImplementedError, struct.error):
            fault = "the zip has no end: cut short, or no zip"
            if PART.match(parts[-1]):
                fault += f", or {_following(parts[-1])} is missing"
            raise self._incomplete(parts[-1], fault) from None
        members = (info for info in self.zip.infolist() if not info.is_dir())
        self.members = sorted(members, key=lambda info: info.header_offset)
        self._refuse_bomb(sum(info.file_size for info in self.members), self.joined.ends[-1])
        lost = -self.members[0].header_offset if self.members else 0
        if lost > 0:
            raise self._incomplete(parts[self._cut(lost)], f"cut short by {lost:,} bytes")

    def read(self, info: ZipInfo) -> bytes:
        """Read a member's content; an InputError names the part that is damaged."""
        self._refuse_bomb(info.file_size, info.compress_size)
        try:
            with self.lock:
                return self.zip.read(info)
        except (BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError, struct.error) as error:
            part = self.parts[min(self.joined.part(info.header_offset), len(self.parts) - 1)]
            raise InputError(f"{part}: damaged at {info.filename}: {error}") from None

    def _refuse_bomb(self, claimed: int, held: int) -> None:
        """Refuse what claims to become far more than recordings can: it would fill the memory, or the disk."""
        if claimed > DENSEST * held + FREE:
            raise InputError(f"{self.parts[0]}: claims to hold {claimed:,} bytes in {held:,}: no archive of recordings")

    def _incomplete(self, part: str, fault: str) -> InputError:
        """Return what to say of a part, unless another is shorter than it can be: all but the last are of one size."""
        sizes = [end - begin for begin, end in zip([0, *self.joined.ends], self.joined.ends)]
        for other, size in zip(self.parts[:-1], sizes):
            if size < max(sizes):
                part, fault = other, f"cut short: {size:,} bytes, others have {max(sizes):,}"
        return InputError(f"{part}: {fault}: download it again")

    def _cut(self, lost: int) -> int:
        """Find the part that bytes are missing from: members after the cut lie earlier than their place."""

        def moved(info: ZipInfo) -> bool:
            self.buffer.seek(info.header_offset + lost)
            return self.buffer.read(len(HEADER)) != HEADER

        at = bisect_left(self.members, True, key=moved)
        return self.joined.part(self.members[at - 1].header_offset + lost) if at else 0


def group(paths: Sequence[str]) -> list[list[str]]:
    """Group the paths of zips and of parts by archive, in order; raise InputError where a part is missing.

    >>> group(["a/x.zip", "a/y_partab", "a/y_partaa"])
    [['a/x.zip'], ['a/y_partaa', 'a/y_partab']]
    """
    groups: dict[str, list[str]] = {}
    for path in sorted(paths):
        match = PART.match(path)
        groups.setdefault(match[1] if match else path, []).append(path)
    for stem, parts in groups.items():
        wanted = stem + "aa"
        for path in parts if PART.match(parts[0]) else []:
            if path != wanted:
                raise InputError(f"{wanted}: this part is missing, but {path} is there: download it too")
            wanted = _following(path)
    return list(groups.values())


def _following(part: str) -> str:
    first, second = part[-2], part[-1]
    return part[:-2] + (first + chr(ord(second) + 1) if second != "z" else chr(ord(first) + 1) + "a")
