"""Score recordings by several crops of each."""

from __future__ import annotations

import numpy as np

from sv_ssl.embeddings.extraction import Extracted
from sv_ssl.embeddings.store import unit
from sv_ssl.verification import scoring
from sv_ssl.verification.trials import Trials


def crop_scores(extracted: Extracted, trials: Trials) -> np.ndarray:
    """Return for each of T trials the mean of the cosines of all pairs of its two sides' crops: (T,)."""
    ids, rows, *_ = extracted
    means = unit(rows.reshape(-1, rows.shape[2])).reshape(rows.shape).mean(axis=1)
    cosines = scoring.cosine((ids, means), trials)
    length = dict(zip(ids, np.linalg.norm(means, axis=1).tolist()))
    lengths = np.array([length[i] for i in trials.ids], np.float32)
    return cosines * lengths[trials.enroll] * lengths[trials.test]
