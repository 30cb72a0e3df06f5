"""Frames to one vector: ECAPA-TDNN, Fast ResNet-34 and ResNet-34, each with a preset for a CPU.

An encoder is (B, T, F) -> (B, dim) and keeps its constructor's arguments in `config`, so that a model folder can
rebuild it from JSON. `Embedder` puts the features in front: (B, samples) -> (B, dim).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.core.errors import InputError

__all__ = ["ECAPA", "FastResNet34", "ResNet34", "FrameStatistics"]


def preset(table: dict, name, encoder: str):
    """Look a size up, or say which sizes there are."""
    if name not in table:
        raise InputError(f"{encoder} has no size {name!r}: choose one of {', '.join(map(str, table))}")
    return table[name]


def named(name: str, n_mels: int, size: int | str, dim: int) -> nn.Module:
    """The encoder of this name, so that one YAML serves all of them: `--encoder ECAPA`.

    >>> named("FastResNet34", n_mels=40, size="small", dim=64).dim
    64
    """
    kinds: dict[str, Any] = {kind.__name__: kind for kind in (FastResNet34, ECAPA, ResNet34)}
    if name not in kinds:
        raise InputError(f"--encoder is {name!r}: choose one of {', '.join(kinds)}")
    return kinds[name](n_mels, size, dim)


class ECAPA(nn.Module):
    """SpeechBrain's ECAPA-TDNN (Desplanques et al. 2020): (B, T, F) -> (B, dim).

    >>> ECAPA(n_mels=40, size="small")(torch.randn(2, 100, 40)).shape
    torch.Size([2, 192])
    """

    SIZES = {
        1024: dict(width=1024, last=3072, bottleneck=128),
        512: dict(width=512, last=1536, bottleneck=128),
        "small": dict(width=128, last=384, bottleneck=64),
    }

    def __init__(self, n_mels: int = 80, size: int | str = 1024, dim: int = 192):
        super().__init__()
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN  # seconds to import: only when it is built
        from speechbrain.nnet.CNN import Conv1d

        self.config, self.dim = {"n_mels": n_mels, "size": size, "dim": dim}, dim
        s = preset(self.SIZES, size, "ECAPA")
        self.tdnn = ECAPA_TDNN(
            n_mels,
            lin_neurons=dim,
            channels=[s["width"]] * 4 + [s["last"]],
            attention_channels=s["bottleneck"],
            se_channels=s["bottleneck"],
        )
        for layer in self.tdnn.modules():
            if isinstance(layer, Conv1d) and layer.kernel_size == 1:
                layer.padding = "valid"  # the same, without a copy of the input

    def forward(self, frames: Tensor) -> Tensor:
        """What `self.tdnn` gives, in four fifths of the time: see `_pooled`."""
        x, found = frames.transpose(1, 2), []
        for block in self.tdnn.blocks:
            x = block(x)
            found.append(x)
        x = self.tdnn.mfa(torch.cat(found[1:], dim=1))  # (B, C, T)
        return self.tdnn.fc(self.tdnn.asp_bn(self._pooled(x)[:, :, None])).squeeze(2)

    def _pooled(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, 2 C): the attention's own view of the whole utterance is the same at every time.

        So W [x; mean; std] is W_x x + W_u [mean; std], of which the second part is computed once an utterance.
        """
        asp, channels = self.tdnn.asp, x.shape[1]
        variance, mean = torch.var_mean(x, dim=2, correction=0)
        weight, bias = asp.tdnn.conv.conv.weight[:, :, 0], asp.tdnn.conv.conv.bias
        whole = F.linear(torch.cat([mean, variance.clamp(asp.eps).sqrt()], dim=1), weight[:, channels:], bias)
        hidden = F.conv1d(x, weight[:, :channels, None]) + whole[:, :, None]
        attention = asp.conv(asp.tanh(asp.tdnn.norm(asp.tdnn.activation(hidden)))).softmax(dim=2)
        mean = (attention * x).sum(dim=2)
        variance = (attention * (x - mean[:, :, None]).square()).sum(dim=2)
        return torch.cat([mean, variance.clamp(asp.eps).sqrt()], dim=1)


class SqueezeExcite(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): each channel scaled by a gate computed from all channels' means."""

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(dim=(2, 3)))[:, :, None, None]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    `fast` is the order of Fast ResNet-34, which differs from the usual one: convolution, ReLU, BatchNorm, and a
    squeeze-and-excitation gate before the shortcut is added.
    """

    def __init__(self, inputs: int, channels: int, stride: int, fast: bool):
        super().__init__()
        self.fast = fast
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.gate = SqueezeExcite(channels) if fast else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.fast:
            y = self.bn1(F.relu(self.conv1(x)))
        else:
            y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.gate(self.bn2(self.conv2(y))) + self.shortcut(x))


def stages(widths: tuple[int, ...], depths: tuple[int, ...], strides: tuple[int, ...], fast: bool) -> nn.Sequential:
    """The residual blocks of a ResNet; a stage's first block carries its stride and its change of width."""
    blocks, inputs = [], widths[0]
    for width, depth, stride in zip(widths, depths, strides):
        for i in range(depth):
            blocks.append(Block(inputs, width, stride if i == 0 else 1, fast))
            inputs = width
    return nn.Sequential(*blocks)


