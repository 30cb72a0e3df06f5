"""Soft labels as few numbers are the same as rows of probabilities."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sv_ssl.core.errors import InputError
from sv_ssl.losses import Focal, MarginSoftmax, SoftADD, SoftLabels, soft_cross_entropy
from sv_ssl.losses.margin import angular

CLASSES = torch.tensor([[0, 1], [1, 0], [2, 2], [0, 3], [2, 1], [0, 1]])
SHARES = torch.tensor([[0.3, 0.7], [0.7, 0.3], [0.5, 0.5], [0.9, 0.1], [0.45, 0.55], [0.3, 0.7]]).double()
Z = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).double()


def dense(labels, n_classes=4):
    rows = torch.zeros(len(labels.classes), n_classes).double()
    rows.scatter_add_(1, labels.classes, labels.shares)
    return (1 - labels.smoothing) * rows + labels.smoothing / n_classes


BOTH = pytest.mark.parametrize(
    "labels",
    [
        SoftLabels(CLASSES, SHARES),
        SoftLabels(CLASSES, SHARES, 0.2, 4),
        SoftLabels(CLASSES[:, :1], torch.ones(6, 1).double(), 0.1, 4),
    ],
)


@BOTH
def test_products_are_those_of_the_rows(labels):
    rows = dense(labels)
    assert torch.allclose(labels.products(), rows @ rows.T)
    assert torch.allclose(labels.cosines(), F.normalize(rows) @ F.normalize(rows).T)


@BOTH
@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_soft_add_of_either_is_the_same(labels, metric):
    loss = SoftADD(0.5, 2.0, metric)
    assert torch.allclose(loss(Z, labels), loss(Z, dense(labels)))


@BOTH
def test_cross_entropy_of_either_is_the_same(labels):
    assert torch.allclose(soft_cross_entropy(Z[:, :4], labels), F.cross_entropy(Z[:, :4], dense(labels)))
    hard = torch.tensor([0, 1, 2, 3, 0, 1])
    assert torch.equal(soft_cross_entropy(Z, hard), F.cross_entropy(Z, hard))


def test_a_mixture_is_each_of_its_speakers_in_turn():
    loss = MarginSoftmax(5, 4, partial(angular, m=0.2), scale=10.0).double()
    want = 0.0
    for row, classes, shares in zip(Z, CLASSES, SHARES):
        want += sum(share * loss(row[None], one[None]) for one, share in zip(classes, shares)) / len(Z)
    assert torch.allclose(loss(Z, SoftLabels(CLASSES, SHARES)), want)
    hard = SoftLabels(CLASSES[:, :1], torch.ones(6, 1).double())
    assert torch.allclose(loss(Z, hard), loss(Z, CLASSES[:, 0]))
    smooth, logits = hard._replace(smoothing=0.1), loss.logits(Z, CLASSES[:, 0])
    assert torch.allclose(loss(Z, smooth), F.cross_entropy(logits, CLASSES[:, 0], label_smoothing=0.1))


def test_nothing_of_the_pairs_is_as_large_as_the_classes_are_many():
    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                Largest.seen = max(Largest.seen, out.numel())
            return out

    classes, z = torch.randint(0, 100_000, (64, 2)), torch.randn(64, 32, requires_grad=True)
    with Largest():
        SoftADD()(z, SoftLabels(classes, torch.full((64, 2), 0.5), 0.1, 100_000)).backward()
    assert 64 * 64 <= Largest.seen <= 4 * 64 * 64


def test_bfloat16_logits_are_read_in_full_precision():
    logits = torch.tensor([[9.0, 0.01], [0.01, 9.0]], dtype=torch.bfloat16)
    labels = SoftLabels(torch.tensor([[0], [1]]), torch.ones(2, 1))
    wanted = F.cross_entropy(logits.float(), labels.classes[:, 0])
    assert soft_cross_entropy(logits, labels).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_soft_labels_are_for_cross_entropy():
    with pytest.raises(InputError, match="cross_entropy alone"):
        MarginSoftmax(5, 4, criterion=Focal()).double()(Z, SoftLabels(CLASSES, SHARES))
