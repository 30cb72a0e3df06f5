"""The breakdown of a trial list: by what a manifest says of the utterances, by duration, by session; numpy alone.

gender             any column of a manifest: "f", "m", and "f / m" where the two sides differ
duration           bins of the shorter side: under 2 s, 2-4 s, 4-8 s, 8 s and more
duration:2,5,10    other bins; any column of numbers can have them (`snr:5,15`), the smaller side counts
session            targets of one session, and those of two, each against all non-targets
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import write_table
from sv_ssl.verification.bootstrap import intervals
from sv_ssl.verification.error_curve import POINTS, Point, check, point_name
from sv_ssl.verification.metrics import headline
from sv_ssl.verification.trials import Trials, speakers

Condition = tuple[str, str, np.ndarray]  # the column, its value, (T,) bool: which trials
Columns = Mapping[str, Sequence[str]]  # a value for each utterance, or for each trial
SECONDS = (2.0, 4.0, 8.0)  # edges of the bins of `duration`
MOST = 100  # values of a column, and conditions it makes
FEW = 30  # errors; with 30 the true rate is within 30 % of the measured one at 90 % confidence
NONE = "(none)"  # the value of an empty field


# --- which trials belong together -----------------------------------------------------------------------------------


class _Source(NamedTuple):
    """A column and the trials' two sides in it."""

    name: str
    values: Sequence[str]  # N
    sides: tuple[np.ndarray | slice, np.ndarray | slice]  # of the T trials: positions among the values
    things: tuple[str, Sequence]  # what has these values, for messages: "trial" or "utterance", and N names


def split(trials: Trials, by: Sequence[str], columns: Columns, trial_columns: Columns | None = None) -> list[Condition]:
    """Return the conditions that have trials, of T trials over U utterances.

    by             names of columns, `duration:2,5` for other bins, `session`
    columns        of a manifest: U values each
    trial_columns  of the list itself: T values each; without them those that were read with the trials. They go
                   before columns of the same name in a manifest.

    By a column of a manifest, trials whose sides agree have their value ("f"), others both ("f / m"); "different" are
    all of these where the column would make more than 100 conditions; no value is "(none)". Where edges are given, and
    by duration always, the smaller side's number decides. By session, targets of one session and those of two are each
    set against *all* non-targets, which are of two sessions by nature; sessions are the manifest's column of that name,
    else speaker/session of ids such as speaker/session/utterance.
    """
    own = trials.columns if trial_columns is None else trial_columns
    conditions: list[Condition] = []
    for text in by:
        name, edges = _name_and_edges(text, {*own, *columns})
        if name == "session" and name not in own and not edges:
            masks = _sessions(trials, columns.get(name))
        else:
            source = _source(name, trials, columns, own)
            masks = _bins(source, edges) if edges else _kinds(source)
        conditions += [(name, value, mask) for value, mask in masks if mask.any()]
    return conditions


def _name_and_edges(text: str, known: set[str]) -> tuple[str, list[float]]:
    """Split `duration`, `duration:2,5,10` or `duration:2-5-10` into the column and the edges of its bins, if any."""
    if text in known or ":" not in text:
        return text, list(SECONDS) if text == "duration" else []
    name, _, rest = text.rpartition(":")
    try:
        edges = [float(edge) for edge in re.split(r",|(?<=[\d.])-", rest)]
    except ValueError:
        edges = []
    if not edges or not all(map(math.isfinite, edges)) or sorted(set(edges)) != edges:
        raise InputError(f"cannot break down by {text}: wanted a column and rising edges, such as duration:2,5,10")
    return name, edges


