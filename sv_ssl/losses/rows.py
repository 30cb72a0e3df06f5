"""What a loss is called with, and the calls that every loss takes, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sv_ssl.core.errors import InputError
from sv_ssl.losses.soft import SoftLabels

Loss = Callable[..., Tensor]


class Rows(NamedTuple):
    """The rows of a batch, as a loss with `takes_rows = True` gets them; other losses get `(z, labels)`."""

    z: Tensor  # (R, D): outputs of the head, or logits where a classifier is trained on all labels
    labels: Tensor | SoftLabels  # (R,): equal for rows that should be alike
    h: Tensor | None = None  # (R, E): embeddings, before the head
    targets: Tensor | None = None  # (R,): classes, -1 where unknown
    logits: Tensor | None = None  # (R, C): of the classes

    @property
    def embeddings(self) -> Tensor:
        """Return h, or z where the two are the same."""
        return self.z if self.h is None else self.h


def views(z: Tensor, labels: Tensor | SoftLabels, n_views: int = 2) -> Tensor:
    """Return the rows view by view, if the labels of all views agree: (V * N, D), (V * N,) -> (V, N, D).

    >>> views(torch.eye(4), torch.tensor([7, 8, 7, 8])).shape
    torch.Size([2, 2, 4])
    """
    if isinstance(labels, SoftLabels):
        raise InputError("this loss compares the views of a recording and knows no mixed labels: leave mixup out")
    n, rest = divmod(len(z), n_views)
    if rest or len(labels) != len(z) or not torch.equal(labels, labels[:n].repeat(n_views)):
        raise InputError(
            f"{len(z)} rows with {len(labels)} labels are not {n_views} views of the same recordings, one after the "
            f"other: pass --n_views {n_views}"
        )
    return z.unflatten(0, (n_views, n))


def evaluate(loss: Loss, rows: Rows) -> Tensor:
    """Call a loss the way that it wants to be called.

    >>> evaluate(torch.nn.functional.cross_entropy, Rows(torch.zeros(2, 4), torch.tensor([0, 1])))  # log 4
    tensor(1.3863)
    """
    return loss(rows) if getattr(loss, "takes_rows", False) else loss(rows.z, rows.labels)


def logged(loss: Loss) -> dict[str, Tensor]:
    """Return the terms of a loss at its last call, detached, where it keeps them in `log`, by name."""
    return dict(getattr(loss, "log", {}))


def set_progress(loss: Any, progress: float) -> None:
    """Set the temperature and the margin of a loss that schedules them, to those of a number of epochs, fractional."""
    if hasattr(loss, "set_progress"):
        loss.set_progress(progress)


def resize(loss: Any, n_classes: int) -> None:
    """Give a loss that learns a row for each class so many, drawn anew. Wrapping losses pass it on."""
    if hasattr(loss, "resize"):
        loss.resize(n_classes)
