"""Results: a run's JSON is recorded, and the tables are made from all of them. `python -m sv_ssl.results results/`

    results/runs/<run>.json     written by programs only: settings, metrics with interval, versions, device, minutes
    results/benchmarks/*.json   written by benchmarks/ and recipes/diarization/: title, about, columns, rows
    results/study/*/README.md   written by `python -m sv_ssl.study`: a page a study, to which README.md leads
    results/audio/*.md          written by `python -m sv_ssl.study`, the same
    results/reported.csv        figures that papers report, typed in by hand with their source; never mixed with ours
    results/summary.csv         generated: a line a run
    results/README.md           generated: a table a corpus and trial list, mean and deviation over seeds

Error rates are fractions in every file; only README.md shows them in percent.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sv_ssl.core import command
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside

NEEDED = ("name", "corpus", "seed", "test")
PACKAGES = ("torch", "torchaudio", "speechbrain", "numpy")
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


def record(folder: str | os.PathLike, run: dict) -> Path:
    """A run (at least name, corpus, seed and `test`, a `scoring.report`) -> its JSON under folder/runs.

    The commit and the versions of the packages are added. The same run done again replaces its file.
    """
    if absent := [key for key in NEEDED if key not in run]:
        raise InputError(f"a run to be recorded needs {', '.join(NEEDED)}; this one has no {', '.join(absent)}")
    run = {**run, "test": _named(run["test"]), "overrides": {k: here(v) for k, v in run.get("overrides", {}).items()}}
    if "lists" in run:
        run["lists"] = {stem: _named(test) for stem, test in run["lists"].items()}
    parts = [run["name"], run["corpus"], Path(run["test"]["list"]).stem, f"seed{run['seed']}"]
    if changed(run):
        parts.append(hashlib.sha1(changed(run).encode()).hexdigest()[:6])
    path = Path(folder) / "runs" / (re.sub(r"[^\w.-]+", "_", "-".join(parts)) + ".json")
    text = json.dumps({**run, "commit": commit(), "versions": versions()}, indent=2, allow_nan=False)
    with aside(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def _named(test: dict) -> dict:
    """A report with the list's name in the place of its path."""
    return {**test, "list": Path(test["list"]).name}


def here(value: Any) -> Any:
    """An option's value, paths as .../NAME: where a machine keeps its data is nobody's business.

    >>> here(["/data/a/O.txt", 1]), here("exp/a")
    (['.../O.txt', 1], 'exp/a')
    """
    if isinstance(value, list):
        return [here(one) for one in value]
    return f".../{Path(value).name}" if isinstance(value, str) and value.startswith("/") else value


# Overrides that say where things are, or how fast, and not what is learnt.
MACHINE = {
    "seed",
    "num_workers",
    "data_folder",
    "output_folder",
    "results_folder",
    "audio_root",
    "noise_folder",
    "room_folder",
    "valid_trials",
    "test_trials",
}


def changed(run: dict) -> str:
    """A run -> its overrides that are not the seed or a matter of the machine.

    >>> changed({"overrides": {"epochs": 3, "seed": 1, "output_folder": "/tmp/x"}})
    'epochs 3'
    """
    kept = {key: value for key, value in sorted(run.get("overrides", {}).items()) if key not in MACHINE}
    return ", ".join(f"{key} {here(value)}" for key, value in kept.items())


