"""Make manifests of folders: VoxCeleb's tree, a folder a speaker, plain files, and Kaldi's tables."""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from sv_ssl import audio
from sv_ssl.core.errors import InputError, Skipped
from sv_ssl.core.text_file import lines
from sv_ssl.data.manifest import COLUMNS, is_number, name_fault
from sv_ssl.data.rttm import LATEST

CHUNK = 256  # files that a thread takes at a time


class Entry(NamedTuple):
    """An utterance before its file was opened; `span` in seconds, or None for the whole file."""

    id: str
    path: str
    span: tuple[float, float] | None = None
    spk_id: str | None = None
    session: str | None = None


def scan(source: str | os.PathLike, progress: bool = True, workers: int | None = None) -> pd.DataFrame:
    """Make a manifest of a Kaldi folder, a VoxCeleb tree, a folder a speaker or a folder of files, sorted by path.

    `wav` begins with `$data_root`, which stands for `source`. What cannot be read is left out and named in
    `attrs["skipped"]`, a list of `Skipped` by path, or by ID of a segment.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> audio.write(folder + "/anna/1.wav", [0.5] * 8000, rate=16000)
    >>> list(scan(folder).itertuples(index=False, name=None))
    [('anna/1.wav', 0.5, '$data_root/anna/1.wav', 0, 8000, 'anna')]
    """
    if (Path(source) / "wav.scp").is_file():
        return from_kaldi(source, progress, workers)
    files = _list_files(source)
    if any(map(VOXCELEB.search, files)):
        return from_voxceleb(source, progress, workers)
    return (from_speakers if any("/" in file for file in files) else from_flat)(source, progress, workers)


VOXCELEB = re.compile(r"(?:^|/)((id\d{5})/([^/]+)/[^/]+)$")


def from_voxceleb(source: str | os.PathLike, progress: bool = True, workers: int | None = None) -> pd.DataFrame:
    """Make a manifest of `.../id10001/session/utterance.ext`; an ID reads as in VoxCeleb's trial lists."""
    matches = {file: VOXCELEB.search(file) for file in _list_files(source)}
    entries = [Entry(m[1], file, None, m[2], m[3]) for file, m in matches.items() if m]
    others = [file for file, match in matches.items() if not match]
    skipped = [Skipped(file, "misplaced", f"{file}: not id00000/session/utterance") for file in others]
    return measure(source, entries, skipped, progress, workers)


def from_speakers(source: str | os.PathLike, progress: bool = True, workers: int | None = None) -> pd.DataFrame:
    """Make a manifest of `speaker/.../utterance.ext`; folders in between are the session, where every file has them."""
    folders = {file: file.split("/") for file in _list_files(source)}
    deep = min((len(parts) for parts in folders.values() if len(parts) > 1), default=0) > 2
    entries = [
        Entry(file, file, None, parts[0], "/".join(parts[:-1]) if deep else None)
        for file, parts in folders.items()
        if len(parts) > 1
    ]
    others = [file for file, parts in folders.items() if len(parts) == 1]
    skipped = [Skipped(file, "misplaced", f"{file}: not below a speaker's folder") for file in others]
    return measure(source, entries, skipped, progress, workers)


def from_flat(source: str | os.PathLike, progress: bool = True, workers: int | None = None) -> pd.DataFrame:
    """Make a manifest of every recording below a folder, without speakers."""
    return measure(source, [Entry(file, file) for file in _list_files(source)], [], progress, workers)


def from_kaldi(source: str | os.PathLike, progress: bool = True, workers: int | None = None) -> pd.DataFrame:
    """Make a manifest of `wav.scp`, and of `segments` and `utt2spk` where they are there; refuse commands in `wav.scp`.

    A relative path is looked for below the folder, then below the working directory.
    """
    folder = Path(source)
    paths = {key: _find_file(folder, line, path) for key, (line, path) in _table(folder / "wav.scp", "id path").items()}
    entries = [Entry(key, path) for key, path in paths.items()]
    if (folder / "segments").is_file():
        segments = _table(folder / "segments", "id recording start end")
        entries = [_segment(folder, paths, key, line, rest) for key, (line, rest) in segments.items()]
    if (folder / "utt2spk").is_file():
        speakers = _table(folder / "utt2spk", "id speaker")
        if absent := next((entry.id for entry in entries if entry.id not in speakers), None):
            raise InputError(f'{folder / "utt2spk"}: no speaker for utterance "{absent}"')
        entries = [entry._replace(spk_id=speakers[entry.id][1]) for entry in entries]
    return measure(source, entries, [], progress, workers)


