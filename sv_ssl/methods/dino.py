"""DINO: a student that sees short crops predicts what a slow teacher says of long ones, over many prototypes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.data.batch import Batch
from sv_ssl.losses.rows import set_progress
from sv_ssl.methods.base import Facts, Method, Needs, Step
from sv_ssl.methods.ema import Ema, copy_weights, slow_copy
from sv_ssl.methods.groups import without_decay
from sv_ssl.methods.positives import Positives
from sv_ssl.methods.usage import of_targets
from sv_ssl.models.features import seed_masks
from sv_ssl.models.heads import Bottleneck, Prototypes


class DINO(Method):
    """Predict the teacher's distribution over prototypes: loss(student's cosines, teacher's). Step.z is (G * B, P).

    Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294; for speakers hparams/dino.yaml, and rdino.yaml with
    `diversity`, a regulariser of the wide layer of both heads. The model that is kept is the teacher's embedder.

    The teacher's BatchNorm statistics are those of its own batches, of long crops alone. The encoder passes once for
    each length of crops, the head once for all crops together.

    ema        weight of the old teacher: a number, or a function of the epochs done
    diversity  called with the wide layers (G, B, W) of student and teacher; its result is added to the loss
    diversity_weight  multiplies it: a number, or a function of the epochs done
    positives  what the teacher says of another recording, in place of the row's own
    """

    def __init__(
        self,
        embedder: Any,
        head: Bottleneck,
        prototypes: Prototypes,
        loss: Any,
        ema: float | Callable[[float], float] = 0.996,
        diversity: Callable[[Tensor, Tensor], Tensor] | None = None,
        diversity_weight: float | Callable[[float], float] = 0.2,
        positives: Positives | None = None,
    ):
        super().__init__()
        self.embedder = embedder
        self.head = head
        self.prototypes = prototypes
        self.loss = loss
        self.diversity = diversity
        self.diversity_weight = diversity_weight
        self.progress = 0.0
        self.positives = positives
        self.teacher = nn.ModuleList(slow_copy(module) for module in (embedder, head, prototypes))
        self.ema = Ema(ema)
        self.needs = Needs(views=2, short=True, clean=1 if positives is not None else 0)
        self.means: list[Tensor] = []  # of what the teacher said since the last step, for the loss's centre

    def prepare(self, facts: Facts) -> None:
        seed_masks(self, facts.seed)
        if self.positives is not None:
            self.positives.prepare(facts, self.embedder.dim, self.head.dim, lanes=self.needs.views)

    def weights_loaded(self) -> None:
        copy_weights(self.teacher[0], self.embedder)

    def embedder_to_keep(self) -> nn.Module:
        return self.teacher[0]

    def parameter_groups(self) -> list[dict[str, Any]]:
        return without_decay(self, self.prototypes)

    def on_epoch_start(self, epoch: int) -> None:
        self.prototypes.start_epoch(epoch)
        if self.positives is not None:
            self.positives.start_epoch(epoch)

    def on_step_start(self, progress: float) -> None:
        self.progress = progress
        set_progress(self.loss, progress)

    def forward(self, batch: Batch) -> Step:
        views = batch.views
        if len(views) != 2 or batch.short is None:
            raise InputError(
                f"DINO compares 2 long crops and short ones, {len(views)} long ones came: pass --n_views 2 --n_short 4"
            )
        n_long = len(views) * views.shape[1]
        h = self.embedder(views.flatten(0, 1))
        h_short = self.embedder(batch.short.flatten(0, 1))
        wide = self.head.wide(torch.cat([h, h_short]))
        z = self.head.narrow(wide)  # ((V + S) * B, P)
        wide_of_teacher, z_of_teacher = self._taught(views)  # (V, B, W), (V, B, P)
        targets = z_of_teacher
        figures: dict[str, Tensor] = {}
        if self.positives is not None:
            self.positives.look(self.teacher[0], batch)
            targets, figures = self.positives.replace(z_of_teacher, batch.rows)
        said = self._says(targets)
        # The centre follows what the teacher says of its own crops. Of equal rows the mean is kept: logits are large.
        self.means.append((said if targets is z_of_teacher else self._says(z_of_teacher)).mean((0, 1), keepdim=True))
        wanted = self.loss.targets(said)
        del said
        crops = z.unflatten(0, (-1, views.shape[1]))
        loss = self.loss.compare([partial(self.prototypes, crop) for crop in crops], wanted)
        figures |= of_targets(wanted, loss.detach())
        if self.diversity is not None:
            extra = self.diversity(wide[:n_long].unflatten(0, views.shape[:2]), wide_of_teacher)
            figures["diversity"] = extra.detach()
            weight = self.diversity_weight
            loss = loss + (weight(self.progress) if callable(weight) else weight) * extra
        return Step(loss, z[:n_long].detach(), batch.rows.repeat(len(views)), figures, h.detach())

    @torch.no_grad()
    def _taught(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return the wide layer and the bottleneck of the teacher: (V, B, T) -> (V, B, W), (V, B, P)."""
        embedder: Any = self.teacher[0]
        head: Any = self.teacher[1]
        wide = head.wide(embedder(views.flatten(0, 1)))
        return wide.unflatten(0, views.shape[:2]), head.narrow(wide).unflatten(0, views.shape[:2])

    @torch.no_grad()
    def _says(self, z: Tensor) -> Tensor:
        """Return the teacher's cosines with its prototypes: (G, B, P) -> (G, B, K)."""
        return self.teacher[2](z)

    def on_step_end(self, progress: float) -> None:
        """Move the teacher and the centre, by what it said of its own crops."""
        self.prototypes.normalise()
        for slow, fast in zip(self.teacher, (self.embedder, self.head, self.prototypes)):
            self.ema.update(slow, fast, progress)
        for mean in self.means:
            self.loss.update(mean)
        self.means.clear()
        if self.positives is not None:
            self.positives.push()

    def on_epoch_end(self, epoch: int) -> dict[str, float]:
        self.means.clear()
        return self.positives.end_epoch(epoch) if self.positives is not None else {}