def commit() -> str:
    """The git commit of the checkout that runs ("-dirty" if changed), else the version of the installed package."""
    home = Path(__file__).resolve().parent.parent
    if (home / ".git").exists():
        command = ["git", "-C", str(home), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass  # no git here, or nothing committed yet
    return _version("sv_ssl") or "unknown"


def versions() -> dict[str, str]:
    found = {package: _version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **{package: version for package, version in found.items() if version}}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def benchmark(path: str | os.PathLike, title: str, about: str, columns: Sequence[str], rows: Iterable) -> None:
    """Write what a program measured that is no run: cells of text, as the table is to show them."""
    document = {"title": title, "about": about, "columns": list(columns), "rows": [list(row) for row in rows]}
    with aside(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {path}; next: python -m sv_ssl.results results/")


# --- tables ---------------------------------------------------------------------------------------------------------


def table(folder: str | os.PathLike) -> None:
    """Write folder/summary.csv and folder/README.md from folder/runs/*.json and folder/reported.csv."""
    folder = Path(folder)
    read = [one for path in (folder / "runs").glob("*.json") for one in _by_list(_read_run(path))]
    runs = sorted(read, key=lambda run: (_group(run), run["seed"]))
    with aside(folder / "summary.csv") as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([list(SUMMARY), *([of(run) for of in SUMMARY.values()] for run in runs)])
    with aside(folder / "README.md") as temporary:
        parts = [
            *_measured(runs),
            *_studies(folder),
            *_benchmarks(folder / "benchmarks"),
            *_reported(folder / "reported.csv"),
        ]
        temporary.write_text("\n".join([*parts, ""]), encoding="utf-8")


def _read_run(path: Path) -> dict:
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        for of in SUMMARY.values():
            of(run)
        return run
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not the record of a run: {type(error).__name__} {error}") from error


def _by_list(run: dict) -> list[dict]:
    """A run that was scored on several lists -> the same run for each of them.

    >>> run = {"test": {"eer": 0.1}, "lists": {"O": {"eer": 0.1}, "E": {"eer": 0.2}}}
    >>> [(one["test"], one["baselines"]) for one in _by_list(run)]
    [({'eer': 0.1}, {}), ({'eer': 0.2}, {})]
    """
    if "lists" not in run:
        return [run]
    before = run.get("baseline_lists", {})
    return [{**run, "test": test, "baselines": before.get(stem, {})} for stem, test in run["lists"].items()]


def _group(run: dict) -> tuple[str, str, str, str, str]:
    """What runs share whose seeds are averaged."""
    return run["corpus"], run["test"]["list"], run["test"]["sha1"], run["name"], changed(run)


def _measured(runs: list[dict]) -> list[str]:
    about = "One seed: value and 95 % interval (speakers resampled). Several: mean ± standard deviation over seeds."
    lines = [
        "# Results",
        "",
        "Generated by `python -m sv_ssl.results results/` from `runs/*.json`; do not edit.",
        "",
        "## Measured by this package",
        "",
        about,
    ]
    for corpus, name, sha1 in dict.fromkeys(_group(run)[:3] for run in runs):
        rows = [run for run in runs if _group(run)[:3] == (corpus, name, sha1)]
        test = rows[0]["test"]
        lines += ["", f"### {corpus}, {name}", ""]
        lines += [f"{test['n_target']:,} target and {test['n_nontarget']:,} non-target trials, sha1 {sha1[:12]}.", ""]
        head = ["system", "seeds", "EER %", "minDCF 0.01", "minDCF 0.05", "untrained EER %", "no learning EER %", "min"]
        groups = [[run for run in rows if _group(run) == group] for group in dict.fromkeys(map(_group, rows))]
        groups.sort(key=lambda runs: statistics.mean(run["test"]["eer"] for run in runs))
        lines += markdown([*head, "device"], map(_row, groups))
    return lines if runs else [*lines, "", "No run is recorded yet."]


def _row(runs: list[dict]) -> list[str]:
    """Runs of one system that differ in the seed -> cells."""
    tests = [run["test"] for run in runs]
    return [
        runs[0]["name"] + (f" ({changed(runs[0])})" if changed(runs[0]) else ""),
        ", ".join(str(run["seed"]) for run in runs),
        _spread([100 * test["eer"] for test in tests], [100 * end for end in _ends(tests[0], "eer")], 2),
        *(_spread([test["min_dcf"][p] for test in tests], _ends(tests[0], p), 3) for p in ("0.01", "0.05")),
        *(
            _mean([100 * run["baselines"][b] for run in runs if b in run.get("baselines", {})], 2)
            for b in ("untrained", "no_learning")
        ),
        _mean([run["minutes"] for run in runs if "minutes" in run], 1),
        ", ".join(sorted({str(run.get("device", "")) for run in runs})),
    ]


def _ends(test: dict, metric: str) -> list[float]:
    ci = test.get("ci", {})
    return ci.get("eer", []) if metric == "eer" else ci.get("min_dcf", {}).get(metric, [])


def _spread(values: list[float], ends: list[float], digits: int) -> str:
    """One value with its interval, or the mean and deviation of several.

    >>> _spread([7.85], [7.1, 8.6], 2), _spread([7.0, 9.0], [], 2)
    ('7.85 [7.10, 8.60]', '8.00 ± 1.41')
    """
    if len(values) > 1:
        return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"
    return f"{values[0]:.{digits}f}" + (f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if ends else "")


def _mean(values: list[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f}" if values else ""


def _studies(folder: Path) -> list[str]:
    """A link to the page of each study and comparison, and what it says it is about."""
    lines: list[str] = []
    for path in [*sorted(folder.glob("study/*/README.md")), *sorted(folder.glob("audio/*.md"))]:
        title, *rest = path.read_text(encoding="utf-8").splitlines() or [""]
        about = next((line for line in rest if line.strip() and not line.startswith("Generated by")), "")
        lines += ["", f"[{title.lstrip('# ')}]({path.relative_to(folder).as_posix()}): {about}"]
    return ["", "## Studies", *lines] if lines else []


def _benchmarks(folder: Path) -> list[str]:
    """The tables of the benchmarks as they were written."""
    lines: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            table = markdown(found["columns"], found["rows"])
            lines += ["", f"## {found['title'][:1].upper()}{found['title'][1:]}", "", found["about"], "", *table]
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{path} is not the record of a benchmark: {type(error).__name__} {error}") from error
    return lines


def _reported(path: Path) -> list[str]:
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if tuple(reader.fieldnames or ()) != REPORTED:
        raise InputError(f"{path}: the first line must be {','.join(REPORTED)}")
    about = "Figures that papers and other toolkits report, from `reported.csv`. They were not measured here."
    cells = [
        [_percent(path, i, row["eer"]) if key == "eer" else row[key] for key in REPORTED]
        for i, row in enumerate(rows, 2)
    ]
    head = ["system", "encoder", "trained on", "tested on", "EER %", "minDCF 0.01", "source"]
    return ["", "## Reported elsewhere", "", about, "", *markdown(head, cells)]


def _percent(path: Path, line: int, eer: str) -> str:
    try:
        if 0 <= float(eer) <= 1:
            return f"{100 * float(eer):.2f}"
    except ValueError:
        pass
    raise InputError(f"{path}:{line}: eer must be a fraction between 0 and 1, not {eer!r}")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table -> its lines.

    >>> markdown(["a", "b"], [["1", "2"]])
    ['| a | b |', '| --- | --- |', '| 1 | 2 |']
    """
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def main(argv: Sequence[str] | None = None) -> int:
    """Make the tables of a results folder -> exit code."""
    given = sys.argv[1:] if argv is None else argv
    return command.run(lambda: _tables(Path(given[0] if given else "results")))


def _tables(folder: Path) -> None:
    table(folder)
    print(f"wrote {folder}/README.md, {folder}/summary.csv")
