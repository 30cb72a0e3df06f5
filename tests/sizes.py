"""Print the sizes of the package, room by room, as a plain table.

    python tests/sizes.py

files, lines    of the room's modules, blank lines and comments included
functions       `def`s, methods and inner functions included
lines/function  median and 90th percentile, from the line of `def` to the last line
parameters      median and 90th percentile of the names that a function takes, `self` and `cls` left out, and the most
tests           `def test_` in the same folder of tests/, of (root) in all others; one with parameters counts once
"""

import ast
import statistics
from pathlib import Path
from typing import NamedTuple

from support.rooms import ROOMS, ROOT, modules, room

TITLES = ("room", "files", "lines", "functions", "lines/function", "parameters", "most", "tests")


class Function(NamedTuple):
    """What is counted of a function."""

    lines: int
    parameters: int


class Room(NamedTuple):
    """What is counted of a room."""

    name: str
    files: int
    lines: int
    functions: list[Function]
    tests: int


def functions(text: str) -> list[Function]:
    """Return the functions of a module.

    >>> functions("class A:\\n    def f(self, a, *b, c=1):\\n        return a\\n")
    [Function(lines=2, parameters=3)]
    """
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [Function(node.end_lineno - node.lineno + 1, len(parameters(node.args))) for node in nodes]


def parameters(arguments: ast.arguments) -> list[str]:
    """Return the names that a function takes, without `self` and `cls`."""
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = [one for one in (arguments.vararg, arguments.kwarg) if one]
    return [one.arg for one in [*named, *starred] if one.arg not in ("self", "cls")]


def count_tests(paths: list[Path]) -> int:
    """Return the number of test functions in files."""
    return sum(line.startswith("def test_") for path in paths for line in path.read_text("utf-8").splitlines())


def measure(name: str, paths: list[Path], tests: list[Path]) -> Room:
    """Count the files of one room and its tests."""
    texts = [path.read_text("utf-8") for path in paths]
    lines = sum(len(text.splitlines()) for text in texts)
    return Room(name, len(paths), lines, [one for text in texts for one in functions(text)], count_tests(tests))


def rooms() -> list[Room]:
    """Return the rooms in their order, the modules at the root, and the total of all."""
    found = [measure(name, [p for p in modules() if room(p) == name], find_tests(name)) for name in ROOMS]
    at_root = measure("(root)", [p for p in modules() if room(p) not in ROOMS], find_tests(None))
    return [*found, at_root, measure("total", modules(), list((ROOT / "tests").rglob("test_*.py")))]


def find_tests(name: str | None) -> list[Path]:
    """Return the test files of a room; of None all that belong to no room."""
    paths = (ROOT / "tests").rglob("test_*.py")
    folders = {path: path.relative_to(ROOT / "tests").parts[0] for path in paths}
    return [path for path, folder in folders.items() if (folder == name if name else folder not in ROOMS)]


def percentile(values: list[int], percent: int) -> int:
    """Return the smallest value that at least so many percent of all values do not exceed.

    >>> percentile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 90), percentile([], 90)
    (9, 0)
    """
    return sorted(values)[-(-len(values) * percent // 100) - 1] if values else 0


def row(found: Room) -> list[str]:
    """Return the cells of a room in the order of TITLES."""
    lines = [one.lines for one in found.functions]
    taken = [one.parameters for one in found.functions]
    return [
        found.name,
        str(found.files),
        f"{found.lines:,}",
        str(len(lines)),
        f"{statistics.median(lines or [0]):g} / {percentile(lines, 90)}",
        f"{statistics.median(taken or [0]):g} / {percentile(taken, 90)}",
        str(max(taken, default=0)),
        str(found.tests),
    ]


def table(rows: list[list[str]]) -> str:
    """Return rows of text as aligned columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(cells, widths)))
        for cells in rows
    )


if __name__ == "__main__":
    print(table([list(TITLES), *map(row, rooms())]))
