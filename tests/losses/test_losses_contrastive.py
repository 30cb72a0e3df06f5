"""NT-Xent, InfoNCE and the queue: formulas as loops, what differs between the variants, and numerical stability."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hyperpyyaml import load_hyperpyyaml
from torch.autograd import gradcheck

from sv_ssl.core.errors import InputError
from sv_ssl.losses.contrastive import AngularPrototypical, InfoNCE, NTXent
from sv_ssl.losses.margin import additive, angular

AM, AAM = partial(additive, m=0.1), partial(angular, m=0.1)
LABELS = torch.arange(3).repeat(2)


def rows(n, seed=0, dim=4, dtype=torch.float64):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def logit(u, v, temperature, m=0.0):
    """exp((cos(u, v) - m) / temperature) of two lists."""
    lengths = math.sqrt(sum(a * a for a in u)) * math.sqrt(sum(a * a for a in v))
    return math.exp((sum(a * b for a, b in zip(u, v)) / lengths - m) / temperature)


def by_loops(z, labels, temperature, mode="out", m=0.0):
    """The symmetric loss with an additive margin, and its mean over anchors that have a positive."""
    losses, z, n = [], z.tolist(), len(z)
    for i in range(n):
        positives = [logit(z[i], z[j], temperature, m) for j in range(n) if j != i and labels[j] == labels[i]]
        negatives = [logit(z[i], z[j], temperature) for j in range(n) if labels[j] != labels[i]]
        shares = [p / (sum(positives) + sum(negatives)) for p in positives]
        if shares:
            losses.append(
                {
                    "out": -sum(map(math.log, shares)) / len(shares),
                    "sum": -sum(map(math.log, shares)),
                    "in": -math.log(sum(shares) / len(shares)),
                }[mode]
            )
    return sum(losses) / len(losses)


# ------------------------------------------------------------------------------------------------------- NT-Xent


@pytest.mark.parametrize("mode", ["out", "in", "sum"])
@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2], [0, 0, 1, 0, 1, 2], [5, 5, 5, 5, 5, -1]])
@pytest.mark.parametrize("m", [0.0, 0.3])
def test_symmetric_is_the_formula(mode, labels, m):
    loss = NTXent(0.2, partial(additive, m=m) if m else None, positives=mode)
    got = loss(rows(6), torch.tensor(labels))
    assert got.item() == pytest.approx(by_loops(rows(6), labels, 0.2, mode, m), rel=1e-12)


def test_one_way_is_the_formula():
    z = rows(6)
    expected = []
    for i in range(3):
        shares = [logit(z[i].tolist(), z[3 + a].tolist(), 0.2, 0.1 if a == i else 0) for a in range(3)]
        expected.append(-math.log(shares[i] / sum(shares)))
    assert NTXent(0.2, AM, symmetric=False)(z, LABELS).item() == pytest.approx(sum(expected) / 3, rel=1e-12)


def test_symmetric_is_neither_one_way_nor_both_ways():
    case = next(
        c
        for c in json.loads((Path(__file__).parents[1] / "golden/losses.json").read_text())["cases"]
        if c["name"] == "ntxent_sym_rand_tau0.5"
    )
    views = [torch.tensor(case["inputs"][name], dtype=torch.float64) for name in ("z1", "z2")]
    labels, one_way = torch.arange(4).repeat(2), NTXent(0.5, symmetric=False)
    forth, back = one_way(torch.cat(views), labels).item(), one_way(torch.cat(views[::-1]), labels).item()
    symmetric = NTXent(0.5)(torch.cat(views), labels).item()
    assert [round(value, 4) for value in (forth, (forth + back) / 2, symmetric)] == [0.8128, 0.8283, 1.2270]


def test_orthogonal_utterances():
    views = torch.eye(5, dtype=torch.float64).repeat(2, 1)
    assert NTXent(0.5)(views, torch.arange(5).repeat(2)).item() == pytest.approx(math.log(1 + 8 / math.e**2))


def test_equal_rows_give_the_logarithm_of_the_candidates():
    assert NTXent(0.03)(torch.ones(8, 4), torch.arange(4).repeat(2)).item() == pytest.approx(math.log(7))


def test_keys_are_the_only_candidates():
    z = rows(6)
    assert NTXent(0.2, AM).against(z[:3], LABELS[:3], z[3:], LABELS[3:]) == NTXent(0.2, AM, symmetric=False)(z, LABELS)
    alone = NTXent(0.2).against(z[:1], LABELS[:1], z[3:5], LABELS[3:5]).item()
    good, bad = (logit(z[0].tolist(), z[k].tolist(), 0.2) for k in (3, 4))
    assert alone == pytest.approx(-math.log(good / (good + bad)))


def test_three_views():
    labels = torch.arange(2).repeat(3)
    assert NTXent(0.2, n_views=3)(rows(6), labels).item() == pytest.approx(by_loops(rows(6), labels, 0.2))
    one_way = NTXent(0.2, symmetric=False, n_views=3)(rows(6), labels)
    assert one_way == NTXent(0.2).against(rows(6)[:2], labels[:2], rows(6)[2:], labels[2:])


def test_one_positive_makes_the_modes_equal():
    values = {round(NTXent(0.2, AAM, positives=mode)(rows(6), LABELS).item(), 12) for mode in ("out", "in", "sum")}
    assert len(values) == 1


def test_a_margin_of_zero_is_none():
    plain = NTXent(0.2)(rows(6), LABELS)
    for margin in (partial(additive, m=0.0), partial(angular, m=0.0)):
        torch.testing.assert_close(NTXent(0.2, margin)(rows(6), LABELS), plain)


def test_scale_and_order_of_the_rows_do_not_matter():
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    expected = NTXent(0.2, AM)(rows(6), LABELS)
    torch.testing.assert_close(NTXent(0.2, AM)(7 * rows(6)[order], LABELS[order]), expected)


@pytest.mark.parametrize("mode", ["out", "in", "sum"])
def test_without_positives_the_loss_is_zero_and_has_a_gradient(mode):
    z = rows(4).requires_grad_()
    loss = NTXent(0.2, AM, positives=mode)(z, torch.arange(4))
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss == 0 and torch.equal(gradient, torch.zeros_like(z))


@pytest.mark.parametrize("mode", ["out", "in", "sum"])
def test_anchors_without_positive_keep_the_gradient_finite(mode):
    z, labels = rows(6).requires_grad_(), torch.tensor([0, 0, 1, 2, 3, 4])
    assert gradcheck(lambda z: NTXent(0.2, AM, positives=mode)(z, labels), z, check_undefined_grad=False)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("margin", [None, AM, AAM])
@pytest.mark.parametrize("mode", ["out", "in"])
def test_gradient(symmetric, margin, mode):
    loss, z = NTXent(0.2, margin, symmetric, mode), rows(6).requires_grad_()
    for labels in (LABELS, torch.tensor([0, 0, 1, 0, 1, 1])):
        assert gradcheck(lambda z: loss(z, labels), z, check_undefined_grad=False)


def test_gradient_of_keys():
    z, keys = rows(3).requires_grad_(), rows(4, seed=1).requires_grad_()
    key_labels = torch.tensor([2, 1, 0, 0])
    assert gradcheck(lambda z, keys: NTXent(0.2, AAM).against(z, LABELS[:3], keys, key_labels), (z, keys))


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: NTXent(0.2)(rows(2), LABELS[[0, 0]]), "a batch of 2 rows is a single utterance and has no negative"),
        (lambda: NTXent(0.2, n_views=3)(rows(3), LABELS[[0, 0, 0]]), "3 rows is a single utterance"),
        (lambda: NTXent(0.2, symmetric=False)(rows(2), LABELS[[0, 0]]), "single utterance"),
        (lambda: NTXent(0.2).against(rows(1), LABELS[:1], rows(1), LABELS[:1]), "single utterance"),
        (lambda: AngularPrototypical()(rows(2), LABELS[[0, 0]]), "single utterance"),
        (lambda: NTXent(0.2)(rows(6), LABELS[:3]), "6 rows but 3 labels: give one per row, repeated for each view"),
        (
            lambda: NTXent(0.2).against(rows(3), LABELS[:3], rows(5), LABELS[:3]),
            "5 keys but 3 labels of keys: give one per key",
        ),
        (lambda: NTXent(0.2, symmetric=False)(rows(5), LABELS[:5]), "5 rows are not 2 views of each utterance"),
        (lambda: NTXent(0.2, positives="all"), "positives is 'all': choose out, in or sum"),
    ],
)
def test_bad_input_is_told_in_one_line(call, text):
    with pytest.raises(InputError, match=text) as error:
        call()
    assert "\n" not in str(error.value)


# ----------------------------------------------------------------------------------------------------- schedules

SCHEDULES = """
margin: !name:sv_ssl.losses.margin.angular
  m: !name:sv_ssl.training.schedules.cosine {total: 10, start: 0.0, end: 0.2}
