"""Readers that do each of what the worker is to notice, for the test of the worker itself."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from pathlib import Path

from sv_ssl.core.errors import InputError
from tests.fuzz.formats import Format


def _refuses(path: Path) -> None:
    raise InputError(f"{path}: wanted something else")


def _shows_control_characters(path: Path) -> None:
    raise InputError(f"{path}: \u001b[31m")


def _waits(path: Path) -> None:
    time.sleep(60)


def _heeds_nothing(path: Path) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(60)


def _holds(path: Path) -> None:
    held = bytearray(b"x") * (1200 << 20)
    del held


def _grows(path: Path) -> None:
    held = []
    while True:
        held.append(bytearray(b"x") * (16 << 20))


def _dies(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _exits(path: Path) -> None:
    os._exit(7)


def _warns(path: Path) -> None:
    warnings.warn("half of it", RuntimeWarning, stacklevel=1)


def _says(path: Path) -> None:
    print("hm", file=sys.stderr)


def _runs(path: Path) -> None:
    Path("pwned").touch()


def _breaks(path: Path) -> None:
    raise KeyError("embeddings")


READERS = {
    "takes": Path.read_bytes,
    "refuses": _refuses,
    "shows control characters": _shows_control_characters,
    "waits": _waits,
    "heeds nothing": _heeds_nothing,
    "holds": _holds,
    "grows": _grows,
    "dies": _dies,
    "exits": _exits,
    "warns": _warns,
    "says": _says,
    "runs": _runs,
    "breaks": _breaks,
}
FORMATS = {name: Format("input.txt", reads) for name, reads in READERS.items()}
