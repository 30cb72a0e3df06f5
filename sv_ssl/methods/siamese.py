"""One encoder for all views: SimCLR, and every other loss of `(z, labels)`."""

from __future__ import annotations

from torch import Tensor, nn


class Siamese(nn.Module):
    """(V, B, samples), (B,) -> {"loss": (), "z": (V*B, P)}.

    Labels by utterance make it SimCLR (with `NTXent`), labels by speaker make it supervised.
    """

    def __init__(self, embedder: nn.Module, loss: nn.Module, head: nn.Module | None = None):
        super().__init__()
        self.embedder, self.loss, self.head = embedder, loss, head or nn.Identity()

    def forward(self, views: Tensor, labels: Tensor) -> dict[str, Tensor]:
        z = self.head(self.embedder(views.flatten(0, 1)))     # (V*B, P): one pass of the encoder
        return {"loss": self.loss(z, labels.repeat(len(views))), "z": z.detach()}

    def after_step(self, epoch: float) -> None:
        """Nothing to do between steps."""

    def end_epoch(self) -> None:
        """Nothing is kept between batches."""
