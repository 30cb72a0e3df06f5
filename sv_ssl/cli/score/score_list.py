"""What sv-score does: read the list, score it, measure the errors, print and write them."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from sv_ssl.cli.score import options, outputs, table
from sv_ssl.cli.score.score_sources import Scored, read_list, read_scores, scores_of
from sv_ssl.core.errors import InputError
from sv_ssl.verification import bootstrap, conditions, scoring
from sv_ssl.verification.error_curve import POINTS, Point, error_weights, point_name
from sv_ssl.verification.manifest_columns import read_manifest


def score_list(arguments: argparse.Namespace, command: Sequence[str]) -> None:
    """Do what the arguments ask for; `command` is the line as it was given, for the report."""
    listed = read_list(arguments, arguments.trials)
    if listed.labels is None:
        options.refuse_measures(arguments, listed.name)
    print(listed.summary())
    scored = scores_of(arguments, listed)
    for line in (f"scores: {scored.origin}", *(f"note: {note}" for note in scored.trials.notes)):
        print(line)
    points = {point_name(point): point for point in [*POINTS, *arguments.p_target]}
    report = scoring.report(scored.trials, scored.scores, list(points.values()), arguments.ci)
    report["scores"] = scored.origin
    rows = [] if listed.labels is None else _measure(arguments, scored, report, points)
    outputs.write(arguments, scored, report, rows, shlex.join(command))


def _measure(arguments: argparse.Namespace, scored: Scored, report: dict, points: dict[str, Point]) -> list[dict]:
    """Print the metrics, and add to the report what else was asked for; return the rows of the breakdown."""
    if arguments.raw_cost:
        costs = report["min_dcf"]
        report["min_cost"] = {name: costs[name] * min(error_weights(point)) for name, point in points.items()}
    print(table.metrics(report, points, scored.are_ratios, arguments.raw_cost))
    rows: list[dict] = []
    if arguments.by:
        rows = report["conditions"] = _conditions(arguments, scored, list(points.values()))
        print(table.breakdown(rows, list(points)))
    if arguments.against:
        report["against"] = _against(arguments, scored, list(points.values()))
        print(table.comparison(report["against"], scored.trials.name, arguments.against))
    return rows


def _conditions(arguments: argparse.Namespace, scored: Scored, points: Sequence[Point]) -> list[dict]:
    """Measure each condition that --by asks for."""
    trials = scored.trials
    own = {*trials.columns, "session"}
    wanted = [name for name in arguments.by if not {name, name.split(":")[0]} & own]
    if wanted and not arguments.manifest:
        raise InputError(f"--by {wanted[0]}: {trials.name} has no such column: pass --manifest FILE, which has it")
    columns = read_manifest(arguments.manifest, trials.ids) if arguments.manifest else {}
    split = conditions.split(trials, arguments.by, columns)
    return conditions.evaluate_each(trials, scored.scores, split, points, arguments.ci)


def _against(arguments: argparse.Namespace, scored: Scored, points: Sequence[Point]) -> dict:
    """Test the scores against those of another system."""
    trials = scored.trials
    other = read_scores(arguments, [arguments.against], trials)[:, 0]
    sides, _ = scoring.clusters(trials)
    assert trials.labels is not None
    return bootstrap.compare(scored.scores, other, trials.labels, *sides, points)
