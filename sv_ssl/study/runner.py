"""Run a study's recipes side by side: one process a run, few threads each, and whatever is done is never done again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sv_ssl.core.errors import InputError
from sv_ssl.core.host import cores
from sv_ssl.study import kept
from sv_ssl.study.grid import Grid, Run, command

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PATIENCE = 30.0  # seconds that a run has to write its last words after Ctrl-C


class Job(NamedTuple):
    """A run that is going on."""

    run: Run
    process: subprocess.Popen
    folder: Path
    started: float


class Study(NamedTuple):
    """Where a grid's runs work and where what they find is kept."""

    grid: Grid
    folder: Path  # kept, for git
    work: Path  # checkpoints, logs, models
    data: str | None


def working_folder(study: Study, run: Run) -> Path:
    """A run's own, so that one with other options neither resumes it nor is refused by it."""
    digest = hashlib.sha1(json.dumps(run.facts(), sort_keys=True).encode()).hexdigest()[:6]
    return study.work / f"{run.system}-{run.seed}-{digest}"


def run_all(study: Study, runs: Sequence[Run], jobs: int) -> list[str]:
    """Run those that have no result yet, `jobs` at a time -> a line about each that failed."""
    waiting = [run for run in runs if kept.result(study.folder, run) is None]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them done; {jobs} at a time", flush=True)
    active: list[Job] = []
    failures: list[str] = []
    done, begun = 0, time.monotonic()
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                active.append(start(study, waiting.pop(0), jobs))
            for job in [job for job in active if job.process.poll() is not None]:
                active.remove(job)
                line, failed = finish(study, job)
                failures += [line] * failed
                done += 1
                left = (time.monotonic() - begun) / done * (len(waiting) + len(active))
                print(f"[{len(runs) - len(waiting) - len(active)}/{len(runs)}] {line}; {_left(left)}", flush=True)
            time.sleep(0.1)
    finally:
        stop(active)
    return failures


def _left(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min left" if seconds else "none left"


def start(study: Study, run: Run, jobs: int) -> Job:
    """Begin or resume a run in a process group of its own: Ctrl-C reaches it through `stop` alone."""
    folder = working_folder(study, run)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = command(study.grid, run, study.data, output_folder=folder, results_folder=folder / "results")
    threads = str(max(1, cores() // jobs))
    environment = {**os.environ, **dict.fromkeys(THREADS, threads)}
    with open(folder / "log.txt", "ab") as log:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    return Job(run, process, folder, time.monotonic())


def finish(study: Study, job: Job) -> tuple[str, bool]:
    """Keep what an ended run found -> a line about it, and whether it failed."""
    minutes = (time.monotonic() - job.started) / 60
    try:
        if job.process.returncode:
            raise InputError(_last_line(job.folder / "log.txt"))
        found = kept.keep(study.folder, study.grid, job.run, job.folder, study.data)
    except (InputError, OSError, ValueError, LookupError, TypeError) as error:
        return f"{job.run.title} failed: {' '.join(str(error).split())} ({job.folder / 'log.txt'})", True
    return f"{job.run.title}: {told(study.grid, found)}, {minutes:.1f} min", False


def told(grid: Grid, found: dict[str, Any]) -> str:
    """The EERs of a result, of each group of lists, or of the main list."""
    groups = {name: eer for name in grid.lists if (eer := mean_eer(found, grid.lists[name])) is not None}
    return ", ".join(f"{name} {eer:.2%}" for name, eer in groups.items()) or f"EER {found['test']['eer']:.2%}"


def reports(found: dict[str, Any]) -> dict[str, dict]:
    """{stem: report} of a result's lists."""
    return found.get("lists") or {Path(found["test"]["list"]).stem: found["test"]}


def mean_eer(found: dict[str, Any], stems: Sequence[str]) -> float | None:
    """The mean EER over lists; None where one is not there."""
    lists = reports(found)
    return sum(lists[stem]["eer"] for stem in stems) / len(stems) if stems and lists.keys() >= set(stems) else None


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