def _source(name: str, trials: Trials, columns: Columns, own: Columns) -> _Source:
    """Find a column, first among the list's own."""
    if name in own:
        whole = slice(None)
        source = _Source(name, own[name], (whole, whole), ("trial", range(1, len(trials.enroll) + 1)))
    elif name in columns:
        source = _Source(name, columns[name], (trials.enroll, trials.test), ("utterance", trials.ids))
    else:
        known = ", ".join([*own, *columns]) or "none: a manifest would have them"
        raise InputError(
            f'cannot break down by "{name}": no such column; the columns are {known}; and session, if the '
            "ids are speaker/session/utterance"
        )
    if len(source.values) != len(source.things[1]):
        raise InputError(f'the column "{name}" has {len(source.values)} values, wanted {len(source.things[1])}')
    return source


def _kinds(source: _Source) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each value with the trials that have it on both sides, then each two values with those that mix them."""
    names, code = _coded(source.values)
    if len(names) > MOST:
        raise InputError(
            f'cannot break down by "{source.name}": it has {len(names):,} values, wanted at most {MOST}; '
            f"numbers can be put into bins, as in {source.name}:2,5,10"
        )
    enroll, test = (code[side] for side in source.sides)
    yield from ((name, (enroll == i) & (test == i)) for i, name in enumerate(names))
    pair = np.minimum(enroll, test) * len(names) + np.maximum(enroll, test)
    mixed = np.unique(pair[enroll != test]).tolist()
    if len(names) + len(mixed) > MOST:
        yield "different", enroll != test
    else:
        yield from ((f"{names[p // len(names)]} / {names[p % len(names)]}", pair == p) for p in mixed)


def _coded(values: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Number the distinct values in their order: N values -> K names, (N,) which."""
    names = sorted(set(values))
    number = dict(zip(names, range(len(names))))
    return [name or NONE for name in names], np.fromiter(map(number.__getitem__, values), np.int64, len(values))


