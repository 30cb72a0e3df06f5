"""SDPN: short augmented crops predict the prototypes of a long clean crop, which a teacher assigns evenly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.data.batch import Batch
from sv_ssl.losses.rows import set_progress
from sv_ssl.losses.sdpn_loss import fro_norm
from sv_ssl.methods.base import Facts, Method, Needs, Step
from sv_ssl.methods.ema import Ema, copy_weights, slow_copy
from sv_ssl.methods.groups import without_decay
from sv_ssl.methods.positives import Positives
from sv_ssl.methods.usage import of_targets
from sv_ssl.models.features import seed_masks
from sv_ssl.models.heads import Bottleneck, Prototypes

KINDS = ("shared", "ema")


class SDPN(Method):
    """Predict the prototypes of a clean crop: loss(cosines of short crops, of the clean one, h). Step.z is (S * B, P).

    Chen et al., ICASSP 2025, and its regulariser of Interspeech 2025; hparams/sdpn.yaml and sdpn_fro.yaml. The model
    that is kept is the teacher's embedder, which sees clean crops alone.

    ema              weight of the old teacher: a number, or a function of the epochs done
    teacher_uses     "shared": student and teacher have the same prototypes, whose gradient comes from the student;
                     "ema": the teacher has a slow copy of its own
    fro_weight       of the regulariser of 2025: log of Frobenius' norm of the correlations of the head's outputs, of
                     student and teacher
    prototypes_rate  multiplies the prototypes' learning rate. The published runs add up what each of 4 GPUs finds, so
                     theirs learn 4 times faster.
    positives        what the teacher says of another recording, in place of the row's own
    """

    def __init__(
        self,
        embedder: Any,
        head: Bottleneck,
        prototypes: Prototypes,
        loss: Any,
        ema: float | Callable[[float], float] = 0.996,
        teacher_uses: str = "shared",
        fro_weight: float = 0.0,
        prototypes_rate: float = 1.0,
        positives: Positives | None = None,
    ):
        super().__init__()
        if teacher_uses not in KINDS:
            raise InputError(f"teacher_uses is {teacher_uses!r}: choose {' or '.join(KINDS)}")
        self.embedder = embedder
        self.head = head
        self.prototypes = prototypes
        self.loss = loss
        self.positives = positives
        self.fro_weight = fro_weight
        self.prototypes_rate = prototypes_rate
        self.teacher = nn.ModuleList([slow_copy(embedder), slow_copy(head)])
        self.slow_prototypes = slow_copy(prototypes) if teacher_uses == "ema" else None
        self.ema = Ema(ema)
        self.needs = Needs(views=0, short=True, clean=1)

    def prepare(self, facts: Facts) -> None:
        seed_masks(self, facts.seed)
        if self.positives is not None:
            self.positives.prepare(facts, self.embedder.dim, self.head.dim)

    def weights_loaded(self) -> None:
        copy_weights(self.teacher[0], self.embedder)

    def embedder_to_keep(self) -> nn.Module:
        return self.teacher[0]

    def parameter_groups(self) -> list[dict[str, Any]]:
        return without_decay(self, self.prototypes, lr_scale=self.prototypes_rate)

    def on_epoch_start(self, epoch: int) -> None:
        self.prototypes.start_epoch(epoch)
        if self.positives is not None:
            self.positives.start_epoch(epoch)

    def on_step_start(self, progress: float) -> None:
        set_progress(self.loss, progress)

    def forward(self, batch: Batch) -> Step:
        if len(batch.views) or batch.short is None or batch.clean is None:
            raise InputError(
                f"SDPN takes short crops and a clean one, {len(batch.views)} long ones came: "
                "pass --n_views 0 --n_short 4 --n_clean 1"
            )
        short = batch.short
        h = self.embedder(short.flatten(0, 1))
        z = self.head(h)  # (S * B, P)
        z_of_teacher, said, figures = self._taught(batch)  # (B, P), (B, K)
        student = self.prototypes(z).unflatten(0, short.shape[:2])
        parts = self.loss(student, said, h.unflatten(0, short.shape[:2]))
        figures |= of_targets(parts.targets[None], parts.ce.detach())
        figures |= {"me_max": parts.me_max.detach(), "koleo": parts.koleo.detach()}
        loss = parts.total
        if self.fro_weight:
            spread = fro_norm(z) + fro_norm(z_of_teacher)
            figures["fro_norm"] = spread.detach()
            loss = loss + self.fro_weight * spread
        return Step(loss, z.detach(), batch.rows.repeat(len(short)), figures, h.detach())

    @torch.no_grad()
    def _taught(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return what the teacher makes of clean crops, (B, P), its cosines with the prototypes, (B, K), and figures.

        With sampled positives the cosines are those of the positives.
        """
        assert batch.clean is not None
        embedder, head = self.teacher
        z = head(embedder(batch.clean[0]))
        target = z[None]
        figures: dict[str, Tensor] = {}
        if self.positives is not None:
            self.positives.look(embedder, batch)
            target, figures = self.positives.replace(target, batch.rows)
        return z, (self.slow_prototypes or self.prototypes)(target[0]), figures

    def on_step_end(self, progress: float) -> None:
        self.prototypes.normalise()
        for slow, fast in zip(self.teacher, (self.embedder, self.head)):
            self.ema.update(slow, fast, progress)
        if self.slow_prototypes is not None:
            self.ema.update(self.slow_prototypes, self.prototypes, progress)
        if self.positives is not None:
            self.positives.push()

    def on_epoch_end(self, epoch: int) -> dict[str, float]:
        return self.positives.end_epoch(epoch) if self.positives is not None else {}
