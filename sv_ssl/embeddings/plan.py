"""The work of an extraction, before it is divided, and the part of it that one process does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sv_ssl.core.errors import Skipped
from sv_ssl.data import sources
from sv_ssl.embeddings import parts
from sv_ssl.embeddings.cache import Cache
from sv_ssl.embeddings.extraction import Options, digest, extract
from sv_ssl.models.embedder import Embedder

A_WORKER = 64  # recordings below which a further worker is not worth the seconds that it takes to start


class Plan(NamedTuple):
    """What is to be embedded, by all parts together."""

    utterances: list[sources.Utterance]
    windows: list[sources.Window]  # which the utterances are, if any
    skipped: list[Skipped]
    seconds: list[float]  # of each utterance, as far as it matters how the work is divided


def make_plan(
    inputs: Sequence[str], audio_root: str | None, window: float | None, hop: float | None, weigh: bool = False
) -> Plan:
    """Find the utterances of sv-extract's INPUT, or the windows in them; with `weigh`, how long each is."""
    utterances, skipped = sources.find(inputs, audio_root, joined=window is not None)
    sources.refuse_twins(utterance.id for utterance in utterances)
    windows: list[sources.Window] = []
    if window is not None:
        windows, more = sources.windows(utterances, window, window / 2 if hop is None else hop)
        utterances, skipped = [found.utterance for found in windows], skipped + more
        sources.refuse_twins(utterance.id for utterance in utterances)
    seconds = sources.seconds(utterances) if weigh else [1.0] * len(utterances)
    return Plan(utterances, windows, skipped, seconds)


def embed_part(
    embedder: Embedder,
    plan: Plan,
    options: Options,
    shard: int,
    shards: int,
    kept: Cache | None,
    workers: int,
    progress: bool,
) -> parts.Part:
    """Embed the utterances of one part; `shard` counts from 1."""
    begin, end = parts.cuts(plan.seconds, shards)[shard - 1 : shard + 1]
    extracted = extract(embedder, plan.utterances[begin:end], options, kept, workers, progress)
    spans = [(utterance.id, utterance.start, utterance.stop) for utterance in plan.utterances]
    return parts.Part(
        run=parts.run_of(digest(embedder), options._replace(batch=0), spans),
        shard=shard,
        shards=shards,
        crops=options.crops,
        ids=extracted.ids,
        rows=extracted.rows,
        seconds=extracted.seconds,
        unplanned=plan.skipped,
        skipped=extracted.skipped,
        windows=_rows(plan.windows[begin:end], set(extracted.ids)),
    )


def usual_workers(plan: Plan, shards: int, cores: int) -> int:
    """Return how many workers pay for a part of these shards; one alone would only cost its start."""
    workers = min(cores, len(plan.utterances) // shards // A_WORKER)
    return workers if workers > 1 else 0


def crop_ids(ids: Iterable[str], crops: int) -> list[str]:
    """Return each id, or with crops those of its crops.

    >>> crop_ids(["a.wav"], 2), crop_ids(["a.wav"], 0)
    (['a.wav/0', 'a.wav/1'], ['a.wav'])
    """
    return [f"{i}/{crop}" for i in ids for crop in range(crops)] if crops else list(ids)


def _rows(windows: list[sources.Window], embedded: set[str]) -> list[parts.Row]:
    """Return the lines of .windows.csv."""
    return [
        (window.utterance.id, window.recording, f"{window.start:.6f}", f"{window.stop:.6f}")
        for window in windows
        if window.utterance.id in embedded
    ]
