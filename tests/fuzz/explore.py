"""Read many files of a format, made by hypothesis from a seed, and keep count of what became of them."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.damage import files
from tests.fuzz.formats import FORMATS
from tests.fuzz.worker import Outcome, Worker

FOUND = Path(__file__).parent / "found"
BATCH = 100  # examples of one seed


@dataclass
class Count:
    """What became of the files of a format."""

    name: str
    kinds: Counter = field(default_factory=Counter)  # accepted, refused, failed
    faults: Counter = field(default_factory=Counter)  # by what and where they are
    first: dict[str, Outcome] = field(default_factory=dict)  # of each fault
    data: dict[str, bytes] = field(default_factory=dict)  # the file of each fault that made it

    def take(self, data: bytes, outcome: Outcome) -> None:
        """Count what became of a file."""
        self.kinds[outcome.kind] += 1
        if outcome.kind == "failed":
            self.faults[outcome.where] += 1
            self.first.setdefault(outcome.where, outcome)
            self.data.setdefault(outcome.where, data)

    def add(self, more: Count) -> None:
        """Count more files of the same format."""
        self.kinds += more.kinds
        self.faults += more.faults
        self.first, self.data = {**more.first, **self.first}, {**more.data, **self.data}


def explore(worker: Worker, name: str, examples: int, seed: int, until: float = float("inf")) -> Count:
    """Read so many files of a format, or as many as can be read until a moment; the same seed gives the same files."""
    count = Count(name)

    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(files(name))
    def attempt(data: bytes) -> None:
        if time.monotonic() < until:
            count.take(data, worker.read(name, data))

    attempt()
    return count


def keep(data: bytes, name: str, outcome: Outcome) -> Path:
    """Write a file that made a reader fail, and beside it how."""
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha1(data).hexdigest()[:10]
    path = folder / f"{digest}{Path(FORMATS[name].file).suffix}"
    path.write_bytes(data)
    path.with_suffix(".why.txt").write_text(f"{outcome.where}\n{outcome.text}\n", encoding="utf-8", errors="replace")
    return path
