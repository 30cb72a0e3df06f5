"""Pictures of scores and labels: DET curve, score histogram, calibration (Bayes error rate).

A file's ending chooses the format (png, svg, pdf); the same scores give the same bytes. An open text buffer in place of
a path gets SVG for a page to embed, in which letters are text and not shapes.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.special import ndtri

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.verification.error_curve import (
    POINTS,
    Curve,
    Point,
    check,
    crossing,
    hull,
    normalised_cost,
    operating_points,
    point_name,
)

Destination = str | os.PathLike | io.StringIO
Systems = Mapping[str, tuple[ArrayLike, ArrayLike]]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # told apart by colour-blind readers too
INK, GREY, PALE, PAPER = "#333333", "#8A8A8A", "#E4E4E4", "#FFFFFF"
TICKS = np.array([0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.98])
SHAPES, SIZES = "sDv^<>P*", (9, 6.5, 5.5, 5.5, 5, 5, 5, 5)  # of operating points: the later ones lie on top
DASHES = ((4, 3), (1, 2), (7, 2, 1, 2), (10, 3))
FEWEST = 30  # errors that a rate needs to stand on: Doddington's rule of 30
FINE = 0.004  # finest step of a curve in probit units: half a pixel
FAR = 1e100  # scores beyond it are drawn as infinite ones
PRIORS = np.linspace(-8, 8, 321)  # log-odds
HIGHEST = 2.0  # cost that the calibration picture still shows


def det_curve(path: Destination, systems: Systems, points: Sequence[Point] = POINTS) -> None:
    """Draw DET curves on probit axes, with the EER and each minDCF marked: {name: ((N,) scores, (N,) labels)}."""
    curves = _curves("a DET curve", systems)
    rates = {name: crossing(*curve.rates())[0] for name, curve in curves.items()}
    best = [[_best(curve, point) for curve in curves.values()] for point in points]
    figure, axes = canvas(4.5 + 0.19 * (len(curves) + len(points)))
    reached = [rate for row in best for point in row for rate in point[1:] if rate < 1]
    high = min(TICKS[max(0.4, *reached, *(rate + 0.1 for rate in rates.values())) <= TICKS], default=TICKS[-1])
    low = min(_det_line(axes, curve, color, high) for curve, color in zip(curves.values(), cycle(COLORS)))
    axes.plot([-9, 9], [-9, 9], color=GREY, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
    _probit_axes(axes, TICKS[max(low, 2e-4) > TICKS].max(), high)
    for (name, rate), color in zip(rates.items(), cycle(COLORS)):
        _marker(axes, _probit([rate, rate]), color, "o", 7)
        axes.plot(
            [],
            [],
            color=color,
            linewidth=2.2,
            marker="o",
            markersize=7,
            markeredgecolor=PAPER,
            label=f"{text(name)}: EER {100 * rate:.2f} %",
        )
    for point, row, shape, size in zip(points, best, cycle(SHAPES), cycle(SIZES)):
        for (_, p_fa, p_miss), color in zip(row, cycle(COLORS)):
            _marker(axes, _probit([p_fa, p_miss]), color, shape, size)
        _shape_label(axes, f"minDCF({point_name(point)})", [cost for cost, *_ in row], shape, size)
    axes.plot([], [], color=GREY, linewidth=1, label=f"thin: fewer than {FEWEST} errors left")
    finish(axes, "Detection error trade-off", "false alarms: non-targets accepted", "misses: targets refused")
    save(figure, path)


def _best(curve: Curve, point: Point) -> tuple[float, float, float]:
    """Return the least cost, and P_fa and P_miss there."""
    p_miss, p_fa = curve.rates()
    cost = normalised_cost(p_miss, p_fa, point)
    k = int(cost.argmin())
    return float(cost[k]), float(p_fa[k]), float(p_miss[k])


def _curves(what: str, systems: Systems) -> dict[str, Curve]:
    """Return the curve of each system; `what` is to be drawn, for the message if there is none."""
    if not systems:
        raise InputError(f"{what} needs at least one system: {{name: (scores, labels)}}")
    return {name: operating_points(*system) for name, system in systems.items()}


def _det_line(axes: Axes, curve: Curve, color: str, high: float) -> float:
    """Draw one system; return the lowest rate of its curve inside axes that end at `high`."""
    p_miss, p_fa = curve.rates()
    sure = np.minimum(curve.misses, curve.false_alarms) >= FEWEST
    x, y = _probit(p_fa), _probit(p_miss)
    moved = np.diff(np.round(np.stack([x, y]) / FINE), axis=1).any(axis=0)
    kept = np.append(True, moved) | np.append(moved, True)  # both ends of each step, so that steps stay square
    axes.plot(x[kept], y[kept], color=color, linewidth=1, alpha=0.45, zorder=2)
    axes.plot(np.where(sure, x, np.nan)[kept], np.where(sure, y, np.nan)[kept], color=color, linewidth=2.2, zorder=3)
    lowest = np.minimum(p_miss, p_fa)
    return float(lowest[(lowest > 0) & (np.maximum(p_miss, p_fa) <= high)].min(initial=high / 2))


def _probit(rate: ArrayLike) -> np.ndarray:
    """Return where rates lie on the axes: (K,) -> (K,)."""
    return ndtri(np.clip(rate, 1e-9, 1 - 1e-9))  # a rate of 0 or 1 lies far outside the axes, not at infinity


def _probit_axes(axes: Axes, low: float, high: float) -> None:
    """Set both axes from `low` to `high`, with the ticks that have room for their labels."""
    ends = _probit([low, high])
    ticks = [high]
    for tick in TICKS[(low <= TICKS) & (high > TICKS)][::-1]:
        if _probit(ticks[-1]) - _probit(tick) > 0.11 * (ends[1] - ends[0]):  # room for the label
            ticks.append(tick)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(_probit(ticks), [f"{100 * tick:g} %" for tick in ticks])
    axes.set(xlim=ends, ylim=ends, aspect="equal", anchor="NW")
    axes.grid(color=PALE, linewidth=0.8, zorder=0)


def _marker(axes: Axes, at: np.ndarray, color: str, shape: str, size: float) -> None:
    """Draw a marker at (2,) x and y; on the edge if they lie outside."""
    x, y = np.clip(at[0], *axes.get_xlim()), np.clip(at[1], *axes.get_ylim())
    axes.plot([x], [y], color=color, clip_on=False, zorder=5, **_shape(shape, size))


def _shape_label(axes: Axes, name: str, values: list[float], shape: str, size: float) -> None:
    """Add the legend's line for an operating point: its value for each system."""
    label = f"{name} {', '.join(f'{value:.3f}' for value in values)}"
    axes.plot([], [], color=GREY, label=label, **_shape(shape, size))


