"""Figures from scores and labels: DET curve, score histogram. The file's ending chooses the format (png, svg, pdf)."""

from __future__ import annotations

import os
from typing import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.special import ndtri

from sv_ssl.files import InputError, aside
from sv_ssl.metrics import check, eer, operating_points

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # told apart by colour-blind readers too
INK, GREY, PALE = "#333333", "#8A8A8A", "#E4E4E4"
TICKS = np.array([0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.98])
FEWEST = 30  # errors that a rate needs to stand on: Doddington's rule of 30
FINE = 0.002  # finest step of a curve in probit units: less than a pixel


def det_curve(path: str | os.PathLike, systems: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """{name: ((N,) scores, (N,) labels)} -> file: DET curves on probit axes, each with its EER marked."""
    if not systems:
        raise InputError("a DET curve needs at least one system: {name: (scores, labels)}")
    figure = Figure(figsize=(6.4, 7), layout="constrained")
    axes = figure.add_subplot()
    high = 0.4 if all(eer(*system)[0] < 0.3 for system in systems.values()) else 0.9
    low = min(_det_line(axes, *named, COLORS[i % len(COLORS)], high) for i, named in enumerate(systems.items()))
    axes.plot([-9, 9], [-9, 9], color=GREY, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
    axes.plot([], [], color=GREY, linewidth=1, label=f"thin: fewer than {FEWEST} errors left")
    _probit_axes(axes, TICKS[TICKS < max(low, 2e-4)].max(), high)
    _finish(axes, "Detection error trade-off", "false alarms: non-targets accepted", "misses: targets refused")
    figure.legend(loc="outside lower center", ncols=1 if len(systems) < 3 else 2, frameon=False, fontsize=9)
    _save(figure, path)


def _det_line(axes: Axes, name: str, system: tuple[np.ndarray, np.ndarray], color: str, high: float) -> float:
    """Draw one system -> the lowest rate of its curve inside axes that end at `high`."""
    curve, rate = operating_points(*system), eer(*system)[0]
    p_miss, p_fa = curve.rates()
    sure = np.minimum(curve.misses, curve.false_alarms) >= FEWEST
    x, y = _probit(p_fa), _probit(p_miss)
    kept = np.sort(np.unique(np.round(np.stack([x, y]) / FINE), axis=1, return_index=True)[1])
    axes.plot(x[kept], y[kept], color=color, linewidth=1, alpha=0.45, zorder=2)
    axes.plot(np.where(sure, x, np.nan)[kept], np.where(sure, y, np.nan)[kept], color=color, linewidth=2.2, zorder=3)
    axes.plot(*[_probit([rate])] * 2, marker="o", markersize=8, color=color, markeredgecolor="white",
              markeredgewidth=1.5, zorder=4, label=f"{name}: EER {100 * rate:.2f} %")  # fmt: skip
    return float(np.minimum(p_miss, p_fa)[np.maximum(p_miss, p_fa) <= high].min(initial=high / 2))


def _probit(rate: ArrayLike) -> np.ndarray:
    return ndtri(np.clip(rate, 1e-9, 1 - 1e-9))  # a rate of 0 or 1 lies far outside the axes, not at infinity


def _probit_axes(axes: Axes, low: float, high: float) -> None:
    ends = _probit([low, high])
    ticks = [high]
    for tick in TICKS[(TICKS >= low) & (TICKS < high)][::-1]:
        if _probit(ticks[-1]) - _probit(tick) > 0.07 * (ends[1] - ends[0]):  # room for the label
            ticks.append(tick)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(_probit(ticks), [f"{100 * tick:g} %" for tick in ticks])
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    axes.grid(color=PALE, linewidth=0.8, zorder=0)


def score_histogram(path: str | os.PathLike, scores: np.ndarray, labels: np.ndarray, threshold: float) -> None:
    """(N,) scores, (N,) labels -> file: densities of target and non-target scores, and what the threshold costs."""
    scores, target = check(scores, labels)
    finite = scores[np.isfinite(scores)]
    if not finite.size:
        raise InputError("a histogram needs finite scores")
    bins = int(np.clip(3 * np.cbrt(min(target.sum(), (~target).sum())), 16, 80))
    edges = np.histogram_bin_edges(finite, bins)
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for kind, name, color in ((~target, "non-target: different speakers", COLORS[0]),
                              (target, "target: same speaker", COLORS[1])):  # fmt: skip
        density = np.histogram(np.clip(scores[kind], edges[0], edges[-1]), edges, density=True)[0]
        axes.stairs(density, edges, fill=True, color=color, alpha=0.35, zorder=2)
        axes.stairs(density, edges, color=color, linewidth=1.6, zorder=3)
        axes.plot([], [], color=color, linewidth=6, alpha=0.7, label=f"{name} ({kind.sum():,})")
    miss, false_alarm = np.mean(scores[target] < threshold), np.mean(scores[~target] >= threshold)
    cost = f"{100 * miss:.2f} % missed, {100 * false_alarm:.2f} % false alarms"
    axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=4,
                 label=f"threshold {threshold:.3g}: {cost}")  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    _finish(axes, "Scores of the trials", "score", "density")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    _save(figure, path)


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=13, color=INK, pad=10)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK, length=0, pad=6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)


def _save(figure: Figure, path: str | os.PathLike) -> None:
    with aside(path) as temporary:
        figure.savefig(temporary, dpi=160)
