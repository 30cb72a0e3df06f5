"""The error that a user can mend."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: says what was wanted, what came, where, and what to do.

    Commands print its text as one line and exit with 2.
    """
