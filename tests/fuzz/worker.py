"""The process in which files are read: what it takes, what it spills and how it dies is seen from outside.

    python -m tests.fuzz.worker FOLDER MODULE SECONDS

imports what readers need, and then forks: the fork reads file after file, each within so many seconds and MEMORY, and
if it dies another fork takes its place in a few hundredths of a second. `Worker` is the side that asks.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from sv_ssl.core.errors import InputError
from tests.fuzz.formats import ROOT, Format, fault_of, shown

SECONDS = 10  # for one file
PATIENCE = 3  # more seconds for what does not heed the alarm, such as a loop in C
MEMORY = 1 << 30  # bytes above those at the start, as they are resident
ADDRESSES = 4 << 30  # bytes of address space above those at the start: what asks for more gets a MemoryError
TOO_LONG, TOO_LARGE = "took too long", "took more than 1 GB"
PWNED = "pwned"  # a file that hostile files make if they can
FRUITLESS = 50  # deaths in a row before the first answer


class Outcome(NamedTuple):
    """What became of a file: accepted, refused, or failed."""

    kind: str
    text: str = ""  # the message of a refusal; of a failure what it was
    where: str = ""  # of a failure: its kind and the innermost line of the product, which tell it from others


class TooLong(BaseException):
    """The alarm; no reader that catches every Exception catches it."""


class Worker:
    """Read files in a process that may die.

    >>> with Worker() as worker:
    ...     worker.read("rttm", b"SPEAKER a 1 0.1 nan <NA> <NA> ann <NA> <NA>").kind
    'refused'
    """

    def __init__(self, formats: str = "tests.fuzz.formats", seconds: float = SECONDS) -> None:
        self.formats = import_module(formats).FORMATS
        self.words = [formats, str(seconds)]
        self.patience = seconds + PATIENCE
        self.folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        self.process: subprocess.Popen | None = None
        self.child = 0  # the process that reads
        self.at_rest = 0  # bytes that it had when it began
        self.text = b""  # of an answer that is not whole yet

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop()
        self.folder.cleanup()

    def _stop(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None and self.process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
        self.process, self.text = None, b""

    def read(self, name: str, data: bytes) -> Outcome:
        """Read a file's bytes as a format."""
        if self.process is None:
            self._start()
        path = place(Path(self.folder.name), name, self.formats[name])
        path.write_bytes(data)
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, os.fspath(path)]).encode() + b"\n")
        self.process.stdin.flush()
        answer, why = self._answer()
        if "kind" in answer:
            return Outcome(**answer)
        self._greeting()  # of the fork that took its place
        died = why or f"died of {_named(answer['status'])}"
        return Outcome("failed", f"{died}; {answer['spilled']}".strip("; "), died)

    def _start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.fuzz.worker", self.folder.name, *self.words]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._greeting()

    def _greeting(self) -> None:
        for _ in range(FRUITLESS):
            greeting = self._line(600)
            assert greeting is not None, "the worker does not start"
            if "pid" in greeting:
                self.child, self.at_rest = greeting["pid"], greeting["resident"]
                return
        raise AssertionError("the worker dies as soon as it starts")

    def _answer(self) -> tuple[Mapping[str, Any], str]:
        """Return the answer, or how the reader ended and, where it was killed from here, why."""
        until, why = time.monotonic() + self.patience, ""
        while True:
            answer = self._line(0.02)
            if answer is not None:
                return answer, why
            if not why and resident(self.child) > self.at_rest + MEMORY:
                why = TOO_LARGE
            elif not why and time.monotonic() > until:
                why = "did not come back"
            else:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child, signal.SIGKILL)

    def _line(self, seconds: float) -> Mapping[str, Any] | None:
        """Return the next line, or nothing where none has come yet."""
        assert self.process is not None and self.process.stdout is not None
        while b"\n" not in self.text:
            ready, _, _ = select.select([self.process.stdout], [], [], seconds)
            if not ready:
                return None
            block = os.read(self.process.stdout.fileno(), 1 << 16)
            assert block, f"the worker has ended with {self.process.wait()}"
            self.text += block
        line, _, self.text = self.text.partition(b"\n")
        return json.loads(line)


def place(folder: Path, name: str, about: Format) -> Path:
    """Return where a file of a format goes; what is to lie beside it is made the first time."""
    home = folder / name
    if not home.is_dir():
        home.mkdir()
        about.beside(home)
    return home / about.file


