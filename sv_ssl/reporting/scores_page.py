"""The report of a scored trial list: one HTML file with its metrics, pictures, breakdown and hardest trials."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.reporting.html import Picture, Table, picture, render, table
from sv_ssl.verification.error_curve import Point, check
from sv_ssl.verification.trials import Trials

HARDEST = 20  # trials of each kind that are named
FEW = 30  # errors that a rate needs to stand on
RULES = """\
A trial is accepted if its score is at least the threshold. A miss is a target trial (same speaker) that is refused, \
a false alarm a non-target trial (different speakers) that is accepted; P_miss and P_fa are their shares. Tied scores \
move together, so the order of the trials does not matter."""
DEFINITIONS = {
    "EER": "The error rate at the threshold where P_miss = P_fa, interpolated between the two nearest.",
    "minDCF(p)": "The least of (c_miss p P_miss + c_fa (1-p) P_fa) / min(c_miss p, c_fa (1-p)) over all thresholds; "
    "p is the share of targets expected in use. Refusing all or accepting all, whichever is better, costs 1.",
    "actDCF(p)": "The same cost at the threshold ln(c_fa (1-p) / (c_miss p)), the best one if scores are natural-log "
    "likelihood ratios.",
    "ROCCH-EER": "The EER on the convex hull of the operating points: what mixing two thresholds can reach.",
    "Cllr": "Bits lost, over all priors, if scores are read as natural-log likelihood ratios; knowing nothing loses 1.",
    "minCllr": "Cllr after the best monotone map of the scores: what calibration can reach.",
    "AUC": "The chance that a target scores above a non-target, ties counting one half.",
    "tied scores": "The share of trials whose score another one has already.",
}
PLAIN = {
    "eer_rocch": ("ROCCH-EER", ".3%"),
    "cllr": ("Cllr", ".4f"),
    "min_cllr": ("minCllr", ".4f"),
    "auc": ("AUC", ".5f"),
    "tied": ("tied scores", ".3%"),
}
INTERVALS = "95 % intervals by {n:,} resamplings of {clusters:,} {resampled}."
FEW_ERRORS = """\
Errors at the EER: misses {:,}, false alarms {:,}. With fewer than 30 of either, the true rate may be far from it."""
BARS = "Bars: the EER with its interval, where there is one; the upright line is the EER of all trials."
DET = """\
Every threshold is a point of the curve; nearer to the lower left corner is better. On these axes, normally \
distributed scores give a straight line. A mark on the edge stands for a point beyond it."""
HISTOGRAM = "Both areas are 1, however many trials there are of each kind. The less they overlap, the better."
CALIBRATION = """\
The cost of decisions if scores are read as natural-log likelihood ratios, beside the least that it could be. The \
closer the two, the better the calibration; cosines have none."""


class Trial(NamedTuple):
    """A score and its two ids."""

    score: float
    enroll: str
    test: str


def write(
    path: str | os.PathLike,
    trials: Trials,
    scores: ArrayLike,
    report: Mapping[str, Any],
    conditions: Sequence[Mapping[str, Any]] | None = None,
    *,
    about: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    command: str = "",
) -> None:
    """Write the page of T labelled trials with (T,) scores; the same input gives the same bytes.

    report      of `scoring.report`
    conditions  rows of `conditions.evaluate_each`
    about       further lines of "What was scored"
    notes       what must be known before the numbers are believed, beside the notes of the trials
    """
    if trials.labels is None:
        raise InputError(f"{trials.name} has no labels, so there are no errors to report")
    scores, labels = check(scores, trials.labels)
    name = Path(report["list"]).name or report["list"]
    headings: dict[str, Any] = {"What was scored": True, "Metrics": True, "Pictures": True, "Breakdown": conditions}
    headings |= {"Hardest trials": True, "Command": command}
    text = render(
        "scores.html",
        title=name,
        lede=_lede(report),
        headline=_headline(report),
        notes=list(dict.fromkeys(note.removeprefix("note: ") for note in [*trials.notes, *notes])),
        headings=[heading for heading, there in headings.items() if there],
        facts=_facts(report, about or {}),
        metrics=_metrics(report),
        doubts=_doubts(report),
        meanings=DEFINITIONS,
        pictures=_pictures(name, scores, labels, report),
        breakdown=_breakdown(conditions, report) if conditions else None,
        bars=BARS,
        hardest=_hardest(trials, scores, float(report["eer_threshold"])),
        command=command,
        rules=RULES,
        version=_version(),
    )
    with atomic_write(path) as temporary:  # a file's name may hold bytes that are no text: they are spelled out
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def number(value: float | str | None, form: str = ".4f") -> str:
    """Return a number as the page shows it: "inf" is infinity, None is a dash.

    >>> number(0.02269, ".2%"), number("inf"), number(None)
    ('2.27\\u202f%', '∞', '–')
    """
    if value is None:
        return "\N{EN DASH}"
    return f"{float(value):{form}}".replace("%", "\N{NARROW NO-BREAK SPACE}%").replace("inf", "\N{INFINITY}")


def _ends(row: Mapping[str, Any], name: str) -> Sequence[float] | None:
    """Return the 95 % interval of "eer" or of a minDCF, where there is one."""
    ci = row.get("ci") or {}
    return ci.get("eer") if name == "eer" else ci.get("min_dcf", {}).get(name)


def _interval(row: Mapping[str, Any], name: str, form: str) -> str:
    ends = _ends(row, name)
    return f"{number(ends[0], form)} to {number(ends[1], form)}" if ends else ""


def _version() -> str:
    try:
        return metadata.version("sv_ssl")
    except metadata.PackageNotFoundError:
        return "(not installed)"


# --- the sections ---------------------------------------------------------------------------------------------------


def _lede(report: Mapping[str, Any]) -> str:
    """Say how many trials there are."""
    known = f", the size of {report['known_as']}" if report.get("known_as") else ""
    return (
        f"{report['n_trials']:,} trials ({report['n_target']:,} target, {report['n_nontarget']:,} non-target) of "
        f"{report['n_utterances']:,} utterances{known}"
    )


def _headline(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and interval of the figures that stand first."""
    costs = [
        (f"minDCF({point})", number(value, ".3f"), _interval(report, point, ".3f"))
        for point, value in report["min_dcf"].items()
    ]
    return [("EER", number(report["eer"], ".2%"), _interval(report, "eer", ".2%")), *costs]


