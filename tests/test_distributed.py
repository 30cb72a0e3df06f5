"""Two gloo processes on the CPU: the losses and gradients that they share are those of one process."""

import os
from functools import partial

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sv_ssl import distributed
from sv_ssl.losses.contrastive import AngularPrototypical, NTXent
from sv_ssl.losses.margin import additive, angular

AM, AAM = partial(additive, m=0.1), partial(angular, m=0.1)
LOSSES = {"symmetric": NTXent(0.1), "symmetric AM": NTXent(0.1, AM), "one-way AAM": NTXent(0.1, AAM, symmetric=False),
          "in": NTXent(0.1, AM, positives="in"), "sum": NTXent(0.1, AAM, positives="sum"),
          "prototypical": AngularPrototypical()}
UTTERANCES = torch.arange(4).repeat(2)
SPEAKERS = torch.tensor([0, 1, 0, 2]).repeat(2)
ALONE = torch.tensor([0, 1, 2, 3, 0, 1, 4, 5])  # the second process has no positive at all


def waves():
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


def encoder():
    torch.manual_seed(1)
    return nn.Linear(6, 5)


def own_rows(rank):
    """Utterances 0, 1 are of the first process, 2, 3 of the second; in each, view 1 comes before view 2."""
    return torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7]][rank])


def value_and_gradient(model, loss, rows, labels):
    model.zero_grad()
    value = loss(model(rows), labels)
    value.backward()
    return value.detach(), model.get_parameter([name for name, _ in model.named_parameters()][0]).grad.clone()


def compare_with_one_process(rank, expected):
    model, own = DistributedDataParallel(encoder()), own_rows(rank)
    for (name, labels), (value, gradient) in expected.items():
        got, got_gradient = value_and_gradient(model, LOSSES[name], waves()[own], torch.tensor(labels)[own])
        dist.all_reduce(got)
        torch.testing.assert_close(got / 2, value, atol=1e-5, rtol=0)
        torch.testing.assert_close(got_gradient, gradient, atol=1e-5, rtol=0)


def check_gathering(rank):
    rows = torch.full((2, 3), float(rank + 1), requires_grad=True)
    gathered = distributed.gather(rows)
    assert gathered[:, 0].tolist() == [1, 1, 2, 2]
    (gathered * torch.arange(4.0)[:, None] * (rank + 1)).sum().backward()
    assert rows.grad[:, 0].tolist() == [[0, 3], [6, 9]][rank]  # (1 + 2) times the row's number
    assert distributed.gather_plain(torch.tensor([rank, 7])).tolist() == [0, 7, 1, 7]
    assert distributed.gather_plain(rows.T).shape == (6, 2)
    assert not distributed.gather_plain(rows).requires_grad
    assert distributed.gather_objects({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (rank, 2, rank == 0)
    distributed.barrier()


def process(rank, folder, expected):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/start", rank=rank, world_size=2)
    check_gathering(rank)
    compare_with_one_process(rank, expected)
    dist.barrier()       # who leaves while the other still talks brings it down
    os._exit(0)          # all is checked; gloo's threads can abort a process that takes itself down in the usual order


def test_two_processes_learn_as_one(tmp_path):
    expected = {(name, tuple(labels.tolist())): value_and_gradient(encoder(), loss, waves(), labels)
                for name, loss in LOSSES.items() for labels in (UTTERANCES, SPEAKERS, ALONE)}
    assert len(expected) == 18 and all(gradient.abs().max() > 1e-3 for _, gradient in expected.values())
    mp.spawn(process, (str(tmp_path), expected), nprocs=2)


def test_alone_there_is_nothing_to_gather():
    rows = torch.ones(2, 3, requires_grad=True)
    assert distributed.gather(rows) is rows
    assert not distributed.gather_plain(rows).requires_grad
    assert distributed.gather_objects("x") == ["x"]
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    distributed.barrier()
