"""Spoken words, a folder a word with a words.csv beside, to a clips.csv; no speaker may be in two folds.

SOURCE/words.csv is a manifest with the columns spk_id, label and fold (train, valid, test).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Sequence

from data_prep import Problem, clips, command, parser
from sv_ssl.files import InputError

NEEDED = ("wav", "spk_id", "label", "fold")
FOLDS = ("train", "valid", "test")


def prepare(source: str | os.PathLike, out: str | os.PathLike, workers: int | None = None) -> int:
    """Write clips.csv in `out` from a folder of spoken words -> exit code."""
    listed = Path(source) / "words.csv"
    found = [{"path": row["wav"].replace("$data_root/", ""), **{name: row[name] for name in NEEDED[1:]}}
             for row in clips.table(listed, NEEDED)]
    if not found:
        raise InputError(f"{listed}: no words below the header")
    if strange := {clip["fold"] for clip in found} - set(FOLDS):
        raise InputError(f'{listed}: the fold "{min(strange)}" is none of {", ".join(FOLDS)}')
    first: dict[str, str] = {}
    shared = {clip["spk_id"] for clip in found if first.setdefault(clip["spk_id"], clip["fold"]) != clip["fold"]}
    problems = [Problem("", speaker, "in several folds: the test would hear a voice of the training")
                for speaker in sorted(shared)]
    return clips.write(Path(source).absolute(), out, found, {}, problems=problems, workers=workers)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line -> exit code."""
    return command(parser("words", __doc__ or "", speakers=False), prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
