"""Contrastive losses of many rows: a block of anchors at a time, loss and gradient in one pass.

An anchor's loss and its gradient follow from its own row of cosines. So a block of rows is multiplied, changed in place
into probabilities and then into a gradient, and freed: the same products as autograd's, none of them twice, and memory
for one block instead of all pairs. Only first gradients are right; a second derivative would lack a part.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sv_ssl.losses.geometry import cosines
from sv_ssl.losses.margin import Margin

ELEMENTS = {"cpu": 2**20, "cuda": 2**26}  # of a block: as many as a CPU's cache holds, enough to keep a GPU busy
ROWS = 128  # of a block, at least: every block adds to the gradients of all keys


class Matches:
    """Find the candidates that have an anchor's label: (A,) and (C,) labels, and the column of the first anchor itself.

    `own` is None where the anchors are no candidates.

    >>> matches = Matches(torch.tensor([7, 8]), torch.tensor([8, 7, 7]))
    >>> matches.count, matches.pairs(slice(0, 2))
    (tensor([2, 1]), (tensor([0, 0, 1]), tensor([1, 2, 0])))
    """

    def __init__(self, labels: Tensor, key_labels: Tensor, own: int | None = None):
        ordered, self.order = key_labels.sort(stable=True)
        self.first, self.own = torch.searchsorted(ordered, labels), own
        self.size = torch.searchsorted(ordered, labels, right=True) - self.first
        self.count = self.size if own is None else self.size - 1  # nobody is its own positive

    def pairs(self, block: slice) -> tuple[Tensor, Tensor]:
        """Return the positive pairs of a block, (P,) anchors counted from its first and (P,) candidates."""
        size = self.size[block]
        anchor = torch.arange(len(size), device=size.device).repeat_interleave(size)
        within = torch.arange(len(anchor), device=size.device) - (size.cumsum(0) - size)[anchor]
        candidate = self.order[self.first[block][anchor] + within]
        if self.own is None:
            return anchor, candidate
        other = candidate != anchor + block.start + self.own
        return anchor[other], candidate[other]


def contrast(
    rows: Tensor, keys: Tensor | None, matches: Matches, temperature: float, margin: Margin | None, positives: str
) -> Tensor:
    """Return the sum of the losses of the anchors that have positives: (A, D), (C, D) unit rows -> ().

    Without keys the rows are the candidates as well. See `NTXent` for temperature, margin and positives.

    >>> matches = Matches(torch.tensor([0, 1]), torch.tensor([0, 1]))
    >>> contrast(torch.eye(2), torch.eye(2), matches, 1.0, None, "out")  # 2 log(1 + 1 / e)
    tensor(0.6265)
    """
    return _Contrast.apply(rows, keys, matches, temperature, margin, positives, torch.is_grad_enabled())


def log_sum_exp(
    rows: Tensor, keys: Tensor, temperature: float, labels: Tensor | None = None, key_labels: Tensor | None = None
) -> Tensor:
    """Return log-sum-exp of cosines / temperature, without keys of a row's own label: (N, D), (K, D) unit rows -> (N,).

    The keys get no gradient.

    >>> log_sum_exp(torch.eye(2), torch.eye(2), temperature=1.0)  # log(1 + e)
    tensor([1.3133, 1.3133])
    """
    return _LogSumExp.apply(rows, keys, temperature, labels, key_labels, torch.is_grad_enabled())


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, keys, matches, temperature, margin, positives, wanted):
        d_rows = torch.zeros_like(rows) if wanted and ctx.needs_input_grad[0] else None
        d_keys = torch.zeros_like(keys) if wanted and ctx.needs_input_grad[1] else None
        into = d_rows if keys is None else d_keys
        total, candidates = rows.new_zeros(()), rows if keys is None else keys
        for block in _blocks(rows, candidates):
            anchors = rows[block]
            count = matches.count[block]
            at = matches.pairs(block)
            logits = cosines(anchors, candidates)
            if matches.own is not None:
                logits[:, block.start + matches.own :].fill_diagonal_(-torch.inf)
            slope = _with_margin(logits, at, margin)
            log_p = logits.div_(temperature).log_softmax(1)
            weight = (count if positives == "sum" else count > 0).to(rows.dtype)
            loss, share = _losses(log_p[at], at[0], count, positives)
            total += (weight * loss).sum()
            gradient = log_p.exp_()
            gradient[at] = (gradient[at] - share) * slope
            with _exact(rows):
                if d_rows is not None:
                    d_rows[block] += (gradient @ candidates) * weight[:, None]
                if into is not None:
                    into.addmm_(gradient.mT, anchors * weight[:, None])
        ctx.save_for_backward(d_rows, d_keys)
        ctx.temperature = temperature
        return total

    @staticmethod
    def backward(ctx, upstream):
        scaled = [None if d is None else d * (upstream / ctx.temperature) for d in ctx.saved_tensors]
        return *scaled, None, None, None, None, None


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, keys, temperature, labels, key_labels, wanted):
        result, mean = rows.new_empty(len(rows)), torch.empty_like(rows) if wanted else None
        for block in _blocks(rows, keys):
            logits = cosines(rows[block], keys).div_(temperature)
            if labels is not None:
                logits.masked_fill_(labels[block, None] == key_labels, torch.finfo(logits.dtype).min)
            result[block] = logits.logsumexp(1)
            if mean is not None:
                with _exact(rows):
                    mean[block] = logits.sub_(result[block, None]).exp_() @ keys
        ctx.save_for_backward(mean)
        ctx.temperature = temperature
        return result

    @staticmethod
    def backward(ctx, upstream):
        [mean] = ctx.saved_tensors
        return mean * (upstream[:, None] / ctx.temperature), None, None, None, None, None


def _blocks(rows: Tensor, keys: Tensor) -> Iterator[slice]:
    step = max(ROWS, ELEMENTS.get(rows.device.type, 2**20) // max(len(keys), 1))
    for begin in range(0, len(rows), step):
        yield slice(begin, min(begin + step, len(rows)))


def _exact(rows: Tensor) -> torch.autocast:
    """Switch autocast off: small probabilities, not yet multiplied by a loss scale, vanish in half precision."""
    return torch.autocast(rows.device.type, enabled=False)


def _with_margin(cosine: Tensor, at: tuple[Tensor, Tensor], margin: Margin | None) -> Tensor | float:
    """Lower the cosines of the pairs in place, and return the margin's slope at each of them."""
    if margin is None:
        return 1.0
    with torch.enable_grad():
        leaf = cosine[at].requires_grad_()
        moved = margin(leaf)
        [slope] = torch.autograd.grad(moved.sum(), leaf)
    cosine[at] = moved.detach()
    return slope


def _losses(log_p: Tensor, anchor: Tensor, count: Tensor, positives: str) -> tuple[Tensor, Tensor]:
    """Return the loss of each anchor, (B,), and the share of each pair in its gradient, (P,)."""
    if positives != "in":
        share = count.to(log_p.dtype).reciprocal()[anchor]
        return log_p.new_zeros(len(count)).index_add_(0, anchor, -share * log_p), share
    lowest = log_p.new_full((len(count),), torch.finfo(log_p.dtype).min)
    top = lowest.scatter_reduce(0, anchor, log_p, "amax")
    part = (log_p - top[anchor]).exp()
    whole = torch.zeros_like(top).index_add_(0, anchor, part)
    loss = torch.where(count > 0, count.to(log_p.dtype).log() - whole.log() - top, 0)
    return loss, part / whole[anchor]
