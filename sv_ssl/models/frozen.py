"""A frozen encoder with a linear layer behind it, which alone learns: what its embeddings know, linearly evaluated."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.models.embedder import Embedder


class Frozen(nn.Module):
    """An embedder at rest, and a square matrix that learns on its embeddings: (B, samples) -> (B, dim).

    The matrix begins as 1, so that the first step is the encoder's own. `folded` multiplies it into the encoder's last
    layer, which is linear: what is kept is an embedder like any other.

    >>> from sv_ssl.models.embedder import named
    >>> from sv_ssl.models.features import LogMel
    >>> frozen = Frozen(Embedder(LogMel(40), named("ECAPA", 40, "small", dim=8)))
    >>> [parameter.shape for parameter in frozen.parameters() if parameter.requires_grad]
    [torch.Size([8, 8]), torch.Size([8])]
    """

    def __init__(self, embedder: Embedder):
        super().__init__()
        if getattr(embedder.encoder, "last_layer", None) is None:
            name = type(embedder.encoder).__name__
            raise InputError(
                f"--freeze_encoder True learns a matrix that goes into an encoder's last layer, and {name}'s is not "
                "linear: take ECAPA or a ResNet34, or leave the option out"
            )
        self.embedder = embedder.requires_grad_(False)
        self.linear = nn.Linear(embedder.dim, embedder.dim)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @property
    def dim(self) -> int:
        return self.embedder.dim

    def train(self, mode: bool = True) -> Frozen:
        """Leave the embedder at rest: the statistics of its BatchNorm are frozen too."""
        super().train(mode)
        self.embedder.eval()
        return self

    def forward(self, wave: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.embedder(wave)
        return self.linear(h)

    @torch.no_grad()
    def folded(self) -> Embedder:
        """Return an embedder that gives the same embeddings by its last layer."""
        embedder = copy.deepcopy(self.embedder)
        last = embedder.encoder.last_layer
        bias = self.linear(last.bias)
        last.weight.copy_((self.linear.weight @ last.weight.flatten(1)).view_as(last.weight))
        last.bias.copy_(bias)
        return embedder
