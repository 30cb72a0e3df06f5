"""The command line of a study."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType

from sv_ssl.core import command
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import exclusive
from sv_ssl.study import command_lines, grid_file, hard_pairs, run_files, runner, tables
from sv_ssl.study.grid import Grid, Run

ABOUT = """\
Run a study: every system of FILE with every seed (and fold), and make its tables. The same command goes on where it was
stopped; what is done is not done again.
"""
MORE = """\
FILE says what is run; sv_ssl/study/grid_file.py and recipes/study/*.yaml show how. Whether a study is of speakers or of
labelled clips follows from what its recipes measure. The results are small enough for git:
  results/study/NAME/README.md     of speakers: the tables, made of
  results/study/NAME/runs/*.json   one a run, with its command line, and
  results/study/NAME/scores/*.npz  the scores that the paired tests need
  results/audio/NAME.md            of clips: the tables, made of
  results/audio/NAME/*.json        one a run, with its command line
Checkpoints, models and logs are below exp/study/NAME. To do a run again, remove its JSON.

examples
  python -m sv_ssl.study recipes/study/small.yaml --data /data --jobs 2
  python -m sv_ssl.study recipes/study/words.yaml --data /data/words5 --jobs 2
  python -m sv_ssl.study recipes/study/small.yaml --data /data --only 'am*' --list
  python -m sv_ssl.study recipes/study/small.yaml --tables-only
  python -m sv_ssl.study recipes/study/small.yaml --data /data --pairs am
"""
PROGRAM = "python -m sv_ssl.study"


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code of a command line: 2 if a run failed, 130 after Ctrl-C."""
    before = signal.signal(signal.SIGTERM, _interrupted)  # the runs must not outlive us
    try:
        return command.run(lambda: _study(argv), PROGRAM)
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> command.Parser:
    parser = command.Parser(prog=PROGRAM, description=ABOUT, epilog=MORE)
    add = parser.add_argument
    add("file", metavar="FILE", help="the study's YAML")
    add("--data", metavar="FOLDER", help="what $data in FILE stands for: where the recordings are")
    add("--out", metavar="FOLDER", help="where results are kept (default: `out` of FILE, or results/study/NAME)")
    add("--work", metavar="FOLDER", help="where runs work (default: exp/study/NAME)")
    add("--jobs", metavar="N", type=int, default=1, help="runs at a time, which share the cores (default: 1)")
    add("--device", metavar="DEVICE", help="of every run: cpu, cuda, cuda:1 (default: the recipe's choice)")
    add("--only", metavar="PATTERN", default="*", help="systems, or system/seed, such as 'am*' or '*/0'")
    add("--list", action="store_true", help="show the runs and their commands, and run nothing")
    add("--tables-only", action="store_true", help="make the tables of what is there, and run nothing")
    add("--pairs", metavar="SYSTEM", help="show by what SYSTEM errs, and its hardest pairs; run nothing")
    return parser


def _study(argv: Sequence[str] | None) -> int:
    given = _parser().parse_args(argv)
    plan = grid_file.read(given.file)
    if given.jobs < 1:
        raise InputError(f"--jobs is {given.jobs}: wanted at least 1")
    folder = Path(given.out or plan.out or f"results/study/{plan.name}")
    if given.tables_only:
        return tables.write(folder, plan, given.file)
    if given.pairs:
        print(f"wrote {hard_pairs.write(folder, plan, given.pairs, _data(plan, given.data))}")
        return tables.write(folder, plan, given.file)
    work = Path(given.work or f"exp/study/{plan.name}")
    threads = runner.threads(plan, given.jobs)
    study = runner.Study(plan, folder, work, threads=threads, device=given.device)
    runs = _chosen(plan, given.only)
    if given.list:
        return _list(study, runs)
    study = study._replace(data=_data(plan, given.data))
    with exclusive(study.work, "a study", "--work"):
        failures = runner.run_all(study, runs, given.jobs)
    tables.write(folder, plan, given.file)
    for line in failures:
        print(line, file=sys.stderr)
    return 2 if failures else 0


def _chosen(plan: Grid, pattern: str) -> list[Run]:
    runs = [run for run in plan.runs() if fnmatch(run.system, pattern) or fnmatch(run.title, pattern)]
    if not runs:
        raise InputError(f"--only {pattern} fits no run; the systems are {', '.join(plan.systems)}")
    return runs


def _list(study: runner.Study, runs: list[Run]) -> int:
    for run in runs:
        result = run_files.read_result(study.folder, run)
        state = run_files.summary(study.grid, result) if result else "to do"
        print(f"{run.title:24s} {state}\n    {command_lines.shown(study.grid, run, **study.machine())}")
    return 0


def _data(plan: Grid, folder: str | None) -> str | None:
    """Return the folder of --data, which must be there if the study names it."""
    if folder is None and command_lines.needs_data(plan):
        raise InputError(f"the study {plan.name} speaks of $data: say with --data FOLDER where that is")
    if folder is not None and not Path(folder).is_dir():
        raise InputError(f"--data {folder} is not a folder")
    return os.path.abspath(folder) if folder else None


if __name__ == "__main__":
    sys.exit(main())
