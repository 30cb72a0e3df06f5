"""Recordings with labels: contrastive, supervised, and both at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sv_ssl.core.distributed import rank
from sv_ssl.core.errors import InputError
from sv_ssl.losses.classification import CLAR, MarginSoftmax
from sv_ssl.methods.mixup import Mixup

SUPERVISION = ("none", "semi", "full")


class Labelled(nn.Module):
    """(V, B, samples), (B,) -> {"loss": (), "z": (V*B, D)}: h of the embedder, z of the head, logits of the classifier.

    supervision "none": loss(z, labels, h), labels by clip; "full": loss(logits, labels, h), labels by class; "semi":
    loss(z, labels, logits, targets), labels by clip and `targets[label]` their class, -1 where it is not known.

    head     makes the head for a width: `partial(mlp, hidden=512, out=128)`; the classifier then stands on the head
             (BatchNorm, ReLU, a matrix), as CLAR's does, and else is linear on h.
    augment  (B, samples), generator -> the same; for every view of every training step with a generator of its own.
    n_classes  may be unknown until `resize`: a YAML is read before the speakers are counted.
    classifier a margin softmax on z in place of those, for "semi".
    other    an embedder as wide as the first: the two of them see the same signals, and each makes one view of two
             (CLAR's two formats); the first view's crop and augmentation are used for both.
    mixup    mixes the rows of "full" batches, for a loss that takes SoftLabels.
    """

    targets: Tensor

    def __init__(
        self,
        embedder: Any,
        loss: nn.Module,
        supervision: str,
        n_classes: int | None,
        head: Callable[[int], nn.Sequential] | None = None,
        augment: Callable | None = None,
        other: Any = None,
        mixup: Mixup | None = None,
        classifier: MarginSoftmax | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if supervision not in SUPERVISION:
            raise InputError(f"supervision is {supervision!r}: choose {', '.join(SUPERVISION)}")
        if mixup is not None and supervision != "full":
            raise InputError("mixup mixes labels, so it wants supervision full")
        if supervision == "semi" and not isinstance(loss, CLAR):
            raise InputError(f"supervision semi wants the loss CLAR, not {type(loss).__name__}")
        if classifier is not None and supervision != "semi":
            raise InputError("a margin softmax is the classifier of supervision semi")
        if other is not None and other.dim != embedder.dim:
            raise InputError(f"the two embedders are {embedder.dim} and {other.dim} wide: want them alike")
        self.embedder, self.loss, self.supervision, self.other = embedder, loss, supervision, other
        self.head: nn.Module = head(embedder.dim) if head else nn.Identity()
        self.augment, self.mixup, self.seed, self.drawn = augment, mixup, seed, 0
        self.register_buffer("targets", torch.empty(0, dtype=torch.long), persistent=False)
        self.classifier: nn.Module = classifier or nn.Module()
        self.resize(n_classes or 0)

    def resize(self, n_classes: int) -> None:
        """Draw the classifier anew, for so many classes."""
        if isinstance(self.classifier, MarginSoftmax):
            return  # it is resized by itself
        self.classifier = nn.Module()
        if not n_classes:
            return
        if isinstance(self.head, nn.Sequential):
            width = int(self.head[-1].out_features)  # type: ignore[arg-type]
            self.classifier = nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, n_classes, bias=False))
        else:
            self.classifier = nn.Linear(self.embedder.dim, n_classes)
        self.classifier.requires_grad_(self.supervision != "none")  # DDP waits for the gradient of all that wants one

    def get_extra_state(self) -> int:
        return self.drawn

    def set_extra_state(self, state: int) -> None:
        self.drawn = state

    def forward(self, views: Tensor, labels: Tensor, short: Tensor | None = None) -> dict[str, Tensor]:
        if short is not None:
            raise InputError("short crops are for contrastive losses without labels: pass --n_short 0")
        if len(views) < 2 and self.supervision != "full" or len(views) != 2 and self.other is not None:
            raise InputError(f"{len(views)} views of a clip cannot be compared: pass --n_views 2")
        if self.training:
            self.drawn += 1
            views = self._augmented(views)
        rows, known = views.flatten(0, 1), labels.repeat(len(views))
        if self.mixup is not None:
            rows, known = self.mixup(rows, known)
        h = self._embedded(views) if self.other is not None else self.embedder(rows)
        return {"loss": self._loss(h, known), "z": h.detach()}

    def _loss(self, h: Tensor, labels: Tensor) -> Tensor:
        z = self.head(h)
        if self.supervision == "none":
            return self.loss(z, labels, h)
        if self.supervision == "full":
            return self.loss(self.classifier(z), labels, h)
        targets, classifier = self.targets[labels], self.classifier
        logits = classifier.logits(z, targets) if isinstance(classifier, MarginSoftmax) else classifier(z)
        return self.loss(z, labels, logits, targets)

    def logits(self, wave: Tensor) -> Tensor:
        """(B, samples) -> (B, n_classes)."""
        return self.classifier(self.head(self.embedder(wave)))

    def _seed(self, what: int) -> int:
        """A number for this step, this process and `what`."""
        drawn = np.random.SeedSequence((self.seed, rank(), self.drawn, what)).generate_state(1, np.uint64)[0]
        return int(drawn >> np.uint64(1))

    def _augmented(self, views: Tensor) -> Tensor:
        if self.augment is None:
            return views
        return torch.stack(
            [self.augment(view, torch.Generator().manual_seed(self._seed(v))) for v, view in enumerate(views)]
        )

    def _embedded(self, views: Tensor) -> Tensor:
        return torch.cat([self.embedder(views[0]), self.other(views[0])])

    def after_step(self, epoch: float) -> None:
        """Nothing to do between steps."""

    def end_epoch(self) -> None:
        """Nothing is kept between batches."""
