"""The blockwise losses against the whole matrix: values, gradients, ranks, memory, and when they take over."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from support.memory import peak
from torch.autograd import gradcheck

from sv_ssl.losses import InfoNCE, NTXent, blocks, contrastive
from sv_ssl.losses.margin import additive, angular

MARGINS = {"none": None, "am": partial(additive, m=0.1), "aam": partial(angular, m=0.3)}
LABELS = [[0, 1, 2, 3, 0, 1, 2, 3], [0, 0, 1, 0, 1, 2, 2, 5], [5, 5, 5, 5, 5, 5, 5, -1], list(range(8))]


@pytest.fixture
def blockwise(monkeypatch):
    """blockwise(True) has everything done in blocks of 3 rows, blockwise(False) nothing."""
    monkeypatch.setattr(blocks, "ELEMENTS", {"cpu": 1})
    monkeypatch.setattr(blocks, "ROWS", 3)
    return lambda yes: monkeypatch.setattr(contrastive, "DENSE", 0 if yes else 2**40)


def rows(n, seed=0, dim=4, dtype=torch.float64):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def both(blockwise, loss, *inputs):
    """-> value and gradients in blocks, and by the whole matrix."""
    found = []
    for yes in (True, False):
        blockwise(yes)
        leaves = [x.clone().requires_grad_() for x in inputs]
        value = loss(*leaves)
        found.append([value.detach(), *torch.autograd.grad(value, leaves)])
    return found


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("mode", ["out", "in", "sum"])
def test_all_rows_against_all(blockwise, mode, margin, labels):
    loss = NTXent(0.1, MARGINS[margin], positives=mode)
    torch.testing.assert_close(*both(blockwise, lambda z: loss(z, torch.tensor(labels)), rows(8)))


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("mode", ["out", "in", "sum"])
def test_rows_against_keys(blockwise, mode, margin):
    labels, key_labels = torch.tensor([0, 1, 1, 2, 9]), torch.tensor([1, 0, 1, 2, 3, 1, 0])
    loss = NTXent(0.1, MARGINS[margin], positives=mode)
    found = both(blockwise, lambda z, keys: loss.against(z, labels, keys, key_labels), rows(5), rows(7, 1))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("n_views", [2, 4])
def test_one_way(blockwise, n_views):
    loss, labels = NTXent(0.1, MARGINS["aam"], symmetric=False, n_views=n_views), torch.arange(8 // n_views)
    torch.testing.assert_close(*both(blockwise, lambda z: loss(z, labels.repeat(n_views)), rows(8)))


def test_keys_without_gradient(blockwise):
    loss, labels = NTXent(0.1, MARGINS["am"]), torch.tensor([0, 1, 1, 2, 9])
    torch.testing.assert_close(*both(blockwise, lambda z: loss.against(z, labels, rows(5, 1), labels), rows(5)))
    torch.testing.assert_close(*both(blockwise, lambda keys: loss.against(rows(5), labels, keys, labels), rows(5, 1)))


@pytest.mark.parametrize("mode", ["out", "in"])
def test_the_gradient_is_the_slope(blockwise, mode):
    blockwise(True)
    loss = NTXent(0.2, MARGINS["aam"], positives=mode)
    z, labels = rows(8).requires_grad_(), torch.tensor(LABELS[1])
    assert gradcheck(lambda z: loss(z, labels), z, check_undefined_grad=False)


def test_without_gradient_the_value_is_the_same(blockwise):
    blockwise(True)
    loss, z = NTXent(0.1, MARGINS["aam"]), rows(8).requires_grad_()
    expected = loss(z, torch.tensor(LABELS[1])).detach()
    with torch.no_grad():
        assert torch.equal(loss(z, torch.tensor(LABELS[1])), expected)
    assert torch.equal(loss(rows(8), torch.tensor(LABELS[1])), expected)


@pytest.mark.parametrize("mode", ["out", "in", "sum"])
@pytest.mark.parametrize("batch", ["equal", "opposite"])
def test_a_low_temperature_stays_finite(blockwise, batch, mode):
    half = rows(4, dtype=torch.float32)
    z = {"equal": torch.ones(8, 4), "opposite": torch.cat([half, -half])}[batch]
    loss = NTXent(0.005, MARGINS["aam"], positives=mode)
    found, expected = both(blockwise, lambda z: loss(z, torch.tensor(LABELS[0])), z)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert all(x.isfinite().all() for x in found)


def test_low_precision_is_close(blockwise):
    blockwise(True)
    z, labels = rows(64, dim=128, dtype=torch.float32), torch.arange(32).repeat(2)
    with torch.autocast("cpu", torch.bfloat16):
        low = NTXent(0.1, MARGINS["am"])(z, labels)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, NTXent(0.1, MARGINS["am"])(z, labels), rtol=0.01, atol=0)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_small_probabilities_are_not_lost_in_half_precision(blockwise, low):
    """Cosines of a few exact numbers, so that only what follows could lose anything."""
    blockwise(True)
    signs = torch.randint(0, 2, (64, 16), generator=torch.Generator().manual_seed(0)) - 0.5
    loss, queue = NTXent(0.05, MARGINS["am"]), InfoNCE(0.05)
    for work in (lambda z: loss(z, torch.arange(32).repeat(2)), lambda z: queue(z, z.detach(), F.normalize(signs))):
        found = []
        for enabled in (True, False):
            z = signs.clone().requires_grad_()
            with torch.autocast("cpu", low, enabled=enabled):
                found += torch.autograd.grad(work(z), z)
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("mode", ["out", "in", "sum"])
def test_ranks_by_their_own_rows_are_one_process(blockwise, monkeypatch, mode):
    """What each of two ranks would compute, one after the other: the mean is that of the whole batch."""
    labels, loss = torch.tensor(LABELS[1]), NTXent(0.1, MARGINS["am"], positives=mode)
    kept = [3, 4]  # anchors with a positive, by rank: the last row has none

    def by_ranks(z):
        total = 0
        for rank in range(2):
            own = slice(4 * rank, 4 * rank + 4)
            monkeypatch.setattr(contrastive, "rank", lambda: rank)
            monkeypatch.setattr(contrastive, "world_size", lambda: 2)
            monkeypatch.setattr(contrastive, "gather", lambda _: F.normalize(z))
            monkeypatch.setattr(contrastive, "gather_plain", lambda x: labels if len(x) > 1 else torch.tensor(kept))
            total = total + loss(z[own], labels[own]) / 2
        monkeypatch.undo()
        return total

    blockwise(True)
    z = rows(8).requires_grad_()
    value = by_ranks(z)
    (gradient,) = torch.autograd.grad(value, z)
    whole = rows(8).requires_grad_()
    expected = loss(whole, labels)
    torch.testing.assert_close([value, gradient], [expected, *torch.autograd.grad(expected, whole)])


# -------------------------------------------------------------------------------------------------------- InfoNCE


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("queue_labels", [None, [0, 5, 0, 2, -1], [1, 1, 1, 1, 1]])
def test_a_queue(blockwise, queue_labels, margin):
    masks = [] if queue_labels is None else [torch.tensor([0, 1, 2, 1]), torch.tensor(queue_labels)]
    loss, queue = InfoNCE(0.1, MARGINS[margin]), F.normalize(rows(5, 2))
    torch.testing.assert_close(*both(blockwise, lambda q: loss(q, rows(4, 1), queue, *masks), rows(4)))


def test_neither_keys_nor_queue_get_a_gradient(blockwise):
    blockwise(True)
    q, keys, queue = (rows(n, seed).requires_grad_() for seed, n in enumerate((4, 4, 5)))
    InfoNCE(0.1)(q, keys, queue).backward()
    assert keys.grad is None and queue.grad is None and q.grad.abs().max() > 0


# --------------------------------------------------------------------------------------------------- memory, size


def test_memory_does_not_grow_with_the_square(monkeypatch):
    monkeypatch.setattr(blocks, "ELEMENTS", {"cpu": 1})
    monkeypatch.setattr(blocks, "ROWS", 16)
    loss, heights = NTXent(0.1, MARGINS["aam"]), []
    for n in (256, 512, 1024):
        z = rows(2 * n, dim=8, dtype=torch.float32).requires_grad_()
        heights.append(peak(lambda: loss(z, torch.arange(n).repeat(2)).backward()))
    assert heights[2] < 2.2 * heights[1] < 4.84 * heights[0]
    assert heights[2] < (2 * 1024) ** 2


def test_blocks_take_over_by_themselves(monkeypatch):
    calls = []
    monkeypatch.setattr(blocks, "contrast", lambda rows, *rest: calls.append(len(rows)) or rows.sum())
    monkeypatch.setattr(blocks, "log_sum_exp", lambda rows, *rest: calls.append(len(rows)) or rows.sum(1))
    for n in (128, 256, 512):
        NTXent(0.1)(rows(2 * n), torch.arange(n).repeat(2))
        InfoNCE(0.1)(rows(n), rows(n), rows(1024))
    assert calls == [1024, 512]


# -------------------------------------------------------------------------------------------------------- matches


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=12),
    st.lists(st.integers(0, 4), max_size=12),
    st.integers(0, 3),
    st.booleans(),
)
def test_matches_are_all_pairs_of_one_label(labels, others, before, among):
    """With the anchors among the candidates, none is its own match."""
    key_labels = others[:before] + labels + others[before:] if among else others
    own = len(others[:before]) if among else None
    matches = blocks.Matches(*(torch.tensor(x, dtype=torch.int64) for x in (labels, key_labels)), own)
    expected = [
        [j for j, key in enumerate(key_labels) if key == label and not (among and j == own + i)]
        for i, label in enumerate(labels)
    ]
    assert matches.count.tolist() == [len(row) for row in expected]
    for begin in range(0, len(labels), 5):
        anchor, candidate = matches.pairs(slice(begin, begin + 5))
        assert list(zip(anchor.tolist(), candidate.tolist())) == [
            (i, j) for i, row in enumerate(expected[begin : begin + 5]) for j in row
        ]
