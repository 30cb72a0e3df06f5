"""What the machine and the user's account offer."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where the package keeps what can be made again: XDG_CACHE_HOME/sv_ssl, or ~/.cache/sv_ssl."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sv_ssl"
