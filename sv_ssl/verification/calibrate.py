"""Scores of one system or several, and side information on the trials, to log-likelihood ratios. numpy alone.

A calibration is an affine map of K columns, llr = weights . columns + offset, fitted by prior-weighted logistic
regression to T target and N non-target trials: it minimises

    p / T sum over targets of softplus(-llr - logit p)  +  (1 - p) / N sum over non-targets of softplus(llr + logit p)

where p is the prior that the ratios are to be best at; at p = 0.5 this is Cllr. Several columns are a fusion. A ridge
of 1e-9 on the weights of standardised columns keeps them finite where the columns part targets from non-targets without
error; elsewhere it changes nothing that can be seen.
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
from sv_ssl.core.files import aside
from sv_ssl.verification.metrics import check, cllr
from sv_ssl.verification.trials import Trials

FORMAT = "sv_ssl calibration 1"
RIDGE = 1e-9
STEPS = 200  # of Newton's method; some ten are usual
LONGEST = 20.0  # seconds beyond which more speech tells no more


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
        """The map and its training, in one line."""
        terms = " ".join(f"{weight:+.5g} {name}" for weight, name in zip(self.weights, self.columns))
        names = ", ".join(name for name, _ in self.lists)
        trained = f"{self.n_target:,} target and {self.n_nontarget:,} non-target trials{' of ' * bool(names)}{names}"
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
    """(N,) or (N, K) finite numbers, (N,) of 0 or 1 -> Calibration; `lists` are the files that the trials came from.

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
    solution, held = _newton(standard, target, prior)
    weights = solution[:-1] / spread
    fitted = Calibration(
        tuple(weights.tolist()),
        float(solution[-1] - weights @ mean),
        float(prior),
        tuple(names),
        tuple(zip(values.min(0).tolist(), values.max(0).tolist())),
        int(target.sum()),
        int((~target).sum()),
        cllr(values[:, 0], target),
        0.0,
        tuple((trials.name, trials.sha1) for trials in lists),
        tuple(_notes(held, [name for name, same in zip(names, flat) if same])),
    )
    return fitted._replace(cllr_after=cllr(apply(fitted, values), target))


def apply(calibration: Calibration, columns: ArrayLike) -> np.ndarray:
    """Calibration, (N,) or (N, K) columns in its order -> (N,) float64 natural-log likelihood ratios."""
    return _finite(columns, calibration.columns) @ np.array(calibration.weights) + calibration.offset


def threshold(p_target: float, c_miss: float = 1, c_fa: float = 1) -> float:
    """Share of target trials in use, the costs of both errors -> the log-likelihood ratio from which to accept.

    >>> round(threshold(0.01), 3), threshold(0.5)
    (4.595, 0.0)
    """
    if not (0 < p_target < 1 and 0 < c_miss < math.inf and 0 < c_fa < math.inf):
        raise InputError(f"p_target must lie between 0 and 1 and costs above 0, not {p_target:g}, {c_miss:g}, {c_fa:g}")
    return math.log(c_fa) - math.log(c_miss) - _logit(p_target)


def _logit(p: float) -> float:
    return math.log(p) - math.log1p(-p)