def _shape(shape: str, size: float) -> dict:
    """Return how a marker without a line is drawn."""
    return {"linestyle": "", "marker": shape, "markersize": size, "markeredgecolor": PAPER}


def score_histogram(
    path: Destination, scores: ArrayLike, labels: ArrayLike, threshold: float | Mapping[str, float]
) -> None:
    """Draw the densities of target and non-target scores, and what each threshold costs: (N,) scores, (N,) labels.

    `threshold` is one number, or {name: number}.
    """
    scores, target = check(scores, labels)
    scores = scores.astype(np.float64)  # a threshold between two neighbours of float32 is none of them
    edges = _edges(scores, int(np.clip(3 * np.cbrt(min(target.sum(), (~target).sum())), 16, 80)))
    thresholds = threshold if isinstance(threshold, Mapping) else {"threshold": threshold}
    figure, axes = canvas(3.2 + 0.19 * len(thresholds))
    for kind, name, color in (
        (~target, "non-target: different speakers", COLORS[0]),
        (target, "target: same speaker", COLORS[1]),
    ):
        density = np.histogram(np.clip(scores[kind], edges[0], edges[-1]), edges, density=True)[0]
        axes.stairs(density, edges, fill=True, color=color, alpha=0.35, zorder=2)
        axes.stairs(density, edges, color=color, linewidth=1.4, zorder=3)
        axes.plot([], [], color=color, linewidth=6, alpha=0.7, label=f"{name} ({kind.sum():,})")
    axes.set(xlim=(edges[0], edges[-1]), yticks=[])
    for i, (name, value) in enumerate(thresholds.items()):
        miss, false_alarm = np.mean(scores[target] < value), np.mean(scores[~target] >= value)
        cost = f"{100 * miss:.2f} % missed, {100 * false_alarm:.2f} % false alarms"
        axes.plot(
            [value] * 2,
            [0, 1],
            transform=axes.get_xaxis_transform(),
            color=INK,
            linewidth=1.3,
            zorder=4,
            linestyle=(0, DASHES[i % len(DASHES)]),
            label=f"{text(name)} at {value:.3g}: {cost}",
        )
    axes.set_ylim(bottom=0)
    finish(axes, "Scores of the trials", "score", "density")
    save(figure, path)


def _edges(scores: np.ndarray, bins: int) -> np.ndarray:
    """Return the edges of bins over the scores that can be drawn, however close or equal: (N,) -> (bins + 1,)."""
    drawn = scores[np.abs(scores) < FAR]
    if not drawn.size:
        raise InputError("a histogram needs finite scores")
    low, high = drawn.min(), drawn.max()
    if high - low <= 1e-9 * max(abs(low), abs(high), 1 / FAR):
        low, high = np.array([low, high]) + np.array([-0.5, 0.5]) * max(1.0, 1e-6 * abs(high))
    return np.linspace(low, high, bins + 1)


