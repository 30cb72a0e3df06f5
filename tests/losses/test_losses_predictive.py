"""BYOL and SimSiam: crossed pairs, where gradients go, odd inputs."""

import pytest
import torch
from torch.autograd import gradcheck

from sv_ssl.losses import byol, simsiam

both = pytest.mark.parametrize("loss", [byol, simsiam])


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@both
def test_the_gradient_is_of_the_predictions_alone(loss):
    p, z = rows(2, 4, 5).requires_grad_(), rows(2, 4, 5, seed=1).requires_grad_()
    assert gradcheck(lambda p: loss(p, z.detach()), p)
    assert torch.autograd.grad(loss(p, z), z, allow_unused=True) == (None,)


def test_views_are_crossed():
    p = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert byol(p, p.flip(0)) == 0 and byol(p, p) == 4 and byol(p, -p.flip(0)) == 8
    assert simsiam(p, p.flip(0)) == -1 and simsiam(p, p) == 0


@both
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_stay_finite(loss, size, dtype):
    p = torch.full((2, 4, 8), size, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = loss(p, p)
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite() and p.grad.isfinite().all()
