"""The page of a study: tables made of its JSONs alone, beside pictures made of what its runs left.

Of speakers it is README.md in the study's folder; of labelled clips it is <folder>.md beside the folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.reporting.record import streams_note
from sv_ssl.study import cells, clips_table, compare, figures, run_files, speakers_table
from sv_ssl.study.clips_table import Systems
from sv_ssl.study.grid import Grid
from sv_ssl.study.speakers_table import Results

HOW = """\
Error rates are in percent, means over the lists of a group and then over seeds; ± is the standard deviation over seeds.
[ , ] is a 95 % interval: in each of {draws:,} draws the speakers of the test lists are drawn with replacement, and what
other training seeds would give is added by Student's t, which is wide where seeds are few; with one seed nothing is
added. It rests on {speakers} speakers, and where those are few it is coarse. "Pooled" has one threshold for all lists
of a group. minDCF is at a target prior of 0.01 with costs of 1. The parts of no learning and of the untrained encoder
divide by their mean, as if that were known exactly. Minutes are of the CPU, over all threads, training and what it
validates; memory is the process's peak."""
TESTED = """\
The difference is of means over the seeds that both systems have: better minus worse, in points of the EER; in
alignment, which is the mean squared distance of two recordings of one speaker, as it is. In every draw both systems
meet the same speakers and the same seeds. "yes" and "no, the reverse" are said where the 95 % interval leaves out zero;
p is twice the share of draws on the other side of it. No correction for the number of tests was made: of twenty claims
without any substance one would pass."""
AGAIN = """\
Every JSON says its command line, in which `$data` is the folder of the recordings and `$work` that of the other runs'
models: `export data=FOLDER work=FOLDER` and paste it. The same numbers come out."""
# Of results whose command does not name the threads.
AGAIN_WITHOUT_THREADS = """\
Every JSON in `runs/` says its command line, in which `$data` is the folder of the recordings: `export data=FOLDER`, set
OMP_NUM_THREADS to the threads that its "device" names, and paste it. The same numbers come out."""
SCORES = """ `scores/` and
`trials/` hold all scores, so that another test needs no training."""


def write(folder: Path, grid: Grid, file: str) -> int:
    """Write the page and the pictures of what is there; return the exit code."""
    results = run_files.read_results(folder, grid)
    if not results:
        print(f"no run of {file} is recorded in {folder} yet, so there are no tables")
        return 0
    if is_of_clips(folder, results):
        path = folder.parent / f"{folder.name}.md"
        text = clips_page(folder, grid, results)
        figures.accuracies(path.with_name(f"{folder.name}.png"), grid, run_files.by_system(results))
    else:
        path = folder / "README.md"
        measured = compare.measure(folder, grid, list(results))
        figures.draw(folder, grid, results)
        text = page(folder, grid, results, measured)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"wrote {path}: {len(results)} of {len(grid.runs())} runs")
    return 0


def is_of_clips(folder: Path, results: Results) -> bool:
    """Return whether a study is of clips; its results say it, and those of both kinds are refused."""
    kinds = {run_files.is_of_clips(result) for result in results.values()}
    if len(kinds) > 1:
        raise InputError(f"{folder} has results of speakers and of labelled clips: make two studies of them")
    return kinds.pop()


# --- speakers -------------------------------------------------------------------------------------------------------


def read_measured(folder: Path, results: Results) -> dict[str, Any]:
    """Return measured.json, which must be of these runs."""
    try:
        measured = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
        if measured["runs"] != [run.title for run in results]:
            raise InputError(f"{folder}/measured.json is of other runs than those in runs/: make the tables again")
        return measured
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"cannot read {folder}/measured.json ({error}): make the tables again") from error


def page(folder: Path, grid: Grid, results: Results, measured: dict[str, Any]) -> str:
    """Return the text of README.md of a study of speakers."""
    groups = list(measured["speakers"])
    count = " + ".join(str(n) for n in measured["speakers"][groups[0]].values())
    lines = [
        f"# {grid.title or f'Study: {grid.name}'}",
        "",
        *grid.about.strip().splitlines(),
        "",
        f"Generated by `python -m sv_ssl.study` from recipes/study; do not edit. {_made(grid, results)}",
        *streams_note(results.values()),
        "",
        "## Systems",
        "",
        *speakers_table.systems(grid, results, measured, groups),
        "",
        HOW.format(draws=measured["draws"], speakers=count),
        "",
        "## Claims",
        "",
        *speakers_table.claims(measured["pairs"]),
        "",
        TESTED,
        *(["", "## What follows", "", *grid.conclusions.strip().splitlines()] if grid.conclusions else []),
        "",
        "## Each list: EER",
        "",
        *speakers_table.lists(results, lambda report: 100 * report["eer"], 2),
        "",
        "## Each list: minDCF",
        "",
        *speakers_table.lists(results, lambda report: report["min_dcf"]["0.01"], 3),
        "",
        "## How they learn",
        "",
        *speakers_table.learning(results, measured, groups),
        "",
        *_links(folder),
        "## To run one again",
        "",
        _again(results) + SCORES,
        "",
    ]
    return "\n".join(lines)


def _made(grid: Grid, results: Results) -> str:
    devices = sorted({str(result.get("device")) for result in results.values()})
    commits = cells.commits(results.values())
    several = "s" if "," in commits else ""
    return f"{len(results)} of {len(grid.runs())} runs, on {'; '.join(devices)}; commit{several} {commits}."


def _links(folder: Path) -> list[str]:
    """Return the lines that show the pictures, and lead to the pages of hard pairs."""
    pictures = [f"![{title}]({name})\n" for name, title in figures.PICTURES.items() if (folder / name).exists()]
    pages = [
        f"[What {path.stem.removeprefix('errors-')} gets wrong]({path.name}): by gender, session and duration; the "
        "hardest pairs.\n"
        for path in sorted(folder.glob("errors-*.md"))
    ]
    return pictures + pages


def _again(results: Results) -> str:
    commands = [result.get("command", "") for result in results.values()]
    return AGAIN if all("--threads=" in command for command in commands) else AGAIN_WITHOUT_THREADS


def _tell_commands(results: Results) -> bool:
    return all("command" in result for result in results.values())


# --- clips ----------------------------------------------------------------------------------------------------------


def clips_page(folder: Path, grid: Grid, results: Results) -> str:
    """Return the text of <folder>.md of a study of labelled clips."""
    by_name: Systems = run_files.by_system(results)
    lines = [
        f"# {grid.title or f'Study: {grid.name}'}",
        "",
        f"Generated by `python -m sv_ssl.study` from recipes/study and the JSONs in `{folder.name}/`; do not edit.",
        "",
        " ".join(grid.about.split()),
        "",
        f"{clips_table.about_runs(by_name)} Commit {cells.commits(results.values())}.",
        *streams_note(results.values()),
        "",
        *(["## What follows", "", grid.conclusions.strip(), ""] if grid.conclusions else []),
        "## Claims",
        "",
        *clips_table.claims(grid, by_name),
        "",
        "## Settings",
        "",
        *clips_table.systems(by_name),
        "",
        f"![accuracies with their intervals]({folder.name}.png)",
        *(["", "## To run one again", "", _again(results)] if _tell_commands(results) else []),
        "",
    ]
    return "\n".join(lines)