def _finite(columns: ArrayLike, names: Sequence[str]) -> np.ndarray:
    """(N,) or (N, K), K names -> (N, K) float64."""
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
    """(N, K) -> (K,) means, standard deviations, and whether a column is constant but for rounding."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, spread = values.mean(0), values.std(0)
    if not np.isfinite(spread).all():
        raise InputError(f"{names[np.isfinite(spread).argmin()]} has values too large to calibrate (above 1e150)")
    flat = spread <= 1e-12 * np.abs(values).max(0)
    return mean, np.where(flat, 1.0, spread), flat


def _notes(held: bool, constant: list[str]) -> Iterator[str]:
    if held:
        what = "the columns part targets from non-targets (almost) without error"
        yield f"{what}: only a tiny ridge keeps the weights finite, the ratios are too sure; take more or harder trials"
    if constant:
        yield f"constant in training, so of weight 0: {', '.join(constant)}"


def _newton(columns: np.ndarray, target: np.ndarray, prior: float) -> tuple[np.ndarray, bool]:
    """(K, N) standardised columns, the last all 1, (N,) -> (K,) the optimum, whether only the ridge keeps it finite."""
    sign = np.where(target, 1.0, -1.0)
    signed, start = columns * sign, sign * _logit(prior)
    mass = np.where(target, prior / target.sum(), (1 - prior) / (~target).sum()) / min(prior, 1 - prior)
    ridge = np.append(np.full(len(columns) - 1, RIDGE), 0.0)

    def at(point: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        margin = start + point @ signed
        tail = np.exp(-np.abs(margin))
        return margin, tail, float(mass @ (np.log1p(tail) - np.minimum(margin, 0.0)) + ridge @ point**2 / 2)

    point = np.zeros(len(columns))
    margin, tail, value = at(point)
    for _ in range(STEPS):
        wrong = np.where(margin > 0, tail, 1.0) / (1.0 + tail)  # the probability that is left to the other kind
        slope = ridge * point - signed @ (mass * wrong)
        bend = (columns * (mass * tail / (1.0 + tail) ** 2)) @ columns.T + np.diag(ridge)
        step = -np.linalg.solve(bend, slope)
        drop = -float(slope @ step)
        if drop <= 1e-12 * value:  # what one more step leaves is the square of this
            break
        scale = 1.0
        while (new := at(point + scale * step))[2] > value - 1e-4 * scale * drop:
            scale /= 2
        point = point + scale * step
        margin, tail, value = new
    free = np.linalg.solve(bend, ridge * point)  # how far the weights would still go without the ridge
    return point + step, bool(np.abs(free).max() > 1e-3 * np.abs(point).max())


# --- on disk --------------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike, calibration: Calibration) -> None:
    """Write a JSON that `read` gives back bit for bit."""
    fields = calibration._asdict()
    document = {"format": FORMAT, **fields, "digest": _digest(fields)}
    with aside(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read(path: str | os.PathLike) -> Calibration:
    """Path of a JSON of `write` -> Calibration; one that was changed since, by hand or by accident, is refused."""
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


# --- several systems ------------------------------------------------------------------------------------------------


def join(systems: Sequence[Trials], reference: Trials | None = None) -> np.ndarray:
    """K score files of the same N trials in any order -> (N, K) scores in the order of `reference`, or of the first.

    >>> x, y = np.array([0, 1]), np.array([1, 2])
    >>> a = Trials("a.txt", "", "", ["i", "j", "k"], x, y, labels=None, scores=np.array([0.1, 0.2]))
    >>> b = Trials("b.txt", "", "", ["i", "j", "k"], x[::-1], y[::-1], labels=None, scores=np.array([5.0, 6.0]))
    >>> join([a, b]).tolist()
    [[0.1, 6.0], [0.2, 5.0]]
    """
    reference = systems[0] if reference is None else reference
    number: dict[str, int] = {}
    wanted = _pairs(reference, number)
    return np.stack([_aligned(system, _pairs(system, number), reference, wanted) for system in systems], axis=1)


def _pairs(trials: Trials, number: dict[str, int]) -> np.ndarray:
    """N trials -> (N,) int64, one for each pair of ids; `number` numbers the ids of all files."""
    codes = np.array([number.setdefault(i, len(number)) for i in trials.ids], np.int64)
    return codes[trials.enroll] << 32 | codes[trials.test]


def _aligned(system: Trials, pairs: np.ndarray, reference: Trials, wanted: np.ndarray) -> np.ndarray:
    """M trials and (M,) pairs, N trials and (N,) pairs -> (N,) scores."""
    if system.scores is None:
        raise InputError(f"{system.name} has no scores: wanted lines such as `enroll test 0.73`")
    order = np.argsort(pairs, kind="stable")
    ordered = pairs[order]
    first = np.append(True, ordered[1:] != ordered[:-1])
    twice = np.append(False, ~first[1:] & (system.scores[order][1:] != system.scores[order][:-1]))
    _refuse(system, order[twice], f"of {system.name} are listed again with another score")
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    _refuse(reference, np.flatnonzero(ordered[at] != wanted), f"of {reference.name} are missing from {system.name}")
    first[at] = False
    _refuse(system, order[first], f"of {system.name} are missing from {reference.name}")
    if system.labels is not None and reference.labels is not None:
        other = np.flatnonzero(system.labels[order[at]] != reference.labels)
        _refuse(reference, other, f"of {reference.name} have the other label in {system.name}")
    return system.scores[order[at]]


def _refuse(trials: Trials, bad: np.ndarray, what: str) -> None:
    """Trials and the positions of bad ones among them: InputError if there are any."""
    if len(bad):
        pair = f"{trials.ids[trials.enroll[bad.min()]]} {trials.ids[trials.test[bad.min()]]}"
        raise InputError(f"{len(bad):,} of {len(trials.enroll):,} trials {what}, the first: {pair}")


# --- side information -----------------------------------------------------------------------------------------------


def quality_columns(trials: Trials, qualities: Mapping[str, ArrayLike]) -> tuple[np.ndarray, list[str]]:
    """N trials over U utterances, M qualities of (U,) -> (N, 2 M): least and greatest of both sides; 2 M names.

    >>> trials = Trials("list", "", "", ["a", "b", "c"], np.array([0, 1]), np.array([1, 2]), None, None)
    >>> quality_columns(trials, {"duration": [2.0, 1.0, 3.0]})
    (array([[1., 2.],
           [1., 3.]]), ['min duration', 'max duration'])
    """
    columns, names = [], []
    for name, quality in qualities.items():
        values = np.asarray(quality, np.float64)
        if values.shape != (len(trials.ids),):
            raise InputError(f"{name}: {values.shape} values for {len(trials.ids):,} utterances of {trials.name}")
        if not np.isfinite(values).all():
            bad = int(np.isfinite(values).argmin())
            raise InputError(f"the {name} of {trials.ids[bad]} is {values[bad]}, wanted a finite number")
        sides = values[trials.enroll], values[trials.test]
        columns += [np.minimum(*sides), np.maximum(*sides)]
        names += [f"min {name}", f"max {name}"]
    return np.reshape(columns, (len(columns), len(trials.enroll))).T, names


def log_durations(seconds: ArrayLike) -> np.ndarray:
    """(U,) seconds -> (U,) their natural logarithms, those above 20 s as 20 s.

    >>> np.exp(log_durations([5, 40])).round(6).tolist()
    [5.0, 20.0]
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # `quality_columns` names who has no length
        return np.log(np.minimum(seconds, LONGEST))
