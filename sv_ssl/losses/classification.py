"""Losses of a classifier: margin softmax, which owns its weights, focal, and CLAR's mixture with a contrastive loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.core.distributed import total, world_size
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.losses.geometry import cosines, unit, wide
from sv_ssl.losses.margin import Margin, check_margin
from sv_ssl.losses.rows import Loss, Rows, evaluate, resize, set_progress
from sv_ssl.losses.soft import SoftLabels


class MarginSoftmax(nn.Module):
    """Classify by scale * cosine to one learned row per class, with a margin on the right class: (N, D), (N,) -> ().

    `partial(additive, m=0.2)` makes it AM-softmax (https://arxiv.org/abs/1801.05599), `partial(angular, m=0.2)`
    AAM-softmax (https://arxiv.org/abs/1801.07698). `criterion` takes (logits, labels); with `Focal` it is the focal
    loss on cosines. With SoftLabels it is the cross-entropy of each of a row's classes, with the margin on that class,
    weighted by the shares. Without `n_classes` call `resize` before the first use: a YAML is read before the speakers
    are counted.

    >>> loss = MarginSoftmax(dim=2, n_classes=2, scale=1.0)
    >>> _ = loss.weight.data.copy_(torch.eye(2))
    >>> round(loss(torch.eye(2), torch.tensor([0, 1])).item(), 4)  # log(1 + 1 / e)
    0.3133
    """

    def __init__(
        self,
        dim: int,
        n_classes: int | None = None,
        margin: Margin | None = None,
        scale: float = 30.0,
        criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    ):
        super().__init__()
        check_number("scale", scale, at_least=1e-6)
        check_margin(margin)
        self.dim = dim
        self.margin = margin
        self.scale = scale
        self.criterion = criterion
        self.weight = nn.Parameter(torch.empty(0, dim))
        self.resize(n_classes or 0)

    def resize(self, n_classes: int) -> None:
        """Draw the weights anew, for so many classes."""
        weight = torch.empty(n_classes, self.dim)  # drawn on the CPU: the same numbers for any device
        weight = nn.init.xavier_normal_(weight) if n_classes else weight
        self.weight = nn.Parameter(weight.to(self.weight.device))

    def forward(self, z: Tensor, labels: Tensor | SoftLabels) -> Tensor:
        if not isinstance(labels, SoftLabels):
            return self.criterion(self.logits(z, labels), labels)
        if self.criterion is not F.cross_entropy:
            raise InputError("soft labels are for the criterion cross_entropy alone: leave the criterion out")
        cosine = self.cosines(z)
        smoothing = labels.smoothing
        each = [
            F.cross_entropy(self._margined(cosine, right), right, reduction="none", label_smoothing=smoothing)
            for right in labels.classes.unbind(1)
        ]
        return (torch.stack(each, dim=1) * labels.shares).sum(dim=1).mean()

    def cosines(self, z: Tensor) -> Tensor:
        """Return the cosine of each row with each class: (N, D) -> (N, C)."""
        return cosines(unit(z), unit(self.weight))

    def logits(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return scaled cosines, with the margin on the right class where labels are given: (N, D), (N,) -> (N, C).

        Rows labelled -1 are for a criterion that skips them.
        """
        cosine = self.cosines(z)
        return self.scale * cosine if labels is None else self._margined(cosine, labels)

    def _margined(self, cosine: Tensor, labels: Tensor) -> Tensor:
        if self.margin is not None:
            right = labels.clamp_min(0)[:, None]
            cosine = cosine.scatter(1, right, self.margin(cosine.gather(1, right)))
        return self.scale * cosine


class Penalised(nn.Module):
    """Add penalties to a loss: main(z, labels) + the sum of penalty(h, labels). Rows -> ().

    `main` is a classifier's loss, say. Penalties see h, or z where the two are the same.

    >>> from sv_ssl.losses import ADD
    >>> loss = Penalised(F.cross_entropy, [ADD()])
    >>> rows = Rows(z=torch.zeros(2, 4), labels=torch.tensor([0, 1]), h=torch.eye(2))
    >>> round(loss(rows).item(), 4)  # log 4, and orthogonal classes
    1.3863
    """

    takes_rows = True

    def __init__(self, main: Loss, penalties: Sequence[nn.Module] = ()):
        super().__init__()
        self.main = main
        self.penalties = nn.ModuleList(penalties)

    def forward(self, rows: Rows) -> Tensor:
        loss = evaluate(self.main, rows)
        for penalty in self.penalties:
            loss = loss + evaluate(penalty, rows._replace(z=rows.embeddings))
        return loss

    def set_progress(self, progress: float) -> None:
        """Pass the epochs done on to all parts."""
        for part in (self.main, *self.penalties):
            set_progress(part, progress)

    def resize(self, n_classes: int) -> None:
        """Pass the number of classes on to all parts."""
        for part in (self.main, *self.penalties):
            resize(part, n_classes)


class Focal(nn.Module):
    """Return the mean of alpha[y] * (1 - p_y)^gamma * -log p_y: (N, C), (N,) -> (). gamma = 0 is the cross-entropy.

    https://arxiv.org/abs/1708.02002.

    >>> round(Focal(gamma=2.0)(torch.zeros(1, 2), torch.tensor([0])).item(), 4)  # log(2) / 4
    0.1733
    """

    def __init__(self, gamma: float = 2.0, alpha: Sequence[float] | None = None):
        super().__init__()
        if gamma < 0:
            raise InputError(f"gamma of the focal loss is {gamma}: want 0 or more")
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        entropy = F.cross_entropy(logits, labels, reduction="none")
        # 1 - p without cancellation, and never 0, where a power below 1 has an infinite slope.
        wrong = (-torch.expm1(-entropy)).clamp_min(torch.finfo(entropy.dtype).tiny)
        weight = 1.0 if self.alpha is None else entropy.new_tensor(self.alpha)[labels]
        return (weight * wrong**self.gamma * entropy).mean()


class CLAR(nn.Module):
    """Add a contrastive loss on all rows and the cross-entropy of the labelled ones: Rows -> ().

    https://arxiv.org/abs/2010.09542. `labels` tell which rows are alike (without classes: those of an utterance);
    `targets` are classes, -1 where unknown. A batch without a target gives exactly the contrastive loss. The
    cross-entropy is the mean over the labelled views; with ce_reduction="sum_views", as in the paper, it is the sum
    over the views of the mean in each.

    >>> clar = CLAR(lambda z, labels: z.sum() * 0)
    >>> rows = Rows(torch.ones(2, 3), torch.tensor([0, 0]), targets=torch.tensor([1, -1]), logits=torch.zeros(2, 4))
    >>> round(clar(rows).item(), 4)  # log 4
    1.3863
    """

    takes_rows = True
    needs_logits = True

    def __init__(
        self,
        contrastive: Loss,
        weight: float = 1.0,
        ce_reduction: str = "mean_views",
        n_views: int = 2,
    ):
        super().__init__()
        check_number("weight of the cross-entropy", weight, at_least=0)
        if ce_reduction not in ("mean_views", "sum_views"):
            raise InputError(f"ce_reduction is {ce_reduction!r}: choose mean_views or sum_views")
        self.contrastive = contrastive
        self.weight = weight * (n_views if ce_reduction == "sum_views" else 1)

    def forward(self, rows: Rows) -> Tensor:
        if rows.logits is None or rows.targets is None:
            raise InputError("CLAR needs logits and targets and got none: use the method Labelled, supervision semi")
        return evaluate(self.contrastive, rows) + self.weight * known_cross_entropy(rows.logits, rows.targets)

    def set_progress(self, progress: float) -> None:
        """Pass the epochs done on to the contrastive loss."""
        set_progress(self.contrastive, progress)

    def resize(self, n_classes: int) -> None:
        """Pass the number of classes on to the contrastive loss."""
        resize(self.contrastive, n_classes)


def known_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of rows whose label is not -1, of all processes: (N, C), (N,) -> (). 0 for none.

    >>> known_cross_entropy(torch.zeros(2, 4), torch.tensor([1, -1]))  # log 4
    tensor(1.3863)
    """
    entropy = F.cross_entropy(wide(logits), labels, ignore_index=-1, reduction="sum")
    # Processes may have different numbers of labelled rows: DDP takes the mean of what each has of the whole sum.
    return world_size() * entropy / total((labels >= 0).sum()).clamp_min(1)
