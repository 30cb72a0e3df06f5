"""`Embedder`, a wave to a vector: features in front of an encoder.

An encoder is (B, T, F) -> (B, dim) and keeps its constructor's arguments in `config`, so that a model folder can
rebuild it from JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError, check_number
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.resnet import FastResNet34, ResNet34


def named(name: str, n_mels: int, size: int | str, dim: int) -> nn.Module:
    """Build the encoder of this name, so that one YAML serves all of them: `--encoder ECAPA`.

    >>> named("FastResNet34", n_mels=40, size="small", dim=64).dim
    64
    """
    kinds: dict[str, Any] = {kind.__name__: kind for kind in (FastResNet34, ECAPA, ResNet34)}
    if not isinstance(name, str) or name not in kinds:
        raise InputError(f"--encoder is {name!r}: choose one of {', '.join(kinds)}")
    check_number("dim", dim, at_least=1, at_most=65_536, whole=True)
    return kinds[name](n_mels, size, dim)


class FrameStatistics(nn.Module):
    """Each band's mean and standard deviation, without any learning, the baseline to beat: (B, T, F) -> (B, 2F)."""

    def __init__(self, n_mels: int = 40):
        super().__init__()
        self.config = {"n_mels": n_mels}
        self.dim = 2 * n_mels

    def forward(self, frames: Tensor) -> Tensor:
        return torch.cat([frames.mean(dim=1), frames.std(dim=1)], dim=1)


class Embedder(nn.Module):
    """Features, then an encoder: (B, samples) -> (B, dim).

    >>> from sv_ssl.models.features import LogMel
    >>> Embedder(LogMel(40), FastResNet34(40, "small"))(torch.randn(2, 16000)).shape
    torch.Size([2, 512])
    """

    features: Any
    encoder: Any
    compiled: Callable[[Tensor], Tensor] | None = None

    def __init__(self, features: Any, encoder: Any):
        super().__init__()
        bands = encoder.config.get("n_mels", 1), features.config.get("n_mels", 1)
        channels = encoder.config.get("channels", 1), getattr(features, "channels", 1)
        for what, (wanted, came) in {"mel bands": bands, "channels": channels}.items():
            if wanted != came:
                raise InputError(f"the encoder wants {wanted} {what} but the features have {came}: give both the same")
        self.features = features
        self.encoder = encoder

    @property
    def dim(self) -> int:
        return int(self.encoder.dim)

    @property
    def sample_rate(self) -> int:
        return int(self.features.config["sample_rate"])

    def compile_training(self) -> None:
        """Compile the encoder's training steps from now on; the first one takes a minute or two.

        Embeddings are not compiled: recordings have any length, and each would be compiled anew.
        """
        self.compiled = torch.compile(self.encoder.forward)

    def forward(self, wave: Tensor) -> Tensor:
        encoder = self.compiled if self.training and self.compiled else self.encoder
        return encoder(self.features(wave))
