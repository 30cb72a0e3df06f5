"""The papers' own comparisons, side by side: settings of the recipes x seeds, a table, and what holds of the claims.

    python recipes/audio_probes/compare.py words.yaml --data_folder /data/words --jobs 2

A grid is a YAML: `sizes` (laid beneath every setting; a key that its recipe does not have is passed over), `seeds`
(`folds`: the test fold of each, where the folds are numbers), `settings` (name: the recipe's YAML and what is changed in it; `each: {key: [values]}` makes a setting of every value,
`after: NAME` starts from the model that NAME left for the same seed) and `claims` (which setting is better than which
by what). Runs that are done are not done again: a JSON each in --out, from which the table beside it is made, by
--table alone. A process does many runs, on one core.

An accuracy is the mean over seeds, +- its standard deviation over them, and [an interval over other seeds and other
clips of the same test part]. A claim is judged by paired differences, over seeds and clips (statistics: over seeds):
it holds where the interval lies above 0, does not where it lies below, and else cannot be told at this size.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Sequence

import numpy as np
import torch
import yaml

from sv_ssl import classify, cli, clips, probe, settings
from sv_ssl.files import InputError, aside
from sv_ssl.results import markdown

HERE = Path(__file__).parent
JUDGES = ("classifier", "linear", "knn")


class Run(NamedTuple):
    """A setting and a seed."""

    name: str
    yaml: str
    changes: dict[str, Any]
    after: str | None
    seed: int

    def file(self, folder: Path) -> Path:
        return folder / f"{self.name}-{self.seed}.json"

    def result(self, folder: Path, sizes: dict) -> dict[str, Any] | None:
        """What it found, if it was run with these very settings."""
        path = self.file(folder)
        found = json.loads(path.read_text()) if path.is_file() else {}
        return found if found.get("run") == self.facts(sizes) else None

    def facts(self, sizes: dict) -> dict[str, Any]:
        return json.loads(json.dumps({"yaml": self.yaml, "changes": self.changes, "after": self.after, "sizes": sizes}))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line -> exit code: 2 if a run failed."""
    return cli.run(lambda: compare(parser().parse_args(argv)))


def parser() -> cli.Parser:
    """The command line."""
    made = cli.Parser(prog="compare.py", description=__doc__)
    add = made.add_argument
    add("grid", metavar="FILE.yaml", help="the settings and the claims: a path, or one beside this file")
    add("--data_folder", metavar="FOLDER", help="prepared clips (default: the built-in sounds)")
    add("--out", metavar="FOLDER", help="of the runs' JSONs; the table is FOLDER.md (default: results/audio/GRID)")
    add("--work", metavar="FOLDER", default="exp/audio_probes", help="models and logs (default: %(default)s)")
    add("--jobs", type=int, default=1, help="processes, of one core each")
    add("--only", metavar="TEXT", default="", help="the settings whose name has this")
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    add("--table", action="store_true", help="only make the table from the runs that are done")
    return made


def compare(arguments: argparse.Namespace) -> int:
    """Do the runs that are not done, and write the table."""
    path = settings.find_yaml(__file__, arguments.grid)
    grid = yaml.safe_load(path.read_text())
    out = Path(arguments.out or f"results/audio/{path.stem}")
    runs = [run for run in planned(grid) if arguments.only in run.name]
    left = [] if arguments.table else [run for run in runs if run.result(out, grid.get("sizes", {})) is None]
    print(f"{len(runs)} runs, {len(left)} to do")
    failed = 0
    for wave in ([run for run in left if not run.after], [run for run in left if run.after]):
        failed += work(wave, grid.get("sizes", {}), out, arguments)
    with aside(out.with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(page(grid, planned(grid), out, path.name)) + "\n")
    print(f"wrote {out.with_suffix('.md')}" + f"; {failed} runs failed" * bool(failed))
    return 2 if failed else 0


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
    folds = grid.get("folds", [None] * len(grid["seeds"]))
    return [Run(name, path, {**one, **({"test_fold": fold} if fold else {})}, after, seed)
            for seed, fold in zip(grid["seeds"], folds, strict=True) for name, path, one, after in found]


# ---------------------------------------------------------------------------------------------------------- the runs
def work(runs: list[Run], sizes: dict, out: Path, arguments: argparse.Namespace) -> int:
    """Do the runs in processes of their own -> how many failed."""
    failed = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(arguments.jobs, len(runs)) or 1, context, torch.set_num_threads, (1,)) as pool:
        waiting = {pool.submit(one, run, sizes, out, Path(arguments.work), arguments.data_folder, arguments.device): run
                   for run in runs}
        for i, done in enumerate(as_completed(waiting), 1):
            run = waiting[done]
            try:
                said = done.result()
            except InputError as error:
                failed, said = failed + 1, f"failed: {error}"
            print(f"{i}/{len(runs)} {run.name}, seed {run.seed}: {said}", flush=True)
    return failed


