"""The files of a study's runs, small enough for git: written and read here alone.

of speakers
  runs/<system>-<seed>.json      the recipe's result, what was run, the command, a line an epoch
  scores/<system>-<seed>.npz     {stem of a list: (T,) float32 scores}
  trials/<stem>.npz              labels, enroll, test: (T,) each, the sides as indices into speakers: (S,) names
of labelled clips
  <system>-<seed>.json           the recipe's result, what was run, the command; <system>-<seed>-<fold>.json of several
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.study.command_lines import shown
from sv_ssl.study.grid import Grid, Run
from sv_ssl.verification.trials import Trials, read_trials, speakers

CURVE = ("loss", "eer", "spread", "alignment", "uniformity")
Result = dict[str, Any]


class List(NamedTuple):
    """T trials without the names of their recordings."""

    labels: np.ndarray
    enroll: np.ndarray
    test: np.ndarray
    speakers: np.ndarray  # names; of utterances where the ids do not tell the speakers


# --- results --------------------------------------------------------------------------------------------------------


def is_of_clips(result: Result) -> bool:
    """Return whether a recipe's result is of labelled clips and not of speakers."""
    return "accuracy" in result


def json_path(folder: Path, run: Run, of_clips: bool) -> Path:
    return folder / ("" if of_clips else "runs") / f"{run.system}-{run.key}.json"


def read_result(folder: Path, run: Run) -> Result | None:
    """Return the JSON of this very run; None if there is none, or one with other options."""
    for path in (json_path(folder, run, of_clips) for of_clips in (False, True)):
        if not path.exists():
            continue
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["run"] == run.facts() or _is_of_version_1(result["run"], run):
                return {**result, "run": run.facts()}
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{path} is not the record of a study's run: {type(error).__name__} {error}") from error
    return None


def _is_of_version_1(old: Mapping[str, Any], run: Run) -> bool:
    """Return whether `run` of a result of clips of version 0.1 says the same: changes and sizes stood apart."""
    if not old.keys() >= {"changes", "sizes", "after"}:
        return False
    options = {key: value for key, value in run.facts()["options"].items() if key != "data_folder"}
    recorded = {**old["sizes"], **old["changes"]}
    return (
        old["yaml"] == Path(run.yaml).name
        and old["after"] == (run.source.system if run.source else None)
        and old["changes"].keys() <= options.keys() <= recorded.keys()
        and all(recorded[key] == value for key, value in options.items())
    )


def read_results(folder: Path, grid: Grid) -> dict[Run, Result]:
    """Return {run: its JSON} of the runs that are there, in the order of the grid's systems, seeds and folds."""
    order = {name: i for i, name in enumerate(grid.systems)}
    runs = sorted(grid.runs(), key=lambda run: order[run.system])
    return {run: result for run in runs if (result := read_result(folder, run))}


def by_system(results: Mapping[Run, Result]) -> dict[str, list[Result]]:
    """Return {system: the results of its runs}."""
    systems: dict[str, list[Result]] = {}
    for run, result in results.items():
        systems.setdefault(run.system, []).append(result)
    return systems


def summary(grid: Grid, result: Result) -> str:
    """Return what a result says, for a line: its accuracies, or the EERs of its lists."""
    if is_of_clips(result):
        return ", ".join(f"{judge} {report['accuracy']:.1%}" for judge, report in result["accuracy"].items())
    eers = {name: eer for name in grid.lists if (eer := mean_eer(result, grid.lists[name])) is not None}
    return ", ".join(f"{name} {eer:.2%}" for name, eer in eers.items()) or f"EER {result['test']['eer']:.2%}"


def reports(result: Result) -> dict[str, dict]:
    """Return {stem: report} of the lists of a result."""
    return result.get("lists") or {Path(result["test"]["list"]).stem: result["test"]}


def mean_eer(result: Result, stems: Sequence[str]) -> float | None:
    """Return the mean EER over lists; None where one is not there."""
    lists = reports(result)
    return sum(lists[stem]["eer"] for stem in stems) / len(stems) if stems and lists.keys() >= set(stems) else None


# --- a run that has ended -------------------------------------------------------------------------------------------


