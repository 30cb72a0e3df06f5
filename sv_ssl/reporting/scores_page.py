"""The report of a scored trial list: one HTML file with its metrics, pictures, breakdown and hardest trials."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside
from sv_ssl.reporting.html import Html, anchor, definitions, document, el, picture, table
from sv_ssl.verification.metrics import Point, check
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
    """T labelled trials, (T,) scores, their `scoring.report`, rows of a breakdown -> HTML, the same for the same input.

    `about` holds further lines of "what was scored", `notes` what must be known before the numbers are believed.
    """
    if trials.labels is None:
        raise InputError(f"{trials.name} has no labels, so there are no errors to report")
    scores, labels = check(scores, trials.labels)
    name = Path(report["list"]).name or report["list"]
    sections = {
        "What was scored": [_facts(report, about or {})],
        "Metrics": [_metrics(report)],
        "Pictures": [_pictures(name, scores, labels, report)],
        "Breakdown": [_breakdown(conditions, report), el("p", BARS, class_="soft")] if conditions else [],
        "Hardest trials": [_hardest(trials, scores, float(report["eer_threshold"]))],
        "Command": [el("pre", el("code", command))] if command else [],
    }
    sections = {heading: parts for heading, parts in sections.items() if parts}
    told = dict.fromkeys(note.removeprefix("note: ") for note in [*trials.notes, *notes])
    header = _header(name, report, told, sections)
    footer = el("footer", el("p", RULES), el("p", f"Made by sv_ssl {_version()}."))
    with aside(path) as temporary:  # a file's name may hold bytes that are no text: they are spelled out
        text = document(name, header, sections, footer)
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def number(value: float | str | None, form: str = ".4f") -> str:
    """A number as the page shows it: "inf" is infinity, None is nothing.

    >>> number(0.02269, ".2%"), number("inf"), number(None)
    ('2.27\\u202f%', '∞', '–')
    """
    if value is None:
        return "\N{EN DASH}"
    return f"{float(value):{form}}".replace("%", "\N{NARROW NO-BREAK SPACE}%").replace("inf", "\N{INFINITY}")


def _ends(row: Mapping[str, Any], name: str) -> Sequence[float] | None:
    """The 95 % interval of "eer" or of a minDCF, where there is one."""
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


def _header(name: str, report: Mapping[str, Any], notes: Iterable[str], headings: Iterable[str]) -> Html:
    known = f", the size of {report['known_as']}" if report.get("known_as") else ""
    lede = (
        f"{report['n_trials']:,} trials ({report['n_target']:,} target, {report['n_nontarget']:,} non-target) of "
        f"{report['n_utterances']:,} utterances{known}"
    )
    big = [_big("EER", number(report["eer"], ".2%"), _interval(report, "eer", ".2%"))]
    for point, value in report["min_dcf"].items():
        big.append(_big(f"minDCF({point})", number(value, ".3f"), _interval(report, point, ".3f")))
    warned = el("ul", *(el("li", note) for note in notes), class_="notes") if notes else ""
    links = [el("a", heading, href=f"#{anchor(heading)}") for heading in headings]
    return el(
        "header",
        el("p", "Speaker verification report", class_="kind"),
        el("h1", el("bdi", name)),
        el("p", lede, class_="lede"),
        el("ul", *big, class_="big"),
        warned,
        el("nav", *links),
    )


def _big(name: str, value: str, interval: str) -> Html:
    return el("li", name, el("b", value), el("small", f"95 %: {interval}" if interval else ""))


def _facts(report: Mapping[str, Any], about: Mapping[str, str]) -> Html:
    facts = {"list": report["list"], "sha1": report["sha1"], "read as": report["form"]}
    if "scores" in report:
        facts["scores"] = report["scores"]
    return definitions({**facts, **about})


def _metrics(report: Mapping[str, Any]) -> Html:
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
    numbers = el("div", table("Metrics", columns, {"": rows}), *_doubts(report))
    return el("div", numbers, definitions(DEFINITIONS), class_="two")


def _point(name: str) -> Point:
    """What `metrics.point_name` made -> p_target, c_miss, c_fa."""
    p, c_miss, c_fa, *_ = [*map(float, name.split(",")), 1.0, 1.0]
    return p, c_miss, c_fa


def _costs(point: Point) -> dict[str, str]:
    return {name: f"{value:g}" for name, value in zip(("p", "c_miss", "c_fa"), point)}


def _doubts(report: Mapping[str, Any]) -> list[Html]:
    texts = [INTERVALS.format(**report["ci"])] if report.get("ci") else []
    errors = [round(report["eer"] * report[kind]) for kind in ("n_target", "n_nontarget")]
    texts += [FEW_ERRORS.format(*errors)] if min(errors) < FEW else []
    return [el("p", text, class_="soft") for text in texts]


def _pictures(name: str, scores: np.ndarray, labels: np.ndarray, report: Mapping[str, Any]) -> Html:
    from sv_ssl.reporting import plots

    points = [_point(key) for key in report["min_dcf"]]
    thresholds = {"EER": float(report["eer_threshold"])}
    thresholds.update((f"minDCF({key})", float(value)) for key, value in report["min_dcf_threshold"].items())
    system = {name: (scores, labels)}
    return el(
        "div",
        picture("DET curve", DET, lambda file: plots.det_curve(file, system, points)),
        picture("Histogram", HISTOGRAM, lambda file: plots.score_histogram(file, scores, labels, thresholds)),
        picture("Calibration", CALIBRATION, lambda file: plots.calibration(file, system, points)),
        class_="pictures",
    )


def _breakdown(conditions: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> Html:
    """Rows of by, value, n_target, n_nontarget, eer, min_dcf, perhaps ci and note; eer is None where there is none."""
    rows = [{**report, "by": "", "value": "all trials"}, *conditions]
    top = max(max(row["eer"] or 0, *(_ends(row, "eer") or [0])) for row in rows) or 1.0
    columns = dict.fromkeys(("condition", "targets", "non-targets", "EER", "95 % interval"), "n")
    costs = {f"minDCF({name})": name for name in report["min_dcf"]}
    columns.update(condition="name", compared="bar", **dict.fromkeys(costs, "n"), note="note")
    groups: dict[str, list[dict]] = {}
    for row in rows:
        bar = "" if row["eer"] is None else _bar(row, top, report["eer"])
        groups.setdefault(row["by"], []).append(
            {
                "condition": el("bdi", row["value"]),
                "targets": f"{row['n_target']:,}",
                "non-targets": f"{row['n_nontarget']:,}",
                "EER": number(row["eer"], ".2%"),
                "95 % interval": _interval(row, "eer", ".2%"),
                "compared": bar,
                "note": row.get("note") or "",
                **{heading: number(row["min_dcf"].get(name), ".3f") for heading, name in costs.items()},
            }
        )
    return table("Breakdown", columns, groups)


def _bar(row: Mapping[str, Any], top: float, whole: float) -> Html:
    """The EER as a bar with its interval, and a line where that of all trials is."""
    low, high = _ends(row, "eer") or (0.0, 0.0)
    line = top / 400
    parts = [(0.0, row["eer"], 4, 12, "rate"), (low, high, 9, 2, "ends"), (whole - line, whole + line, 0, 20, "whole")]
    shapes = (
        f'<rect class="{kind}" x="{100 * a / top:.2f}" width="{100 * (b - a) / top:.2f}" y="{y}" height="{h}"/>'
        for a, b, y, h, kind in parts
    )
    return Html(f'<svg viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">{"".join(shapes)}</svg>')


def _hardest(trials: Trials, scores: np.ndarray, threshold: float) -> Html:
    columns = {"score": "n", "enrolment": "id", "test": "id", "at the EER": "short"}
    tables = []
    for target, heading in ((False, "Non-targets that score highest"), (True, "Targets that score lowest")):
        rows = []
        for trial in hardest(trials, scores, target):
            accepted = trial.score >= threshold
            kind = "right" if accepted == target else "wrong"
            rows.append(
                {
                    "score": number(trial.score, ".6g"),
                    "enrolment": el("code", el("bdi", trial.enroll)),
                    "test": el("code", el("bdi", trial.test)),
                    "at the EER": el("span", "accepted" if accepted else "refused", class_=kind),
                }
            )
        tables.append(el("div", el("h3", heading), table(heading, columns, {"": rows})))
    return el("div", *tables, class_="two")


def hardest(trials: Trials, scores: np.ndarray, target: bool, count: int = HARDEST) -> list[Trial]:
    """T trials, (T,) scores -> the `count` lowest targets or highest non-targets, hardest first; ties by their ids."""
    kind = np.flatnonzero(trials.labels == target)
    order = scores[kind] if target else -scores[kind]
    rank = min(count, len(kind)) - 1
    near = kind[order <= np.partition(order, rank)[rank]]
    found = (Trial(float(scores[i]), trials.ids[trials.enroll[i]], trials.ids[trials.test[i]]) for i in near)
    return heapq.nsmallest(count, found, key=lambda trial: (trial.score if target else -trial.score, *trial[1:]))
