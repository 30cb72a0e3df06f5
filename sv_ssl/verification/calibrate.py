"""Scores of one system or several, and side information on the trials, to log-likelihood ratios.

A calibration is an affine map of K columns, llr = weights . columns + offset, fitted by prior-weighted logistic
regression to T target and N non-target trials: it minimises

    p / T sum over targets of softplus(-llr - logit p)  +  (1 - p) / N sum over non-targets of softplus(llr + logit p)

where p is the prior that the ratios are to be best at; at p = 0.5 this is Cllr. Several columns are a fusion. A ridge
of 1e-9 on the weights of standardised columns keeps them finite where the columns part targets from non-targets without
error; elsewhere it changes nothing that can be seen.

Applying a calibration needs numpy alone; fitting one imports scipy. `score_columns.py` makes the columns.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.verification.error_curve import check
from sv_ssl.verification.metrics import cllr
from sv_ssl.verification.trials import Trials

FORMAT = "sv_ssl calibration 1"
RIDGE = 1e-9
STEPS = 200  # of the minimisation; some ten are usual


class Calibration(NamedTuple):
    """An affine map of K columns to natural-log likelihood ratios, and the facts of its training."""

    weights: tuple[float, ...]  # K
    offset: float
    prior: float  # of a target trial, at which the map is best
    columns: tuple[str, ...]  # K names
    ranges: tuple[tuple[float, float], ...]  # K: least and greatest value of each column in training
    n_target: int
    n_nontarget: int
    cllr_before: float  # bits, of the first column as it was
    cllr_after: float  # bits, on the training trials themselves
    lists: tuple[tuple[str, str], ...]  # name and sha1 of each training file
    notes: tuple[str, ...]  # what a user should know of the training

    def summary(self) -> str:
        """Say in one line what the map is and what it was trained on."""
        terms = " ".join(f"{weight:+.5g} {name}" for weight, name in zip(self.weights, self.columns))
        names = ", ".join(name for name, _ in self.lists)
        trained = f"{self.n_target:,} target and {self.n_nontarget:,} non-target trials"
        if names:
            trained += f" of {names}"
        bits = f"Cllr there {self.cllr_before:.4f} -> {self.cllr_after:.4f} bits"
        return f"llr = {terms} {self.offset:+.5g}; trained on {trained}; {bits}"


# --- fitting and applying -------------------------------------------------------------------------------------------


def fit(
    columns: ArrayLike,
    labels: ArrayLike,
    prior: float = 0.5,
    names: Sequence[str] = ("score",),
    lists: Sequence[Trials] = (),
) -> Calibration:
    """Learn a calibration from labelled trials; `lists` are the files that they came from.

    (N,) or (N, K) finite numbers, (N,) of 0 or 1 -> Calibration

    >>> calibration = fit([0, 0, 0, 1, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1])
    >>> apply(calibration, [0, 1]).round(4).tolist()  # a score of 1 is three times likelier from a target: ln 3
    [-1.0986, 1.0986]
    """
    values = _finite(columns, names)
    target = check(values[:, 0], labels)[1]
    if not 0 < prior < 1:
        raise InputError(f"the prior must lie between 0 and 1, not {prior:g}")
    mean, spread, flat = _scale(values, names)
    standard = np.vstack([((values - mean) / spread).T * ~flat[:, None], np.ones(len(values))])
    solution, separable = _optimum(_Cost(standard, target, prior))
    weights = solution[:-1] / spread
    offset = float(solution[-1] - weights @ mean)
    return Calibration(
        weights=tuple(weights.tolist()),
        offset=offset,
        prior=float(prior),
        columns=tuple(names),
        ranges=tuple(zip(values.min(0).tolist(), values.max(0).tolist())),
        n_target=int(target.sum()),
        n_nontarget=int((~target).sum()),
        cllr_before=cllr(values[:, 0], target),
        cllr_after=cllr(values @ weights + offset, target),
        lists=tuple((trials.name, trials.sha1) for trials in lists),
        notes=tuple(_notes(separable, [name for name, same in zip(names, flat) if same])),
    )


def apply(calibration: Calibration, columns: ArrayLike) -> np.ndarray:
    """Return natural-log likelihood ratios: (N,) or (N, K) columns in the calibration's order -> (N,) float64."""
    return _finite(columns, calibration.columns) @ np.array(calibration.weights) + calibration.offset


def threshold(p_target: float, c_miss: float = 1, c_fa: float = 1) -> float:
    """Return the log-likelihood ratio from which to accept, for a share of targets in use and the costs of both errors.

    >>> round(threshold(0.01), 3), threshold(0.5)
    (4.595, 0.0)
    """
    if not (0 < p_target < 1 and 0 < c_miss < math.inf and 0 < c_fa < math.inf):
        raise InputError(f"p_target must lie between 0 and 1 and costs above 0, not {p_target:g}, {c_miss:g}, {c_fa:g}")
    return math.log(c_fa) - math.log(c_miss) - _logit(p_target)


def _logit(p: float) -> float:
    return math.log(p) - math.log1p(-p)


