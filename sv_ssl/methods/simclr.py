"""One encoder for all views: SimCLR, its margins and angles, and the same with labels."""

from __future__ import annotations

from torch import Tensor, nn

from sv_ssl.core.distributed import gather, gather_plain
from sv_ssl.core.errors import InputError
from sv_ssl.data.batch import Batch
from sv_ssl.losses.rows import Loss, Rows, evaluate, resize, set_progress
from sv_ssl.methods.base import Facts, Method, Needs, Step
from sv_ssl.methods.classes import Classes
from sv_ssl.methods.mixup import Mixup
from sv_ssl.models.features import seed_masks

LABELS = ("utterance", "speaker")


class SimCLR(Method):
    """Embed all views with one encoder and compare them: loss(head(embedder(views)), labels). Step.z is (V * B, P).

    With `NTXent` and labels "utterance" (rows of one recording are alike) it is SimCLR, https://arxiv.org/abs/2002.05709:
    hparams/ntxent.yaml, sym.yaml, am.yaml, aam.yaml, acl.yaml and their variants. With labels "speaker" (rows of one
    class are alike, looked up in Facts.classes) it is supervised: supcon.yaml with `NTXent`, am_softmax.yaml,
    aam_softmax.yaml, add_hard.yaml and add_soft.yaml with `MarginSoftmax`.

    Short crops are compared with the long ones of all recordings, and never with each other; the loss needs a method
    `against`, as `NTXent` has. `mixup` mixes the rows, for a loss that takes SoftLabels.
    """

    def __init__(
        self,
        embedder: nn.Module,
        loss: Loss,
        head: nn.Module | None = None,
        mixup: Mixup | None = None,
        labels: str = "utterance",
    ):
        super().__init__()
        if labels not in LABELS:
            raise InputError(f"labels is {labels!r}: choose {' or '.join(LABELS)}")
        if getattr(loss, "takes_queue", False):
            raise InputError(f"{type(loss).__name__} compares with a queue, which SimCLR has not: use MoCo")
        self.embedder = embedder
        self.loss = loss
        self.head = head or nn.Identity()
        self.mixup = mixup
        self.by_class = labels == "speaker"
        self.classes = Classes()
        # A classifier can do with one view of each recording.
        self.needs = Needs(
            views=1 if self.by_class else 2,
            short=hasattr(loss, "against"),
            labels="all" if self.by_class else "none",
        )

    def prepare(self, facts: Facts) -> None:
        seed_masks(self, facts.seed)
        if not self.by_class:
            return
        self.classes.prepare(facts, all_known=True)
        resize(self.loss, facts.n_classes)
        if self.mixup is not None:
            self.mixup.resize(facts.n_classes)

    def on_step_start(self, progress: float) -> None:
        set_progress(self.loss, progress)

    def forward(self, batch: Batch) -> Step:
        labels = self.classes(batch) if self.by_class else batch.rows
        waves = batch.views.flatten(0, 1)
        row_labels = mixed_labels = labels.repeat(len(batch.views))
        if self.mixup is not None:
            waves, mixed_labels = self.mixup(waves, row_labels)
        h = self.embedder(waves)  # (V * B, dim): one pass of the encoder
        z = self.head(h)
        loss = evaluate(self.loss, Rows(z, mixed_labels, h=h))
        if batch.short is not None:
            loss = loss + self._of_short_crops(batch.short, labels, z, row_labels)
        return Step(loss, z.detach(), row_labels)

    def _of_short_crops(self, short: Tensor, labels: Tensor, keys: Tensor, key_labels: Tensor) -> Tensor:
        if not self.needs.short:
            raise InputError(
                f"short crops are compared with long ones by NTXent, not by {type(self.loss).__name__}: "
                "pass --n_short 0"
            )
        z = self.head(self.embedder(short.flatten(0, 1)))
        return self.loss.against(z, labels.repeat(len(short)), gather(keys), gather_plain(key_labels))  # type: ignore[attr-defined]
