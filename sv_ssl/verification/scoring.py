"""Score trials by the cosine of their embeddings, and report. numpy alone, so that `sv-score` starts at once."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import first_few
from sv_ssl.core.progress import watched
from sv_ssl.embeddings.store import Embeddings, rows_of, unit
from sv_ssl.verification.bootstrap import intervals
from sv_ssl.verification.error_curve import POINTS, Point
from sv_ssl.verification.metrics import evaluate
from sv_ssl.verification.trials import Trials, speakers

BLOCK = 512  # trials scored at once: their rows stay in the cache
NEAR = 1 - 1e-5  # the cosine of equal rows is 1 but for rounding
FEW = 300_000  # distinct scores; of more, float32 repeats some by chance


def cosine(embeddings: Embeddings, trials: Trials) -> np.ndarray:
    """Return the cosines of T trials, all of whose utterances must have an embedding: N ids, (N, D) -> (T,) float32."""
    ids, rows = embeddings
    if np.ndim(rows) != 2 or len(rows) != len(ids):
        raise InputError(f"{len(ids)} ids and embeddings of shape {np.shape(rows)}; wanted (N,) and (N, D)")
    sides = [side for side in (trials.enroll, trials.test) if len(side)]
    if not all(side.min() >= 0 and side.max() < len(trials.ids) for side in sides):
        raise InputError(f"{trials.name}: a trial names an id beyond the {len(trials.ids):,} that there are")
    row = dict(zip(ids, range(len(ids))))
    missing = [i for i in trials.ids if i not in row]
    if missing:
        raise InputError(_missing(missing, ids, trials))
    with np.errstate(invalid="ignore"):
        used = unit(rows[[row[i] for i in trials.ids]])
    scores = np.empty(len(trials.enroll), np.float32)
    pairs = np.empty((2, BLOCK, used.shape[1]), np.float32)
    for start in watched(range(0, len(scores), BLOCK), "scoring", " trials", BLOCK, few=2000):
        block = slice(start, start + BLOCK)
        pair = pairs[:, : len(scores[block])]
        for side, codes in zip(pair, (trials.enroll, trials.test)):
            np.take(used, codes[block], axis=0, out=side, mode="clip")  # clip: straight into place, no buffer
        np.einsum("nd,nd->n", *pair, out=scores[block])
    if np.isnan(scores).any():
        faulty = trials.ids[int(np.isnan(used).any(axis=1).argmax())]
        raise InputError(f"the embedding of {faulty} is zero or not finite: it has no direction")
    return scores


def same_recordings(embeddings: Embeddings, trials: Trials, scores: np.ndarray) -> list[str]:
    """Return a note if trials compare two ids that have one embedding: N ids, (N, D), (T,) cosines -> a line or none.

    Such ids are two names of one recording: its embedding does not depend on what it is embedded with.
    """
    near = np.flatnonzero((scores > NEAR) & (trials.enroll != trials.test))
    if not len(near):
        return []
    used, place = np.unique([trials.enroll[near], trials.test[near]], return_inverse=True)
    number: dict[bytes, int] = {}
    rows = rows_of(embeddings, [trials.ids[i] for i in used.tolist()])
    enroll, test = np.array([number.setdefault(row.tobytes(), len(number)) for row in rows])[place].reshape(2, -1)
    same = near[enroll == test]
    if not len(same):
        return []
    first = f"{trials.ids[trials.enroll[same[0]]]} {trials.ids[trials.test[same[0]]]}"
    what = "compare two ids of one embedding, so of one recording"
    return [f"{len(same):,} trials {what}, which says nothing of speakers: leave them out; the first: {first}"]


def leave_out(trials: Trials, ids: Sequence[str]) -> Trials:
    """Leave out the trials of which a side is not among `ids`; a note says how many."""
    known = set(ids)
    missing = [i for i in trials.ids if i not in known]
    if not missing:
        return trials
    embedded = np.array([i in known for i in trials.ids])
    kept = embedded[trials.enroll] & embedded[trials.test]
    if not kept.any():
        raise InputError(_missing(missing, list(ids), trials))
    count = f"{(~kept).sum():,} of {len(kept):,} trials, {len(missing):,} utterances have no embedding"
    return trials.select(kept, f"left out: {count}: {first_few(missing)}")


def _missing(missing: list[str], ids: list[str], trials: Trials) -> str:
    """Say how many utterances and trials have no embedding, and which id is nearest to the first of them."""
    gone = set(missing)
    lost = np.array([i in gone for i in trials.ids])
    lost = lost[trials.enroll] | lost[trials.test]
    nearest = max(ids, key=lambda i: len(os.path.commonprefix([i, missing[0]])) + _common_ending(i, missing[0]))
    return (
        f"{trials.name}: {len(missing):,} of {len(trials.ids):,} utterances ({lost.sum():,} of {len(lost):,} trials) "
        f"have no embedding: {first_few(missing)}; ids must be equal, the nearest to {missing[0]} is {nearest}; "
        "--allow-missing leaves such trials out"
    )


def _common_ending(a: str, b: str) -> int:
    return len(os.path.commonprefix([a[::-1], b[::-1]]))


def crop_score(enroll: np.ndarray, test: np.ndarray) -> float:
    """Return the mean of the V x W cosines of two recordings' crops: (V, D), (W, D) -> ().

    >>> crop_score(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0]]))
    0.5
    """
    # The mean of all pairwise products is the product of the means: V + W rows instead of V x W pairs.
    with np.errstate(invalid="ignore"):
        score = float(unit(np.asarray(enroll)).mean(0) @ unit(np.asarray(test)).mean(0))
    if math.isnan(score):
        raise InputError("the embedding of a crop is zero or not finite: it has no direction")
    return score


def report(trials: Trials, scores: np.ndarray, points: Sequence[Point] = POINTS, ci: bool = False) -> dict:
    """Return what a result says of T trials and (T,) scores: the list, counts, and where labelled all metrics.

    With `ci`, "ci" holds the 95 % intervals of the EER and the minDCFs by resampling speakers, or utterances where the
    ids do not tell the speakers. "notes" are those of the trials, and what `doubts` finds. All is fit for JSON: the
    text "inf" stands for infinity, which JSON does not have.
    """
    facts: dict[str, Any] = {
        "list": trials.name,
        "sha1": trials.sha1,
        "known_as": trials.known_as(),
        "form": trials.form,
        "n_trials": len(scores),
        "n_utterances": len(trials.ids),
        "notes": trials.notes,
    }
    if trials.labels is not None:
        facts.update(_plain(evaluate(scores, trials.labels, points)))
        if ci:
            facts["ci"] = _intervals(trials, scores, trials.labels, points)
        facts["notes"] = [*trials.notes, *doubts(facts)]
    return facts


def doubts(report: Mapping) -> list[str]:
    """Return what the numbers of a report themselves make suspicious."""
    lines = []
    if report.get("ci", {}).get("resampled") == "utterances":
        lines.append("the ids do not tell the speakers, so the intervals are too narrow")
    if report["eer"] > 0.55:
        lines.append("targets score lower than non-targets: are the scores distances, or the labels swapped?")
    if report["tied"] > 0.01 and (1 - report["tied"]) * report["n_trials"] < FEW:
        lines.append(f"{report['tied']:.1%} of the scores are repeated ones: were they rounded?")
    return lines


def _plain(value: Any) -> Any:
    """Replace infinite numbers by text, at any depth."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _intervals(trials: Trials, scores: np.ndarray, labels: np.ndarray, points: Sequence[Point]) -> dict:
    sides, about = clusters(trials)
    return {**intervals(scores, labels, *sides, points), **about}


def clusters(trials: Trials) -> tuple[tuple[np.ndarray, np.ndarray], dict]:
    """Return what is resampled: the speakers of both sides, or utterances where ids do not tell them; in words.

    T trials -> ((T,), (T,)) codes, {"resampled": "speakers" or "utterances", "clusters": how many}
    """
    names = speakers(trials)
    cluster = np.unique(names or trials.ids, return_inverse=True)[1]
    about = {"resampled": "speakers" if names else "utterances", "clusters": int(cluster.max()) + 1}
    return (cluster[trials.enroll], cluster[trials.test]), about
