"""Projection heads between the embedding and the loss. The papers' best systems use none."""

from __future__ import annotations

from torch import nn

from sv_ssl.core.errors import check_number


def mlp(dim: int, hidden: int = 2048, out: int = 256, hidden_layers: int = 1) -> nn.Sequential:
    """Make a head of `hidden_layers` times Linear-BatchNorm-ReLU, then Linear: (B, dim) -> (B, out).

    >>> import torch
    >>> mlp(512)(torch.randn(4, 512)).shape
    torch.Size([4, 256])
    """
    for name, value in {"hidden": hidden, "out": out, "hidden_layers": hidden_layers}.items():
        check_number(f"{name} of the head", value, at_least=1, whole=True)
    layers: list[nn.Module] = []
    for _ in range(hidden_layers):
        layers += [nn.Linear(dim, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()]
        dim = hidden
    return nn.Sequential(*layers, nn.Linear(dim, out))
