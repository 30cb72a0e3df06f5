"""Embeddings: read, write, score by cosine, evaluate. numpy alone, so that `sv-score` starts at once."""

from __future__ import annotations

import math
import os
from typing import Any, Sequence

import numpy as np

from sv_ssl.files import InputError, aside
from sv_ssl.metrics import POINTS, Point, bootstrap, evaluate, percentiles
from sv_ssl.trials import Trials, speakers

Embeddings = tuple[list[str], np.ndarray]  # N ids, (N, D) float32
BLOCK = 2048  # trials scored at once: their rows stay in the cache
SHOWN = 10  # missing ids named in one message


def read_embeddings(path: str | os.PathLike) -> Embeddings:
    """Path of an npz with `ids` (N,) and `embeddings` (N, D) -> N ids, (N, D) float32, rows finite and not zero."""
    wanted = "wanted an npz with text `ids` (N,) and numbers `embeddings` (N, D), as sv-extract writes it"
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, embeddings = file["ids"], file["embeddings"]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or wanted}") from None
    except Exception as error:  # a foreign or damaged file fails in any of a dozen ways
        raise InputError(f"{path}: {wanted}; {error}") from None
    if ids.dtype.kind == "S":
        ids = np.char.decode(ids, "utf-8", "replace")
    if ids.dtype.kind != "U" or embeddings.dtype.kind not in "fiu":
        raise InputError(f"{path}: {wanted}; `ids` are {ids.dtype} and `embeddings` {embeddings.dtype}")
    return _checked(ids.tolist(), embeddings, str(path))


def write_embeddings(path: str | os.PathLike, ids: Sequence[str], embeddings: np.ndarray) -> None:
    """N ids, (N, D) -> npz with `ids` and `embeddings` float32; what `read_embeddings` would refuse is refused here.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/embeddings.npz"
    >>> write_embeddings(path, ["a.wav", "b.wav"], np.eye(2))
    >>> read_embeddings(path)[0]
    ['a.wav', 'b.wav']
    """
    ids, embeddings = _checked(list(ids), np.asarray(embeddings), str(path))
    with aside(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, ids=np.array(ids, dtype=np.str_), embeddings=embeddings)


def _checked(ids: list[str], embeddings: np.ndarray, name: str) -> Embeddings:
    if embeddings.ndim != 2 or len(ids) != len(embeddings) or not embeddings.size:
        raise InputError(f"{name}: {len(ids)} ids and embeddings of shape {embeddings.shape}; wanted (N,) and (N, D)")
    with np.errstate(over="ignore"):  # what overflows is named below
        embeddings = np.ascontiguousarray(embeddings, np.float32)
    norms = _norms(embeddings)
    for faulty, what in ((~np.isfinite(norms), "holds NaN or infinity"), (norms == 0, "is zero: it has no direction")):
        if faulty.any():
            raise InputError(f"{name}: the embedding of {ids[faulty.argmax()]} {what} ({faulty.sum()} such rows)")
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise InputError(f"{name}: the id {twice} has more than one embedding; ids must be unique")
    return ids, embeddings


def _norms(embeddings: np.ndarray) -> np.ndarray:
    """(N, D) -> (N,) float64: squares of float32 neither overflow nor vanish there."""
    return np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64))


def _unit(rows: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D) of length one, whatever their scale: the largest number is made 1 before any square."""
    rows = rows / np.maximum(rows.max(1), -rows.min(1))[:, None]
    rows /= np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return rows


def cosine(embeddings: Embeddings, trials: Trials) -> np.ndarray:
    """N ids and (N, D), T trials -> (T,) float32 cosines; every utterance of the trials must have an embedding."""
    ids, rows = embeddings
    row = dict(zip(ids, range(len(ids))))
    missing = [i for i in trials.ids if i not in row]
    if missing:
        raise InputError(_missing(missing, ids, trials))
    used = _unit(rows[[row[i] for i in trials.ids]])
    scores = np.empty(len(trials.enroll), np.float32)
    for start in range(0, len(scores), BLOCK):
        block = slice(start, start + BLOCK)
        np.einsum("nd,nd->n", used[trials.enroll[block]], used[trials.test[block]], out=scores[block])
    return scores


def _missing(missing: list[str], ids: list[str], trials: Trials) -> str:
    codes = np.flatnonzero(np.isin(trials.ids, missing))
    lost = np.isin(trials.enroll, codes) | np.isin(trials.test, codes)
    nearest = max(ids, key=lambda i: len(os.path.commonprefix([i, missing[0]])) + _common_ending(i, missing[0]))
    shown = ", ".join(missing[:SHOWN]) + ", ..." * (len(missing) > SHOWN)
    return (
        f"{trials.name}: {len(missing):,} of {len(trials.ids):,} utterances ({lost.sum():,} of {len(lost):,} trials) "
        f"have no embedding: {shown}; ids must be equal, the nearest to {missing[0]} is {nearest}"
    )


def _common_ending(a: str, b: str) -> int:
    return len(os.path.commonprefix([a[::-1], b[::-1]]))


def crop_score(enroll: np.ndarray, test: np.ndarray) -> float:
    """(V, D), (W, D) embeddings of crops -> () mean of their V x W cosines.

    >>> crop_score(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0]]))
    0.5
    """
    # The mean of all pairwise products is the product of the means: V + W rows instead of V x W pairs.
    with np.errstate(invalid="ignore"):
        score = float(_unit(np.asarray(enroll)).mean(0) @ _unit(np.asarray(test)).mean(0))
    if math.isnan(score):
        raise InputError("the embedding of a crop is zero or not finite: it has no direction")
    return score


def report(trials: Trials, scores: np.ndarray, points: Sequence[Point] = POINTS, ci: bool = False) -> dict:
    """T trials, (T,) scores -> what a result must say, fit for JSON: list, counts, and where labelled all metrics.

    With `ci`, "ci" holds the 95 % intervals of the EER and the minDCFs by resampling speakers, or utterances where the
    ids do not tell the speakers. The text "inf" stands for infinity, which JSON has not.
    """
    facts: dict[str, Any] = {
        "list": trials.name,
        "sha1": trials.sha1,
        "known_as": trials.known_as(),
        "form": trials.form,
        "n_trials": len(scores),
        "n_utterances": len(trials.ids),
    }
    if trials.labels is not None:
        facts.update(_plain(evaluate(scores, trials.labels, points)))
        if ci:
            facts["ci"] = _intervals(trials, scores, trials.labels, points)
    return facts


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _intervals(trials: Trials, scores: np.ndarray, labels: np.ndarray, points: Sequence[Point]) -> dict:
    names = speakers(trials)
    cluster = np.unique(names or trials.ids, return_inverse=True)[1]
    values = bootstrap(scores, labels, cluster[trials.enroll], cluster[trials.test], points, n=1000, seed=0)
    ends = {name: list(percentiles(value)) for name, value in values.items()}
    about = {"resampled": "speakers" if names else "utterances", "clusters": int(cluster.max()) + 1}
    return {"eer": ends.pop("eer"), "min_dcf": ends, **about, "n": 1000, "seed": 0}
