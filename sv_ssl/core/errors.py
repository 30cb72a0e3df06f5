"""The error that a user can mend, and what was left out because of one."""

from __future__ import annotations

from typing import NamedTuple


class InputError(ValueError):
    """Bad input: says what was wanted, what came, where, and what to do.

    Commands print its text as one line and exit with 2.
    """


class Skipped(NamedTuple):
    """A recording that was left out. Whoever treats kinds differently asks `kind`, never the sentence."""

    id: str  # or path
    kind: str  # missing, unreadable, silent, short, ...: that of an AudioError
    reason: str  # one line for the user
