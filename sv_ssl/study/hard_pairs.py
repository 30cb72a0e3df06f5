"""What a system's embeddings know: its errors by what the manifests say, and the pairs that it gets most wrong."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.reporting.result_tables import markdown
from sv_ssl.study import run_files
from sv_ssl.study.command_lines import DATA
from sv_ssl.study.grid import Grid, Run
from sv_ssl.verification import conditions
from sv_ssl.verification.manifest_columns import read_manifest
from sv_ssl.verification.trials import Trials, read_trials

BY = ("gender", "session", "duration")
HARDEST = 4  # pairs of a kind and list
SHOWN = 3.0  # seconds of a recording in a picture
RATE, HIGHEST = 16000, 4000  # Hz: of the samples, and what a picture shows
ABOUT = """\
EER in percent, the mean over seeds {seeds}, of the trials whose two sides have these values ("session": the targets of
one session, or of two, against all non-targets; "duration": of the shorter side). A note marks few errors. A pair is
hard by the mean over seeds of its score's rank in its list: 0 is the lowest score, 1 the highest."""


class Judged(NamedTuple):
    """A list with its recordings' names, what is known of them, and each seed's scores."""

    stem: str
    trials: Trials
    columns: dict[str, list[str]]  # {column: (U,)}
    scores: list[np.ndarray]  # (T,) of each seed

    @property
    def ranks(self) -> np.ndarray:
        """Return the mean over seeds of the place among all scores of the list, from 0 to 1: (T,)"""
        places = [scores.argsort().argsort() for scores in self.scores]
        return np.mean(places, axis=0) / max(len(self.trials.enroll) - 1, 1)


def write(folder: Path, grid: Grid, system: str, data: str | None) -> Path:
    """Write errors-<system>.md and a picture of spectrograms for each list; return the page's path."""
    results = {run: result for run, result in run_files.read_results(folder, grid).items() if run.system == system}
    if not results:
        raise InputError(f"{folder} has no run of {system!r} yet; the systems are {', '.join(grid.systems)}")
    if any(map(run_files.is_of_clips, results.values())):
        raise InputError(f"--pairs {system}: the study {grid.name} is of labelled clips, which have no trials")
    runs = list(results)
    options = {key: _placed(value, data) for key, value in runs[0].options.items()}
    if absent := [key for key in ("test_trials", "data_folder") if key not in options]:
        raise InputError(f"the study {grid.name} leaves it to its recipes to find {absent[0]}: name it in its options")
    root = Path(options.get("audio_root") or options["data_folder"])
    paths = options["test_trials"] if isinstance(options["test_trials"], list) else [options["test_trials"]]
    lists = [_judged(folder, runs, path, _placed(grid.manifests, data)) for path in paths]
    for judged in lists:
        _picture(folder / f"errors-{system}-{judged.stem}.jpg", judged, root)
    path = folder / f"errors-{system}.md"
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(_page(system, runs, lists)), encoding="utf-8")
    return path


def _placed(value: Any, data: str | None) -> Any:
    """Return an option with the folder of --data in the place of $data."""
    if isinstance(value, list):
        return [_placed(item, data) for item in value]
    return value.replace(DATA, data) if data and isinstance(value, str) else value


def _judged(folder: Path, runs: Sequence[Run], path: str, manifests: Sequence[str]) -> Judged:
    trials = read_trials(path)
    stem = Path(path).stem
    columns = _columns(manifests, trials.ids) if manifests else {}
    return Judged(stem, trials, columns, [run_files.read_scores(folder, run)[stem] for run in runs])


def _columns(manifests: Sequence[str], ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the columns of several manifests as of one: a list may name recordings of each."""
    rows: list[dict[str, str]] = []
    for path in manifests:
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows += list(csv.DictReader(file))
        except OSError as error:
            raise InputError(f"cannot read the manifest {path}: {error.strerror}") from error
    with tempfile.NamedTemporaryFile("w", suffix=".csv", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        file.flush()
        return read_manifest(file.name, ids)


# --- the page -------------------------------------------------------------------------------------------------------


def _page(system: str, runs: Sequence[Run], lists: Sequence[Judged]) -> list[str]:
    about = ABOUT.format(seeds=", ".join(str(run.seed) for run in runs))
    lines = [f"# What {system} gets wrong", "", about, "", "## By gender, session and duration", ""]
    head = ["list", "by", "value", "targets", "non-targets", "EER", "note"]
    lines += markdown(head, [row for judged in lists for row in _broken_down(judged)])
    for judged in lists:
        lines += ["", f"## Hardest pairs of {judged.stem}", ""]
        lines += markdown(["pair", "one", "other", "rank"], _pair_rows(judged))
        lines += ["", f"![their spectrograms](errors-{system}-{judged.stem}.jpg)"]
    return [*lines, ""]


def _pair_rows(judged: Judged) -> list[list[str]]:
    trials = judged.trials
    return [
        [kind, trials.ids[trials.enroll[i]], trials.ids[trials.test[i]], f"{judged.ranks[i]:.3f}"]
        for kind, chosen in hardest(judged).items()
        for i in chosen
    ]


def _broken_down(judged: Judged) -> list[list[str]]:
    """Return the rows of a list: what all its seeds make of each condition."""
    trials = judged.trials
    by = [name for name in BY if len(set(judged.columns.get(name, []))) > 1]
    parts: list[conditions.Condition] = [("all", "", np.ones(len(trials.enroll), bool))]
    parts += conditions.split(trials, by, judged.columns)
    by_seed = [conditions.evaluate_each(trials, scores, parts) for scores in judged.scores]
    rows = []
    for reports in zip(*by_seed):
        first = reports[0]
        eer = "" if first["eer"] is None else f"{100 * np.mean([report['eer'] for report in reports]):.2f}"
        counts = [str(first[key]) for key in ("by", "value", "n_target", "n_nontarget")]
        rows.append([judged.stem, *counts, eer, first["note"]])
    return rows


def hardest(judged: Judged) -> dict[str, list[int]]:
    """Return {kind: trials}: targets of the lowest ranks, non-targets of the highest."""
    order = judged.ranks.argsort(kind="stable")
    labels = np.asarray(judged.trials.labels)
    return {
        "same speaker, low score": order[labels[order]][:HARDEST].tolist(),
        "different speakers, high score": order[~labels[order]][::-1][:HARDEST].tolist(),
    }


def _picture(path: Path, judged: Judged, root: Path) -> None:
    """Draw the two spectrograms of each of the hardest pairs beside each other."""
    pairs = [(kind, i) for kind, chosen in hardest(judged).items() for i in chosen]
    figure = Figure(figsize=(7, 1.5 * len(pairs)), layout="constrained")
    axes = figure.subplots(len(pairs), 2, squeeze=False, sharex=True, sharey=True)
    for row, (kind, i) in zip(axes, pairs):
        for panel, side in zip(row, (judged.trials.enroll, judged.trials.test)):
            name = judged.trials.ids[side[i]]
            wave = audio.read(root / name)[: round(SHOWN * RATE)]
            panel.specgram(wave / wave.std(), NFFT=400, Fs=RATE, noverlap=80, cmap="magma", vmin=-100, vmax=-25)
            panel.set_title(f"{kind}: {name[-40:]}", fontsize=6, loc="left")
            panel.set(xlim=(0, SHOWN), ylim=(0, HIGHEST))
            panel.tick_params(labelsize=6)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=72, pil_kwargs={"quality": 60})
