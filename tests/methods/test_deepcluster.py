"""DeepCluster: rows are classified into the clusters of the epoch before, by centroids that learn nothing."""

import pytest
import torch
import torch.nn.functional as F
from small_batches import Linear, batch, facts, waves
from torch import nn

from sv_ssl.core.errors import InputError
from sv_ssl.losses import DeepClusterLoss
from sv_ssl.methods.deepcluster import DeepCluster
from sv_ssl.methods.kmeans import draw_starts, spherical_kmeans

N = 12


def made(counts=(3, 4), head=None, **options):
    torch.manual_seed(0)
    method = DeepCluster(Linear(), DeepClusterLoss(), head, counts, **options).train()
    method.prepare(facts(n_rows=N))
    return method


def batches(epoch):
    for number, rows in enumerate(torch.arange(N).split(4)):
        yield batch(seed=10 * epoch + number)._replace(rows=rows)


def epoch_of(method, epoch, lr=0.1, batches_of=batches):
    optimizer = torch.optim.SGD(method.parameter_groups(), lr)
    method.on_epoch_start(epoch)
    losses = []
    for given in batches_of(epoch):
        found = method(given)
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
        method.on_step_end(0.0)
        losses.append(found.loss.item())
    return losses, method.on_epoch_end(epoch)


def test_the_first_epoch_costs_nothing_and_learns_nothing():
    method = made()
    before = method.embedder.layer.weight.detach().clone()
    losses, figures = epoch_of(method, 1)
    assert losses == [0, 0, 0] and method.embedder.layer.weight.equal(before)
    assert figures == {"clustered": 1.0} and (method.clusters.assignments >= 0).all()


def test_clusters_are_those_of_the_first_crops_of_the_epoch_before():
    method = made()
    with torch.no_grad():
        kept = torch.cat([F.normalize(method.embedder(given.views[0]), dim=1) for given in batches(1)])
    epoch_of(method, 1)
    for place, count in enumerate((3, 4)):
        rows = F.normalize(kept.half().float(), dim=1)
        clusters, centroids = spherical_kmeans(rows, draw_starts(N, count, 0, 1, place))
        assert method.clusters.assignments[place].equal(clusters)
        torch.testing.assert_close(method.clusters.centroids(place), centroids)
    held = method.clusters.assignments.clone()
    list(map(method, batches(2)))
    method.on_step_end(0.0)
    assert method.clusters.assignments.equal(held)  # they do not move within an epoch


@pytest.mark.parametrize("short", [None, waves(3, seed=5)])
def test_a_step_by_hand(short):
    method = made(head=nn.Linear(8, 8))
    epoch_of(method, 1)
    given = next(batches(2))._replace(short=short)
    crops = [given.views] if short is None else [given.views, short]
    rows = F.normalize(method.head(method.embedder(torch.cat(crops).flatten(0, 1))), dim=1)
    own = method.clusters.assignments[:, given.rows].repeat(1, len(torch.cat(crops)))
    costs = [F.cross_entropy(rows @ method.clusters.centroids(p).T / 0.1, own[p]) for p in range(2)]
    found = method(given)
    torch.testing.assert_close(found.loss, (costs[0] + costs[1]) / 2)
    assert found.loss > 0 and found.log["assigned"] == 1
    assert found.z.shape == (8, 8) and found.h.shape == (8, 8)


def test_centroids_learn_nothing():
    method = made()
    epoch_of(method, 1)
    before = [method.clusters.centroids(place).clone() for place in range(2)]
    losses, _ = epoch_of(method, 2, lr=0.0)
    assert min(losses) > 0 and not any(name.startswith("clusters") for name, _ in method.named_parameters())
    assert not method.clusters.centroids(0).equal(before[0])  # of the next epoch
    assert method(next(batches(3))).loss.requires_grad


def test_recordings_that_the_epoch_before_left_out_are_left_out():
    method = made(counts=(3,))
    epoch_of(method, 1, batches_of=lambda epoch: list(batches(epoch))[:2])
    left_out, seen = list(batches(2))[2], list(batches(2))[0]
    assert method(left_out).loss == 0 and method(left_out).log["assigned"] == 0 and method(seen).loss > 0
    mixed = seen._replace(rows=torch.tensor([0, 1, 10, 11]))
    expected = seen._replace(views=seen.views[:, :2], rows=seen.rows[:2])
    torch.testing.assert_close(method(mixed).loss, method(expected).loss)


def test_old_clusters_are_forgotten_where_no_new_ones_can_be_made():
    method = made(counts=(5,))
    epoch_of(method, 1)
    assert (method.clusters.assignments >= 0).all()
    losses, figures = epoch_of(method, 2, batches_of=lambda epoch: list(batches(epoch))[:1])
    assert losses[0] > 0 and figures == {"clustered": 0.0} and (method.clusters.assignments == -1).all()


def test_clusters_may_start_later():
    method = made()
    method.clusters.start = 2
    assert epoch_of(method, 1) == ([0, 0, 0], {}) and (method.clusters.assignments == -1).all()
    assert epoch_of(method, 2)[1] == {"clustered": 1.0} and min(epoch_of(method, 3)[0]) > 0


def test_a_run_that_stops_within_an_epoch_goes_on_as_it_was():
    whole = made()
    losses = [epoch_of(whole, epoch)[0] for epoch in (1, 2, 3)]
    first = made()
    epoch_of(first, 1)
    first.on_epoch_start(2)
    optimizer = torch.optim.SGD(first.parameter_groups(), 0.1)
    found = first(next(batches(2)))
    found.loss.backward()
    optimizer.step()
    first.on_step_end(0.0)
    second = made()
    second.load_state_dict(first.state_dict())
    rest, _ = epoch_of(second, 2, batches_of=lambda epoch: list(batches(epoch))[1:])
    assert [found.loss.item(), *rest] == losses[1] and epoch_of(second, 3)[0] == losses[2]
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), second.state_dict().values()))


@pytest.mark.parametrize("counts, text", [((), "counts is empty"), ((1,), "at least 2"), ((13,), "13 clusters cannot")])
def test_what_is_refused(counts, text):
    with pytest.raises(InputError, match=text):
        made(counts)
