"""Run a study's recipes side by side: one process a run, few threads each, and whatever is done is never done again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sv_ssl.core.errors import InputError
from sv_ssl.core.host import cores
from sv_ssl.study import run_files
from sv_ssl.study.command_lines import DATA, WORK, command
from sv_ssl.study.grid import Grid, Run

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PATIENCE = 30.0  # seconds that a run has to write its last words after Ctrl-C


class Job(NamedTuple):
    """A run that is going on."""

    run: Run
    process: subprocess.Popen
    started: float


class Study(NamedTuple):
    """A grid, where its runs work, where their results are kept, and what they run on."""

    grid: Grid
    folder: Path  # of results, for git
    work: Path  # of checkpoints, logs, models
    data: str | None = None
    threads: int = 1
    device: str | None = None

    def working_folder(self, run: Run) -> Path:
        return self.work / run.work_name

    def machine(self) -> dict[str, Any]:
        """Return the options of every run that say how it runs.

        The number of threads is always among them: it changes the last digits of a sum, and so a run and its
        repetition have the same only if the command says it.
        """
        return {"threads": self.threads, **({"device": self.device} if self.device else {})}

    def folders(self) -> dict[str, str]:
        """Return what stands for folders of this machine in a result, and the folders."""
        named = {DATA: self.data, WORK: os.path.abspath(self.work)}
        return {name: folder for name, folder in named.items() if folder}


def threads(grid: Grid, jobs: int) -> int:
    """Return the threads of a run: what the study's YAML says, else an equal share of the cores."""
    return grid.threads or max(1, cores() // jobs)


def run_all(study: Study, runs: Sequence[Run], jobs: int) -> list[str]:
    """Run those that have no result yet, `jobs` at a time; return a line about each that failed."""
    waiting = [run for run in runs if not _is_done(study, run)]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them done; {jobs} at a time", flush=True)
    active: list[Job] = []
    failures: list[str] = []
    done, begun = 0, time.monotonic()
    try:
        while waiting or active:
            ended = [(job.run, *finish(study, job)) for job in active if job.process.poll() is not None]
            active = [job for job in active if job.run not in [run for run, *_ in ended]]
            for run in _ready(waiting, active)[: jobs - len(active)]:
                waiting.remove(run)
                if refusal := _source_is_missing(study, run):
                    ended.append((run, refusal, True))
                else:
                    active.append(start(study, run))
            for _, line, failed in ended:
                done += 1
                left = (time.monotonic() - begun) / done * (len(waiting) + len(active))
                print(f"[{len(runs) - len(waiting) - len(active)}/{len(runs)}] {line}; {_left(left)}", flush=True)
                failures += [line] if failed else []
            time.sleep(0.1)
    finally:
        stop(active)
    return failures


def _is_done(study: Study, run: Run) -> bool:
    """Return whether a run has a result; raise InputError for one of other clips, which has the same name."""
    result = run_files.read_result(study.folder, run)
    folder = run.options.get("data_folder")
    if result and folder and run_files.is_of_clips(result) and "corpus" not in run.options:
        name = Path(str(folder).replace(DATA, study.data or DATA)).resolve().name
        if result["corpus"] != name:
            path = run_files.json_path(study.folder, run, of_clips=True)
            raise InputError(f"{path} is of the clips of {result['corpus']}, not of {name}: name another --out")
    return result is not None


def _left(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min left" if seconds else "none left"


def _ready(waiting: Sequence[Run], active: Sequence[Job]) -> list[Run]:
    """Return the runs that need not wait for the run that they start from."""
    unfinished = [*waiting, *(job.run for job in active)]
    return [run for run in waiting if run.source not in unfinished]


def _source_is_missing(study: Study, run: Run) -> str:
    """Return the line about a run whose source has left no model; "" where there is one, or none is needed."""
    if run.source is None or (study.working_folder(run.source) / "model").is_dir():
        return ""
    return (
        f"{run.title} failed: it starts from the model of {run.source.title}, which is not in "
        f"{study.working_folder(run.source)}: run that first, without its result in {study.folder} if it has one"
    )


def start(study: Study, run: Run) -> Job:
    """Begin or resume a run in a process group of its own: Ctrl-C reaches it through `stop` alone."""
    folder = study.working_folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    places = {"output_folder": folder, "results_folder": folder / "results"}
    arguments = command(study.grid, run, study.data, str(study.work), **study.machine(), **places)
    environment = {**os.environ, **dict.fromkeys(THREADS, str(study.threads))}
    with open(folder / "log.txt", "ab") as log:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    return Job(run, process, time.monotonic())


def finish(study: Study, job: Job) -> tuple[str, bool]:
    """Keep the result of an ended run; return a line about it, and whether it failed."""
    minutes = (time.monotonic() - job.started) / 60
    work = study.working_folder(job.run)
    try:
        if job.process.returncode:
            raise InputError(_last_line(work / "log.txt"))
        result = run_files.keep(study.folder, study.grid, job.run, work, study.folders(), study.machine())
    except (InputError, OSError, ValueError, LookupError, TypeError) as error:
        return f"{job.run.title} failed: {' '.join(str(error).split())} ({work / 'log.txt'})", True
    return f"{job.run.title}: {run_files.summary(study.grid, result)}, {minutes:.1f} min", False


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it wrote nothing"


def stop(active: Sequence[Job]) -> None:
    """Ask what still runs to end as Ctrl-C does, and end it if it will not."""
    for ending, patience in ((signal.SIGINT, PATIENCE), (signal.SIGKILL, PATIENCE)):
        for job in active:
            if job.process.poll() is None:
                _signal(job, ending)
        until = time.monotonic() + patience
        while time.monotonic() < until and any(job.process.poll() is None for job in active):
            time.sleep(0.05)


def _signal(job: Job, ending: signal.Signals) -> None:
    try:
        os.killpg(job.process.pid, ending)
    except ProcessLookupError:
        pass  # it ended by itself just now
