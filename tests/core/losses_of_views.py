"""Losses that are not called with (z, labels), made so for rows of two views."""

from functools import partial

import torch
from torch import nn

from sv_ssl.losses import (
    WMSE,
    Barlow,
    DeepClusterLoss,
    DINOLoss,
    LeJEPA,
    NTXent,
    SDPNLoss,
    SIGReg,
    Stages,
    SwAVLoss,
    VIbCReg,
    VICReg,
    VISReg,
    byol,
    geometry,
)
from sv_ssl.losses.dino_loss import diversity
from sv_ssl.losses.negatives import class_aware, clean_noisy
from sv_ssl.losses.protonce import prototype_term
from sv_ssl.losses.sdpn_loss import fro_norm

PROTOTYPES = 7


class WithPrototypes(nn.Module):
    """Compute a loss of rows, their cosines with prototypes, and those of a teacher, which turns the rows."""

    def __init__(self, dim, compute, loss):
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(PROTOTYPES, dim))
        self.turn = torch.linalg.qr(torch.randn(dim, dim))[0]
        self.compute, self.loss = compute, loss

    def scores(self, rows):
        return torch.stack([geometry.cosines(geometry.unit(view), geometry.unit(self.prototypes)) for view in rows])

    def forward(self, z, labels):
        rows = views(z)
        with torch.no_grad():
            teacher = self.scores(rows @ self.turn)
        return self.compute(self.loss, rows, self.scores(rows), teacher)


def views(z):
    return z.unflatten(0, (2, -1))


def dino(loss, rows, student, teacher):
    value = loss(student, teacher)
    loss.update(teacher)
    return value


def sdpn(loss, rows, student, teacher):
    return loss(student, teacher[0], rows).total


def swav(loss, rows, student, teacher):
    return loss(student)


def swav_with_queue(loss, rows, student, teacher):
    old = torch.randn(2, 9, PROTOTYPES, generator=torch.Generator().manual_seed(0))
    return loss(student, old / 4)


class Clusters(nn.Module):
    """Compute a loss of rows and the clusters of some recordings: of each process other ones have none."""

    def __init__(self, dim, compute):
        super().__init__()
        self.centroids = torch.randn(PROTOTYPES, dim)
        self.compute = compute

    def forward(self, z, labels):
        clusters = torch.where(labels < 3, labels, -1)
        return self.compute(z, clusters[None], self.centroids)


def deepcluster(z, clusters, centroids):
    scores = geometry.cosines(geometry.unit(z), geometry.unit(centroids))
    return DeepClusterLoss()([views(scores)], clusters.view(1, 2, -1)[:, 0])


def protonce(z, clusters, centroids):
    return prototype_term(z, [centroids], clusters, [torch.full((PROTOTYPES,), 0.2)])


def cases(dim):
    """-> the losses by name."""
    return {
        "VICReg": VICReg,
        "VIbCReg": VIbCReg,
        "Barlow": Barlow,
        "W-MSE": lambda: WMSE(0.1),
        "stages": lambda: Stages([VICReg()], [NTXent(0.2, symmetric=False)]),
        "DINO": lambda: WithPrototypes(dim, dino, DINOLoss(PROTOTYPES)),
        "DINO Sinkhorn": lambda: WithPrototypes(dim, dino, DINOLoss(PROTOTYPES, centring="sinkhorn")),
        "SDPN": lambda: WithPrototypes(dim, sdpn, SDPNLoss(form="probs")),
        "SDPN logits": lambda: WithPrototypes(dim, sdpn, SDPNLoss(form="logits")),
        "diversity": lambda: lambda z, labels: diversity(views(z), views(z)),
        "SwAV": lambda: WithPrototypes(dim, swav, SwAVLoss()),
        "SwAV with a queue": lambda: WithPrototypes(dim, swav_with_queue, SwAVLoss()),
        "DeepCluster": lambda: Clusters(dim, deepcluster),
        "ProtoNCE": lambda: Clusters(dim, protonce),
        "BYOL": lambda: lambda z, labels: byol(views(z), views(z.flip(1))),
        "SIGReg": lambda: SIGReg(directions=8),
        "LeJEPA": lambda: LeJEPA(directions=8),
        "VISReg": lambda: VISReg(directions=8),
        "clean and noisy": lambda: NTXent(0.2, negative_weights=partial(clean_noisy, weight=3.0, n_views=2)),
        "class-aware": lambda: NTXent(0.2, negative_weights=partial(class_aware, temperature=0.2)),
        "dimensions": lambda: lambda z, labels: fro_norm(z),
    }
