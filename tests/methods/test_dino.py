"""DINO: whose crops are compared, what the teacher is, what the centre follows, and the prototypes."""

import pytest
import torch
import torch.nn.functional as F
from small_batches import Linear, batch, facts, waves
from torch import nn

from sv_ssl.core.errors import InputError
from sv_ssl.losses import DINOLoss
from sv_ssl.losses.dino_loss import diversity
from sv_ssl.methods import DINO, Positives
from sv_ssl.models.heads import Bottleneck, Prototypes

K = 6


def made(frozen=0, ema=0.9, **options):
    torch.manual_seed(0)
    method = DINO(Linear(norm=True), Bottleneck(8, 16, 8), Prototypes(8, K, frozen), DINOLoss(K), ema=ema, **options)
    return method.train()


def crops(seed=0, **fields):
    return batch(2, 4, seed, short=waves(3, 4, seed + 1), **fields)


def step(method, optimizer, given, progress=0.0):
    method.on_step_start(progress)
    result = method(given)
    optimizer.zero_grad()
    result.loss.backward()
    optimizer.step()
    method.on_step_end(progress)
    return result


def test_a_step_by_hand():
    method, given = made(), crops()
    loss = method(given).loss
    torch.manual_seed(0)
    other = made()
    h = torch.cat([other.embedder(given.views.flatten(0, 1)), other.embedder(given.short.flatten(0, 1))])
    student = F.normalize(other.head(h), dim=1) @ F.normalize(other.prototypes.weight, dim=1).T
    student = student.view(5, 4, K) / 0.1
    embedder, head, prototypes = other.teacher
    said = F.normalize(head(embedder(given.views.flatten(0, 1))), dim=1) @ prototypes.weight.T
    q = (said.view(2, 4, K) / 0.04).softmax(-1)
    terms = [-(q[g] * student[v].log_softmax(-1)).sum(-1).mean() for g in range(2) for v in range(5) if v != g]
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_the_teacher_is_kept_learns_nothing_and_follows_the_student():
    method = made(ema=lambda progress: 0.5 if progress < 1 else 1.0)
    optimizer = torch.optim.SGD(method.parameter_groups(), 0.1)
    assert method.embedder_to_keep() is method.teacher[0]
    assert not any(p.requires_grad for p in method.teacher.parameters())
    before = method.teacher[0].layer.weight.clone()
    step(method, optimizer, crops())
    torch.testing.assert_close(method.teacher[0].layer.weight, (before + method.embedder.layer.weight) / 2)
    kept = method.teacher[0].layer.weight.clone()
    step(method, optimizer, crops(1), progress=1.0)
    assert method.teacher[0].layer.weight.equal(kept) and not method.embedder.layer.weight.equal(kept)
    assert not method.teacher[0].norm.running_mean.equal(method.embedder.norm.running_mean)  # statistics of its own


def test_weights_of_a_model_folder_are_those_of_the_teacher_too():
    method = made()
    with torch.no_grad():
        method.embedder.layer.weight.fill_(0.5)
    method.weights_loaded()
    assert method.teacher[0].layer.weight.equal(method.embedder.layer.weight)


def test_the_centre_follows_what_the_teacher_said_once_a_step():
    method = made()
    given = [crops(seed) for seed in (0, 1)]
    for part in given:  # two batches of an accumulated step
        method(part)
    means = [mean[0, 0] for mean in method.means]
    assert not method.loss.centre.any()
    method.on_step_end(0.0)
    torch.testing.assert_close(method.loss.centre, 0.09 * means[0] + 0.1 * means[1])
    method(given[0])
    method.on_epoch_end(1)
    assert not method.means


