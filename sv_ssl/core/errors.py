"""The error that a user can mend, and what was left out because of one."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

# What moves a terminal's cursor, colours or hides text, breaks a line or turns its direction.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class InputError(ValueError):
    """Bad input: says what was wanted, what came, where, and what to do.

    Commands print its text as one line and exit with 2.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n")


def printable(text: str, keep: str = "") -> str:
    r"""Return text whose control characters are spelt out: names of files and speakers may come from strangers.

    >>> printable("a\x1b[2J\nb")
    'a\\x1b[2J\\nb'
    """
    return CONTROL.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


class Skipped(NamedTuple):
    """A recording that was left out. Whoever treats kinds differently asks `kind`, never the sentence."""

    id: str  # or path
    kind: str  # missing, unreadable, silent, short, ...: that of an AudioError
    reason: str  # one line for the user


def check_number(
    name: str, value: Any, at_least: float | None = None, at_most: float | None = None, whole: bool = False
) -> None:
    """Raise InputError for what is no number of this range.

    >>> check_number("alpha", 2, at_least=0, at_most=1)
    Traceback (most recent call last):
    ...
    sv_ssl.core.errors.InputError: alpha is 2: wanted 1 at most
    """
    if wanted := number_fault(value, at_least, at_most, whole):
        raise InputError(f"{name} is {value!r}: {wanted}")


def number_fault(value: Any, at_least: float | None = None, at_most: float | None = None, whole: bool = False) -> str:
    """Return what is wanted in place of a value; nothing where it is a number of this range.

    >>> number_fault(0.5, at_least=1, whole=True), number_fault(1, at_least=1, whole=True)
    ('wanted a whole number of at least 1', '')
    """
    if not is_number(value) or (whole and not isinstance(value, int)) or (at_least is not None and value < at_least):
        least = "" if at_least is None else f" of at least {at_least:g}"
        return f"wanted {'a whole number' if whole else 'a number'}{least}"
    return f"wanted {at_most:g} at most" if at_most is not None and value > at_most else ""


def is_number(value: Any) -> bool:
    """Return whether a value is a number, and a finite one.

    >>> is_number(3), is_number(True), is_number(math.inf), is_number(10**400)
    (True, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False
