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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError, is_number, number_fault
from sv_ssl.core.files import atomic_write, check_ordinary
from sv_ssl.verification import learnt_trials
from sv_ssl.verification.error_curve import Point, check, point_name
from sv_ssl.verification.logistic_regression import Cost, logit, optimum
from sv_ssl.verification.metrics import cllr
from sv_ssl.verification.trials import Trials

FORMAT = "sv_ssl calibration 1.1"
BEFORE = "sv_ssl calibration 1"  # without `trials`; still read
LARGEST = 1 << 20  # bytes of a file


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
    trials: str = ""  # a sample of the training trials; "" where they are not known

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
    order = np.lexsort([target, *values.T])  # sums depend on it, so it shall not be that of the lines
    values, target = values[order], target[order]
    if not (is_number(prior) and 0 < prior < 1):
        raise InputError(f"the prior must lie between 0 and 1, not {prior}")
    mean, spread, flat = _scale(values, names)
    standard = np.vstack([((values - mean) / spread).T * ~flat[:, None], np.ones(len(values))])
    solution, separable = optimum(Cost(standard, target, prior))
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
        notes=(
            *_notes(separable, [name for name, same in zip(names, flat) if same]),
            *(f"learnt from {trials.name}, of which: {note}" for trials in lists for note in trials.notes),
        ),
        trials=learnt_trials.sample(lists[0]) if lists else "",
    )


def apply(calibration: Calibration, columns: ArrayLike) -> np.ndarray:
    """Return natural-log likelihood ratios: (N,) or (N, K) columns in the calibration's order -> (N,) float64."""
    values = _finite(columns, calibration.columns)
    with np.errstate(over="ignore", invalid="ignore"):
        ratios = values @ np.array(calibration.weights) + calibration.offset
    if not np.isfinite(ratios).all():
        trial = int(np.isfinite(ratios).argmin())
        raise InputError(f"the log-likelihood ratio of trial {trial + 1} is no finite number: calibrate anew")
    return ratios


def doubts(calibration: Calibration, trials: Trials | None = None) -> list[str]:
    """Return what a user of the ratios should know: of the training, and whether it was on trials that are measured."""
    notes = list(calibration.notes)
    if len(calibration.weights) == 1 and calibration.weights[0] < 0:
        notes.append(
            "the ratio falls as the score rises: was the calibration learnt from distances, or swapped labels?"
        )
    if trials is None:
        return notes
    same = trials.sha1 in {sha1 for _, sha1 in calibration.lists}
    share = 1.0 if same else learnt_trials.share(calibration.trials, trials)
    if share:
        which = "these very trials" if share == 1 else f"about {max(share, 0.001):.1%} of these trials"
        better = "so the numbers look better than they are: measure on others"
        notes.append(f"the calibration was learnt from {which}, {better}")
    return notes


def threshold(p_target: float, c_miss: float = 1, c_fa: float = 1) -> float:
    """Return the log-likelihood ratio from which to accept, for a share of targets in use and the costs of both errors.

    >>> round(threshold(0.01), 3), threshold(0.5)
    (4.595, 0.0)
    """
    if not (0 < p_target < 1 and 0 < c_miss < math.inf and 0 < c_fa < math.inf):
        raise InputError(f"p_target must lie between 0 and 1 and costs above 0, not {p_target:g}, {c_miss:g}, {c_fa:g}")
    return math.log(c_fa) - math.log(c_miss) - logit(p_target)


def out_of_reach(ratios: np.ndarray, points: Sequence[Point]) -> list[str]:
    """Return a note on each operating point whose threshold none of (N,) ratios reaches, or every one."""
    notes = []
    for point in points:
        least, name = threshold(*point), point_name(point)
        if least > ratios.max():
            notes.append(f"no score reaches the Bayes threshold {least:.4g} of p_target {name}: all trials are refused")
        elif least <= ratios.min():
            notes.append(f"all scores reach the Bayes threshold {least:.4g} of p_target {name}: none is refused")
    return notes


