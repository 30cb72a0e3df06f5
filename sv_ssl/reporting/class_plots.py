"""Pictures of classes (confusion, distances, a map) and of systems (figures with their intervals)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError
from sv_ssl.reporting.plots import COLORS, INK, PALE, PAPER, SHAPES, Destination, canvas, finish, save, text

NAMED = 40  # classes whose names still fit beside a matrix, or on a map


def confusion_matrix(path: Destination, names: Sequence, counts: np.ndarray) -> None:
    """Draw which classes the clips of each were taken for, in per cent: C names, (C, C) counts, a row a true class."""
    n, total = len(names), int(np.sum(counts))
    if not total or np.shape(counts) != (n, n):
        raise InputError(f"a confusion matrix of {n} classes needs {n} x {n} counts of clips, got {np.shape(counts)}")
    shares = 100 * counts / np.maximum(np.sum(counts, axis=1, keepdims=True), 1)
    figure, axes = canvas(5.2)
    _matrix(axes, shares, names, "Blues", 0, 100)
    for i, j in np.argwhere(shares >= 0.5) if n <= 24 else ():
        axes.text(
            j,
            i,
            f"{shares[i, j]:.0f}",
            ha="center",
            va="center",
            fontsize=min(9, 90 / n),
            color=PAPER if shares[i, j] > 55 else INK,
        )
    axes.plot([], [], " ", label=f"accuracy {100 * np.trace(counts) / total:.2f} % of {total:,} clips")
    finish(axes, "Confusion: per cent of each true class", "predicted class", "true class")
    save(figure, path)


def class_distances(path: Destination, names: Sequence, mean: np.ndarray, cv: np.ndarray) -> None:
    """Draw mean and coefficient of variation of 1 - cosine for every two classes: C names, (C, C), (C, C)."""
    figure = Figure(figsize=(4.8, 9.4), layout="constrained")
    upper, lower = figure.subplots(2)
    for axes, values, title, colours in (
        (upper, mean, "Distance, 1 \N{MINUS SIGN} cosine: mean", "viridis"),
        (lower, cv, "Its standard deviation / mean", "magma"),
    ):
        shown = values[np.isfinite(values)]
        _matrix(axes, values, names, colours, *((shown.min(), shown.max()) if shown.size else (0, 1)))
        axes.set_title(title, loc="left", fontsize=12, color=INK, pad=10)
    save(figure, path)


def embedding_map(
    path: Destination, points: np.ndarray, labels: ArrayLike, title: str, x: str = "", y: str = ""
) -> None:
    """Draw a point for each row; colour and shape tell the classes, of which up to 40 are named: (N, 2), (N,)."""
    names, code = np.unique(np.asarray(labels), return_inverse=True)
    named = len(names) <= NAMED
    figure, axes = canvas(4.6 + 0.19 * (math.ceil(len(names) / 3) if named else 1))
    size = float(np.clip(12000 / len(points), 5, 30))
    for c, name in enumerate(names):
        color, shape = COLORS[c % len(COLORS)], ("o" + SHAPES)[c // len(COLORS) % 9]
        across, up = points[code == c].T
        axes.scatter(across, up, s=size, color=color, marker=shape, alpha=0.6, linewidths=0)
        if named:
            axes.plot([], [], linestyle="", marker=shape, markersize=5, color=color, label=text(str(name)))
    if not named:
        axes.plot([], [], " ", label="too many classes to name")
    axes.set(xticks=[], yticks=[])
    finish(axes, f"{title}: {len(points):,} of {len(names):,} classes", x, y, columns=3)
    save(figure, path)


def intervals(
    path: Destination,
    names: Sequence[str],
    points: Mapping[str, Mapping[str, tuple]],
    title: str,
    x: str,
    limits: tuple[float, float],
) -> None:
    """Draw a line for each name, on it a dot with its interval for each kind: {kind: {name: (value, low, high)}}."""
    figure, axes = canvas(1.4 + 0.24 * len(names))
    for k, (kind, of_names) in enumerate(points.items()):
        at = [names.index(name) + 0.22 * (k - (len(points) - 1) / 2) for name in of_names]
        values, low, high = np.clip(np.array(list(of_names.values())).T, *limits)
        axes.hlines(at, low, high, color=COLORS[k], linewidth=1.5, alpha=0.5)
        axes.plot(values, at, linestyle="", marker="o", markersize=4, color=COLORS[k], label=text(kind))
    axes.set_yticks(range(len(names)), [text(name) for name in names])
    axes.set(xlim=limits, ylim=(len(names) - 0.4, -0.6))
    axes.grid(axis="x", color=PALE, zorder=0)
    finish(axes, title, x, "", columns=len(points))
    save(figure, path)


def _matrix(axes: Axes, values: np.ndarray, names: Sequence, colours: str, low: float, high: float) -> None:
    """Draw a square of colours with a scale, and with the classes' names where they fit; no number is grey."""
    scale = matplotlib.colormaps[colours].with_extremes(bad=PALE)
    image = axes.imshow(np.ma.masked_invalid(values), cmap=scale, vmin=low, vmax=high, interpolation="nearest")
    shown = range(len(names)) if len(names) <= NAMED else ()
    texts, size = [text(str(names[i]), 20) for i in shown], min(9, 200 / max(len(names), 1))
    axes.set_xticks(shown, texts, rotation=90, fontsize=size)
    axes.set_yticks(shown, texts, fontsize=size)
    axes.tick_params(colors=INK, length=0)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.7)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(colors=INK, length=0, labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
