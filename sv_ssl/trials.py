"""Trial lists and score files: the one reader and the one writer. numpy alone, so that `sv-score` starts at once.

A file is recognised by its content: blanks, tabs or commas; plain or gzip; the label first, last or between:

    1 enroll test             VoxCeleb            enroll test target          Kaldi, target or nontarget
    enroll test 1             CN-Celeb            enroll test                 no labels: scores without metrics
    enroll test 0.73          scores              enroll test 0.73 target     labelled scores, as `write_scores` does

A first line of names (`enroll test label score` in any order, other columns ignored) settles what content cannot, such
as scores that are all 0 or 1. Ids are matched as they are given. Blank lines and lines that begin with # are skipped.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import sys
import zlib
from collections import Counter, defaultdict
from itertools import chain
from pathlib import Path
from typing import Callable, NamedTuple, Sequence

import numpy as np

from sv_ssl.files import InputError, aside

PROBE = 1000  # lines by which the form of a file is told
SHOWN = 10  # bad lines named in one message
WANTED = (
    "wanted lines such as `1 enroll test`, `enroll test target`, `enroll test` or `enroll test 0.73 target`, "
    "or a first line of names such as `enroll test label score`"
)
HEADER = {
    **dict.fromkeys(("enroll", "enrol", "enrollment", "enroll_id", "model", "modelid"), "enroll"),
    **dict.fromkeys(("test", "test_id", "segment", "segmentid"), "test"),
    **dict.fromkeys(("label", "target", "targettype"), "label"),
    **dict.fromkeys(("score", "llr"), "score"),
}
PAIRS = "1/0 target/nontarget tgt/imp genuine/impostor same/different true/false True/False p/n"
KNOWN_LISTS = {  # by their numbers of target and non-target trials
    (18860, 18860): "VoxCeleb1-O, original",
    (18802, 18809): "VoxCeleb1-O, cleaned",
    (290743, 290737): "VoxCeleb1-E, original",
    (276270, 276266): "VoxCeleb1-H, original",
    (275488, 275406): "VoxCeleb1-H, cleaned",
}
VOCABULARIES = [{yes: True, no: False} for yes, no in (pair.split(b"/") for pair in PAIRS.encode().split())]


class _Lines(NamedTuple):
    """What is left of a file without blank lines and comments."""

    name: str  # of the file
    numbers: list[int]  # from 1, in the file
    texts: list[bytes]


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

    def known_as(self) -> str | None:
        """The public list that has these numbers of target and non-target trials."""
        return None if self.labels is None else KNOWN_LISTS.get((int(self.labels.sum()), int((~self.labels).sum())))

    def summary(self) -> str:
        """What was recognised, in one line."""
        kinds = ", no labels"
        if self.labels is not None:
            kinds = f" ({self.labels.sum():,} target, {(~self.labels).sum():,} non-target)"
        known = f"; the size of {self.known_as()}" if self.known_as() else ""
        return f"{self.name}: {len(self.enroll):,} trials{kinds}, {len(self.ids):,} utterances; {self.form}{known}"


class _Layout(NamedTuple):
    separator: bytes | None  # None: runs of blanks
    names: list[str]  # of the columns: enroll, test, label, score, "" for others
    header: bool
    vocabulary: dict[bytes, bool]


def read_trials(path: str | os.PathLike) -> Trials:
    """Path of a trial list or score file ("-": standard input) -> Trials; bad lines are named by number and text.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "trials.txt"
    >>> _ = path.write_text("1 a/1.wav a/2.wav\\n0 a/1.wav b/1.wav\\n")
    >>> trials = read_trials(path)
    >>> trials.form, trials.ids, trials.labels.tolist()
    ('"label enroll test", separated by blanks', ['a/1.wav', 'a/2.wav', 'b/1.wav'], [True, False])
    """
    data = _content(path)
    lines = _lines("standard input" if str(path) == "-" else str(path), data)
    layout = _layout(lines)
    if layout.header:
        lines = _Lines(lines.name, lines.numbers[1:], lines.texts[1:])
    try:
        ids, enroll, test, labels, scores = _parse(lines.texts, layout)
    except (KeyError, ValueError):
        raise InputError(_bad_lines(lines, lambda i: _fault(lines.texts[i], layout))) from None
    if labels is not None:
        _refuse_contradictions(lines, enroll.astype(np.int64) * len(ids) + test, labels)
    return Trials(lines.name, hashlib.sha1(data).hexdigest(), _form(layout), ids, enroll, test, labels, scores)


def _content(path: str | os.PathLike) -> bytes:
    """Path or "-" -> the file's text as it is, unpacked."""
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 text: {WANTED}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: a damaged gzip file: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if b"\0" in data:
        raise InputError(f"{path}: a binary file: {WANTED}")
    return data


