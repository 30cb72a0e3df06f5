"""Sinkhorn-Knopp: soft assignments of rows to prototypes that use all prototypes alike."""

from __future__ import annotations

import torch
from torch import Tensor

from sv_ssl.core.distributed import gather_plain
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.losses.geometry import wide


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3, form: str = "logits") -> Tensor:
    """Return assignments whose rows sum to 1 and whose columns, over all processes, approach equal sums:
    (N, K) -> (N, K), without a gradient. https://arxiv.org/abs/2006.09882

    form "logits" starts from exp(scores / epsilon), "probs" from the scores themselves, which are probabilities. Each
    iteration scales the columns, then the rows; so a constant added to one row changes the result of a few iterations,
    while one added to all scores does not. All is done with logarithms: exp(1 / 0.05) overflows half precision, and
    scores that are no cosines overflow float32.

    >>> sinkhorn(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))  # neither row prefers a prototype more than the other does
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    check_number("iterations of Sinkhorn-Knopp", iterations, at_least=1, whole=True)
    log_q = _start(wide(scores), epsilon, form)
    for _ in range(iterations):
        columns = log_q.logsumexp(0)
        log_q -= gather_plain(columns[None]).logsumexp(0)
        log_q = log_q.log_softmax(1)
    return log_q.exp_()


def _start(scores: Tensor, epsilon: float, form: str) -> Tensor:
    if form == "probs":
        return scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
    if form != "logits":
        raise InputError(f"form is {form!r}: choose logits or probs")
    check_number("epsilon of Sinkhorn-Knopp", epsilon, at_least=1e-6)
    # The maximum of all processes: one of each row, or of each process, would change the result.
    return (scores - gather_plain(scores.max()[None]).max()).div_(epsilon)
