"""Systems, which score trial lists: by embeddings, perhaps of models of several utterances, perhaps with a cohort."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import store as embeddings
from sv_ssl.embeddings.store import Embeddings
from sv_ssl.verification import enroll, normalise, score_columns, scoring
from sv_ssl.verification.manifest_columns import read_manifest
from sv_ssl.verification.trials import Trials

QUALITIES = ("duration", "magnitude", "cohort")  # side information on an utterance that a calibration may use


class Cohort(NamedTuple):
    """Embeddings of other speakers, and how scores are normalised by them."""

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
        """Score a list; return the trials that could be scored, (T, K) columns and their K names.

        The first column is the score, the others are the qualities.

        >>> rows = ["a", "b", "c"], np.array([[2, 0], [0, 1], [1, 1]], np.float32)
        >>> trials = Trials("list", "", "", ["a", "c"], np.array([0]), np.array([1]), None, None)
        >>> System(lambda ids: rows).score(trials)[1].round(4)
        array([[0.7071]], dtype=float32)
        """
        enrolled = [utterance for i in trials.ids for utterance in (self.models or {}).get(i, ())]
        embedded, trials, factor = self._embedded(trials, enrolled)
        scores = scoring.cosine(embedded, trials)
        if self.models is None:
            trials = trials.noted(scoring.same_recordings(embedded, trials, scores))
        else:
            scores = scores * factor[trials.enroll]
        moments = None
        if self.cohort is not None:
            trials, moments = self._moments(self.cohort, embedded, trials, factor, enrolled)
            scores = normalise.normalise(scores, trials, *moments, self.cohort.method)
        columns, names = score_columns.quality_columns(trials, self._qualities(embedded, trials, moments))
        what = "score" if self.cohort is None else f"score ({self.cohort.method})"
        return trials, np.column_stack([scores, columns]) if names else scores[:, None], [what, *names]

    def _embedded(self, trials: Trials, enrolled: Sequence[str]) -> tuple[Embeddings, Trials, np.ndarray]:
        """Return the embeddings of what the trials name, the trials that have both, and the models' factors.

        T trials over U ids -> embeddings, trials, (U,) float32: 1 for what is no model
        """
        embedded = self.source([*trials.ids, *enrolled])
        factors: dict[str, float] = {}
        if self.models is not None:
            embedded, trials, factor = enroll.combine(embedded, trials, self.models, self.combine, self.allow_missing)
            factors = dict(zip(trials.ids, factor.tolist()))
        if self.allow_missing:
            trials = scoring.leave_out(trials, embedded[0])
        return embedded, trials, np.array([factors.get(i, 1.0) for i in trials.ids], np.float32)

    @staticmethod
    def _moments(
        cohort: Cohort,
        embedded: Embeddings,
        trials: Trials,
        factor: np.ndarray,
        enrolled: Sequence[str],
    ) -> tuple[Trials, normalise.Moments]:
        """Return the trials with a note on the cohort, and the moments of each utterance's cohort scores."""
        ids, rows = cohort.embeddings
        if rows.shape[1] != embedded[1].shape[1]:
            raise InputError(f"the cohort has {rows.shape[1]} dimensions, the embeddings {embedded[1].shape[1]}")
        kept = normalise.apart(ids, trials, cohort.speakers, enrolled)
        ids, rows = [i for i, keep in zip(ids, kept) if keep], embeddings.unit(rows[kept])
        note = f"normalised ({cohort.method}) by {len(ids):,} cohort utterances"
        if dropped := int((~kept).sum()):
            note += f", {dropped:,} left out that are the list's own or of its speakers"
        if cohort.means:
            names, rows = normalise.speaker_means(ids, rows, cohort.speakers)
            note += f", as the means of {len(names):,} speakers"
        top_n = cohort.top_n if cohort.method == "as" else None
        if top_n is not None:
            note += f", the {top_n:,} nearest" if top_n <= len(rows) else f", the {len(rows):,} nearest (all there are)"
        units = embeddings.unit(embeddings.rows_of(embedded, trials.ids))
        mean, sd = normalise.statistics(units, rows, top_n)
        return trials.noted([note]), (mean * factor, sd * factor)

    def _qualities(
        self, embedded: Embeddings, trials: Trials, moments: normalise.Moments | None
    ) -> dict[str, np.ndarray]:
        """Return the side information that was asked for, (U,) each."""
        qualities = {}
        for name in self.qualities:
            if name == "duration":
                if self.manifest is None:
                    raise InputError("the quality duration needs a manifest with a duration column: pass --manifest")
                qualities[name] = score_columns.log_durations(self._seconds(self.manifest, trials.ids))
            elif name == "magnitude":
                used = embeddings.rows_of(embedded, trials.ids).astype(np.float64)
                qualities[name] = np.log(np.linalg.norm(used, axis=1))
            elif moments is None:
                raise InputError("the quality cohort is the mean of the cohort scores: pass --norm and --cohort")
            else:
                qualities[name] = moments[0]
        return qualities

    @staticmethod
    def _seconds(manifest: str, ids: Sequence[str]) -> list[float]:
        """Read the durations of the utterances."""
        column = read_manifest(manifest, ids).get("duration")
        if column is None:
            raise InputError(f"{manifest} has no column duration")
        try:
            return [float(value) for value in column]
        except ValueError as error:
            raise InputError(f"{manifest}: a duration is not a number: {error}") from None
