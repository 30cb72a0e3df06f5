"""A study's YAML, read, with what is refused in it before hours are spent on it.

    name: small                       results are kept in results/study/small
    title: ...                        of the page (default: Study: NAME)
    about: ...                        a paragraph for the page
    out: results/audio/words          another folder for the results
    recipes: ../voxceleb              the recipes' folder, from the folder of this file
    threads: 1                        of every run (default: an equal share of the cores)
    seeds: [0, 1, 2]
    folds: [1, 2, 3]                  the test fold of each seed; or a list of folds a seed, each a run, pooled
    options: {epochs: 20, ...}        of every run, as on a recipe's command line; $data is the folder of --data
    sizes: {n_mels: 40, ...}          beneath all options; a key that a recipe's YAML does not have is passed over
    lists: {far: [a, b], ...}         groups of test lists, by the stems of their files, whose EERs are averaged
    systems:
      am: {recipe: train_simclr_am.py, yaml: hparams/am.yaml, options: {margin: 0.1}, about: ..., seeds: [0]}
      add: {recipe: ..., yaml: ..., each: {alpha: [0, 0.5]}}    two systems: add-0 and add-0.5
      tuned: {recipe: ..., yaml: ..., after: am}                starts from the model of am, same seed and fold
    pairs:
      - {claim: a margin is better than none, better: am, worse: sym, by: eer, paper: ..., published: ...}
    drawn: [am, sym]                  systems that are drawn
    manifests: [$data/test.csv]       what is known of the test recordings, for --pairs
    conclusions: ...                  what follows, written once the tables are there

A study of speakers is measured by `eer` (the default) and `alignment`; one of labelled clips by the accuracies
`classifier`, `linear` and `knn` and by ADD's statistics `mu_p`, `sigma_p`, `mu_n` and `sigma_n`.
Paths in `options` are from the current directory, as on a recipe's command line; `yaml` may lie beside the recipe.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sv_ssl.core.errors import InputError
from sv_ssl.study.grid import Grid, yaml_path

KEYS = {
    "name": str,
    "title": str,
    "about": str,
    "out": str,
    "recipes": str,
    "threads": int,
    "seeds": list,
    "folds": list,
    "options": dict,
    "sizes": dict,
    "lists": dict,
    "systems": dict,
    "pairs": list,
    "drawn": list,
    "manifests": list,
    "conclusions": str,
}
SYSTEM = {"recipe": str, "yaml": str, "options": dict, "each": dict, "after": str, "about": str, "seeds": list}
PAIR = {"claim": str, "better": str, "worse": str, "by": str, "paper": str, "published": str}
SPEAKERS = ("eer", "alignment")  # measures of a study of speakers
JUDGES = ("classifier", "linear", "knn")  # whose accuracy a study of clips measures
STATISTICS = ("mu_p", "sigma_p", "mu_n", "sigma_n")  # what ADD's four lambdas weigh
MEASURES = (SPEAKERS, JUDGES + STATISTICS)


def read(path: str | os.PathLike) -> Grid:
    """Return the grid of a YAML; raise InputError for an unknown key or name and suggest the closest known ones."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read the study {path}: {' '.join(str(error).split())}") from error
    _check_keys(content, path)
    recipes = path.resolve().parent / content["recipes"]
    grid = Grid(**{**content, "recipes": recipes, "systems": _each_written_out(content["systems"])})
    _check_names(grid, path)
    return grid


