"""MoCo: two directions, a slow copy, a queue of all processes' keys, shuffled groups, and its state."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from small_batches import Linear, batch, facts, waves
from torch import nn

from sv_ssl.core.errors import InputError
from sv_ssl.losses import InfoNCE, NTXent
from sv_ssl.losses.margin import additive
from sv_ssl.methods import MoCo
from sv_ssl.models.embedder import Embedder, FrameStatistics
from sv_ssl.models.features import LogMel, SpecAugment


def moco(**kwargs):
    torch.manual_seed(0)
    kwargs = {"queue_size": 6, "ema": 0.9, **kwargs}
    return MoCo(kwargs.pop("embedder", None) or Linear(), InfoNCE(0.2, partial(additive, m=0.1)), **kwargs).train()


def test_moco_is_the_mean_of_two_directions():
    method, given = moco(shuffle=1), batch()
    q1, q2 = (method.embedder(view) for view in given.views)
    k1, k2 = (F.normalize(method.key(view), dim=1) for view in given.views)
    expected = (method.loss(q1, k2, method.queue.rows[0]) + method.loss(q2, k1, method.queue.rows[1])) / 2
    step = method(given)
    assert torch.allclose(step.loss, expected) and torch.equal(step.labels, given.rows.repeat(2))
    assert torch.equal(step.z, torch.cat([q1, q2]).detach())
    one = moco(shuffle=1, directions=1)
    x, step = given.views, one(given)
    assert torch.allclose(step.loss, one.loss(one.embedder(x[0]), one.key(x[1]), one.queue.rows[0]))
    assert len(step.z) == len(step.labels) == 8


def test_moco_gradient_reaches_the_query_encoder_alone():
    method = moco()
    method(batch()).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.embedder.parameters())
    assert all(p.grad is None and not p.requires_grad for p in method.key.parameters())


def test_ema_moves_parameters_and_leaves_batchnorm_statistics():
    method = moco(embedder=Linear(norm=True))
    method(batch())
    with torch.no_grad():
        for p in method.embedder.parameters():
            p.add_(1.0)
    before = copy.deepcopy(method.key.state_dict())
    method.on_step_end(0.0)
    after = method.key.state_dict()
    for name, tensor in before.items():
        moves = 0.1 if "running" not in name and "num_batches" not in name else 0.0
        assert torch.allclose(after[name].float(), tensor.float() + moves), name


def test_ema_schedule_sees_the_epoch():
    method = moco(ema=lambda epoch: 1.0 if epoch < 5 else 0.0)
    with torch.no_grad():
        method.embedder.layer.weight.add_(1.0)
    method.on_step_end(4.9)
    assert not torch.equal(method.key[0].layer.weight, method.embedder.layer.weight)
    method.on_step_end(5.0)
    assert torch.allclose(method.key[0].layer.weight, method.embedder.layer.weight)


@pytest.mark.parametrize("queue_size", [3, 6, 10])
def test_the_queue_is_first_in_first_out_for_any_length(queue_size):
    method, written = moco(queue_size=queue_size, shuffle=1), [[], []]
    before = method.queue.rows.clone()
    for step in range(4):
        given = batch(seed=step)
        method(given)
        keys = [F.normalize(method.key(view), dim=1) for view in given.views]
        written[0] += list(keys[1])  # the queue of direction 1 holds keys of view 2
        written[1] += list(keys[0])
        assert torch.equal(method.queue.rows, before), "the queue moves only after the step"
        method.on_step_end(0.0)
        before = method.queue.rows.clone()
    for d in range(2):
        newest = {tuple(row.tolist()) for row in torch.stack(written[d])[-queue_size:].round(decimals=5)}
        assert {tuple(row.tolist()) for row in method.queue.rows[d].round(decimals=5)} == newest


def test_steps_of_an_accumulated_batch_are_enqueued_together():
    method = moco(queue_size=20)
    for seed in range(3):
        method(batch(seed=seed))
    assert method.queue.position == 0
    method.on_step_end(0.0)
    assert method.queue.position == 12


def test_shuffling_changes_who_shares_statistics_and_nothing_else():
    given = batch(size=8)
    plain, shuffled = moco(shuffle=1), moco(shuffle=2)
    assert torch.allclose(plain(given).loss, shuffled(given).loss)  # no BatchNorm: no difference
    plain, shuffled = (moco(embedder=Linear(norm=True), shuffle=n) for n in (1, 2))
    shuffled.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(given).loss, shuffled(given).loss)


def test_masked_labels_remove_the_anchors_own_entries():
    method = moco(mask_labels=True, queue_size=4, shuffle=1)
    given = batch()._replace(rows=torch.full((4,), 7))
    method(given)
    method.on_step_end(0.0)
    assert (method.queue.labels == 7).all()
    assert method(given).loss.item() == pytest.approx(0.0, abs=1e-6)  # every negative is gone


def test_state_survives():
    a = moco(embedder=Linear(norm=True))
    for seed in range(3):
        a(batch(seed=seed))
        a.on_step_end(0.0)
    b = moco(embedder=Linear(norm=True))
    b.load_state_dict(a.state_dict())
    given = batch(seed=9)
    assert torch.equal(a(given).loss, b(given).loss) and a.queue.position == b.queue.position == 0 + 12 % 6
    assert a.shuffled == b.shuffled == 8


def test_impossible_settings_are_named():
    with pytest.raises(InputError, match="directions is 3"):
        moco(directions=3)
    with pytest.raises(InputError, match="two views of an utterance, 3 came"):
        moco()(batch(3))
    with pytest.raises(InputError, match="2 and short ones came: pass --n_views 2 --n_short 0"):
        moco()(batch(short=waves()))
    with pytest.raises(InputError, match="takes a queue, such as InfoNCE, not NTXent"):
        MoCo(Linear(), NTXent(0.1))
    assert not moco().needs.short and moco().needs.views == 2


def test_moco_starts_its_keys_from_weights_that_were_loaded():
    method = moco()
    nn.init.constant_(method.embedder.layer.weight, 0.5)
    method.weights_loaded()
    assert torch.equal(method.key[0].layer.weight, method.embedder.layer.weight)


def test_keys_of_an_epoch_that_ends_within_an_accumulated_batch_are_forgotten():
    method = moco()
    method(batch())
    method.on_epoch_end(1)
    before = method.queue.rows.clone()
    method.on_step_end(1.0)
    assert torch.equal(method.queue.rows, before) and method.queue.position == 0


def test_keys_are_not_kept_outside_training():
    method = moco().eval()
    method(batch())
    assert not method.queue.waiting


def test_labels_by_speaker_mask_all_recordings_of_the_speaker():
    method = moco(mask_labels=True, labels="speaker", queue_size=4, shuffle=1)
    method.prepare(facts([3, 3, 3, 3]))
    assert method.needs.labels == "all"
    method(batch())
    method.on_step_end(0.0)
    assert method.queue.labels.tolist() == [3] * 4
    assert method(batch()).loss.item() == pytest.approx(0.0, abs=1e-6)


def test_the_slow_encoder_masks_other_stripes():
    method = moco(embedder=Embedder(LogMel(20, spec_augment=SpecAugment()), FrameStatistics(20)), head_dim=40)
    query, key = method.embedder.features, method.key[0].features
    method.prepare(facts())
    wave = 0.1 * torch.randn(3, 4000)
    assert query.spec_augment.number != key.spec_augment.number and query.spec_augment.drawn == key.spec_augment.drawn
    assert not torch.equal(query(wave), key(wave))


def test_only_what_learns_is_given_to_the_optimizer():
    method = moco()
    [group] = method.parameter_groups()
    assert group["params"] == list(method.embedder.parameters()) and method.embedder_to_keep() is method.embedder
