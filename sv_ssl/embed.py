"""Audio to embeddings: whole utterances, one at a time, so that neighbours never change a number."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from sv_ssl import audio, manifest
from sv_ssl.cache import Cache, content
from sv_ssl.encoders import Embedder
from sv_ssl.files import InputError


class Utterance(NamedTuple):
    id: str
    wav: str
    start: int = 0
    stop: int | None = None


def inputs(sources: Sequence[str]) -> list[Utterance]:
    """Utterances named by a manifest CSV, a folder, a Kaldi `wav.scp`, or audio files.

    An id is the path as given, relative to the input: to the folder, or to the CSV's own. A CSV that uses a recording
    more than once is known by its ID column, a `wav.scp` by its keys.
    """
    if len(sources) > 1 or Path(sources[0]).suffix.lower() in audio.AUDIO_SUFFIXES:
        return [Utterance(path, path) for path in sources]
    source = Path(sources[0])
    if source.is_dir():
        found = [Utterance(name, str(source / name)) for name in audio.find(source)]
    elif source.name == "wav.scp":
        frame = manifest.from_kaldi(source.parent)
        # What could not be opened is tried again, so that it is reported as any other.
        found = listed(frame, source.parent) + [Utterance(path, path) for path, _ in frame.attrs["skipped"]]
    elif source.suffix == ".csv":
        frame = manifest.read(source)
        found = listed(frame, source.parent)
        if frame["wav"].is_unique:
            found = [u._replace(id=os.path.relpath(u.wav, source.parent)) for u in found]
    else:
        raise InputError(f"{source} is not {'there' if not source.exists() else 'an input'}: wanted a manifest .csv, a "
                         f"folder, a wav.scp or audio files ({', '.join(audio.AUDIO_SUFFIXES)})")
    if not found:
        raise InputError(f"{source} holds no audio files ({', '.join(audio.AUDIO_SUFFIXES)})")
    return found


def listed(frame: pd.DataFrame, root: Path) -> list[Utterance]:
    """A manifest's rows as utterances."""
    wavs = [manifest.resolve(wav, root) for wav in frame["wav"]]
    return [Utterance(*row) for row in zip(frame["ID"], wavs, frame["start"].tolist(), frame["stop"].tolist())]


@torch.inference_mode()
def embed_wave(embedder: Embedder, wave: np.ndarray) -> np.ndarray:
    """(T,) float32 at the embedder's rate -> (dim,) float32."""
    device = next(iter(embedder.buffers())).device
    return embedder(torch.from_numpy(wave).to(device)[None])[0].float().cpu().numpy()


def embed(embedder: Embedder, utterances: Sequence[Utterance], progress: bool = True, kept: Cache | None = None,
          ) -> tuple[list[str], np.ndarray, list[tuple[str, str]]]:
    """Utterances -> ids, (N, dim) float32 and [(id, reason)] of those that could not be embedded.

    With a cache (`cache_of`) a recording whose content was embedded before is not embedded again.
    """
    was_training = embedder.training
    embedder.eval()
    ids, rows, skipped = [], [], []
    shown = progress and sys.stderr.isatty()
    for utterance in tqdm(utterances, unit="utt", desc="embedding", disable=not shown, leave=False):
        key = _key(utterance) if kept else ""
        row = kept.get(key) if kept and key else None
        if row is None:
            try:
                wave = audio.read(utterance.wav, utterance.start, utterance.stop, embedder.sample_rate)
            except audio.AudioError as error:
                skipped.append((utterance.id, str(error)))
                continue
            row = embed_wave(embedder, wave)
            if kept and key:
                kept.put(key, row)
        ids.append(utterance.id)
        rows.append(row)
    embedder.train(was_training)
    return ids, np.stack(rows) if rows else np.zeros((0, embedder.dim), np.float32), skipped


def _key(utterance: Utterance) -> str:
    """What an embedding is kept under; "" for a recording that is not there."""
    try:
        return f"{content(utterance.wav)} {utterance.start} {utterance.stop}"
    except OSError:
        return ""


def cache_of(embedder: Embedder) -> Cache:
    """The embeddings kept of this very model on this kind of device."""
    digest = hashlib.sha1(json.dumps([embedder.features.config, embedder.encoder.config]).encode())
    for name, tensor in embedder.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return Cache(f"{type(embedder.encoder).__name__} {next(iter(embedder.buffers())).device.type} {digest.hexdigest()}")


def embed_trials(embedder: Embedder, names: Sequence[str], audio_root: str | os.PathLike, progress: bool = True,
                 skip: bool = False, kept: Cache | None = None) -> tuple[list[str], np.ndarray]:
    """Embed what a trial list names, below `audio_root`; a recording that cannot be used is an error unless `skip`."""
    utterances = [Utterance(name, str(Path(audio_root) / name)) for name in names]
    ids, rows, skipped = embed(embedder, utterances, progress, kept)
    if skipped and not (skip and ids):
        raise InputError(f"{len(skipped)} of {len(names)} recordings of the trial list cannot be used; the first: "
                         f"{skipped[0][1]}")
    return ids, rows
