"""MoCo with clusters: who is no negative, the prototype term and its temperatures, sampled keys."""

import pytest
import torch
import torch.nn.functional as F
from small_batches import Linear, batch, facts, waves

from sv_ssl.core.errors import InputError
from sv_ssl.losses import InfoNCE
from sv_ssl.losses.protonce import concentration
from sv_ssl.methods import MoCo
from sv_ssl.methods.clusters import Clusters
from sv_ssl.methods.positives import Positives
from sv_ssl.methods.prototype_term import PrototypeTerm

N = 12


def moco(queue_size=8, n_rows=N, **options):
    torch.manual_seed(0)
    method = MoCo(Linear(), InfoNCE(0.2), queue_size=queue_size, ema=0.9, shuffle=1, **options).train()
    method.prepare(facts(n_rows=n_rows))
    return method


def batches(epoch):
    for number, rows in enumerate(torch.arange(N).split(4)):
        yield batch(seed=10 * epoch + number, clean=waves(1, seed=99 + number))._replace(rows=rows)


def epoch_of(method, epoch):
    optimizer = torch.optim.SGD(method.parameter_groups(), 0.1)
    method.on_epoch_start(epoch)
    losses = []
    for given in batches(epoch):
        found = method(given)
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
        method.on_step_end(0.0)
        losses.append(found.loss.item())
    return losses, method.on_epoch_end(epoch)


# -------------------------------------------------------------------------------------------------- clusters as a mask


def masked(method, given, own, entries):
    """InfoNCE by hand: queue entries of the query's own cluster are left out, unknown ones (-1) never."""
    terms = []
    for d in range(2):
        q = F.normalize(method.embedder(given.views[d]), dim=1)
        k = F.normalize(method.key(given.views[1 - d]), dim=1)
        for i in range(len(q)):
            negative = [c for c, cluster in enumerate(entries) if own[i] < 0 or cluster != own[i]]
            logits = torch.cat([(q[i] @ k[i])[None], method.queue.rows[d, negative] @ q[i]]) / 0.2
            terms.append(-logits.log_softmax(0)[0])
    return torch.stack(terms).mean()


def test_entries_of_the_own_cluster_are_no_negatives_and_unknown_ones_are():
    method = moco(clusters=Clusters([3]))
    method.clusters.assignments[0, :8] = torch.tensor([0, 1, 2, -1, 0, 0, 1, 2])
    method.queue.labels.copy_(torch.tensor([4, 5, 6, 7, 9, -1, 0, 3]))  # rows 9 and 3 have no cluster, -1 is nobody's
    given = batch()
    expected = masked(method, given, [0, 1, 2, -1], [0, 0, 1, 2, -1, -1, 0, -1])
    torch.testing.assert_close(method(given).loss, expected)
    assert not torch.isclose(expected, moco()(given).loss)


def test_in_the_first_epoch_it_is_plain_moco_bit_for_bit():
    method, plain = moco(clusters=Clusters([3])), moco()
    assert epoch_of(method, 1)[0] == epoch_of(plain, 1)[0]
    assert epoch_of(method, 2)[0] != epoch_of(plain, 2)[0]


def test_clusters_are_of_the_keys_of_the_epoch():
    method = moco(clusters=Clusters([3]))
    method.on_epoch_start(1)
    keys = []
    for given in batches(1):
        keys.append(F.normalize(method.key(given.views[1]), dim=1))  # of direction 1, whose queries are of view 1
        method(given)
        method.on_step_end(0.0)
    torch.testing.assert_close(method.clusters.bank.float(), torch.cat(keys), atol=1e-3, rtol=0)
    assert method.on_epoch_end(1) == {"clustered": 1.0} and (method.clusters.of(torch.arange(N)) >= 0).all()


def test_two_masks_are_refused():
    with pytest.raises(InputError, match="mask_labels and clusters"):
        moco(clusters=Clusters([3]), mask_labels=True)


# ------------------------------------------------------------------------------------------------ the prototype term


def test_the_term_by_hand():
    method = moco(prototypes=PrototypeTerm([2, 3], temperature=0.3, weight=0.5))
    epoch_of(method, 1)
    given, term, plain = next(batches(2)), method.prototypes, moco()
    for module in (plain.embedder, plain.key, plain.queue):
        name = next(n for n, m in plain.named_children() if m is module)
        module.load_state_dict(getattr(method, name).state_dict())
    costs = []
    for place in range(2):
        q = F.normalize(torch.cat([method.embedder(view) for view in given.views]), dim=1)
        logits = q @ term.centroids(place).T / getattr(term, f"concentration_{place}")
        costs.append(F.cross_entropy(logits, term.assignments[place, given.rows].repeat(2)))
    expected = 0.5 * torch.stack(costs).mean()
    found = method(given)
    torch.testing.assert_close(found.log["prototype_loss"], expected.detach())
    torch.testing.assert_close(found.loss, plain(given).loss + expected)


