"""Recordings of which all, some or none have labels: a classifier, CLAR's mixture, or a contrastive loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.data.batch import Batch
from sv_ssl.losses.rows import Loss, Rows, evaluate, resize, set_progress
from sv_ssl.losses.soft import SoftLabels
from sv_ssl.methods.base import Facts, Method, Needs, Step
from sv_ssl.methods.classes import Classes
from sv_ssl.methods.mixup import Mixup
from sv_ssl.models.features import seed_masks

NEEDS = {"none": Needs(views=2), "semi": Needs(views=2, labels="some"), "full": Needs(views=1, labels="all")}


class Labelled(Method):
    """Train an embedder, a head and a classifier: h of the embedder, z of the head. Step.z is h, (V * B, dim).

    "none"  loss(z, labels by recording, h): audio_probes/hparams/acl.yaml, Wang et al., ICASSP 2023.
    "semi"  loss(z, labels by recording, logits, classes, -1 where unknown): CLAR, https://arxiv.org/abs/2010.09542,
            hparams/clar*.yaml, and for speakers voxceleb/hparams/clar_semi.yaml.
    "full"  loss(logits, classes, h): hparams/clar_supervised.yaml, acl_supervised.yaml, add*.yaml.

    head        makes the head for a width: `partial(mlp, hidden=512, out=128)`. The classifier then stands on the head
                (BatchNorm, ReLU, a matrix), as CLAR's does; without a head it is linear on h.
    other       an embedder as wide as the first: both see the same signals, those of the first view, and each makes
                one view of two (CLAR's two formats).
    mixup       mixes the rows of "full" batches, for a loss that takes SoftLabels.
    classifier  a `MarginSoftmax` on z in place of the classifiers above, for "semi".
    """

    def __init__(
        self,
        embedder: Any,
        loss: Loss,
        supervision: str,
        head: Callable[[int], nn.Sequential] | None = None,
        other: Any = None,
        mixup: Mixup | None = None,
        classifier: nn.Module | None = None,
    ):
        super().__init__()
        if supervision not in NEEDS:
            raise InputError(f"supervision is {supervision!r}: choose {', '.join(NEEDS)}")
        if mixup is not None and supervision != "full":
            raise InputError("mixup mixes labels, so it wants supervision full")
        if mixup is not None and other is not None:
            raise InputError("mixup is for one embedder, and two are given: leave mixup or other out")
        if supervision == "semi" and not getattr(loss, "needs_logits", False):
            raise InputError(f"supervision semi wants the loss CLAR, not {type(loss).__name__}")
        if classifier is not None and supervision != "semi":
            raise InputError("a margin softmax is the classifier of supervision semi")
        if other is not None and other.dim != embedder.dim:
            raise InputError(f"the two embedders are {embedder.dim} and {other.dim} wide: want them alike")
        self.embedder = embedder
        self.loss = loss
        self.supervision = supervision
        self.needs = NEEDS[supervision] if other is None else NEEDS[supervision]._replace(views=2)
        self.other = other
        self.mixup = mixup
        self.with_head = head is not None
        self.head: nn.Module = head(embedder.dim) if head else nn.Identity()
        self.classes = Classes()
        self.classifier: nn.Module = classifier or nn.Module()
        self.own_classifier = classifier is None  # made here, as soon as the classes are counted

    def prepare(self, facts: Facts) -> None:
        seed_masks(self, facts.seed)
        if self.supervision == "none":
            return  # without a classifier: DDP waits for the gradient of every parameter that can have one
        self.classes.prepare(facts, all_known=self.supervision == "full")
        if self.own_classifier:
            self.classifier = self._classifier(facts.n_classes).to(self.classes.of_row.device)
        for part in (self.classifier, self.loss, self.mixup):
            resize(part, facts.n_classes)

    def on_step_start(self, progress: float) -> None:
        set_progress(self.loss, progress)

    def forward(self, batch: Batch) -> Step:
        views = batch.views
        self._check(views, batch.short)
        labels, classes = self._labels(batch)
        waves = views.flatten(0, 1)
        mixed_labels: Tensor | SoftLabels = labels
        if self.mixup is not None:
            waves, mixed_labels = self.mixup(waves, labels)
        h = self.embedder(waves) if self.other is None else self._two_formats(views[0])
        return Step(evaluate(self.loss, self._rows(h, mixed_labels, classes)), h.detach(), labels)

    def logits(self, wave: Tensor) -> Tensor:
        """Classify recordings: (B, samples) -> (B, n_classes)."""
        return self._logits(self.head(self.embedder(wave)))

    def _check(self, views: Tensor, short: Tensor | None) -> None:
        if short is not None:
            raise InputError("short crops are for contrastive losses without labels: pass --n_short 0")
        if len(views) < self.needs.views or len(views) != 2 and self.other is not None:
            raise InputError(f"{len(views)} views of a clip cannot be compared: pass --n_views 2")

    def _labels(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return labels that are equal for rows that should be alike, and the classes, if they are used."""
        recordings = batch.rows.repeat(len(batch.views))
        if self.supervision == "none":
            return recordings, None
        classes = self.classes(batch).repeat(len(batch.views))
        return (classes if self.supervision == "full" else recordings), classes

    def _rows(self, h: Tensor, labels: Tensor | SoftLabels, classes: Tensor | None) -> Rows:
        z = self.head(h)
        if self.supervision == "none":
            return Rows(z, labels, h)
        logits = self._logits(z, classes)
        return Rows(logits if self.supervision == "full" else z, labels, h, classes, logits)

    def _logits(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.classifier(z) if self.own_classifier else self.classifier.logits(z, classes)  # type: ignore[operator]

    def _classifier(self, n_classes: int) -> nn.Module:
        if not self.with_head:
            return nn.Linear(self.embedder.dim, n_classes)
        width = int(self.head[-1].out_features)  # type: ignore[index, arg-type]
        return nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, n_classes, bias=False))

    def _two_formats(self, view: Tensor) -> Tensor:
        """Embed one view with both embedders: (B, samples) -> (2 * B, dim)."""
        return torch.cat([self.embedder(view), self.other(view)])