def _table(path: Path, want: str) -> dict[str, tuple[int, str]]:
    """Read a Kaldi table -> {key: (line number, the rest of the line)}."""
    table: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines(path), 1):
        fields = line.split(None, 1)
        if len(fields) == 1:
            raise InputError(f'{path}:{number}: want "{want}", got "{line.strip()[:90]}"')
        if fields and fields[0] in table:
            raise InputError(f'{path}:{number}: "{fields[0]}" is on line {table[fields[0]][0]} already')
        if fields:
            table[fields[0]] = number, fields[1].strip()
    return table


def _find_file(folder: Path, line: int, path: str) -> str:
    """Return a path of wav.scp, relative to the folder if it lies below it; refuse a command."""
    if path.endswith("|"):
        raise InputError(
            f'{folder / "wav.scp"}:{line}: "{path}" is a command, want the path of an audio file: run '
            "the commands once and list the files they write"
        )
    inside = os.path.join(folder, path)
    file = inside if os.path.exists(inside) else path
    below = os.path.relpath(file, folder)
    return os.path.abspath(file) if below.startswith("..") else below


def _segment(folder: Path, paths: dict[str, str], key: str, line: int, rest: str) -> Entry:
    """Read a line of `segments`."""
    place, fields = f"{folder / 'segments'}:{line}", rest.split()
    if len(fields) != 3 or not all(is_number(float, field) for field in fields[1:]):
        raise InputError(f'{place}: want "id recording start end" with times in seconds, got "{key} {rest}"')
    if fields[0] not in paths:
        raise InputError(f'{place}: recording "{fields[0]}" is not in wav.scp')
    start, end = float(fields[1]), float(fields[2])
    if not 0 <= start < end <= LATEST:
        raise InputError(f"{place}: from {fields[1]} to {fields[2]} s is no segment: want 0 <= start < end")
    return Entry(key, paths[fields[0]], (start, end))


def _list_files(source: str | os.PathLike) -> list[str]:
    if not os.path.isdir(source):
        raise InputError(f"{source}: no such folder")
    files = audio.find(os.fspath(source))
    if not files:
        raise InputError(
            f"{source}: no audio files in it or below: want {', '.join(audio.AUDIO_SUFFIXES)}"
            " (others, such as .m4a, must be converted)"
        )
    return files


def measure(
    source: str | os.PathLike,
    entries: list[Entry],
    skipped: list[Skipped],
    progress: bool = True,
    workers: int | None = None,
) -> pd.DataFrame:
    """Make a manifest of entries by the headers of their files, a chunk at a time in each thread; see `scan`."""
    if not entries:
        raise InputError(f"{source}: no utterances are listed or found there")
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
        raise InputError(f"{source}: none of {len(skipped)} files can be used; the first: {skipped[0].reason}")
    return _frame(source, rows, skipped)


def _row(source: str | os.PathLike, entry: Entry) -> tuple | audio.AudioError:
    """Return the manifest's line for an utterance, or why there is none."""
    if fault := name_fault(entry.id) or name_fault(entry.path):
        return audio.AudioError(f"{entry.path!r} {fault}: rename it", "misnamed")
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
            raise InputError(f"{source}: {both.iloc[0]} is listed {len(both)} times: want it once")
        raise InputError(f'{source}: {" and ".join(both)} would share the ID "{key}": scan their folders apart')
    frame = frame.drop(columns=[name for name in ("spk_id", "session") if frame[name].isna().all()])
    frame.attrs.update(skipped=skipped, data_root=os.path.abspath(source))
    return frame
