"""Speech Commands, version 2 (35 words), unpacked, to a clips.csv with the folds of its lists.

SOURCE holds a folder a word, validation_list.txt and testing_list.txt (or speech_commands_v0.02 with them): what is on
neither list is for training. Speakers are told by the names of the files; _background_noise_ is left out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import Problem, clips, command, parser
from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.core.text_file import lines

PUBLISHED = {"train": 84_843, "valid": 9_981, "test": 11_005}
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}


def prepare(source: str | os.PathLike, out: str | os.PathLike, workers: int | None = None) -> int:
    """Write clips.csv in `out` from the tree of Speech Commands -> exit code."""
    root = clips.root(source, "Speech Commands", LISTS["test"], "speech_commands_v0.02")
    fold_of = {path: fold for fold, name in LISTS.items() for path in _listed(root / name)}
    paths = [path for path in audio.find(root) if path.count("/") == 1 and not path.startswith("_")]
    found = [
        {
            "path": path,
            "label": path.split("/")[0],
            "fold": fold_of.get(path, "train"),
            "spk_id": path.split("/")[1].split("_nohash_")[0].split(".")[0],
        }
        for path in paths
    ]
    there = set(paths)
    absent = [Problem(fold, path, "listed, but not there") for path, fold in fold_of.items() if path not in there]
    return clips.write(root, out, found, PUBLISHED, n_labels=35, problems=absent, workers=workers)


def _listed(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file: the folds of Speech Commands are told by {', '.join(LISTS.values())}")
    return [name for line in lines(path) for name in line.split()]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    return command(parser("speech_commands", __doc__ or "", speakers=False), prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
