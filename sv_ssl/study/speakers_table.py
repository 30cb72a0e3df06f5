"""The tables of a study of speakers: systems, claims, lists, and how systems learn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sv_ssl.reporting.result_tables import markdown
from sv_ssl.study.cells import interval, mean_of, mean_sd
from sv_ssl.study.grid import Grid, Run
from sv_ssl.study.run_files import Result, by_system, reports

Results = Mapping[Run, Result]
Baselines = dict[tuple[str, str], dict[str, list[float]]]


def systems(grid: Grid, results: Results, measured: dict, groups: list[str]) -> list[str]:
    """Return the main table, best first; what was not trained is at its place among the others."""
    head = [
        "system",
        "",
        "seeds",
        *(f"{group}: EER" for group in groups),
        *(f"{group}: pooled" for group in groups),
        *(f"{group}: minDCF" for group in groups),
        f"{groups[0]}: of no learning",
        f"{groups[0]}: of untrained",
        *(f"{group}: of untrained" for group in groups[1:]),
        "CPU min",
        "GB",
        "parameters",
    ]
    below = baselines(grid, results, groups)
    rows = []
    for name, runs in by_system(results).items():
        system = measured["systems"][name]
        rows.append((system[groups[0]]["eer"]["mean"], _system_row(grid, name, runs, system, groups, below)))
    for (system_name, kind), values in below.items():
        title = "no learning" if kind == "no_learning" else f"untrained ({system_name})"
        eers = [mean_sd([100 * value for value in values[group]], 2) for group in groups]
        rows.append((statistics.mean(values[groups[0]]), [title, "", str(len(values[groups[0]])), *eers]))
    rows.sort(key=lambda row: row[0])
    return markdown(head, [cells + [""] * (len(head) - len(cells)) for _, cells in rows])


def _system_row(
    grid: Grid, name: str, runs: list[Result], measured: dict, groups: list[str], below: Baselines
) -> list[str]:
    def mean_over(group: str, of: Callable[[dict], float]) -> list[float]:
        return [_mean_over_lists(grid, result, group, of) for result in runs]

    eers = {group: [100 * eer for eer in mean_over(group, lambda report: report["eer"])] for group in groups}
    costs = [mean_over(group, lambda report: report["min_dcf"]["0.01"]) for group in groups]
    parts = [("no_learning", groups[0]), *(("untrained", group) for group in groups)]
    return [
        name,
        grid.systems[name].get("about", ""),
        ", ".join(str(result["seed"]) for result in runs),
        *(f"{mean_sd(eers[group], 2)} {interval(measured[group]['eer']['ci'], 100)}" for group in groups),
        *(f"{100 * measured[group]['pooled']:.2f}" for group in groups),
        *(mean_sd(cost, 3) for cost in costs),
        *(_part(measured[group]["eer"], _baseline(below, name, kind, group)) for kind, group in parts),
        mean_of(runs, "cpu_minutes", 1),
        mean_of(runs, "peak_gb", 2),
        mean_of(runs, "parameters", 0),
    ]


def _mean_over_lists(grid: Grid, result: Result, group: str, of: Callable[[dict], float]) -> float:
    lists = reports(result)
    return statistics.mean(of(lists[stem]) for stem in grid.lists.get(group, sorted(lists)))


def baselines(grid: Grid, results: Results, groups: Sequence[str]) -> Baselines:
    """Return the EERs of what was not trained: no learning once for all, as it has no seed.

    {(system that measured it, no_learning or untrained): {group: EERs of its seeds}}
    """
    measured: Baselines = {}
    for system, runs in by_system(results).items():
        each = [run.get("baseline_lists") or {next(iter(reports(run))): run.get("baselines")} for run in runs]
        each = [lists for lists in each if lists and all(lists.values())]
        if not each:
            continue
        measured[system, "untrained"] = _of_groups(grid, each, groups, "untrained")
        if not any(kind == "no_learning" for _, kind in measured):
            measured[system, "no_learning"] = _of_groups(grid, each[:1], groups, "no_learning")
    return measured


def _of_groups(grid: Grid, each: Sequence[dict], groups: Sequence[str], kind: str) -> dict[str, list[float]]:
    """Return {group: the mean over its lists of a baseline, a value a run}."""
    return {
        group: [statistics.mean(lists[stem][kind] for stem in grid.lists.get(group, sorted(lists))) for lists in each]
        for group in groups
    }


def _baseline(below: Baselines, system: str, kind: str, group: str) -> float | None:
    """Return the system's own baseline, else the first that was measured."""
    values = below.get((system, kind)) or next((values for key, values in below.items() if key[1] == kind), None)
    return statistics.mean(values[group]) if values else None