class SelfAttentivePooling(nn.Module):
    """(B, T, C) -> (B, C): the frames' mean, weighted by a learnt question put to each frame."""

    def __init__(self, channels: int):
        super().__init__()
        self.hidden = nn.Linear(channels, channels)
        self.question = nn.Parameter(torch.empty(channels, 1))
        nn.init.xavier_normal_(self.question)

    def forward(self, frames: Tensor) -> Tensor:
        weight = (torch.tanh(self.hidden(frames)) @ self.question).softmax(dim=1)  # (B, T, 1)
        return (frames * weight).sum(dim=1)


class AttentiveStatistics(nn.Module):
    """(B, T, C) -> (B, 2C): mean and standard deviation of the frames, weighted channel by channel."""

    def __init__(self, channels: int, bottleneck: int = 128):
        super().__init__()
        self.weight = nn.Sequential(nn.Linear(channels, bottleneck), nn.Tanh(), nn.Linear(bottleneck, channels))

    def forward(self, frames: Tensor) -> Tensor:
        weight = self.weight(frames).softmax(dim=1)
        mean = (frames * weight).sum(dim=1)
        variance = (frames.square() * weight).sum(dim=1) - mean.square()
        # The floor keeps the gradient of the root finite for a constant channel.
        return torch.cat([mean, variance.clamp_min(1e-5).sqrt()], dim=1)


class FastResNet34(nn.Module):
    """The thin, squeeze-and-excitation ResNet-34 of the SimCLR-AM paper: (B, T, F) -> (B, dim), 1.4 M parameters.

    >>> FastResNet34(n_mels=40)(torch.randn(2, 100, 40)).shape
    torch.Size([2, 512])
    """

    SIZES = {"paper": (16, 32, 64, 128), "small": (8, 16, 32, 64)}

    def __init__(self, n_mels: int = 40, size: str = "paper", dim: int = 512):
        super().__init__()
        self.config, self.dim = {"n_mels": n_mels, "size": size, "dim": dim}, dim
        widths = preset(self.SIZES, size, "FastResNet34")
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 7, (2, 1), 3, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.blocks = stages(widths, (3, 4, 6, 3), (1, 2, 2, 1), fast=True)
        self.pooling = SelfAttentivePooling(widths[-1])
        self.project = nn.Linear(widths[-1], dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster

    def forward(self, frames: Tensor) -> Tensor:
        x = self.blocks(self.stem(frames.transpose(1, 2).unsqueeze(1)))  # (B, C, F', T')
        return self.project(self.pooling(x.mean(dim=2).transpose(1, 2)))  # the mean over frequency first


class ResNet34(nn.Module):
    """ResNet-34 with attentive statistics pooling over channels x frequency: (B, T, F) -> (B, dim).

    >>> ResNet34(n_mels=80, size="small")(torch.randn(2, 100, 80)).shape
    torch.Size([2, 256])
    """

    SIZES = {"full": (32, 64, 128, 256), "small": (8, 16, 32, 64)}

    def __init__(self, n_mels: int = 80, size: str = "full", dim: int = 256):
        super().__init__()
        self.config, self.dim = {"n_mels": n_mels, "size": size, "dim": dim}, dim
        widths = preset(self.SIZES, size, "ResNet34")
        self.stem = nn.Sequential(nn.Conv2d(1, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.blocks = stages(widths, (3, 4, 6, 3), (1, 2, 2, 2), fast=False)
        channels = widths[-1] * ((n_mels + 7) // 8)
        self.pooling = AttentiveStatistics(channels)
        self.project = nn.Linear(2 * channels, dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, frames: Tensor) -> Tensor:
        x = self.blocks(self.stem(frames.transpose(1, 2).unsqueeze(1)))  # (B, C, F/8, T/8)
        return self.project(self.pooling(x.flatten(1, 2).transpose(1, 2)))


class FrameStatistics(nn.Module):
    """No learning at all, the baseline to beat: (B, T, F) -> (B, 2F), each band's mean and standard deviation."""

    def __init__(self, n_mels: int = 40):
        super().__init__()
        self.config, self.dim = {"n_mels": n_mels}, 2 * n_mels

    def forward(self, frames: Tensor) -> Tensor:
        return torch.cat([frames.mean(dim=1), frames.std(dim=1)], dim=1)


class Embedder(nn.Module):
    """(B, samples) -> (B, dim): features, then an encoder.

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
        """From now on the encoder's steps of training go through torch.compile, whose first one takes a minute or two.

        Not the embeddings: recordings have any length, and each would be compiled anew.
        """
        self.compiled = torch.compile(self.encoder.forward)

    def forward(self, wave: Tensor) -> Tensor:
        encoder = self.compiled if self.training and self.compiled else self.encoder
        return encoder(self.features(wave))