def one(run: Run, sizes: dict, out: Path, work: Path, data_folder: str | None, device: str = "cpu") -> str:
    """Do a run and write its JSON -> a line about it."""
    folder = work / out.name / run.name / str(run.seed)
    script = str(HERE / "train_acl.py")
    path = HERE / "hparams" / run.yaml
    known = settings.top_level(path.read_text(), path, classify.NEEDED)
    given = {**{key: value for key, value in sizes.items() if key in known}, **run.changes, "seed": run.seed,
             "data_folder": data_folder, "output_folder": str(folder)}
    if run.after:
        given["init_from"] = str(work / out.name / run.after / str(run.seed) / "model")
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
def page(grid: dict, runs: list[Run], out: Path, name: str) -> list[str]:
    """The markdown of all runs that are done."""
    done: dict[str, list[dict]] = {}
    for run in runs:
        if found := run.result(out, grid.get("sizes", {})):
            done.setdefault(run.name, []).append(found)
    lines = [f"# {grid['title']}", "", f"Generated by `recipes/audio_probes/compare.py {name} --table` from the JSONs "
             f"in `{out.name}/`; do not edit.", "", " ".join(grid["about"].split()), "", *_made(done), ""]
    head = ["setting", "seeds", *(f"{judge} %" for judge in JUDGES), *classify.TERMS]
    lines += markdown(head, [[name, str(len(found)), *(accuracy(found, judge) for judge in JUDGES),
                              *(_statistic(found, term) for term in classify.TERMS)] for name, found in done.items()])
    lines += ["", "## Claims", ""]
    head = ["paper", "claim", "published", "here: the difference", "verdict"]
    return lines + markdown(head, [judged(claim, done) for claim in grid.get("claims", [])])


def _made(done: dict[str, list[dict]]) -> list[str]:
    """What the runs were made on."""
    everything = [run for found in done.values() for run in found]
    if not everything:
        return ["No run is done."]
    first = everything[0]
    parts = ", ".join(f"{number:,} {part}" for part, number in first["clips"].items())
    speakers = next(iter(first["accuracy"].values())).get("speakers")
    commits = sorted({run["commit"] for run in everything})
    return [f"{len(everything)} runs, {sum(run['minutes'] for run in everything):.0f} minutes of training on "
            f"{first['device']}; clips of {first['corpus']}: {parts}" + f" ({speakers} speakers)" * bool(speakers)
            + f"; {first['n_classes']} classes, chance {100 / first['n_classes']:.1f} %. Commit {', '.join(commits)}."]


def accuracy(found: list[dict], judge: str) -> str:
    """The runs of a setting -> mean, deviation over seeds and interval, in per cent."""
    if any(judge not in run["right"] for run in found):
        return ""
    mean, low, high = (100 * number for number in probe.across(hits(found, judge), found[0]["speakers"]))
    deviation = f" ± {100 * hits(found, judge).mean(axis=1).std(ddof=1):.1f}" if len(found) > 1 else ""
    return f"{mean:.1f}{deviation} [{low:.1f}, {high:.1f}]"


def hits(found: list[dict], judge: str) -> np.ndarray:
    """-> (S, N): 1 where a seed's run is right about a clip."""
    return np.array([[float(mark) for mark in run["right"][judge]] for run in found])


def _statistic(found: list[dict], term: str) -> str:
    values = [run["analysis"]["add"][term] for run in found]
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def judged(claim: dict, done: dict[str, list[dict]]) -> list[str]:
    """A claim -> its row of the table: the paired difference, and whether it holds."""
    start = [claim["paper"], claim["claim"], claim.get("published", "")]
    if claim["better"] not in done or claim["worse"] not in done:
        return [*start, "", "not run yet"]
    pair = [{run["seed"]: run for run in done[claim[side]]} for side in ("better", "worse")]
    seeds = sorted(pair[0].keys() & pair[1].keys())
    better, worse = ([side[seed] for seed in seeds] for side in pair)
    if claim["by"] in JUDGES:
        mean, low, high = probe.across(hits(better, claim["by"]) - hits(worse, claim["by"]), better[0]["speakers"])
        shown = f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points"
    else:
        mean, low, high = probe.across([[b["analysis"]["add"][claim["by"]] - w["analysis"]["add"][claim["by"]]]
                                        for b, w in zip(better, worse)])
        shown = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        low, high = -high, -low  # of a statistic, less is claimed
    verdict = "holds" if low > 0 else "does not hold" if high < 0 else "cannot be told at this size"
    return [*start, f"{shown} ({claim['by']})", verdict if len(seeds) > 1 else f"{verdict} (one seed)"]


if __name__ == "__main__":
    sys.exit(main())
