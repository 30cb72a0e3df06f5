import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sv_ssl.core.errors import InputError
from sv_ssl.losses import AngularPrototypical, InfoNCE, NTXent
from sv_ssl.losses.margin import additive
from sv_ssl.methods import Momentum, Siamese
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.heads import mlp
from sv_ssl.models.resnet import FastResNet34


class Linear(nn.Module):
    """The smallest embedder: (B, 16) -> (B, 8)."""

    def __init__(self, norm=False):
        super().__init__()
        self.layer, self.norm, self.dim = nn.Linear(16, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), 8

    def forward(self, wave):
        return self.norm(self.layer(wave))


def views(n=2, batch=4, seed=0):
    return torch.randn(n, batch, 16, generator=torch.Generator().manual_seed(seed)), torch.arange(batch)


def moco(**kwargs):
    torch.manual_seed(0)
    kwargs = {"queue_size": 6, "momentum": 0.9, **kwargs}
    return Momentum(kwargs.pop("embedder", None) or Linear(), InfoNCE(0.2, partial(additive, m=0.1)), **kwargs).train()


@pytest.mark.parametrize("n_views", [2, 3])
def test_siamese_is_its_loss(n_views):
    torch.manual_seed(0)
    method, (x, labels) = Siamese(Linear(), NTXent(0.1, n_views=n_views)), views(n_views)
    out = method(x, labels)
    z = torch.cat([method.embedder(view) for view in x])
    assert torch.allclose(out["loss"], NTXent(0.1, n_views=n_views)(z, labels.repeat(n_views)))
    assert out["z"].shape == (4 * n_views, 8) and not out["z"].requires_grad


