"""What a loss is called with, and the calls that every loss takes, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

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


def evaluate(loss: Loss, rows: Rows) -> Tensor:
    """Call a loss the way that it wants to be called.

    >>> import torch
    >>> evaluate(torch.nn.functional.cross_entropy, Rows(torch.zeros(2, 4), torch.tensor([0, 1])))  # log 4
    tensor(1.3863)
    """
    return loss(rows) if getattr(loss, "takes_rows", False) else loss(rows.z, rows.labels)


def set_progress(loss: Any, progress: float) -> None:
    """Set the temperature and the margin of a loss that schedules them, to those of a number of epochs, fractional."""
    if hasattr(loss, "set_progress"):
        loss.set_progress(progress)


def resize(loss: Any, n_classes: int) -> None:
    """Give a loss that learns a row for each class so many, drawn anew. Wrapping losses pass it on."""
    if hasattr(loss, "resize"):
        loss.resize(n_classes)
