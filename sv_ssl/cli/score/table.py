"""What sv-score prints: the metrics, the breakdown, the comparison, and what is suspicious."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sv_ssl.verification import scoring

Rows = list[tuple[str, str, str, str]]  # name, value, interval, conventions


def metrics(report: Mapping, points: Mapping[str, tuple], ratios: bool, raw: bool) -> str:
    """Return the metrics of a report as aligned lines.

    points  by name
    ratios  whether scores are likelihood ratios: actDCF and Cllr are shown
    raw     whether costs that are not normalised are shown
    """
    ci = report.get("ci", {"min_dcf": {}})
    rows: Rows = [
        (
            "EER",
            f"{report['eer']:.3%}",
            _interval(ci.get("eer"), 100, "{:.3f}"),
            f"threshold {float(report['eer_threshold']):.6g}",
        )
    ]
    for name, (p, c_miss, c_fa) in points.items():
        threshold = float(report["min_dcf_threshold"][name])
        about = f"p_target {p:g}, c_miss {c_miss:g}, c_fa {c_fa:g}, "
        about += "reject all" if math.isinf(threshold) else f"threshold {threshold:.6g}"
        ends = _interval(ci["min_dcf"].get(name), 1, "{:.4f}")
        rows.append(("minDCF", f"{report['min_dcf'][name]:.4f}", ends, about))
        if raw:
            about = "the same, not divided by the cost of no system"
            rows.append(("  raw cost", f"{report['min_cost'][name]:.6f}", "", about))
        if ratios:
            rows.append(("actDCF", f"{report['act_dcf'][name]:.4f}", "", f"the same cost at {_bayes(p, c_miss, c_fa)}"))
    rows += [("ROCCH-EER", f"{report['eer_rocch']:.3%}", "", ""), ("minCllr", f"{report['min_cllr']:.4f}", "", "bits")]
    if ratios:
        rows.append(("Cllr", f"{float(report['cllr']):.4f}", "", "bits"))
    rows.append(("AUC", f"{report['auc']:.5f}", "", ""))
    return "\n".join(["", *_aligned(rows), "", *notes(report)])


def _bayes(p: float, c_miss: float, c_fa: float) -> str:
    return f"the Bayes threshold {math.log(c_fa * (1 - p) / (c_miss * p)):.4g}"


def _aligned(rows: Rows) -> list[str]:
    names, intervals = (max(len(row[i]) for row in rows) for i in (0, 2))
    return [f"  {name:<{names}}{value:>10}  {ends:<{intervals}}  {about}".rstrip() for name, value, ends, about in rows]


def _interval(ends: Sequence[float] | None, factor: float, form: str) -> str:
    return "" if ends is None else f"[{form.format(factor * ends[0])}, {form.format(factor * ends[1])}]"


def notes(report: Mapping) -> list[str]:
    """Return what a reader of the numbers should know, but for the notes on the list, which stand above them."""
    lines = []
    if "ci" in report:
        lines.append("[ ]: 95 % interval, {n:,} resamplings of {clusters:,} {resampled}".format(**report["ci"]))
    return [*lines, *(f"note: {doubt}" for doubt in scoring.doubts(report))]


def breakdown(rows: Sequence[Mapping], points: Sequence[str]) -> str:
    """Return rows of `conditions.evaluate_each` as aligned lines."""
    cells = [("", "", "target", "non-target", "EER %", *(f"minDCF {point}" for point in points), "")]
    for row in rows:
        counts = f"{row['n_target']:,}", f"{row['n_nontarget']:,}"
        eer = "-" if row["eer"] is None else f"{100 * row['eer']:.3f}"
        costs = ("-" if cost is None else f"{cost:.4f}" for cost in map(row["min_dcf"].get, points))
        cells.append((row["by"], row["value"], *counts, eer, *costs, row.get("note", "")))
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join(["", *(_padded(line, widths) for line in cells), ""])


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return a line in which texts (the first two cells and the last) begin in one column, numbers end in one."""
    last = len(cells) - 1
    padded = (
        cell.ljust(width) if i in (0, 1, last) else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths))
    )
    return f"  {'  '.join(padded)}".rstrip()


def comparison(measured: Mapping[str, Mapping], first: str, second: str) -> str:
    """Return what `bootstrap.compare` measured as lines."""
    rows: Rows = []
    for name, value in measured.items():
        percent = name == "eer"
        factor, form = (100, "{:+.3f}") if percent else (1, "{:+.4f}")
        shown = form.format(factor * value["difference"]) + (" %" if percent else "")
        ends = _interval(value["ci"], factor, form)
        rows.append(("EER" if percent else f"minDCF {name}", shown, ends, f"p = {value['p']:.3g}"))
    return "\n".join([f"{first} minus {second}, over the same draws of speakers:", *_aligned(rows), ""])
