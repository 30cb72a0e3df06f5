"""Scores of trial lists by an embedder: cosines, normalised by a cohort of training utterances, by crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream
from sv_ssl.data.batch import collate, to_batch
from sv_ssl.data.readers import FileReader
from sv_ssl.data.sources import Utterance
from sv_ssl.data.views import Views
from sv_ssl.embeddings import extraction, store
from sv_ssl.embeddings.extractor import device_of
from sv_ssl.training.dataset import Listed
from sv_ssl.training.settings import SpeakerSettings
from sv_ssl.verification import metrics, normalise, scoring
from sv_ssl.verification.crops import crop_scores

COHORT_SECONDS = 4.0
COHORT_BATCH = 32
TOP_N = 300  # cohort scores that count


def scored(embedder: Any, lists: Sequence[Listed]) -> list[np.ndarray]:
    """Return the cosines of each list's recordings."""
    return cosines(embedded(embedder, lists), lists)


def embedded(
    embedder: Any, lists: Sequence[Listed], options: extraction.Options = extraction.Options()
) -> extraction.Extracted:
    """Embed the recordings of trial lists, all of them."""
    utterances = {
        (listed.audio_root, name): Utterance(name, str(listed.audio_root / name))
        for listed in lists
        for name in listed.trials.ids
    }
    extracted = extraction.extract(embedder, list(utterances.values()), options)
    if extracted.skipped:
        raise InputError(
            f"{len(extracted.skipped)} of {len(utterances)} recordings of the trial lists cannot be used; "
            f"the first: {extracted.skipped[0].reason}"
        )
    return extracted


def cosines(extracted: extraction.Extracted, lists: Sequence[Listed]) -> list[np.ndarray]:
    """Return each list's scores, the cosines of its recordings."""
    return [scoring.cosine((extracted.ids, extracted.rows[:, 0]), listed.trials) for listed in lists]


def errors(lists: Sequence[Listed], scores: Sequence[np.ndarray]) -> dict[str, dict[str, Any]]:
    """Return {list: EER and minDCF}."""
    measured = {listed.stem: metrics.evaluate(s, listed.labels) for listed, s in zip(lists, scores)}
    return {stem: {key: values[key] for key in ("eer", "min_dcf")} for stem, values in measured.items()}


def by_crops(embedder: Any, lists: Sequence[Listed], n: int, seconds: float) -> dict[str, Any]:
    """Return {list: EER and minDCF} by the papers' protocol: the mean cosine over all pairs of crops."""
    try:
        rows = embedded(embedder, lists, extraction.Options(crops=n, crop_seconds=seconds))
        scores = [crop_scores(rows, listed.trials) for listed in lists]
    except InputError as error:  # a silent crop, say, of a recording that is none
        print(f"not scored by crops: {error}")
        return {}
    measured = errors(lists, scores)
    for stem, values in measured.items():
        print(f"EER on {stem} by {n} crops of {seconds:g} s: {values['eer']:.2%}")
    return {"n": n, "seconds": seconds, "lists": measured}


# ------------------------------------------------------------------------------------------------------------- AS-norm
def normalised(
    extracted: extraction.Extracted, lists: Sequence[Listed], scores: Sequence[np.ndarray], others: np.ndarray
) -> list[np.ndarray]:
    """Return the cosines of each list, normalised by the (C, D) embeddings of others (AS-norm)."""
    place = {name: i for i, name in enumerate(extracted.ids)}
    mean, sd = normalise.statistics(store.unit(extracted.rows[:, 0]), store.unit(others), TOP_N)
    by_list = []
    for listed, cosine in zip(lists, scores):
        rows = [place[name] for name in listed.trials.ids]
        by_list.append(normalise.normalise(cosine, listed.trials, mean[rows], sd[rows], "as"))
    return by_list


@torch.inference_mode()
def cohort(settings: SpeakerSettings, train: pd.DataFrame, embedder: nn.Module) -> tuple[list[str], np.ndarray]:
    """Return IDs of training utterances and (C, D) embeddings, of a crop of each.

    A crop has a noise and a room of its own, as test recordings may have.
    """
    if "shard" in train:
        raise InputError("--cohort is cut from files, and the training utterances are in shards: pass --cohort 0")
    order = stream(settings.seed, "cohort").permutation(len(train))
    chosen = train.iloc[np.sort(order[: settings.cohort])].reset_index(drop=True)
    reader = FileReader(chosen, settings.embedder.sample_rate)
    views = Views(reader, 1, COHORT_SECONDS, settings.transforms, settings.seed)
    device = device_of(embedder)
    rows = []
    for start in range(0, len(views), COHORT_BATCH):
        raw = collate([views[0, i] for i in range(start, min(start + COHORT_BATCH, len(views)))])
        batch = to_batch(raw, settings.transforms, device)
        rows.append(embedder(batch.views[0]).float().cpu())
    return chosen.ID.tolist(), torch.cat(rows).numpy()
