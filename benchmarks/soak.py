"""Memory and open files of a training run, watched from outside for as long as it takes: neither may grow.

    python benchmarks/soak.py [--every 60] [--out FILE] -- python recipes/voxceleb/train_simclr_am.py hparams/am.yaml

Every so many seconds a line: the resident memory and the open files of the process and of all its children. The last
line compares the last third of the run with the second: what grows is a leak.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sv_ssl.core import command
from sv_ssl.core.errors import InputError
from sv_ssl.reporting import record

COLUMNS = ["minutes", "processes", "memory", "open files"]


class Sample(NamedTuple):
    minutes: float
    processes: int
    megabytes: float
    open_files: int


def family(pid: int) -> list[int]:
    """Return a process, its children and theirs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def sample(pid: int, started: float) -> Sample:
    """Measure what a process and its children hold now; one that ends meanwhile counts as nothing."""
    processes = family(pid)
    pages = files = 0
    for process in processes:
        try:
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
            files += len(list(Path(f"/proc/{process}/fd").iterdir()))
        except (OSError, IndexError):
            continue
    return Sample((time.monotonic() - started) / 60, len(processes), pages * resource.getpagesize() / 1e6, files)


def watch(command: Sequence[str], every: float) -> list[Sample]:
    """Run the command to its end and return samples of it, without those of its first and last moments."""
    started = time.monotonic()
    process = subprocess.Popen(command)
    samples: list[Sample] = []
    try:
        while process.poll() is None:
            try:
                process.wait(every)
            except subprocess.TimeoutExpired:
                samples.append(sample(process.pid, started))
                print("{:.1f} min: {} processes, {:,.0f} MB, {} open files".format(*samples[-1]), flush=True)
    except KeyboardInterrupt:
        process.wait()
        raise
    if process.returncode:
        raise InputError(
            f"the command ended with exit code {process.returncode} after {(time.monotonic() - started) / 60:.1f} min"
        )
    return samples


def growth(samples: Sequence[Sample]) -> tuple[float, float]:
    """Divide the means of the last third of the samples by those of the second: of memory, and of open files.

    >>> growth([Sample(i, 1, 100.0, 10) for i in range(9)])
    (1.0, 1.0)
    """
    third = len(samples) // 3
    if not third:
        raise InputError(f"{len(samples)} samples are too few: pass a smaller --every, or run it for longer")
    parts = samples[third : 2 * third], samples[2 * third : 3 * third]
    memory = [sum(one.megabytes for one in part) for part in parts]
    files = [sum(one.open_files for one in part) for part in parts]
    return memory[1] / memory[0], files[1] / files[0]


def main() -> None:
    parser = command.Parser(prog="soak.py", description=__doc__)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two looks (default: %(default)s)")
    parser.add_argument("--out")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    samples = watch(given.command, given.every)
    memory, files = growth(samples)
    kept = samples[:: max(1, len(samples) // 12)]
    rows = [[f"{one.minutes:.0f}", str(one.processes), f"{one.megabytes:,.0f} MB", str(one.open_files)] for one in kept]
    rows.append(["last third of second", "", f"{memory:.3f} x", f"{files:.3f} x"])
    print(f"memory of the last third: {memory:.3f} of the second third's; open files: {files:.3f}")
    if given.out:
        shown = re.sub(r"(?<![\w.])/(?:[\w.-]+/)+", ".../", " ".join(given.command))
        record.write_benchmark(
            given.out, "a training run watched from outside", f"`python benchmarks/soak.py -- {shown}`", COLUMNS, rows
        )
        print(f"wrote {given.out}; next: python -m sv_ssl.results results/")


if __name__ == "__main__":
    sys.exit(command.run(main))
