"""The grid of a study: its systems, seeds and folds, and the runs that follow from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple


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
        path = yaml_path(self.recipes, system)
        known = yaml_keys(path)
        return {key: value for key, value in self.sizes.items() if key in known}


def yaml_path(recipes: Path, system: Mapping[str, Any]) -> Path:
    """Return the path of a system's YAML: as given, else beside its recipe."""
    path = Path(system["yaml"])
    return path if path.is_file() else recipes / path


@lru_cache
def yaml_keys(path: Path) -> frozenset[str]:
    """Return the keys that a recipe's YAML has, with those of what it extends that are still read; build nothing."""
    from sv_ssl.training import recipe_yaml, settings  # slow to import: they want torch

    known = {name for kind in (settings.SpeakerSettings, settings.ClipSettings) for name in settings.known(kind)}
    return frozenset(recipe_yaml.read(path, known).written)