def _facts(report: Mapping[str, Any], about: Mapping[str, str]) -> dict[str, str]:
    """Return what was scored."""
    facts = {"list": report["list"], "sha1": report["sha1"], "read as": report["form"]}
    if "scores" in report:
        facts["scores"] = report["scores"]
    return {**facts, **about}


def _metrics(report: Mapping[str, Any]) -> Table:
    """Return every metric with its interval, threshold and operating point."""
    rows = [
        {
            "metric": "EER",
            "value": number(report["eer"], ".3%"),
            "95 % interval": _interval(report, "eer", ".3%"),
            "threshold": number(report["eer_threshold"], ".6g"),
        }
    ]
    for name, value in report["min_dcf"].items():
        rows.append(
            {
                "metric": f"minDCF({name})",
                "value": number(value),
                **_costs(_point(name)),
                "95 % interval": _interval(report, name, ".4f"),
                "threshold": number(report["min_dcf_threshold"][name], ".6g"),
            }
        )
    for name, value in report["act_dcf"].items():
        p, c_miss, c_fa = _point(name)
        bayes = number(math.log(c_fa * (1 - p) / (c_miss * p)), ".6g")
        rows.append({"metric": f"actDCF({name})", "value": number(value), "threshold": bayes, **_costs(_point(name))})
    rows += [{"metric": name, "value": number(report[key], form)} for key, (name, form) in PLAIN.items()]
    columns = {"metric": "key", **dict.fromkeys(("value", "95 % interval", "threshold", "p", "c_miss", "c_fa"), "n")}
    return table("Metrics", columns, {"": rows})


def _point(name: str) -> Point:
    """Return p_target, c_miss, c_fa of a name that `error_curve.point_name` made."""
    p, c_miss, c_fa, *_ = [*map(float, name.split(",")), 1.0, 1.0]
    return p, c_miss, c_fa


def _costs(point: Point) -> dict[str, str]:
    return {name: f"{value:g}" for name, value in zip(("p", "c_miss", "c_fa"), point)}