def _lines(name: str, data: bytes) -> _Lines:
    every = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    numbers = [i for i, text in enumerate(every, 1) if text.strip() and text[:1] != b"#"]
    if not numbers:
        raise InputError(f"{name}: no trials, the file is empty: {WANTED}")
    return _Lines(name, numbers, [every[i - 1] for i in numbers])


def _split(line: bytes, separator: bytes | None) -> list[bytes]:
    if separator is None:
        return line.split()  # of bytes: ASCII blanks only, other spaces belong to the id
    return [field.strip().strip(b'"') for field in line.split(separator)]


# --- recognising the form -------------------------------------------------------------------------------------------


def _layout(lines: _Lines) -> _Layout:
    """The first lines of a file -> its layout: by its line of names, else by the first separator that makes sense."""
    texts = lines.texts[:PROBE]
    for separator in (b",", b"\t", None):
        first = [HEADER.get(field.decode().lower(), "") for field in _split(texts[0], separator)]
        if "enroll" in first and "test" in first:
            if len(lines.texts) == 1:
                raise InputError(f"{lines.name}: no trials, only a line of names")
            return _with_vocabulary(separator, first, True, [_split(text, separator) for text in texts[1:]])
    for separator, blanks in ((b",", False), (None, False), (b"\t", True), (b",", True)):  # may ids hold blanks?
        rows = [_split(text, separator) for text in texts]
        width, count = Counter(map(len, rows)).most_common(1)[0]
        usual = [row for row in rows if len(row) == width]
        if 2 <= width <= 4 and 2 * count >= len(rows) and (blanks or b" " not in b"".join(chain(*usual))):
            names = _names(lines.name, list(zip(*usual)))
            if names:
                return _with_vocabulary(separator, names, False, usual)
    raise InputError(f"{lines.name}:{lines.numbers[0]}: not a trial list: {_quoted(texts[0])}; {WANTED}")


def _with_vocabulary(separator: bytes | None, names: list[str], header: bool, rows: list[list[bytes]]) -> _Layout:
    at = names.index("label") if "label" in names else len(names)
    labels = [row[at] for row in rows if len(row) > at]
    return _Layout(separator, names, header, max(VOCABULARIES, key=lambda words: sum(map(words.__contains__, labels))))


def _names(name: str, columns: list[tuple[bytes, ...]]) -> list[str]:
    """2 to 4 columns of a file without a line of names -> their names; [] if they make no sense."""
    names = [""] * len(columns)
    if len(columns) > 2:
        _give(name, names, "label", [_like_labels(column) - _share(column, _is_decimal) for column in columns])
    if names.count("") == 3:
        _give(name, names, "score", [_share(c, _is_number) + _share(c, _is_decimal) for c in columns])
    rest = iter(("enroll", "test"))
    return [n or next(rest) for n in names] if names.count("") == 2 else []


def _give(name: str, names: list[str], what: str, looks: list[float]) -> None:
    """Call the unnamed column that looks most like `what` by that name, if any does at least by half."""
    looks = [0 if taken else look for taken, look in zip(names, looks)]
    if looks.count(max(looks)) == 1 and max(looks) >= 0.5:
        names[looks.index(max(looks))] = what
    elif max(looks) >= 0.5:
        columns = " or ".join(str(i + 1) for i, look in enumerate(looks) if look == max(looks))
        advice = "begin the file with a line of names, such as `enroll test label score`"
        raise InputError(f"{name}: is column {columns} the {what}? {advice}")


def _like_labels(column: Sequence[bytes]) -> float:
    return max(_share(column, words.__contains__) for words in VOCABULARIES)


def _share(column: Sequence[bytes], fits: Callable[[bytes], bool]) -> float:
    return sum(map(fits, column)) / len(column)


def _is_number(field: bytes) -> bool:
    try:
        return float(field) == float(field)
    except ValueError:
        return False


def _is_decimal(field: bytes) -> bool:
    return _is_number(field) and not field.lstrip(b"+-").isdigit()


