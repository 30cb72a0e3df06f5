"""Tables of recorded results. `python -m sv_ssl.results results/` reads

    results/runs/<run>.json     the runs, written by programs only
    results/benchmarks/*.json   the benchmarks, likewise
    results/study/*/README.md   written by `python -m sv_ssl.study`: a page a study, to which README.md leads
    results/audio/*.md          the same of studies on labelled clips
    results/reported.csv        figures that papers report, typed in by hand with their source; never mixed with ours

and writes

    results/summary.csv         a line a run
    results/README.md           a table a corpus and trial list, mean and deviation over seeds

Error rates are fractions in every file; only README.md shows them in percent.
"""

from __future__ import annotations

import csv
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sv_ssl.core import command
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.reporting.record import changed, read, read_benchmark, streams_note

PROGRAM = "python -m sv_ssl.results"
REPORTED = ("system", "encoder", "train", "test", "eer", "min_dcf", "source")
SUMMARY: dict[str, Callable[[dict], Any]] = {
    "name": lambda run: run["name"],
    "corpus": lambda run: run["corpus"],
    "list": lambda run: run["test"]["list"],
    "n_target": lambda run: run["test"]["n_target"],
    "n_nontarget": lambda run: run["test"]["n_nontarget"],
    "seed": lambda run: run["seed"],
    "overrides": lambda run: changed(run),
    "eer": lambda run: run["test"]["eer"],
    "eer_low": lambda run: run["test"].get("ci", {}).get("eer", ["", ""])[0],
    "eer_high": lambda run: run["test"].get("ci", {}).get("eer", ["", ""])[1],
    "min_dcf_0.01": lambda run: run["test"]["min_dcf"]["0.01"],
    "min_dcf_0.05": lambda run: run["test"]["min_dcf"]["0.05"],
    "minutes": lambda run: run.get("minutes", ""),
    "device": lambda run: run.get("device", ""),
    "commit": lambda run: run.get("commit", ""),
}
COLUMNS = (
    "system",
    "seeds",
    "EER %",
    "minDCF 0.01",
    "minDCF 0.05",
    "untrained EER %",
    "no learning EER %",
    "min",
    "device",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the tables of a results folder; return the exit code."""
    return command.run(lambda: _make(argv), PROGRAM)


def _make(argv: Sequence[str] | None) -> None:
    parser = command.Parser(prog=PROGRAM, description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="results", help="default: results")
    folder = Path(parser.parse_args(argv).folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: wanted one with results, such as results/")
    write(folder)
    print(f"wrote {folder}/README.md, {folder}/summary.csv")


def write(folder: str | os.PathLike) -> None:
    """Write folder/summary.csv and folder/README.md from the results in the folder and from its reported.csv."""
    folder = Path(folder)
    recorded = [_read_run(path) for path in (folder / "runs").glob("*.json")]
    runs = [scored for run in recorded for scored in _by_list(run)]
    runs.sort(key=lambda run: (_group(run), run["seed"]))
    with atomic_write(folder / "summary.csv") as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SUMMARY)
        writer.writerows([value(run) for value in SUMMARY.values()] for run in runs)
    lines = [
        *_measured(runs, streams_note(recorded)),
        *_studies(folder),
        *_benchmarks(folder / "benchmarks"),
        *_reported(folder / "reported.csv"),
    ]
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text("\n".join([*lines, ""]), encoding="utf-8")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table.

    >>> markdown(["a", "b"], [["1", "2"]])
    ['| a | b |', '| --- | --- |', '| 1 | 2 |']
    """
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


# --- the runs -------------------------------------------------------------------------------------------------------


def _read_run(path: Path) -> dict:
    """Read a run of speakers that has all that the tables need."""
    run = read(path)
    try:
        for value in SUMMARY.values():
            value(run)
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not the record of a run: {type(error).__name__} {error}") from error
    return run


def _by_list(run: dict) -> list[dict]:
    """Return a run for each list that it was scored on.

    >>> run = {"test": {"eer": 0.1}, "lists": {"O": {"eer": 0.1}, "E": {"eer": 0.2}}}
    >>> [(each["test"], each["baselines"]) for each in _by_list(run)]
    [({'eer': 0.1}, {}), ({'eer': 0.2}, {})]
    """
    if "lists" not in run:
        return [run]
    before = run.get("baseline_lists", {})
    return [{**run, "test": test, "baselines": before.get(stem, {})} for stem, test in run["lists"].items()]


def _group(run: dict) -> tuple[str, str, str, str, str]:
    """Return what runs share whose seeds are averaged."""
    return run["corpus"], run["test"]["list"], run["test"]["sha1"], run["name"], changed(run)


def _measured(runs: list[dict], notes: list[str]) -> list[str]:
    """Return the lines of all tables of runs, one a corpus and list, below the notes."""
    lines = [
        "# Results",
        "",
        "Generated by `python -m sv_ssl.results results/` from `runs/*.json`; do not edit.",
        "",
        "## Measured by this package",
        "",
        "One seed: value and 95 % interval (speakers resampled). Several: mean ± standard deviation over seeds.",
        *notes,
    ]
    if not runs:
        return [*lines, "", "No run is recorded yet."]
    for corpus, name, sha1 in dict.fromkeys(_group(run)[:3] for run in runs):
        rows = [run for run in runs if _group(run)[:3] == (corpus, name, sha1)]
        test = rows[0]["test"]
        lines += ["", f"### {corpus}, {name}", ""]
        lines += [f"{test['n_target']:,} target and {test['n_nontarget']:,} non-target trials, sha1 {sha1[:12]}.", ""]
        groups = [[run for run in rows if _group(run) == group] for group in dict.fromkeys(map(_group, rows))]
        groups.sort(key=lambda group: statistics.mean(run["test"]["eer"] for run in group))
        lines += markdown(COLUMNS, map(_row, groups))
    return lines


def _row(runs: list[dict]) -> list[str]:
    """Return the cells of runs of one system that differ in the seed."""
    options = changed(runs[0])
    return [
        runs[0]["name"] + (f" ({options})" if options else ""),
        ", ".join(str(run["seed"]) for run in runs),
        _spread([100 * run["test"]["eer"] for run in runs], [100 * end for end in _ends(runs[0], "eer")], 2),
        *(_spread([run["test"]["min_dcf"][p] for run in runs], _ends(runs[0], p), 3) for p in ("0.01", "0.05")),
        *(_baseline(runs, name) for name in ("untrained", "no_learning")),
        _mean([run["minutes"] for run in runs if "minutes" in run], 1),
        ", ".join(sorted({str(run.get("device", "")) for run in runs})),
    ]


def _baseline(runs: list[dict], name: str) -> str:
    return _mean([100 * run["baselines"][name] for run in runs if name in run.get("baselines", {})], 2)


def _ends(run: dict, metric: str) -> list[float]:
    """Return the interval of "eer" or of a minDCF by its point, [] where there is none."""
    ci = run["test"].get("ci", {})
    return ci.get("eer", []) if metric == "eer" else ci.get("min_dcf", {}).get(metric, [])


def _spread(values: list[float], ends: list[float], digits: int) -> str:
    """Return one value with its interval, or the mean and deviation of several.

    >>> _spread([7.85], [7.1, 8.6], 2), _spread([7.0, 9.0], [], 2)
    ('7.85 [7.10, 8.60]', '8.00 ± 1.41')
    """
    if len(values) > 1:
        return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"
    return f"{values[0]:.{digits}f}" + (f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if ends else "")


def _mean(values: list[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f}" if values else ""


# --- beside the runs ------------------------------------------------------------------------------------------------


def _studies(folder: Path) -> list[str]:
    """Return a link to the page of each study, with what it says it is about."""
    lines: list[str] = []
    for path in [*sorted(folder.glob("study/*/README.md")), *sorted(folder.glob("audio/*.md"))]:
        title, *rest = path.read_text(encoding="utf-8").splitlines() or [""]
        about = next((line for line in rest if line.strip() and not line.startswith("Generated by")), "")
        lines += ["", f"[{title.lstrip('# ')}]({path.relative_to(folder).as_posix()}): {about}"]
    return ["", "## Studies", *lines] if lines else []


def _benchmarks(folder: Path) -> list[str]:
    """Return the tables of the benchmarks as they were written."""
    lines: list[str] = []
    for path in sorted(folder.glob("*.json")):
        benchmark = read_benchmark(path)
        title = benchmark["title"]
        lines += ["", f"## {title[:1].upper()}{title[1:]}", "", benchmark["about"], ""]
        lines += markdown(benchmark["columns"], benchmark["rows"])
    return lines


def _reported(path: Path) -> list[str]:
    """Return the table of figures that others report."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if tuple(reader.fieldnames or ()) != REPORTED:
        raise InputError(f"{path}: the first line must be {','.join(REPORTED)}")
    about = "Figures that papers and other toolkits report, from `reported.csv`. They were not measured here."
    cells = [list({**row, "eer": _percent(path, i, row["eer"])}.values()) for i, row in enumerate(rows, 2)]
    head = ["system", "encoder", "trained on", "tested on", "EER %", "minDCF 0.01", "source"]
    return ["", "## Reported elsewhere", "", about, "", *markdown(head, cells)]


def _percent(path: Path, line: int, eer: str) -> str:
    try:
        if 0 <= float(eer) <= 1:
            return f"{100 * float(eer):.2f}"
    except ValueError:
        pass
    raise InputError(f"{path}:{line}: eer must be a fraction between 0 and 1, not {eer!r}")
