"""Run by test_several_processes.py under torchrun: every method and loss for some steps, then the loss of a process.

torchrun --nproc_per_node=2 tests/core/several_processes.py OUT killed      writes OUT/<rank>.pt
"""

import os
import signal
import sys
import time
from functools import partial

import losses_of_views
import methods_of_rows
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sv_ssl.core import distributed
from sv_ssl.data.batch import Batch
from sv_ssl.losses import (
    ACL,
    ADD,
    CLAR,
    OPL,
    AngularPrototypical,
    Focal,
    InfoNCE,
    MarginSoftmax,
    NTXent,
    Rows,
    SoftADD,
    SoftLabels,
    blocks,
    contrastive,
)
from sv_ssl.losses.margin import additive
from sv_ssl.losses.margin import angular as angular_margin
from sv_ssl.methods import MoCo, SimCLR

BATCH, DIM = 8, 5
LONG, STEPS, FEW = ("NTXent AM, 8", "ADD, 8", "CLAR, 5", "MoCo"), 20, 3
UTTERANCES = torch.arange(BATCH)
SPEAKERS = torch.tensor([0, 1, 0, 2, 1, 0, 3, 4])  # of two or four processes some have no pair of one speaker
AM, AAM = partial(additive, m=0.1), partial(angular_margin, m=0.1)


class Tiny(nn.Sequential):
    """No BatchNorm: its statistics are those of a process's own rows, and no loss can mend that."""

    dim = DIM

    def __init__(self):
        super().__init__(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, DIM))


class Clar(nn.Module):
    """CLAR with a classifier; speakers from 3 on are unknown."""

    def __init__(self):
        super().__init__()
        self.classifier, self.loss = nn.Linear(DIM, 3), CLAR(NTXent(0.2))

    def forward(self, z, labels):
        targets = torch.where(labels < 3, labels, -1)
        return self.loss(Rows(z, labels, targets=targets, logits=self.classifier(z)))


class Soft(nn.Module):
    """SoftADD for speakers that are mixed with others, as rows of probabilities or as SoftLabels."""

    def __init__(self, few=False):
        super().__init__()
        self.few = few

    def forward(self, z, labels):
        rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.3, 0.7], [0.5, 0.5]])[labels]
        return SoftADD()(z, SoftLabels(torch.tensor([[0, 1]]).expand(len(z), 2), rows, 0.1, 3) if self.few else rows)


LOSSES = {
    "NTXent": lambda: NTXent(0.2),
    "NTXent AM": lambda: NTXent(0.2, AM),
    "NTXent AAM": lambda: NTXent(0.2, AAM),
    "one-way": lambda: NTXent(0.2, symmetric=False),
    "one-way AM": lambda: NTXent(0.2, AM, symmetric=False),
    "in": lambda: NTXent(0.2, AM, positives="in"),
    "sum": lambda: NTXent(0.2, AAM, positives="sum"),
    "prototypical": AngularPrototypical,
    "softmax AM": lambda: MarginSoftmax(DIM, 5, AM, scale=5.0),
    "focal": lambda: MarginSoftmax(DIM, 5, AAM, scale=5.0, criterion=Focal()),
    "ACL": lambda: ACL(0.5),
    "ACL means": lambda: ACL(0.5, reduction="mean_pos_plus_mean_neg"),
    "ACL sum": lambda: ACL(0.5, reduction=("sum_over", 50.0)),
    "ADD": ADD,
    "OPL": OPL,
    "OPL of abs": lambda: OPL(abs_mode="mean_of_abs"),
    "SoftADD": Soft,
    "CLAR": Clar,
    "SoftLabels": lambda: Soft(few=True),
    **losses_of_views.cases(DIM),
}
METHODS = {
    "MoCo": lambda: MoCo(Tiny(), InfoNCE(0.2, AM), queue_size=24, ema=0.9),
    "MoCo one direction": lambda: MoCo(Tiny(), InfoNCE(0.2), queue_size=24, ema=0.9, directions=1),
    "MoCo masked": lambda: MoCo(Tiny(), InfoNCE(0.2, AAM), queue_size=24, ema=0.9, mask_labels=True),
}
BY_SPEAKER = ("NTXent", "NTXent AAM", "one-way AM", "in", "sum", "prototypical")


