"""Intervals and paired tests over a study's scores: test speakers are drawn with replacement, and training seeds.

What is tested: the mean over training seeds of a measure that is itself the mean over the lists of a group. In each of
1,000 draws the speakers of every list are drawn anew (lists of the same speakers draw the same), both systems meet the
same speakers, and what other seeds would add is drawn from Student's t with K - 1 degrees of freedom, scaled by the
seeds' own deviation. With one seed, nothing is said about another training.
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

from sv_ssl.core.files import aside
from sv_ssl.core.host import cores
from sv_ssl.study import kept
from sv_ssl.study.grid import MEASURES, Grid, Run
from sv_ssl.verification import bootstrap
from sv_ssl.verification.metrics import headline

N = 1000  # draws
Lists = Mapping[str, kept.List]


class Drawn(NamedTuple):
    """A measure of one run on the lists of a group: as it is, and in each draw of speakers."""

    whole: float
    draws: np.ndarray  # (N,)


def measure(folder: Path, grid: Grid, runs: Sequence[Run]) -> dict[str, Any]:
    """All intervals and tests of the runs, as measured.json keeps them: the tables are made from it and the runs."""
    lists = kept.read_lists(folder, runs)
    groups = grid.lists or {"all lists": sorted(lists)}
    groups = {name: stems for name, stems in groups.items() if lists.keys() >= set(stems)}
    found = dict(zip(runs, _each(partial(_drawn, folder, lists, groups), runs)))
    names = list(dict.fromkeys(run.system for run in runs))
    systems = {
        name: {group: _system(group, [found[run] for run in runs if run.system == name]) for group in groups}
        for name in names
    }
    pairs = [
        test
        for pair in grid.pairs
        if {pair["better"], pair["worse"]} <= set(names)
        for group in groups
        if (test := paired(pair, group, found))
    ]
    measured = {
        "draws": N,
        "runs": [run.title for run in runs],
        "speakers": _speakers(lists, groups),
        "systems": systems,
        "pairs": pairs,
    }
    with aside(folder / "measured.json") as temporary:
        temporary.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    return measured


def _each(of: Callable[[Run], dict], runs: Sequence[Run]) -> list[dict]:
    """Of a few runs here, of many in several processes."""
    if len(runs) < 8:
        return list(map(of, runs))
    # The pool ends its processes by SIGTERM, of which the study's own handler would make a Ctrl-C.
    with multiprocessing.Pool(cores(), signal.signal, (signal.SIGTERM, signal.SIG_DFL)) as pool:
        return pool.map(of, runs)


def _drawn(folder: Path, lists: Lists, groups: dict[str, list[str]], run: Run) -> dict[tuple[str, str], Any]:
    """{(measure, group): Drawn} and {("pooled", group): EER of all trials of the group with one threshold}."""
    scores = kept.read_scores(folder, run)
    each = {(name, stem): draw(name, lists, stem, scores[stem]) for name in MEASURES for stem in lists}
    found: dict[tuple[str, str], Any] = {}
    for group, stems in groups.items():
        for name in MEASURES:
            parts = [each[name, stem] for stem in stems]
            found[name, group] = Drawn(
                float(np.mean([part.whole for part in parts])), np.mean([part.draws for part in parts], axis=0)
            )
        together = np.concatenate([scores[stem] for stem in stems])
        found["pooled", group] = headline(together, np.concatenate([lists[stem].labels for stem in stems]), ())["eer"]
    return found


def draw(name: str, lists: Lists, stem: str, scores: np.ndarray) -> Drawn:
    """(T,) scores of a list -> its EER, or its alignment: the mean squared distance 2 - 2 cos of the target trials."""
    one = lists[stem]
    same = [np.array_equal(one.speakers, other.speakers) for other in lists.values()]
    seed = same.index(True)  # the same speakers, the same draws
    if name == "eer":
        whole = headline(scores, one.labels, ())["eer"]
        return Drawn(whole, bootstrap.bootstrap(scores, one.labels, one.enroll, one.test, (), N, seed)["eer"])
    distance, who, n = 2 - 2 * scores[one.labels].astype(np.float64), one.enroll[one.labels], len(one.speakers)
    rng = np.random.default_rng(seed)
    copies = np.array([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(N)])
    with np.errstate(invalid="ignore"):  # no target trial among those drawn
        draws = copies @ np.bincount(who, distance, n) / (copies @ np.bincount(who, minlength=n))
    return Drawn(float(distance.mean()), draws)


def _system(group: str, found: Sequence[dict]) -> dict[str, Any]:
    """What is said of one system on a group, over its seeds."""
    about: dict[str, Any] = {}
    for name in MEASURES:
        parts = [one[name, group] for one in found]
        ends = bootstrap.percentiles(over_seeds(np.array([part.draws for part in parts])))
        about[name] = {"mean": float(np.mean([part.whole for part in parts])), "ci": list(ends)}
    return {**about, "pooled": float(np.mean([one["pooled", group] for one in found]))}


def over_seeds(draws: np.ndarray) -> np.ndarray:
    """(K, N) draws of K seeds -> (N,) of their mean over other seeds: as Student's t has it, for a few have thin tails.

    >>> over_seeds(np.array([[0.1, 0.2]]))
    array([0.1, 0.2])
    """
    k, n = draws.shape
    if k == 1:
        return draws[0]
    return draws.mean(axis=0) + draws.std(axis=0, ddof=1) / np.sqrt(k) * np.random.default_rng(0).standard_t(k - 1, n)


def paired(pair: dict[str, str], group: str, found: Mapping[Run, dict]) -> dict[str, Any] | None:
    """The test of a claim: by what the better system's measure is below the worse one's, over the seeds of both."""
    name = pair.get("by", "eer")
    sides = [
        {run.seed: each[name, group] for run, each in found.items() if run.system == pair[side]}
        for side in ("better", "worse")
    ]
    seeds = sorted(set(sides[0]) & set(sides[1]))
    if not seeds:
        return None
    gains = np.array([sides[0][seed].whole - sides[1][seed].whole for seed in seeds])
    draws = over_seeds(np.array([sides[0][seed].draws - sides[1][seed].draws for seed in seeds]))
    low, high = bootstrap.percentiles(draws)
    known = draws[~np.isnan(draws)]
    p = min(1.0, 2 * (1 + int(min((known <= 0).sum(), (known >= 0).sum()))) / (1 + len(known)))
    return {
        **pair,
        "by": name,
        "lists": group,
        "seeds": seeds,
        "agree": int((gains < 0).sum()),
        "difference": float(gains.mean()),
        "ci": [low, high],
        "p": p,
        "verdict": verdict(low, high),
    }


def verdict(low: float, high: float) -> str:
    """The ends of the difference's interval -> what becomes of the claim.

    >>> verdict(-0.03, -0.01), verdict(-0.03, 0.01), verdict(0.01, 0.03)
    ('yes', 'not at this size', 'no, the reverse')
    """
    return "yes" if high < 0 else "no, the reverse" if low > 0 else "not at this size"


def _speakers(lists: Lists, groups: dict[str, list[str]]) -> dict[str, dict[str, int]]:
    """How many speakers each list has: what the intervals rest on."""
    return {group: {stem: len(lists[stem].speakers) for stem in stems} for group, stems in groups.items()}
