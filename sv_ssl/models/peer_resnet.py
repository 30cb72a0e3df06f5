"""Encoders that only other toolkits train, so that their weights can be loaded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sv_ssl.models.encoders import preset, stages

__all__ = ["WeSpeakerResNet34"]


class WeSpeakerResNet34(nn.Module):
    """WeSpeaker's and 3D-Speaker's ResNet-34, with plain statistics over time: (B, T, F) -> (B, dim).

    `floor` is added to the variance: 1e-7 in WeSpeaker, 1e-8 in 3D-Speaker.

    >>> WeSpeakerResNet34(n_mels=40, size="small")(torch.randn(2, 100, 40)).shape
    torch.Size([2, 256])
    """

    SIZES = {"full": (32, 64, 128, 256), "small": (8, 16, 32, 64)}

    def __init__(self, n_mels: int = 80, size: str = "full", dim: int = 256, floor: float = 1e-7):
        super().__init__()
        self.config = {"n_mels": n_mels, "size": size, "dim": dim, "floor": floor}
        self.dim, self.floor = dim, floor
        widths = preset(self.SIZES, size, "WeSpeakerResNet34")
        self.stem = nn.Sequential(nn.Conv2d(1, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.blocks = stages(widths, (3, 4, 6, 3), (1, 2, 2, 2), fast=False)
        self.project = nn.Linear(2 * widths[-1] * (n_mels // 8), dim)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.blocks(self.stem(frames.transpose(1, 2).unsqueeze(1))).flatten(1, 2)  # (B, C * F/8, T/8)
        deviation = (x.var(dim=2) + self.floor).sqrt()
        return self.project(torch.cat([x.mean(dim=2), deviation], dim=1))
