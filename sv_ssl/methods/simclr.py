"""One encoder for all views: SimCLR, its margins and angles, and the same with labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sv_ssl.core.distributed import gather, gather_plain
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.data.batch import Batch
from sv_ssl.losses.rows import Loss, Rows, evaluate, logged, resize, set_progress
from sv_ssl.methods.base import Facts, Method, Needs, Step
from sv_ssl.methods.classes import Classes
from sv_ssl.methods.mixup import Mixup
from sv_ssl.methods.positives import Positives
from sv_ssl.models.features import seed_masks
from sv_ssl.models.heads import width

LABELS = ("utterance", "speaker")


class SimCLR(Method):
    """Embed all views with one encoder and compare them: loss(head(embedder(views)), labels). Step.z is (V * B, P).

    With `NTXent` and labels "utterance" (rows of one recording are alike) it is SimCLR, https://arxiv.org/abs/2002.05709:
    hparams/ntxent.yaml, sym.yaml, am.yaml, aam.yaml, acl.yaml and their variants. With labels "speaker" (rows of one
    class are alike, looked up in Facts.classes) it is supervised: supcon.yaml with `NTXent`, am_softmax.yaml,
    aam_softmax.yaml, add_hard.yaml and add_soft.yaml with `MarginSoftmax`.

    Short crops are compared with the long ones of all recordings, and never with each other; the loss needs a method
    `against`, as `NTXent` has. `mixup` mixes the rows, for a loss that takes SoftLabels. `positives` replaces the
    second of two views: SSPS, ssps.yaml. `clean_views` crops without noises and rooms are views too, the last ones
    (Gan et al. 2023): clean_segments.yaml. The losses of `losses.vicreg` and `losses.lejepa` are used in the same way.
    """

    def __init__(
        self,
        embedder: nn.Module,
        loss: Loss,
        head: nn.Module | None = None,
        mixup: Mixup | None = None,
        labels: str = "utterance",
        positives: Positives | None = None,
        clean_views: int = 0,
    ):
        super().__init__()
        if labels not in LABELS:
            raise InputError(f"labels is {labels!r}: choose {' or '.join(LABELS)}")
        if getattr(loss, "takes_queue", False):
            raise InputError(f"{type(loss).__name__} compares with a queue, which SimCLR has not: use MoCo")
        if positives is not None and labels != "utterance":
            raise InputError(
                "positives are sampled where labels are unknown: pass --labels utterance, or leave them out"
            )
        if positives is not None and (mixup is not None or getattr(loss, "takes_rows", False)):
            raise InputError(
                "positives take the place of rows of z alone: leave mixup out, and losses of embeddings, which "
                f"{type(loss).__name__} may have"
            )
        check_number("clean_views", clean_views, at_least=0, whole=True)
        if clean_views and (positives is not None or mixup is not None):
            raise InputError("clean crops as views go with neither sampled positives nor mixup: pass --n_clean 0")
        self.embedder = embedder
        self.loss = loss
        self.head = head or nn.Identity()
        self.mixup = mixup
        self.positives = positives
        self.clean_views = clean_views
        self.by_class = labels == "speaker"
        self.classes = Classes()
        # A classifier can do with one view of each recording.
        self.needs = Needs(
            views=1 if self.by_class else 2,
            short=hasattr(loss, "against"),
            labels="all" if self.by_class else "none",
            clean=1 if positives is not None else clean_views,
        )

    def prepare(self, facts: Facts) -> None:
        seed_masks(self, facts.seed)
        if self.positives is not None:
            self.positives.prepare(facts, self.embedder.dim, width(self.head, self.embedder.dim))
        if not self.by_class:
            return
        self.classes.prepare(facts, all_known=True)
        resize(self.loss, facts.n_classes)
        if self.mixup is not None:
            self.mixup.resize(facts.n_classes)

    def on_epoch_start(self, epoch: int) -> None:
        if self.positives is not None:
            self.positives.start_epoch(epoch)

    def on_step_start(self, progress: float) -> None:
        set_progress(self.loss, progress)

    def on_step_end(self, progress: float) -> None:
        if self.positives is not None:
            self.positives.push()

    def on_epoch_end(self, epoch: int) -> dict[str, float]:
        return self.positives.end_epoch(epoch) if self.positives is not None else {}

    def forward(self, batch: Batch) -> Step:
        labels = self.classes(batch) if self.by_class else batch.rows
        parts = self._parts(batch)
        row_labels = mixed_labels = labels.repeat(sum(map(len, parts)))
        waves = [views.flatten(0, 1) for views in parts]
        if self.mixup is not None:
            waves[0], mixed_labels = self.mixup(waves[0], row_labels)
        h = torch.cat([self.embedder(rows) for rows in waves])  # (V * B, dim)
        z = self.head(h)
        compared, figures = (z, {}) if self.positives is None else self._sampled(z, batch)
        loss = evaluate(self.loss, Rows(compared, mixed_labels, h=h))
        if batch.short is not None:
            loss = loss + self._of_short_crops(batch.short, labels, z, row_labels)
        return Step(loss, z.detach(), row_labels, {**logged(self.loss), **figures}, h.detach())

    def _parts(self, batch: Batch) -> list[Tensor]:
        """Return the views as they pass the encoder: all at once, but clean ones of another length by themselves."""
        if not self.clean_views or batch.clean is None:
            return [batch.views]
        if batch.clean.shape[2] == batch.views.shape[2]:
            return [torch.cat([batch.views, batch.clean])]
        return [batch.views, batch.clean]

    def _sampled(self, z: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return z with its second view replaced by sampled positives, and what is to be logged of them."""
        assert self.positives is not None
        if len(batch.views) != 2:
            raise InputError(f"positives take the place of the second view of 2, {len(batch.views)} came: --n_views 2")
        self.positives.look(self.embedder, batch)
        first, second = z.unflatten(0, (2, -1)).split(1)  # (1, B, P) each
        sampled, figures = self.positives.replace(second, batch.rows)
        # Where nothing was replaced z itself: a copy would change how its gradients are summed, and so their rounding.
        return z if sampled is second else torch.cat([first[0], sampled[0]]), figures

    def _of_short_crops(self, short: Tensor, labels: Tensor, keys: Tensor, key_labels: Tensor) -> Tensor:
        if not self.needs.short:
            raise InputError(
                f"short crops are compared with long ones by NTXent, not by {type(self.loss).__name__}: "
                "pass --n_short 0"
            )
        z = self.head(self.embedder(short.flatten(0, 1)))
        return self.loss.against(z, labels.repeat(len(short)), gather(keys), gather_plain(key_labels))  # type: ignore[attr-defined]
