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
        jobs = [
            (_path(source, f"{scratch}/{i}.m4a"), f"{scratch}/{i}.out{os.path.splitext(target)[1]}")
            for i, (source, target) in enumerate(pairs)
        ]
        faults = [""] * len(jobs)
        if _ffmpeg(jobs):
            faults = [_ffmpeg([job]) for job in jobs]  # one bad file has stopped them all
        faults = [fault or _unusable(made) for fault, (_, made) in zip(faults, jobs)]
        for fault, (_, made), (_, target) in zip(faults, jobs, pairs):
            if not fault:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.replace(made, target)
    return faults


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
