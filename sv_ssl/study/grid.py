"""The grid of a study: its YAML, read and checked, and the command line of every run.

    name: small                       the study's folder is results/study/small
    about: ...                        a paragraph for the tables' page
    recipes: ../voxceleb              the recipes' folder, from the folder of this file
    seeds: [0, 1, 2]
    options: {epochs: 20, ...}        of every run, as on a recipe's command line; $data is the folder of --data
    lists: {far: [a, b], ...}         groups of test lists, by the stems of their files, whose EERs are averaged
    systems:
      am: {recipe: train_simclr_am.py, yaml: hparams/am.yaml, options: {margin: 0.1}, about: ..., seeds: [0]}
    pairs:
      - {claim: a margin is better than none, better: am, worse: sym, by: eer}      or by: alignment
    drawn: [am, sym]                  systems whose curves are drawn
    manifests: [$data/test.csv]       what is known of the test recordings, for --pairs
    conclusions: ...                  what follows, written once the tables are there

Paths in `options` are from the current directory, as on a recipe's command line; `yaml` may lie beside the recipe.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sv_ssl.core.errors import InputError

KEYS = {
    "name": str,
    "about": str,
    "recipes": str,
    "seeds": list,
    "options": dict,
    "lists": dict,
    "systems": dict,
    "pairs": list,
    "drawn": list,
    "manifests": list,
    "conclusions": str,
}
SYSTEM = {"recipe": str, "yaml": str, "options": dict, "about": str, "seeds": list}
PAIR = {"claim": str, "better": str, "worse": str, "by": str}
MEASURES = ("eer", "alignment")
DATA = "$data"


@dataclass(frozen=True)
class Run:
    """One system with one seed: what it is, and so what must be equal for its result to be there already."""

    system: str
    seed: int
    recipe: str
    yaml: str
    options: dict[str, Any] = field(hash=False)

    @property
    def title(self) -> str:
        return f"{self.system}/{self.seed}"

    def facts(self) -> dict[str, Any]:
        """The run as its JSON tells it."""
        return json.loads(json.dumps(asdict(self)))


class Grid(NamedTuple):
    """A study as its YAML tells it."""

    name: str
    about: str
    recipes: Path
    seeds: list[int]
    options: dict[str, Any]
    lists: dict[str, list[str]]
    systems: dict[str, dict[str, Any]]
    pairs: list[dict[str, str]]
    drawn: list[str]
    manifests: list[str]
    conclusions: str

    def runs(self) -> list[Run]:
        """All runs, seed after seed: a study that is stopped early has every system once."""
        runs = [
            Run(name, seed, system["recipe"], system["yaml"], {**self.options, **system.get("options", {})})
            for name, system in self.systems.items()
            for seed in system.get("seeds", self.seeds)
        ]
        order = list(dict.fromkeys(sorted(run.seed for run in runs)))
        return sorted(runs, key=lambda run: order.index(run.seed))


def read(path: str | os.PathLike) -> Grid:
    """The YAML of a study, checked: an unknown key or name is an InputError that names its neighbours."""
    path = Path(path)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read the study {path}: {' '.join(str(error).split())}") from error
    _check(found, KEYS, {"name", "recipes", "seeds", "systems"}, f"{path}")
    for name, system in found["systems"].items():
        _check(system, SYSTEM, {"recipe", "yaml"}, f"{path}: system {name}")
        _plain(str(name), f"{path}: system")
    for number, pair in enumerate(found.get("pairs", []), 1):
        _check(pair, PAIR, {"claim", "better", "worse"}, f"{path}: pair {number}")
    _plain(found["name"], f"{path}: name")
    recipes = path.resolve().parent / found["recipes"]
    empty = {"about": "", "options": {}, "lists": {}, "pairs": [], "drawn": [], "manifests": [], "conclusions": ""}
    grid = Grid(**{**empty, **found, "recipes": recipes})
    _check_names(grid, path)
    return grid


def _check(found: Any, kinds: Mapping[str, type], needed: set[str], where: str) -> None:
    if not isinstance(found, dict):
        raise InputError(f"{where}: wanted `key: value` lines with {', '.join(kinds)}, got {str(found)[:80]!r}")
    for key, value in found.items():
        if key not in kinds:
            near = difflib.get_close_matches(str(key), kinds, n=2)
            raise InputError(
                f"{where} has no use for the key {key!r}: "
                + (f"did you mean {' or '.join(near)}?" if near else f"its keys are {', '.join(kinds)}")
            )
        if not isinstance(value, kinds[key]):
            raise InputError(f"{where}: {key} is {str(value)[:80]!r}, wanted {kinds[key].__name__}")
    if absent := sorted(needed - found.keys()):
        raise InputError(f"{where} lacks the key {absent[0]}")


def _plain(name: str, where: str) -> None:
    if not re.fullmatch(r"[\w.+-]+", name):
        raise InputError(f"{where} is {name!r}: it names files, so use letters, digits and . + - _")


def _check_names(grid: Grid, path: Path) -> None:
    """What names something else in the file, or a file, must be right before hours are spent."""
    named = [(f"pair {i}", pair[side]) for i, pair in enumerate(grid.pairs, 1) for side in ("better", "worse")]
    for where, name in [*named, *(("drawn", name) for name in grid.drawn)]:
        if name not in grid.systems:
            near = " or ".join(difflib.get_close_matches(str(name), grid.systems, n=2)) or ", ".join(grid.systems)
            raise InputError(f"{path}: {where} names the system {name!r}, which is not there: did you mean {near}?")
    for i, pair in enumerate(grid.pairs, 1):
        if pair.get("by", "eer") not in MEASURES:
            raise InputError(f"{path}: pair {i} is by {pair['by']!r}: choose {' or '.join(MEASURES)}")
    for name, system in grid.systems.items():
        if not (grid.recipes / system["recipe"]).is_file():
            raise InputError(f"{path}: system {name}: there is no {grid.recipes / system['recipe']}")
        seeds = system.get("seeds", grid.seeds)
        if not seeds or not all(isinstance(seed, int) for seed in seeds) or len(set(seeds)) < len(seeds):
            raise InputError(f"{path}: system {name}: seeds are {seeds}, wanted whole numbers, each once")
    tests = grid.options.get("test_trials") or []
    scored = {Path(str(one)).stem for one in (tests if isinstance(tests, list) else [tests])}
    if absent := [stem for stems in grid.lists.values() for stem in stems if scored and stem not in scored]:
        raise InputError(f"{path}: lists name {absent[0]!r}, which is not in test_trials: {', '.join(sorted(scored))}")


def needs_data(grid: Grid) -> bool:
    """Whether any option speaks of the folder of --data."""
    return any(DATA in json.dumps(run.options) for run in grid.runs())


def command(grid: Grid, run: Run, data: str | None = None, **more: Any) -> list[str]:
    """The run's command line, with `data` in the place of $data and further options."""
    options = {"name": run.system, "seed": run.seed, **run.options, **more}
    texts = [f"--{key}={_text(value)}" for key, value in options.items()]
    if data is not None:
        texts = [text.replace(DATA, data) for text in texts]
    return [sys.executable, str(grid.recipes / run.recipe), run.yaml, *texts]


def _text(value: Any) -> str:
    """A value as YAML writes it.

    >>> _text(["a.txt", "b.txt"]), _text(None), _text(0.001), _text(True)
    ('[a.txt, b.txt]', 'null', '0.001', 'True')
    """
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return "null" if value is None else str(value)


def shown(grid: Grid, run: Run) -> str:
    """The command as one types it, in a shell where `data` is exported."""
    _, recipe, *rest = command(grid, run)
    parts = ["python", os.path.relpath(recipe), *rest]
    return " ".join(part if re.fullmatch(r"[\w$./=:+,-]+", part) else f'"{part}"' for part in parts)
