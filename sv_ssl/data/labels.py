"""Number the speakers of a manifest, and count the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sv_ssl.core.errors import InputError


def speaker_labels(manifest: pd.DataFrame) -> np.ndarray:
    """Return (N,) int64, the number of each row's speaker among the sorted speakers.

    >>> speaker_labels(pd.DataFrame({"ID": ["1", "2", "3"], "spk_id": ["zoe", "ada", "zoe"]})).tolist()
    [1, 0, 1]
    """
    if "spk_id" not in manifest:
        raise InputError(
            'the manifest has no column "spk_id", and this needs to know who speaks: add the column, or '
            "train without speakers"
        )
    names = manifest["spk_id"]
    if (missing := (names.isna() | (names == "")).to_numpy()).any():
        raise InputError(
            f"{missing.sum():,} of {len(names):,} utterances have no spk_id, the first is "
            f'"{manifest["ID"].iloc[int(missing.argmax())]}": fill it in, or leave those lines out'
        )
    return pd.factorize(names, sort=True)[0].astype(np.int64)


def numbered(manifest: pd.DataFrame, column: str) -> np.ndarray | None:
    """Return (N,) int64, the number of each row's value among the sorted ones of a column; -1 where it is empty.

    None where the manifest does not have the column, or nothing in it.

    >>> numbered(pd.DataFrame({"session": ["b", "", "a"]}), "session").tolist()
    [1, -1, 0]
    """
    if column not in manifest:
        return None
    names = manifest[column]
    numbers = pd.factorize(names.where(names.notna() & (names != "")), sort=True)[0].astype(np.int64)
    return numbers if (numbers >= 0).any() else None


def n_classes(labels: np.ndarray, speeds: Sequence[float] = (1.0,)) -> int:
    """Count the classes of labels that count from 0, where each speed of a speaker is a class.

    >>> n_classes(np.array([0, 1, 1, 2]), speeds=(0.9, 1.0, 1.1))
    9
    """
    return (int(np.max(labels)) + 1) * len(speeds)
