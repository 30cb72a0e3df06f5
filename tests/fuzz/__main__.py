"""Try the readers of every format with damaged and hostile files.

    python -m tests.fuzz --minutes 30 [--format wav flac ...] [--jobs 2] [--seed 7]

The minutes are shared equally by the formats. Each file is read in a process of its own kind (worker.py) and is to be
taken, with finite values of the shape that it claims, or refused in one line, within 10 s and 1 GB. Whatever else
happens is a failure: the file is kept below tests/fuzz/found/, one of each fault, with what happened beside it. The
exit code is 1 if there was any. A file that was found goes into the corpus by make_corpus.py when its fault is mended.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.fuzz.explore import BATCH, FOUND, Count, explore, keep
from tests.fuzz.formats import FORMATS
from tests.fuzz.whole import whole
from tests.fuzz.worker import Worker


def tried(name: str, seconds: float, seed: int) -> Count:
    """Try a format for some seconds, once its worker stands."""
    count = Count(name)
    with Worker() as worker:
        worker.read(name, whole(name)[0])
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            some = explore(worker, name, BATCH, seed, until)
            for where in some.first.keys() - count.first.keys():
                keep(some.data[where], name, some.first[where])
            count.add(some)
            seed += 1
            print(f"{_row(count)}   {until - time.monotonic():.0f} s left", file=sys.stderr, end="\r", flush=True)
    print(f"{_row(count)}              ", file=sys.stderr, flush=True)
    return count


def _row(count: Count) -> str:
    kinds = count.kinds
    return f"{count.name:12}{kinds.total():9}{kinds['accepted']:10}{kinds['refused']:9}{kinds['failed']:9}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30, help="in all (default 30)")
    parser.add_argument("--format", nargs="+", choices=list(FORMATS), default=list(FORMATS), help="default: all")
    parser.add_argument("--jobs", type=int, default=1, help="formats that are tried at once (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the files; another one gives others (default 0)")
    given = parser.parse_args(argv)
    share = 60 * given.minutes * given.jobs / len(given.format)
    with ProcessPoolExecutor(given.jobs) as pool:
        counts = list(pool.map(partial(tried, seconds=share, seed=1_000_000 * given.seed), given.format))
    print(f"{'format':12}{'tried':>9}{'accepted':>10}{'refused':>9}{'failed':>9}")
    for count in counts:
        print(_row(count))
        for where, times in count.faults.most_common():
            print(f"    {times:6} {where}: {count.first[where].text[:160]}")
    failed = sum(count.kinds["failed"] for count in counts)
    if failed:
        print(f"{failed:,} failures; one file of each fault is in {FOUND}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
