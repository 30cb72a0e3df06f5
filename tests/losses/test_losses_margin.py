"""Margins: known angles, the three conventions beyond pi, and finite slopes where arccos has none."""

import math
from functools import partial

import pytest
import torch

from sv_ssl.core.errors import InputError
from sv_ssl.losses.margin import additive, angular

MARGINS = [partial(additive, m=0.2), *(partial(angular, m=0.2, beyond_pi=kind) for kind in ("arcface", "none", "easy"))]


def at_degrees(*degrees, dtype=torch.float64):
    return torch.tensor([math.cos(math.radians(d)) for d in degrees], dtype=dtype)


def test_additive_lowers_the_cosine():
    assert torch.equal(additive(torch.tensor([1.0, 0.25]), m=0.25), torch.tensor([0.75, 0.0]))


@pytest.mark.parametrize("kind", ["arcface", "none", "easy"])
def test_angular_turns_by_m(kind):
    moved = angular(at_degrees(0, 20, 60), math.radians(30), kind)
    torch.testing.assert_close(moved, at_degrees(30, 50, 90), atol=1e-12, rtol=0)


def test_beyond_pi():
    m, cosine = math.radians(30), at_degrees(100, 160, 180)
    torch.testing.assert_close(angular(cosine, m, "none"), at_degrees(130, 190, 210), atol=1e-12, rtol=0)
    torch.testing.assert_close(angular(cosine, m, "easy"), cosine)
    arcface = torch.cat([at_degrees(130), cosine[1:] - m * math.sin(m)])
    torch.testing.assert_close(angular(cosine, m, "arcface"), arcface, atol=1e-12, rtol=0)


def test_an_unknown_convention_is_refused():
    with pytest.raises(InputError, match="beyond_pi is 'hard': choose arcface, none or easy"):
        angular(torch.ones(1), 0.1, "hard")


@pytest.mark.parametrize("margin", MARGINS)
def test_at_chooses_the_cosines(margin):
    cosine, at = torch.linspace(-0.9, 0.9, 6).reshape(2, 3), torch.tensor([[True, False, False], [False, False, True]])
    got = margin(cosine, at=at)
    torch.testing.assert_close(got[at], margin(cosine[at]))
    assert torch.equal(got[~at], cosine[~at])


@pytest.mark.parametrize("margin", MARGINS)
def test_nothing_is_written_into_the_argument(margin):
    cosine = torch.tensor([[0.5, -0.5]])
    margin(cosine), margin(cosine, at=torch.tensor([[True, False]]))
    assert torch.equal(cosine, torch.tensor([[0.5, -0.5]]))


@pytest.mark.parametrize("margin", MARGINS)
def test_gradient(margin):
    cosine = at_degrees(5, 60, 85, 120, 175).requires_grad_()
    assert torch.autograd.gradcheck(margin, cosine)


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_finite_at_the_ends(margin, dtype):
    """Rounding also gives cosines just beyond 1."""
    cosine = torch.tensor([1.0, -1.0, 1.0000001, -1.0000001], dtype=dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = margin(cosine)
    (gradient,) = torch.autograd.grad(value.sum(), cosine)
    assert value.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize(
    "kind, opposite", [("arcface", -1 - 0.3 * math.sin(0.3)), ("none", -math.cos(0.3)), ("easy", -1)]
)
def test_exact_at_the_ends(kind, opposite):
    got = angular(torch.tensor([1.0, -1.0], dtype=torch.float64), 0.3, kind)
    torch.testing.assert_close(got, torch.tensor([math.cos(0.3), opposite], dtype=torch.float64))
