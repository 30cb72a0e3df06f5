"""Find what INPUT names: utterances of a manifest, a folder, a list, a Kaldi folder or an RTTM; and windows in them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sv_ssl import audio
from sv_ssl.core.errors import InputError, Skipped
from sv_ssl.core.text_file import lines
from sv_ssl.data import manifest, rttm, scan

LISTS = (".txt", ".lst")
LEAST_WINDOW, LEAST_HOP = audio.MIN_SECONDS, 0.02  # seconds; ids tell windows apart that are 0.01 s apart


class Memory(io.BytesIO):
    """An audio file in memory, by the name that messages give it."""

    def __str__(self) -> str:
        return "the samples given"


class Utterance(NamedTuple):
    """A part of a recording, in the file's own samples."""

    id: str
    wav: str | Memory
    start: int = 0
    stop: int | None = None
    recording: str = ""  # what its windows are called by, if not by its id

    def open(self) -> Any:
        """What to read: the path, or the file in memory from its beginning, for this reader alone."""
        if isinstance(self.wav, Memory):
            return Memory(self.wav.getvalue())
        return self.wav


class Window(NamedTuple):
    """A window and its seconds in the recording, whatever part of it the utterance was."""

    utterance: Utterance
    recording: str
    start: float
    stop: float


def find(
    inputs: Sequence[str],
    root: str | os.PathLike | None = None,
    joined: bool = False,
) -> tuple[list[Utterance], list[Skipped]]:
    """A manifest .csv, folder, Kaldi `wav.scp` or its folder, .rttm, .txt or .lst list, "-", or audio files.

    An id is the path as given, relative to the input: to the folder, or to the CSV's own. A CSV that uses a recording
    more than once, or recordings that are not below it, is known by its ID column, Kaldi's by their keys, the turns of
    an RTTM by recording and seconds, such as `meeting/000012.00-000013.50`. `root` is the folder of the audio of an
    RTTM or a list, else their own.
    With `joined`, turns of an RTTM that touch or overlap are one utterance.
    """
    source = Path(inputs[0])
    skipped: list[Skipped] = []
    if root is not None:
        _check_root(inputs, Path(root))
    if len(inputs) > 1 or source.suffix.lower() in audio.AUDIO_SUFFIXES:
        found = [Utterance(path, path) for path in inputs]
    elif source.name == "wav.scp" or (source / "wav.scp").is_file():
        found, skipped = _measured(scan.from_kaldi(source.parent if source.name == "wav.scp" else source))
    elif source.is_dir():
        found = [Utterance(name, str(source / name)) for name in audio.find(source)]
    elif source.suffix == ".csv":
        found = _manifest(source)
    elif source.suffix == ".rttm":
        found, skipped = _turns(source, Path(root or source.parent), joined)
    elif inputs[0] == "-" or source.suffix in LISTS:
        found = _listed(source, Path(root or source.parent))
    else:
        raise InputError(
            f"{source} is not {'there' if not source.exists() else 'an input'}: wanted a manifest .csv, a "
            f"folder, a wav.scp, an .rttm, a list ({', '.join(LISTS)}, - for standard input) or audio "
            f"files ({', '.join(audio.AUDIO_SUFFIXES)})"
        )
    if manifest.breaks_line("".join(one.id for one in found)):
        odd = next(one.id for one in found if manifest.breaks_line(one.id))
        raise InputError(f"{odd!r} has a line break, and ids are written one a line: rename the file")
    if not found and not skipped:
        raise InputError(f"{source} holds no audio files ({', '.join(audio.AUDIO_SUFFIXES)})")
    return found, skipped


def _check_root(inputs: Sequence[str], root: Path) -> None:
    """Refuse a folder of the audio that is not there, or for inputs that say themselves where their audio is."""
    if len(inputs) > 1 or not (inputs[0] == "-" or Path(inputs[0]).suffix in (".rttm", *LISTS)):
        fault = "wanted the input to be an RTTM or a list: others say where their audio is"
    else:
        fault = "" if root.is_dir() else "no such folder"
    if fault:
        raise InputError(f"the audio's folder is given as {root}: {fault}")


def refuse_twins(ids: Iterable[str]) -> None:
    """Raise InputError for an id that comes twice: the two could not be told apart in what is written."""
    seen: set[str] = set()
    for i in ids:
        if i in seen:
            raise InputError(f"the id {i} comes twice: name each recording once, or give ids in a manifest .csv")
        seen.add(i)


def _manifest(path: Path) -> list[Utterance]:
    frame = manifest.read(path)
    below = [os.path.relpath(wav, path.parent) for wav in frame["wav"]]
    if frame["wav"].is_unique and not any(name.startswith("..") for name in below):
        frame["ID"] = below
    return _rows(frame, path.parent)


def _measured(frame: pd.DataFrame) -> tuple[list[Utterance], list[Skipped]]:
    return _rows(frame, frame.attrs["data_root"]), frame.attrs["skipped"]


