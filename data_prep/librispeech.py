"""LibriSpeech, unpacked, to a train.csv that the recipes take, and a CSV for each dev and test part.

SOURCE holds train-clean-100, train-clean-360, train-other-500, dev-clean, ... or the folder LibriSpeech with them.
train.csv has all the train parts that are there; --speakers keeps readers, and chapters as sessions.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_prep import TRAIN, Problem, command, finish, parser, rerooted, save
from sv_ssl.core.errors import InputError
from sv_ssl.data import scan

PUBLISHED = {
    "train-clean-100": (28_539, 251),
    "train-clean-360": (104_014, 921),
    "train-other-500": (148_688, 1_166),
    "dev-clean": (2_703, 40),
    "dev-other": (2_864, 33),
    "test-clean": (2_620, 40),
    "test-other": (2_939, 33),
}


def prepare(
    source: str | os.PathLike, out: str | os.PathLike, speakers: bool = False, workers: int | None = None
) -> int:
    """Write the manifests of LibriSpeech's parts below `source` to `out` -> exit code."""
    out = Path(os.path.abspath(out))
    frames = {part: scan.from_speakers(path, workers=workers) for part, path in _find_parts(Path(source)).items()}
    problems = [problem for part, frame in frames.items() for problem in unlike_published(part, frame)]
    frames = {part: rerooted(frame, out) for part, frame in frames.items()}
    train = [frame for part, frame in frames.items() if "train-" in part]
    lines = [save(frame, out / f"{part}.csv", speakers) for part, frame in frames.items() if "train-" not in part]
    lines += [save(pd.concat(train), out / "train.csv", speakers)] if train else ["no train-... part, so no train.csv"]
    return finish(out, lines, problems, f"{TRAIN} {out}" if train else "sv-extract MODEL CSV --out embeddings.npz")


def unlike_published(part: str, frame: pd.DataFrame) -> list[Problem]:
    """List what of a part could not be read, and its counts where they are not the published ones."""
    pairs = zip((len(frame), frame["spk_id"].nunique()), PUBLISHED[part], ("utterances", "speakers"))
    counts = [f"{count:,} {what}, published are {wanted:,}" for count, wanted, what in pairs if count != wanted]
    return [Problem(part, path, reason) for path, _, reason in frame.attrs["skipped"]] + [
        Problem(part, "", count) for count in counts
    ]


def _find_parts(source: Path) -> dict[str, Path]:
    """Return {part: folder} in the order of PUBLISHED."""
    places = {
        part: [source / part, source / "LibriSpeech" / part, *([source] if source.name == part else [])]
        for part in PUBLISHED
    }
    folders = {part: path for part, paths in places.items() for path in paths if path.is_dir()}
    if not folders:
        raise InputError(
            f"{source}: no part of LibriSpeech in it: want {', '.join(PUBLISHED)}, or a folder LibriSpeech with them"
        )
    return folders


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    return command(parser("librispeech", __doc__ or ""), prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
