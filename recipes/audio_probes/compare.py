"""The papers' own comparisons, side by side: settings of the recipes x seeds, a table, and what holds of the claims.

    python recipes/audio_probes/compare.py words.yaml --data_folder /data/words --jobs 2

A grid is a YAML: `sizes` (laid beneath every setting; a key that its recipe does not have is passed over), `seeds`,
`folds` (the test fold of each seed, or a list of folds: a run each, pooled), `settings` (name: the recipe's YAML and
what is changed in it; `each: {key: [values]}` makes a setting of every value, `after: NAME` starts from the model that
NAME left for the same seed), `claims` (which setting is better than which by what) and `conclusions` (a text for the
page). words.yaml runs on a CPU; esc50.yaml and fsdnoisy18k.yaml are the papers' tables, for a GPU.
Runs that are done are not done again: a JSON each in --out, from which the table beside it is made, by --table alone. A
process does many runs, on one core.

An accuracy is the mean over all test clips, +- the standard deviation over seeds, and [an interval over other seeds and
other speakers, or other clips where no speakers are known]. A claim is judged by paired differences, over seeds and
speakers (statistics: over seeds): it holds where the interval lies above 0, does not where it lies below, and else
cannot be told at this size.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from data_prep import positive
from sv_ssl.analysis import probe
from sv_ssl.core import command
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside
from sv_ssl.data import clips
from sv_ssl.reporting import class_plots
from sv_ssl.reporting.result_tables import markdown
from sv_ssl.study.runner import THREADS
from sv_ssl.training import classify, settings

HERE = Path(__file__).parent
JUDGES = ("classifier", "linear", "knn")


class Run(NamedTuple):
    """A setting, a seed and, of several, a fold; `key` tells the last two, as files are named."""

    name: str
    yaml: str
    changes: dict[str, Any]
    after: str | None
    seed: int
    key: str

    def file(self, folder: Path) -> Path:
        return folder / f"{self.name}-{self.key}.json"

    def result(self, folder: Path, sizes: dict) -> dict[str, Any] | None:
        """What it found, if it was run with these very settings."""
        path = self.file(folder)
        found = json.loads(path.read_text()) if path.is_file() else {}
        return found if found.get("run") == self.facts(sizes) else None

    def facts(self, sizes: dict) -> dict[str, Any]:
        return json.loads(json.dumps({"yaml": self.yaml, "changes": self.changes, "after": self.after, "sizes": sizes}))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line -> exit code: 2 if a run failed."""
    return command.run(lambda: compare(parser().parse_args(argv)))


def parser() -> command.Parser:
    """The command line."""
    made = command.Parser(prog="compare.py", description=__doc__)
    add = made.add_argument
    add("grid", metavar="FILE.yaml", help="the settings and the claims: a path, or one beside this file")
    add("--data_folder", metavar="FOLDER", help="prepared clips (default: the built-in sounds)")
    add("--out", metavar="FOLDER", help="of the runs' JSONs; the table is FOLDER.md (default: results/audio/GRID)")
    add("--work", metavar="FOLDER", default="exp/audio_probes", help="models and logs (default: %(default)s)")
    add("--jobs", type=positive, default=1, metavar="N", help="processes, of one core each")
    add("--only", metavar="TEXT", default="", help="the settings whose name has this")
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    add("--table", action="store_true", help="only make the table from the runs that are done")
    return made


