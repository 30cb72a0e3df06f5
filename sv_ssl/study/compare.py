"""Intervals and paired tests of a study, over training seeds and over test speakers.

Speakers. What is tested is the mean over training seeds of a measure that is itself the mean over the lists of a group.
In each of 1,000 draws the speakers of every list are drawn anew with replacement (lists of the same speakers draw the
same), both systems meet the same speakers, and what other seeds would add is Student's t with K - 1 degrees of freedom,
scaled by the seeds' own deviation. With one seed, nothing is said about another training.

Clips. A measure is a mean over clips, so that no draws are needed: `analysis.probe.across` adds Student's half-widths
over seeds and over speakers (over clips, where no speakers are known) as squares.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sv_ssl.analysis import probe
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.core.host import cores
from sv_ssl.core.seeds import stream
from sv_ssl.study import run_files
from sv_ssl.study.grid import Grid, Run
from sv_ssl.study.grid_file import JUDGES, SPEAKERS
from sv_ssl.study.run_files import Result
from sv_ssl.verification import bootstrap
from sv_ssl.verification.metrics import headline

N = 1000  # draws
STEPS = 100  # of Student's t: the middle of the third and third-last are its 2.5th and 97.5th percentile
_SIDES = ("better", "worse")
Lists = Mapping[str, run_files.List]


class Measured(NamedTuple):
    """A measure of one run on the lists of a group: as it is, and in each draw of speakers."""

    whole: float
    draws: np.ndarray  # (N,)


def verdict(low: float, high: float) -> str:
    """Return what an interval of better minus worse says of a claim that the measure is lower.

    >>> verdict(-0.03, -0.01), verdict(-0.03, 0.01), verdict(0.01, 0.03)
    ('yes', 'not at this size', 'no, the reverse')
    """
    if high < 0:
        return "yes"
    return "no, the reverse" if low > 0 else "not at this size"


# --- speakers -------------------------------------------------------------------------------------------------------


def measure(folder: Path, grid: Grid, runs: Sequence[Run]) -> dict[str, Any]:
    """Return all intervals and tests of the runs, and write them to measured.json, from which tables are made."""
    lists = run_files.read_lists(folder, runs)
    groups = grid.lists or {"all lists": sorted(lists)}
    groups = {name: stems for name, stems in groups.items() if lists.keys() >= set(stems)}
    each = dict(zip(runs, _map(partial(_measure_run, folder, lists, groups), runs)))
    names = list(dict.fromkeys(run.system for run in runs))
    pairs = [pair for pair in grid.pairs if {pair["better"], pair["worse"]} <= set(names)]
    tests = [paired(pair, group, each) for pair in pairs for group in groups]
    measured = {
        "draws": N,
        "runs": [run.title for run in runs],
        "speakers": {group: {stem: len(lists[stem].speakers) for stem in stems} for group, stems in groups.items()},
        "systems": {name: _measure_system(name, list(groups), each) for name in names},
        "pairs": [test for test in tests if test],
    }
    with atomic_write(folder / "measured.json") as temporary:
        temporary.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    return measured


def _map(of: Callable[[Run], dict], runs: Sequence[Run]) -> list[dict]:
    """Measure a few runs here, many in several processes."""
    if len(runs) < 8:
        return list(map(of, runs))
    # The pool ends its processes by SIGTERM, of which the study's own handler would make a Ctrl-C.
    with multiprocessing.Pool(cores(), signal.signal, (signal.SIGTERM, signal.SIG_DFL)) as pool:
        return pool.map(of, runs)


def _measure_run(folder: Path, lists: Lists, groups: dict[str, list[str]], run: Run) -> dict[tuple[str, str], Any]:
    """Return {(measure, group): Measured} and {("pooled", group): EER of all trials of a group with one threshold}."""
    scores = run_files.read_scores(folder, run)
    each = {(name, stem): draw(name, lists, stem, scores[stem]) for name in SPEAKERS for stem in lists}
    measured: dict[tuple[str, str], Any] = {}
    for group, stems in groups.items():
        for name in SPEAKERS:
            parts = [each[name, stem] for stem in stems]
            draws = np.mean([part.draws for part in parts], axis=0)
            measured[name, group] = Measured(float(np.mean([part.whole for part in parts])), draws)
        together = np.concatenate([scores[stem] for stem in stems])
        labels = np.concatenate([lists[stem].labels for stem in stems])
        measured["pooled", group] = headline(together, labels, ())["eer"]
    return measured


def draw(name: str, lists: Lists, stem: str, scores: np.ndarray) -> Measured:
    """Return the EER, or the alignment: the mean squared distance 2 - 2 cos of the target trials. scores: (T,)"""
    trials = lists[stem]
    same = [np.array_equal(trials.speakers, other.speakers) for other in lists.values()]
    number = same.index(True)  # the same speakers, the same draws
    if name == "eer":
        whole = headline(scores, trials.labels, ())["eer"]
        return Measured(
            whole, bootstrap.bootstrap(scores, trials.labels, trials.enroll, trials.test, (), N, number)["eer"]
        )
    distance = 2 - 2 * scores[trials.labels].astype(np.float64)
    who, n = trials.enroll[trials.labels], len(trials.speakers)
    rng = stream(number, "test speakers")
    copies = np.array([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(N)])
    with np.errstate(invalid="ignore"):  # no target trial among those drawn
        draws = copies @ np.bincount(who, distance, n) / (copies @ np.bincount(who, minlength=n))
    return Measured(float(distance.mean()), draws)


def _measure_system(name: str, groups: Sequence[str], each: Mapping[Run, dict]) -> dict[str, dict[str, Any]]:
    """Return {group: {measure: mean and interval}} of one system over its seeds."""
    runs = [measured for run, measured in each.items() if run.system == name]
    system: dict[str, dict[str, Any]] = {}
    for group in groups:
        system[group] = {measure: _mean_and_ends([run[measure, group] for run in runs]) for measure in SPEAKERS}
        system[group]["pooled"] = float(np.mean([run["pooled", group] for run in runs]))
    return system


def _mean_and_ends(seeds: Sequence[Measured]) -> dict[str, Any]:
    ends = bootstrap.percentiles(over_seeds(np.array([seed.draws for seed in seeds])))
    return {"mean": float(np.mean([seed.whole for seed in seeds])), "ci": list(ends)}


def over_seeds(draws: np.ndarray) -> np.ndarray:
    """Return draws of the mean over other seeds, as Student's t has it, for a few have thin tails.

    draws: (K, N) of K seeds; returns (N,) for one seed, else (N * STEPS,)

    Each draw is shifted by the quantiles of t in even steps. One random number in their place would move the ends of an
    interval by a tenth from one random stream to the next, since t has long tails where seeds are few.

    >>> over_seeds(np.array([[0.1, 0.2]]))
    array([0.1, 0.2])
    """
    from scipy.stats import t  # slow to import

    k = len(draws)
    if k == 1:
        return draws[0]
    steps = t.ppf((np.arange(STEPS) + 0.5) / STEPS, k - 1)
    spread = draws.std(axis=0, ddof=1) / np.sqrt(k)
    return (draws.mean(axis=0)[:, None] + spread[:, None] * steps).ravel()


def paired(pair: dict[str, str], group: str, each: Mapping[Run, dict]) -> dict[str, Any] | None:
    """Return the test of a claim: better minus worse, over the seeds that both systems have; None without any."""
    name = pair.get("by", "eer")
    better, worse = (_by_seed(pair[side], name, group, each) for side in ("better", "worse"))
    seeds = sorted(set(better) & set(worse))
    if not seeds:
        return None
    gains = np.array([better[seed].whole - worse[seed].whole for seed in seeds])
    draws = over_seeds(np.array([better[seed].draws - worse[seed].draws for seed in seeds]))
    low, high = bootstrap.percentiles(draws)
    known = draws[~np.isnan(draws)]
    rarer = N * min((known <= 0).mean(), (known >= 0).mean())
    return {
        **pair,
        "by": name,
        "lists": group,
        "seeds": seeds,
        "agree": int((gains < 0).sum()),
        "difference": float(gains.mean()),
        "ci": [low, high],
        "p": float(min(1.0, 2 * (1 + rarer) / (1 + N))),
        "verdict": verdict(low, high),
    }


def _by_seed(system: str, name: str, group: str, each: Mapping[Run, dict]) -> dict[int, Measured]:
    return {run.seed: measured[name, group] for run, measured in each.items() if run.system == system}


# --- clips ----------------------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """Better minus worse of a claim about clips, with the ends of its 95 % interval, and how many seeds both have."""

    mean: float
    low: float
    high: float
    n_seeds: int


def accuracy(results: Sequence[Result], judge: str) -> tuple[float, float, float]:
    """Return the accuracy over all clips of a system's runs, and the ends of its interval."""
    return probe.across(*hits(results, judge))


