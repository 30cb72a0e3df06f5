"""Margins: plain functions of cosines, handed to a loss with their size fixed: `partial(angular, m=0.1)`.

`at` is a mask of the cosines that get the margin, all of them by default: the positives of a loss over pairs are spread
over a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sv_ssl.core.errors import InputError, check_number

Margin = Callable[..., Tensor]


def check_margin(margin: Margin | None) -> None:
    """Raise InputError for a margin below 0; one that follows a schedule is not looked at."""
    m = getattr(margin, "keywords", {}).get("m", 0)
    if not callable(m):
        check_number("margin", m, at_least=0)


def additive(cosine: Tensor, m: float, at: Tensor | None = None) -> Tensor:
    """Return cos - m: the additive margin of CosFace, AM-softmax and NT-Xent-AM.

    >>> additive(torch.tensor([0.5, -1.0]), m=0.5)
    tensor([ 0.0000, -1.5000])
    """
    return cosine - m if at is None else torch.add(cosine, at, alpha=-m)


def angular(cosine: Tensor, m: float, beyond_pi: str = "arcface", at: Tensor | None = None) -> Tensor:
    """Return cos(theta + m), m in radians: the additive angular margin of ArcFace and NT-Xent-AAM.

    `beyond_pi` says what happens where theta + m passes pi and the cosine would grow again: "arcface" falls back to
    cos - m sin(m), "none" keeps the formula, "easy" applies the margin only where the cosine is positive.

    >>> angular(torch.tensor([1.0, 0.0]), m=math.pi / 6)
    tensor([ 0.8660, -0.5000])
    """
    if at is not None:
        places = at.nonzero(as_tuple=True)  # a GPU waits here once; the formula over the whole matrix would cost more
        return cosine.index_put(places, angular(cosine[places], m, beyond_pi))
    # sqrt(1 - cos^2) has an infinite slope at +-1, so the sine is the constant 0 there.
    inside = cosine.abs() < 1
    safe = torch.where(inside, cosine, 0)
    sine = torch.where(inside, ((1 - safe) * (1 + safe)).sqrt(), 0)
    return _beyond_pi(cosine, cosine * math.cos(m) - sine * math.sin(m), m, beyond_pi)


def _beyond_pi(cosine: Tensor, moved: Tensor, m: float, kind: str) -> Tensor:
    if kind == "arcface":
        return torch.where(cosine > -math.cos(m), moved, cosine - m * math.sin(m))
    if kind == "easy":
        return torch.where(cosine > 0, moved, cosine)
    if kind == "none":
        return moved
    raise InputError(f"beyond_pi is {kind!r}: choose arcface, none or easy")
