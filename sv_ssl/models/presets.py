"""Sizes of encoders, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sv_ssl.core.errors import InputError


def preset(table: Mapping[Any, Any], name: Any, encoder: str) -> Any:
    """Return the size of this name from an encoder's table; an unknown one is refused with the names there are."""
    if not isinstance(name, (str, int)) or name not in table:
        raise InputError(f"{encoder} has no size {name!r}: choose one of {', '.join(map(str, table))}")
    return table[name]