temperature: !name:sv_ssl.training.schedules.stepped {start: 0.4, factor: 0.5, every: 10}
"""


@pytest.mark.parametrize("epoch, temperature, m", [(0.0, 0.4, 0.0), (5.0, 0.4, 0.1), (10.0, 0.2, 0.2), (99, 4e-4, 0.2)])
def test_temperature_and_margin_follow_schedules(epoch, temperature, m):
    """As a YAML gives them; the loss is that of the values at the epoch."""
    given = load_hyperpyyaml(SCHEDULES)
    fixed = temperature if epoch < 99 else 0.4 * 0.5**9, partial(angular, m=m)
    loss, queue = NTXent(**given), InfoNCE(**given)
    for scheduled in (loss, queue):
        scheduled.set_progress(epoch)
    torch.testing.assert_close(loss(rows(6), LABELS), NTXent(*fixed)(rows(6), LABELS))
    negatives = F.normalize(rows(5, seed=2))
    torch.testing.assert_close(queue(rows(3), rows(3, 1), negatives), InfoNCE(*fixed)(rows(3), rows(3, 1), negatives))


def test_a_new_loss_is_at_the_start_of_its_schedules_and_numbers_stay():
    assert NTXent(**load_hyperpyyaml(SCHEDULES)).temperature == 0.4
    loss = NTXent(0.2, AM)
    loss.set_progress(7.0)
    assert loss.temperature == 0.2 and loss.margin is AM


# ----------------------------------------------------------------------------------------------------- stability


def hard_batches():
    """Identical views, opposite views, all rows equal, a row of zeros, huge and tiny rows."""
    z = rows(3, dtype=torch.float32)
    zero = torch.cat([torch.zeros(1, 4), z[1:], z])
    return {
        "identical": torch.cat([z, z]),
        "opposite": torch.cat([z, -z]),
        "equal": torch.ones(6, 4),
        "zero": zero,
        "huge": torch.cat([z, z + 0.1]) * 1e15,
        "tiny": torch.cat([z, z + 0.1]) * 1e-15,
    }


LOSSES = {
    "sym": NTXent(0.005),
    "sym_am": NTXent(0.005, AM),
    "sym_aam": NTXent(0.005, AAM),
    "sym_easy": NTXent(0.005, partial(angular, m=0.5, beyond_pi="easy")),
    "one_way": NTXent(0.005, AM, False),
    "in": NTXent(0.005, AAM, positives="in"),
    "sum": NTXent(0.005, AM, positives="sum"),
    "prototypical": AngularPrototypical(200.0),
    "moco": lambda z, labels: InfoNCE(0.005, AAM)(z[:3], z[3:], F.normalize(z.detach())),
}


@pytest.mark.parametrize("precision", ["float32", "autocast bfloat16", "autocast float16", "bfloat16"])
@pytest.mark.parametrize("batch", hard_batches())
@pytest.mark.parametrize("loss", LOSSES)
def test_finite_at_a_low_temperature(loss, batch, precision):
    z = hard_batches()[batch].to(torch.bfloat16 if precision == "bfloat16" else torch.float32).requires_grad_()
    low = torch.float16 if precision == "autocast float16" else torch.bfloat16
    with torch.autocast("cpu", low, enabled=precision.startswith("autocast")):
        value = LOSSES[loss](z, LABELS)
    (gradient,) = torch.autograd.grad(value, z)
    assert value.dtype == torch.float32 and value.isfinite() and gradient.isfinite().all()


def test_a_low_temperature_is_exact_in_float32():
    """Opposite views: the positive has cosine -1, the best negative is known."""
    z = torch.cat([torch.eye(2), -torch.eye(2)])
    assert NTXent(0.005)(z, torch.arange(2).repeat(2)).item() == pytest.approx(1 / 0.005 + math.log(2))


def test_float64_stays_float64():
    assert NTXent(0.2)(rows(6), LABELS).dtype == torch.float64


def test_autocast_is_close_to_full_precision():
    z, labels = rows(64, dim=128, dtype=torch.float32), torch.arange(32).repeat(2)
    with torch.autocast("cpu", torch.bfloat16):
        low = NTXent(0.1, AM)(z, labels)
    torch.testing.assert_close(low, NTXent(0.1, AM)(z, labels), rtol=0.01, atol=0)


# ------------------------------------------------------------------------------------------- angular prototypical


def test_angular_prototypical_is_one_way_nt_xent():
    one_way = NTXent(0.1, symmetric=False)
    torch.testing.assert_close(AngularPrototypical(10.0)(rows(6), LABELS), one_way(rows(6), LABELS))


def test_its_scale_is_learned_and_stays_positive():
    loss = AngularPrototypical(10.0).double()
    torch.testing.assert_close(loss.scale.item(), 10.0)
    loss(rows(6), LABELS).backward()
    above, below = (AngularPrototypical(scale).double()(rows(6), LABELS).item() for scale in (10 + 1 / 64, 10 - 1 / 64))
    assert loss.scale.grad.item() == pytest.approx((above - below) * 32, rel=1e-4)
    loss.scale.data.fill_(-1.0)
    assert loss(rows(6), LABELS).item() == pytest.approx(math.log(3), rel=1e-4)


# -------------------------------------------------------------------------------------------------------- InfoNCE


def test_infonce_is_the_formula():
    q, keys, queue = rows(3), rows(3, seed=1), F.normalize(rows(5, seed=2))
    expected = 0.0
    for i in range(3):
        good = logit(q[i].tolist(), keys[i].tolist(), 0.2, 0.1)
        expected -= math.log(good / (good + sum(logit(q[i].tolist(), k, 0.2) for k in queue.tolist()))) / 3
    assert InfoNCE(0.2, AM)(q, keys, queue).item() == pytest.approx(expected, rel=1e-12)


def test_entries_of_the_own_label_are_no_candidates():
    """Not a candidate of logit 0, which would still add exp(0)."""
    q, keys, queue = rows(1), rows(1, seed=1), F.normalize(rows(4, seed=2))
    masked = InfoNCE(0.2)(q, keys, queue, torch.tensor([7]), torch.tensor([7, 3, 7, -1]))
    torch.testing.assert_close(masked, InfoNCE(0.2)(q, keys, queue[[1, 3]]))
    assert abs(masked - InfoNCE(0.2)(q, keys, queue * torch.tensor([[0.0], [1.0], [0.0], [1.0]]))) > 1e-3


@pytest.mark.parametrize("queue, queue_labels", [(torch.zeros(0, 4), torch.zeros(0)), (torch.eye(4), torch.ones(4))])
def test_a_queue_without_candidates_gives_zero(queue, queue_labels):
    q = rows(2, dtype=torch.float32).requires_grad_()
    loss = InfoNCE(0.2, AM)(q, rows(2, seed=1, dtype=torch.float32), queue, torch.ones(2), queue_labels)
    (gradient,) = torch.autograd.grad(loss, q)
    assert loss == 0 and torch.equal(gradient, torch.zeros_like(q))


@pytest.mark.parametrize("margin", [None, AM, AAM])
def test_only_the_query_has_a_gradient(margin):
    q, keys, queue = rows(3).requires_grad_(), rows(3, seed=1).requires_grad_(), F.normalize(rows(5, seed=2))
    queue.requires_grad_()
    labels, queue_labels = torch.tensor([0, 1, 2]), torch.tensor([0, 5, 0, 2, -1])
    InfoNCE(0.2, margin)(q, keys, queue, labels, queue_labels).backward()
    assert keys.grad is None and queue.grad is None
    assert gradcheck(lambda q: InfoNCE(0.2, margin)(q, keys, queue, labels, queue_labels), q)


def test_one_utterance_is_enough():
    assert InfoNCE(0.2)(rows(1), rows(1), F.normalize(rows(5))).isfinite()


def test_the_queue_is_not_copied_so_enqueuing_before_backward_is_noticed():
    q, queue = rows(2).requires_grad_(), F.normalize(rows(4, seed=2))
    loss = InfoNCE(0.2)(q, rows(2), queue)
    queue[:2] = rows(2)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()
