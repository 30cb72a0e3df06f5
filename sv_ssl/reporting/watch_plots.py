"""A picture of a run: the figures of its epochs, and the limits beyond which they tell a collapse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sv_ssl.core.errors import InputError
from sv_ssl.reporting.plots import COLORS, GREY, INK, PALE, PAPER, Destination, save, text

WARNING, LINES = COLORS[1], (COLORS[0], COLORS[2], COLORS[3])
COLUMNS = 2


class Panel(NamedTuple):
    """What is drawn together: figures of an epoch's record, and how a value is written."""

    title: str
    lines: Mapping[str, str]  # figure -> its name in the legend
    written: str = "{:.2f}"
    percent: bool = False
    top: float | None = None  # of the axis, which then begins at 0
    best: bool = False  # mark the lowest


PANELS = (
    Panel("Loss", {"loss": "loss", "kl": "less target entropy (kl)"}, "{:.3f}"),
    Panel("Validation EER", {"eer": "EER"}, "{:.2f} %", percent=True, best=True),
    Panel("Spread of unit embeddings", {"spread": "spread"}, top=1.0),
    Panel("Rank: directions in use", {"rank": "rank"}, "{:.1f}", top=0.0),
    Panel("Lack of variance", {"variance_lack": "variance_lack"}, top=1.0),
    Panel("Prototypes in use, of possible", {"usage_share": "usage"}, "{:.0f} %", percent=True, top=100.0),
    Panel("Target entropy, of log K", {"entropy_share": "entropy"}, "{:.0f} %", percent=True, top=100.0),
    Panel(
        "Sampled positives",
        {"coverage": "coverage", "same_speaker": "right", "same_recording": "same recording"},
        "{:.0f} %",
        percent=True,
        top=100.0,
    ),
    Panel("Age of sampled positives, in steps", {"age": "age"}, "{:.0f}", top=0.0),
    Panel("Recordings with a cluster", {"clustered": "clustered"}, "{:.0f} %", percent=True, top=100.0),
    Panel("NMI of clusters", {"speaker_nmi": "with speakers", "recording_nmi": "with recordings"}, top=1.0),
)


def watched(
    path: Destination,
    records: Sequence[Mapping],
    limits: Mapping[str, tuple[float, float]],
    title: str,
) -> None:
    """Draw the figures of a run by epoch, a panel for each kind that it has.

    `records` are the lines of train_log.jsonl; `limits` are {figure: (lowest, highest)} that tell no collapse.
    """
    if not records:
        raise InputError("a picture of a run needs an epoch at least")
    panels = [panel for panel in PANELS if any(np.isfinite(_values(records, name)).any() for name in panel.lines)]
    rows = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS, 0.7 + 2.1 * rows), layout="constrained")
    figure.suptitle(text(title, 60), x=0.01, ha="left", fontsize=12, color=INK)
    grid = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True).ravel()
    for axes, panel in zip(grid, panels):
        _panel(axes, panel, records, limits)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[max(0, len(panels) - COLUMNS) : len(panels)]:
        axes.set_xlabel("epoch", color=INK)
        axes.tick_params(labelbottom=True)
    warning = {"color": WARNING, "linestyle": (0, (4, 3)), "marker": "o", "markersize": 5, "markeredgecolor": PAPER}
    grid[0].plot([], [], linewidth=1.2, label="limit of a warning, and epochs beyond it", **warning)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(  # of all panels; a panel's lines are named within it
        handles[-1:], labels[-1:], loc="outside lower left", frameon=False, fontsize=9, labelcolor=INK
    )
    save(figure, path)


def _panel(axes: Axes, panel: Panel, records: Sequence[Mapping], limits: Mapping[str, tuple[float, float]]) -> None:
    epochs = np.array([record["epoch"] for record in records])
    scale = 100.0 if panel.percent else 1.0
    last: list[tuple[str, str]] = []  # names of lines and their last values
    for color, (name, label) in zip(LINES, panel.lines.items()):
        values = scale * _values(records, name)
        known = np.isfinite(values)
        if not known.any():
            continue
        last.append((label, panel.written.format(values[known][-1])))
        axes.plot(epochs[known], values[known], color=color, linewidth=1.8, marker="o", markersize=3, label=label)
        _limit(axes, epochs, values, [scale * limit for limit in limits.get(name, ())])
        if panel.best:
            least = int(np.nanargmin(values))
            axes.plot(epochs[least], values[least], "o", color=color, markersize=8, markeredgecolor=PAPER, zorder=4)
            last[-1] = label, f"{last[-1][1]}, lowest {panel.written.format(values[least])}"
    _dress(axes, panel, last)


def _limit(axes: Axes, epochs: np.ndarray, values: np.ndarray, limits: Sequence[float]) -> None:
    """Draw where a figure begins to warn, and the epochs in which it did."""
    for limit in limits:
        if math.isfinite(limit):
            axes.axhline(limit, color=WARNING, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    if limits:
        low, high = limits
        beyond = (values < low) | (values > high)
        axes.plot(epochs[beyond], values[beyond], "o", color=WARNING, markersize=5, markeredgecolor=PAPER, zorder=5)


def _dress(axes: Axes, panel: Panel, last: Sequence[tuple[str, str]]) -> None:
    """Add the title with the last value, or a legend with the last values where there are several lines."""
    title = f"{panel.title}: {last[0][1]}" if len(last) == 1 else panel.title
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    if len(last) > 1:
        shown = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        legend = axes.legend(
            shown,
            [": ".join(pair) for pair in last],
            loc="best",
            fontsize=8,
            labelcolor=INK,
            frameon=True,
            edgecolor="none",
        )
        legend.get_frame().set_alpha(0.75)
    if panel.top is not None:
        axes.set_ylim(0, 1.05 * max(panel.top, axes.get_ylim()[1] / 1.05))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if panel.percent:
        axes.yaxis.set_major_formatter("{x:g} %")
    axes.grid(axis="y", color=PALE, linewidth=0.8, zorder=0)
    axes.tick_params(colors=INK, length=0, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)


def _values(records: Sequence[Mapping], name: str) -> np.ndarray:
    """Return a figure of each epoch, not a number where the epoch has none: (E,)."""
    return np.array([record.get(name, math.nan) for record in records], dtype=float)
