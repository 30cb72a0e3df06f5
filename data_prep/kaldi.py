"""A Kaldi folder (wav.scp, and segments and utt2spk if there are any), to a train.csv that the recipes take.

--speakers keeps the speakers of utt2spk. Paths in wav.scp are files, whole or below SOURCE or the working directory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import TRAIN, Problem, command, finish, parser, rerooted, save
from sv_ssl.data import scan


def prepare(
    source: str | os.PathLike, out: str | os.PathLike, speakers: bool = False, workers: int | None = None
) -> int:
    """Write train.csv in `out` from the Kaldi folder `source` -> exit code."""
    out = Path(os.path.abspath(out))
    frame = scan.from_kaldi(source, workers=workers)
    problems = [Problem("", path, reason) for path, _, reason in frame.attrs["skipped"]]
    return finish(out, [save(rerooted(frame, out), out / "train.csv", speakers)], problems, f"{TRAIN} {out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    return command(parser("kaldi", __doc__ or ""), prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
