"""Pack a manifest's recordings into tar shards for network file systems: few large files instead of a million.

SOURCE is a folder with a train.csv, as the other commands write it, or such a CSV. FOLDER gets shard-000000.tar, ...,
in each KEY.flac (the file as it is) and KEY.json for every utterance, as webdataset has them, and a train.csv.
Utterances are shuffled first, so that neighbours in a shard are no kin. Segments of 16-bit files are cut out, without
loss; those of others come with their whole file. A stopped packing goes on when the same command is given again.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from data_prep import TRAIN, Problem, command, each, finish, parser, positive, save
from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write, check_ordinary
from sv_ssl.core.seeds import stream
from sv_ssl.data import manifest

NOTE = 2**20  # bytes of a KEY.json; those that are written here have a few hundred


class Place(NamedTuple):
    """Where an utterance is: the columns that train.csv has for it."""

    shard: str
    offset: int
    size: int
    first: int  # sample at which it begins in what was packed


def prepare(
    source: str | os.PathLike,
    out: str | os.PathLike,
    speakers: bool = False,
    workers: int | None = None,
    utterances: int = 4096,
    seed: int = 0,
) -> int:
    """Write shards of so many utterances and their train.csv to `out` -> exit code."""
    table, out = Path(source, "train.csv") if os.path.isdir(source) else Path(source), Path(os.path.abspath(out))
    if out.resolve() == table.parent.resolve():
        raise InputError(f"{out}: holds the train.csv to pack: give another folder with --out")
    frame = manifest.read(table)
    shown = frame if speakers else frame.drop(columns=["spk_id", "session"], errors="ignore")
    order = stream(seed, "order of shards").permutation(len(frame))
    jobs = [
        (out / f"shard-{i // utterances:06d}.tar", i, shown.iloc[order[i : i + utterances]])
        for i in range(0, len(order), utterances)
    ]
    places: dict[str, Place] = {}
    problems: list[Problem] = []
    for _, (found, faults) in each(lambda block: [pack(*job) for job in block], jobs, "packing", workers, size=1):
        places.update(found)
        problems += faults
    kept = frame[frame["ID"].isin(places)]
    if kept.empty:
        raise InputError(f"{table}: none of {len(frame)} recordings can be packed; the first: {problems[0].problem}")
    columns = zip(Place._fields, zip(*(places[key] for key in kept["ID"])))
    line = save(kept.assign(**{name: list(values) for name, values in columns}), out / "train.csv", speakers)
    return finish(out, [f"wrote {len(jobs):,} shards", line], problems, f"{TRAIN} {out}")


def pack(path: Path, number: int, frame: pd.DataFrame) -> tuple[dict[str, Place], list[Problem]]:
    """Write a shard unless it is there, the first KEY being `number` -> {ID: place}, and what is not in it and why."""
    problems: list[Problem] = []
    if not path.exists():
        with atomic_write(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for key, about in enumerate(frame.to_dict("records"), number):
                try:
                    content, suffix, first = packed(about)
                except audio.AudioError as error:
                    problems.append(Problem(path.name, about["ID"], str(error)))
                    continue
                note = {
                    **{name: value for name, value in about.items() if name != "wav"},
                    "start": first,
                    "stop": first + about["stop"] - about["start"],
                }
                add(tar, f"{key:09d}{suffix}", content)
                add(tar, f"{key:09d}.json", json.dumps(note).encode())
    found = places(path)
    if set(found) - set(frame["ID"]):
        raise InputError(f"{path}: holds other utterances than would be packed now: give another folder with --out")
    reported = {problem.name for problem in problems}
    return found, problems + [
        Problem(path.name, key, f"was left out when {path} was packed: delete that to try again")
        for key in frame["ID"]
        if key not in found and key not in reported
    ]


def packed(about: dict[str, Any]) -> tuple[bytes, str, int]:
    """Return the bytes to pack of an utterance, the ending that tells their kind, the sample at which it begins."""
    path, start, stop = about["wav"], about["start"], about["stop"]
    file = audio.info(path)
    if (start, stop) != (0, file.frames):
        part = audio.read(path, start, stop, file.rate, strict=False)
        steps = part / audio.STEP
        if file.channels == 1 and np.array_equal(steps, np.rint(steps).clip(-(2**15), 2**15 - 1)):
            with TemporaryDirectory() as scratch:
                audio.write(f"{scratch}/part.flac", part, file.rate)
                return Path(scratch, "part.flac").read_bytes(), ".flac", 0
    return Path(path).read_bytes(), os.path.splitext(path)[1].lower(), start


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Append a file, the same bytes whenever and by whomever it is packed."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def places(path: Path) -> dict[str, Place]:
    """Read what a shard holds, by its own account: a KEY.json comes right behind its audio."""
    check_ordinary(path)
    found: dict[str, Place] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            members = list(tar)
            for sound, note in zip(members[::2], members[1::2]):
                if not (sound.isreg() and note.isreg() and note.size <= NOTE):
                    raise ValueError(f"{note.name} is no file of this command")
                about = json.loads(tar.extractfile(note).read())  # type: ignore[union-attr]
                found[about["ID"]] = Place(f"$data_root/{path.name}", sound.offset_data, sound.size, about["start"])
    except (OSError, tarfile.TarError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a shard of this command ({error}): delete it and start again") from None
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    options = parser("shards", __doc__ or "")
    add_option: Any = options.add_argument
    add_option("--utterances", metavar="N", type=positive, default=4096, help="utterances a shard (default: 4096)")
    return command(options, prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
