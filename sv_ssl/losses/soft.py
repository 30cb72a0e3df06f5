"""Soft labels: shares of a few classes, as mixup makes them, spread over all classes by label smoothing."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sv_ssl.core.distributed import gather_plain


class SoftLabels(NamedTuple):
    """Hold N rows of probabilities, (1 - smoothing) * (shares of K classes) + smoothing / n_classes, in few numbers.

    No (N, n_classes) matrix is made: two rows agree only in classes that both name, and smoothing adds a constant.

    >>> labels = SoftLabels(torch.tensor([[0, 1], [1, 1]]), torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    >>> labels.products().tolist()  # of [0.25, 0.75] and [0, 1]
    [[0.625, 0.75], [0.75, 1.0]]
    """

    classes: Tensor  # (N, K)
    shares: Tensor  # (N, K), a row sums to 1
    smoothing: float = 0.0
    n_classes: int = 1  # read with smoothing

    def products(self) -> Tensor:
        """Return the dot product of each own row with each row of all processes, (n, N)."""
        return self._smoothed(
            _agreement(
                self.classes[:, None], self.shares[:, None], gather_plain(self.classes), gather_plain(self.shares)
            )
        )

    def cosines(self) -> Tensor:
        """Return the same for rows scaled to length 1, (n, N)."""
        lengths = self._smoothed(_agreement(self.classes, self.shares, self.classes, self.shares)).sqrt()
        return self.products() / (lengths[:, None] * gather_plain(lengths))

    def _smoothed(self, product: Tensor) -> Tensor:
        kept = 1 - self.smoothing
        return kept**2 * product + (1 - kept**2) / self.n_classes  # 2 kept e / C + C (e / C)^2, e = 1 - kept


def _agreement(classes: Tensor, shares: Tensor, others: Tensor, their_shares: Tensor) -> Tensor:
    """Return the dot product of the shares of two sides: four of (.., K) -> (..)."""
    return torch.stack(
        [
            torch.where(classes[..., a] == others[..., b], shares[..., a] * their_shares[..., b], 0)
            for a in range(classes.shape[-1])
            for b in range(others.shape[-1])
        ]
    ).sum(dim=0)


def soft_cross_entropy(logits: Tensor, labels: Tensor | SoftLabels) -> Tensor:
    """Return the mean cross-entropy for labels of either kind: (N, C), (N,) or N SoftLabels -> ().

    >>> labels = SoftLabels(torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.5]]))
    >>> round(soft_cross_entropy(torch.tensor([[0.0, 0.0]]), labels).item(), 4)  # log 2
    0.6931
    """
    if not isinstance(labels, SoftLabels):
        return F.cross_entropy(logits, labels)
    likely = F.log_softmax(logits.float() if logits.dtype != torch.float64 else logits, dim=1)
    named = (likely.gather(1, labels.classes) * labels.shares).sum(dim=1)
    return -((1 - labels.smoothing) * named + labels.smoothing * likely.mean(dim=1)).mean()
