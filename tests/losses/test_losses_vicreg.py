"""VICReg, Barlow Twins and their neighbours: gradients, odd inputs, half precision; and losses of two stages."""

import pytest
import torch
from support.memory import peak
from torch.autograd import gradcheck

from sv_ssl.core.errors import InputError
from sv_ssl.losses import WMSE, Barlow, NTXent, Rows, SoftLabels, Stages, VIbCReg, VICReg
from sv_ssl.losses.vicreg import cov, var

LOSSES = {
    "VICReg": VICReg(),
    "of the paper": VICReg(25.0, 25.0, 1.0, "half", "sum"),
    "VIbCReg": VIbCReg(),
    "Barlow": Barlow(),
    "W-MSE": WMSE(shrink=0.1),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def rows(n=6, dim=4, seed=0, dtype=torch.float64):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def labels(z):
    return torch.arange(len(z) // 2).repeat(2)


@every_loss
@pytest.mark.parametrize("dim", [2, 5])
def test_the_gradient(loss, dim):
    z = rows(8, dim).requires_grad_()
    assert gradcheck(lambda z: loss(z, labels(z)), z)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dim", [1, 64])
@pytest.mark.parametrize("kind", ["equal rows", "equal views", "large"])
def test_value_and_gradient_stay_finite(loss, dtype, dim, kind):
    half, large = rows(4, dim), 100 if isinstance(loss, WMSE) else 1e4  # what shrink adds must not be rounded away
    given = {"equal rows": torch.ones(8, dim), "equal views": half.repeat(2, 1), "large": large * rows(8, dim)}[kind]
    z = given.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = loss(z, labels(z))
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite()
    assert z.grad.isfinite().all() or dtype == torch.float16  # whose range the slope of large rows may leave


@every_loss
def test_autocast_changes_nothing(loss):
    z = rows(16, 8, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(z, labels(z)) == pytest.approx(loss(z, labels(z)).item(), abs=1e-6)


def test_without_the_variance_term_collapse_costs_nothing():
    assert VICReg(var=0.0)(torch.ones(8, 4), torch.arange(4).repeat(2)) == 0


def test_wide_covariances_are_not_made():
    z = rows(16, 2048, dtype=torch.float32)
    centred = (z - z.mean(0)).double()
    matrix = centred.T @ centred / 15
    expected = (matrix.square().sum() - matrix.diagonal().square().sum()) / 2048
    assert cov(z).item() == pytest.approx(expected.item(), rel=1e-5)
    assert peak(lambda: cov(z)) < 4 * z.nbytes < matrix.nbytes


def test_variance_needs_no_more_than_gamma():
    assert var(rows(1000) * 2) == 0 and var(rows(1000) * 2, gamma=3.0) == pytest.approx(1.0, abs=0.1)


@every_loss
def test_what_they_refuse(loss):
    z = rows(6)
    with pytest.raises(InputError, match="6 rows with 6 labels are not 2 views of the same recordings"):
        loss(z, torch.tensor([0, 1, 2, 0, 2, 1]))
    with pytest.raises(InputError, match="5 rows"):
        loss(z[:5], torch.arange(5))
    with pytest.raises(InputError, match="4 labels"):
        loss(z, torch.arange(2).repeat(2))
    with pytest.raises(InputError, match="mixup"):
        loss(z, SoftLabels(torch.zeros(6, 1, dtype=torch.int64), torch.ones(6, 1)))
    with pytest.raises(InputError, match="single recording"):
        loss(z[:2], torch.zeros(2))


def test_what_their_constructors_refuse():
    with pytest.raises(InputError, match="cov of VICReg is -1"):
        VICReg(cov=-1)
    with pytest.raises(InputError, match="var_reduction is 'mean': choose sum or half"):
        VICReg(var_reduction="mean")
    with pytest.raises(InputError, match="inv_reduction is 'half': choose mean or sum"):
        VICReg(inv_reduction="half")
    with pytest.raises(InputError, match="off_diagonal of Barlow"):
        Barlow(off_diagonal=-1)


def test_whitening_fewer_rows_than_dimensions_is_refused():
    with pytest.raises(InputError, match="cannot whiten 3 rows of 4 dimensions.*raise shrink"):
        WMSE()(rows(6), torch.arange(3).repeat(2))


# -------------------------------------------------------------------------------------------------------- two stages


def test_stages_see_h_and_z():
    given = Rows(rows(6), torch.arange(3).repeat(2), h=rows(6, 3, seed=1))
    contrastive, vicreg = NTXent(0.07, symmetric=False), VICReg()
    both = Stages([vicreg], [contrastive], [0.5, 2.0])(given)
    expected = 0.5 * vicreg(given.h, given.labels) + 2 * contrastive(given.z, given.labels)
    torch.testing.assert_close(both, expected)
    assert Stages(on_h=[vicreg])(given._replace(h=None)) == vicreg(given.z, given.labels)


def test_stages_pass_the_epochs_on():
    scheduled = NTXent(lambda progress: 1 / (1 + progress))
    Stages(on_z=[scheduled]).set_progress(1.0)
    assert scheduled.temperature == 0.5


def test_stages_refuse_weights_that_do_not_fit():
    with pytest.raises(InputError, match="1 losses and 2 weights"):
        Stages(on_z=[VICReg()], weights=[1.0, 1.0])
    with pytest.raises(InputError, match="0 losses"):
        Stages()