def keep(folder: Path, grid: Grid, run: Run, work: Path, folders: Mapping[str, str], machine: Mapping) -> Result:
    """Take the result of an ended run from its working folder, and its scores; return the result.

    folders: {"$data": path, ...}, which the JSON names so; machine: the options that say how it was run, not what.
    """
    result = _read_recipe_result(work)
    result.pop("overrides", None)  # `run` says it without the folders of this machine
    result = {**result, "run": run.facts(), "command": shown(grid, run, **machine)}
    if not is_of_clips(result):
        _keep_scores(folder, run, work, result)
        result["curve"] = _curve(work, result)
    text = json.dumps(result, indent=1, allow_nan=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda match: " ".join(match[0].split()), text)  # lists of numbers on one line
    for name, path in folders.items():
        text = text.replace(path, name)
    with atomic_write(json_path(folder, run, is_of_clips(result))) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return result


def _read_recipe_result(work: Path) -> Result:
    """Return the one JSON that a recipe wrote: below runs/ of speakers, below audio/ of clips."""
    paths = [path for part in ("runs", "audio") for path in (work / "results" / part).glob("*.json")]
    if len(paths) != 1:
        raise InputError(f"{work} should hold one result in results/runs/ or results/audio/, it holds {len(paths)}")
    return json.loads(paths[0].read_text(encoding="utf-8"))


def _keep_scores(folder: Path, run: Run, work: Path, result: Result) -> None:
    lists = {stem: read_trials(path) for stem, path in _score_files(work, result).items()}
    for stem, trials in lists.items():
        _keep_list(folder / "trials" / f"{stem}.npz", trials)
    scores = {stem: np.asarray(trials.scores, np.float32) for stem, trials in lists.items()}
    with atomic_write(_scores_path(folder, run)) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **scores)


def _score_files(work: Path, result: Result) -> dict[str, Path]:
    """Return {stem of a list: its score file}: scores.txt is of the first list, scores-<stem>.txt of any other."""
    first = Path(result["test"]["list"]).stem
    others = [stem for stem in result.get("lists", {}) if stem != first]
    return {first: work / "scores.txt", **{stem: work / f"scores-{stem}.txt" for stem in others}}


def _curve(work: Path, result: Result) -> dict[str, list]:
    """Return a value an epoch of the log's lines that a figure shows, with the crops seen and minutes gone by."""
    log = work / "train_log.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    each = result.get("crops", 0) / max(result.get("epochs", 1), 1)
    seconds = np.cumsum([record.get("seconds", 0.0) for record in records]).tolist()
    curve: dict[str, list] = {"epoch": [record["epoch"] for record in records]}
    curve["crops"] = [round(each * epoch) for epoch in curve["epoch"]]
    curve["minutes"] = [round(second / 60, 3) for second in seconds]
    for key in CURVE:
        curve[key] = [_rounded(record.get(key)) for record in records]
    return curve


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(f"{value:.5g}")


# --- scores and lists -----------------------------------------------------------------------------------------------


def _keep_list(path: Path, trials: Trials) -> None:
    """Write a list, once; refuse another list of the same name."""
    names, code = np.unique(speakers(trials) or trials.ids, return_inverse=True)
    labels = np.asarray(trials.labels, bool)
    new = List(labels, code[trials.enroll].astype(np.int32), code[trials.test].astype(np.int32), names)
    if path.exists():
        if not all(map(np.array_equal, read_list(path), new)):
            raise InputError(
                f"{path} keeps another list than the one that was scored now: remove this study's folder "
                "and run it again, or give the list another name"
            )
        return
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **new._asdict())


def read_list(path: Path) -> List:
    with np.load(path) as arrays:
        return List(**{name: arrays[name] for name in List._fields})


def read_lists(folder: Path, runs: Iterable[Run]) -> dict[str, List]:
    """Return {stem: list} of the lists that all these runs have scored: the study may have had others once."""
    stems = set[str].intersection(*(set(read_scores(folder, run)) for run in runs))
    return {stem: read_list(folder / "trials" / f"{stem}.npz") for stem in sorted(stems)}


def read_scores(folder: Path, run: Run) -> dict[str, np.ndarray]:
    """Return {stem: (T,) scores} of a run."""
    with np.load(_scores_path(folder, run)) as arrays:
        return {stem: arrays[stem] for stem in arrays}


def _scores_path(folder: Path, run: Run) -> Path:
    return folder / "scores" / f"{run.system}-{run.key}.npz"
