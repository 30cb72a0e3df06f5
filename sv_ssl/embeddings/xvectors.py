"""A folder of x-vectors as Kaldi's recipes make it, for its scripts for LDA, PLDA and clustering.

xvector.ark, xvector.scp            a vector an utterance
utt2spk, spk2utt                    who speaks
spk_xvector.ark, spk_xvector.scp    the mean of each speaker's vectors
num_utts.ark                        how many they are, as text
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
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
    folder, rows = Path(folder), np.asarray(rows)
    if rows.shape[:1] != (len(ids),):
        raise InputError(f"{folder}: {len(ids)} ids and embeddings of shape {rows.shape}; wanted (N,) and (N, D)")
    if unknown := [i for i in ids if i not in speakers]:
        raise InputError(f"{len(unknown)} of {len(ids)} utterances have no speaker, such as {unknown[0]}")
    row = dict(zip(ids, rows))
    order = sorted(ids, key=str.encode)
    utterances: dict[str, list[str]] = {speaker: [] for speaker in sorted({speakers[i] for i in ids}, key=str.encode)}
    for name in order:
        utterances[speakers[name]].append(name)
    means = [np.mean([row[i] for i in said], axis=0) for said in utterances.values()]
    vectors = [
        store.checked(folder / "xvector.scp", order, np.array([row[name] for name in order])),
        store.checked(folder / "spk_xvector.scp", list(utterances), np.array(means)),
    ]
    lists = _lists(order, utterances, speakers)
    _check_new(folder, lists)
    for made in vectors:
        store.write(*made)
    for file, lines in lists.items():
        with atomic_write(folder / file) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lists(order: list[str], utterances: dict[str, list[str]], speakers: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the lines of each list, by its name."""
    return {
        "utt2spk": [f"{name} {speakers[name]}" for name in order],
        "spk2utt": [" ".join([speaker, *said]) for speaker, said in utterances.items()],
        "num_utts.ark": [f"{speaker} {len(said)}" for speaker, said in utterances.items()],
    }


def _check_new(folder: Path, lists: Iterable[str]) -> None:
    """Refuse a folder of data whose lists these would replace, unless they are of earlier vectors."""
    there = [name for name in lists if os.path.lexists(folder / name)]
    if there and not (folder / "xvector.scp").exists():
        raise InputError(f"cannot write {folder}: {there[0]} is there, and no xvector.scp: name another folder")
