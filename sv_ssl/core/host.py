"""What the machine and the user's account offer."""

from __future__ import annotations

import os
from pathlib import Path

from sv_ssl.core.errors import InputError


def cores() -> int:
    """Return how many cores this process may use: all of the machine's, or those that it was bound to.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def number_of(variable: str, usual: int) -> int:
    """Return a whole number of the environment; raise InputError for anything else.

    >>> number_of("SV_SSL_NO_SUCH_VARIABLE", 3)
    3
    """
    text = os.environ.get(variable, str(usual))
    if not text.isdecimal():
        raise InputError(f"the environment's {variable} is {text!r}: wanted a whole number, as torchrun sets it")
    return int(text)


def processes() -> int:
    """Return how many processes torchrun has started, on all machines; 1 without it."""
    return number_of("WORLD_SIZE", 1) if "LOCAL_RANK" in os.environ else 1


def cores_each() -> int:
    """Return how many cores each process has, where those that torchrun has started on this machine divide them."""
    return max(1, cores() // max(1, number_of("LOCAL_WORLD_SIZE", 1))) if processes() > 1 else cores()


def cache_folder() -> Path:
    """Return where the package keeps what can be made again: XDG_CACHE_HOME/sv_ssl, or ~/.cache/sv_ssl."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sv_ssl"
