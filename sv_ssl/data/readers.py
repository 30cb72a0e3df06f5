"""The contract of what `Views` reads crops from, and the reader of a manifest of files.

`shards.ShardReader` reads the same from tar shards, `clips.ClipReader` from clips that may stay in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from sv_ssl import audio

Wanted = tuple[np.ndarray, int]  # (V,) places of crops, as parts of what the recording has to spare; samples of a crop


class Reader(Protocol):
    """The recordings that are learnt from, by the number of their row in the manifest."""

    sample_rate: int

    @property
    def wav(self) -> Sequence[str] | np.ndarray:
        """Return the name of each recording for people, (N,)."""

    def __len__(self) -> int: ...

    def crops(self, row: int, wanted: Sequence[Wanted]) -> tuple[list[np.ndarray], audio.AudioInfo]:
        """Return crops of one recording, as many of each kind as wanted, and what its file is like.

        -> [(V, samples) float32 for each kind]; a recording that cannot be used raises AudioError.
        """


class FileReader:
    """Read crops from the files of a manifest, each part by seeking."""

    def __init__(self, manifest: pd.DataFrame, sample_rate: int):
        self.wav = manifest["wav"].to_numpy()
        self.start = manifest["start"].to_numpy()
        self.stop = manifest["stop"].to_numpy()
        self.sample_rate = sample_rate

    def __len__(self) -> int:
        return len(self.wav)

    def crops(self, row: int, wanted: Sequence[Wanted]) -> tuple[list[np.ndarray], audio.AudioInfo]:
        """Return the crops of a row's segment, and the file's info."""
        start, stop = int(self.start[row]), int(self.stop[row])
        results = [
            audio.crops(self.wav[row], start, stop, fractions, n_samples, self.sample_rate)
            for fractions, n_samples in wanted
        ]
        return [crops for crops, _ in results], results[0][1]
