"""SwAV: the prototypes of one view, evenly shared out, are predicted from the other views."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sv_ssl.data.batch import Batch
from sv_ssl.losses.rows import set_progress
from sv_ssl.methods.base import Facts, Method, Needs, Step
from sv_ssl.methods.groups import without_decay
from sv_ssl.methods.positives import Positives
from sv_ssl.methods.queue import Queue
from sv_ssl.methods.usage import of_targets
from sv_ssl.models.features import seed_masks
from sv_ssl.models.heads import Prototypes, width


class SwAV(Method):
    """Predict codes of one view from the others: loss.compare(cosines of V views, codes). Step.z is (V * B, P).

    Caron et al., NeurIPS 2020, https://arxiv.org/abs/2006.09882; hparams/swav.yaml. The two long crops give codes, all
    other crops of the recording predict them.

    queue_size   rows of earlier batches that codes are shared out over too: a batch smaller than the number of
                 prototypes cannot use all of them. 0: none
    queue_start  epochs before the queue is used
    positives    another recording in place of the second view
    """

    def __init__(
        self,
        embedder: Any,
        prototypes: Prototypes,
        loss: Any,
        head: nn.Module | None = None,
        queue_size: int = 0,
        queue_start: int = 0,
        positives: Positives | None = None,
    ):
        super().__init__()
        self.embedder = embedder
        self.head = head or nn.Identity()
        self.prototypes = prototypes
        self.loss = loss
        self.queue_start = queue_start
        self.positives = positives
        self.needs = Needs(views=2, short=True, clean=1 if positives is not None else 0)
        dim = width(self.head, embedder.dim)
        self.queue = Queue(queue_size, dim, lanes=2) if queue_size else None
        self.epoch = 1

    def prepare(self, facts: Facts) -> None:
        seed_masks(self, facts.seed)
        if self.positives is not None:
            self.positives.prepare(facts, self.embedder.dim, width(self.head, self.embedder.dim))

    def parameter_groups(self) -> list[dict[str, Any]]:
        return without_decay(self, self.prototypes)

    def on_epoch_start(self, epoch: int) -> None:
        self.epoch = epoch
        self.prototypes.start_epoch(epoch)
        if self.positives is not None:
            self.positives.start_epoch(epoch)

    def on_step_start(self, progress: float) -> None:
        set_progress(self.loss, progress)

    def forward(self, batch: Batch) -> Step:
        views = batch.views
        h = self.embedder(views.flatten(0, 1))
        crops = [h] if batch.short is None else [h, self.embedder(batch.short.flatten(0, 1))]
        z = self.head(torch.cat(crops)).unflatten(0, (-1, views.shape[1]))  # (V + S, B, P)
        compared, figures = self._sampled(z, batch)
        scores = self.prototypes(compared)
        codes = self.loss.codes(scores, self._queued())
        loss = self.loss.compare(scores, codes)
        if self.queue is not None and self.training:
            self.queue.wait(z[:2].detach(), batch.rows)  # what was sampled is an old row, which was here before
        figures |= of_targets(codes, loss.detach())
        long = z[: len(views)].detach()
        return Step(loss, long.flatten(0, 1), batch.rows.repeat(len(views)), figures, h.detach())

    def _sampled(self, z: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the crops with the second view replaced by sampled positives, if there are any, and figures."""
        if self.positives is None:
            return z, {}
        self.positives.look(self.embedder, batch)
        second = z[1:2]
        sampled, figures = self.positives.replace(second, batch.rows)
        return z if sampled is second else torch.cat([z[:1], sampled, z[2:]]), figures

    def _queued(self) -> Tensor | None:
        """Return the cosines of the rows that the queue holds, (2, M, K), or None."""
        if self.queue is None or self.epoch <= self.queue_start:
            return None
        with torch.no_grad():
            rows = self.queue.rows[:, self.queue.labels >= 0]
            return self.prototypes(rows) if rows.shape[1] else None

    def on_step_end(self, progress: float) -> None:
        self.prototypes.normalise()
        if self.queue is not None:
            self.queue.push()
        if self.positives is not None:
            self.positives.push()

    def on_epoch_end(self, epoch: int) -> dict[str, float]:
        if self.queue is not None:
            self.queue.drop_waiting()
        return self.positives.end_epoch(epoch) if self.positives is not None else {}
