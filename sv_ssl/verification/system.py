"""What scores trial lists: embeddings, perhaps models of several utterances, perhaps normalised by a cohort."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import store as embeddings
from sv_ssl.embeddings.store import Embeddings
from sv_ssl.verification import calibrate, conditions, enroll, normalise, scoring
from sv_ssl.verification.trials import Trials

QUALITIES = ("duration", "magnitude", "cohort")  # side information on an utterance that a calibration may use


class Cohort(NamedTuple):
    """What scores are normalised by."""

    embeddings: Embeddings
    method: str = "as"  # z, t, s or as
    top_n: int = 300  # of AS-norm
    speakers: Mapping[str, str] | None = None  # of the cohort's utterances
    means: bool = False  # one mean a speaker instead of the utterances


class System(NamedTuple):
    """Where embeddings come from, and how two of them make a score."""

    source: Callable[[Sequence[str]], Embeddings]  # embeddings of these ids at least, if it has them
    models: Mapping[str, Sequence[str]] | None = None  # utterances of each enrolment id; None: it is an utterance
    combine: str = "embeddings"  # or "scores"
    cohort: Cohort | None = None
    allow_missing: bool = False
    qualities: Sequence[str] = ()
    manifest: str | None = None  # has the durations

    def score(self, trials: Trials) -> tuple[Trials, np.ndarray, list[str]]:
        """Trials -> those that could be scored, (T, K) columns, their K names: the score, then the qualities.

        >>> rows = ["a", "b", "c"], np.array([[2, 0], [0, 1], [1, 1]], np.float32)
        >>> trials = Trials("list", "", "", ["a", "c"], np.array([0]), np.array([1]), None, None)
        >>> System(lambda ids: rows).score(trials)[1].round(4)
        array([[0.7071]], dtype=float32)
        """
        pairs = trials
        enrolled = [u for i in trials.ids for u in (self.models or {}).get(i, ())]
        found = self.source([*trials.ids, *enrolled])
        factors: dict[str, float] = {}
        if self.models is not None:
            found, pairs, factor = enroll.combine(found, trials, self.models, self.combine, self.allow_missing)
            factors = dict(zip(pairs.ids, factor.tolist()))
        if self.allow_missing:
            pairs = scoring.leave_out(pairs, found[0])
        scores = scoring.cosine(found, pairs)
        factor = np.array([factors.get(i, 1.0) for i in pairs.ids], np.float32)
        if factors:
            scores = scores * factor[pairs.enroll]
        moments = None
        if self.cohort is not None:
            pairs, moments = self._moments(self.cohort, found, pairs, factor, enrolled)
            scores = normalise.normalise(scores, pairs, *moments, self.cohort.method)
        columns, names = calibrate.quality_columns(pairs, self._qualities(found, pairs, moments))
        what = "score" if self.cohort is None else f"score ({self.cohort.method})"
        return pairs, np.column_stack([scores, columns]) if names else scores[:, None], [what, *names]

    @staticmethod
    def _moments(
        cohort: Cohort,
        found: Embeddings,
        trials: Trials,
        factor: np.ndarray,
        enrolled: Sequence[str],
    ) -> tuple[Trials, normalise.Moments]:
        """Mean and standard deviation of each utterance's cohort scores; the trials' notes say what the cohort is."""
        (ids, rows), method, top_n, speakers, means = cohort
        if rows.shape[1] != found[1].shape[1]:
            raise InputError(f"the cohort has {rows.shape[1]} dimensions, the embeddings {found[1].shape[1]}")
        kept = normalise.apart(ids, trials, speakers, enrolled)
        ids, rows = [i for i, keep in zip(ids, kept) if keep], embeddings.unit(rows[kept])
        note = f"normalised ({method}) by {len(ids):,} cohort utterances"
        if dropped := int((~kept).sum()):
            note += f", {dropped:,} left out that are the list's own or of its speakers"
        if means:
            names, rows = normalise.speaker_means(ids, rows, speakers)
            note += f", as the means of {len(names):,} speakers"
        if method == "as":
            note += f", the {min(top_n, len(rows)):,} nearest" + " (all there are)" * (top_n > len(rows))
        units = embeddings.unit(embeddings.rows_of(found, trials.ids))
        mean, sd = normalise.statistics(units, rows, top_n if method == "as" else None)
        return trials._replace(notes=[*trials.notes, note]), (mean * factor, sd * factor)

    def _qualities(self, found: Embeddings, trials: Trials, moments: normalise.Moments | None) -> dict[str, np.ndarray]:
        qualities = {}
        for name in self.qualities:
            if name == "duration":
                if self.manifest is None:
                    raise InputError("the quality duration needs a manifest with a duration column: pass --manifest")
                qualities[name] = calibrate.log_durations(self._seconds(self.manifest, trials.ids))
            elif name == "magnitude":
                used = embeddings.rows_of(found, trials.ids).astype(np.float64)
                qualities[name] = np.log(np.linalg.norm(used, axis=1))
            elif moments is None:
                raise InputError("the quality cohort is the mean of the cohort scores: pass --norm and --cohort")
            else:
                qualities[name] = moments[0]
        return qualities

    @staticmethod
    def _seconds(manifest: str, ids: Sequence[str]) -> list[float]:
        column = conditions.read_manifest(manifest, ids).get("duration")
        if column is None:
            raise InputError(f"{manifest} has no column duration")
        try:
            return [float(value) for value in column]
        except ValueError as error:
            raise InputError(f"{manifest}: a duration is not a number: {error}") from None
