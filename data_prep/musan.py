"""MUSAN, unpacked, to the noise.csv that the recipes take: SOURCE holds music, noise and speech, or musan with them.

Files stay as long as they are: training reads the part that it draws.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import Problem, command, finish, parser, write_list
from sv_ssl import audio
from sv_ssl.core.errors import InputError

PUBLISHED = {"music": 660, "noise": 930, "speech": 426}


def prepare(source: str | os.PathLike, out: str | os.PathLike, workers: int | None = None) -> int:
    """Write noise.csv in `out` from MUSAN's tree in or below `source` -> exit code."""
    source, out = Path(os.path.abspath(source)), Path(os.path.abspath(out))
    root = source / "musan" if (source / "musan").is_dir() else source
    if not all((root / kind).is_dir() for kind in PUBLISHED):
        raise InputError(f"{source}: not MUSAN: want the folders {', '.join(PUBLISHED)} in it, or musan with them")
    kinds = {f"{kind}/{file}": kind for kind in PUBLISHED for file in audio.find(root / kind)}
    lines, problems, counts = write_list(out / "noise.csv", root, kinds, workers)
    problems += [
        Problem(kind, "", f"{counts[kind]:,} files, published are {wanted:,}")
        for kind, wanted in PUBLISHED.items()
        if counts[kind] != wanted
    ]
    return finish(out, lines, problems, f"give --noise_folder {out} to a recipe")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    return command(parser("musan", __doc__ or "", speakers=False), prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