def _finite(columns: ArrayLike, names: Sequence[str]) -> np.ndarray:
    """Return the columns as finite numbers, one for each of K names: (N,) or (N, K) -> (N, K) float64."""
    try:
        values = np.asarray(columns, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"columns must be numbers, of one length: {error}") from None
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[1] != len(names) or not len(names):
        wanted = f"({len(values) if values.ndim else 'N'}, {len(names)})"
        raise InputError(f"the columns are {values.shape}, wanted {wanted}, a column each for: {', '.join(names)}")
    bad = ~np.isfinite(values)
    if bad.any():
        trial, k = np.argwhere(bad)[0]
        what = f"{names[k]} of trial {trial + 1} is {values[trial, k]}"
        raise InputError(f"{what}, wanted a finite number ({bad.sum():,} such in all)")
    return values


def _scale(values: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each column's mean and standard deviation, and whether it is constant but for rounding.

    (N, K) -> (K,), (K,), (K,) bool
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean, spread = values.mean(0), values.std(0)
    if not np.isfinite(spread).all():
        raise InputError(f"{names[np.isfinite(spread).argmin()]} has values too large to calibrate (above 1e150)")
    flat = spread <= 1e-12 * np.abs(values).max(0)
    return mean, np.where(flat, 1.0, spread), flat


def _notes(separable: bool, constant: list[str]) -> Iterator[str]:
    """Yield what a user should know of the training."""
    if separable:
        what = "the columns part targets from non-targets (almost) without error"
        yield f"{what}: only a tiny ridge keeps the weights finite, the ratios are too sure; take more or harder trials"
    if constant:
        yield f"constant in training, so of weight 0: {', '.join(constant)}"


class _Cost:
    """The cost of an affine map of K columns, the last of which is all 1, and its derivatives at a point of (K,)."""

    def __init__(self, columns: np.ndarray, target: np.ndarray, prior: float):
        sign = np.where(target, 1.0, -1.0)
        kinds = prior / target.sum(), (1 - prior) / (~target).sum()
        self.columns = columns  # (K, N)
        self.signed = columns * sign
        self.start = sign * _logit(prior)
        self.mass = np.where(target, *kinds) / min(prior, 1 - prior)  # of each trial
        self.ridge = np.append(np.full(len(columns) - 1, RIDGE), 0.0)

    def value(self, point: np.ndarray) -> float:
        margin = self.start + point @ self.signed
        softplus = np.log1p(np.exp(-np.abs(margin))) - np.minimum(margin, 0.0)
        return float(self.mass @ softplus + self.ridge @ point**2 / 2)

    def gradient(self, point: np.ndarray) -> np.ndarray:
        margin = self.start + point @ self.signed
        tail = np.exp(-np.abs(margin))
        wrong = np.where(margin > 0, tail, 1.0) / (1.0 + tail)  # the probability that is left to the other kind
        return self.ridge * point - self.signed @ (self.mass * wrong)

    def hessian(self, point: np.ndarray) -> np.ndarray:
        tail = np.exp(-np.abs(self.start + point @ self.signed))
        return (self.columns * (self.mass * tail / (1.0 + tail) ** 2)) @ self.columns.T + np.diag(self.ridge)


def _optimum(cost: _Cost) -> tuple[np.ndarray, bool]:
    """Return the point (K,) of the least cost, and whether only the ridge keeps it finite."""
    from scipy.optimize import minimize, root  # slow to import

    start, options = np.zeros(len(cost.columns)), {"gtol": 1e-13, "maxiter": STEPS}
    least = minimize(cost.value, start, method="trust-exact", jac=cost.gradient, hess=cost.hessian, options=options).x
    # Close to the optimum the cost does not change any more in its last digit, the gradient does: its root is exact.
    zero = root(cost.gradient, least, method="hybr", jac=cost.hessian, options={"xtol": 1e-15}).x
    point = min(least, zero, key=lambda at: float(np.abs(cost.gradient(at)).max()))
    free = np.linalg.solve(cost.hessian(point), cost.ridge * point)  # how far it would still go without the ridge
    return point, bool(np.abs(free).max() > 1e-3 * np.abs(point).max())


# --- on disk --------------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike, calibration: Calibration) -> None:
    """Write a JSON that `read` gives back bit for bit."""
    fields = calibration._asdict()
    document = {"format": FORMAT, **fields, "digest": _digest(fields)}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read(path: str | os.PathLike) -> Calibration:
    """Read a JSON of `write`; refuse one that was changed since, by hand or by accident."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: wanted a calibration, as JSON: {error}") from None
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise InputError(f'{path} is not a calibration of this version: wanted a JSON with "format": "{FORMAT}"')
    digest = document.pop("digest", None)
    if set(document) != set(Calibration._fields) or digest != _digest(document):
        raise InputError(f"{path} was changed after it was written (its digest does not fit): calibrate anew")
    return Calibration(*(_tuples(document[name]) for name in Calibration._fields))


def _digest(fields: Mapping) -> str:
    return hashlib.sha1(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
