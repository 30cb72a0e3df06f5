"""Frozen embeddings judged by small classifiers: a linear probe and nearest neighbours, with intervals.

Training, validation and test are three sets: what is chosen is chosen on the validation part, and the test part is for
`report` alone. A part is a pair: (N, D) embeddings and (N,) labels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream
from sv_ssl.verification.bootstrap import percentiles

Part = tuple[np.ndarray, np.ndarray]
STRENGTHS = tuple(10.0**power for power in range(-5, 4))  # C: small is strong regularisation
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
Z = 1.959964  # of a normal distribution, for 95 %


class Probe(NamedTuple):
    """A fitted classifier."""

    classifier: Any  # with `predict`
    chosen: float  # its setting that is best on the validation part
    valid_accuracy: float  # there

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return the labels of embeddings: (N, D) -> (N,)."""
        return self.classifier.predict(rows)


def linear(train: Part, valid: Part, strengths: Sequence[float] = STRENGTHS) -> Probe:
    """Fit a logistic regression to embeddings standardised by the training part; `chosen` is its C.

    >>> part = np.array([[-1.0, 0], [-2, 1], [1, 0], [2, 1]]), np.array(["a", "a", "b", "b"])
    >>> linear(part, part).predict(np.array([[-3.0, 0.0]])).tolist()
    ['a']
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    candidates = ((c, make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))) for c in strengths)
    return _best(candidates, train, valid)


def knn(train: Part, valid: Part, neighbours: Sequence[int] = NEIGHBOURS) -> Probe:
    """Fit a vote of the nearest training rows by cosine; `chosen` is their number."""
    from sklearn.neighbors import KNeighborsClassifier

    fitting = [k for k in neighbours if k <= len(train[0])]
    return _best(((k, KNeighborsClassifier(k, metric="cosine")) for k in fitting), train, valid)


def _best(candidates: Iterable[tuple[float, Any]], train: Part, valid: Part) -> Probe:
    """Fit all candidates; return the one that is best on the validation part, the first of equals."""
    for name, (rows, labels) in (("training", train), ("validation", valid)):
        if len(rows) != len(labels) or not len(rows):
            raise InputError(
                f"the {name} part has {len(rows)} embeddings and {len(labels)} labels: want some, as many of either"
            )
    if len(np.unique(train[1])) < 2:
        raise InputError(f'all {len(train[1])} training labels are "{train[1][0]}": want two classes at least')
    best: Probe | None = None
    for chosen, classifier in candidates:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "lbfgs failed to converge")  # weak regularisation: stopped early
            classifier.fit(*train)
        accuracy = float(np.mean(classifier.predict(valid[0]) == valid[1]))
        if best is None or accuracy > best.valid_accuracy:
            best = Probe(classifier, chosen, accuracy)
    assert best
    return best


def report(
    predicted: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None, n: int = 1000, seed: int = 0
) -> dict:
    """Return the accuracy with its 95 % interval, and the mean of the classes' accuracies ("balanced").

    (N,) predictions, (N,) labels -> dict

    With `groups` (N,), such as speakers, whole groups are drawn with replacement: clips of one group are kept or
    dropped together. Without, the interval is Wilson's, which takes every clip for independent of the others.

    >>> report(["a", "b", "b"], ["a", "b", "a"])
    {'accuracy': 0.6666666666666666, 'ci': [0.2076596, 0.93850806], 'balanced': 0.75, 'n': 3, 'resampled': None}
    """
    labels = np.asarray(labels)
    correct = np.asarray(predicted) == labels
    if not correct.ndim or not len(correct):
        raise InputError(f"{np.size(predicted)} predictions for {labels.size} labels: want as many, above 0")
    ends = wilson(int(correct.sum()), len(correct)) if groups is None else by_group(correct, groups, n, seed)
    classes = [float(correct[labels == name].mean()) for name in np.unique(labels)]
    return {
        "accuracy": float(correct.mean()),
        "ci": [round(end, 8) for end in ends],
        "balanced": float(np.mean(classes)),
        "n": len(correct),
        "resampled": None if groups is None else len(np.unique(groups)),
    }


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share.

    >>> [round(end, 3) for end in wilson(0, 10)]
    [0.0, 0.278]
    """
    share, more = successes / n, Z * Z / n
    half = Z * math.sqrt(share * (1 - share) / n + more / (4 * n))
    return max(0.0, (share + more / 2 - half) / (1 + more)), min(1.0, (share + more / 2 + half) / (1 + more))