def _part(eer: dict[str, Any], base: float | None) -> str:
    return f"{eer['mean'] / base:.2f} {interval(eer['ci'], 1 / base)}" if base else ""


def claims(pairs: list[dict]) -> list[str]:
    """Return the table of the paired tests."""
    head = ["claim", "better", "worse", "lists", "measure", "difference", "95 %", "seeds that agree", "p", "verdict"]
    return markdown(head, [_claim_row(pair) for pair in pairs])


def _claim_row(pair: dict) -> list[str]:
    scale = 100 if pair["by"] == "eer" else 1
    published = f" (published: {pair['published']})" if "published" in pair else ""
    return [
        f"{pair['paper'] + ': ' if 'paper' in pair else ''}{pair['claim']}{published}",
        pair["better"],
        pair["worse"],
        pair["lists"],
        pair["by"].replace("eer", "EER, points"),
        f"{scale * pair['difference']:+.2f}",
        interval(pair["ci"], scale),
        f"{pair['agree']} of {len(pair['seeds'])}",
        f"{pair['p']:.3f}",
        f"**{pair['verdict']}**",
    ]


def lists(results: Results, of: Callable[[dict], float], digits: int) -> list[str]:
    """Return the table of one number of every list."""
    stems = list(dict.fromkeys(stem for result in results.values() for stem in reports(result)))
    rows = []
    for name, runs in by_system(results).items():
        values = [[of(reports(result)[stem]) for result in runs if stem in reports(result)] for stem in stems]
        rows.append([name, *(mean_sd(each, digits) for each in values)])
    return markdown(["system", *(stem.removeprefix("trials_") for stem in stems)], rows)


def learning(results: Results, measured: dict, groups: list[str]) -> list[str]:
    """Return the table of what training saw and said: means over seeds."""
    watched = ["loss", "spread", "uniformity", "alignment"]
    head = ["system", "validation EER", "best epoch", "crops seen", "minutes", *watched]
    rows = []
    for name, runs in by_system(results).items():
        best = [100 * result["valid_eer"] for result in runs if result.get("valid_eer") is not None]
        rows.append(
            [
                name,
                mean_sd(best, 2),
                mean_of(runs, "best_epoch", 1),
                mean_of(runs, "crops", 0),
                mean_of(runs, "minutes", 1),
                *(mean_sd(_last_of_curves(runs, key), 2) for key in watched),
                *(_alignment(runs, measured["systems"][name][group]) for group in groups),
            ]
        )
    return [
        *markdown([*head, *(f"{group}: alignment" for group in groups)], rows),
        "",
        "Loss, spread, uniformity and alignment are of the last epoch's training crops; the last columns are of",
        "the test lists' target trials.",
    ]


def _last_of_curves(runs: Sequence[Result], key: str) -> list[float]:
    """Return the last values of the runs' curves, where they were measured."""
    ends = [result["curve"][key][-1] for result in runs if result["curve"][key]]
    return [value for value in ends if value is not None]


def _alignment(runs: Sequence[Result], measured: dict) -> str:
    """Return the alignment on test trials; nothing under AS-norm, whose scores are no cosines."""
    return "" if runs[0].get("cohort") else f"{measured['alignment']['mean']:.3f}"
