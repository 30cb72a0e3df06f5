"""What a method gets at each step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """The crops of B utterances, on the device, with their transforms applied."""

    views: Tensor  # (V, B, samples), transforms applied
    rows: Tensor  # (B,) int64: row numbers of the training manifest
    short: Tensor | None = None  # (S, B, fewer samples), transforms applied
    speeds: Tensor | None = None  # (B,) int64: which speed of the list each utterance is played at