def cases():
    """-> name, function that makes the method, labels, how many pairs are held whole."""
    for name, loss in LOSSES.items():
        by_utterance = "softmax" not in name and name not in ("focal", "SoftADD", "SoftLabels", "CLAR")
        for labels in [UTTERANCES] * by_utterance + [SPEAKERS] * (not by_utterance or name in BY_SPEAKER):
            yield f"{name}, {len(labels.unique())}", lambda loss=loss: SimCLR(Tiny(), loss()), labels, 2**18
    for name, method in METHODS.items():
        yield name, method, SPEAKERS, 2**18
    for name in ("NTXent AM", "one-way", "sum"):
        yield f"{name} in blocks", lambda name=name: SimCLR(Tiny(), LOSSES[name]()), SPEAKERS, 0
    yield "MoCo in blocks", METHODS["MoCo masked"], SPEAKERS, 0


def train(method, labels, steps):
    """-> the losses of the steps, the first gradients, the last weights and queues."""
    torch.manual_seed(0)
    raw, rank, world = method().train(), distributed.rank(), distributed.world_size()
    model = DistributedDataParallel(raw, broadcast_buffers=False) if world > 1 else raw
    optimizer, losses, gradients = torch.optim.SGD(raw.parameters(), 0.05), [], {}
    for seed in range(steps):
        views = torch.randn(2, BATCH, 12, generator=torch.Generator().manual_seed(seed))
        loss = model(Batch(views[:, rank::world], labels[rank::world])).loss
        optimizer.zero_grad()
        loss.backward()
        gradients = gradients or {n: p.grad.clone() for n, p in raw.named_parameters() if p.grad is not None}
        optimizer.step()
        raw.on_step_end(0.0)
        losses.append(loss.detach())
    mean = distributed.gather_plain(torch.stack(losses)[None]).mean(0)
    return {"losses": mean, "gradients": gradients, "weights": raw.state_dict()}


def results():
    """-> what `train` finds by case, and the rows of the tallest matrix of cosines that was made."""
    tallest, multiply, dense = [0], contrastive.geometry.cosines, contrastive.DENSE

    def watched(a, b):
        tallest[0] = max(tallest[0], len(a))
        return multiply(a, b)

    for module in (contrastive.geometry, blocks):
        module.cosines = watched
    found = {}
    for name, method, labels, contrastive.DENSE in cases():
        found[name] = train(method, labels, STEPS if name in LONG else FEW)
    for module in (contrastive.geometry, blocks):
        module.cosines = multiply
    contrastive.DENSE = dense
    return found, tallest[0]


def check_gathering(rank, world):
    rows = torch.full((2, 3), float(rank + 1), requires_grad=True)
    gathered = distributed.gather(rows)
    assert gathered[:, 0].tolist() == [1 + i // 2 for i in range(2 * world)]
    (gathered * torch.arange(2.0 * world)[:, None] * (rank + 1)).sum().backward()
    assert rows.grad[:, 0].tolist() == [row * sum(range(world + 1)) for row in (2 * rank, 2 * rank + 1)]
    assert distributed.gather_plain(rows.T).shape == (3 * world, 2)
    assert not distributed.gather_plain(rows).requires_grad
    assert distributed.gather_batch(torch.tensor([rank, rank + world])).tolist() == list(range(2 * world))
    assert distributed.total(torch.tensor(rank + 1.0)) == sum(range(world + 1))
    assert distributed.gather_objects({"rank": rank}) == [{"rank": r} for r in range(world)]
    assert distributed.is_main() == (rank == 0)


def main(out, end):
    torch.set_num_threads(1)
    distributed.start("cpu")
    rank, world = distributed.rank(), distributed.world_size()
    check_gathering(rank, world)
    torch.save(results(), f"{out}/{rank}.pt")
    torch.save(methods_of_rows.results(), f"{out}/rows-{rank}.pt")
    if rank == 0:
        time.sleep(1.5 * distributed.PATIENCE)  # who works may keep the others waiting
    distributed.barrier()
    if rank == world - 1:
        os.kill(os.getpid(), {"killed": signal.SIGKILL, "hung": signal.SIGSTOP}[end])
    while True:
        dist.all_reduce(torch.ones(1))


if __name__ == "__main__":
    sys.exit(distributed.run(lambda: main(*sys.argv[1:])))