def _rows(frame: pd.DataFrame, root: str | os.PathLike) -> list[Utterance]:
    wavs = [manifest.resolve(wav, root) for wav in frame["wav"]]
    return [Utterance(*row) for row in zip(frame["ID"], wavs, frame["start"].tolist(), frame["stop"].tolist())]


def _listed(source: Path, root: Path) -> list[Utterance]:
    """Read a path a line; look for a relative one below `root`, then below the working directory."""
    given = None
    if str(source) == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed: wanted a list of audio files, a path a line")
        given = sys.stdin
        if isinstance(given, io.TextIOWrapper):
            given.reconfigure(encoding="utf-8-sig", errors="strict")  # whatever the terminal's is
    paths = [line.rstrip("\n") for line in lines(source, given) if line.strip()]
    if not paths:
        raise InputError(f"{source}: empty: wanted a list of audio files, a path a line")
    return [Utterance(path, str(root / path) if (root / path).exists() else path) for path in paths]


def _turns(source: Path, root: Path, joined: bool) -> tuple[list[Utterance], list[Skipped]]:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder: --audio names the folder of the recordings of {source}")
    names = audio.find(root)
    entries: dict[str, scan.Entry] = {}
    skipped: list[Skipped] = []
    for recording, turns in rttm.read(source).items():
        files = [name for name in names if name.rpartition("/")[2].startswith(f"{recording}.")]
        if len(files) > 1:
            raise InputError(f"{root} has several files for {recording} of {source}: {files[0]}, {files[1]}")
        if not files:
            skipped.append(Skipped(recording, "missing", f"{recording}: no audio file of this name below {root}"))
            continue
        for start, stop in rttm.merged(turns) if joined else sorted({turn[:2] for turn in turns}):
            name = _name(recording, start, stop)
            entries[name] = scan.Entry(name, files[0], (start, stop))
    if not entries:
        raise InputError(skipped[0].reason if skipped else f"{source}: no turns")
    found, skipped = _measured(scan.measure(root, list(entries.values()), skipped))
    return [turn._replace(recording=turn.id.rpartition("/")[0]) for turn in found], skipped


def _name(recording: str, start: float, stop: float) -> str:
    return f"{recording}/{start:09.2f}-{stop:09.2f}"


def seconds(utterances: Sequence[Utterance]) -> list[float]:
    """Return how long each is, by the headers; 0 for what cannot be opened."""
    lengths: list[float] = []
    for _, run in groupby(utterances, key=lambda utterance: utterance.wav):
        listed = list(run)
        try:
            about = audio.info(listed[0].open())
        except audio.AudioError:
            lengths += [0.0] * len(listed)
            continue
        for part in listed:
            lengths.append(((about.frames if part.stop is None else part.stop) - part.start) / about.rate)
    return lengths


def windows(utterances: Sequence[Utterance], window: float, hop: float) -> tuple[list[Window], list[Skipped]]:
    """Windows of `window` seconds every `hop` seconds of each utterance; see `cut`.

    An id is the utterance's, or the recording's for a turn of an RTTM, and the seconds in the recording:
    `meeting/000012.00-000013.50`.
    """
    check_windows(window, hop)
    found: list[Window] = []
    skipped: list[Skipped] = []
    for whole in utterances:
        try:
            about = audio.info(whole.open())
        except audio.AudioError as error:
            skipped.append(Skipped(whole.id, error.kind, str(error)))
            continue
        rate, stop = about.rate, about.frames if whole.stop is None else whole.stop
        recording = whole.recording or whole.id
        for begin, end in cut(whole.start, stop, window * rate, hop * rate):
            name = _name(recording, begin / rate, end / rate)
            found.append(Window(Utterance(name, whole.wav, begin, end), recording, begin / rate, end / rate))
    return found, skipped


def check_windows(window: float, hop: float, least_window: float = LEAST_WINDOW, least_hop: float = LEAST_HOP) -> None:
    """Raise InputError for windows or hops, in seconds, that are too short, or that leave gaps."""
    if not (least_window <= window < np.inf and least_hop <= hop <= window):
        raise InputError(
            f"windows of {window:g} s every {hop:g} s: wanted windows of {least_window} s or more, every "
            f"{least_hop} s or more, and not more than their length"
        )


def cut(start: int, stop: int, window: float, hop: float) -> list[tuple[int, int]]:
    """Cut samples `start` to `stop` into windows of one length -> the first sample of each, and that after its last.

    Windows stand every hop as long as they fit; where they do not reach the end, a last one ends there. A part that is
    shorter than a window is one window, as it is.

    >>> cut(0, 40, 15, 7.5)
    [(0, 15), (8, 23), (15, 30), (22, 37), (25, 40)]
    >>> cut(0, 10, 15, 7.5)
    [(0, 10)]
    """
    length, room = round(window), stop - start - round(window)
    begins = [round(k * hop) for k in range(int(max(room, 0) / hop) + 1)]
    if room > begins[-1]:
        begins.append(room)
    return [(start + begin, min(start + begin + length, stop)) for begin in begins]
