"""Embeddings on the sphere: known configurations, and loops over a few points."""

import math

import pytest
import torch

from sv_ssl.losses import geometry

LABELS = torch.tensor([0, 0, 1, 0, 1])


def rows(n=5, dim=3):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


def on_circle(*degrees):
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def cosine_of(u, v):
    return sum(a * b for a, b in zip(u, v)) / math.sqrt(sum(a * a for a in u)) / math.sqrt(sum(b * b for b in v))


@pytest.mark.parametrize("dtype, expected", [(torch.float64, torch.float64), (torch.bfloat16, torch.float32)])
def test_unit_rows(dtype, expected):
    z = geometry.unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=dtype))
    assert z.dtype == expected
    torch.testing.assert_close(z.double(), torch.tensor([[0.6, 0.8], [0.0, 0.0]], dtype=torch.float64))


def test_unit_of_zeros_has_a_finite_gradient():
    z = torch.zeros(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(geometry.unit(z).sum(), z)
    assert gradient.isfinite().all()


def test_autocast_multiplies_cosines_in_low_precision_but_not_the_gram():
    z = geometry.unit(rows(8, 64))
    exact = z.double() @ z.double().T
    with torch.autocast("cpu", torch.bfloat16):
        low, full = geometry.cosines(z, z), geometry.gram(z)
    assert low.dtype == full.dtype == torch.float32
    assert (full - exact).abs().max() < 1e-6 < (low - exact).abs().max() < 0.01


def test_pairs_leave_the_diagonal_out():
    same, different = geometry.pairs(LABELS)
    for i in range(5):
        for j in range(5):
            assert same[i, j] == (i != j and LABELS[i] == LABELS[j])
            assert different[i, j] == (LABELS[i] != LABELS[j])


def test_uniformity():
    assert geometry.uniformity(torch.ones(4, 3)).item() == pytest.approx(0, abs=1e-12)
    assert geometry.uniformity(on_circle(0, 180)).item() == pytest.approx(-8)
    z = rows().tolist()
    values = [math.exp(-3 * (2 - 2 * cosine_of(z[i], z[j]))) for i in range(5) for j in range(i)]
    assert geometry.uniformity(rows(), t=3.0).item() == pytest.approx(math.log(sum(values) / 10), rel=1e-6)


def test_alignment_and_tolerance_agree_on_a_circle():
    """Two pairs, 60 and 90 degrees apart."""
    z, labels = on_circle(0, 60, 100, 190), torch.tensor([0, 0, 1, 1])
    assert geometry.tolerance(z, labels).item() == pytest.approx(0.25, abs=1e-6)
    assert geometry.alignment(z, labels).item() == pytest.approx(1.5)
    apart = ((z[0] - z[1]).square().sum() + (z[2] - z[3]).square().sum()) / 2
    assert geometry.alignment(z, labels).item() == pytest.approx(apart.item())


def test_alignment_of_equal_views_is_zero():
    assert geometry.alignment(rows(1).repeat(2, 1), torch.zeros(2)).item() == pytest.approx(0, abs=1e-12)


def test_pair_stats():
    z = rows().tolist()
    for a, b in ((0, 1), (0, 0), (1, 1)):
        d = [
            1 - cosine_of(z[i], z[j])
            for i in range(5)
            for j in range(5)
            if i != j and LABELS[i] == a and LABELS[j] == b
        ]
        mean = sum(d) / len(d)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in d) / (len(d) - 1))
        found = geometry.pair_stats(rows(), LABELS, a, b)
        assert [x.item() for x in found] == pytest.approx([mean, deviation / mean], rel=1e-6, abs=1e-7)


def test_pair_stats_of_a_single_pair_do_not_vary():
    mean, cv = geometry.pair_stats(on_circle(0, 60), torch.tensor([0, 1]), 0, 1)
    assert mean.item() == pytest.approx(0.5) and cv == 0


def test_spread_tells_a_collapse():
    assert geometry.spread(torch.arange(1.0, 5.0)[:, None] * torch.ones(4, 8)).item() == pytest.approx(0, abs=1e-9)
    assert geometry.spread(on_circle(0, 90, 180, 270)).item() == pytest.approx(1 / math.sqrt(2))
    assert geometry.spread(rows(4000, 64)).item() == pytest.approx(1 / 8, rel=0.01)
    assert geometry.spread(rows(1)) == 0


def test_statistics_are_float64_without_gradient():
    z = rows().requires_grad_()
    found = [
        geometry.uniformity(z),
        geometry.alignment(z, LABELS),
        geometry.tolerance(z, LABELS),
        *geometry.pair_stats(z, LABELS, 0, 1),
        geometry.spread(z),
    ]
    assert all(value.dtype == torch.float64 and value.shape == () and not value.requires_grad for value in found)


def test_effective_rank_is_that_of_the_dimensions_in_use():
    z = rows(200, 8).double()
    assert 7 < geometry.effective_rank(z) <= 8
    assert 2.8 < geometry.effective_rank(z @ torch.diag(torch.tensor([1.0] * 3 + [0.0] * 5).double())) <= 3
    line = torch.arange(5.0)[:, None] * torch.ones(1, 4)
    assert geometry.effective_rank(line).item() == pytest.approx(1)
    assert geometry.effective_rank(torch.ones(5, 4)) == 1  # collapsed


def test_usage_of_collapsed_assignments():
    one, undecided = geometry.usage(torch.eye(4)[[2, 2, 2]]), geometry.usage(torch.full((3, 4), 0.25))
    assert [value.item() for value in one.values()] == [1.0, 0.0, 1]
    assert [value.item() for value in undecided.values()] == pytest.approx([4.0, math.log(4), 1])


def test_entropy_of_a_certain_row_has_a_finite_gradient():
    p = torch.eye(3).requires_grad_()
    geometry.entropy(p).sum().backward()
    assert p.grad.isfinite().all()
