"""A bar on the terminal for long work."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def watched(items: Sequence[Item], what: str, unit: str, scale: int = 1, few: int = 0) -> Iterable[Item]:
    """Return the same items; on a terminal a bar with the time left appears if they take more than two seconds.

    `scale` units go to an item; no more than `few` items are certain to be quick.
    """
    if len(items) <= few or not sys.stderr.isatty():
        return items
    from tqdm import tqdm  # 30 ms to import

    return tqdm(items, desc=what, unit=unit, unit_scale=scale, leave=False, delay=2)