def _bins(source: _Source, edges: list[float]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each bin with the trials whose smaller side lies in it."""
    numbers = _numbers(source)
    smaller = np.minimum(*(numbers[side] for side in source.sides))
    bin_of = np.searchsorted(edges, smaller, side="right")
    unit = " s" if source.name == "duration" else ""
    ends = [f"{edge:g}" for edge in edges]
    names = [f"<{ends[0]}", *(f"{low}-{high}" for low, high in zip(ends, ends[1:])), f">={ends[-1]}"]
    yield from ((name + unit, bin_of == i) for i, name in enumerate(names))


def _numbers(source: _Source) -> np.ndarray:
    """Return a column's values as (N,) finite numbers; an InputError names the first that is none."""

    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return math.nan

    numbers = np.fromiter(map(number, source.values), np.float64, len(source.values))
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        kind, things = source.things
        raise InputError(
            f'cannot put the column "{source.name}" into bins: {source.values[bad[0]]!r} of the {kind} '
            f"{things[bad[0]]} is not a number ({bad.size:,} such values)"
        )
    return numbers


def _sessions(trials: Trials, column: Sequence[str] | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield "same", "different" and "(none)" with their targets and all non-targets."""
    if trials.labels is None:
        raise InputError(f"{trials.name} has no labels: by session, only targets are told apart")
    values = _sessions_of_ids(trials, trials.labels) if column is None else column
    names, code = _coded(values)
    unknown = np.array([name == NONE for name in names])[code]
    unknown = unknown[trials.enroll] | unknown[trials.test]
    same = code[trials.enroll] == code[trials.test]
    for name, kind in (("same", same & ~unknown), ("different", ~same & ~unknown), (NONE, unknown)):
        if (kind & trials.labels).any():
            yield name, kind | ~trials.labels


def _sessions_of_ids(trials: Trials, labels: np.ndarray) -> list[str]:
    """Return speaker/session of ids such as speaker/session/utterance; the labels tell whether they are such."""
    _, code = _coded([i.rsplit("/", 2)[0] for i in trials.ids])
    odd = [i for i in trials.ids if i.count("/") < 2]
    if odd or not np.array_equal(code[trials.enroll] == code[trials.test], labels):
        raise InputError(
            f"{trials.name}: cannot break down by session: ids such as {(odd or trials.ids)[0]} are not "
            "speaker/session/utterance with the speakers of the labels; a manifest with a column "
            '"session" would tell'
        )
    return [i.rpartition("/")[0] for i in trials.ids]


# --- the metrics of each --------------------------------------------------------------------------------------------


def evaluate_each(
    trials: Trials,
    scores: ArrayLike,
    conditions: Sequence[Condition],
    points: Sequence[Point] = POINTS,
    ci: bool = False,
) -> list[dict]:
    """Measure each condition: T trials, (T,) scores -> by, value, n_target, n_nontarget, eer, min_dcf, note, ci.

    Error rates are None where a condition has trials of one kind only; `note` says so, and where the EER rests on fewer
    than 30 misses or false alarms. With `ci`, "ci" has 95 % intervals of the rates by resampling the condition's own
    speakers, or utterances where the list's ids do not tell the speakers.
    """
    if trials.labels is None:
        raise InputError(f"{trials.name} has no labels, so nothing can be measured")
    scores, labels = check(scores, trials.labels)
    names = speakers(trials) if ci else None
    _, cluster = _coded((names or trials.ids) if ci else [])
    rows = []
    for by, value, mask in conditions:
        if np.shape(mask) != labels.shape or np.asarray(mask).dtype != bool:
            raise InputError(f"{by} {value}: wanted True or False for each of {len(labels):,} trials")
        row = {"by": by, "value": value, **_rates(scores[mask], labels[mask], points)}
        if ci and row["eer"] is not None:
            sides = cluster[trials.enroll[mask]], cluster[trials.test[mask]]
            about = {"resampled": "speakers" if names else "utterances", "clusters": len(np.union1d(*sides))}
            row["ci"] = {**intervals(scores[mask], labels[mask], *sides, points), **about}
        rows.append(row)
    return rows


def _rates(scores: np.ndarray, labels: np.ndarray, points: Sequence[Point]) -> dict:
    """Return counts, EER, minDCFs and the note of one condition."""
    counts = {"n_target": int(labels.sum()), "n_nontarget": int((~labels).sum())}
    if not all(counts.values()):
        kind = "non-target" if counts["n_target"] else "target"
        return {**counts, "eer": None, "min_dcf": dict.fromkeys(map(point_name, points)), "note": f"no {kind} trials"}
    measured = headline(scores, labels, points)
    misses, false_alarms = (round(measured["eer"] * n, 6) for n in counts.values())
    note = ""
    if min(misses, false_alarms) < FEW:
        note = f"few errors: {misses:.0f} misses and {false_alarms:.0f} false alarms at the EER, wanted {FEW} of each"
    return {**counts, "eer": measured["eer"], "min_dcf": measured["min_dcf"], "note": note}


def write_csv(path: str | os.PathLike, rows: Sequence[dict]) -> None:
    """Write rows of `evaluate_each`, or reports of a whole list, as a CSV: a line each, numbers to the last digit.

    Columns: by, value, n_target, n_nontarget, eer, min_dcf_0.01 and so on; if any row has intervals eer_low, eer_high,
    min_dcf_0.01_low and so on; note, of a whole list all that its report notes.
    """
    flat = [_flat(row) for row in rows]
    header = list(dict.fromkeys(name for row in sorted(flat, key=len, reverse=True) for name in row))
    write_table(path, [header, *([row.get(name, "") for name in header] for row in flat)], end="\n")


def _flat(row: dict) -> dict:
    """Return a row with one value a key."""
    flat = {name: row[name] for name in ("by", "value", "n_target", "n_nontarget", "eer")}
    flat.update((f"min_dcf_{name}", value) for name, value in row["min_dcf"].items())
    if "ci" in row:
        ends = {"eer": row["ci"]["eer"], **{f"min_dcf_{name}": both for name, both in row["ci"]["min_dcf"].items()}}
        for name, (low, high) in ends.items():
            flat.update({f"{name}_low": low, f"{name}_high": high})
    return {**flat, "note": row.get("note", "")}
