"""Manifests: CSV files of utterances, `ID,duration,wav,start,stop,spk_id` and others; read, check, write, scan.

`start` and `stop` are samples at the file's own rate, `duration` is the segment's length in seconds, and `wav` is
absolute, relative to the data root (the CSV's folder unless said otherwise), or begins with `$data_root`. `spk_id` may
be absent.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from sv_ssl import audio
from sv_ssl.core.errors import InputError, Skipped
from sv_ssl.core.files import aside

COLUMNS = ("ID", "duration", "wav", "start", "stop", "spk_id")
NEEDED = COLUMNS[:5]
SHOWN = 10  # bad lines that one message lists
CHUNK = 256  # lines or files taken at a time


class ManifestError(InputError):
    """One line on what is wrong with a manifest or a folder of recordings: the file, the line and the column."""


# ------------------------------------------------------------------------------------------------ read and write
def read(path: str | os.PathLike, data_root: str | os.PathLike | None = None) -> pd.DataFrame:
    """CSV -> a row an utterance: `duration` float64, `start` and `stop` int64, all else text; `wav` is absolute.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "train.csv"
    >>> _ = path.write_text("ID,duration,wav,start,stop,spk_id\\na,2.0,$data_root/a.wav,0,32000,anna\\n")
    >>> list(read(path, data_root="/data").itertuples(index=False, name=None))
    [('a', 2.0, '/data/a.wav', 0, 32000, 'anna')]
    """
    root = os.path.abspath(data_root if data_root is not None else Path(path).parent)
    columns = _columns(path)
    if columns is None:
        raise ManifestError(_complaint(path))
    columns["wav"] = [resolve(wav, root) for wav in columns["wav"]]
    frame = pd.DataFrame(columns)
    frame.attrs["data_root"] = root
    return frame


def write(frame: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write a manifest that `read` accepts: the known columns first, then the others; `wav` as it stands.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/one.csv"
    >>> write(pd.DataFrame({"ID": ["a"], "duration": [0.5], "wav": ["/a.wav"], "start": [0], "stop": [8000]}), path)
    >>> print(Path(path).read_text().strip())
    ID,duration,wav,start,stop
    a,0.5,/a.wav,0,8000
    """
    _check_header(path, list(frame.columns))
    known = [column for column in COLUMNS if column in frame]
    others = [column for column in frame.columns if column not in COLUMNS]
    with aside(path) as temporary:
        frame[known + others].to_csv(temporary, index=False, lineterminator="\n")


def resolve(wav: str, data_root: str | os.PathLike) -> str:
    """A manifest's `wav` -> the file's path.

    >>> resolve("$data_root/a.wav", "/data"), resolve("b/a.wav", "/data"), resolve("/c/a.wav", "/data")
    ('/data/a.wav', '/data/b/a.wav', '/c/a.wav')
    """
    root = os.fspath(data_root)
    return wav.replace("$data_root", root) if "$data_root" in wav else os.path.join(root, wav)


