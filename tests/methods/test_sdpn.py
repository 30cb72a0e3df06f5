"""SDPN: short crops against the clean one, shared and slow prototypes, the regularisers, and what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_batches import Linear, batch, facts, waves

from sv_ssl.core.errors import InputError
from sv_ssl.losses import SDPNLoss
from sv_ssl.losses.sdpn_loss import fro_norm
from sv_ssl.methods import SDPN, Positives
from sv_ssl.models.heads import Bottleneck, Prototypes

K = 6


def made(loss=None, **options):
    torch.manual_seed(0)
    loss = loss or SDPNLoss()
    return SDPN(Linear(norm=True), Bottleneck(8, 16, 8), Prototypes(8, K), loss, ema=0.9, **options).train()


def crops(seed=0):
    return batch(0, 4, seed, short=waves(3, 4, seed + 1), clean=waves(1, 4, seed + 2))


def test_a_step_by_hand():
    loss = SDPNLoss(form="none", me_max_weight=0.5, koleo_weight=0.0)
    given, other = crops(), made()
    z = F.normalize(other.head(other.embedder(given.short.flatten(0, 1))), dim=1)
    log_p = (z @ other.prototypes.weight.T / 0.1).log_softmax(1).view(3, 4, K)
    embedder, head = other.teacher
    q = (F.normalize(head(embedder(given.clean[0])), dim=1) @ other.prototypes.weight.T / 0.025).softmax(1)
    mean = log_p.exp().mean((0, 1))
    expected = -(q * log_p).sum(-1).mean() + 0.5 * (math.log(K) + (mean * mean.log()).sum())
    torch.testing.assert_close(made(loss)(given).loss, expected)


def test_the_teacher_is_kept_and_the_prototypes_learn_from_the_student_alone():
    method = made()
    optimizer = torch.optim.SGD(method.parameter_groups(), 0.1)
    assert method.embedder_to_keep() is method.teacher[0]
    before = method.teacher[0].layer.weight.clone()
    method(crops()).loss.backward()
    optimizer.step()
    method.on_step_end(0.0)
    torch.testing.assert_close(method.teacher[0].layer.weight, 0.9 * before + 0.1 * method.embedder.layer.weight)
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(K))
    assert method.prototypes.weight.grad.any() and method.slow_prototypes is None


def test_the_teacher_may_have_slow_prototypes_of_its_own():
    method = made(teacher_uses="ema")
    start = method.prototypes.weight.detach().clone()
    optimizer = torch.optim.SGD(method.parameter_groups(), 0.5)
    method(crops()).loss.backward()
    optimizer.step()
    method.on_step_end(0.0)
    torch.testing.assert_close(method.slow_prototypes.weight, 0.9 * start + 0.1 * method.prototypes.weight)


def test_the_prototypes_have_a_rate_of_their_own():
    groups = made(prototypes_rate=4.0).parameter_groups()
    assert groups[-1]["lr_scale"] == 4.0 and tuple(groups[-1]["params"][0].shape) == (K, 8)


def test_the_regulariser_of_2025_is_of_student_and_teacher():
    method, plain, given = made(fro_weight=0.3), made(), crops()
    result = method(given)
    z = plain.head(plain.embedder(given.short.flatten(0, 1)))
    embedder, head = plain.teacher
    expected = fro_norm(z) + fro_norm(head(embedder(given.clean[0])))
    torch.testing.assert_close(result.log["fro_norm"], expected.detach())
    torch.testing.assert_close(result.loss, made()(given).loss + 0.3 * expected)


def test_sampled_positives_take_the_place_of_the_clean_crop():
    method = made(positives=Positives(2, near=0))
    method.prepare(facts(n_rows=4))
    given = crops()
    for epoch in (1, 2):
        method.on_epoch_start(epoch)
        step = method(given)
        method.on_step_end(0.0)
        method.on_epoch_end(epoch)
        method.positives.clusters.assignments[0] = torch.zeros(4, dtype=torch.long)
    assert step.log["coverage"] == 1


@pytest.mark.parametrize("given", [batch(2, 4), batch(0, 4, short=waves(1, 4)), batch(0, 4, clean=waves(1, 4))])
def test_other_crops_are_refused(given):
    with pytest.raises(InputError, match="--n_views 0 --n_short 4 --n_clean 1"):
        made()(given)
    with pytest.raises(InputError, match="teacher_uses is 'none': choose shared or ema"):
        made(teacher_uses="none")


def test_half_precision_and_low_temperatures_are_finite():
    method = made(SDPNLoss(temperature=0.005))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(crops()).loss
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