def cosine_threshold(calibration: Calibration, p_target: float) -> tuple[float, list[str]]:
    """Return the cosine from which a calibration that rises with it accepts, and a note if that is beyond all cosines.

    >>> calibration = fit([0, 0, 0, 1, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1])
    >>> round(cosine_threshold(calibration, 0.5)[0], 4), cosine_threshold(calibration, 0.01)[1]
    (0.5, ['at p_target 0.01 the threshold is a cosine of 2.591, which none can reach: all is refused'])
    """
    (weight,) = calibration.weights
    cosine = (threshold(p_target) - calibration.offset) / weight
    what = "none can reach: all is refused" if cosine > 1 else "all exceed: all is accepted"
    note = f"at p_target {p_target:g} the threshold is a cosine of {cosine:.4g}, which {what}"
    return cosine, [note] if abs(cosine) > 1 else []


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


# --- on disk --------------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike, calibration: Calibration) -> None:
    """Write a JSON that `read` gives back bit for bit."""
    fields = calibration._asdict()
    document = {"format": FORMAT, **fields, "digest": _digest(fields)}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read(path: str | os.PathLike) -> Calibration:
    """Read a JSON of `write`; refuse one that was changed since, by hand or by accident."""
    check_ordinary(path)
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1)
        document = json.loads(text.decode() if len(text) <= LARGEST else "")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        fault = error if len(text) <= LARGEST else f"it has more than {LARGEST:,} bytes"
        raise InputError(f"{path}: wanted a calibration, as JSON: {fault}") from None
    version = document.pop("format", None) if isinstance(document, dict) else None
    if version not in (FORMAT, BEFORE):
        raise InputError(f'{path} is not a calibration of this version: wanted a JSON with "format": "{FORMAT}"')
    if not _is_as_written(document, [name for name in Calibration._fields if name != "trials" or version == FORMAT]):
        raise InputError(f"{path} was changed after it was written (its digest does not fit): calibrate anew")
    calibration = Calibration(**{name: _tuples(value) for name, value in document.items()})
    if fault := _fault(calibration):
        raise InputError(f"{path} was not written by sv-score: {fault}: calibrate anew")
    return calibration


def _is_as_written(document: dict, names: Sequence[str]) -> bool:
    """Return whether a document has these fields, and the digest of them, which is taken out."""
    digest = document.pop("digest", None)
    try:
        return set(document) == set(names) and digest == _digest(document)
    except RecursionError:
        return False


def _fault(calibration: Calibration) -> str:
    """Say what no calibration has, whatever its digest; "" if there is nothing."""
    k = len(calibration.columns) if isinstance(calibration.columns, tuple) else 0
    wanted = {
        "columns": lambda columns: k > 0 and _each(_is_line, columns),
        "weights": lambda weights: _each(is_number, weights, k),
        "ranges": lambda ranges: _each(lambda ends: _each(is_number, ends, 2) and ends[0] <= ends[1], ranges, k),
        "prior": lambda prior: is_number(prior) and 0 < prior < 1,
        **dict.fromkeys(("offset", "cllr_before", "cllr_after"), is_number),
        **dict.fromkeys(("n_target", "n_nontarget"), lambda count: not number_fault(count, at_least=1, whole=True)),
        "lists": lambda lists: _each(lambda names: _each(lambda name: isinstance(name, str), names, 2), lists),
        "notes": lambda notes: _each(_is_line, notes),
        "trials": lambda trials: isinstance(trials, str) and learnt_trials.is_sample(trials),
    }
    odd = [name for name, fits in wanted.items() if not fits(getattr(calibration, name))]
    return f"its {odd[0]} are not such as it writes" if odd else ""


def _each(fits: Callable[[Any], bool], values: Any, count: int | None = None) -> bool:
    """Return whether a value is a list of things that fit, and of so many."""
    return isinstance(values, tuple) and all(map(fits, values)) and count in (None, len(values))


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and not any(ord(character) < 32 for character in value)


def _digest(fields: Mapping) -> str:
    return hashlib.sha1(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
