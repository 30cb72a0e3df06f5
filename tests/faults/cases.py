"""A command, what it found and what it leaves: run whole once, then with faults, each time in a folder of its own."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from sv_ssl.core.errors import InputError
from tests.faults.commands import COMMANDS, INPUTS
from tests.faults.server import Ran, Server
from tests.fuzz.formats import fault_of

PAGE = 4096  # bytes
CACHE = "cache"  # of the runs; what it loses is made again


class Result(NamedTuple):
    """What a fault led to."""

    fault: Mapping[str, Any]
    states: Mapping[str, str]  # of each output: old, new, none, torn, other
    completed: bool  # the line again did what it should
    leftovers: int  # files that no whole run leaves
    faults: list[str]  # what must not be


class Case:
    """A command on its own ground: what was there before, what a whole run makes of it, and how long that takes."""

    def __init__(self, server: Server, name: str):
        self.server, self.name, self.command = server, name, COMMANDS[name]
        self.ground = server.home / "ground" / name.replace(" ", "-")
        self.ground.mkdir(parents=True)
        (self.ground / INPUTS).symlink_to(server.home / INPUTS)
        if self.command.before:
            ran = server.run(self.ground, self.command.before)
            assert ran.code == 0, f"{self.command.before}: {ran}"
            shutil.rmtree(self.ground / CACHE, ignore_errors=True)
        self.old = self._values(self.ground)
        self.found = files(self.ground)
        with self.copy() as folder:
            self.whole = server.run(folder, self.command.words)
            assert self.whole.code == 0, f"{self.command.words}: {self.whole}"
            self.new = self._values(folder)
            self.left = files(folder)
            self.sizes = sorted({(folder / path).stat().st_size for path in self.left - self.found})
            self.sizes += sorted({(folder / name).stat().st_size for name in self.new if (folder / name).is_file()})
        assert None not in self.new.values(), self.new
        assert not [name for name in self.new if self.new[name] == self.old[name]], "the old one is like the new"

    @contextmanager
    def copy(self, pages: int | None = None) -> Iterator[Path]:
        """Yield a folder that holds what was there before; with `pages` on a disk that has so many left."""
        folder = self.ground.with_name(f"{self.ground.name}-run")
        folder.mkdir()
        try:
            with nullcontext() if pages is None else disk(folder, PAGE * (pages + used(self.ground))):
                shutil.copytree(self.ground, folder, symlinks=True, dirs_exist_ok=True)
                yield folder
        finally:
            shutil.rmtree(folder)

    def _values(self, folder: Path) -> dict[str, Any]:
        return {name: read(folder / name) if there(folder / name) else None
                for name, read in self.command.outputs.items()}  # fmt: skip

    # ------------------------------------------------------------------------------------------------------- faults
    def kills(self, moments: int, seed: int) -> Iterator[dict[str, Any]]:
        """Yield moments of the run's time, every call that changes files, and as many lengths of files."""
        rng = random.Random(f"{self.name} {seed}")
        yield from ({"after": rng.uniform(0, self.whole.seconds)} for _ in range(moments))
        yield from ({"call": call, "how": "kill"} for call in range(1, self.whole.calls + 1))
        yield from ({"bytes": rng.randrange(1, max(self.sizes)), "how": "kill"} for _ in range(moments))

    def full(self) -> Iterator[dict[str, Any]]:
        """Yield lengths beyond which no file can grow, and calls from which on no file can be made."""
        limits = {limit for size in self.sizes for limit in (0, size // 2, size - 1)}
        yield from ({"bytes": limit, "how": "full"} for limit in sorted(limits))
        yield from ({"call": call, "how": "full"} for call in range(1, self.whole.calls + 1))

    def disks(self) -> Iterator[dict[str, Any]]:
        """Yield disks of ever more room; the last ones hold all that a run writes."""
        yield from ({"pages": pages} for pages in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256))

    def killed(self, fault: Mapping[str, Any]) -> Result:
        """Run with a fault that kills, look at what is there, and give the same line again."""
        with self.copy() as folder:
            self.server.run(folder, self.command.words, fault)
            states, faults = self.states(folder)
            again = self.server.run(folder, self.command.words)
            after, more = self.states(folder)
            refused = self.command.once and again.code == 2 and set(states.values()) == {"new"}
            completed = set(after.values()) == {"new"} and (again.code == 0 or refused)
            if not completed:
                faults.append(f"again: exit code {again.code}, {after}, {again.err[-300:]}")
            return Result(fault, states, completed, len(files(folder) - self.left - self.found), faults + more)

    def filled(self, fault: Mapping[str, Any]) -> Result:
        """Run without room: one line is said, what was there before is there, and nothing beside it.

        `pages` of a fault are those that a small disk has left.
        """
        with self.copy(fault.get("pages")) as folder:
            ran = self.server.run(folder, self.command.words, fault)
            return self._judged(folder, ran, fault)

    def _judged(self, folder: Path, ran: Ran, fault: Mapping[str, Any]) -> Result:
        states, faults = self.states(folder)
        if ran.code == 0:
            faults += [f"{name} is {state}" for name, state in states.items() if state != "new"]
        elif ran.code != 2:
            faults.append(f"exit code {ran.code}: {ran.err[-300:]}")
        elif wrong := fault_of(ran.err.removesuffix("\n")):
            faults.append(f"its message has {wrong}: {ran.err[:300]}")
        beside = sorted(files(folder) - self.left - self.found)
        faults += [f"left {path}" for path in beside]
        return Result(fault, states, ran.code == 0, len(beside), faults)

    def states(self, folder: Path) -> tuple[dict[str, str], list[str]]:
        """Return whether each output is the old one or the new, and what is wrong with those that are neither."""
        states, faults = {}, []
        for name, read in self.command.outputs.items():
            try:
                value = read(folder / name) if there(folder / name) else None
            except Exception as error:
                states[name] = "torn"
                if not (self.command.pair and isinstance(error, InputError)):
                    faults.append(f"{name} cannot be read: {type(error).__name__}: {error}")
                continue
            states[name] = self._state(name, value)
            if states[name] not in ("old", "new") and (value is not None or self.old[name] is not None):
                faults.append(f"{name} is {'gone' if value is None else 'neither the old one nor the new'}")
        return states, faults

    def _state(self, name: str, value: Any) -> str:
        if value is None:
            return "none"
        return "new" if value == self.new[name] else "old" if value == self.old[name] else "other"


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a disk of so many bytes in the place of a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, PAGE)}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def why_no_disk(folder: Path) -> str:
    """Return why no disk can be mounted here; nothing where it can."""
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        subprocess.run(["umount", folder], check=True)
    return done.stderr.strip()


def used(folder: Path) -> int:
    """Return the pages that the files of a folder take."""
    return sum(
        -(-path.lstat().st_size // PAGE) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    )


def there(path: Path) -> bool:
    """Return whether a file is there, or a folder that is not empty."""
    return bool(os.listdir(path)) if path.is_dir() else path.exists()


def files(folder: Path) -> set[str]:
    """Return the files below a folder, but those that are read and the cache."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return {str(path) for path in paths if path.parts[0] not in (INPUTS, CACHE)}
