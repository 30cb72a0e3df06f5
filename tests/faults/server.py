"""A process in which all is imported, and which forks for each line that is to be run: a run costs no start.

    python -m tests.faults.server FOLDER

A fork is killed from outside after some seconds, or carries its fault in it:

    {"after": 0.02}                  SIGKILL after so many seconds
    {"call": 3, "how": "kill"}       SIGKILL before the third call that changes a file's name or opens one for writing
    {"call": 3, "how": "full"}       from the third such call on there is no room for another file
    {"bytes": 100, "how": "kill"}    killed within the write that makes a file longer than that
    {"bytes": 100, "how": "full"}    that write, and every later one, finds no room
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from tests.faults import commands
from tests.faults.commands import COMMANDS, ROOT

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.copyfile"}
MAKES = {"open", "os.mkdir", "os.link", "os.symlink", "shutil.copyfile"}  # what takes room
LOG = "log.txt"
LONGEST = 120  # seconds that a run may take


class Ran(NamedTuple):
    """How a line ended."""

    code: int  # below 0: the signal that killed it
    out: str
    err: str
    seconds: float
    calls: int  # that change files


class Server:
    """The side that asks."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="faults-")
        self.home = Path(self.folder.name)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server", self.folder.name],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._answer()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: Any) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()

    def run(self, folder: Path, line: str, fault: Mapping[str, Any] | None = None) -> Ran:
        """Run a line in a folder, with a fault or without."""
        (ran,) = self.together(folder, [line], fault)
        return ran

    def together(self, folder: Path, lines: Sequence[str], fault: Mapping[str, Any] | None = None) -> list[Ran]:
        """Run lines in a folder at once."""
        assert self.process.stdin is not None
        print(json.dumps([os.fspath(folder), list(lines), fault or {}]), file=self.process.stdin, flush=True)
        return [Ran(*one) for one in self._answer()]

    def _answer(self) -> list:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the server has ended with {self.process.wait()}: {(self.home / LOG).read_text()[-2000:]}"
        return json.loads(line)


# ------------------------------------------------------------------------------------------------ the other side of it
def main(folder: str) -> None:
    """Make what commands read, run each line once for its imports, and then as it is asked for."""
    answers = os.fdopen(os.dup(1), "w")
    log = os.open(Path(folder, LOG), os.O_WRONLY | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    commands.build(Path(folder))
    with tempfile.TemporaryDirectory() as scratch:
        for number, command in enumerate(COMMANDS.values()):
            home = Path(scratch, str(number))
            home.mkdir()
            (home / commands.INPUTS).symlink_to(Path(folder, commands.INPUTS))
            for line in filter(None, (command.before, command.words)):
                commands.made(home, line)
    for request in _said(answers, [], sys.stdin):
        where, lines, fault = json.loads(request)
        running = [_start(Path(where), line, fault) for line in lines]
        print(json.dumps([_end(one) for one in running]), file=answers, flush=True)


def _said(answers: Any, greeting: list, requests: Any) -> Any:
    """Greet, and return the requests."""
    print(json.dumps(greeting), file=answers, flush=True)
    return requests


class Running(NamedTuple):
    """A fork that runs a line, and the ends of pipes by which it tells: what it prints, its errors, its calls."""

    pid: int
    started: float
    fault: Mapping[str, Any]
    told: tuple[int, ...]


def _start(folder: Path, line: str, fault: Mapping[str, Any]) -> Running:
    """Fork a run of a line. It prints into pipes, which a limit of files does not reach."""
    pipes = [os.pipe() for _ in range(3)]
    for _, end in pipes:
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 1 << 20)
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        _run(folder, line, fault, [end for _, end in pipes])
    for _, end in pipes:
        os.close(end)
    return Running(pid, started, fault, tuple(end for end, _ in pipes))


def _end(running: Running) -> Ran:
    """Wait for a run, or kill it when its time has come, and what it has started with it."""
    until = running.started + running.fault.get("after", LONGEST)
    ended, status = os.waitpid(running.pid, os.WNOHANG)
    while not ended and time.monotonic() < until:
        time.sleep(min(0.001, max(0.0, until - time.monotonic())))
        ended, status = os.waitpid(running.pid, os.WNOHANG)
    seconds = time.monotonic() - running.started
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    if not ended:
        _, status = os.waitpid(running.pid, 0)
    out, err, calls = map(_heard, running.told)
    return Ran(os.waitstatus_to_exitcode(status), out, err, seconds, int(calls or 0))


def _heard(pipe: int) -> str:
    with open(pipe, encoding="utf-8", errors="replace") as end:
        return end.read()


def _run(folder: Path, line: str, fault: Mapping[str, Any], tell: Sequence[int]) -> NoReturn:
    """Be the run."""
    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    for descriptor, end in enumerate(tell[:2], 1):
        os.dup2(end, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", errors="backslashreplace", buffering=1)
    count = Count(folder, fault)
    sys.addaudithook(count)
    sys.argv = line.split()
    if "bytes" in fault:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["bytes"], resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fault["how"] == "kill" else signal.SIG_IGN)
    code = _called(line)
    os.write(tell[2], str(count.calls).encode())
    os._exit(code)


def _called(line: str) -> int:
    """Return the exit code of a line, as a process of its own would end with it."""
    try:
        code = commands.call(line)
        sys.stdout.flush()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return code


class Count:
    """An audit hook that counts the calls which change files in a folder, and does what is asked at one of them."""

    def __init__(self, folder: Path, fault: Mapping[str, Any]):
        self.folder, self.fault, self.calls = os.path.realpath(folder), fault, 0

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in CHANGES:
            return
        if not isinstance(arguments[0], (str, bytes, os.PathLike)) or not self._inside(os.fsdecode(arguments[0])):
            return
        self.calls += 1
        if self.calls == self.fault.get("call") and self.fault["how"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.calls >= self.fault.get("call", sys.maxsize) and event in MAKES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(arguments[0]))

    def _inside(self, path: str) -> bool:
        return os.path.abspath(path).startswith(self.folder + os.sep)


if __name__ == "__main__":
    main(sys.argv[1])
