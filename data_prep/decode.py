"""Decode audio that libsndfile does not read (m4a and others) to 16 kHz mono FLAC through ffmpeg."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import check_ordinary

SUFFIXES = (".m4a", ".aac", ".mp4", ".m4b", ".mov", ".3gp", ".webm", ".mkv", ".wma", ".amr", ".aiff", ".ac3", ".sph")
BATCH = 16  # files an ffmpeg: to start one costs twice what it costs to decode 8 s
OPTIONS = ["-ac", "1", "-ar", "16000", "-sample_fmt", "s16", "-map_metadata", "-1", "-threads", "1"]


def require_ffmpeg(files: str) -> None:
    """Raise InputError unless ffmpeg is there to decode `files`."""
    if not shutil.which("ffmpeg"):
        raise InputError(
            f"ffmpeg is not on the PATH, and {files} can only be decoded with it: install it "
            "(apt-get install ffmpeg, or conda install ffmpeg) and give the same command again"
        )


def decode(pairs: Sequence[tuple[str | bytes, str]], folder: str | os.PathLike) -> list[str]:
    """Decode files, each (path or content, path to write) -> "" or what is wrong, for each; a file appears whole.

    Files in the making lie in a hidden folder below `folder`, which must be on the disk that is written to.
    """
    with TemporaryDirectory(prefix=".decoding-", dir=folder) as scratch:
        faults = [_no_file(source) for source, _ in pairs]
        jobs = {
            i: (_path(source, f"{scratch}/{i}.m4a"), f"{scratch}/{i}.out{os.path.splitext(target)[1]}")
            for i, (source, target) in enumerate(pairs)
            if not faults[i]
        }
        alone = bool(jobs) and _ffmpeg(list(jobs.values()))  # one bad file has stopped them all
        for i, job in jobs.items():
            faults[i] = (_ffmpeg([job]) if alone else "") or _unusable(job[1])
            if not faults[i]:
                os.makedirs(os.path.dirname(pairs[i][1]), exist_ok=True)
                os.replace(job[1], pairs[i][1])
    return faults


def _no_file(source: str | bytes) -> str:
    """Return why a path is never opened, or ""."""
    try:
        if isinstance(source, str):
            check_ordinary(source)
    except InputError as error:
        return str(error)
    return ""


def _path(source: str | bytes, path: str) -> str:
    if isinstance(source, str):
        return source
    Path(path).write_bytes(source)
    return path


def _ffmpeg(jobs: Sequence[tuple[str, str]]) -> str:
    """Decode the first audio stream of each file -> "", or the last line of ffmpeg's when it failed."""
    inputs = [word for source, _ in jobs for word in ("-i", f"file:{source}")]
    outputs = [word for i, (_, made) in enumerate(jobs) for word in ("-map", f"{i}:a:0", *OPTIONS, made)]
    command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-y", *inputs, *outputs]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", start_new_session=True
    )  # so that Ctrl-C lets it finish its files
    said = " ".join((done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1].split())
    if done.returncode and "No space left" in done.stderr:
        raise InputError(f"ffmpeg: {said}: make room and give the same command again")
    return f"ffmpeg: {said}" if done.returncode else ""


def _unusable(path: str) -> str:
    try:
        audio.info(path)
    except audio.AudioError:
        return "ffmpeg made no sound of it"
    return ""
