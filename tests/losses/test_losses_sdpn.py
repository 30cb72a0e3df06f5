"""SDPN: its terms at known places, gradients, and the inputs at which plainer formulas give NaN."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from sv_ssl.core.errors import InputError
from sv_ssl.losses import SDPNLoss
from sv_ssl.losses.sdpn_loss import fro_norm, koleo, me_max, sdpn_targets


def cosines(*shape, seed=0, dtype=torch.float64):
    rows = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    return rows.to(dtype)


def test_the_gradient():
    student, embeddings = cosines(3, 5, 7).requires_grad_(), cosines(3, 5, 4, seed=1).requires_grad_()
    teacher = cosines(5, 7, seed=2)
    assert gradcheck(lambda s, e: SDPNLoss()(list(s), teacher, e).total, (student, embeddings))


def test_weights_of_0_leave_the_cross_entropy():
    parts = SDPNLoss(me_max_weight=0.0, koleo_weight=0.0)(cosines(3, 5, 7), cosines(5, 7, seed=2), cosines(3, 5, 4))
    assert parts.total == parts.ce and parts.koleo != 0 and parts.me_max > 0


def test_the_teacher_gets_no_gradient():
    teacher = cosines(5, 7).requires_grad_()
    total = SDPNLoss()(cosines(3, 5, 7, seed=1).requires_grad_(), teacher).total
    assert torch.autograd.grad(total, teacher, allow_unused=True) == (None,)


@pytest.mark.parametrize("form", ["probs", "logits", "none"])
@pytest.mark.parametrize("k", [1, 4, 1024])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_stay_finite(form, k, size, dtype):
    student = (size * cosines(2, 4, k)).to(dtype).requires_grad_()
    embeddings = torch.ones(2, 4, 8, dtype=dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        parts = SDPNLoss(temperature=0.005, form=form)(student, (size * cosines(4, k)).to(dtype), embeddings)
    parts.total.backward()
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in parts)
    assert student.grad.isfinite().all() and embeddings.grad.isfinite().all()


def test_targets_of_probabilities_are_not_those_of_logits():
    given = cosines(5, 7)
    assert (sdpn_targets(given) - sdpn_targets(given, form="logits")).abs().max() > 0.1
    torch.testing.assert_close(sdpn_targets(given, form="none"), (given / 0.025).softmax(1))


def test_me_max_of_unused_prototypes_has_a_finite_gradient():
    probs = torch.eye(4)[:2].clone().requires_grad_()
    me_max(probs).backward()
    assert probs.grad.isfinite().all()
    torch.testing.assert_close(me_max(torch.eye(4)[:2]), torch.tensor(math.log(2)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_koleo_of_equal_rows_has_no_direction(dtype):
    one = cosines(1, 256, dtype=dtype)
    u = torch.cat([one, one * 3, one / 7]).requires_grad_()  # equal up to rounding
    koleo(u).backward()
    assert u.grad.abs().max() == 0


def test_koleo_parts_close_rows():
    u = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]], dtype=torch.float64).requires_grad_()
    assert gradcheck(koleo, u)
    koleo(u).backward()
    assert u.grad[0, 1] > 0 > u.grad[1, 1]  # a step against the gradient moves the first down and the second up


@pytest.mark.parametrize("n, dim", [(6, 4), (3, 8)])
def test_fro_norm(n, dim):
    e = cosines(n, dim).requires_grad_()
    columns = e / e.norm(dim=0)
    torch.testing.assert_close(fro_norm(e), torch.linalg.matrix_norm(columns.T @ columns).log())
    assert gradcheck(fro_norm, e)


def test_fro_norm_of_equal_rows_and_of_zeros():
    for value, expected in [(1.0, math.log(8)), (0.0, None)]:
        e = torch.full((4, 8), value, requires_grad=True)
        norm = fro_norm(e)
        norm.backward()
        assert norm.isfinite() and e.grad.isfinite().all()
        assert expected is None or norm.item() == pytest.approx(expected)


def test_what_it_refuses():
    with pytest.raises(InputError, match="form is 'prob': choose probs, logits or none"):
        SDPNLoss(form="prob")(cosines(2, 5, 7), cosines(5, 7))
    with pytest.raises(InputError, match="single row"):
        koleo(cosines(1, 4))
    with pytest.raises(InputError, match="temperature of SDPN"):
        SDPNLoss(temperature=0.0)
