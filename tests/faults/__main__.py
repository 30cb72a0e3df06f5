"""Kill every command that writes, fill its disk and run it twice at once, and look at what is left.

    python -m tests.faults --kills 200 [--command "extract npz" index ...] [--seed 7] [--disks]

A command is killed at random moments of its run, at the calls that change files, and within the writes of a file. What
it was to replace has to be there afterwards, or the new one, whole; and the same line has to do its work then. Where
there is no room (a limit to the length of files, no further file; with --disks small disks, which takes a root) it has
to say so in one line with exit code 2, and to leave what was there, and nothing else. The exit code is 1 if anything
is otherwise. A pair of files (.npy and .ids, .ark and .scp) cannot be replaced at once: between the two it is `torn`,
which readers refuse.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.faults.cases import Case, Result, why_no_disk
from tests.faults.commands import COMMANDS
from tests.faults.server import Server
from tests.faults.twice import twice

TITLES = ("command", "runs", "old", "new", "none", "torn", "completed", "leftovers", "failures")


def row(name: str, results: Iterable[Result]) -> tuple[list[str], list[str]]:
    """Return a row of the table, and what is wrong."""
    results = list(results)
    states = Counter(state for result in results for state in result.states.values())
    faults = [f"{name} {dict(result.fault)}: {fault}" for result in results for fault in result.faults]
    cells = [len(results), *(states[state] for state in TITLES[2:6]), sum(result.completed for result in results)]
    left = max((result.leftovers for result in results), default=0)
    return [name, *map(str, (*cells, left, sum(bool(result.faults) for result in results)))], faults


def show(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    print(f"\n{title}")
    widths = [max(map(len, column)) for column in zip(TITLES, *rows)]
    for cells in (TITLES, *rows):
        print(
            "  ".join([cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:]))])
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__, formatter_class=form)
    parser.add_argument("--kills", type=int, default=200, help="in all, shared by the commands (default 200)")
    parser.add_argument("--command", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--disks", action="store_true", help="mount small disks too")
    given = parser.parse_args(argv)
    killed, filled, faults = [], [], []
    both = 0
    with Server() as server:
        if given.disks and (why := why_no_disk(server.home)):
            parser.error(f"--disks: {why}")
        for number, name in enumerate(given.command):
            print(f"{number + 1} of {len(given.command)}: {name}", file=sys.stderr, flush=True)
            case = Case(server, name)
            share = -(-given.kills // len(given.command))
            cells, wrong = row(name, map(case.killed, some(case.kills(share, given.seed), share)))
            killed.append(cells)
            more, wrong_ = row(
                name, map(case.filled, itertools.chain(case.full(), case.disks() if given.disks else ()))
            )
            filled.append(more)
            together = twice(case)
            faults += wrong + wrong_ + together
            both += bool(together)
    show("killed", killed)
    show("without room", filled)
    print(f"\ntwo at once: {len(killed)} commands, {both} with failures")
    print("\n".join(["", *faults]))
    return 1 if faults else 0


def some(faults: Iterable[dict], count: int) -> list[dict]:
    """Return so many of faults, spread evenly over all of them."""
    faults = list(faults)
    count = min(count, len(faults))
    return [faults[i * len(faults) // count] for i in range(count)]


if __name__ == "__main__":
    sys.exit(main())
