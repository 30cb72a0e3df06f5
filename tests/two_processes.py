"""Run by test_two_processes.py under torchrun: one step of SimCLR and of MoCo, each process with its half of the batch.

    torchrun --nproc_per_node=2 tests/two_processes.py OUT          writes OUT/<method>-<rank>.pt
    python tests/two_processes.py OUT                               the same step, one process with the whole batch
"""

import sys
from functools import partial
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from sv_ssl import distributed
from sv_ssl.encoders import Embedder, FastResNet34
from sv_ssl.features import LogMel
from sv_ssl.losses import InfoNCE, NTXent
from sv_ssl.losses.margin import additive
from sv_ssl.methods import Momentum, Siamese


def method(kind):
    """BatchNorm in eval mode: its statistics are those of a process's own rows, and no loss can mend that."""
    torch.manual_seed(0)
    embedder, margin = Embedder(LogMel(40), FastResNet34(40, "small", dim=16)), partial(additive, m=0.1)
    made = {"simclr": lambda: Siamese(embedder, NTXent(0.1, margin)),
            "one_way": lambda: Siamese(embedder, NTXent(0.1, margin, symmetric=False)),
            "moco": lambda: Momentum(embedder, InfoNCE(0.1, margin), queue_size=12, momentum=0.5)}[kind]()
    return made.train(kind == "moco").apply(lambda m: m.eval() if isinstance(m, torch.nn.BatchNorm2d) else m)


def step(kind, out):
    """Two steps, so that the second has the first's keys in its queue."""
    raw = method(kind)
    model = DistributedDataParallel(raw, broadcast_buffers=False) if distributed.world_size() > 1 else raw
    optimizer = torch.optim.SGD(raw.parameters(), 0.01)
    for seed in range(2):
        views = 0.1 * torch.randn(2, 8, 4000, generator=torch.Generator().manual_seed(seed))
        half = 8 // distributed.world_size()
        own = slice(half * distributed.rank(), half * (distributed.rank() + 1))
        optimizer.zero_grad()
        loss = model(views[:, own], torch.arange(8)[own])["loss"]
        loss.backward()
        optimizer.step()
        raw.after_step(0.0)
    mean = torch.stack(distributed.gather_objects(loss.detach())).mean()
    torch.save({"loss": mean, "queue": getattr(raw, "queue", torch.zeros(0)),
                "gradients": {name: p.grad for name, p in raw.named_parameters() if p.grad is not None}},
               Path(out) / f"{kind}-{distributed.rank()}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.start("cpu")
    for kind in ("simclr", "one_way", "moco"):
        step(kind, sys.argv[1])
    distributed.barrier()       # who leaves while the other still talks brings it down
    distributed.stop()