@contextmanager
def _reader(path: str | os.PathLike) -> Iterator:
    """A csv.reader of the file; a byte order mark, CRLF and blanks after commas are taken as they come."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            try:
                yield reader
            except csv.Error as error:
                raise ManifestError(f"{path}:{reader.line_num}: not CSV: {error}") from None
            except UnicodeDecodeError:
                raise ManifestError(f"{path}: not UTF-8 text, somewhere after line {reader.line_num}") from None
    except OSError as error:
        raise ManifestError(f"cannot read the manifest {path}: {error.strerror}") from None


def _check_header(path: str | os.PathLike, header: list[str]) -> None:
    missing = [column for column in NEEDED if column not in header]
    twice = sorted({column for column in header if header.count(column) > 1})
    if missing or twice:
        fault = f"no column {_quoted(missing)}" if missing else f"column {_quoted(twice)} twice"
        raise ManifestError(
            f"{path}:1: {fault}: want the header {','.join(NEEDED)}[,spk_id][,others], "
            f"got {','.join(header)[:200] or 'nothing'}"
        )


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _columns(path: str | os.PathLike) -> dict | None:
    """The columns by name, or None where any line is bad: all lines are checked at once, for speed."""
    with _reader(path) as reader:
        header: list[str] = next(reader, [])
        _check_header(path, header)
        texts: list[list[str]] = [[] for _ in header]
        while block := list(islice(reader, CHUNK)):  # short blocks, for many rows at once are slow to turn round
            if set(map(len, block)) - {0, len(header)}:
                return None
            for text, values in zip(texts, zip(*filter(None, block))):
                text.extend(values)
    if not texts[0]:
        raise ManifestError(f"{path}: no utterances below the header")
    return _typed(dict(zip(header, texts)), len(texts[0]))


def _typed(columns: dict, n: int) -> dict | None:
    try:
        duration, start, stop = (
            np.fromiter(map(kind, columns[name]), kind, n)
            for name, kind in (("duration", float), ("start", int), ("stop", int))
        )
    except (ValueError, OverflowError):
        return None
    good = np.isfinite(duration).all() and duration.min() > 0 and start.min() >= 0 and (stop > start).all()
    filled = all(all(columns[name]) for name in ("ID", "wav", "spk_id") if name in columns)
    columns.update(duration=duration, start=start, stop=stop)
    return columns if good and filled and len(set(columns["ID"])) == n else None


def _complaint(path: str | os.PathLike) -> str:
    """The bad lines of a manifest that has some, the first ten in words."""
    with _reader(path) as reader:
        header = next(reader)
        seen: dict[str, int] = {}
        faults = ((reader.line_num, _fault(header, row, seen, reader.line_num)) for row in reader if row)
        bad = (f"{path}:{number}: {fault}" for number, fault in faults if fault)
        shown = list(islice(bad, SHOWN))
        more = sum(1 for _ in bad)
    return "; ".join(shown) + (f"; and {more} more: {len(shown) + more} bad lines in all" if more else "")


def _fault(header: list[str], row: list[str], seen: dict[str, int], number: int) -> str | None:
    """What is wrong with a line, or None; `seen` holds the line of each ID so far."""
    if len(row) != len(header):
        return f"{len(row)} fields, want {len(header)} ({','.join(header)})"
    fields = dict(zip(header, row))
    for column in ("ID", "wav", "spk_id"):
        if fields.get(column) == "":
            return f'column "{column}" is empty'
    if not _is_number(float, fields["duration"]) or not 0 < float(fields["duration"]) < np.inf:
        return f'column "duration" is "{fields["duration"]}", want a positive number of seconds'
    for column in ("start", "stop"):
        if not _is_number(int, fields[column]) or not 0 <= int(fields[column]) < 2**63:
            return f'column "{column}" is "{fields[column]}", want a whole number of samples'
    if int(fields["stop"]) <= int(fields["start"]):
        return f'column "stop" is {fields["stop"]}, want more than "start", {fields["start"]}'
    first = seen.setdefault(fields["ID"], number)
    return None if first == number else f'column "ID" is "{fields["ID"]}", as on line {first}: want each ID once'


def _is_number(kind: Callable, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------------------------------------- scan a folder
class Entry(NamedTuple):
    """An utterance before its file was opened; `span` in seconds, or None for the whole file."""

    id: str
    path: str
    span: tuple[float, float] | None = None
    spk_id: str | None = None
    session: str | None = None


def scan(source: str | os.PathLike, progress: bool = True, workers: int | None = None) -> pd.DataFrame:
    """A Kaldi folder, a VoxCeleb tree, a folder a speaker, or a folder of files -> a manifest, sorted by path.

    `wav` begins with `$data_root`, which stands for `source`. What cannot be read is left out and named in
    `attrs["skipped"]`, a list of `Skipped` by path, or by ID of a segment.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> audio.write(folder + "/anna/1.wav", np.ones(8000) / 2, rate=16000)
    >>> list(scan(folder).itertuples(index=False, name=None))
    [('anna/1.wav', 0.5, '$data_root/anna/1.wav', 0, 8000, 'anna')]
    """
    if (Path(source) / "wav.scp").is_file():
        return from_kaldi(source, progress, workers)
    files = _found(source)
    if any(map(VOXCELEB.search, files)):
        return from_voxceleb(source, progress, workers)
    return (from_speakers if any("/" in file for file in files) else from_flat)(source, progress, workers)


VOXCELEB = re.compile(r"(?:^|/)((id\d{5})/([^/]+)/[^/]+)$")


def from_voxceleb(source: str | os.PathLike, progress: bool = True, workers: int | None = None) -> pd.DataFrame:
    """`.../id10001/session/utterance.ext` -> manifest; an ID reads as in VoxCeleb's trial lists."""
    found = {file: VOXCELEB.search(file) for file in _found(source)}
    entries = [Entry(m[1], file, None, m[2], m[3]) for file, m in found.items() if m]
    others = [file for file, match in found.items() if not match]
    skipped = [Skipped(file, "misplaced", f"{file}: not id00000/session/utterance") for file in others]
    return measured(source, entries, skipped, progress, workers)


