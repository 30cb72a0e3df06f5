"""Losses of a classifier: margin softmax (it owns its weights), focal, and CLAR's mixture with a contrastive loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.core.distributed import total, world_size
from sv_ssl.core.errors import InputError
from sv_ssl.losses.geometry import cosines, unit
from sv_ssl.losses.margin import Margin
from sv_ssl.losses.soft import SoftLabels


class MarginSoftmax(nn.Module):
    """(N, D), (N,) -> (): softmax over scale * cosine to one learned row per class, with a margin on the right class.

    `partial(additive, m=0.2)` makes it AM-softmax, `partial(angular, m=0.2)` AAM-softmax. `criterion` takes
    (logits, labels); with `Focal` it is the focal loss on cosines. Of SoftLabels it is the cross-entropy of each of a
    row's classes, with the margin on that one, by their shares. Without `n_classes` call `resize` before the first
    use: a YAML is read before the speakers are counted.

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
        self.dim, self.margin, self.scale, self.criterion = dim, margin, scale, criterion
        self.resize(n_classes or 0)

    def resize(self, n_classes: int) -> None:
        """Draw the weights anew, for so many classes."""
        weight = torch.empty(n_classes, self.dim)
        self.weight = nn.Parameter(nn.init.xavier_normal_(weight) if n_classes else weight)

    def forward(self, z: Tensor, labels: Tensor | SoftLabels) -> Tensor:
        if not isinstance(labels, SoftLabels):
            return self.criterion(self.logits(z, labels), labels)
        if self.criterion is not F.cross_entropy:
            raise InputError("soft labels are for the criterion cross_entropy alone")
        cosine = self.cosines(z)
        smoothing = labels.smoothing
        each = [
            F.cross_entropy(self._margined(cosine, right), right, reduction="none", label_smoothing=smoothing)
            for right in labels.classes.unbind(1)
        ]
        return (torch.stack(each, dim=1) * labels.shares).sum(dim=1).mean()

    def cosines(self, z: Tensor) -> Tensor:
        """(N, D) -> (N, C)."""
        return cosines(unit(z), unit(self.weight))

    def logits(self, z: Tensor, labels: Tensor) -> Tensor:
        """(N, D), (N,) -> (N, C), margin included; rows labelled -1 are for a criterion that skips them."""
        return self._margined(self.cosines(z), labels)

    def _margined(self, cosine: Tensor, labels: Tensor) -> Tensor:
        if self.margin is not None:
            right = labels.clamp_min(0)[:, None]
            cosine = cosine.scatter(1, right, self.margin(cosine.gather(1, right)))
        return self.scale * cosine


class Penalised(nn.Module):
    """(N, D), (N,), (N, H) -> (): main(z, labels), say a classifier's, + the sum of penalty(h, labels), h or else z.

    >>> from sv_ssl.losses import ADD
    >>> loss = Penalised(F.cross_entropy, [ADD()])
    >>> round(loss(torch.zeros(2, 4), torch.tensor([0, 1]), torch.eye(2)).item(), 4)  # log 4, and orthogonal classes
    1.3863
    """

    def __init__(self, main: Callable[[Tensor, Tensor], Tensor], penalties: Sequence[nn.Module] = ()):
        super().__init__()
        self.main, self.penalties = main, nn.ModuleList(penalties)

    def forward(self, z: Tensor, labels: Tensor, h: Tensor | None = None) -> Tensor:
        total = self.main(z, labels)
        for penalty in self.penalties:
            total = total + penalty(z if h is None else h, labels)
        return total


class Focal(nn.Module):
    """(N, C), (N,) -> (): mean of alpha[y] * (1 - p_y)^gamma * -log p_y; gamma = 0 is the cross-entropy.

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
    """(R, D), (R,), (R, C), (R,) -> (): a contrastive loss on all rows (views), cross-entropy on the labelled ones.

    `labels` make the positives (of unlabelled audio: the utterance); `targets` are classes, -1 where unknown. A batch
    without any target gives exactly the contrastive loss. The cross-entropy is the mean over the labelled views; with
    ce_reduction="sum_views", as in the paper, it is the sum over the views of the mean in each.

    >>> clar = CLAR(lambda z, labels: z.sum() * 0)
    >>> z, logits = torch.ones(2, 3), torch.zeros(2, 4)
    >>> round(clar(z, torch.tensor([0, 0]), logits, targets=torch.tensor([1, -1])).item(), 4)  # log 4
    1.3863
    """

    def __init__(
        self,
        contrastive: Callable[[Tensor, Tensor], Tensor],
        weight: float = 1.0,
        ce_reduction: str = "mean_views",
        n_views: int = 2,
    ):
        super().__init__()
        if ce_reduction not in ("mean_views", "sum_views"):
            raise InputError(f"ce_reduction is {ce_reduction!r}: choose mean_views or sum_views")
        self.contrastive = contrastive
        self.weight = weight * (n_views if ce_reduction == "sum_views" else 1)

    def forward(self, z: Tensor, labels: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        entropy = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
        # Processes may have different numbers of labelled rows: DDP takes the mean of what each has of the whole sum.
        known = total((targets >= 0).sum()).clamp_min(1)
        return self.contrastive(z, labels) + self.weight * world_size() * entropy / known
