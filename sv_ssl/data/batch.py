"""From the items of the loader's workers to the batch that a method gets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sv_ssl.audio.transform import Pipeline


class Batch(NamedTuple):
    """What a method gets: crops on the device, with the transforms applied, and which rows they are of."""

    views: Tensor  # (V, B, samples)
    rows: Tensor  # (B,) int64: row numbers of the training manifest
    short: Tensor | None = None  # (S, B, fewer samples)
    speeds: Tensor | None = None  # (B,) int64: the place of its speed in the list, where there are several
    clean: Tensor | None = None  # (C, B, samples): crops that no transform has changed


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the items of `Views` -> {"views": (V, B, T), "rows": (B,), "drawn": {name: (V, B, ...)}, "notes": [...]}.

    With several speeds also "speeds" (B,), with short crops also "short" (S, B, Ts) and "short_drawn", with clean crops
    also "clean" (C, B, Tc).
    """
    raw = {
        "views": _stack(items, "views"),
        "rows": torch.tensor([item["row"] for item in items]),
        "drawn": _stack_drawn(items, "drawn"),
        "notes": [note for item in items for note in item["notes"]],
    }
    if items[0]["speed"] is not None:
        raw["speeds"] = torch.tensor([item["speed"] for item in items])
    if "short" in items[0]:
        raw["short"] = _stack(items, "short")
        raw["short_drawn"] = _stack_drawn(items, "short_drawn")
    if "clean" in items[0]:
        raw["clean"] = _stack(items, "clean")
    return raw


def _stack(items: list[dict[str, Any]], name: str) -> Tensor:
    return torch.from_numpy(np.stack([item[name] for item in items], axis=1))


def _stack_drawn(items: list[dict[str, Any]], name: str) -> dict[str, Tensor]:
    """Stack what was drawn for the crops -> {parameter: (V, B, ...)}."""
    by_view = list(zip(*(item[name] for item in items)))
    stacked = {}
    for parameter in by_view[0][0] if by_view else []:
        rows = np.stack([drawn[parameter] for view in by_view for drawn in view])
        stacked[parameter] = torch.from_numpy(rows.reshape(len(by_view), len(items), *rows.shape[1:]))
    return stacked


def to_batch(raw: dict[str, Any], transforms: Pipeline | None, device: torch.device | str) -> Batch:
    """Move what the loader gave to the device, and apply the transforms as they were drawn in the workers.

    >>> items = [{"views": np.ones((2, 8), np.float32), "row": 5, "speed": None, "drawn": [], "notes": []}]
    >>> batch = to_batch(collate(items), transforms=None, device="cpu")
    >>> batch.views.shape, batch.rows.tolist(), batch.short
    (torch.Size([2, 1, 8]), [5], None)
    """
    return Batch(
        views=_transformed(raw["views"], raw["drawn"], transforms, device),
        rows=raw["rows"].to(device, non_blocking=True),
        short=_transformed(raw["short"], raw["short_drawn"], transforms, device) if "short" in raw else None,
        speeds=raw["speeds"].to(device, non_blocking=True) if "speeds" in raw else None,
        clean=raw["clean"].to(device, non_blocking=True) if "clean" in raw else None,
    )


def _transformed(
    crops: Tensor, drawn: dict[str, Tensor], transforms: Pipeline | None, device: torch.device | str
) -> Tensor:
    """Apply the transforms to crops, (V, B, T) -> (V, B, T)."""
    crops = crops.to(device, non_blocking=True)
    if transforms is None:
        return crops
    parameters = {name: value.to(device, non_blocking=True).flatten(0, 1) for name, value in drawn.items()}
    return transforms.apply(crops.flatten(0, 1), parameters).view_as(crops)
