"""What the machine and the user's account offer."""

from __future__ import annotations

import os
from pathlib import Path


def cores() -> int:
    """Return how many cores this process may use: all of the machine's, or those that it was bound to.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes() -> int:
    """Return how many processes torchrun has started, on all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1


def cores_each() -> int:
    """Return how many cores each process has, where those that torchrun has started on this machine divide them."""
    return max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))) if processes() > 1 else cores()


def cache_folder() -> Path:
    """Return where the package keeps what can be made again: XDG_CACHE_HOME/sv_ssl, or ~/.cache/sv_ssl."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sv_ssl"
