"""The tables of a study of labelled clips: systems and claims."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sv_ssl.reporting.result_tables import markdown
from sv_ssl.study import compare
from sv_ssl.study.cells import deviation, mean_sd
from sv_ssl.study.grid import Grid
from sv_ssl.study.grid_file import JUDGES, STATISTICS
from sv_ssl.study.run_files import Result

Systems = Mapping[str, Sequence[Result]]
VERDICTS = {"yes": "holds", "no, the reverse": "does not hold", "not at this size": "cannot be told at this size"}


def about_runs(systems: Systems) -> str:
    """Return what the runs were made on: minutes, clips, speakers, chance."""
    results = [result for runs in systems.values() for result in runs]
    first = results[0]
    parts = ", ".join(f"{number:,} {part}" for part, number in first["clips"].items())
    speakers = {speaker for result in results for speaker in result["speakers"] or []}
    tested = f" (of a run; {len(speakers)} speakers are tested in all)" if speakers else ""
    return (
        f"{len(results)} runs, {sum(result['minutes'] for result in results):.0f} minutes of training on "
        f"{first['device']}; clips of {first['corpus']}: {parts}{tested}; {first['n_classes']} classes, "
        f"chance {100 / first['n_classes']:.1f} %."
    )


def systems(by_name: Systems) -> list[str]:
    """Return the table of accuracies and statistics, a row a system; below it the untrained encoders."""
    head = ["setting", "runs", *(f"{judge} %" for judge in JUDGES), *STATISTICS]
    rows = [
        [
            name,
            str(len(runs)),
            *(accuracy_cell(runs, judge) for judge in JUDGES),
            *(_statistic_cell(runs, term) for term in STATISTICS),
        ]
        for name, runs in by_name.items()
    ]
    return markdown(head, rows + untrained(by_name))


def accuracy_cell(runs: Sequence[Result], judge: str) -> str:
    """Return mean, deviation over seeds and interval, in per cent; nothing where it was not judged."""
    if any(judge not in result["right"] for result in runs):
        return ""
    mean, low, high = (100 * min(1.0, max(0.0, number)) for number in compare.accuracy(runs, judge))
    seeds = compare.per_seed(runs, lambda result: 100 * result["accuracy"][judge]["accuracy"])
    return f"{mean:.1f}{deviation(seeds, 1)} [{low:.1f}, {high:.1f}]"


def _statistic_cell(runs: Sequence[Result], term: str) -> str:
    return mean_sd(compare.per_seed(runs, lambda result: compare.statistic(result, term)), 3)


def untrained(by_name: Systems) -> list[list[str]]:
    """Return rows of the encoders before their training, one an encoder, where that was judged."""
    rows, seen = [], set()
    for name, runs in by_name.items():
        before = [result for result in runs if result["untrained"]]
        key = json.dumps([result["untrained"] for result in before])
        if not before or key in seen:
            continue
        seen.add(key)
        cells = [_untrained_cell(before, judge) for judge in JUDGES]
        rows.append([f"untrained ({name})", str(len(before)), *cells, *[""] * len(STATISTICS)])
    return rows


def _untrained_cell(runs: Sequence[Result], judge: str) -> str:
    judged = [result for result in runs if judge in result["untrained"]]
    return mean_sd(compare.per_seed(judged, lambda result: 100 * result["untrained"][judge]["accuracy"]), 1)


def claims(grid: Grid, by_name: Systems) -> list[str]:
    """Return the table of the paired differences."""
    head = ["paper", "claim", "published", "here: the difference", "verdict"]
    return markdown(head, [claim_row(pair, by_name) for pair in grid.pairs])


def claim_row(pair: Mapping[str, str], by_name: Systems) -> list[str]:
    """Return the difference of a claim, and whether it holds; of a statistic, less is claimed."""
    start = [pair.get("paper", ""), pair["claim"], pair.get("published", "")]
    difference = compare.paired_clips(pair, by_name)
    if difference is None:
        return [*start, "", "not run yet"]
    mean, low, high, n_seeds = difference
    if pair["by"] in JUDGES:
        shown = f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points"
        verdict = VERDICTS[compare.verdict(-high, -low)]  # more is claimed
    else:
        shown = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        verdict = VERDICTS[compare.verdict(low, high)]
    return [*start, f"{shown} ({pair['by']})", verdict if n_seeds > 1 else f"{verdict} (one seed)"]
