"""SwAV: the views of a recording predict each other's codes, which use all prototypes alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sv_ssl.core.distributed import rank, world_size
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.losses.assignments import cross_entropy
from sv_ssl.losses.sinkhorn import sinkhorn


class SwAVLoss(nn.Module):
    """Let all views predict the codes of the first `n_codes` views, not their own: V cosines (N, K) -> ().

    https://arxiv.org/abs/2006.09882. Codes are Sinkhorn-Knopp's of the cosines with the prototypes, of all processes.
    A batch with fewer rows than prototypes cannot use them all: `queue` has the cosines of older rows for each view
    with codes, (n_codes, M, K), the same on each process. Give filled places only.

    >>> SwAVLoss()([torch.zeros(3, 4)] * 2)  # log 4
    tensor(1.3863)
    """

    def __init__(self, temperature: float = 0.1, epsilon: float = 0.05, iterations: int = 3, n_codes: int = 2):
        super().__init__()
        check_number("temperature of SwAV", temperature, at_least=1e-6)
        check_number("n_codes", n_codes, at_least=1, whole=True)
        self.temperature = temperature
        self.epsilon = epsilon
        self.iterations = iterations
        self.n_codes = n_codes

    def forward(self, scores: Sequence[Tensor], queue: Tensor | None = None) -> Tensor:
        return self.compare(scores, self.codes(scores, queue))

    def compare(self, scores: Sequence[Tensor], codes: Tensor) -> Tensor:
        """Return the loss for codes that are made already: V of (N, K), (n_codes, N, K) -> ()."""
        return cross_entropy(scores, codes, self.temperature)

    @torch.no_grad()
    def codes(self, scores: Sequence[Tensor], queue: Tensor | None = None) -> Tensor:
        """Return the codes of the first views: V of (N, K) -> (n_codes, N, K)."""
        if len(scores) < self.n_codes or (queue is not None and len(queue) != self.n_codes):
            came = f"{len(scores)} views" + ("" if queue is None else f" and a queue of {len(queue)}")
            raise InputError(f"{came} came for codes of {self.n_codes} views: change n_codes")
        return torch.stack([self._of_view(scores[i], None if queue is None else queue[i]) for i in range(self.n_codes)])

    def _of_view(self, scores: Tensor, queue: Tensor | None) -> Tensor:
        # Each process has the whole queue and adds its share of it.
        pool = scores if queue is None else torch.cat([scores, queue[rank() :: world_size()].to(scores.dtype)])
        return sinkhorn(pool, self.epsilon, self.iterations)[: len(scores)]
