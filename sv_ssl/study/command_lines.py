"""The command line of a run: as it is started, and as a result tells it."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

from sv_ssl.study.grid import Grid, Run

DATA = "$data"  # stands for the folder of --data
WORK = "$work"  # stands for the folder of --work


def needs_data(grid: Grid) -> bool:
    """Return whether any option names the folder of --data."""
    return any(DATA in json.dumps(run.options) for run in grid.runs())


def command(grid: Grid, run: Run, data: str | None = None, work: str | None = None, **more: Any) -> list[str]:
    """Return a run's command line, with `data` and `work` in the place of $data and $work, and further options."""
    options = {"name": run.system, "seed": run.seed, **run.options}
    if run.source is not None:
        options["init_from"] = f"{WORK}/{run.source.work_name}/model"
    words = [f"--{key}={_text(value)}" for key, value in {**options, **more}.items()]
    for name, folder in ((DATA, data), (WORK, work)):
        if folder is not None:
            words = [word.replace(name, folder) for word in words]
    return [sys.executable, str(grid.recipes / run.recipe), run.yaml, *words]


def shown(grid: Grid, run: Run, **more: Any) -> str:
    """Return the command as one types it, in a shell where `data` and `work` are exported."""
    _, recipe, *rest = command(grid, run, **more)
    words = ["python", os.path.relpath(recipe), *rest]
    return " ".join(word if re.fullmatch(r"[\w$./=:+,-]+", word) else f'"{word}"' for word in words)


def _text(value: Any) -> str:
    """Return a value as YAML writes it.

    >>> _text(["a.txt", "b.txt"]), _text(None), _text(0.001), _text(True)
    ('[a.txt, b.txt]', 'null', '0.001', 'True')
    """
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return "null" if value is None else str(value)
