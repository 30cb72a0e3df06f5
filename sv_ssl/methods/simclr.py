"""One encoder for all views: SimCLR, and every other loss of `(z, labels)`."""

from __future__ import annotations

from torch import Tensor, nn

from sv_ssl.core.distributed import gather, gather_plain
from sv_ssl.core.errors import InputError
from sv_ssl.losses.angular import ACL
from sv_ssl.losses.contrastive import NTXent
from sv_ssl.methods.mixup import Mixup


class Siamese(nn.Module):
    """(V, B, samples), (B,), [(S, B, fewer samples)] -> {"loss": (), "z": (V*B, P)}.

    Labels by utterance make it SimCLR (with `NTXent`), labels by speaker make it supervised. Short crops, where there
    are any, are compared with the long ones of all utterances and never with each other. `mixup` mixes the rows, for a
    loss that takes SoftLabels.
    """

    def __init__(self, embedder: nn.Module, loss: nn.Module, head: nn.Module | None = None, mixup: Mixup | None = None):
        super().__init__()
        self.embedder, self.loss, self.head, self.mixup = embedder, loss, head or nn.Identity(), mixup

    def forward(self, views: Tensor, labels: Tensor, short: Tensor | None = None) -> dict[str, Tensor]:
        rows, known = views.flatten(0, 1), labels.repeat(len(views))
        taught = known
        if self.mixup is not None:
            rows, taught = self.mixup(rows, known)
        h = self.embedder(rows)  # (V*B, dim): one pass of the encoder
        z = self.head(h)
        loss = self.loss(z, taught, h) if isinstance(self.loss, ACL) else self.loss(z, taught)
        if short is not None:
            loss = loss + self._short(short, labels.repeat(len(short)), z, known)
        return {"loss": loss, "z": z.detach()}

    def _short(self, short: Tensor, labels: Tensor, keys: Tensor, key_labels: Tensor) -> Tensor:
        if not isinstance(self.loss, NTXent):
            raise InputError(
                f"short crops are compared with long ones by NTXent, not by {type(self.loss).__name__}: "
                "pass --n_short 0"
            )
        z = self.head(self.embedder(short.flatten(0, 1)))
        return self.loss(z, labels, gather(keys), gather_plain(key_labels))

    def after_step(self, epoch: float) -> None:
        """Nothing to do between steps."""

    def end_epoch(self) -> None:
        """Nothing is kept between batches."""