def _form(layout: _Layout) -> str:
    separator = {None: "blanks", b"\t": "tabs", b",": "commas"}[layout.separator]
    names = " ".join(name or "(ignored)" for name in layout.names)
    return f'"{names}", separated by {separator}' + (", with a line of names" if layout.header else "")


# --- reading the lines ----------------------------------------------------------------------------------------------


def _parse(texts: list[bytes], layout: _Layout) -> tuple:
    """Lines -> ids, enroll, test, labels, scores as in Trials; KeyError or ValueError if any line has a fault."""
    fields: list[bytes] = []  # one flat list: a list a line would keep the garbage collector busy
    for text in texts:
        row = _split(text, layout.separator)
        if len(row) != len(layout.names):
            raise ValueError("widths differ")
        fields += row
    columns = {name: fields[i :: len(layout.names)] for i, name in enumerate(layout.names) if name}
    number: defaultdict[bytes, int] = defaultdict()
    number.default_factory = number.__len__  # a new utterance gets the next number: one look-up each
    enroll, test = (np.fromiter(map(number.__getitem__, columns[side]), np.int32) for side in ("enroll", "test"))
    labels = np.array([layout.vocabulary[v] for v in columns["label"]]) if "label" in columns else None
    scores = np.array([float(v) for v in columns["score"]]) if "score" in columns else None
    if b"" in number or (scores is not None and np.isnan(scores).any()):
        raise ValueError("no id or no score")
    return [utterance.decode() for utterance in number], enroll, test, labels, scores


def _fault(text: bytes, layout: _Layout) -> str:
    """A line -> what is wrong with it, "" if nothing is."""
    row = _split(text, layout.separator)
    if len(row) != len(layout.names):
        return f"{len(row)} columns where {len(layout.names)} are expected"
    for name, field in zip(layout.names, row):
        if name in ("enroll", "test") and not field:
            return f"the {name} id is empty"
        if name == "label" and field not in layout.vocabulary:
            return f"label {_quoted(field)} is neither {' nor '.join(word.decode() for word in layout.vocabulary)}"
        if name == "score" and not _is_number(field):
            return f"score {_quoted(field)} is not a number"
    return ""


def _refuse_contradictions(lines: _Lines, pair: np.ndarray, labels: np.ndarray) -> None:
    """(N,) codes of the pairs, (N,) labels: one pair cannot be both target and non-target."""
    order = np.argsort(pair, kind="stable")
    clash = (pair[order][1:] == pair[order][:-1]) & (labels[order][1:] != labels[order][:-1])
    earlier = dict(zip(order[1:][clash].tolist(), order[:-1][clash].tolist()))
    if earlier:
        reason = "the pair has the other label on line {}"
        raise InputError(_bad_lines(lines, lambda i: reason.format(lines.numbers[earlier[i]]) if i in earlier else ""))


def _bad_lines(lines: _Lines, fault: Callable[[int], str]) -> str:
    """One bad line: one line of text. Several: their count, and the first ten beneath."""
    faults = [(i, reason) for i in range(len(lines.texts)) for reason in [fault(i)] if reason]
    shown = [f"{lines.numbers[i]}: {reason}: {_quoted(lines.texts[i])}" for i, reason in faults[:SHOWN]]
    if len(faults) == 1:
        return f"{lines.name}:{shown[0]}"
    head = f"{lines.name}: {len(faults):,} bad lines of {len(lines.texts):,}, nothing was scored"
    return "\n  line ".join([head, *shown])


def _quoted(text: bytes) -> str:
    whole = text.decode()
    return repr(whole[:80] + "..." * (len(whole) > 80))  # repr: no control character reaches the terminal


# --- writing, and what ids tell -------------------------------------------------------------------------------------


def write_scores(path: str | os.PathLike, trials: Trials, scores: np.ndarray) -> None:
    """(N,) -> lines `enroll test score [target|nontarget]`; float32 and float64 scores read back exactly."""
    separator = "\t" if any(len(i.split()) != 1 for i in trials.ids) else " "
    # Always with a decimal point, so that a score of 1 is not taken for a label.
    form = separator.join(["%s", "%s", "%#.9g" if scores.dtype == np.float32 else "%r"])
    columns = [map(trials.ids.__getitem__, codes.tolist()) for codes in (trials.enroll, trials.test)]
    columns.append(scores.tolist())
    if trials.labels is not None:
        form += separator + "%s"
        columns.append(np.where(trials.labels, "target", "nontarget").tolist())
    with aside(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
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
