"""Mixing recordings and labels alike, the same again after a resume."""

import pytest
import torch
from small_batches import facts

from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream
from sv_ssl.data.batch import Batch
from sv_ssl.losses import MarginSoftmax, Penalised, SoftADD, SoftLabels, soft_cross_entropy
from sv_ssl.methods import Labelled, SimCLR
from sv_ssl.methods.mixup import Mixup

ROWS, CLASSES = torch.eye(6), torch.arange(6)


class Flat(torch.nn.Module):
    dim = 4

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(6, 4)

    def forward(self, rows):
        return self.linear(rows)


def dense(labels):
    return torch.zeros(len(labels.classes), 6).scatter_add(1, labels.classes, labels.shares)


def test_rows_and_labels_are_mixed_in_the_same_parts():
    rows, labels = Mixup(1.0).train()(ROWS, CLASSES)
    assert torch.allclose(rows, dense(labels)) and not torch.equal(rows, ROWS)  # row i was class i's one-hot one
    assert torch.equal(ROWS, torch.eye(6))
    again, other = (Mixup(1.0, seed=seed).train()(ROWS, CLASSES)[0] for seed in (0, 1))
    assert torch.equal(again, rows) and not torch.equal(other, rows)


def test_in_so_many_batches_and_never_outside_training():
    mixup = Mixup(0.5).train()
    mixed = [len(mixup(ROWS, CLASSES)[1].shares[0]) == 2 for _ in range(400)]
    assert 0.4 < sum(mixed) / 400 < 0.6
    rows, labels = mixup.eval()(ROWS, CLASSES)
    assert rows is ROWS and torch.equal(dense(labels), torch.eye(6)) and mixup.drawn == 400


def test_it_goes_on_where_it_was_stopped():
    whole, first, second = (Mixup(1.0).train() for _ in range(3))
    drawn = [whole(ROWS, CLASSES)[0] for _ in range(3)]
    first(ROWS, CLASSES)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(second(ROWS, CLASSES)[0], one) for one in drawn[1:])


@pytest.mark.parametrize(
    "method",
    [
        lambda mixup: SimCLR(Flat(), Penalised(MarginSoftmax(4), [SoftADD()]), mixup=mixup, labels="speaker"),
        lambda mixup: Labelled(Flat(), Penalised(soft_cross_entropy, [SoftADD()]), "full", mixup=mixup),
    ],
)
def test_the_methods_hand_both_to_the_loss(method, monkeypatch):
    seen = []
    mixup = Mixup(1.0, smoothing=0.1)
    built = method(mixup).train()
    built.prepare(facts(CLASSES))
    built.loss.register_forward_pre_hook(lambda module, given: seen.append(given))
    step = built(Batch(ROWS[None], torch.arange(6)))
    step.loss.backward()
    [(rows,)] = seen
    labels = rows.labels
    assert isinstance(labels, SoftLabels) and (labels.smoothing, labels.n_classes) == (0.1, 6)
    mixed = built.embedder(Mixup(1.0).train()(ROWS, CLASSES)[0])
    assert torch.equal(rows.h, mixed) and torch.equal(step.z, mixed)
    assert torch.equal(step.labels, CLASSES)
    assert built.embedder.linear.weight.grad.isfinite().all()


@pytest.mark.parametrize("wrong", [dict(share=1.5), dict(share=-0.1), dict(smoothing=1.0), dict(smoothing=-0.1)])
def test_shares_are_shares(wrong):
    with pytest.raises(InputError, match="want shares"):
        Mixup(**wrong)


def test_the_parts_are_of_the_papers_beta():
    mixup = Mixup(1.0).train()
    parts = torch.tensor([float(mixup(ROWS, CLASSES)[1].shares[0, 0]) for _ in range(600)])
    assert abs(parts.mean() - 0.5) < 0.02 and 0.095 < parts.std() < 0.125  # of Beta(10, 10): 0.109


def test_what_is_drawn_is_applied_and_batches_of_ranks_differ():
    mixup = Mixup(1.0)
    drawn = mixup.draw(stream(0, "mixup", 0, 1), 6)
    rows, labels = mixup.mix(ROWS, CLASSES, {key: torch.from_numpy(value) for key, value in drawn.items()})
    again, of_row = mixup.train()(ROWS, CLASSES)
    assert torch.equal(rows, again) and torch.equal(labels.shares, of_row.shares)
    other = mixup.draw(stream(0, "mixup", 1, 1), 6)
    assert other["part"] != drawn["part"]
    assert Mixup(0.0).draw(stream(0, "mixup", 0, 1), 6) == {}
