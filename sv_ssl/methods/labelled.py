"""Recordings with labels: contrastive, supervised, and both at once."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.distributed import rank
from sv_ssl.files import InputError

SUPERVISION = ("none", "semi", "full")


class Labelled(nn.Module):
    """(V, B, samples), (B,) -> {"loss": (), "z": (V*B, D)}: h of the embedder, z of the head, logits of the classifier.

    supervision "none": loss(z, labels, h), labels by clip; "full": loss(logits, labels, h), labels by class; "semi":
    loss(z, labels, logits, targets), labels by clip and `targets[label]` their class, -1 where it is not known.

    head     makes the head for a width: `partial(mlp, hidden=512, out=128)`; the classifier then stands on the head
             (BatchNorm, ReLU, a matrix), as CLAR's does, and else is linear on h.
    augment  (B, samples), generator -> the same; for every view of every training step with a generator of its own.
    n_classes  may be unknown until `resize`: a YAML is read before the speakers are counted.
    other    an embedder as wide as the first: the two of them see the same signals, and each makes one view of two
             (CLAR's two formats); the first view's crop and augmentation are used for both.
    mixup    the share of "full" batches whose clips are mixed with others, by Beta(10, 10), and their labels too.
    """

    targets: Tensor

    def __init__(self, embedder: Any, loss: nn.Module, supervision: str, n_classes: int | None,
                 head: Callable[[int], nn.Sequential] | None = None, augment: Callable | None = None,
                 other: Any = None, mixup: float | None = None, seed: int = 0):
        super().__init__()
        if supervision not in SUPERVISION:
            raise InputError(f"supervision is {supervision!r}: choose {', '.join(SUPERVISION)}")
        if mixup is not None and supervision != "full":
            raise InputError("mixup mixes labels, so it wants supervision full")
        if other is not None and other.dim != embedder.dim:
            raise InputError(f"the two embedders are {embedder.dim} and {other.dim} wide: want them alike")
        self.embedder, self.loss, self.supervision, self.other = embedder, loss, supervision, other
        self.head: nn.Module = head(embedder.dim) if head else nn.Identity()
        self.augment, self.mixup, self.seed, self.drawn = augment, mixup, seed, 0
        self.register_buffer("targets", torch.empty(0, dtype=torch.long), persistent=False)
        self.resize(n_classes or 0)

    def resize(self, n_classes: int) -> None:
        """Draw the classifier anew, for so many classes."""
        self.n_classes, self.classifier = n_classes, nn.Module()
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
        if self.training:
            self.drawn += 1
            views = self._augmented(views)
        labels = labels.repeat(len(views))
        rows = views.flatten(0, 1)
        known = labels
        if self.mixup is not None:
            rows, known = self._mixed(rows, labels)
        h = self._embedded(views) if self.other is not None else self.embedder(rows)
        return {"loss": self._loss(h, known), "z": h.detach()}

    def _loss(self, h: Tensor, labels: Tensor) -> Tensor:
        z = self.head(h)
        if self.supervision == "none":
            return self.loss(z, labels, h)
        logits = self.classifier(z)
        return self.loss(logits, labels, h) if self.supervision == "full" else \
            self.loss(z, labels, logits, self.targets[labels])

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
        return torch.stack([self.augment(view, torch.Generator().manual_seed(self._seed(v)))
                            for v, view in enumerate(views)])

    def _embedded(self, views: Tensor) -> Tensor:
        return torch.cat([self.embedder(views[0]), self.other(views[0])])

    def _mixed(self, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(R, T), (R,) -> (R, T), (R, C): each row and its label with a part of another one's."""
        classes = F.one_hot(labels, self.n_classes).float()
        rng = np.random.default_rng(self._seed(-1 % 2 ** 31))
        part, chosen = float(rng.beta(10, 10)), rng.random() < (self.mixup or 0)
        if not (self.training and chosen):
            return rows, classes
        order = torch.from_numpy(rng.permutation(len(rows))).to(rows.device)
        return torch.lerp(rows[order], rows, part), torch.lerp(classes[order], classes, part)

    def after_step(self, epoch: float) -> None:
        """Nothing to do between steps."""

    def end_epoch(self) -> None:
        """Nothing is kept between batches."""