def compare(arguments: argparse.Namespace) -> int:
    """Do the runs that are not done, and write the table."""
    path, grid = read(arguments.grid)
    out = Path(arguments.out or f"results/audio/{path.stem}")
    runs = [run for run in planned(grid) if arguments.only in run.name]
    if not runs:
        raise InputError(
            f"--only {arguments.only}: no setting has this in its name: choose from "
            f"{', '.join(dict.fromkeys(run.name for run in planned(grid)))}"
        )
    if arguments.data_folder and not arguments.table:
        same_clips(runs, out, grid, Path(arguments.data_folder))
    left = [] if arguments.table else [run for run in runs if run.result(out, grid.get("sizes", {})) is None]
    print(f"{len(runs)} runs, {len(left)} to do")
    failed = 0
    for wave in ([run for run in left if not run.after], [run for run in left if run.after]):
        failed += work(wave, grid.get("sizes", {}), out, arguments)
    lines, done = page(grid, planned(grid), out, path.name)
    with aside(out.with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    if done:
        picture(out.with_suffix(".png"), grid["title"], done)
    print(
        f"wrote {out.with_suffix('.md')}"
        + f" and {out.with_suffix('.png').name}" * bool(done)
        + f"; {failed} runs failed" * bool(failed)
    )
    return 2 if failed else 0


def read(name: str) -> tuple[Path, dict]:
    """A grid's file, as given or beside this one, and what it says."""
    path = next((path for path in (Path(name), HERE / name) if path.is_file()), None)
    if path is None:
        there = ", ".join(sorted(path.name for path in HERE.glob("*.yaml")))
        raise InputError(f"there is no {name}, here or beside {Path(__file__).name}: choose one of {there}")
    try:
        grid = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    wanted = ("title", "about", "seeds", "settings")
    if absent := [key for key in wanted if not isinstance(grid, dict) or key not in grid]:
        raise InputError(f"{path}: want {', '.join(wanted)}; there is no {absent[0]}")
    if len(grid.get("folds", grid["seeds"])) != len(grid["seeds"]):
        raise InputError(f"{path}: {len(grid['folds'])} folds for {len(grid['seeds'])} seeds: want as many")
    for setting, said in grid["settings"].items():
        if not isinstance(said, dict) or not (HERE / "hparams" / str(said.get("yaml"))).is_file():
            raise InputError(f"{path}: the setting {setting} wants a yaml that is in {HERE / 'hparams'}")
    for claim in grid.get("claims", []):
        if (by := claim.get("by")) not in (*JUDGES, *classify.TERMS):
            raise InputError(f"{path}: a claim is by {by}: choose from {', '.join((*JUDGES, *classify.TERMS))}")
    return path, grid


def same_clips(runs: list[Run], out: Path, grid: dict, folder: Path) -> None:
    """Runs on other clips are not taken for these."""
    for run in runs:
        found = run.result(out, grid.get("sizes", {}))
        if found and found["corpus"] != folder.resolve().name:
            raise InputError(
                f"{run.file(out)} is of the clips of {found['corpus']}, not of {folder}: name another --out"
            )


def planned(grid: dict) -> list[Run]:
    """A grid -> its runs, seed by seed: a stopped comparison has all settings of the first seeds."""
    found = []
    for name, setting in grid["settings"].items():
        changes = {key: value for key, value in setting.items() if key not in ("yaml", "each", "after")}
        [(key, values)] = setting.get("each", {None: [None]}).items()
        for value in values:
            one = {**changes, **({key: value} if key else {})}
            ending = "_".join(map(str, value)) if isinstance(value, list) else value
            found.append((f"{name}-{ending}" if key else name, setting["yaml"], one, setting.get("after")))
    runs = []
    for seed, folds in zip(grid["seeds"], grid.get("folds", [None] * len(grid["seeds"])), strict=True):
        several = isinstance(folds, list)
        for fold in folds if several else [folds]:
            where = {} if fold is None else {"test_fold": fold}
            runs += [
                Run(name, path, {**one, **where}, after, seed, f"{seed}-{fold}" if several else str(seed))
                for name, path, one, after in found
            ]
    return runs


# ---------------------------------------------------------------------------------------------------------- the runs
def work(runs: list[Run], sizes: dict, out: Path, arguments: argparse.Namespace) -> int:
    """Do the runs in processes of their own -> how many failed. Ctrl-C ends them where they are; they resume."""
    failed, begun = 0, time.monotonic()
    os.environ.update(dict.fromkeys(THREADS, "1"))  # of the processes, in which numpy and torch are yet to start
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # after Ctrl-C it tells of what it tidies up
    quiet = signal.signal, (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(min(arguments.jobs, len(runs)) or 1, multiprocessing.get_context("spawn"), *quiet) as pool:
        waiting = {
            pool.submit(one, run, sizes, out, Path(arguments.work), arguments.data_folder, arguments.device): run
            for run in runs
        }
        try:
            for i, done in enumerate(as_completed(waiting), 1):
                run = waiting[done]
                try:
                    said = done.result()
                except Exception as error:  # the other runs go on
                    failed, said = failed + 1, f"failed: {' '.join(str(error).split()) or type(error).__name__}"
                left = (time.monotonic() - begun) / i * (len(runs) - i) / 60
                print(f"{i}/{len(runs)} {run.name}, seed {run.key}: {said}; about {left:.0f} min left", flush=True)
        except KeyboardInterrupt:
            for child in multiprocessing.active_children():
                child.terminate()
            raise
    return failed


def one(run: Run, sizes: dict, out: Path, work: Path, data_folder: str | None, device: str = "cpu") -> str:
    """Do a run and write its JSON -> a line about it."""
    folder = work / out.name / run.name / run.key
    script = str(HERE / "train_acl.py")
    path = HERE / "hparams" / run.yaml
    known = settings.top_level(path.read_text(), path, classify.NEEDED)
    given = {
        **{key: value for key, value in sizes.items() if key in known},
        **run.changes,
        "seed": run.seed,
        "data_folder": data_folder,
        "output_folder": str(folder),
    }
    if run.after:
        given["init_from"] = str(work / out.name / run.after / run.key / "model")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "a", 1) as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        hparams = classify.read(script, str(path), {**given, "device": device})
        waves = held(str(hparams["data_folder"]), hparams["embedder"].sample_rate)
        found = classify.experiment(hparams, classify.corpus(hparams, waves))
    found["overrides"] = run.changes
    classify.write(run.file(out), {**found, "setting": run.name, "run": run.facts(sizes)})
    return ", ".join(f"{name} {100 * report['accuracy']:.1f} %" for name, report in found["accuracy"].items())


@lru_cache(maxsize=2)
def held(folder: str, rate: int) -> clips.Audio:
    """The audio of a folder, which the runs of a process share."""
    return clips.Audio(clips.table(folder), rate)


# --------------------------------------------------------------------------------------------------------- the table
def page(grid: dict, runs: list[Run], out: Path, name: str) -> tuple[list[str], dict[str, list[dict]]]:
    """The markdown of all runs that are done, and these, setting by setting."""
    done: dict[str, list[dict]] = {}
    for run in runs:
        if found := run.result(out, grid.get("sizes", {})):
            done.setdefault(run.name, []).append(found)
    lines = [
        f"# {grid['title']}",
        "",
        f"Generated by `recipes/audio_probes/compare.py {name} --table` from the JSONs in `{out.name}/`; do not edit.",
        "",
        " ".join(grid["about"].split()),
        "",
        *_made(done),
        "",
    ]
    if grid.get("conclusions"):
        lines += ["## What follows", "", grid["conclusions"].strip(), ""]
    lines += ["## Claims", ""]
    head = ["paper", "claim", "published", "here: the difference", "verdict"]
    lines += [*markdown(head, [judged(claim, done) for claim in grid.get("claims", [])]), "", "## Settings", ""]
    head = ["setting", "runs", *(f"{judge} %" for judge in JUDGES), *classify.TERMS]
    rows = [
        [
            name,
            str(len(found)),
            *(accuracy(found, judge) for judge in JUDGES),
            *(_statistic(found, term) for term in classify.TERMS),
        ]
        for name, found in done.items()
    ]
    shown = ["", f"![accuracies with their intervals]({out.with_suffix('.png').name})"] if done else []
    return lines + markdown(head, rows + untrained(done)) + shown, done


def picture(path: Path, title: str, done: dict[str, list[dict]]) -> None:
    """The accuracies of all settings with their intervals, in per cent."""
    points = {}
    for judge in JUDGES:
        judged_by = {name: found for name, found in done.items() if all(judge in run["right"] for run in found)}
        points[judge] = {
            name: tuple(100 * np.array(probe.across(*hits(found, judge)))) for name, found in judged_by.items()
        }
    some = {judge: by_name for judge, by_name in points.items() if by_name}
    class_plots.intervals(path, list(done), some, title, "accuracy, %", (0, 100))


def _made(done: dict[str, list[dict]]) -> list[str]:
    """What the runs were made on."""
    everything = [run for found in done.values() for run in found]
    if not everything:
        return ["No run is done."]
    first = everything[0]
    parts = ", ".join(f"{number:,} {part}" for part, number in first["clips"].items())
    speakers = {speaker for run in everything for speaker in run["speakers"] or []}
    commits = sorted({run["commit"][:12] for run in everything})
    return [
        f"{len(everything)} runs, {sum(run['minutes'] for run in everything):.0f} minutes of training on "
        f"{first['device']}; clips of {first['corpus']}: {parts}"
        + f" (of a run; {len(speakers)} speakers are tested in all)" * bool(speakers)
        + f"; {first['n_classes']} classes, chance {100 / first['n_classes']:.1f} %. Commit {', '.join(commits)}."
    ]


def accuracy(found: list[dict], judge: str) -> str:
    """The runs of a setting -> mean, deviation over seeds and interval, in per cent."""
    if any(judge not in run["right"] for run in found):
        return ""
    mean, low, high = (100 * min(1.0, max(0.0, number)) for number in probe.across(*hits(found, judge)))
    seeds = per_seed(found, lambda run: 100 * run["accuracy"][judge]["accuracy"])
    return f"{mean:.1f}{_over(seeds, 1)} [{low:.1f}, {high:.1f}]"


def per_seed(found: list[dict], value: Callable[[dict], float]) -> list[float]:
    """A value a run -> its mean over the folds, seed by seed."""
    return [
        float(np.mean([value(run) for run in found if run["seed"] == seed]))
        for seed in sorted({run["seed"] for run in found})
    ]


def hits(found: list[dict], judge: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> (N,) 1 where a run is right about a clip; (N,) its seed; (N,) its speaker, or else the clip itself."""
    values = [[float(mark) for mark in run["right"][judge]] for run in found]
    seeds = [[run["seed"]] * len(row) for run, row in zip(found, values)]
    groups = [
        run["speakers"] or [f"{run['run']['changes'].get('test_fold')}/{i}" for i in range(len(row))]
        for run, row in zip(found, values)
    ]
    return np.concatenate(values), np.concatenate(seeds), np.concatenate(groups)


def _statistic(found: list[dict], term: str) -> str:
    values = per_seed(found, lambda run: run["analysis"]["add"][term])
    return f"{np.mean(values):.3f}{_over(values, 3)}"


def _over(values: Sequence[float], digits: int) -> str:
    """The deviation over seeds, where there are several."""
    return f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""


def untrained(done: dict[str, list[dict]]) -> list[list[str]]:
    """Rows of the encoders before their training, one an encoder, where that was judged."""
    rows, seen = [], set()
    for name, found in done.items():
        before = [run for run in found if run["untrained"]]
        if not before or (key := json.dumps([run["untrained"] for run in before])) in seen:
            continue
        seen.add(key)
        cells = []
        for judge in JUDGES:
            some = [{"seed": run["seed"], **run["untrained"][judge]} for run in before if judge in run["untrained"]]
            values = per_seed(some, lambda one: 100 * one["accuracy"])
            cells.append(f"{np.mean(values):.1f}{_over(values, 1)}" if values else "")
        rows.append([f"untrained ({name})", str(len(before)), *cells, *[""] * len(classify.TERMS)])
    return rows


def judged(claim: dict, done: dict[str, list[dict]]) -> list[str]:
    """A claim -> its row of the table: the paired difference, and whether it holds."""
    start = [claim["paper"], claim["claim"], claim.get("published", "")]
    if claim["better"] not in done or claim["worse"] not in done:
        return [*start, "", "not run yet"]
    pair = [
        {(run["seed"], run["run"]["changes"].get("test_fold")): run for run in done[claim[side]]}
        for side in ("better", "worse")
    ]
    both = sorted(pair[0].keys() & pair[1].keys(), key=str)
    better, worse = ([side[key] for key in both] for side in pair)
    seeds = [run["seed"] for run in better]
    if claim["by"] in JUDGES:
        (right, *codes), (wrong, *_) = (hits(side, claim["by"]) for side in (better, worse))
        mean, low, high = probe.across(right - wrong, *codes)
        shown = f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points"
    else:
        values = [[run["analysis"]["add"][claim["by"]] for run in side] for side in (better, worse)]
        mean, low, high = probe.across(np.subtract(values[0], values[1]), seeds)
        shown = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        low, high = -high, -low  # of a statistic, less is claimed
    verdict = "holds" if low > 0 else "does not hold" if high < 0 else "cannot be told at this size"
    return [*start, f"{shown} ({claim['by']})", verdict if len(set(seeds)) > 1 else f"{verdict} (one seed)"]


if __name__ == "__main__":
    sys.exit(main())
