"""Decode a folder of compressed recordings to 16-bit WAV: a crop of an Opus or MP3 file costs many times one of a WAV.

SOURCE holds lists: CSVs with a column `wav` (manifests, noise.csv, rir.csv) and trial lists (.txt) of the same files.
FOLDER gets the lists, all other columns kept, and the files that the CSVs name as mono WAV of 16 kHz, below the names
that they have. Worth its space where a training run on a few workers waits for data. Nothing in SOURCE is changed; the
same command again does what is left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_prep import Problem, command, each, finish, parser
from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.core.text_file import csv_rows, lines
from sv_ssl.core.tree import walk
from sv_ssl.data import manifest

RATE = 16000


def prepare(source: str | os.PathLike, out: str | os.PathLike, workers: int | None = None) -> int:
    """Write what the lists below `source` name, and the lists, in `out` -> exit code."""
    source, out = Path(os.path.abspath(source)), Path(os.path.abspath(out))
    if out == source or out in source.parents or source in out.parents:
        raise InputError(f"--out {out} and {source} are one in the other: name a folder elsewhere")
    files = [Path(entry.path) for entry in walk(source)]
    tables = {path: rows for path in files if path.suffix == ".csv" and (rows := _rows(path)) is not None}
    named = sorted({path for rows in tables.values() for path in rows.path})
    if not named:
        raise InputError(f"{source}: no CSV with a column wav in it or below")
    jobs = {path: _target(path, source, out) for path in named}
    if len(set(jobs.values())) < len(jobs):
        raise InputError(f"{source}: two of its files differ by their endings alone, and would become one .wav")
    done = dict(each(lambda paths: [_write(path, jobs[path]) for path in paths], named, "decoding", workers))
    lengths = {path: length for path, length in done.items() if isinstance(length, int)}
    problems = [Problem("", path, fault) for path, fault in done.items() if isinstance(fault, str)]
    for path, rows in tables.items():
        _save(rows[rows.path.isin(lengths)], lengths, jobs, out / path.relative_to(source))
    for path in files:
        if path.suffix == ".txt":
            _save_list(path, jobs, out / path.relative_to(source))
    hours = sum(lengths.values()) / RATE / 3600
    shown = f"wrote {out}: {len(lengths):,} files, {hours:.2f} h of WAV, {len(tables)} CSVs"
    return finish(out, [shown], problems, f"name {out} where you named {source}")


def _rows(path: Path) -> pd.DataFrame | None:
    """Read a CSV as text, with the absolute `path` of each file; None if it is no list of files."""
    try:
        rows = csv_rows(path)
        _, header = next(rows, (0, []))
        if "wav" not in header or len(set(header)) < len(header):
            return None
        frame = pd.DataFrame([row for _, row in rows], columns=header, dtype=str)
    except (InputError, ValueError):  # no table, or rows of other lengths
        return None
    return frame.assign(path=[os.path.abspath(manifest.resolve(wav, path.parent)) for wav in frame.wav])


def _target(path: str, source: Path, out: Path) -> Path:
    if not path.startswith(f"{source}/"):
        raise InputError(f"{path} is not below {source}: name the folder that holds the lists and all of their files")
    return (out / os.path.relpath(path, source)).with_suffix(".wav")


def _write(path: str, target: Path) -> int | str:
    """Write a file as WAV -> the samples that it has, or what is wrong with the file."""
    try:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            audio.write(target, audio.read(path, rate=RATE, strict=False), RATE)
        return audio.info(target).frames
    except audio.AudioError as error:
        return str(error)


def _save(rows: pd.DataFrame, lengths: dict[str, int], jobs: dict[str, Path], target: Path) -> None:
    """Write a list anew. Segments stay segments: `start` and `stop` of a manifest are in samples of the old rate."""
    if {"start", "stop"} <= set(rows.columns):
        rates = {path: audio.info(path).rate for path in rows.path.unique()}
        for column in ("start", "stop"):
            moved = [
                min(round(int(sample) * RATE / rates[path]), lengths[path])
                for sample, path in zip(rows[column], rows.path)
            ]
            rows = rows.assign(**{column: moved})
    rows = rows.assign(wav=[os.path.relpath(jobs[path], target.parent) for path in rows.path])
    with atomic_write(target) as temporary:
        rows.drop(columns="path").to_csv(temporary, index=False, lineterminator="\n")


def _save_list(path: Path, jobs: dict[str, Path], target: Path) -> None:
    """Write a trial list anew, in which every word that is one of the files gets the new name."""
    folder = str(path.parent)

    def renamed(word: str) -> str:
        new = jobs.get(os.path.join(folder, word))
        return os.path.relpath(new, target.parent) if new else word

    try:
        text = "".join(" ".join(map(renamed, line.split())) + "\n" for line in lines(path))
    except InputError:  # no text
        return
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    return command(parser("wav", __doc__ or "", speakers=False), prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
