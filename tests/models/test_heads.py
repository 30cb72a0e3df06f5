import torch
from torch import nn

from sv_ssl.models.heads import mlp


def test_layers_and_width():
    head = mlp(512, hidden=2048, out=256, hidden_layers=2)
    kinds = [type(layer) for layer in head]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert head(torch.randn(3, 512)).shape == (3, 256)
