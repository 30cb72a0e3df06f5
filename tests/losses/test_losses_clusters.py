"""SwAV, DeepCluster and ProtoNCE: what is compared with what, rows without a cluster, odd inputs."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from sv_ssl.core.errors import InputError
from sv_ssl.losses import DeepClusterLoss, SwAVLoss
from sv_ssl.losses.protonce import concentration, prototype_term
from sv_ssl.losses.sinkhorn import sinkhorn


def cosines(*shape, seed=0, dtype=torch.float64):
    rows = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    return rows.to(dtype)


# ---------------------------------------------------------------------------------------------------------- SwAV


def test_codes_are_constants_for_the_gradient():
    scores, loss = cosines(3, 5, 7).requires_grad_(), SwAVLoss(temperature=0.5)
    codes = loss.codes(scores)
    assert gradcheck(lambda s: loss.compare(s, codes), scores)
    assert not codes.requires_grad


def test_codes_of_a_batch_and_a_queue():
    scores, queue = cosines(2, 3, 5), cosines(2, 8, 5, seed=1)
    codes = SwAVLoss().codes(scores, queue)
    for i in range(2):
        torch.testing.assert_close(codes[i], sinkhorn(torch.cat([scores[i], queue[i]]))[:3])
    assert (codes - SwAVLoss().codes(scores)).abs().max() > 0.01


@pytest.mark.parametrize("k", [1, 4, 64])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swav_stays_finite(k, size, dtype):
    scores = (size * cosines(2, 4, k)).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = SwAVLoss(temperature=0.005, epsilon=0.005)(scores, (size * cosines(2, 8, k, seed=1)).float())
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and scores.grad.isfinite().all()


def test_what_swav_refuses():
    with pytest.raises(InputError, match="1 views came for codes of 2 views"):
        SwAVLoss()(cosines(1, 3, 5))
    with pytest.raises(InputError, match="2 views and a queue of 1 came for codes of 2 views"):
        SwAVLoss()(cosines(2, 3, 5), cosines(1, 3, 5))


# --------------------------------------------------------------------------------------------------- DeepCluster


def test_rows_without_a_cluster_are_left_out():
    scores, clusters = cosines(2, 4, 5).requires_grad_(), torch.tensor([3, -1, 0, -1])
    loss = DeepClusterLoss(0.5)
    expected = F.cross_entropy(scores[:, [0, 2]].flatten(0, 1) / 0.5, torch.tensor([3, 0, 3, 0]))
    torch.testing.assert_close(loss([scores], clusters[None]), expected)
    assert gradcheck(lambda s: loss([s], clusters[None]), scores)


def test_clusterings_may_differ_in_size():
    both = DeepClusterLoss()([torch.zeros(2, 3, 4), torch.zeros(2, 3, 9)], torch.zeros(2, 3, dtype=torch.int64))
    assert both.item() == pytest.approx((math.log(4) + math.log(9)) / 2)


def test_no_cluster_at_all_costs_nothing_and_has_a_gradient():
    scores = cosines(2, 3, 4).requires_grad_()
    loss = DeepClusterLoss()([scores], torch.full((1, 3), -1))
    loss.backward()
    assert loss == 0 and scores.grad.abs().max() == 0


@pytest.mark.parametrize("k", [1, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_deepcluster_stays_finite(k, dtype):
    scores = (1e4 * cosines(2, 4, k)).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = DeepClusterLoss(0.005)([scores], torch.zeros(1, 4, dtype=torch.int64))
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and scores.grad.isfinite().all()


def test_deepcluster_refuses_assignments_that_do_not_fit():
    with pytest.raises(InputError, match="1 clusterings but 2 assignments"):
        DeepClusterLoss()([cosines(2, 3, 4)], torch.zeros(2, 3, dtype=torch.int64))


# ------------------------------------------------------------------------------------------------------ ProtoNCE


def test_the_gradient_of_the_prototype_term():
    centroids, phi = [cosines(3, 4, seed=1), cosines(5, 4, seed=2)], [cosines(3).abs() + 0.2, cosines(5).abs() + 0.2]
    clusters = torch.tensor([[0, 2, -1, 1, 1], [4, -1, -1, 0, 2]])
    assert gradcheck(lambda q: prototype_term(q, centroids, clusters, phi), cosines(5, 4).requires_grad_())


def test_queries_without_a_cluster_are_left_out():
    q, centroids = cosines(4, 5), [cosines(3, 5, seed=1)]
    some = prototype_term(q, centroids, torch.tensor([[0, -1, 2, -1]]), [torch.ones(3)])
    torch.testing.assert_close(some, prototype_term(q[[0, 2]], centroids, torch.tensor([[0, 2]]), [torch.ones(3)]))
    assert prototype_term(q, centroids, torch.full((1, 4), -1), [torch.ones(3)]) == 0


def test_concentration_leaves_rows_without_a_cluster_out():
    z, centroids, clusters = cosines(9, 4), cosines(3, 4, seed=1), torch.tensor([0, 0, 1, 1, 2, 2, -1, -1, -1])
    torch.testing.assert_close(concentration(z, centroids, clusters), concentration(z[:6], centroids, clusters[:6]))


def test_clusters_of_equal_rows_have_a_temperature():
    equal = torch.eye(4)[torch.tensor([0, 0, 1, 1, 2, 3])]
    phi = concentration(equal, torch.eye(4), torch.tensor([0, 0, 1, 1, 2, 3]))  # no distance anywhere
    torch.testing.assert_close(phi, torch.full((4,), 0.2))
    spread = torch.cat([equal[:4], cosines(4, 4, dtype=torch.float32)])
    phi = concentration(spread, torch.eye(4), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    assert phi.min() > 1e-3 and phi.mean().item() == pytest.approx(0.2)
