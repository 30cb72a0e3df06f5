"""Losses that are not called with (z, labels), made so for rows of two views."""

import torch
from torch import nn

from sv_ssl.losses import WMSE, Barlow, DINOLoss, NTXent, SDPNLoss, Stages, VIbCReg, VICReg, geometry
from sv_ssl.losses.dino_loss import diversity
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
        "dimensions": lambda: lambda z, labels: fro_norm(z),
    }