def test_frozen_prototypes_stay_and_have_length_1_afterwards():
    method = made(frozen=1)
    optimizer = torch.optim.SGD(method.parameter_groups(), 0.5, momentum=0.9, weight_decay=0.1)
    before = method.prototypes.weight.detach().clone()
    method.on_epoch_start(1)
    step(method, optimizer, crops())
    torch.testing.assert_close(method.prototypes.weight, before)
    assert method.prototypes.weight.grad.equal(torch.zeros(K, 8))  # of all processes: a gradient of 0, not none
    method.on_epoch_start(2)
    step(method, optimizer, crops())
    assert not torch.allclose(method.prototypes.weight, before)
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(K))


def test_biases_norms_and_prototypes_are_not_decayed():
    groups = made().parameter_groups()
    assert [group.get("weight_decay") for group in groups] == [None, 0.0, 0.0]
    assert all(parameter.ndim > 1 for parameter in groups[0]["params"])
    assert [tuple(parameter.shape) for parameter in groups[2]["params"]] == [(K, 8)]


def test_diversity_is_weighed_by_a_schedule_and_its_teacher_is_constant():
    method = made(diversity=diversity, diversity_weight=lambda progress: 2.0 * progress)
    plain = made()
    given = crops()
    expected = plain(given).loss
    method.on_step_start(0.0)
    torch.testing.assert_close(method(given).loss, expected)
    method.on_step_start(1.0)
    result = method(given)
    torch.testing.assert_close(result.loss, plain(given).loss + 2 * result.log["diversity"])


def test_sampled_positives_take_the_place_of_both_long_crops_and_not_in_the_centre():
    method = made(positives=Positives(2, near=0))
    method.prepare(facts(n_rows=4))
    given = crops(clean=waves(1, 4, 9))
    optimizer = torch.optim.SGD(method.parameter_groups(), 0.0)
    method.on_epoch_start(1)
    first = step(method, optimizer, given)
    assert "coverage" not in first.log  # the first epoch has no clusters yet, and nothing is wrong with that
    method.on_epoch_end(1)
    method.on_epoch_start(2)
    method.positives.clusters.assignments[0] = torch.zeros(4, dtype=torch.long)
    centre = method.loss.centre.clone()
    second = method(given)
    assert second.log["coverage"] == 1 and not torch.isclose(second.loss, first.loss)
    said = method.teacher[2](method._taught(given.views)[1]).mean((0, 1))
    torch.testing.assert_close(method.means[-1][0, 0], said)
    assert method.loss.centre.equal(centre)
    assert method.positives.queue.rows.shape == (2, 4, 8)  # both long crops of another recording


def test_a_clean_crop_is_seen_by_the_teacher_at_rest():
    method = made(positives=Positives(2, near=0))
    method.prepare(facts(n_rows=4))
    given = crops(clean=waves(1, 4, 9))
    method(given)
    rows, kept = method.positives.clusters.waiting[0]
    expected = F.normalize(method.teacher[0].eval()(given.clean[0]), dim=1)
    assert rows.equal(given.rows)
    torch.testing.assert_close(kept, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("given", [batch(2, 4), batch(3, 4, short=waves(1, 4))])
def test_other_crops_are_refused(given):
    with pytest.raises(InputError, match="2 long crops and short ones"):
        made()(given)


def test_half_precision_and_many_prototypes_are_finite():
    torch.manual_seed(0)
    count = 4096
    method = DINO(Linear(norm=True), Bottleneck(8, 16, 8), Prototypes(8, count), DINOLoss(count, 0.005, 0.005)).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(crops()).loss
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    assert isinstance(method.prototypes, nn.Module) and method.prototypes.weight.grad.any()


def test_learns_without_a_head():
    torch.manual_seed(0)
    method = DINO(Linear(norm=True), Bottleneck(8, 0, 8), Prototypes(8, K), DINOLoss(K), ema=0.9).train()
    optimizer, before = torch.optim.SGD(method.parameters(), 0.1), method.teacher[0].state_dict()
    before = {key: value.clone() for key, value in before.items()}
    result = step(method, optimizer, crops())
    torch.testing.assert_close(result.z, result.h[: len(result.z)])
    assert any(not torch.equal(value, before[key]) for key, value in method.teacher[0].state_dict().items())
