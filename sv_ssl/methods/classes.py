"""The class of each training row, looked up on the device by the row numbers that a batch brings."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.data.batch import Batch
from sv_ssl.methods.base import Facts


class Classes(nn.Module):
    """Look up the classes of a batch: rows (B,) -> (B,), -1 where unknown. Nothing of it is saved with the weights.

    A recording at another speed is of another class: class + (number of classes) * (place of the speed in its list).

    >>> classes = Classes()
    >>> classes.prepare(Facts(3, np.array([1, -1, 0]), n_classes=4, steps=1, epochs=1, seed=0))
    >>> rows, speeds = torch.tensor([2, 1, 0]), torch.tensor([1, 1, 0])
    >>> classes(Batch(torch.zeros(1, 3, 8), rows)), classes(Batch(torch.zeros(1, 3, 8), rows, speeds=speeds))
    (tensor([ 0, -1,  1]), tensor([ 2, -1,  1]))
    """

    of_row: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("of_row", torch.empty(0, dtype=torch.long), persistent=False)
        self.at_one_speed = 0

    def prepare(self, facts: Facts, all_known: bool = False) -> None:
        """Take the classes of the training manifest."""
        if facts.classes is None:
            raise InputError(
                "the method looks up the class of each training row, and the training manifest has no classes: add "
                "the column spk_id, or choose labels by utterance"
            )
        if all_known and (facts.classes < 0).any():
            raise InputError(
                f"the method needs the class of every training row, and {(facts.classes < 0).sum():,} of "
                f"{len(facts.classes):,} have none: leave those rows out, or choose a method that needs some labels"
            )
        self.of_row = torch.from_numpy(np.asarray(facts.classes, np.int64)).to(self.of_row.device)
        self.at_one_speed = int(facts.classes.max(initial=-1)) + 1

    def forward(self, batch: Batch) -> Tensor:
        classes = self.of_row[batch.rows]
        if batch.speeds is None:
            return classes
        return torch.where(classes < 0, classes, classes + self.at_one_speed * batch.speeds)
