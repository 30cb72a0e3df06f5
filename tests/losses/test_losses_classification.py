"""Margin softmax, focal loss and CLAR's mixture: formulas as loops, limits, and unlabelled rows."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from sv_ssl.core.errors import InputError
from sv_ssl.losses.classification import CLAR, Focal, MarginSoftmax
from sv_ssl.losses.contrastive import NTXent
from sv_ssl.losses.margin import additive, angular
from sv_ssl.losses.rows import Rows

TARGETS = torch.tensor([2, 0, 1, 2])


def rows(n=4, dim=3, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax_loss(margin=None, scale=10.0, **options):
    loss = MarginSoftmax(3, 3, margin, scale, **options).double()
    loss.weight.data = rows(3, seed=1)
    return loss


def cross_entropy(logits, target):
    return math.log(sum(math.exp(x) for x in logits)) - logits[target]


# ------------------------------------------------------------------------------------------------- margin softmax


@pytest.mark.parametrize(
    "margin, moved",
    [
        (None, lambda c: c),
        (partial(additive, m=0.2), lambda c: c - 0.2),
        (partial(angular, m=0.2, beyond_pi="none"), lambda c: math.cos(math.acos(c) + 0.2)),
    ],
    ids=["none", "am", "aam"],
)
def test_margin_softmax_is_the_formula(margin, moved):
    expected = 0.0
    for z, target in zip(rows(), TARGETS.tolist()):
        cosines = [F.cosine_similarity(z, w, dim=0).item() for w in rows(3, seed=1)]
        expected += cross_entropy([10 * (moved(c) if k == target else c) for k, c in enumerate(cosines)], target) / 4
    assert softmax_loss(margin)(rows(), TARGETS).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("margin", [None, partial(additive, m=0.2), partial(angular, m=0.2)])
def test_gradient(margin):
    loss = softmax_loss(margin)
    assert gradcheck(
        lambda z, w: loss.criterion(loss.logits(z, TARGETS), TARGETS), (rows().requires_grad_(), loss.weight)
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("low", [False, True], ids=["float32", "autocast"])
def test_finite_on_top_of_a_class_centre_and_opposite(sign, low):
    loss = MarginSoftmax(3, 3, partial(angular, m=0.3), scale=200.0)
    z = (sign * loss.weight.detach()).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        value = loss(z, torch.arange(3))
    gradients = torch.autograd.grad(value, (z, loss.weight))
    assert value.dtype == torch.float32 and value.isfinite() and all(g.isfinite().all() for g in gradients)


def test_only_the_right_class_gets_the_margin():
    margin = softmax_loss(partial(additive, m=0.2)).logits(rows(), TARGETS) - softmax_loss().logits(rows(), TARGETS)
    torch.testing.assert_close(margin, -2.0 * F.one_hot(TARGETS, 3).double())


def test_any_criterion_sits_on_the_logits():
    loss = softmax_loss(criterion=Focal(gamma=2.0))
    torch.testing.assert_close(loss(rows(), TARGETS), Focal(2.0)(loss.logits(rows(), TARGETS), TARGETS))


def test_the_weights_are_learned():
    loss = softmax_loss()
    assert [tuple(p.shape) for p in loss.parameters()] == [(3, 3)]
    loss(rows(), TARGETS).backward()
    assert loss.weight.grad.abs().sum() > 0


# ---------------------------------------------------------------------------------------------------------- focal


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, [0.1, 0.2, 0.3]])
def test_focal_is_the_formula(gamma, alpha):
    expected = 0.0
    for logits, target in zip(rows().tolist(), TARGETS.tolist()):
        entropy = cross_entropy(logits, target)
        expected += (alpha[target] if alpha else 1) * (1 - math.exp(-entropy)) ** gamma * entropy / 4
    assert Focal(gamma, alpha)(rows(), TARGETS).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_gradient(gamma):
    assert gradcheck(lambda x: Focal(gamma, [0.1, 0.2, 0.3])(x, TARGETS), rows().requires_grad_())
    sure = (1000 * F.one_hot(TARGETS).float()).requires_grad_()
    (gradient,) = torch.autograd.grad(Focal(gamma)(sure, TARGETS), sure)
    assert gradient.isfinite().all()


# ----------------------------------------------------------------------------------------------------------- CLAR


def clar(targets, logits, **options):
    z, labels = rows(6), torch.arange(3).repeat(2)
    mixed = CLAR(NTXent(0.5), **options)(Rows(z, labels, targets=torch.tensor(targets).repeat(2), logits=logits))
    return mixed - NTXent(0.5)(z, labels)


def test_without_labels_it_is_exactly_the_contrastive_loss():
    logits = rows(6, seed=2).requires_grad_()
    difference = clar([-1, -1, -1], logits, weight=3.0)
    (gradient,) = torch.autograd.grad(difference, logits)
    assert difference == 0 and torch.equal(gradient, torch.zeros_like(gradient))


def test_labelled_views_add_their_cross_entropy():
    logits = rows(6, seed=2)
    first, second = (
        sum(cross_entropy(logits[3 * view + i].tolist(), t) for i, t in ((0, 2), (2, 1))) / 2 for view in (0, 1)
    )
    assert clar([2, -1, 1], logits).item() == pytest.approx((first + second) / 2)
    assert clar([2, -1, 1], logits, ce_reduction="sum_views").item() == pytest.approx(first + second)
    assert clar([2, -1, 1], logits, weight=0.5).item() == pytest.approx((first + second) / 4)


def test_unlabelled_rows_still_enter_the_contrastive_part():
    z = rows(6).requires_grad_()
    targets = torch.tensor([2, -1, -1]).repeat(2)
    loss = CLAR(NTXent(0.5))(Rows(z, torch.arange(3).repeat(2), targets=targets, logits=rows(6, seed=2)))
    (gradient,) = torch.autograd.grad(loss, z)
    assert (gradient.abs().sum(1) > 0).all()


def test_it_takes_the_logits_of_a_margin_softmax():
    classifier, targets = softmax_loss(partial(additive, m=0.2)), torch.tensor([2, -1, 1])
    logits = classifier.logits(rows(3), targets)
    expected = classifier(rows(3)[[0, 2]], targets[[0, 2]])
    got = CLAR(lambda z, labels: 0.0)(Rows(rows(3), targets, targets=targets, logits=logits))
    torch.testing.assert_close(got, expected)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(InputError, match="ce_reduction is 'sum': choose mean_views or sum_views"):
        CLAR(NTXent(0.5), ce_reduction="sum")


def test_a_negative_gamma_is_refused():
    with pytest.raises(InputError, match="gamma of the focal loss is -1"):
        Focal(-1)
