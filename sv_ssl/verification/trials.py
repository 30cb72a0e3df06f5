"""Trial lists and score files: the one reader and the one writer. numpy alone, so that `sv-score` starts at once.

A file is known by its content (`columns.py`): blanks, tabs or commas; plain or gzip; the label first, last or between:

    1 enroll test             VoxCeleb            enroll test target          Kaldi, target or nontarget
    enroll test 1             CN-Celeb            enroll test                 no labels: scores without metrics
    enroll test 0.73          scores              enroll test 0.73 target     labelled scores, as `write_scores` does

A first line of names (`enroll test label score` in any order, with further columns) settles what content cannot, such
as scores that are all 0 or 1. Ids are matched as they are given. Blank lines and lines that begin with # are skipped.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.core.progress import watched
from sv_ssl.verification import listed_pairs
from sv_ssl.verification.columns import ROLES, check_columns, recognise
from sv_ssl.verification.error_curve import as_scores
from sv_ssl.verification.trial_lines import TrialText, parse, read_text
from sv_ssl.verification.trial_lines_fast import parse_large

PROBE = 1000  # lines by which the form of a file is told
LARGE = 1 << 24  # bytes from which pyarrow's 0.2 s of import pay
SLOW = 1 << 27  # bytes that take seconds to read
LINES = 1 << 16  # lines written at once
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
        """Return the public list that has these numbers of target and non-target trials, if one has."""
        if self.labels is None:
            return None
        kinds = int(self.labels.sum()), int((~self.labels).sum())
        return KNOWN_LISTS.get(kinds) or KNOWN_LISTS.get(sum(kinds))

    def select(self, kept: np.ndarray, note: str) -> Trials:
        """Return the trials of a mask (N,) and the utterances that they name; the note says why the others are gone."""
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

    def noted(self, notes: Sequence[str]) -> Trials:
        """Return the same trials with further notes."""
        return self._replace(notes=[*self.notes, *notes])

    def summary(self) -> str:
        """Say in one line what was recognised."""
        kinds = ", no labels"
        if self.labels is not None:
            kinds = f" ({self.labels.sum():,} target, {(~self.labels).sum():,} non-target)"
        known = f"; the size of {self.known_as()}" if self.known_as() else ""
        return f"{self.name}: {len(self.enroll):,} trials{kinds}, {len(self.ids):,} utterances; {self.form}{known}"


def read_trials(
    path: str | os.PathLike, columns: Sequence[str] | None = None, keep: Sequence[str] = (), sides_apart: bool = False
) -> Trials:
    """Read a trial list or score file ("-": standard input); bad lines are named by number and text.

    columns      the names of the columns, for a file that has no line of names and cannot be told without
    keep         further columns to read, into Trials.columns; without a line of names the third is called c3
    sides_apart  an id names one thing as an enrolment and another as a test, such as a model and an utterance

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "trials.txt"
    >>> _ = path.write_text("1 a/1.wav a/2.wav\\n0 a/1.wav b/1.wav\\n")
    >>> trials = read_trials(path)
    >>> trials.form, trials.ids, trials.labels.tolist()
    ('"label enroll test", separated by blanks', ['a/1.wav', 'a/2.wav', 'b/1.wav'], [True, False])
    """
    name, data, sha1 = read_text(path)
    if len(data) > SLOW and sys.stderr.isatty():
        print(f"reading {name}: {len(data) / 1e6:,.0f} MB ...", file=sys.stderr)
    text = TrialText(name, data)
    first = text.first(PROBE)
    named = check_columns(columns) if columns else None
    layout = recognise(f"{name}:{first[0][0]}", [line for _, line in first], named)
    if layout.header:
        text = text.after_line(first[0][0])
    keep = [column for column in dict.fromkeys(keep) if column in layout.names and column not in ROLES.values()]
    lines = (parse_large(text, layout, keep) if len(data) >= LARGE else None) or parse(text, layout, keep)
    notes = [*listed_pairs.check(text, lines, sides_apart), *_oddities(data)]
    return Trials(name, sha1, layout.form(), *lines[:5], notes, lines.columns)


def _oddities(data: bytes) -> list[str]:
    """Return notes on comments and on an end that may be missing."""
    notes = []
    if b"#" in data and (comments := data.startswith(b"#") + data.count(b"\n#")):
        notes.append(f"lines that begin with # are passed over: {comments:,}")
    if not data.endswith((b"\n", b"\r")):
        notes.append("the last line has no end: if the file was cut, trials are missing")
    return notes


# --- writing, and what ids tell -------------------------------------------------------------------------------------


def write_scores(path: str | os.PathLike, trials: Trials, scores: ArrayLike) -> None:
    """Write lines `enroll test score [target|nontarget]` for (N,) scores; float32 and float64 read back exactly."""
    scores = as_scores(scores)
    if scores.shape != trials.enroll.shape or np.isnan(scores).any():
        raise InputError(f"scores of shape {scores.shape} for {len(trials.enroll):,} trials: wanted a number for each")
    separator = "\t" if any(len(i.split()) != 1 for i in trials.ids) else " "
    # Always with a decimal point, so that a score of 1 is not taken for a label.
    form = separator.join(["%s", "%s", "%#.9g" if scores.dtype == np.float32 else "%r"])
    if trials.labels is not None:
        form += separator + "%s"
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for start in watched(range(0, len(scores), LINES), "writing", " lines", LINES, few=10):
            part = slice(start, start + LINES)
            columns = [map(trials.ids.__getitem__, codes[part].tolist()) for codes in (trials.enroll, trials.test)]
            columns.append(scores[part].tolist())
            if trials.labels is not None:
                columns.append(np.where(trials.labels[part], "target", "nontarget").tolist())
            file.writelines(form % row + "\n" for row in zip(*columns))


def speakers(trials: Trials) -> list[str] | None:
    """Return the speaker of each of U ids, as the ids themselves begin; None if they do not tell.

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
