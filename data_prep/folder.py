"""Any folder of recordings, to a train.csv that the recipes take: no labels, no list, no particular names.

SOURCE is a folder a speaker (SPEAKER/.../file), has VoxCeleb's names, or is just files; --speakers keeps the speakers.
Files that libsndfile does not read (m4a, mp4, wma, ...) are decoded by ffmpeg: FOLDER/decoded then holds them as FLAC,
and links to the others. Nothing in SOURCE is changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import TRAIN, Problem, command, each, finish, link, parser, rerooted, save
from data_prep.decode import BATCH, SUFFIXES, decode, require_ffmpeg
from sv_ssl.audio import AUDIO_SUFFIXES
from sv_ssl.core.tree import walk
from sv_ssl.data import scan


def prepare(
    source: str | os.PathLike, out: str | os.PathLike, speakers: bool = False, workers: int | None = None
) -> int:
    """Write train.csv in `out` from the recordings below `source` -> exit code."""
    source, out = os.path.abspath(source), Path(os.path.abspath(out))
    decoded = out / "decoded"
    paths = [entry.path for entry in walk(source) if not entry.path.startswith(f"{decoded}/")]
    foreign = [path for path in paths if path.lower().endswith(SUFFIXES)]
    problems = []
    if foreign:
        require_ffmpeg(f"{len(foreign):,} files such as {foreign[0]}")
        for path in paths:
            if path.lower().endswith(AUDIO_SUFFIXES):
                link(path, str(decoded / os.path.relpath(path, source)))
        jobs = [(path, f"{decoded / os.path.relpath(path, source)}.flac") for path in foreign]
        undone = [job for job in jobs if not os.path.exists(job[1])]
        decoded.mkdir(parents=True, exist_ok=True)
        faults = each(lambda jobs: decode(jobs, decoded), undone, "decoding", workers, BATCH)
        problems = [Problem("", path, fault) for (path, _), fault in faults if fault]
    frame = scan.scan(decoded if foreign else source, workers=workers)
    problems += [Problem("", path, reason) for path, _, reason in frame.attrs["skipped"]]
    return finish(out, [save(rerooted(frame, out), out / "train.csv", speakers)], problems, f"{TRAIN} {out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    return command(parser("folder", __doc__ or ""), prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