def calibration(path: Destination, systems: Systems, points: Sequence[Point] = POINTS) -> None:
    """Draw the normalised Bayes error rate over the prior: {name: ((N,) natural-log likelihood ratios, (N,) labels)}.

    At each prior the decision cost with the Bayes threshold, beside the least cost that any threshold would have had;
    1 is the cost of deciding without the scores. The priors of `points` are marked.
    """
    curves = _curves("a calibration picture", systems)
    costs = [bayes_costs(curve, PRIORS) for curve in curves.values()]
    worst = [float(actual.max()) for actual, _ in costs]
    figure, axes = canvas(3.7 + 0.19 * (len(curves) + len(points)))
    axes.set(xlim=PRIORS[[0, -1]], ylim=(0, min(1.08 * max(1, *worst), HIGHEST)))
    for name, (actual, least), color, most in zip(curves, costs, cycle(COLORS), worst):
        beyond = f" (up to {most:.3g})" if most > HIGHEST else ""
        axes.plot(PRIORS, actual, color=color, linewidth=2, zorder=4, label=f"{text(name)}: actual cost{beyond}")
        axes.plot(PRIORS, least, color=color, linewidth=1.4, linestyle=(0, DASHES[0]), zorder=3)
    axes.plot([], [], color=GREY, linewidth=1.4, linestyle=(0, DASHES[0]), label="least cost, at the best threshold")
    axes.axhline(1, color=INK, linewidth=1, linestyle=(0, DASHES[1]), label="cost without the scores", zorder=2)
    for point, shape, size in zip(points, cycle(SHAPES), cycle(SIZES)):
        log_odds = math.log(normalised_cost(1.0, 0.0, point) / normalised_cost(0.0, 1.0, point))
        reached = [float(bayes_costs(curve, np.array([log_odds]))[0][0]) for curve in curves.values()]
        for cost, color in zip(reached, cycle(COLORS)):
            _marker(axes, np.array([log_odds, cost]), color, shape, size)
        _shape_label(axes, f"actDCF({point_name(point)})", reached, shape, size)
    axes.set_xticks([*range(-8, 9, 2)], [_odds(tick) for tick in range(-8, 9, 2)])
    axes.grid(color=PALE, linewidth=0.8, zorder=0)
    finish(axes, "Calibration", "prior log-odds of a target, and as a share", "normalised cost")
    save(figure, path)


def _odds(log_odds: int) -> str:
    """Return a tick's label: log-odds, and below every second one the share that they are."""
    rarer = float(f"{100 / (1 + math.exp(abs(log_odds))):.2g}")
    share = f"\n{100 - rarer if log_odds > 0 else rarer:g} %"
    return f"{log_odds}".replace("-", "\N{MINUS SIGN}") + (share if log_odds % 4 == 0 else "")


def bayes_costs(curve: Curve, log_odds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the normalised costs at the Bayes thresholds -log_odds, and the least costs: (P,) log-odds -> (P,), (P,).

    >>> curve = operating_points([-2.0, 3.0, 2.0, 4.0], [0, 0, 1, 1])
    >>> bayes_costs(curve, np.array([0.0, 5.0]))
    (array([0.5, 1. ]), array([0.5, 0.5]))
    """
    miss, false_alarm = np.exp(np.maximum(log_odds, 0)), np.exp(np.maximum(-log_odds, 0))  # weights; the lesser is 1
    p_miss, p_fa = curve.rates()
    at = np.searchsorted(curve.threshold, -log_odds)  # scores below the threshold are refused, at it accepted
    corners = hull(curve).rates()  # the least cost is at one of them, whatever the weights
    least = (miss[:, None] * corners[0] + false_alarm[:, None] * corners[1]).min(axis=1)
    return miss * p_miss[at] + false_alarm * p_fa[at], least


def canvas(height: float) -> tuple[Figure, Axes]:
    """Return an empty picture, narrow, so that letters can be read on a telephone."""
    figure = Figure(figsize=(4.8, height), layout="constrained")
    return figure, figure.add_subplot()


def text(name: str, longest: int = 36) -> str:
    """Return a name as matplotlib is to write it: no formula, shown in the legend, on one line, not too long."""
    name = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    if len(name) > longest:
        name = f"{name[: longest // 2 - 1]} ... {name[4 - longest // 2 :]}"
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def finish(axes: Axes, title: str, x: str, y: str, columns: int = 1) -> None:
    """Add the title, the names of the axes and the legend, in the colours and sizes that all pictures have."""
    axes.set_title(title, loc="left", fontsize=12, color=INK, pad=10)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK, length=0, pad=6, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    axes.figure.legend(loc="outside lower left", frameon=False, fontsize=9, labelcolor=INK, ncols=columns)


def save(figure: Figure, path: Destination) -> None:
    """Write a picture to a file, by its ending, or as SVG to an open text buffer."""
    fonts = "none" if isinstance(path, io.StringIO) else "path"
    with matplotlib.rc_context({"svg.hashsalt": "sv_ssl", "svg.fonttype": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name may have letters that the font lacks
        if isinstance(path, io.StringIO):
            figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
            return
        ending = Path(path).suffix.lower()
        if ending not in (".png", ".svg", ".pdf"):
            raise InputError(f"cannot draw {path}: its ending must be .png, .svg or .pdf")
        dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # left out
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=160, metadata=dates.get(ending))