def _each_written_out(systems: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the systems with one system for each value of `each`.

    >>> _each_written_out({"add": {"yaml": "a", "each": {"lambdas": [[1, 0], [0, 1]]}}})
    {'add-1_0': {'yaml': 'a', 'options': {'lambdas': [1, 0]}}, 'add-0_1': {'yaml': 'a', 'options': {'lambdas': [0, 1]}}}
    """
    written: dict[str, dict[str, Any]] = {}
    for name, system in systems.items():
        if "each" not in system:
            written[name] = system
            continue
        plain = {key: value for key, value in system.items() if key != "each"}
        [(key, values)] = system["each"].items()
        for value in values:
            ending = "_".join(map(str, value)) if isinstance(value, list) else value
            written[f"{name}-{ending}"] = {**plain, "options": {**system.get("options", {}), key: value}}
    return written


def _check_keys(content: Any, path: Path) -> None:
    """Raise InputError for a key of the YAML that is unknown, missing or of another kind."""
    _check(content, KEYS, {"name", "recipes", "seeds", "systems"}, f"{path}")
    _check_name(content["name"], f"{path}: name")
    for name, system in content["systems"].items():
        where = f"{path}: system {name}"
        _check(system, SYSTEM, {"recipe", "yaml"}, where)
        _check_each(system.get("each", {"": []}), where)
    for number, pair in enumerate(content.get("pairs", []), 1):
        _check(pair, PAIR, {"claim", "better", "worse"}, f"{path}: pair {number}")
    if content.get("threads", 1) < 1:
        raise InputError(f"{path}: threads is {content['threads']}, wanted at least 1")


def _check_names(grid: Grid, path: Path) -> None:
    """Raise InputError for a name that names nothing: a system, a file, a measure or a list that is not there."""
    for name, system in grid.systems.items():
        where = f"{path}: system {name}"
        _check_name(str(name), f"{path}: system")
        _check_seeds(system.get("seeds", grid.seeds), where)
        if not (grid.recipes / system["recipe"]).is_file():
            raise InputError(f"{where}: there is no {grid.recipes / system['recipe']}")
        if grid.sizes and not yaml_path(grid.recipes, system).is_file():
            raise InputError(f"{where}: there is no {system['yaml']}, here or in {grid.recipes}")
    for where, name in _named_systems(grid):
        if name not in grid.systems:
            near = " or ".join(difflib.get_close_matches(str(name), grid.systems, n=2)) or ", ".join(grid.systems)
            raise InputError(f"{path}: {where} names the system {name!r}, which is not there: did you mean {near}?")
    _check_sources(grid, path)
    _check_folds(grid, path)
    _check_measures(grid, path)
    _check_lists(grid, path)


def _check(content: Any, kinds: Mapping[str, type], needed: Collection[str], where: str) -> None:
    if not isinstance(content, dict):
        raise InputError(f"{where}: wanted `key: value` lines with {', '.join(kinds)}, got {str(content)[:80]!r}")
    for key, value in content.items():
        if key not in kinds:
            near = difflib.get_close_matches(str(key), kinds, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"its keys are {', '.join(kinds)}"
            raise InputError(f"{where} has no use for the key {key!r}: {hint}")
        if not isinstance(value, kinds[key]):
            raise InputError(f"{where}: {key} is {str(value)[:80]!r}, wanted {kinds[key].__name__}")
    if absent := sorted(set(needed) - content.keys()):
        raise InputError(f"{where} lacks the key {absent[0]}")


def _check_name(name: str, where: str) -> None:
    if not re.fullmatch(r"[\w.+-]+", name):
        raise InputError(f"{where} is {name!r}: it names files, so use letters, digits and . + - _")


def _check_each(each: dict, where: str) -> None:
    if len(each) != 1 or not isinstance(next(iter(each.values())), list):
        raise InputError(f"{where}: each is {each}, wanted one key with a list of values, such as {{alpha: [0, 1]}}")


def _check_seeds(seeds: list, where: str) -> None:
    if not seeds or not all(isinstance(seed, int) for seed in seeds) or len(set(seeds)) < len(seeds):
        raise InputError(f"{where}: seeds are {seeds}, wanted whole numbers, each once")


def _named_systems(grid: Grid) -> Iterator[tuple[str, str]]:
    """Yield where a system is named, and its name."""
    for number, pair in enumerate(grid.pairs, 1):
        yield f"pair {number}", pair["better"]
        yield f"pair {number}", pair["worse"]
    for name in grid.drawn:
        yield "drawn", name
    for name, system in grid.systems.items():
        if "after" in system:
            yield f"the `after` of {name}", system["after"]


def _check_sources(grid: Grid, path: Path) -> None:
    """Raise InputError where a system starts from itself, or from one that lacks a seed of its own."""
    for name, system in grid.systems.items():
        before = [name]
        while "after" in (source := grid.systems[before[-1]]):
            if source["after"] in before:
                raise InputError(f"{path}: system {name} starts from itself: {' after '.join([*before, name])}")
            before.append(source["after"])
        seeds = set(system.get("seeds", grid.seeds))
        for source_name in before[1:]:
            if absent := sorted(seeds - set(grid.systems[source_name].get("seeds", grid.seeds))):
                raise InputError(f"{path}: system {name} has the seed {absent[0]}, {source_name} before it has not")


def _check_folds(grid: Grid, path: Path) -> None:
    if not grid.folds:
        return
    if len(grid.folds) != len(grid.seeds):
        raise InputError(f"{path}: {len(grid.folds)} folds for {len(grid.seeds)} seeds: want as many")
    for name, system in grid.systems.items():
        if absent := sorted(set(system.get("seeds", [])) - set(grid.seeds)):
            raise InputError(f"{path}: system {name} has the seed {absent[0]}, for which the study has no fold")


def _check_measures(grid: Grid, path: Path) -> None:
    """Raise InputError for an unknown measure, or where speakers' measures stand beside those of clips."""
    every = [name for names in MEASURES for name in names]
    measures = [pair.get("by", "eer") for pair in grid.pairs]
    for number, measure in enumerate(measures, 1):
        if measure not in every:
            raise InputError(f"{path}: pair {number} is by {measure!r}: choose {', '.join(every[:-1])} or {every[-1]}")
    if measures and not any(set(measures) <= set(names) for names in MEASURES):
        raise InputError(
            f"{path}: pairs are by {' and '.join(sorted(set(measures)))}: a study is of speakers "
            f"({', '.join(MEASURES[0])}) or of clips ({', '.join(MEASURES[1])})"
        )


def _check_lists(grid: Grid, path: Path) -> None:
    tests = grid.options.get("test_trials") or []
    scored = {Path(str(name)).stem for name in (tests if isinstance(tests, list) else [tests])}
    if absent := [stem for stems in grid.lists.values() for stem in stems if scored and stem not in scored]:
        raise InputError(f"{path}: lists name {absent[0]!r}, which is not in test_trials: {', '.join(sorted(scored))}")
