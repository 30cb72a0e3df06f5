"""SIGReg, LeJEPA and VISReg: values by hand, normal samples, collapse, directions, odd inputs."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from sv_ssl.core.errors import InputError
from sv_ssl.losses import LeJEPA, NTXent, Rows, SIGReg, Stages, VISReg
from sv_ssl.losses.lejepa import invariance

LOSSES = {
    "SIGReg": lambda **o: SIGReg(directions=16, **o),
    "LeJEPA": lambda **o: LeJEPA(directions=16, **o),
    "VISReg": lambda **o: VISReg(directions=16, **o),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES.keys())


def rows(n=8, dim=4, seed=0, dtype=torch.float64):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def labels(z, n_views=2):
    return torch.arange(len(z) // n_views).repeat(n_views)


def test_sigreg_of_two_points_on_a_line():
    a = 1.7
    t = np.linspace(0, 3, 17)
    misfit = (np.cos(a * t) - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
    expected = 2 * 2 * np.sum((misfit[1:] + misfit[:-1]) / 2) * 3 / 16
    z = torch.tensor([[a], [-a], [a], [-a]], dtype=torch.float64)
    assert SIGReg(directions=3)(z, labels(z)).item() == pytest.approx(expected, rel=1e-12)


def test_sigreg_of_one_point_beside_the_origin():
    t = torch.linspace(0, 3, 17, dtype=torch.float64)
    normal = (-(t**2) / 2).exp()
    misfit = ((2 * t).cos() - normal) ** 2 + (2 * t).sin() ** 2
    expected = 2 * torch.trapezoid(misfit * normal, t)
    z = torch.tensor([[2.0], [2.0]], dtype=torch.float64)
    torch.testing.assert_close(SIGReg(directions=1)(z, labels(z)), expected)


def test_a_normal_sample_costs_little():
    normal = rows(2048, 3)
    for loss, most in ((SIGReg(64), 2.0), (VISReg(1.0, 64), 0.02)):
        assert loss(normal, labels(normal)) < most < loss(3 * normal, labels(normal)) / 10


def test_visreg_of_perfect_quantiles():
    n = 999
    quantiles = torch.special.ndtri(torch.arange(1, n + 1, dtype=torch.float64) / (n + 1))[:, None]
    exact = VISReg(weight=1.0, directions=4)(quantiles.repeat(2, 1), torch.arange(n).repeat(2))
    assert exact < 1e-3
    moved = VISReg(weight=1.0, directions=4)(quantiles.repeat(2, 1) + 3, torch.arange(n).repeat(2))
    assert moved.item() == pytest.approx(9 + exact.item(), abs=1e-6)


def test_invariance_pulls_short_views_to_the_centre_of_the_long_ones():
    z = rows(12)
    views = z.unflatten(0, (3, 4))
    expected = (views - views[:2].mean(0)).square().mean()
    torch.testing.assert_close(invariance(views, 2), expected)
    torch.testing.assert_close(LeJEPA(0.0, n_views=3, n_long=2)(z, labels(z, 3)), expected)
    torch.testing.assert_close(VISReg(0.0, n_views=3, n_long=2)(z, labels(z, 3)), expected)


@every_loss
def test_the_gradient(make):
    z = rows().requires_grad_()

    def loss(z):
        return make(seed=1)(z, labels(z))  # made anew: the same directions each time

    if make is LOSSES["VISReg"]:  # whose scale of the shape term is held fixed
        (found,) = torch.autograd.grad(loss(z), z)
        assert found.isfinite().all() and found.abs().max() > 1e-3
    else:
        assert gradcheck(loss, z)


@every_loss
@pytest.mark.parametrize("kind", ["equal rows", "equal views", "large", "narrow"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_stay_finite(make, kind, dtype):
    given = {
        "equal rows": torch.ones(8, 4),
        "equal views": rows(4).repeat(2, 1),
        "large": 1e4 * rows(8, 4),
        "narrow": rows(8, 1),
    }[kind]
    z = given.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = make()(z, labels(z))
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and z.grad.isfinite().all()


@every_loss
def test_directions_are_drawn_anew_and_go_on_after_a_resume(make):
    z, loss, other = rows(), make(seed=3), make(seed=3)
    first, second = (loss(z, labels(z)).item() for _ in range(2))
    assert first != second
    assert other(z, labels(z)).item() == first
    resumed = make(seed=3)
    resumed.load_state_dict(other.state_dict())
    assert resumed(z, labels(z)).item() == second
    assert make(seed=4)(z, labels(z)).item() != first


def test_as_a_regulariser_beside_another_loss():
    z, h = rows(), rows(seed=1)
    both = Stages([VISReg(weight=1.0, directions=8)], [NTXent(0.1)], [2.0, 1.0])
    expected = 2 * VISReg(weight=1.0, directions=8)(h, labels(z)) + NTXent(0.1)(z, labels(z))
    torch.testing.assert_close(both(Rows(z, labels(z), h=h)), expected)


@every_loss
def test_what_they_refuse(make):
    with pytest.raises(InputError, match="8 rows with 8 labels are not 3 views"):
        make(n_views=3)(rows(), torch.arange(8))
    with pytest.raises(InputError, match="8 labels are not 2 views"):
        make()(rows(), torch.arange(8))


def test_what_their_constructors_refuse():
    with pytest.raises(InputError, match="weight of LeJEPA is 2"):
        LeJEPA(weight=2.0)
    with pytest.raises(InputError, match="n_long is 3: wanted 2 at most"):
        VISReg(n_long=3)
    with pytest.raises(InputError, match="directions is 0"):
        SIGReg(directions=0)