def test_siamese_with_a_real_encoder_learns_to_tell_a_batch_apart():
    torch.manual_seed(0)
    method = Siamese(Embedder(LogMel(40), FastResNet34(40, "small", dim=32)), NTXent(0.1), mlp(32, 32, 16))
    x, labels = 0.1 * torch.randn(1, 4, 8000).repeat(2, 1, 1), torch.arange(4)
    optimizer = torch.optim.Adam(method.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(method(x, labels)["loss"])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_moco_is_the_mean_of_two_directions():
    method, (x, labels) = moco(shuffle=1), views()
    q1, q2 = (method.embedder(view) for view in x)
    k1, k2 = (F.normalize(method.key(view), dim=1) for view in x)
    expected = (method.loss(q1, k2, method.queue[0]) + method.loss(q2, k1, method.queue[1])) / 2
    assert torch.allclose(method(x, labels)["loss"], expected)
    one = moco(shuffle=1, directions=1)
    assert torch.allclose(one(x, labels)["loss"], one.loss(one.embedder(x[0]), one.key(x[1]), one.queue[0]))


def test_moco_gradient_reaches_the_query_encoder_alone():
    method, (x, labels) = moco(), views()
    method(x, labels)["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.embedder.parameters())
    assert all(p.grad is None and not p.requires_grad for p in method.key.parameters())


def test_ema_moves_parameters_and_leaves_batchnorm_statistics():
    method = moco(embedder=Linear(norm=True))
    x, labels = views()
    method(x, labels)
    with torch.no_grad():
        for p in method.embedder.parameters():
            p.add_(1.0)
    before = copy.deepcopy(method.key.state_dict())
    method.after_step(0.0)
    after = method.key.state_dict()
    for name, tensor in before.items():
        moves = 0.1 if "running" not in name and "num_batches" not in name else 0.0
        assert torch.allclose(after[name].float(), tensor.float() + moves), name


def test_ema_schedule_sees_the_epoch():
    method = moco(momentum=lambda epoch: 1.0 if epoch < 5 else 0.0)
    with torch.no_grad():
        method.embedder.layer.weight.add_(1.0)
    method.after_step(4.9)
    assert not torch.equal(method.key[0].layer.weight, method.embedder.layer.weight)
    method.after_step(5.0)
    assert torch.allclose(method.key[0].layer.weight, method.embedder.layer.weight)


@pytest.mark.parametrize("queue_size", [3, 6, 10])
def test_the_queue_is_first_in_first_out_for_any_length(queue_size):
    method, written = moco(queue_size=queue_size, shuffle=1), [[], []]
    before = method.queue.clone()
    for step in range(4):
        x, labels = views(seed=step)
        method(x, labels)
        keys = [F.normalize(method.key(view), dim=1) for view in x]
        written[0] += list(keys[1])  # the queue of direction 1 holds keys of view 2
        written[1] += list(keys[0])
        assert torch.equal(method.queue, before), "the queue moves only after the step"
        method.after_step(0.0)
        before = method.queue.clone()
    for d in range(2):
        newest = {tuple(row.tolist()) for row in torch.stack(written[d])[-queue_size:].round(decimals=5)}
        assert {tuple(row.tolist()) for row in method.queue[d].round(decimals=5)} == newest


def test_steps_of_an_accumulated_batch_are_enqueued_together():
    method = moco(queue_size=20)
    for seed in range(3):
        method(*views(seed=seed))
    assert method.position == 0
    method.after_step(0.0)
    assert method.position == 12


def test_shuffling_changes_who_shares_statistics_and_nothing_else():
    x, labels = views(batch=8)
    plain, shuffled = moco(shuffle=1), moco(shuffle=2)
    assert torch.allclose(plain(x, labels)["loss"], shuffled(x, labels)["loss"])  # no BatchNorm: no difference
    plain, shuffled = (moco(embedder=Linear(norm=True), shuffle=n) for n in (1, 2))
    shuffled.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(x, labels)["loss"], shuffled(x, labels)["loss"])


def test_masked_labels_remove_the_anchors_own_entries():
    method, (x, _) = moco(mask_labels=True, queue_size=4, shuffle=1), views()
    labels = torch.full((4,), 7)
    method(x, labels)
    method.after_step(0.0)
    assert (method.queue_labels == 7).all()
    assert method(x, labels)["loss"].item() == pytest.approx(0.0, abs=1e-6)  # every negative is gone


def test_state_survives():
    a = moco(embedder=Linear(norm=True))
    for seed in range(3):
        a(*views(seed=seed))
        a.after_step(0.0)
    b = moco(embedder=Linear(norm=True))
    b.load_state_dict(a.state_dict())
    x = views(seed=9)
    assert torch.equal(a(*x)["loss"], b(*x)["loss"]) and a.position == b.position == 0 + 12 % 6


def test_impossible_settings_are_named():
    with pytest.raises(InputError, match="directions is 3"):
        moco(directions=3)
    with pytest.raises(InputError, match="two views of an utterance, 3 came"):
        moco()(*views(3))


def test_short_crops_ask_the_long_ones_of_all_utterances():
    method, (x, labels) = Siamese(Linear(), NTXent(0.1)), views()
    short, _ = views(3, seed=1)
    z, asked = (method.embedder(crops.flatten(0, 1)) for crops in (x, short))
    wanted = method.loss(z, labels.repeat(2)) + method.loss(asked, labels.repeat(3), z, labels.repeat(2))
    found = method(x, labels, short)
    assert torch.allclose(found["loss"], wanted) and len(found["z"]) == 8  # what is watched are the long crops


def test_short_crops_are_not_for_every_method():
    x, labels = views()
    with pytest.raises(InputError, match="AngularPrototypical: pass --n_short 0"):
        Siamese(Linear(), AngularPrototypical())(x, labels, x)
    with pytest.raises(InputError, match="--n_short 0"):
        moco()(x, labels, x)


def test_moco_starts_its_keys_from_weights_that_were_loaded():
    method = moco()
    nn.init.constant_(method.embedder.layer.weight, 0.5)
    method.reset_key()
    assert torch.equal(method.key[0].layer.weight, method.embedder.layer.weight)
