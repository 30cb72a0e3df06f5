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
from sv_ssl.core.files import aside
from sv_ssl.reporting.result_tables import markdown
from sv_ssl.study import kept
from sv_ssl.study.grid import DATA, Grid, Run
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
        """(T,) mean over seeds of the place among all scores of the list, from 0 to 1."""
        return np.mean([one.argsort().argsort() for one in self.scores], axis=0) / max(len(self.trials.enroll) - 1, 1)


def write(folder: Path, grid: Grid, system: str, data: str | None) -> Path:
    """errors-<system>.md and a picture of spectrograms for each list -> the page's path."""
    runs = [run for run in kept.results(folder, grid) if run.system == system]
    if not runs:
        raise InputError(f"{folder} has no run of {system!r} yet; the systems are {', '.join(grid.systems)}")
    options = {key: _placed(value, data) for key, value in runs[0].options.items()}
    if absent := [key for key in ("test_trials", "data_folder") if key not in options]:
        raise InputError(f"the study {grid.name} leaves it to its recipes to find {absent[0]}: name it in its options")
    root = Path(options.get("audio_root") or options["data_folder"])
    named = options["test_trials"] if isinstance(options["test_trials"], list) else [options["test_trials"]]
    lists = [_judged(folder, runs, path, _placed(grid.manifests, data)) for path in named]
    for one in lists:
        _picture(folder / f"errors-{system}-{one.stem}.jpg", one, root)
    path = folder / f"errors-{system}.md"
    with aside(path) as temporary:
        temporary.write_text("\n".join(_page(system, runs, lists)), encoding="utf-8")
    return path


def _placed(value: Any, data: str | None) -> Any:
    """An option with the folder of --data in the place of $data."""
    if isinstance(value, list):
        return [_placed(item, data) for item in value]
    return value.replace(DATA, data) if data and isinstance(value, str) else value


def _judged(folder: Path, runs: Sequence[Run], path: str, manifests: Sequence[str]) -> Judged:
    trials = read_trials(path)
    stem = Path(path).stem
    columns = _columns(manifests, trials.ids) if manifests else {}
    return Judged(stem, trials, columns, [kept.read_scores(folder, run)[stem] for run in runs])


def _columns(manifests: Sequence[str], ids: Sequence[str]) -> dict[str, list[str]]:
    """The columns of several manifests as of one: a list may name recordings of each."""
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
    lines += markdown(
        ["list", "by", "value", "targets", "non-targets", "EER", "note"],
        [row for one in lists for row in _broken_down(one)],
    )
    for one in lists:
        lines += ["", f"## Hardest pairs of {one.stem}", ""]
        lines += markdown(
            ["pair", "one", "other", "rank"],
            [
                [kind, one.trials.ids[one.trials.enroll[i]], one.trials.ids[one.trials.test[i]], f"{one.ranks[i]:.3f}"]
                for kind, chosen in hardest(one).items()
                for i in chosen
            ],
        )
        lines += ["", f"![their spectrograms](errors-{system}-{one.stem}.jpg)"]
    return [*lines, ""]


def _broken_down(one: Judged) -> list[list[str]]:
    """Rows of a list: what all its seeds make of each condition."""
    by = [name for name in BY if len(set(one.columns.get(name, []))) > 1]
    parts = conditions.split(one.trials, by, one.columns)
    everything: list[conditions.Condition] = [("all", "", np.ones(len(one.trials.enroll), bool))]
    each = [conditions.evaluate_each(one.trials, scores, [*everything, *parts]) for scores in one.scores]
    rows = []
    for found in zip(*each):
        eer = "" if found[0]["eer"] is None else f"{100 * np.mean([row['eer'] for row in found]):.2f}"
        rows.append(
            [
                one.stem,
                *(str(found[0][key]) for key in ("by", "value", "n_target", "n_nontarget")),
                eer,
                found[0]["note"],
            ]
        )
    return rows


def hardest(one: Judged) -> dict[str, list[int]]:
    """{kind: trials}: targets of the lowest ranks, non-targets of the highest."""
    order = one.ranks.argsort(kind="stable")
    labels = np.asarray(one.trials.labels)
    return {
        "same speaker, low score": order[labels[order]][:HARDEST].tolist(),
        "different speakers, high score": order[~labels[order]][::-1][:HARDEST].tolist(),
    }


def _picture(path: Path, one: Judged, root: Path) -> None:
    """The two spectrograms of each of the hardest pairs beside each other."""
    pairs = [(kind, i) for kind, chosen in hardest(one).items() for i in chosen]
    figure = Figure(figsize=(7, 1.5 * len(pairs)), layout="constrained")
    axes = figure.subplots(len(pairs), 2, squeeze=False, sharex=True, sharey=True)
    for row, (kind, i) in zip(axes, pairs):
        for panel, side in zip(row, (one.trials.enroll, one.trials.test)):
            name = one.trials.ids[side[i]]
            wave = audio.read(root / name)[: round(SHOWN * RATE)]
            panel.specgram(wave / wave.std(), NFFT=400, Fs=RATE, noverlap=80, cmap="magma", vmin=-100, vmax=-25)
            panel.set_title(f"{kind}: {name[-40:]}", fontsize=6, loc="left")
            panel.set(xlim=(0, SHOWN), ylim=(0, HIGHEST))
            panel.tick_params(labelsize=6)
    with aside(path) as temporary:
        figure.savefig(temporary, dpi=72, pil_kwargs={"quality": 60})
