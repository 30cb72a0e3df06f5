"""Methods that remember rows (banks, queues, teachers, prototypes), trained for a few epochs in several processes.

In float64, so that what differs is no rounding, whose differences grow from step to step.
"""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sv_ssl.core import distributed
from sv_ssl.data.batch import Batch
from sv_ssl.losses import Barlow, DeepClusterLoss, DINOLoss, InfoNCE, NTXent, SDPNLoss, SwAVLoss, VICReg
from sv_ssl.methods import DINO, SDPN, Facts, MoCo, Positives, SimCLR
from sv_ssl.methods.clusters import Clusters
from sv_ssl.methods.deepcluster import DeepCluster
from sv_ssl.methods.predictive import Predictive
from sv_ssl.methods.prototype_term import PrototypeTerm
from sv_ssl.methods.swav import SwAV
from sv_ssl.models.heads import Prototypes

N, BATCH, DIM, EPOCHS = 16, 8, 6, 4


class Tiny(nn.Sequential):
    """No BatchNorm: its statistics are those of a process's own rows."""

    dim = DIM

    def __init__(self):
        super().__init__(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, DIM))


class Head(nn.Module):
    """A bottleneck without BatchNorm."""

    dim = 5

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Sequential(nn.Linear(DIM, 8), nn.Tanh()), nn.Linear(8, 5)

    def forward(self, h):
        return self.narrow(self.wide(h))


def positives(**options):
    return Positives(3, near=1, start=1, queue_size=N, **options)


METHODS = {
    "VICReg": lambda: SimCLR(Tiny(), VICReg()),
    "Barlow": lambda: SimCLR(Tiny(), Barlow()),
    "BYOL": lambda: Predictive(Tiny(), nn.Linear(DIM, DIM), nn.Linear(DIM, DIM), ema=0.9),
    "SSPS": lambda: SimCLR(Tiny(), NTXent(0.2), positives=positives()),
    "SSPS online": lambda: SimCLR(Tiny(), NTXent(0.2), positives=positives(codebook="online", skip_empty=True)),
    "DINO": lambda: DINO(Tiny(), Head(), Prototypes(5, 7, frozen_epochs=1), DINOLoss(7), ema=0.9),
    "DINO Sinkhorn SSPS": lambda: DINO(
        Tiny(), Head(), Prototypes(5, 7), DINOLoss(7, centring="sinkhorn"), ema=0.9, positives=positives()
    ),
    "SDPN": lambda: SDPN(Tiny(), Head(), Prototypes(5, 7), SDPNLoss(koleo_weight=0.1), ema=0.9, fro_weight=0.1),
    "SwAV": lambda: SwAV(Tiny(), Prototypes(DIM, 7), SwAVLoss(), queue_size=12, queue_start=1),
    "DeepCluster": lambda: DeepCluster(Tiny(), DeepClusterLoss(), counts=[3, 4]),
    "ProtoNCE": lambda: MoCo(Tiny(), InfoNCE(0.2), queue_size=12, ema=0.9, prototypes=PrototypeTerm([3, 4])),
    "MoCo by cluster": lambda: MoCo(Tiny(), InfoNCE(0.2), queue_size=12, ema=0.9, clusters=Clusters([4])),
    "SwAV SSPS": lambda: SwAV(Tiny(), Prototypes(DIM, 7), SwAVLoss(), queue_size=12, positives=positives()),
    "SDPN SSPS": lambda: SDPN(Tiny(), Head(), Prototypes(5, 7), SDPNLoss(), ema=0.9, positives=positives()),
    "MoCo SSPS": lambda: MoCo(Tiny(), InfoNCE(0.2), queue_size=12, ema=0.9, positives=positives()),
}


def batch(method, rows, epoch, rank, world):
    """Return a process's part of a batch, the crops being those of (epoch, row)."""
    generator = torch.Generator().manual_seed(1000 * epoch + int(rows[0]))

    def crops(n):
        return torch.randn(n, len(rows), 12, generator=generator, dtype=torch.float64)[:, rank::world]

    long = crops(method.needs.views)
    short = crops(3) if isinstance(method, (DINO, SDPN)) else None
    return Batch(long, rows[rank::world], short, clean=crops(1) if method.needs.clean else None)


def train(make):
    """-> the losses of the steps, the gradients of the last, all that the method ends with."""
    torch.manual_seed(0)
    raw, rank, world = make().double().train(), distributed.rank(), distributed.world_size()
    raw.prepare(Facts(N, None, 0, N // BATCH, EPOCHS, seed=0))
    raw.double()  # what it has made too
    model = DistributedDataParallel(raw, broadcast_buffers=False) if world > 1 else raw
    optimizer, losses = torch.optim.SGD(raw.parameter_groups(), 0.05), []
    for epoch in range(1, EPOCHS + 1):
        raw.on_epoch_start(epoch)
        for rows in torch.randperm(N, generator=torch.Generator().manual_seed(epoch)).split(BATCH):
            raw.on_step_start(float(epoch))
            loss = model(batch(raw, rows, epoch, rank, world)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            raw.on_step_end(float(epoch))
            losses.append(loss.detach())
        raw.on_epoch_end(epoch)
    gradients = {name: p.grad.clone() for name, p in raw.named_parameters() if p.grad is not None}
    mean = distributed.gather_plain(torch.stack(losses)[None]).mean(0)
    return {"losses": mean, "gradients": gradients, "weights": raw.state_dict()}


def results():
    """-> what `train` finds, by method."""
    return {name: train(make) for name, make in METHODS.items()}
