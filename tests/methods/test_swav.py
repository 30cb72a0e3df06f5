"""SwAV: whose codes are predicted from whom, the queue of rows that codes are shared out over, frozen prototypes."""

import pytest
import torch
import torch.nn.functional as F
from small_batches import Linear, batch, facts, waves

from sv_ssl.losses import SwAVLoss
from sv_ssl.losses.sinkhorn import sinkhorn
from sv_ssl.methods.positives import Positives
from sv_ssl.methods.swav import SwAV
from sv_ssl.models.heads import Prototypes

K = 6


def made(frozen=0, **options):
    torch.manual_seed(0)
    return SwAV(Linear(norm=True), Prototypes(8, K, frozen), SwAVLoss(), **options).train()


def step(method, given):
    optimizer = torch.optim.SGD(method.parameter_groups(), 0.5)
    found = method(given)
    optimizer.zero_grad()
    found.loss.backward()
    optimizer.step()
    method.on_step_end(0.0)
    return found


def by_hand(method, given, old=None):
    """The mean over i in {1, 2} and all other crops v of -sum Q_i log softmax(S_v / 0.1)."""
    crops = [method.embedder(given.views.flatten(0, 1))]
    if given.short is not None:
        crops.append(method.embedder(given.short.flatten(0, 1)))
    prototypes = F.normalize(method.prototypes.weight, dim=1)
    scores = (F.normalize(torch.cat(crops), dim=1) @ prototypes.T).unflatten(0, (-1, given.views.shape[1]))
    terms = []
    for i in range(2):
        queued = [] if old is None else [F.normalize(old[i], dim=1) @ prototypes.T]
        code = sinkhorn(torch.cat([scores[i], *queued]))[: scores.shape[1]]
        terms += [-(code * (scores[v] / 0.1).log_softmax(1)).sum(1).mean() for v in range(len(scores)) if v != i]
    return torch.stack(terms).mean()


@pytest.mark.parametrize("short", [None, waves(3, seed=1)])
def test_a_step_by_hand(short):
    given = batch(short=short)
    step = made()(given)
    torch.testing.assert_close(step.loss, by_hand(made(), given))
    assert step.z.shape == (8, 8) and torch.equal(step.labels, given.rows.repeat(2))  # the long crops are watched


def test_codes_are_shared_out_over_the_filled_places_of_the_queue_from_its_epoch_on():
    method, plain = made(queue_size=10, queue_start=1), made()
    first, second = batch(seed=0), batch(seed=1)
    method.on_epoch_start(1)
    torch.testing.assert_close(step(method, first).loss, step(plain, first).loss)
    assert (method.queue.labels >= 0).sum() == 4 and method._queued() is None  # filled before it is used
    method.on_epoch_start(2)
    old = method.queue.rows[:, :4]
    torch.testing.assert_close(method(second).loss, by_hand(plain, second, old))
    assert not torch.isclose(by_hand(plain, second, old), by_hand(plain, second))
    assert method._queued().shape == (2, 4, K)  # random rows, which are nobody's, take no part
    assert not method._queued().requires_grad


def test_the_queue_holds_the_rows_of_each_view_after_the_step():
    method, given = made(queue_size=4), batch()
    rows = method(given).z
    assert (method.queue.labels == -1).all()
    method.on_step_end(0.0)
    torch.testing.assert_close(method.queue.rows, rows.view(2, 4, 8))
    method(given)
    method.on_epoch_end(1)
    assert not method.queue.waiting
    method.eval()(given)
    assert not method.queue.waiting


def test_the_queue_holds_true_rows_where_positives_are_sampled():
    method, given = made(queue_size=4, positives=Positives(2, near=0)), batch(clean=waves(1, seed=2))
    method.prepare(facts())
    for epoch in (1, 2):
        method.on_epoch_start(epoch)
        found = method(given)
        method.on_step_end(0.0)
        method.on_epoch_end(epoch)
        method.positives.clusters.assignments[0] = 0
    assert found.log["coverage"] == 1
    torch.testing.assert_close(method.queue.rows, found.z.view(2, 4, 8))


def test_a_sampled_positive_gives_codes_and_is_predicted_and_is_constant():
    method, given = made(positives=Positives(2, near=0)), batch(clean=waves(1, seed=2))
    method.prepare(facts())
    method.on_epoch_start(1)
    method(given)
    method.on_step_end(0.0)
    method.on_epoch_start(2)
    method.positives.clusters.assignments[0] = 0
    z = method.embedder(given.views.flatten(0, 1)).unflatten(0, (2, 4))
    z.retain_grad()
    compared, figures = method._sampled(z, given)
    scores = method.prototypes(compared)
    loss = method.loss(scores)
    assert figures["coverage"] == 1 and not torch.isclose(loss, method.loss(method.prototypes(z)))
    loss.backward()
    assert z.grad[0].any() and not z.grad[1].any() and method.prototypes.weight.grad.any()


def test_frozen_prototypes_stay_and_free_ones_keep_their_length():
    method = made(frozen=1)
    before = method.prototypes.weight.detach().clone()
    method.on_epoch_start(1)
    step(method, batch())
    torch.testing.assert_close(method.prototypes.weight, before)
    method.on_epoch_start(2)
    step(method, batch())
    assert not torch.allclose(method.prototypes.weight, before)
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(K))


def test_prototypes_biases_and_norms_are_not_decayed():
    groups = made().parameter_groups()
    assert [group.get("weight_decay") for group in groups] == [None, 0.0, 0.0]
    assert [tuple(parameter.shape) for parameter in groups[2]["params"]] == [(K, 8)]


def test_a_resumed_run_goes_on_with_the_queue():
    first = made(queue_size=10)
    for seed in range(3):
        step(first, batch(seed=seed))
    second = made(queue_size=10)
    second.load_state_dict(first.state_dict())
    assert second.queue.position == 2 and second.queue.labels.equal(first.queue.labels)
    assert second(batch(seed=3)).loss == first(batch(seed=3)).loss


def test_half_precision_and_more_prototypes_than_rows_are_finite():
    torch.manual_seed(0)
    method = SwAV(Linear(norm=True), Prototypes(8, 64), SwAVLoss(0.005, 0.005), queue_size=8).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = step(method, batch())
        found = method(batch(seed=1))
    found.loss.backward()
    assert found.loss.isfinite() and all(p.grad.isfinite().all() for p in method.parameters())