def hits(results: Sequence[Result], judge: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is right, of which seed, and of which speaker (or which clip, where no speakers are known).

    Each is (N,): a row a test clip of a run; the first is 1 where the run is right about it.
    """
    right: list[float] = []
    seeds: list[int] = []
    groups: list[Any] = []
    for result in results:
        marks = [float(mark) for mark in result["right"][judge]]
        right += marks
        seeds += [result["seed"]] * len(marks)
        groups += result["speakers"] or [f"{_fold(result)}/{i}" for i in range(len(marks))]
    return np.array(right), np.array(seeds), np.array(groups)


def per_seed(results: Sequence[Result], value: Callable[[Result], float]) -> list[float]:
    """Return the mean over the folds of each seed."""
    seeds = sorted({result["seed"] for result in results})
    return [float(np.mean([value(result) for result in results if result["seed"] == seed])) for seed in seeds]


def paired_clips(pair: Mapping[str, str], systems: Mapping[str, Sequence[Result]]) -> Difference | None:
    """Return the test of a claim over the seeds and folds that both systems have; None without any."""
    runs = [{(result["seed"], _fold(result)): result for result in systems.get(pair[side], [])} for side in _SIDES]
    both = sorted(runs[0].keys() & runs[1].keys(), key=str)
    if not both:
        return None
    better, worse = ([side[key] for key in both] for side in runs)
    if pair["by"] in JUDGES:
        _check_judged(pair, {pair["better"]: better, pair["worse"]: worse})
        right, *codes = hits(better, pair["by"])
        differences = right - hits(worse, pair["by"])[0]
    else:
        codes = [np.array([result["seed"] for result in better])]
        values = [np.array([statistic(result, pair["by"]) for result in side]) for side in (better, worse)]
        differences = values[0] - values[1]
    return Difference(*probe.across(differences, *codes), len({seed for seed, _ in both}))


def _check_judged(pair: Mapping[str, str], systems: Mapping[str, Sequence[Result]]) -> None:
    for name, results in systems.items():
        if any(pair["by"] not in result["right"] for result in results):
            raise InputError(f"the claim {pair['claim']} is by {pair['by']}, by which {name} was not judged")


def statistic(result: Result, name: str) -> float:
    """Return one of ADD's statistics of a run's test embeddings."""
    return result["analysis"]["add"][name]


def _fold(result: Result) -> Any:
    return result["run"]["options"].get("test_fold")
