"""What the machine and the user's account offer."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where the package keeps what can be made again: XDG_CACHE_HOME/sv_ssl, or ~/.cache/sv_ssl."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sv_ssl"


def cores() -> int:
    """Return how many cores this process may use: fewer than the machine has where it was bound to some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
