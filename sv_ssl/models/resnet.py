"""Residual networks over spectrograms: Fast ResNet-34, ResNet-34 and WeSpeaker's, each with a preset for a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.core.errors import check_number
from sv_ssl.models.presets import preset


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from all channels' means: (B, C, H, W) -> (B, C, H, W)."""

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
    """Build the residual blocks of a ResNet; a stage's first block carries its stride and its change of width."""
    blocks, inputs = [], widths[0]
    for width, depth, stride in zip(widths, depths, strides):
        for i in range(depth):
            blocks.append(Block(inputs, width, stride if i == 0 else 1, fast))
            inputs = width
    return nn.Sequential(*blocks)


class SelfAttentivePooling(nn.Module):
    """Average frames, weighted by their product with a learnt vector: (B, T, C) -> (B, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.hidden = nn.Linear(channels, channels)
        # Xavier's; nn.init.xavier_normal_ draws the same, but takes a second to import on the device "meta".
        self.question = nn.Parameter(torch.randn(channels, 1) * (2 / (channels + 1)) ** 0.5)

    def forward(self, frames: Tensor) -> Tensor:
        weight = (torch.tanh(self.hidden(frames)) @ self.question).softmax(dim=1)  # (B, T, 1)
        return (frames * weight).sum(dim=1)


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation of the frames, weighted channel by channel: (B, T, C) -> (B, 2C)."""

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
        self.config = {"n_mels": n_mels, "size": size, "dim": dim}
        self.dim = dim
        widths = preset(self.SIZES, size, "FastResNet34")
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 7, (2, 1), 3, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.blocks = stages(widths, (3, 4, 6, 3), (1, 2, 2, 1), fast=True)
        self.pooling = SelfAttentivePooling(widths[-1])
        self.project = nn.Linear(widths[-1], dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster

    @property
    def last_layer(self) -> nn.Module:
        """Return the linear layer that ends it."""
        return self.project

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
        self.config = {"n_mels": n_mels, "size": size, "dim": dim}
        self.dim = dim
        widths = preset(self.SIZES, size, "ResNet34")
        self.stem = nn.Sequential(nn.Conv2d(1, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.blocks = stages(widths, (3, 4, 6, 3), (1, 2, 2, 2), fast=False)
        channels = widths[-1] * ((n_mels + 7) // 8)
        self.pooling = AttentiveStatistics(channels)
        self.project = nn.Linear(2 * channels, dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def last_layer(self) -> nn.Module:
        """Return the linear layer that ends it."""
        return self.project

    def forward(self, frames: Tensor) -> Tensor:
        x = self.blocks(self.stem(frames.transpose(1, 2).unsqueeze(1)))  # (B, C, F/8, T/8)
        return self.project(self.pooling(x.flatten(1, 2).transpose(1, 2)))


class WeSpeakerResNet34(nn.Module):
    """WeSpeaker's and 3D-Speaker's ResNet-34, with plain statistics over time: (B, T, F) -> (B, dim).

    `floor` is added to the variance: 1e-7 in WeSpeaker, 1e-8 in 3D-Speaker.

    >>> WeSpeakerResNet34(n_mels=40, size="small")(torch.randn(2, 100, 40)).shape
    torch.Size([2, 256])
    """

    SIZES = {"full": (32, 64, 128, 256), "small": (8, 16, 32, 64)}

    def __init__(self, n_mels: int = 80, size: str = "full", dim: int = 256, floor: float = 1e-7):
        super().__init__()
        check_number("floor", floor, at_least=0)
        self.config = {"n_mels": n_mels, "size": size, "dim": dim, "floor": floor}
        self.dim = dim
        self.floor = floor
        widths = preset(self.SIZES, size, "WeSpeakerResNet34")
        self.stem = nn.Sequential(nn.Conv2d(1, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.blocks = stages(widths, (3, 4, 6, 3), (1, 2, 2, 2), fast=False)
        self.project = nn.Linear(2 * widths[-1] * ((n_mels + 7) // 8), dim)

    @property
    def last_layer(self) -> nn.Module:
        """Return the linear layer that ends it."""
        return self.project

    def forward(self, frames: Tensor) -> Tensor:
        x = self.blocks(self.stem(frames.transpose(1, 2).unsqueeze(1))).flatten(1, 2)  # (B, C * F/8, T/8)
        deviation = (x.var(dim=2) + self.floor).sqrt()
        return self.project(torch.cat([x.mean(dim=2), deviation], dim=1))
