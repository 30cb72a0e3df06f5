"""Trial lists and score files: the one reader and the one writer. numpy alone, so that `sv-score` starts at once.

A file is known by its content (`layout.py`): blanks, tabs or commas; plain or gzip; the label first, last or between:

    1 enroll test             VoxCeleb            enroll test target          Kaldi, target or nontarget
    enroll test 1             CN-Celeb            enroll test                 no labels: scores without metrics
    enroll test 0.73          scores              enroll test 0.73 target     labelled scores, as `write_scores` does

A first line of names (`enroll test label score` in any order, with further columns) settles what content cannot, such
as scores that are all 0 or 1. Ids are matched as they are given. Blank lines and lines that begin with # are skipped.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import os
import re
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside
from sv_ssl.core.progress import watched
from sv_ssl.verification.columns import ROLES, WANTED, Layout, fault, quoted, recognise, split

PROBE = 1000  # lines by which the form of a file is told
BLOCK = 1 << 24  # bytes read into lines at once
LARGE = 1 << 24  # bytes from which pyarrow's 0.2 s of import pay
SLOW = 1 << 27  # bytes that take seconds to read
LINES = 1 << 16  # lines written at once
SHOWN = 10  # bad lines named in one message
KNOWN_LISTS: dict[tuple[int, int] | int, str] = {  # by their numbers of target and non-target trials, or of both
    (18860, 18860): "VoxCeleb1-O, original",
    (18802, 18809): "VoxCeleb1-O, cleaned",
    (290743, 290737): "VoxCeleb1-E, original",
    579818: "VoxCeleb1-E, cleaned",
    (276270, 276266): "VoxCeleb1-H, original",
    (275488, 275406): "VoxCeleb1-H, cleaned",
}


class Trials(NamedTuple):
    """N trials over U utterances: each id is held once, the rest are arrays of (N,)."""

    name: str  # of the file, as it was given
    sha1: str  # of its text: what sha1sum prints for a plain file
    form: str  # the form that was recognised, in words
    ids: list[str]  # U
    enroll: np.ndarray  # int32, into ids
    test: np.ndarray  # int32, into ids
    labels: np.ndarray | None  # bool, True for a target trial
    scores: np.ndarray | None  # float64
    notes: list[str] = []  # what a reader of the results should know of the list
    columns: dict[str, list[str]] = {}  # further columns that were asked for

    def known_as(self) -> str | None:
        """The public list that has these numbers of target and non-target trials."""
        if self.labels is None:
            return None
        kinds = int(self.labels.sum()), int((~self.labels).sum())
        return KNOWN_LISTS.get(kinds) or KNOWN_LISTS.get(sum(kinds))

    def select(self, kept: np.ndarray, note: str) -> Trials:
        """(N,) bool -> those trials, and the utterances that they name; the note says why the others are gone."""
        number = np.full(len(self.ids), -1, np.int32)
        used = np.unique(np.concatenate([self.enroll[kept], self.test[kept]]))
        number[used] = np.arange(len(used), dtype=np.int32)
        return self._replace(
            ids=[self.ids[i] for i in used.tolist()],
            enroll=number[self.enroll[kept]],
            test=number[self.test[kept]],
            labels=None if self.labels is None else self.labels[kept],
            scores=None if self.scores is None else self.scores[kept],
            notes=[*self.notes, note],
            columns={name: np.array(values)[kept].tolist() for name, values in self.columns.items()},
        )

    def summary(self) -> str:
        """What was recognised, in one line."""
        kinds = ", no labels"
        if self.labels is not None:
            kinds = f" ({self.labels.sum():,} target, {(~self.labels).sum():,} non-target)"
        known = f"; the size of {self.known_as()}" if self.known_as() else ""
        return f"{self.name}: {len(self.enroll):,} trials{kinds}, {len(self.ids):,} utterances; {self.form}{known}"


def read_trials(path: str | os.PathLike, columns: Sequence[str] | None = None, keep: Sequence[str] = ()) -> Trials:
    """Path of a trial list or score file ("-": standard input) -> Trials; bad lines are named by number and text.

    columns  the names of the columns, for a file that has no line of names and cannot be told without
    keep     further columns to read, into Trials.columns; without a line of names the third is called c3

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "trials.txt"
    >>> _ = path.write_text("1 a/1.wav a/2.wav\\n0 a/1.wav b/1.wav\\n")
    >>> trials = read_trials(path)
    >>> trials.form, trials.ids, trials.labels.tolist()
    ('"label enroll test", separated by blanks', ['a/1.wav', 'a/2.wav', 'b/1.wav'], [True, False])
    """
    name, data, sha1 = _content(path)
    if len(data) > SLOW and sys.stderr.isatty():
        print(f"reading {name}: {len(data) / 1e6:,.0f} MB ...", file=sys.stderr)
    file = _File(name, data)
    first = file.first(PROBE)
    layout = recognise(f"{name}:{first[0][0]}", [text for _, text in first], columns)
    if layout.header:
        file = file.without_line(first[0][0])
    keep = [column for column in dict.fromkeys(keep) if column in layout.names and column not in ROLES.values()]
    parts = _parse_large(file, layout, keep) if len(data) >= LARGE else None
    ids, enroll, test, labels, scores, kept = parts or _parse(file, layout, keep)
    trials = Trials(name, sha1, layout.form(), ids, enroll, test, labels, scores, [], kept)
    _note_repeats(file, trials)
    if b"#" in data and (comments := data.startswith(b"#") + data.count(b"\n#")):
        trials.notes.append(f"lines that begin with # are passed over: {comments:,}")
    if not data.endswith((b"\n", b"\r")):
        trials.notes.append("the last line has no end: if the file was cut, trials are missing")
    return trials


def _content(path: str | os.PathLike) -> tuple[str, bytes, str]:
    """Path or "-" -> name, text with plain line ends, sha1 of the text as it is, unpacked."""
    name = "standard input" if str(path) == "-" else str(path)
    if str(path) == "-" and sys.stdin is None:
        raise InputError("standard input is closed: give a file, or a list through a pipe")
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{name}: a damaged gzip file: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, 0 if data.isascii() else len(data), BLOCK):
        try:
            decoder.decode(data[start : start + BLOCK], final=start + BLOCK >= len(data))
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, max(0, start + error.start)) + 1
            raise InputError(f"{name}:{line}: not UTF-8 text: {WANTED}") from None
    if b"\0" in data:
        raise InputError(f"{name}: a binary file: {WANTED}")
    sha1 = hashlib.sha1(data).hexdigest()
    data = data.removeprefix(b"\xef\xbb\xbf")
    return name, data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data, sha1


class _File:
    """A text: its lines in blocks, so that ten million of them are never held at once, without blanks and comments."""

    def __init__(self, name: str, data: bytes, start: int = 0, number: int = 1):
        self.name, self.data, self.start, self.number = name, data, start, number

    def blocks(self, size: int = BLOCK) -> Iterator[list[tuple[int, bytes]]]:
        """(number in the file, text) of the lines."""
        start, number = self.start, self.number
        while start < len(self.data):
            end = self.data.find(b"\n", start + size)
            every = self.data[start : end if end >= 0 else len(self.data)].split(b"\n")
            lines = [(i, text) for i, text in enumerate(every, number) if text.strip() and text[:1] != b"#"]
            if lines:
                yield lines
            start, number = end + 1 if end >= 0 else len(self.data), number + len(every)

    def first(self, count: int) -> list[tuple[int, bytes]]:
        lines: list[tuple[int, bytes]] = []
        for block in self.blocks(1 << 16):
            lines += block
            if len(lines) >= count:
                break
        if not lines:
            raise InputError(f"{self.name}: no trials, the file is empty: {WANTED}")
        return lines[:count]

    def without_line(self, number: int) -> _File:
        """What follows a line of names."""
        start = 0
        for _ in range(number):
            start = self.data.find(b"\n", start) + 1 or len(self.data)
        if not next(_File(self.name, self.data, start).blocks(), None):
            raise InputError(f"{self.name}: no trials, only a line of names")
        return _File(self.name, self.data, start, number + 1)

    def refuse(self, why: Callable[[int, bytes], str]) -> InputError:
        """`why` says of the i-th line what is wrong with it, "" if nothing: the error that names those lines."""
        shown, bad, i = [], 0, 0
        for number, text in (line for block in self.blocks() for line in block):
            if reason := why(i, text):
                bad += 1
                shown += [f"{number}: {reason}: {quoted(text)}"] if bad <= SHOWN else []
            i += 1
        if bad == 1:
            return InputError(f"{self.name}:{shown[0]}")
        head = f"{self.name}: {bad:,} bad lines of {i:,}, nothing was scored"
        return InputError("\n  line ".join([head, *shown]))


Parts = tuple[list[str], np.ndarray, np.ndarray, "np.ndarray | None", "np.ndarray | None", dict[str, list[str]]]


def _parse(file: _File, layout: Layout, keep: Sequence[str]) -> Parts:
    """Lines -> ids, enroll, test, labels, scores and further columns as in Trials."""
    number: defaultdict[bytes, int] = defaultdict()
    number.default_factory = number.__len__  # a new utterance gets the next number: one look-up each
    read: dict[str, list] = {name: [] for name in ("enroll", "test", "label", "score", *keep) if name in layout.names}
    try:
        for block in file.blocks():
            columns = _columns([text for _, text in block], layout)
            for side in ("enroll", "test"):
                read[side].append(np.fromiter(map(number.__getitem__, columns[side]), np.int32))
            if "label" in read:
                read["label"].append(np.array([layout.vocabulary[v] for v in columns["label"]]))
            if "score" in read:
                read["score"].append(np.array([float(v) for v in columns["score"]]))
            for name in keep:
                read[name] += [value.decode() for value in columns[name]]
    except (KeyError, ValueError):
        raise file.refuse(lambda i, text: fault(text, layout)) from None
    enroll, test, labels, scores = (
        np.concatenate(read[name]) if name in read else None for name in ("enroll", "test", "label", "score")
    )
    if b"" in number or (scores is not None and np.isnan(scores).any()):
        raise file.refuse(lambda i, text: fault(text, layout))
    assert enroll is not None and test is not None
    return [utterance.decode() for utterance in number], enroll, test, labels, scores, {n: read[n] for n in keep}


def _columns(texts: list[bytes], layout: Layout) -> dict[str, list[bytes]]:
    fields: list[bytes] = []  # one flat list: a list a line would keep the garbage collector busy
    for text in texts:
        row = split(text, layout.separator)
        if len(row) != len(layout.names):
            raise ValueError("widths differ")
        fields += row
    return {name: fields[i :: len(layout.names)] for i, name in enumerate(layout.names)}


def _parse_large(file: _File, layout: Layout, keep: Sequence[str]) -> Parts | None:
    """As `_parse`, three times as fast, of files without any irregularity; None if this one has some."""
    import pyarrow as pa
    import pyarrow.csv

    separator = layout.separator or (b"\t" if b"\t" in file.first(1)[0][1] else b" ")
    text = pa.dictionary(pa.int32(), pa.binary())
    types = {name: pa.float64() if name == "score" else text for name in layout.names}
    if layout.separator and b'"' in file.data:
        return None
    try:
        table = pyarrow.csv.read_csv(
            pa.py_buffer(memoryview(file.data)[file.start :]),
            pyarrow.csv.ReadOptions(column_names=layout.names, block_size=BLOCK),
            pyarrow.csv.ParseOptions(delimiter=separator.decode(), quote_char=False),
            pyarrow.csv.ConvertOptions(column_types=types, null_values=[], check_utf8=False),
        )
    except pa.ArrowInvalid:
        return None
    values, codes = {}, {}
    for name, column in zip(layout.names, table.unify_dictionaries().combine_chunks().columns):
        if name == "score":
            values[name] = column.to_numpy()
        else:
            column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            values[name], codes[name] = column.dictionary.to_pylist(), column.indices.to_numpy()
    return _merged(values, codes, layout, keep)


def _merged(values: dict, codes: dict, layout: Layout, keep: Sequence[str]) -> Parts | None:
    """Distinct values and codes of each column -> Parts; None if a value is such that only `_parse` can judge it."""
    for name in codes:  # of ids, and of all columns between blanks, each is one word
        word = layout.separator is None or name in ("enroll", "test")
        if any(v.split() != [v] if word else v.strip() != v for v in values[name]):
            return None
    if layout.names[0] == "score" or any(v[:1] == b"#" for v in values[layout.names[0]]):
        return None
    if not set(values.get("label", ())) <= set(layout.vocabulary) or np.isnan(values.get("score", 0.0)).any():
        return None
    number = dict(zip(values["enroll"], range(len(values["enroll"]))))
    test = np.array([number.setdefault(v, len(number)) for v in values["test"]], np.int32)
    labels = np.array([layout.vocabulary[v] for v in values["label"]])[codes["label"]] if "label" in codes else None
    kept = {name: np.array([v.decode() for v in values[name]])[codes[name]].tolist() for name in keep}
    ids = [utterance.decode() for utterance in number]
    return ids, codes["enroll"], test[codes["test"]], labels, values.get("score"), kept


def _note_repeats(file: _File, trials: Trials) -> None:
    """A pair that comes twice is noted; with another label or score it is an error."""
    pair = trials.enroll.astype(np.int64) * len(trials.ids) + trials.test
    ordered = np.sort(pair)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return
    place = np.searchsorted(repeated, pair)
    every = np.flatnonzero(np.append(repeated, -1)[place] == pair)
    order = every[np.argsort(pair[every], kind="stable")]
    same = pair[order[1:]] == pair[order[:-1]]
    before = dict(zip(order[1:][same].tolist(), order[:-1][same].tolist()))
    for values, what in ((trials.labels, "the other label"), (trials.scores, "another score")):
        clash = {i for i, j in before.items() if values is not None and values[i] != values[j]}
        if clash:
            numbers = [number for block in file.blocks() for number, _ in block]
            reason = f"the pair has {what} on line "
            raise file.refuse(lambda i, text: f"{reason}{numbers[before[i]]}" if i in clash else "")
    trials.notes.append(f"{len(before):,} trials are listed more than once, and count as often")


# --- writing, and what ids tell -------------------------------------------------------------------------------------


def write_scores(path: str | os.PathLike, trials: Trials, scores: np.ndarray) -> None:
    """(N,) -> lines `enroll test score [target|nontarget]`; float32 and float64 scores read back exactly."""
    separator = "\t" if any(len(i.split()) != 1 for i in trials.ids) else " "
    # Always with a decimal point, so that a score of 1 is not taken for a label.
    form = separator.join(["%s", "%s", "%#.9g" if scores.dtype == np.float32 else "%r"])
    if trials.labels is not None:
        form += separator + "%s"
    with aside(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for start in watched(range(0, len(scores), LINES), "writing", " lines", LINES, few=10):
            part = slice(start, start + LINES)
            columns = [map(trials.ids.__getitem__, codes[part].tolist()) for codes in (trials.enroll, trials.test)]
            columns.append(scores[part].tolist())
            if trials.labels is not None:
                columns.append(np.where(trials.labels[part], "target", "nontarget").tolist())
            file.writelines(form % row + "\n" for row in zip(*columns))


def speakers(trials: Trials) -> list[str] | None:
    """Trials -> the speaker of each of its ids, as the ids themselves begin; None if they do not tell.

    The shortest beginning, up to a / _ or -, that both sides of every target trial share and those of no other do.
    """
    if trials.labels is None:
        return None
    parts = [re.split(r"(?<=[/_-])", i) for i in trials.ids]
    for depth in range(1, 9):
        names = ["".join(part[:depth]) for part in parts]
        number = {name: i for i, name in enumerate(dict.fromkeys(names))}
        codes = np.array([number[name] for name in names])
        if np.array_equal(codes[trials.enroll] == codes[trials.test], trials.labels):
            return names
    return None
