"""ACL's angular term, ADD and OPL: formulas as loops, values by hand, and finite slopes where arccos has none."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from sv_ssl.core.errors import InputError
from sv_ssl.losses.angular import ACL, ADD, OPL, SoftADD, angular_pairs, pair_costs
from sv_ssl.losses.contrastive import NTXent
from sv_ssl.losses.rows import Rows, evaluate

LABELS = torch.tensor([0, 0, 1, 2, 1])
SAME = torch.tensor(True)


def rows(n=5, seed=0, dim=3):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_circle(*degrees, dtype=torch.float64):
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees], dtype=dtype)


def pair_cosines(z, labels):
    """-> cosines of the ordered pairs of one label, and of two."""
    z, same, different = F.normalize(z).tolist(), [], []
    for i, u in enumerate(z):
        for j, v in enumerate(z):
            if i != j:
                (same if labels[i] == labels[j] else different).append(sum(a * b for a, b in zip(u, v)))
    return same, different


def mean_std(values):
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


# ------------------------------------------------------------------------------------------------------------ ACL


@pytest.mark.parametrize("reduction", ["mean_pairs", "mean_pos_plus_mean_neg", ("sum_over", 25), ["sum_over", 25]])
def test_angular_pairs_is_the_formula(reduction):
    same, different = pair_cosines(rows(), LABELS)
    positive = [math.acos(c) ** 2 for c in same]
    negative = [max(0, 1.5 - math.acos(c)) ** 2 for c in different]
    expected = {
        "mean_pairs": (sum(positive) + sum(negative)) / 20,
        "sum_over": (sum(positive) + sum(negative)) / 25,
        "mean_pos_plus_mean_neg": sum(positive) / len(positive) + sum(negative) / len(negative),
    }
    name = reduction if isinstance(reduction, str) else reduction[0]
    assert angular_pairs(rows(), LABELS, 1.5, reduction).item() == pytest.approx(expected[name], rel=1e-12)


@pytest.mark.parametrize("degrees", [0, 0.001, 1, 1.8, 1.9, 90, 179, 180])
def test_the_square_of_an_angle(degrees):
    """1.81 degrees is where the series ends."""
    cosine = torch.tensor(math.cos(math.radians(degrees)), dtype=torch.float64)
    assert pair_costs(cosine, SAME, 0.0).item() == pytest.approx(math.radians(degrees) ** 2, rel=1e-6, abs=1e-15)


def test_its_slope_is_continuous_and_2_at_zero():
    cosine = torch.tensor([1.0, 1 - 0.4999e-3, 1 - 0.5001e-3], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(pair_costs(cosine, SAME, 0.0).sum(), cosine)
    theta = cosine.detach()[1:].acos()
    torch.testing.assert_close(slope, torch.cat([torch.tensor([-2.0]), -2 * theta / theta.sin()]), rtol=1e-9, atol=0)


@pytest.mark.parametrize("same", [True, False])
def test_its_slopes_are_those_of_the_formula(same):
    cosine = torch.linspace(-0.99, 0.99, 50, dtype=torch.float64, requires_grad=True)
    theta = cosine.acos()
    (expected,) = torch.autograd.grad((theta if same else (1.1 - theta).relu()).square().sum(), cosine)
    (got,) = torch.autograd.grad(pair_costs(cosine, torch.tensor(same), 1.1).sum(), cosine)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "labels, degrees, expected",
    [
        ([0, 0], (0, 60), (math.pi / 3) ** 2),
        ([0, 0], (0, 180), math.pi**2),
        ([0, 1], (0, 90), 0.0),
        ([0, 1], (0, 30), (0.8 - math.pi / 6) ** 2),
        ([0, 1], (0, 0), 0.8**2),
        ([3, 3, 3], (7, 7, 7), 0.0),
    ],
)
@pytest.mark.parametrize("reduction", ["mean_pairs", "mean_pos_plus_mean_neg"])
def test_angular_pairs_by_hand(labels, degrees, expected, reduction):
    got = angular_pairs(on_circle(*degrees), torch.tensor(labels), 0.8, reduction).item()
    assert got == pytest.approx(expected, abs=1e-7)


def test_acl_mixes_its_two_terms():
    z, h, labels = rows(6), rows(6, seed=1), torch.arange(3).repeat(2)
    contrastive, pair_loss = NTXent(0.2)(z, labels), angular_pairs(h, labels, 1.0)
    torch.testing.assert_close(ACL(0.3, 0.2, 1.0)(Rows(z, labels, h)), 0.3 * contrastive + 0.7 * pair_loss)
    assert ACL(1.0, 0.2)(Rows(z, labels, h)) == contrastive
    torch.testing.assert_close(ACL(0.0, 0.2, 1.0)(Rows(h, labels)), pair_loss)
    supervised = ACL(0.7, margin_rad=1.0, main=F.cross_entropy)(Rows(z, labels, h))
    torch.testing.assert_close(supervised, 0.7 * F.cross_entropy(z, labels) + 0.3 * pair_loss)


# ------------------------------------------------------------------------------------------------------ ADD, OPL


def test_add_is_the_formula():
    same, different = pair_cosines(rows(), LABELS)
    terms = [*mean_std([(1 - c) ** 2 for c in same]), *mean_std([c**2 for c in different])]
    for k in range(4):
        alone = [float(k == j) for j in range(4)]
        assert ADD(alone)(rows(), LABELS).item() == pytest.approx(terms[k], rel=1e-12)
    assert ADD((1, 2, 3, 4))(rows(), LABELS).item() == pytest.approx(sum((k + 1) * t for k, t in enumerate(terms)))


def test_add_by_hand():
    """Classes at 0, 60 and at 90 degrees: d = 1/2 within, cosines 0 and sin 60 between, each pair counted twice."""
    got = ADD((1, 1, 0, 0))(on_circle(0, 60, 90), torch.tensor([0, 0, 1])).item()
    assert got == pytest.approx(0.25)
    negative = ADD((0, 0, 1, 1))(on_circle(0, 60, 90), torch.tensor([0, 0, 1])).item()
    assert negative == pytest.approx(3 / 8 + math.sqrt(4 * (3 / 8) ** 2 / 3))


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0], [0, 0, 1, 2]])
@pytest.mark.parametrize("loss", [ADD(), OPL()])
def test_sets_that_are_empty_or_of_one_value(loss, labels):
    z = rows(4).requires_grad_()
    value = loss(z, torch.tensor(labels))
    (gradient,) = torch.autograd.grad(value, z)
    assert value.isfinite() and gradient.isfinite().all() and gradient.abs().sum() > 0


def test_soft_add_is_the_formula():
    z, y = rows(4), torch.tensor([[1.0, 0, 0], [0.6, 0.4, 0], [1.0, 0, 0], [0.6, 0.4, 0]], dtype=torch.float64)
    expected = {"cosine": [], "dot": []}
    same = []
    for i in range(4):
        for j in set(range(4)) - {i}:
            distance = 1 - F.cosine_similarity(z[i], z[j], dim=0).item()
            dot = (y[i] @ y[j]).item()
            expected["dot"].append((1 - dot - distance) ** 2)
            expected["cosine"].append((1 - dot / (y[i].norm() * y[j].norm()).item() - distance) ** 2)
            if abs(i - j) == 2:
                same.append(distance**2)
    for metric, squares in expected.items():
        got = SoftADD(0.5, 2.0, metric)(z, y).item()
        assert got == pytest.approx(0.5 * mean_std(squares)[0] + 2 * mean_std(same)[1], rel=1e-12)


def test_soft_add_of_hard_labels_is_the_mixed_mean_of_add():
    same, different = pair_cosines(rows(), LABELS)
    mu_p, mu_n = (ADD(alone)(rows(), LABELS).item() for alone in ((1, 0, 0, 0), (0, 0, 1, 0)))
    got = SoftADD(1.0, 0.0)(rows(), F.one_hot(LABELS).double()).item()
    assert got == pytest.approx((len(same) * mu_p + len(different) * mu_n) / 20)


def test_opl_is_the_formula():
    same, different = pair_cosines(rows(), LABELS)
    s, d = sum(same) / len(same), sum(different) / len(different)
    assert OPL(0.5, 2.0)(rows(), LABELS).item() == pytest.approx(2 * (1 - s + 0.5 * abs(d)))
    mean_of_abs = sum(map(abs, different)) / len(different)
    assert OPL(0.5, 1.0, "mean_of_abs")(rows(), LABELS).item() == pytest.approx(1 - s + 0.5 * mean_of_abs)


# ------------------------------------------------------------------------------------------------------ gradients

LOSSES = {
    "acl": ACL(0.3, 0.2, 1.5),
    "acl_sum": ACL(0.3, 0.2, 1.5, ("sum_over", 25)),
    "acl_means": ACL(0.0, 0.2, 1.5, "mean_pos_plus_mean_neg"),
    "add": ADD((1, 2, 3, 4)),
    "opl": OPL(),
    "opl_code": OPL(abs_mode="mean_of_abs"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient(loss):
    of_z = lambda z: evaluate(LOSSES[loss], Rows(z, LABELS))  # noqa: E731
    assert gradcheck(of_z, rows().requires_grad_(), check_undefined_grad=False)


def test_gradient_of_soft_add():
    y = torch.tensor([[1.0, 0], [1, 0], [0.5, 0.5], [0, 1], [1, 0]], dtype=torch.float64)
    assert gradcheck(lambda z: SoftADD()(z, y), rows().requires_grad_())


@pytest.mark.parametrize("precision", ["float32", "autocast", "bfloat16"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("degrees", [(3, 3, 3, 3), (0, 0, 180, 180), (0, 180, 0, 180), (0, 1e-4, 1, 1)])
def test_finite_where_arccos_is_not(loss, precision, degrees):
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for length in (1.0, 0.0):  # and rows of zeros
        z = (length * on_circle(*degrees, dtype=dtype)).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            value = evaluate(LOSSES[loss], Rows(z, torch.tensor([0, 0, 1, 1])))
        (gradient,) = torch.autograd.grad(value, z)
        assert value.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("low", [False, True], ids=["float32", "autocast"])
def test_identical_positives_cost_nothing(low):
    z = rows(8, dim=64).float().repeat(2, 1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        value = angular_pairs(z, torch.arange(8).repeat(2), margin_rad=0.1)
    (gradient,) = torch.autograd.grad(value, z)
    assert value <= 1e-5 and gradient.isfinite().all()


def test_positives_are_pulled_together_from_any_angle():
    for degrees in (0.01, 1.0, 90.0, 179.0):
        z = on_circle(0, degrees, dtype=torch.float32).requires_grad_()
        (gradient,) = torch.autograd.grad(angular_pairs(z, torch.zeros(2), 0.5), z)
        theta = math.radians(degrees)
        assert gradient[0, 1].item() == pytest.approx(-2 * theta, rel=0.05, abs=1e-4)  # d theta^2, along the circle


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: angular_pairs(rows(), LABELS, 0.5, "mean"), "reduction is 'mean': choose mean_pairs"),
        (lambda: SoftADD(label_metric="l2"), "label_metric is 'l2': choose cosine or dot"),
        (lambda: OPL(abs_mode="max"), "abs_mode is 'max': choose abs_of_mean or mean_of_abs"),
    ],
)
def test_unknown_variants_are_refused(call, text):
    with pytest.raises(InputError, match=text):
        call()


@pytest.mark.parametrize("lambdas", [(), (1, 2), (1, 1, 1, 1, 1), (1, 1, 1, -1)])
def test_add_wants_four_lambdas(lambdas):
    with pytest.raises(InputError, match="want four numbers"):
        ADD(lambdas)
