"""Find VoxCeleb where it lies: utterances in trees and archives, each name once, and the lists beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipInfo

from data_prep import Problem
from data_prep.archives import Archive, group
from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.core.tree import walk
from sv_ssl.data import scan

FIRST = 10_001  # VoxCeleb1's first speaker; VoxCeleb2's have lower numbers
ARCHIVE = re.compile(r"vox[^/]*(\.zip|_part[a-z]{2})$")
LIST = re.compile(r"(veri|list)_test[^/]*\.txt$")
UNNAMED = "not named id00000/session/utterance"
SUFFIXES = (*audio.AUDIO_SUFFIXES, ".m4a")


class Found(NamedTuple):
    """An utterance where it lies: a file, or a member of an archive."""

    name: str  # id10001/session/00001, without an ending
    path: str  # or of the member, inside the archive
    archive: Archive | None = None
    member: ZipInfo | None = None

    def size(self) -> int:
        return self.member.file_size if self.member else os.path.getsize(self.path)

    def coded(self) -> bool:
        """Tell whether it has to be decoded."""
        return self.path.lower().endswith(".m4a")

    def place(self) -> str:
        return f"{self.archive.parts[0]}: {self.path}" if self.archive else self.path


class Sources:
    """What the folders hold: utterances by name, each once, and the files beside them."""

    def __init__(self, out: Path):
        self.out = out
        self.utterances: dict[str, Found] = {}
        self.hints: dict[str, set[str]] = {}  # speaker -> "dev", "test" or "", by the folders
        self.archives: list[str] = []
        self.lists: list[str] = []
        self.inventories: list[str] = []
        self.metas: list[str] = []
        self.problems: list[Problem] = []
        self.copies = 0
        self.here = ("", "", "", "")  # the folder that was read last, its speaker, session and hint

    def add_file(self, entry: os.DirEntry, folder: str) -> None:
        """Sort in a file; `folder` is where it lies from the source's own name on, by which dev and test are told."""
        path, file = entry.path, entry.name
        if file.lower().endswith(SUFFIXES):
            if entry.is_symlink() and not os.path.exists(path):
                if not self._ours(path):
                    self.problems.append(Problem("", path, "a link to nothing"))
            elif not self.add(folder, file, path):
                self.problems.append(Problem("", path, UNNAMED))
        elif ARCHIVE.match(file):
            self.archives.append(path)
        elif LIST.match(file):
            self.lists.append(path)
        elif file in ("iden_split.txt", "train_list.txt"):
            self.inventories.append(path)
        elif file in ("vox1_meta.csv", "vox2_meta.csv"):
            self.metas.append(path)

    def add_archive(self, archive: Archive) -> None:
        """Sort in the members of an archive that are audio."""
        stem = os.path.basename(archive.parts[0])
        for member in archive.members:
            folder, _, file = f"{stem}/{member.filename}".rpartition("/")
            if file.lower().endswith(SUFFIXES) and not self.add(folder, file, member.filename, archive, member):
                self.problems.append(Problem("", f"{stem}: {member.filename}", UNNAMED))

    def add(
        self, folder: str, file: str, path: str, archive: Archive | None = None, member: ZipInfo | None = None
    ) -> bool:
        """Take an utterance, or the better of two of one name; False if it is not named like one."""
        if folder != self.here[0]:  # the next session
            self.here = folder, *self._session(folder)
        _, speaker, session, hint = self.here
        if not speaker:
            return False
        found = Found(f"{speaker}/{session}/{file[: file.rindex('.')]}", path, archive, member)
        self.hints.setdefault(speaker, set()).add(hint)
        other = self.utterances.setdefault(found.name, found)
        if other is not found:
            self.utterances[found.name] = self._better(found, other)
        return True

    def _session(self, folder: str) -> tuple[str, str, str]:
        """Return speaker, session and "dev", "test" or "" by the folders above; all empty if not VoxCeleb's."""
        match = scan.VOXCELEB.search(f"{folder}/file")
        if not match or match[3] in (".", ".."):  # of an archive: its file would lie elsewhere
            return "", "", ""
        hints = re.findall(r"(?:^|[/_.-])(dev|test)(?=[/_.-])", folder[: match.start(1)].lower())
        return match[2], match[3], hints[-1] if hints else ""

    def _better(self, first: Found, second: Found) -> Found:
        """Take what libsndfile reads, what is in its place already, the longer file; report the other unless equal."""
        if first.coded() != second.coded():
            return second if first.coded() else first
        if not first.archive and not second.archive and os.path.samefile(first.path, second.path):
            return min(first, second, key=lambda found: (not self._ours(found.path), found.path))
        best, other = sorted(
            (first, second), key=lambda found: (not self._fixed(found), -found.size(), bool(found.archive), found.path)
        )
        self.copies += best.size() == other.size()
        if best.size() != other.size():
            problem = f"of another size than {best.place()}, which was taken"
            self.problems.append(Problem(title(best.name), other.place(), problem))
        return best

    def _ours(self, path: str) -> bool:
        return path.startswith((f"{self.out}/wav/", f"{self.out}/voxceleb2/"))

    def _fixed(self, found: Found) -> bool:
        return not found.archive and self._ours(found.path) and not os.path.islink(found.path)


def title(name: str) -> str:
    """Return the corpus of an utterance or a speaker.

    >>> title("id10270/5r0dWxy17C8/00001"), title("id00012")
    ('VoxCeleb1', 'VoxCeleb2')
    """
    return "VoxCeleb1" if int(name[2:7]) >= FIRST else "VoxCeleb2"


def look(folders: Sequence[str | os.PathLike], out: Path, stack: ExitStack) -> Sources:
    """Sort in everything below the folders and in their archives, which stay open as long as `stack`."""
    found = Sources(out)
    for folder in _roots(folders):
        above = len(os.path.dirname(folder))
        for entry in walk(folder):
            found.add_file(entry, entry.path[above : -len(entry.name) - 1].lstrip("/"))
    for parts in group(found.archives):
        archive = Archive(parts)
        stack.callback(archive.joined.close)
        found.add_archive(archive)
    if not found.utterances:
        raise InputError(f"{folders[0]}: neither VoxCeleb's archives nor files such as id10001/session/00001.wav in it")
    return found


def _roots(folders: Sequence[str | os.PathLike]) -> list[str]:
    """Return the folders as whole paths, without those that lie in another of them."""
    real = {os.path.realpath(folder): os.path.abspath(folder) for folder in reversed(folders)}
    return [
        path
        for place, path in reversed(real.items())
        if not any(other != place and os.path.commonpath([other, place]) == other for other in real)
    ]