def test_each_clustering_has_temperatures_of_its_own():
    method = moco(prototypes=PrototypeTerm([2, 3], temperature=0.3))
    term = method.prototypes
    assert term.concentration_1.tolist() == pytest.approx([0.3] * 3)
    epoch_of(method, 1)
    for place in range(2):
        wanted = concentration(term.bank, term.centroids(place), term.assignments[place], 0.3)
        torch.testing.assert_close(getattr(term, f"concentration_{place}"), wanted)
        assert wanted.mean().item() == pytest.approx(0.3) and wanted.std() > 0


def test_the_term_pulls_a_query_towards_its_own_centroid():
    term = PrototypeTerm([2])
    term.prepare(facts(n_rows=4), 2)
    term.centroids_0.copy_(torch.eye(2))
    term.assignments[0] = torch.tensor([0, 1, 0, -1])
    q = F.normalize(torch.ones(2, 2), dim=1).requires_grad_()
    term(q, torch.tensor([0, 3])).backward()
    assert q.grad[0, 0] < 0 < q.grad[0, 1] and not q.grad[1].any()  # the row without a cluster is left out
    assert not any(True for _ in term.parameters())  # centroids are constants


def test_without_clusters_the_term_is_nothing_and_it_may_start_later():
    method, plain = moco(prototypes=PrototypeTerm([2], start=2)), moco()
    expected = [epoch_of(plain, epoch)[0] for epoch in (1, 2, 3)]
    assert epoch_of(method, 1) == (expected[0], {})
    assert epoch_of(method, 2) == (expected[1], {"clustered": 1.0})
    assert epoch_of(method, 3)[0] != expected[2]


def test_clusters_centroids_and_temperatures_survive_a_stop():
    def made():
        return moco(prototypes=PrototypeTerm([2, 3]), clusters=Clusters([3]))

    whole = made()
    losses = [epoch_of(whole, epoch)[0] for epoch in (1, 2, 3)]
    first, second = made(), made()
    epoch_of(first, 1)
    second.load_state_dict(first.state_dict())
    assert [epoch_of(second, epoch)[0] for epoch in (2, 3)] == losses[1:]
    for name, value in whole.state_dict().items():
        assert not torch.is_tensor(value) or value.equal(second.state_dict()[name]), name


@pytest.mark.parametrize(
    "options, text",
    [({"temperature": 0.0}, "temperature of the prototypes"), ({"weight": -1}, "weight"), ({"start": 0.5}, "start")],
)
def test_what_the_term_refuses(options, text):
    with pytest.raises(InputError, match=text):
        PrototypeTerm([2], **options)


# ---------------------------------------------------------------------------------------------------- sampled positives


def test_sampled_keys_take_the_place_of_both_views_and_the_queues_keep_true_ones():
    method = moco(positives=Positives(2, near=0, queue_size=N))
    epoch_of(method, 1)
    method.on_epoch_start(2)
    method.positives.clusters.assignments[0] = torch.arange(N) // 6
    given = next(batches(2))
    sampled = []
    replace = method.positives.replace
    method.positives.replace = lambda keys, rows: sampled.append(replace(keys, rows)) or sampled[-1]
    found = method(given)
    [(positive, figures)] = sampled
    place = (positive[0][:, None] == method.positives.queue.rows[0]).all(-1).long().argmax(1)
    assert figures["coverage"] == 1 and found.log["coverage"] == 1
    torch.testing.assert_close(positive, method.positives.queue.rows[:, place])  # one recording's keys of both views
    others = method.positives.queue.labels[place]
    assert (others != given.rows).all() and (others < 6).all()
    terms = [method.loss(method.embedder(given.views[d]), positive[d], method.queue.rows[d]) for d in range(2)]
    torch.testing.assert_close(found.loss, torch.stack(terms).mean())
    keys = torch.stack([F.normalize(method.key(given.views[1 - d]), dim=1) for d in range(2)])
    method.on_step_end(0.0)
    for queue in (method.queue, method.positives.queue):
        newest = (torch.arange(4) + N) % len(queue.labels)
        torch.testing.assert_close(queue.rows[:, newest], keys)


@pytest.mark.parametrize("directions", [1, 2])
def test_half_precision_is_finite(directions):
    method = moco(
        directions=directions,
        clusters=Clusters([3]),
        prototypes=PrototypeTerm([2]),
        positives=Positives(2, near=1, queue_size=8),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for epoch in (1, 2):
            losses, figures = epoch_of(method, epoch)
    assert all(torch.isfinite(torch.tensor(losses))) and figures["clustered"] == 1
    assert all(parameter.grad.isfinite().all() for parameter in method.embedder.parameters())
