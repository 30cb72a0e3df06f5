"""sv-score: score a trial list, measure the errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run sv-score; return the exit code."""
    from sv_ssl.core.command import run

    words = sys.argv[1:] if argv is None else argv
    return run(lambda: _score(words), "sv-score")


def _score(words: Sequence[str]) -> None:
    """Read the arguments, and only then import what takes time."""
    from sv_ssl.cli.score import options

    arguments = options.parser().parse_args(words)
    options.check(arguments)
    from sv_ssl.cli.score.score_list import score_list

    score_list(arguments, ["sv-score", *words])