def _doubts(report: Mapping[str, Any]) -> list[str]:
    """Say what the intervals rest on, and that errors are few where they are."""
    texts = [INTERVALS.format(**report["ci"])] if report.get("ci") else []
    errors = [round(report["eer"] * report[kind]) for kind in ("n_target", "n_nontarget")]
    if min(errors) < FEW:
        texts.append(FEW_ERRORS.format(*errors))
    return texts


def _pictures(name: str, scores: np.ndarray, labels: np.ndarray, report: Mapping[str, Any]) -> list[Picture]:
    """Draw the curve, the histogram and the calibration."""
    from sv_ssl.reporting import plots

    points = [_point(key) for key in report["min_dcf"]]
    thresholds = {"EER": float(report["eer_threshold"])}
    thresholds.update((f"minDCF({key})", float(value)) for key, value in report["min_dcf_threshold"].items())
    system = {name: (scores, labels)}
    return [
        picture("DET curve", DET, lambda file: plots.det_curve(file, system, points)),
        picture("Histogram", HISTOGRAM, lambda file: plots.score_histogram(file, scores, labels, thresholds)),
        picture("Calibration", CALIBRATION, lambda file: plots.calibration(file, system, points)),
    ]


def _breakdown(conditions: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> Table:
    """Return a row for all trials and one a condition; an EER of None is shown as a dash."""
    rows = [{**report, "by": "", "value": "all trials"}, *conditions]
    top = max(max(row["eer"] or 0, *(_ends(row, "eer") or [0])) for row in rows) or 1.0
    columns = dict.fromkeys(("condition", "targets", "non-targets", "EER", "95 % interval"), "n")
    costs = {f"minDCF({name})": name for name in report["min_dcf"]}
    columns.update(condition="name", compared="bar", **dict.fromkeys(costs, "n"), note="note")
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["by"], []).append(
            {
                "condition": row["value"],
                "targets": f"{row['n_target']:,}",
                "non-targets": f"{row['n_nontarget']:,}",
                "EER": number(row["eer"], ".2%"),
                "95 % interval": _interval(row, "eer", ".2%"),
                "compared": [] if row["eer"] is None else _bar(row, top, report["eer"]),
                "note": row.get("note") or "",
                **{heading: number(row["min_dcf"].get(name), ".3f") for heading, name in costs.items()},
            }
        )
    return table("Breakdown", columns, groups)


def _bar(row: Mapping[str, Any], top: float, whole: float) -> list[tuple[str, float, float, int, int]]:
    """Return rectangles on 0 to 100: the EER, its interval, a line at that of all trials.

    (class, x, width, y, height) each
    """
    low, high = _ends(row, "eer") or (0.0, 0.0)
    line = top / 400
    spans = [("rate", 0.0, row["eer"], 4, 12), ("ends", low, high, 9, 2), ("whole", whole - line, whole + line, 0, 20)]
    return [(kind, 100 * a / top, 100 * (b - a) / top, y, height) for kind, a, b, y, height in spans]


def _hardest(trials: Trials, scores: np.ndarray, threshold: float) -> list[Table]:
    """Return the hardest non-targets and targets, with the decision at the EER's threshold."""
    columns = {"score": "n", "enrolment": "id", "test": "id", "at the EER": "decision"}
    tables = []
    for target, heading in ((False, "Non-targets that score highest"), (True, "Targets that score lowest")):
        rows = []
        for trial in hardest(trials, scores, target):
            accepted = trial.score >= threshold
            rows.append(
                {
                    "score": number(trial.score, ".6g"),
                    "enrolment": trial.enroll,
                    "test": trial.test,
                    "at the EER": {"text": "accepted" if accepted else "refused", "right": accepted == target},
                }
            )
        tables.append(table(heading, columns, {"": rows}))
    return tables


def hardest(trials: Trials, scores: np.ndarray, target: bool, count: int = HARDEST) -> list[Trial]:
    """Return the `count` lowest targets or highest non-targets of T trials, hardest first; ties by their ids."""
    kind = np.flatnonzero(trials.labels == target)
    order = scores[kind] if target else -scores[kind]
    rank = min(count, len(kind)) - 1
    near = kind[order <= np.partition(order, rank)[rank]]
    candidates = (Trial(float(scores[i]), trials.ids[trials.enroll[i]], trials.ids[trials.test[i]]) for i in near)
    return heapq.nsmallest(count, candidates, key=lambda trial: (trial.score if target else -trial.score, *trial[1:]))
