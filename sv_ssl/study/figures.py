"""The pictures of a study: how systems learn, where their crops lie, DET curves; of labelled clips, accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sv_ssl.core.files import atomic_write
from sv_ssl.reporting import class_plots, plots
from sv_ssl.study import compare, run_files
from sv_ssl.study.grid import Grid, Run
from sv_ssl.study.grid_file import JUDGES
from sv_ssl.study.run_files import Result

PICTURES = {
    "learning.png": "Validation EER against crops seen and minutes",
    "sphere.png": "Alignment and uniformity, epoch after epoch",
    "det.png": "DET curves",
}


def draw(folder: Path, grid: Grid, results: Mapping[Run, Result]) -> None:
    """Write the pictures of speakers of the systems that are to be drawn, each with its first seed."""
    firsts: dict[str, Run] = {}
    for run in results:
        if run.system in (grid.drawn or list(grid.systems)[:6]):
            firsts.setdefault(run.system, run)
    curves = {name: results[run]["curve"] for name, run in firsts.items()}
    if not curves:
        return
    panels = [("crops", "crops seen"), ("minutes", "minutes of training")]
    with _figure(folder / "learning.png", len(panels)) as axes:
        for panel, (key, title) in zip(axes, panels):
            _lines(
                panel,
                {name: (curve[key], curve["eer"]) for name, curve in curves.items()},
                title,
                "validation EER",
                percent=True,
            )
    with _figure(folder / "sphere.png", 1) as axes:
        paths = {name: (curve["uniformity"], curve["alignment"]) for name, curve in curves.items()}
        _lines(axes[0], paths, "uniformity of training crops: less is more even", "alignment: less is tighter")
    _det(folder, grid, firsts)


def _det(folder: Path, grid: Grid, firsts: dict[str, Run]) -> None:
    """Draw all trials of the first group's lists together, with one threshold."""
    lists = run_files.read_lists(folder, firsts.values())
    stems = next(iter(grid.lists.values()), sorted(lists))
    labels = np.concatenate([lists[stem].labels for stem in stems])
    scores = {name: run_files.read_scores(folder, run) for name, run in firsts.items()}
    systems = {name: (np.concatenate([of[stem] for stem in stems]), labels) for name, of in scores.items()}
    plots.det_curve(folder / "det.png", systems)


def accuracies(path: Path, grid: Grid, by_name: Mapping[str, Sequence[Result]]) -> None:
    """Write the picture of clips: the accuracies of the systems that are to be drawn (all, if none are named)."""
    names = [name for name in by_name if name in (grid.drawn or by_name)]
    points: dict[str, dict[str, tuple]] = {}
    for judge in JUDGES:
        judged = [name for name in names if all(judge in result["right"] for result in by_name[name])]
        if judged:
            percent = {name: 100 * np.array(compare.accuracy(by_name[name], judge)) for name in judged}
            points[judge] = {name: tuple(values) for name, values in percent.items()}
    class_plots.intervals(path, names, points, grid.title or grid.name, "accuracy, %", (0, 100))


class _figure:
    """A figure of some panels beside each other, written when the block ends."""

    def __init__(self, path: Path, panels: int):
        self.path, self.figure = path, Figure(figsize=(1 + 4 * panels, 4.4), layout="constrained")
        self.axes = self.figure.subplots(1, panels, squeeze=False)[0]

    def __enter__(self) -> list[Axes]:
        return list(self.axes)

    def __exit__(self, kind: type | None, *_: Any) -> None:
        if kind is None:
            handles, names = self.axes[0].get_legend_handles_labels()
            self.figure.legend(handles, names, loc="outside lower left", frameon=False, ncols=3, fontsize=9)
            with matplotlib.rc_context({"svg.hashsalt": "sv_ssl"}), atomic_write(self.path) as temporary:
                self.figure.savefig(temporary, dpi=120)


def _lines(axes: Axes, curves: Mapping[str, tuple], x: str, y: str, percent: bool = False) -> None:
    """Draw {name: (x values, y values)}, an epoch each; None where nothing was measured."""
    for (name, (across, up)), color in zip(curves.items(), cycle(plots.COLORS)):
        points = [(a, 100 * b if percent else b) for a, b in zip(across, up) if a is not None and b is not None]
        if points:
            axes.plot(*zip(*points), color=color, marker="o", markersize=4, linewidth=1.6, label=name)
    axes.set_xlabel(x, color=plots.INK)
    axes.set_ylabel(f"{y} %" if percent else y, color=plots.INK)
    axes.tick_params(colors=plots.INK, length=0, labelsize=9)
    axes.grid(color=plots.PALE, linewidth=0.8, zorder=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
