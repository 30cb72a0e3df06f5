"""SDPN: short crops predict the assignment of a long clean crop to learned prototypes, with terms against collapse.

Self-distillation prototypes network, https://arxiv.org/abs/2308.02774. The prototypes get their gradient from the
student's side only. `fro_norm` is the term that https://arxiv.org/abs/2505.13826 adds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sv_ssl.core.distributed import gather, total, world_size
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.losses.assignments import cross_entropy
from sv_ssl.losses.geometry import entropy, gram, is_itself, unit, wide
from sv_ssl.losses.sinkhorn import sinkhorn


class Parts(NamedTuple):
    """The terms of SDPN's loss, unweighted, and their weighted sum, each (); and the targets, (N, K)."""

    total: Tensor
    ce: Tensor
    me_max: Tensor
    koleo: Tensor
    targets: Tensor


class SDPNLoss(nn.Module):
    """Add the cross-entropy of all short crops, me-max and KoLeo: V cosines (N, K), (N, K), V of (N, E) -> Parts.

    Cosines are those with the prototypes, of the student's short crops and of the teacher's long one; the embeddings,
    of the student's encoder, are for KoLeo and may be left out. See `sdpn_targets` for sharpen, iterations and form.

    >>> loss = SDPNLoss(koleo_weight=0.0)
    >>> loss([torch.zeros(3, 4)], torch.zeros(3, 4)).total  # log 4
    tensor(1.3863)
    """

    def __init__(
        self,
        temperature: float = 0.1,
        sharpen: float = 0.25,
        iterations: int = 3,
        form: str = "probs",
        me_max_weight: float = 1.0,
        koleo_weight: float = 0.1,
    ):
        super().__init__()
        check_number("temperature of SDPN", temperature, at_least=1e-6)
        check_number("sharpen", sharpen, at_least=1e-6)
        check_number("me_max_weight", me_max_weight, at_least=0)
        check_number("koleo_weight", koleo_weight, at_least=0)
        self.temperature = temperature
        self.sharpen = sharpen
        self.iterations = iterations
        self.form = form
        self.me_max_weight = me_max_weight
        self.koleo_weight = koleo_weight

    def forward(self, student: Sequence[Tensor], teacher: Tensor, embeddings: Iterable[Tensor] = ()) -> Parts:
        targets = sdpn_targets(teacher, self.temperature, self.sharpen, self.iterations, self.form)
        ce = cross_entropy(student, targets[None], self.temperature, skip_own=False)
        spread = me_max(torch.stack([(wide(view) / self.temperature).softmax(1).mean(0) for view in student]))
        apart = torch.stack([ce.new_zeros(()), *(koleo(view) for view in embeddings)]).sum()
        return Parts(ce + self.me_max_weight * spread + self.koleo_weight * apart, ce, spread, apart, targets)


@torch.no_grad()
def sdpn_targets(
    cosines: Tensor, temperature: float = 0.1, sharpen: float = 0.25, iterations: int = 3, form: str = "probs"
) -> Tensor:
    """Turn the teacher's cosines with the prototypes into targets: (N, K) -> (N, K).

    form "probs": Sinkhorn-Knopp of the probabilities softmax(cosines / (temperature * sharpen)), as in the authors'
    code; "logits": of the cosines, as in SwAV, which is not the same after few iterations; "none": the probabilities.

    >>> sdpn_targets(torch.eye(2))
    tensor([[1.0000e+00, 4.2484e-18],
            [4.2484e-18, 1.0000e+00]])
    """
    sharp = temperature * sharpen
    if form == "logits":
        return sinkhorn(cosines, sharp, iterations)
    log_p = (wide(cosines) / sharp).log_softmax(1)
    if form == "none":
        return log_p.exp()
    if form != "probs":
        raise InputError(f"form is {form!r}: choose probs, logits or none")
    return sinkhorn(log_p, 1.0, iterations)  # as form "probs" of Sinkhorn-Knopp; small ones are not rounded to 0


def me_max(probs: Tensor) -> Tensor:
    """Return log K - the entropy of the mean distribution of all processes: (..., K) -> (). 0: all are used alike.

    https://arxiv.org/abs/2104.13963.

    >>> me_max(torch.eye(4)[:1])  # log 4
    tensor(1.3863)
    """
    mean = total(wide(probs).flatten(0, -2).mean(0)) / world_size()
    return math.log(len(mean)) - entropy(mean)


def koleo(u: Tensor, eps: float = 1e-8) -> Tensor:
    """Return the mean of -log(distance to the nearest other unit row + eps): (N, D) -> (). u is scaled to unit rows.

    https://arxiv.org/abs/1806.03198. Rows of all processes are near; each process has its own as anchors. Rows that
    differ by no more than rounding have no direction to part in: their slope is 0, and not 1 / eps.

    >>> koleo(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))  # -log 2
    tensor(-0.6931)
    """
    rows = unit(u)
    others = gather(rows)
    if len(others) < 2:
        raise InputError("KoLeo got a single row, which has no neighbour: use a larger batch")
    with torch.no_grad():
        cosine = gram(rows, all_processes=True)
        nearest = cosine.masked_fill_(is_itself(cosine), -2).argmax(1)
    squares = (rows - others[nearest]).square().sum(1)
    apart = squares > (8 * torch.finfo(rows.dtype).eps) ** 2
    distance = torch.where(apart, torch.where(apart, squares, 1).sqrt(), squares.detach().sqrt())
    return -(distance + eps).log().mean()


def fro_norm(e: Tensor) -> Tensor:
    """Return log of Frobenius' norm of the uncentred correlations of the dimensions: (N, D) -> (), at least log(D) / 2.

    Over the rows of all processes. The columns of `e`, a head's raw output, are scaled to length 1.

    >>> fro_norm(torch.eye(2))  # log(2) / 2
    tensor(0.3466)
    """
    with torch.autocast(e.device.type, enabled=False):
        columns = nn.functional.normalize(gather(wide(e)), dim=0)
        n, dim = columns.shape
        gram_matrix = columns @ columns.mT if n < dim else columns.mT @ columns  # of one norm
        return gram_matrix.square().sum().clamp_min(torch.finfo(columns.dtype).tiny).log() / 2