def by_group(correct: np.ndarray, groups: ArrayLike, n: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the share that is right, by resampling groups: (N,) bool, (N,) -> (), ()."""
    names, code = np.unique(np.asarray(groups), return_inverse=True)
    if len(code) != len(correct):
        raise InputError(f"{len(code)} groups for {len(correct)} predictions: want as many")
    if len(names) < 2:
        raise InputError(f'all {len(code)} clips are of the group "{names[0]}": an interval wants two at least')
    right, size = np.bincount(code, correct), np.bincount(code)
    rng = stream(seed, "bootstrap of groups")
    copies = np.stack([np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names)) for _ in range(n)])
    return percentiles(copies @ right / (copies @ size))


def across(values: ArrayLike, *codes: ArrayLike) -> tuple[float, float, float]:
    """Return the mean of values and its 95 % interval over what they are grouped by: (N,), codes of (N,) each.

    Of hits, the mean is an accuracy; of the differences of two systems' hits, a paired comparison. Each array of codes
    groups the values by what may vary, such as the seed and the speaker of a clip: the interval is over other seeds and
    other speakers, and values of one group are not independent. Student's half-widths, one for each array, are added as
    squares, so few seeds that differ make it wide. An array with one group adds nothing: the interval then says nothing
    of what was not repeated.

    >>> [round(number, 3) for number in across([0.80, 0.82, 0.84], [0, 1, 2])]  # 3 seeds
    [0.82, 0.77, 0.87]
    >>> [round(number, 3) for number in across([0.0, 0.0, 1.0, 1.0], [5, 5, 5, 5], ["a", "b", "c", "d"])]  # 4 clips
    [0.5, -0.419, 1.419]
    >>> [round(number, 3) for number in across([0.0, 0.0, 1.0, 1.0], [5, 5, 5, 5], ["a", "a", "b", "b"])]  # of two
    [0.5, -5.853, 6.853]
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise InputError(f"values of the shape {numbers.shape}: want one at least, in a row")
    from scipy.stats import t  # slow to import

    mean, halves = float(numbers.mean()), []
    for code in codes:
        names, of = np.unique(np.asarray(code), return_inverse=True)
        if len(of) != len(numbers):
            raise InputError(f"{len(of)} groups for {len(numbers)} values: want as many")
        if (n := len(names)) > 1:
            sums = np.bincount(of, numbers - mean)  # what each group has above the mean
            halves.append(t.ppf(0.975, n - 1) * math.sqrt(n / (n - 1) * (sums @ sums)) / len(numbers))
    half = math.hypot(*halves)
    return mean, mean - half, mean + half


def confusion(labels: ArrayLike, predicted: ArrayLike) -> tuple[list, np.ndarray]:
    """Count the clips of each true class (rows) by the class predicted for them (columns).

    (N,) labels, (N,) predictions -> C classes, sorted; (C, C)

    >>> confusion(["b", "a", "b"], ["b", "b", "b"])
    (['a', 'b'], array([[0, 1],
           [0, 2]]))
    """
    names, code = np.unique(np.concatenate([np.asarray(labels), np.asarray(predicted)]), return_inverse=True)
    true, guessed = code[: len(code) // 2], code[len(code) // 2 :]
    counts = np.bincount(true * len(names) + guessed, minlength=len(names) ** 2)
    return names.tolist(), counts.reshape(len(names), len(names))