def from_speakers(source: str | os.PathLike, progress: bool = True, workers: int | None = None) -> pd.DataFrame:
    """`speaker/.../utterance.ext` -> manifest; folders in between are the session, where every file has them."""
    found = {file: file.split("/") for file in _found(source)}
    deep = min((len(parts) for parts in found.values() if len(parts) > 1), default=0) > 2
    entries = [
        Entry(file, file, None, parts[0], "/".join(parts[:-1]) if deep else None)
        for file, parts in found.items()
        if len(parts) > 1
    ]
    others = [file for file, parts in found.items() if len(parts) == 1]
    skipped = [Skipped(file, "misplaced", f"{file}: not below a speaker's folder") for file in others]
    return measured(source, entries, skipped, progress, workers)


def from_flat(source: str | os.PathLike, progress: bool = True, workers: int | None = None) -> pd.DataFrame:
    """Every recording below a folder -> manifest, without speakers."""
    return measured(source, [Entry(file, file) for file in _found(source)], [], progress, workers)


def from_kaldi(source: str | os.PathLike, progress: bool = True, workers: int | None = None) -> pd.DataFrame:
    """`wav.scp`, and `segments` and `utt2spk` where they are there -> manifest; commands in `wav.scp` are refused.

    A relative path is looked for below the folder, then below the working directory.
    """
    folder = Path(source)
    paths = {key: _plain(folder, line, path) for key, (line, path) in _table(folder / "wav.scp", "id path").items()}
    entries = [Entry(key, path) for key, path in paths.items()]
    if (folder / "segments").is_file():
        segments = _table(folder / "segments", "id recording start end")
        entries = [_segment(folder, paths, key, line, rest) for key, (line, rest) in segments.items()]
    if (folder / "utt2spk").is_file():
        speakers = _table(folder / "utt2spk", "id speaker")
        if absent := next((entry.id for entry in entries if entry.id not in speakers), None):
            raise ManifestError(f'{folder / "utt2spk"}: no speaker for utterance "{absent}"')
        entries = [entry._replace(spk_id=speakers[entry.id][1]) for entry in entries]
    return measured(source, entries, [], progress, workers)


