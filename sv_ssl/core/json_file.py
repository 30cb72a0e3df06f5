"""JSON from anywhere: one object, of a size and a depth that nobody minds, or a refusal of one line."""

from __future__ import annotations

import json
import os
from typing import Any

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import read_text

DEEPEST = 64  # brackets within each other


def read_object(path: str | os.PathLike) -> dict[str, Any]:
    """Return the object that a file of JSON holds."""
    return parse_object(read_text(path, "JSON"), os.fspath(path))


def parse_object(text: str, where: str) -> dict[str, Any]:
    """Return the object that a text of JSON holds; `where` says in messages whose text it is.

    >>> parse_object('{"a": [1, 2]}', "a.json")
    {'a': [1, 2]}
    >>> parse_object("[" * 100_000, "a.json")
    Traceback (most recent call last):
    ...
    sv_ssl.core.errors.InputError: a.json is damaged: more than 64 brackets are open at once
    """
    try:
        found = json.loads(text)
        found_depth = _depth(found)
    except RecursionError:
        found_depth = DEEPEST + 1
    except ValueError as error:
        raise InputError(f"{where} is damaged: {' '.join(str(error).split())}") from error
    if found_depth > DEEPEST:
        raise InputError(f"{where} is damaged: more than {DEEPEST} brackets are open at once")
    if not isinstance(found, dict):
        raise InputError(f"{where} is damaged: wanted a JSON object, {{...}}, not a {type(found).__name__}")
    return found


def _depth(value: Any) -> int:
    """Return how many brackets are open at the deepest place."""
    if not isinstance(value, (dict, list)):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)
