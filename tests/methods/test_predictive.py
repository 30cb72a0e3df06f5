"""BYOL and SimSiam: what is predicted, by whom, and where the gradient ends."""

import pytest
import torch
import torch.nn.functional as F
from small_batches import Linear, batch, waves
from torch import nn

from sv_ssl.core.errors import InputError
from sv_ssl.methods.predictive import Predictive
from sv_ssl.models.heads import mlp
from sv_ssl.training import watch


def made(ema=0.9, **options):
    torch.manual_seed(0)
    return Predictive(Linear(norm=True), mlp(8, 16, 6), mlp(6, 16, 6), ema, **options).train()


def agreement(p, z):
    """cos(p1, z2) + cos(p2, z1), means over rows, where z is constant."""
    (p1, p2), (z1, z2) = p.chunk(2), z.detach().chunk(2)
    return F.cosine_similarity(p1, z2).mean() + F.cosine_similarity(p2, z1).mean()


def step(method, given, lr=0.5, progress=0.0):
    optimizer = torch.optim.SGD(method.parameter_groups(), lr)
    found = method(given)
    optimizer.zero_grad()
    found.loss.backward()
    optimizer.step()
    method.on_step_end(progress)
    return found


def test_byol_by_hand():
    given, other = batch(), made()
    with torch.no_grad():
        for parameter in other.target.parameters():
            parameter.add_(0.1)
    method = made()
    method.load_state_dict(other.state_dict())
    found = method(given)
    waves = given.views.flatten(0, 1)
    z = other.head(other.embedder(waves))
    torch.testing.assert_close(found.loss, 4 - 2 * agreement(other.predictor(z), other.target(waves)))
    assert torch.equal(found.z, z) and torch.equal(found.labels, given.rows.repeat(2))


def test_simsiam_by_hand():
    given, other = batch(), made(None)
    z = other.head(other.embedder(given.views.flatten(0, 1)))
    torch.testing.assert_close(made(None)(given).loss, -agreement(other.predictor(z), z) / 2)
    assert other.target is None


@pytest.mark.parametrize("ema", [0.9, None])
def test_the_gradient_is_that_of_constant_targets(ema):
    method, other, given = made(ema), made(ema), batch()
    method(given).loss.backward()
    waves = given.views.flatten(0, 1)
    z = other.head(other.embedder(waves))
    loss = agreement(other.predictor(z), z if ema is None else other.target(waves))
    (-loss / 2 if ema is None else 4 - 2 * loss).backward()
    for name in ("embedder", "head", "predictor"):
        for ours, expected in zip(getattr(method, name).parameters(), getattr(other, name).parameters()):
            torch.testing.assert_close(ours.grad, expected.grad)
    if method.target is not None:
        assert all(p.grad is None and not p.requires_grad for p in method.target.parameters())


def test_the_target_follows_by_its_schedule_and_keeps_its_statistics():
    method = made(ema=lambda progress: 0.5 if progress < 1 else 1.0)
    before = [parameter.clone() for parameter in method.target.parameters()]
    step(method, batch())
    online = [*method.embedder.parameters(), *method.head.parameters()]
    for old, slow, fast in zip(before, method.target.parameters(), online):
        torch.testing.assert_close(slow, (old + fast) / 2)
    held = [parameter.clone() for parameter in method.target.parameters()]
    step(method, batch(seed=1), progress=1.0)
    assert all(slow.equal(old) for slow, old in zip(method.target.parameters(), held))
    statistics = method.target[0].norm.running_mean
    assert statistics.any() and not statistics.equal(method.embedder.norm.running_mean)  # those of its own batches


def test_weights_that_were_loaded_are_the_targets_too():
    method = made()
    nn.init.constant_(method.embedder.layer.weight, 0.5)
    method.weights_loaded()
    assert method.target[0].layer.weight.equal(method.embedder.layer.weight)
    made(None).weights_loaded()  # no target: nothing to do


def test_the_students_embedder_is_kept_and_norms_are_not_decayed():
    method = made()
    assert method.embedder_to_keep() is method.embedder
    groups = method.parameter_groups()
    assert [group.get("weight_decay") for group in groups] == [None, 0.0]
    learnt = {id(p) for group in groups for p in group["params"]}
    assert learnt.isdisjoint(id(p) for p in method.target.parameters())


def collapse(**options):
    """The alarms after a while of pulling the views together."""
    method, said = made(None, **options), []
    optimizer = torch.optim.Adam(method.parameter_groups(), 0.03)
    for seed in range(60):
        found = method(batch(size=16, seed=seed))
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
        said = watch.alarms(watch.figures(found))
    return said


def test_without_the_stop_gradient_all_becomes_one_and_the_alarm_says_so():
    assert any("keep stop_gradient" in alarm for alarm in collapse(stop_gradient=False))
    assert collapse() == []


def test_a_resumed_run_goes_on_with_its_target():
    first, second = made(), made()
    for seed in range(3):
        step(first, batch(seed=seed))
    second.load_state_dict(first.state_dict())
    assert second(batch(seed=9)).loss == first(batch(seed=9)).loss


@pytest.mark.parametrize("ema", [0.9, None])
def test_half_precision_and_equal_rows_are_finite(ema):
    method = made(ema)
    given = batch()._replace(views=torch.ones(2, 4, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(given).loss
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)


def test_what_is_refused():
    with pytest.raises(InputError, match="leave stop_gradient True, or ema null"):
        made(0.9, stop_gradient=False)
    for given in (batch(3), batch(short=waves())):
        with pytest.raises(InputError, match="pass --n_views 2 --n_short 0"):
            made()(given)
