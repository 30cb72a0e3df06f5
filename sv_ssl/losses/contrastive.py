"""Contrastive losses: an anchor must find its positives among the candidates, by a softmax over cosines / temperature.

Low precision may multiply the matrix; from the cosines on everything is float32, because exp(1 / 0.03) overflows half
precision. Matrices of up to DENSE pairs are held whole and changed in place where autograd allows it; larger ones are
computed in blocks of rows by `sv_ssl.losses.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.core.distributed import gather, gather_plain, rank, world_size
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.losses import blocks, geometry
from sv_ssl.losses.margin import Margin, check_margin

DENSE = 2**18  # pairs, 512 x 512: up to here the whole matrix is quicker, and autograd needs its memory anyway


class Sides(NamedTuple):
    """Unit rows and labels of the anchors, (A, D) and (A,), and of their candidates, (C, D) and (C,)."""

    rows: Tensor
    labels: Tensor
    keys: Tensor
    key_labels: Tensor
    own: int | None  # the candidate that is the first anchor itself; None where the anchors are no candidates


NegativeWeights = Callable[[Sides, Tensor], Tensor]  # sides, mask of the positives -> logarithms of weights, (A, C)


class Scheduled(nn.Module):
    """Hold a temperature and a margin, each a number or a function of the epochs done.

    A scheduled margin is `partial(additive, m=partial(cosine, total=50, ...))`: its `m` is the function.

    >>> loss = InfoNCE(temperature=lambda progress: 0.1 / (1 + progress))
    >>> loss.set_progress(1.0)
    >>> loss.temperature
    0.05
    """

    temperature: float
    margin: Margin | None

    def __init__(self, temperature: float | Callable[[float], float], margin: Margin | None):
        super().__init__()
        if not callable(temperature):
            check_number("temperature", temperature, at_least=1e-6)
        check_margin(margin)
        self.schedules = temperature, margin
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """Take the temperature and the margin for so many epochs, fractional."""
        temperature, margin = self.schedules
        self.temperature = temperature(progress) if callable(temperature) else temperature
        m = getattr(margin, "keywords", {}).get("m")
        self.margin = partial(margin, m=m(progress)) if margin is not None and callable(m) else margin


class NTXent(Scheduled):
    """Compare every row with every other: -log of the softmax of the positives, over cosines / temperature.
    (V * N, D), (V * N,) -> (): rows and labels are view-major, all of view 1, then all of view 2.

    Rows of equal labels are positives: labels by utterance make it SimCLR's loss (https://arxiv.org/abs/2002.05709),
    labels by speaker SupCon's (https://arxiv.org/abs/2004.11362).
    - symmetric: every row is an anchor, and all other rows are its candidates. With False (one-way, as angular
      prototypical) the rows of view 1 are the anchors, and those of the other views the candidates.
    - margin: `partial(additive, m=0.1)` is NT-Xent-AM, `partial(angular, m=0.1)` NT-Xent-AAM
      (https://arxiv.org/abs/2404.14913); it lowers the positives, in the numerator and in the denominator.
    - positives: where an anchor has several, "out" takes the mean of their log-probabilities, "in" the log of their
      mean probability, "sum" the sum of the log-probabilities. Anchors without a positive are left out.
    - negative_weights: a function of `sv_ssl.losses.negatives`, which multiplies the candidates in the denominator.
      With it the whole matrix is held, whatever its size.

    Under torch.distributed the candidates come from all ranks, so labels must mean the same on each rank. The mean
    of the loss over the ranks, and the gradient that DDP averages, are those of one process with the whole batch.

    >>> views = torch.eye(2).repeat(2, 1)
    >>> NTXent(temperature=1.0)(views, torch.tensor([0, 1, 0, 1]))  # log(1 + 2 / e)
    tensor(0.5514)
    """

    def __init__(
        self,
        temperature: float | Callable[[float], float],
        margin: Margin | None = None,
        symmetric: bool = True,
        positives: str = "out",
        n_views: int = 2,
        negative_weights: NegativeWeights | None = None,
    ):
        super().__init__(temperature, margin)
        if positives not in ("out", "in", "sum"):
            raise InputError(f"positives is {positives!r}: choose out, in or sum")
        self.symmetric = symmetric
        self.positives = positives
        self.n_views = n_views
        self.negative_weights = negative_weights

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self._compared(self.sides(z, labels))

    def against(self, z: Tensor, labels: Tensor, keys: Tensor, key_labels: Tensor) -> Tensor:
        """Compare every row with the keys alone: no row of z is a candidate. (A, D), (A,), (C, D), (C,) -> ()."""
        if len(keys) != len(key_labels):
            raise InputError(f"{len(keys)} keys but {len(key_labels)} labels of keys: give one per key")
        rows = _unit_rows(z, labels)
        return self._compared(_enough(Sides(rows, labels, geometry.unit(keys), key_labels, None), least=2))

    def sides(self, z: Tensor, labels: Tensor) -> Sides:
        """Return which rows are compared with which."""
        rows = _unit_rows(z, labels)
        if self.symmetric:
            own = rank() * len(rows)
            return _enough(Sides(rows, labels, gather(rows), gather_plain(labels), own), least=self.n_views + 1)
        n, rest = divmod(len(rows), self.n_views)
        if rest:
            raise InputError(f"{len(rows)} rows are not {self.n_views} views of each utterance: set n_views")
        others = Sides(rows[:n], labels[:n], gather(rows[n:]), gather_plain(labels[n:]), None)
        return _enough(others, least=self.n_views)

    def _compared(self, sides: Sides) -> Tensor:
        if len(sides.rows) * len(sides.keys) > DENSE and self.negative_weights is None:
            return self._in_blocks(sides)
        cosine, positive = compare(sides)
        if self.margin is not None:
            cosine = self.margin(cosine, at=positive)
        if sides.own is not None:
            # The probability there becomes 0 and so does its gradient: autograd need not know.
            cosine.detach()[:, sides.own :].fill_diagonal_(-torch.inf)
        logits = cosine.div_(self.temperature)
        if self.negative_weights is not None:
            logits = logits + self.negative_weights(sides, positive).clamp_min(_never(logits))
        return contrast(logits, positive, self.positives)

    def _in_blocks(self, sides: Sides) -> Tensor:
        matches = blocks.Matches(sides.labels, sides.key_labels, sides.own)
        keys = None if sides.keys is sides.rows else sides.keys
        total = blocks.contrast(sides.rows, keys, matches, self.temperature, self.margin, self.positives)
        return total / _number(matches.count > 0, total.dtype)


class AngularPrototypical(nn.Module):
    """Compute one-way NT-Xent with logits w * cosine + b and a learned w > 0: (V * N, D), (V * N,) -> ().

    https://arxiv.org/abs/2003.11982. b cancels in the softmax, so it is left out: a parameter that never gets a
    gradient stops DDP.

    >>> views = torch.eye(2).repeat(2, 1)
    >>> round(AngularPrototypical(init_scale=1.0)(views, torch.tensor([0, 1, 0, 1])).item(), 4)  # log(1 + 1 / e)
    0.3133
    """

    def __init__(self, init_scale: float = 10.0, n_views: int = 2):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(init_scale))
        self.one_way = NTXent(temperature=1.0, symmetric=False, n_views=n_views)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        cosine, positive = compare(self.one_way.sides(z, labels))
        return contrast(cosine * self.scale.clamp_min(1e-6), positive)


class InfoNCE(Scheduled):
    """Compare each query with its key and with a queue: MoCo's loss, https://arxiv.org/abs/1911.05722.
    (N, D), (N, D), (K, D) -> (): the positive of query i is key i, and the negatives are the queue alone.

    Neither keys nor queue get a gradient. The queue holds unit rows, since normalising it at every step would cost more
    than the loss. It is not copied: change it after the backward pass. With labels, entries of the query's own label
    are no candidates; an entry without a label has -1.

    >>> q = torch.tensor([[1.0, 0.0]])
    >>> InfoNCE(temperature=1.0)(q, q, queue=torch.tensor([[0.0, 1.0]]))  # log(1 + 1 / e)
    tensor(0.3133)
    """

    takes_queue = True  # called with queries, keys and a queue, in place of (z, labels)

    def __init__(self, temperature: float | Callable[[float], float], margin: Margin | None = None):
        super().__init__(temperature, margin)

    def forward(
        self, q: Tensor, keys: Tensor, queue: Tensor, labels: Tensor | None = None, queue_labels: Tensor | None = None
    ) -> Tensor:
        rows = geometry.unit(q)
        positive = (rows * geometry.unit(keys.detach())).sum(1)
        if self.margin is not None:
            positive = self.margin(positive)
        keys = queue.detach().to(rows.dtype)
        masks = (labels, queue_labels) if labels is not None and queue_labels is not None else ()
        summed = blocks.log_sum_exp if len(rows) * len(keys) > DENSE else _log_sum_exp
        return -F.logsigmoid(positive / self.temperature - summed(rows, keys, self.temperature, *masks)).mean()


def contrast(logits: Tensor, positive: Tensor, positives: str = "out") -> Tensor:
    """Return the mean loss of the anchors that have a positive: (A, C), (A, C) -> (). See `NTXent` for `positives`.

    >>> contrast(torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]]))
    tensor(0.3133)
    """
    count = positive.sum(1)
    logits = F.log_softmax(logits, dim=1)
    if positives == "in":
        loss = count.to(logits.dtype).log() - logits.masked_fill(~positive, _never(logits)).logsumexp(1)
    else:
        loss = -logits.masked_fill(~positive, 0).sum(1)
    if positives == "out":
        loss = loss / count.clamp_min(1)
    kept = count > 0
    return torch.where(kept, loss, 0).sum() / _number(kept, loss.dtype)


def compare(sides: Sides) -> tuple[Tensor, Tensor]:
    """Return the cosines of all anchors with all candidates, (A, C), and the mask of the positives."""
    positive = sides.labels[:, None] == sides.key_labels
    if sides.own is not None:
        positive[:, sides.own :].fill_diagonal_(False)
    if sides.keys is not sides.rows:
        return geometry.cosines(sides.rows, sides.keys), positive
    cosine = geometry.cosines(sides.rows, sides.rows.detach())
    if cosine.requires_grad:
        # Anchors and candidates are the same rows: with the transpose added, one product gives both gradients (the
        # first ones; a second derivative would lack a part).
        cosine.register_hook(lambda gradient: gradient + gradient.mT)
    return cosine, positive


def _unit_rows(z: Tensor, labels: Tensor) -> Tensor:
    if len(z) != len(labels):
        raise InputError(f"{len(z)} rows but {len(labels)} labels: give one per row, repeated for each view")
    return geometry.unit(z)


def _enough(sides: Sides, least: int) -> Sides:
    if len(sides.keys) < least:
        raise InputError(
            f"a batch of {len(sides.keys)} rows is a single utterance and has no negative: use a larger batch"
        )
    return sides


def _number(kept: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mean number of anchors kept on a rank: ranks may keep different numbers. (A,) -> ()."""
    return gather_plain(kept.sum()[None]).sum().clamp_min(1).to(dtype) / world_size()


def _log_sum_exp(
    rows: Tensor, keys: Tensor, temperature: float, labels: Tensor | None = None, key_labels: Tensor | None = None
) -> Tensor:
    """Compute what `blocks.log_sum_exp` does, with the whole matrix in memory."""
    logits = geometry.cosines(rows, keys).div_(temperature)
    if labels is not None and key_labels is not None:
        logits.detach().masked_fill_(labels[:, None] == key_labels, _never(logits))
    return logits.logsumexp(1)


def _never(logits: Tensor) -> float:
    """Return the logit of what is no candidate. Its exp is 0, and unlike -inf it may fill a whole row."""
    return torch.finfo(logits.dtype).min
