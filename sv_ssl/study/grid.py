"""The grid of a study: its YAML, read and checked, and the runs that follow from it.

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

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sv_ssl.core.errors import InputError
from sv_ssl.study import grid_checks


@dataclass(frozen=True)
class Run:
    """One system with one seed and, where a seed has several, one test fold."""

    system: str
    seed: int
    recipe: str
    yaml: str
    options: dict[str, Any] = field(hash=False)
    fold: int | str | None = None
    source: Run | None = None  # the run whose model this one starts from

    @property
    def key(self) -> str:
        """The seed and, of several, the fold, as files are named."""
        return str(self.seed) if self.fold is None else f"{self.seed}-{self.fold}"

    @property
    def title(self) -> str:
        return f"{self.system}/{self.key}"

    @property
    def work_name(self) -> str:
        """The name of its working folder: a run with other options neither resumes it nor is refused by it."""
        digest = hashlib.sha1(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()[:6]
        return f"{self.system}-{self.key}-{digest}"

    def facts(self) -> dict[str, Any]:
        """Return what its JSON holds as `run`: all that must be equal for a result to be of this run."""
        facts: dict[str, Any] = {
            "system": self.system,
            "seed": self.seed,
            "recipe": self.recipe,
            "yaml": self.yaml,
            "options": self.options,
        }
        if self.fold is not None:
            facts["fold"] = self.fold
        if self.source is not None:
            facts["source"] = self.source.facts()
        return json.loads(json.dumps(facts))


class Grid(NamedTuple):
    """The content of a study's YAML, with `each` written out: a system of every value."""

    name: str
    recipes: Path
    seeds: list[int]
    systems: dict[str, dict[str, Any]]
    title: str = ""
    about: str = ""
    out: str = ""
    threads: int | None = None
    folds: list = []
    options: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    lists: dict[str, list[str]] = {}
    pairs: list[dict[str, str]] = []
    drawn: list[str] = []
    manifests: list[str] = []
    conclusions: str = ""

    def runs(self) -> list[Run]:
        """Return all runs, seed after seed: a study that is stopped early has every system once."""
        seeds = sorted({seed for system in self.systems.values() for seed in system.get("seeds", self.seeds)})
        return [
            self.run(name, seed, fold)
            for seed in seeds
            for fold in self.folds_of(seed)
            for name, system in self.systems.items()
            if seed in system.get("seeds", self.seeds)
        ]

    def folds_of(self, seed: int) -> list:
        """Return the test folds of a seed: [None] where the study has no folds."""
        if not self.folds:
            return [None]
        folds = self.folds[self.seeds.index(seed)]
        return folds if isinstance(folds, list) else [folds]

    def run(self, name: str, seed: int, fold: int | str | None) -> Run:
        """Return the run of a system, with the run that it starts from."""
        system = self.systems[name]
        options = {**self._sizes_of(system), **self.options, **system.get("options", {})}
        if fold is not None:
            options["test_fold"] = fold
        several = len(self.folds_of(seed)) > 1
        source = self.run(system["after"], seed, fold) if "after" in system else None
        return Run(name, seed, system["recipe"], system["yaml"], options, fold if several else None, source)

    def _sizes_of(self, system: dict[str, Any]) -> dict[str, Any]:
        """Return the sizes that the YAML of a system knows."""
        if not self.sizes:
            return {}
        path = grid_checks.yaml_path(self.recipes, system)
        known = grid_checks.yaml_keys(path)
        return {key: value for key, value in self.sizes.items() if key in known}


def read(path: str | os.PathLike) -> Grid:
    """Return the grid of a YAML; raise InputError for an unknown key or name and suggest the closest known ones."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read the study {path}: {' '.join(str(error).split())}") from error
    grid_checks.check_keys(content, path)
    recipes = path.resolve().parent / content["recipes"]
    grid = Grid(**{**content, "recipes": recipes, "systems": _each_written_out(content["systems"])})
    grid_checks.check_names(grid, path)
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
