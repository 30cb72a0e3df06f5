"""RIRS_NOISES (OpenSLR 28), unpacked, to the rir.csv and noise.csv that the recipes take.

SOURCE holds simulated_rirs, real_rirs_isotropic_noises and pointsource_noises, or RIRS_NOISES with them. Written are
  rir.csv         simulated rooms, small, medium and large: what the papers draw from, for --room_folder FOLDER
  real_rir.csv    measured rooms, several microphones a file, for --room_folder FOLDER/real_rir.csv
  noise.csv       point-source and isotropic noises, for --noise_folder FOLDER where there is no MUSAN
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import Problem, command, finish, parser, write_list
from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.core.text_file import lines

SIMULATED, REAL, POINT = "simulated_rirs", "real_rirs_isotropic_noises", "pointsource_noises"
PUBLISHED = {"smallroom": 20_000, "mediumroom": 20_000, "largeroom": 20_000, "point-source noise": 843}


def prepare(source: str | os.PathLike, out: str | os.PathLike, workers: int | None = None) -> int:
    """Write rir.csv, real_rir.csv and noise.csv in `out` from the tree in or below `source` -> exit code."""
    source, out = Path(os.path.abspath(source)), Path(os.path.abspath(out))
    root = source / "RIRS_NOISES" if (source / "RIRS_NOISES").is_dir() else source
    if not (root / SIMULATED).is_dir():
        raise InputError(
            f"{source}: not RIRS_NOISES: want {SIMULATED}, {REAL} and {POINT} in it, or a folder RIRS_NOISES with them"
        )
    sizes = ("smallroom", "mediumroom", "largeroom")
    rooms = {file: size for size in sizes for file in _below(root, f"{SIMULATED}/{size}")}
    measured = _below(root, REAL)
    isotropic = _noises(root / REAL, measured)
    points = _below(root, POINT)
    lists = {
        "rir.csv": rooms,
        "real_rir.csv": {file: "real" for file in measured if file not in isotropic},
        "noise.csv": dict.fromkeys((*points, *isotropic), "noise"),
    }
    done = [write_list(out / name, root, files, workers) for name, files in lists.items() if files]
    counts = {**done[0][2], "point-source noise": len(points)}
    problems = [problem for _, problems, _ in done for problem in problems]
    problems += [
        Problem(kind, "", f"{counts.get(kind, 0):,} files, published are {wanted:,}")
        for kind, wanted in PUBLISHED.items()
        if counts.get(kind, 0) != wanted
    ]
    lines = [line for lines, _, _ in done for line in lines]
    return finish(out, lines, problems, f"give --room_folder {out} to a recipe")


def _below(root: Path, folder: str) -> list[str]:
    """Return the audio files of a part of the download; none where it is not there, which `finish` tells."""
    return [f"{folder}/{file}" for file in audio.find(root / folder)] if (root / folder).is_dir() else []


def _noises(folder: Path, files: Sequence[str]) -> list[str]:
    """Return those of the measured files that are isotropic noise: by noise_list, else by their names."""
    table = folder / "noise_list"
    if table.is_file():
        named = {os.path.basename(line.split()[-1]) for line in lines(table) if line.strip()}
        return [file for file in files if os.path.basename(file) in named]
    return [file for file in files if "_noise_" in file]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    return command(parser("rirs", __doc__ or "", speakers=False), prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
