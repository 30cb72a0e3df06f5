"""What the benchmarks share: the quickest of several runs, and a command line that runs parts and writes their rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from sv_ssl.core import command
from sv_ssl.reporting import record

Row = tuple[str, str, str, str]  # what, figure, limit, beside


def least(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the seconds of the quickest of several runs: what slows one down is the machine."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def run(name: str, about: str, title: str, where: str, parts: Mapping[str, Callable[[], Iterable[Row]]]) -> None:
    """Read the command line, run the parts that it names, print each row as it is there, write all."""
    parser = command.Parser(prog=f"{name}.py", description=about)
    add = parser.add_argument
    help_ = f"of {', '.join(parts)}"
    add("--only", type=lambda text: text.split(","), default=list(parts), metavar="PARTS", help=help_)
    add("--out", metavar="FILE", help="JSON for `python -m sv_ssl.results`")
    arguments = parser.parse_args()
    rows = []
    for part in arguments.only:
        for row in parts[part]():
            print("  |  ".join(row), flush=True)
            rows.append(row)
    if arguments.out:
        machine = f"`python benchmarks/{name}.py`; {where}."
        record.write_benchmark(arguments.out, title, machine, ["what", "measured", "limit", "beside"], rows)