def _table(path: Path, want: str) -> dict[str, tuple[int, str]]:
    """A Kaldi table -> {key: (line number, the rest of the line)}."""
    table: dict[str, tuple[int, str]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        fields = line.split(None, 1)
        if len(fields) == 1:
            raise ManifestError(f'{path}:{number}: want "{want}", got "{line.strip()}"')
        if fields and fields[0] in table:
            raise ManifestError(f'{path}:{number}: "{fields[0]}" is on line {table[fields[0]][0]} already')
        if fields:
            table[fields[0]] = number, fields[1].strip()
    return table


def _plain(folder: Path, line: int, path: str) -> str:
    if path.endswith("|"):
        raise ManifestError(
            f'{folder / "wav.scp"}:{line}: "{path}" is a command, want the path of an audio file: run '
            "the commands once and list the files they write"
        )
    inside = os.path.join(folder, path)
    found = inside if os.path.exists(inside) else path
    below = os.path.relpath(found, folder)
    return os.path.abspath(found) if below.startswith("..") else below


def _segment(folder: Path, paths: dict[str, str], key: str, line: int, rest: str) -> Entry:
    place, fields = f"{folder / 'segments'}:{line}", rest.split()
    if len(fields) != 3 or not all(_is_number(float, field) for field in fields[1:]):
        raise ManifestError(f'{place}: want "id recording start end" with times in seconds, got "{key} {rest}"')
    if fields[0] not in paths:
        raise ManifestError(f'{place}: recording "{fields[0]}" is not in wav.scp')
    start, end = float(fields[1]), float(fields[2])
    if not 0 <= start < end < np.inf:
        raise ManifestError(f"{place}: from {fields[1]} to {fields[2]} s is no segment: want 0 <= start < end")
    return Entry(key, paths[fields[0]], (start, end))


def _found(source: str | os.PathLike) -> list[str]:
    if not os.path.isdir(source):
        raise ManifestError(f"{source}: no such folder")
    files = audio.find(os.fspath(source))
    if not files:
        raise ManifestError(
            f"{source}: no audio files in it or below: want {', '.join(audio.AUDIO_SUFFIXES)}"
            " (others, such as .m4a, must be converted)"
        )
    return files


def measured(
    source: str | os.PathLike,
    entries: list[Entry],
    skipped: list[Skipped],
    progress: bool = True,
    workers: int | None = None,
) -> pd.DataFrame:
    """Entries -> manifest, by the header of every file, a chunk of files at a time in each thread; see `scan`."""
    if not entries:
        raise ManifestError(f"{source}: no utterances are listed or found there")
    entries = sorted(entries, key=lambda entry: (entry.path, entry.span or (0, 0)))
    chunks = [entries[i : i + CHUNK] for i in range(0, len(entries), CHUNK)]
    rows: list[tuple] = []
    shown = progress and sys.stderr.isatty()
    with (
        tqdm(total=len(entries), unit="file", desc="scanning", leave=False, disable=not shown) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        for chunk, results in zip(chunks, pool.map(lambda chunk: [_row(source, entry) for entry in chunk], chunks)):
            for entry, row in zip(chunk, results):
                if isinstance(row, audio.AudioError):
                    skipped.append(Skipped(entry.id if entry.span else entry.path, row.kind, str(row)))
                else:
                    rows.append(row)
            bar.update(len(chunk))
    if not rows:
        raise ManifestError(f"{source}: none of {len(skipped)} files can be used; the first: {skipped[0].reason}")
    return _frame(source, rows, skipped)


def _row(source: str | os.PathLike, entry: Entry) -> tuple | audio.AudioError:
    """The manifest's line for an utterance, or why there is none."""
    path = os.path.join(source, entry.path)
    try:
        rate, frames, _ = audio.info(path)
    except audio.AudioError as error:
        return error
    begin, end = entry.span or (0.0, frames / rate)
    start, stop = round(begin * rate), min(round(end * rate), frames)
    if end > frames / rate + 0.5:  # what Kaldi lets pass
        text = f'{path}: segment "{entry.id}" ends at {end} s, but the file at {frames / rate:.3f} s'
        return audio.AudioError(text, "truncated")
    if stop - start < audio.MIN_SECONDS * rate:
        text = f"{path}: {(stop - start) / rate:.3f} s is too short, want at least {audio.MIN_SECONDS} s"
        return audio.AudioError(text, "short")
    wav = entry.path if os.path.isabs(entry.path) else f"$data_root/{entry.path}"
    return entry.id, (stop - start) / rate, wav, start, stop, entry.spk_id, entry.session


def _frame(source: str | os.PathLike, rows: list[tuple], skipped: list[Skipped]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=[*COLUMNS, "session"])
    if not frame["ID"].is_unique:
        key = frame["ID"][frame["ID"].duplicated()].iloc[0]
        both = frame["wav"][frame["ID"] == key]
        if both.nunique() < len(both):
            raise ManifestError(f"{source}: {both.iloc[0]} is listed {len(both)} times: want it once")
        raise ManifestError(f'{source}: {" and ".join(both)} would share the ID "{key}": scan their folders apart')
    frame = frame.drop(columns=[name for name in ("spk_id", "session") if frame[name].isna().all()])
    frame.attrs.update(skipped=skipped, data_root=os.path.abspath(source))
    return frame
