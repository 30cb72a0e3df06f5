"""Spoken words, a folder a word with a words.csv beside, to a clips.csv; no speaker may be in two folds.

SOURCE/words.csv is a manifest with the columns spk_id, label and fold (train, valid, test). With --folds N the speakers
are dealt to N folds instead, called 1 to N, which take turns: one is the test part, the next the validation part.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import Problem, clips, command, parser
from sv_ssl.core.errors import InputError

NEEDED = ("wav", "spk_id", "label", "fold")
FOLDS = ("train", "valid", "test")


def prepare(
    source: str | os.PathLike, out: str | os.PathLike, folds: int | None = None, workers: int | None = None
) -> int:
    """Write clips.csv in `out` from a folder of spoken words -> exit code."""
    listed = Path(source) / "words.csv"
    rows = clips.table(listed, NEEDED)
    found = [
        {"path": row["wav"].replace("$data_root/", ""), **{name: row[name] for name in NEEDED[1:]}} for row in rows
    ]
    if not found:
        raise InputError(f"{listed}: no words below the header")
    if pieces := [row for row in rows if row.get("start") not in (None, "", "0")]:
        raise InputError(
            f"{listed}: {pieces[0]['wav']} begins at sample {pieces[0]['start']}: want a file for every word"
        )
    if strange := {clip["fold"] for clip in found} - set(FOLDS):
        raise InputError(f'{listed}: the fold "{min(strange)}" is none of {", ".join(FOLDS)}')
    if folds is not None:
        found = dealt(found, folds)
    first: dict[str, str] = {}
    shared = {clip["spk_id"] for clip in found if first.setdefault(clip["spk_id"], clip["fold"]) != clip["fold"]}
    problems = [
        Problem("", speaker, "in several folds: the test would hear a voice of the training")
        for speaker in sorted(shared)
    ]
    return clips.write(Path(source).absolute(), out, found, {}, problems=problems, workers=workers)


def dealt(found: list[dict[str, str]], folds: int) -> list[dict[str, str]]:
    """Return the clips with their speakers in turn in the folds 1 to `folds`.

    >>> [clip["fold"] for clip in dealt([{"spk_id": speaker} for speaker in "abcda"], 3)]
    ['1', '2', '3', '1', '1']
    """
    speakers = sorted({clip["spk_id"] for clip in found})
    if len(speakers) < 3:
        raise InputError(f"{len(speakers)} speakers cannot be dealt to folds: want 3 at least")
    if not 3 <= folds <= len(speakers):
        raise InputError(f"--folds is {folds}: want 3 to {len(speakers)}, the number of speakers")
    fold = {speaker: str(1 + number % folds) for number, speaker in enumerate(speakers)}
    return [{**clip, "fold": fold[clip["spk_id"]]} for clip in found]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    options = parser("words", __doc__ or "", speakers=False)
    options.add_argument("--folds", type=int, metavar="N", help="folds of speakers (default: those of words.csv)")
    return command(options, prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
