"""The smallest embedder, batches and facts, for tests of methods."""

import numpy as np
import torch
from torch import nn

from sv_ssl.data.batch import Batch
from sv_ssl.methods import Facts


class Linear(nn.Module):
    """Embed (B, 16) as (B, 8)."""

    def __init__(self, norm=False):
        super().__init__()
        self.layer = nn.Linear(16, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.dim = 8

    def forward(self, wave):
        return self.norm(self.layer(wave))


def waves(n=2, batch=4, seed=0):
    return torch.randn(n, batch, 16, generator=torch.Generator().manual_seed(seed))


def batch(n=2, size=4, seed=0, **fields):
    return Batch(waves(n, size, seed), torch.arange(size), **fields)


def facts(classes=None, n_classes=None, n_rows=4, seed=0):
    classes = None if classes is None else np.asarray(classes)
    if n_classes is None:
        n_classes = 0 if classes is None else int(classes.max()) + 1
    return Facts(n_rows if classes is None else len(classes), classes, n_classes, steps=2, epochs=3, seed=seed)