def resident(pid: int, what: str = "VmRSS") -> int:
    """Return the bytes of memory that a process has (VmRSS) or has had at most (VmHWM), or of addresses (VmSize)."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(rf"^{what}:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _named(status: int) -> str:
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit({os.WEXITSTATUS(status)})"


# ------------------------------------------------------------------------------------------------ the other side of it
def main(folder: str, module: str, seconds: str) -> None:
    """Fork readers, one after the other, until standard input is closed."""
    formats = import_module(module).FORMATS
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what a file leads to standard input finds nothing there
    spill = Path(folder, "spilled.txt")
    for descriptor in (1, 2):
        os.dup2(os.open(spill, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    warm(Path(folder), formats)
    while True:
        pid = os.fork()
        if not pid:
            _serve(requests, answers, Reading(formats, float(seconds), spill))
        _, status = os.waitpid(pid, 0)
        if not status:
            return
        _say(answers, {"status": status, "spilled": _spilled(spill)})


def warm(folder: Path, formats: Mapping[str, Format]) -> None:
    """Read whole files of each format, so that all that is imported late is there before memory is measured."""
    from tests.fuzz.whole import MAKERS, whole

    for name, about in formats.items():
        for data in whole(name) if name in MAKERS else ():
            path = place(folder, name, about)
            path.write_bytes(data)
            with contextlib.suppress(Exception):  # that is for the tests to tell
                about.reads(path)


class Reading(NamedTuple):
    """What the reader is told once."""

    formats: Mapping[str, Format]
    seconds: float  # for one file
    spill: Path  # where the standard streams go


def _serve(requests: int, answers: int, reading: Reading) -> NoReturn:
    """Read files as they are asked for, and end with the input."""
    resource.setrlimit(resource.RLIMIT_AS, (resident(os.getpid(), "VmSize") + ADDRESSES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _too_long)
    faulthandler.enable(file=2)
    _count_warnings()
    start = resident(os.getpid())
    _say(answers, {"pid": os.getpid(), "resident": start})
    text = b""
    while block := os.read(requests, 1 << 16):
        text += block
        while b"\n" in text:
            line, _, text = text.partition(b"\n")
            reading.spill.write_bytes(b"")
            name, path = json.loads(line)
            _say(answers, _read(reading, name, Path(path), start)._asdict())
    os._exit(0)


def _count_warnings() -> None:
    """Let every warning be printed each time, but those that are for developers alone."""
    warnings.resetwarnings()
    warnings.simplefilter("always")
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)


def _read(reading: Reading, name: str, path: Path, start: int) -> Outcome:
    """Read a file within its limits."""
    os.chdir(path.parent)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    outcome = _tried(reading.formats[name], path, reading.seconds)
    if os.path.exists(PWNED):
        os.unlink(PWNED)
        return Outcome("failed", outcome.text, "ran what the file says")
    if (peak := resident(os.getpid(), "VmHWM") - start) > MEMORY:
        return Outcome("failed", f"{peak / 1e9:.1f} GB; {outcome.text}", TOO_LARGE)
    if outcome.kind != "failed" and (spilled := _spilled(reading.spill, reading.formats[name].murmur)):
        like = re.sub(r"0x[0-9a-f]+|\d+", "#", spilled.removeprefix(os.path.dirname(os.__file__)))
        return Outcome("failed", f"{spilled}; {outcome.kind} {outcome.text}", f"spilled {like[:50]}")
    return outcome


def _tried(about: Format, path: Path, seconds: float) -> Outcome:
    """Read a file within its time."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        about.reads(path)
    except InputError as error:
        fault, said = fault_of(shown(error)), str(error)[:1000]
        return Outcome("failed", said, f"the message of a refusal has {fault}") if fault else Outcome("refused", said)
    except TooLong as error:
        return _failed(error, TOO_LONG)
    except BaseException as error:  # whatever it is, it is what is looked for
        return _failed(error, type(error).__name__)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return Outcome("accepted")


def _failed(error: BaseException, kind: str) -> Outcome:
    """Tell of an error: what it is and where, as far inside as the repository goes."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT)]
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in (*ours[-1:], *frames[-1:])]
    text = " ".join(str(error).split())[:300]
    return Outcome("failed", f"{text} ({' < '.join(dict.fromkeys(reversed(places)))})", f"{kind} at {places[0]}")


def _spilled(spill: Path, murmur: str = "") -> str:
    """Return the beginning of what was written to the standard streams, without what is let pass."""
    lines = spill.read_text(encoding="utf-8", errors="replace").splitlines()
    return " ".join(" ".join(line.split()) for line in lines if not (murmur and re.match(murmur, line)))[:500].strip()


def _too_long(*_: Any) -> NoReturn:
    raise TooLong


def _say(descriptor: int, what: Mapping[str, Any]) -> None:
    os.write(descriptor, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
