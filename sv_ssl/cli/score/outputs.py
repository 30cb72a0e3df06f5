"""What sv-score writes: scores, metrics, conditions, pictures, the report."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from sv_ssl.cli.score.options import PICTURES
from sv_ssl.cli.score.score_sources import Scored
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.verification import conditions, trials


def write(arguments: argparse.Namespace, scored: Scored, report: dict, rows: list[dict], command: str) -> None:
    """Write what was asked for, and say so; then say what could be next."""
    listed, scores = scored.trials, scored.scores
    if (arguments.plot or arguments.report) and not (abs(scores) < math.inf).any():
        raise InputError(f"{listed.name}: all scores are infinite: leave out --plot and --report, nothing can be drawn")
    if arguments.scores_out:
        trials.write_scores(arguments.scores_out, listed, scores)
        print(f"wrote {arguments.scores_out}: {len(scores):,} lines")
    if arguments.json:
        with atomic_write(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        print(f"wrote {arguments.json}")
    if listed.labels is None:
        print("no labels, so no metrics")
        return
    if arguments.csv:
        every = {key: report[key] for key in ("n_target", "n_nontarget", "eer", "min_dcf", "ci") if key in report}
        whole = {"by": "all", "value": "", **every, "note": "; ".join(report["notes"])}
        conditions.write_csv(arguments.csv, [whole, *rows])
        print(f"wrote {arguments.csv}: {1 + len(rows)} conditions")
    if arguments.plot:
        _plot(Path(arguments.plot), scored, report)
    if arguments.report:
        from sv_ssl.reporting import scores_page  # which imports matplotlib

        scores_page.write(arguments.report, listed, scores, report, rows, notes=report["notes"], command=command)
        print(f"wrote {arguments.report}: open it in a browser")
    _hint(arguments)


def _plot(folder: Path, scored: Scored, report: dict) -> None:
    """Draw the curve, the histogram and, of likelihood ratios, the calibration."""
    from sv_ssl.reporting import plots  # which imports matplotlib

    labels = scored.trials.labels
    assert labels is not None
    systems = {Path(scored.trials.name).name: (scored.scores, labels)}
    thresholds = {"EER": float(report["eer_threshold"])}
    thresholds.update((f"minDCF {p}", float(threshold)) for p, threshold in report["min_dcf_threshold"].items())
    curve, histogram, calibration = PICTURES
    plots.det_curve(folder / curve, systems)
    plots.score_histogram(folder / histogram, scored.scores, labels, thresholds)
    if scored.are_ratios:
        plots.calibration(folder / calibration, systems)
    print(f"wrote {folder}: {', '.join(PICTURES if scored.are_ratios else (curve, histogram))}")


def _hint(arguments: argparse.Namespace) -> None:
    """Say which outputs were not asked for."""
    hints = {
        "--scores-out FILE keeps the scores": arguments.scores_out,
        "--json FILE keeps the metrics": arguments.json,
        "--ci adds 95 % intervals": arguments.ci,
        "--report FILE makes a page of it": arguments.report,
    }
    if more := [hint for hint, given in hints.items() if not given]:
        print(f"next: {', '.join(more)}")
