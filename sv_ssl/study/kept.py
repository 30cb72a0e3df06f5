"""What is kept of a study, small enough for git:

runs/<system>-<seed>.json      the recipe's result, what was run, the command, a line an epoch
scores/<system>-<seed>.npz     {stem of a list: (T,) float32 scores}
trials/<stem>.npz              labels, enroll, test: (T,) each, the sides as indices into speakers: (S,) names
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside
from sv_ssl.study.grid import DATA, Grid, Run, shown
from sv_ssl.verification.trials import Trials, read_trials, speakers

CURVE = ("loss", "eer", "spread", "alignment", "uniformity")


class List(NamedTuple):
    """T trials without the names of their recordings."""

    labels: np.ndarray
    enroll: np.ndarray
    test: np.ndarray
    speakers: np.ndarray  # names; of utterances where the ids do not tell the speakers


def json_path(folder: Path, run: Run) -> Path:
    return folder / "runs" / f"{run.system}-{run.seed}.json"


def result(folder: Path, run: Run) -> dict[str, Any] | None:
    """The JSON of this very run; None if there is none, or one with other options."""
    path = json_path(folder, run)
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if found["run"] == run.facts() else None
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path} is not the record of a study's run: {type(error).__name__} {error}") from error


def results(folder: Path, grid: Grid) -> dict[Run, dict[str, Any]]:
    """{run: its JSON} of the runs that are there, in the order of the grid's systems and seeds."""
    order = {name: i for i, name in enumerate(grid.systems)}
    runs = sorted(grid.runs(), key=lambda run: (order[run.system], run.seed))
    return {run: found for run in runs if (found := result(folder, run))}


def keep(folder: Path, grid: Grid, run: Run, work: Path, data: str | None) -> dict[str, Any]:
    """Take a finished run's JSON, epochs and scores from its working folder to the study's."""
    paths = list((work / "results" / "runs").glob("*.json"))
    if len(paths) != 1:
        raise InputError(f"{work} should hold one result in results/runs/, it holds {len(paths)}")
    found = json.loads(paths[0].read_text(encoding="utf-8"))
    lists = {stem: read_trials(path) for stem, path in _score_files(work, found).items()}
    found.pop("overrides", None)  # `run` says it without the folders of this machine
    found = {**found, "run": run.facts(), "command": shown(grid, run), "curve": _curve(work, found)}
    for stem, trials in lists.items():
        _keep_list(folder / "trials" / f"{stem}.npz", trials)
    scores = {stem: np.asarray(trials.scores, np.float32) for stem, trials in lists.items()}
    with aside(folder / "scores" / f"{run.system}-{run.seed}.npz") as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **scores)
    text = json.dumps(found, indent=1, allow_nan=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda match: " ".join(match[0].split()), text)  # lists of numbers on one line
    with aside(json_path(folder, run)) as temporary:
        temporary.write_text((text.replace(data, DATA) if data else text) + "\n", encoding="utf-8")
    return found


def _score_files(work: Path, found: dict[str, Any]) -> dict[str, Path]:
    """{stem of a list: its score file}: scores.txt is of the first list, scores-<stem>.txt of any other."""
    first = Path(found["test"]["list"]).stem
    others = [stem for stem in found.get("lists", {}) if stem != first]
    return {first: work / "scores.txt", **{stem: work / f"scores-{stem}.txt" for stem in others}}


def _curve(work: Path, found: dict[str, Any]) -> dict[str, list]:
    """A value an epoch: of the log's what a figure shows, and the crops seen and minutes gone at its end."""
    log = work / "train_log.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    each = found.get("crops", 0) / max(found.get("epochs", 1), 1)
    seconds = np.cumsum([record.get("seconds", 0.0) for record in records]).tolist()
    curve: dict[str, list] = {"epoch": [record["epoch"] for record in records]}
    curve["crops"] = [round(each * epoch) for epoch in curve["epoch"]]
    curve["minutes"] = [round(second / 60, 3) for second in seconds]
    for key in CURVE:
        curve[key] = [_rounded(record.get(key)) for record in records]
    return curve


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(f"{value:.5g}")


def _keep_list(path: Path, trials: Trials) -> None:
    """Write a list, once; another list of the same name is refused."""
    names, code = np.unique(speakers(trials) or trials.ids, return_inverse=True)
    new = List(
        np.asarray(trials.labels, bool), code[trials.enroll].astype(np.int32), code[trials.test].astype(np.int32), names
    )
    if path.exists():
        if not all(map(np.array_equal, read_list(path), new)):
            raise InputError(
                f"{path} keeps another list than the one that was scored now: remove this study's folder "
                "and run it again, or give the list another name"
            )
        return
    with aside(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **new._asdict())


def read_list(path: Path) -> List:
    with np.load(path) as found:
        return List(**{name: found[name] for name in List._fields})


def read_lists(folder: Path, runs: Iterable[Run]) -> dict[str, List]:
    """{stem: list} of the lists that all these runs have scored: the study may have had others once."""
    stems = set[str].intersection(*(set(read_scores(folder, run)) for run in runs))
    return {stem: read_list(folder / "trials" / f"{stem}.npz") for stem in sorted(stems)}


def read_scores(folder: Path, run: Run) -> dict[str, np.ndarray]:
    """{stem: (T,) scores} of a run."""
    with np.load(folder / "scores" / f"{run.system}-{run.seed}.npz") as found:
        return {stem: found[stem] for stem in found}
