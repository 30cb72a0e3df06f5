"""Public names of a package that are imported when they are first asked for: torch takes a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__`, by which each name of `homes` is found in its module of that package.

    >>> find = lazy("sv_ssl.core", {"InputError": "errors"})
    >>> find("InputError").__name__
    'InputError'
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find
