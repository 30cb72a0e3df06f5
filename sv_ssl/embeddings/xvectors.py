"""A folder of x-vectors as Kaldi's recipes make it, for its scripts for LDA, PLDA and clustering.

xvector.ark, xvector.scp            a vector an utterance
utt2spk, spk2utt                    who speaks
spk_xvector.ark, spk_xvector.scp    the mean of each speaker's vectors
num_utts.ark                        how many they are, as text
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.embeddings import store


def write(folder: str | os.PathLike, ids: Sequence[str], rows: np.ndarray, speakers: Mapping[str, str]) -> None:
    """Write N ids, (N, D) and the speaker of each id as a folder; lines are sorted as Kaldi wants them (LC_ALL=C).

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write(folder, ["b-1", "a-1", "a-2"], np.eye(3), {"a-1": "a", "a-2": "a", "b-1": "b"})
    >>> print(Path(folder, "num_utts.ark").read_text(), end="")
    a 2
    b 1
    """
    folder = Path(folder)
    if unknown := [i for i in ids if i not in speakers]:
        raise InputError(f"{len(unknown)} of {len(ids)} utterances have no speaker, such as {unknown[0]}")
    utterances: dict[str, list[str]] = {}
    for name in sorted(ids, key=str.encode):
        utterances.setdefault(speakers[name], []).append(name)
    names = sorted(utterances, key=str.encode)
    row = dict(zip(ids, np.asarray(rows)))
    order = sorted(ids, key=str.encode)
    for name in ("xvector.scp", "spk_xvector.scp"):
        store.check_target(folder / name, [*order, *names])
    store.write(folder / "xvector.scp", order, np.stack([row[name] for name in order]))
    store.write(
        folder / "spk_xvector.scp",
        names,
        np.stack([np.mean([row[i] for i in utterances[speaker]], axis=0) for speaker in names]),
    )
    _lines(folder / "utt2spk", [f"{name} {speakers[name]}" for name in order])
    _lines(folder / "spk2utt", [" ".join([speaker, *utterances[speaker]]) for speaker in names])
    _lines(folder / "num_utts.ark", [f"{speaker} {len(utterances[speaker])}" for speaker in names])


def _lines(path: Path, lines: list[str]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
