"""Weights of negatives: none and infinite ones, against loops, gradients, odd inputs."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from sv_ssl.core.errors import InputError
from sv_ssl.losses import NTXent, contrastive
from sv_ssl.losses.margin import additive
from sv_ssl.losses.negatives import class_aware, clean_noisy

LABELS = torch.arange(3).repeat(3)
SPEAKERS = torch.tensor([0, 0, 1, 1, 2, 0, 1])


def rows(n=9, seed=0, dtype=torch.float64):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def weighted(z, labels, weight, tau=0.2):
    """Mean over anchors and their positives of -log(p / (positives + sum of w n)), by loops."""
    cosine, losses = F.normalize(z) @ F.normalize(z).T, []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        mass = sum(
            (1 if labels[j] == labels[i] else weight(i, j)) * math.exp(cosine[i, j].item() / tau) for j in others
        )
        alike = [j for j in others if labels[j] == labels[i]]
        losses += [math.log(mass) - sum(cosine[i, j].item() for j in alike) / len(alike) / tau] if alike else []
    return sum(losses) / len(losses)


def test_a_weight_of_1_is_none():
    plain = NTXent(0.2, partial(additive, m=0.1), n_views=3)(rows(), LABELS)
    same = NTXent(0.2, partial(additive, m=0.1), n_views=3, negative_weights=partial(clean_noisy, weight=1.0))
    torch.testing.assert_close(same(rows(), LABELS), plain, atol=1e-9, rtol=0)
    flat = NTXent(0.2, negative_weights=partial(class_aware, temperature=1e6))
    torch.testing.assert_close(flat(rows(7), SPEAKERS), NTXent(0.2)(rows(7), SPEAKERS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_negatives_of_clean_and_noisy_rows_are_weighted(weight):
    loss = NTXent(0.2, n_views=3, negative_weights=partial(clean_noisy, weight=weight))
    expected = weighted(rows(), LABELS, lambda i, j: weight if (i >= 6) != (j >= 6) else 1)
    assert loss(rows(), LABELS).item() == pytest.approx(expected, rel=1e-9)


def test_two_of_the_views_may_be_clean():
    loss = NTXent(0.2, n_views=3, negative_weights=partial(clean_noisy, weight=3.0, n_clean=2))
    expected = weighted(rows(), LABELS, lambda i, j: 3 if (i >= 3) != (j >= 3) else 1)
    assert loss(rows(), LABELS).item() == pytest.approx(expected, rel=1e-9)


def test_negatives_are_weighted_by_their_classes():
    z, tau = rows(7), 0.5
    means = {c: F.normalize(F.normalize(z)[c == SPEAKERS].mean(0), dim=0) for c in (0, 1, 2)}

    def weight(i, j):
        mass = {
            k: math.exp(-(F.normalize(z[i], dim=0) @ means[SPEAKERS[k].item()]).item() / tau)
            for k in range(7)
            if SPEAKERS[k] != SPEAKERS[i]
        }
        return mass[j] / sum(mass.values()) * len(mass)

    loss = NTXent(0.2, negative_weights=partial(class_aware, temperature=tau))
    assert loss(z, SPEAKERS).item() == pytest.approx(weighted(z, SPEAKERS, weight), rel=1e-9)


def test_weights_hold_for_large_batches_too(monkeypatch):
    loss = NTXent(0.2, n_views=3, negative_weights=partial(clean_noisy, weight=3.0))
    expected = loss(rows(), LABELS)
    monkeypatch.setattr(contrastive, "DENSE", 0)
    assert loss(rows(), LABELS) == expected


def test_the_gradient():
    loss = NTXent(0.2, n_views=3, negative_weights=partial(clean_noisy, weight=3.0))
    assert gradcheck(lambda z: loss(z, LABELS), rows().requires_grad_(), check_undefined_grad=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("labels", [LABELS, torch.zeros(9, dtype=torch.int64), torch.arange(9)])
@pytest.mark.parametrize(
    "weights",
    [partial(clean_noisy, weight=0.0), partial(clean_noisy, weight=9.0), partial(class_aware, temperature=0.005)],
)
def test_value_and_gradient_stay_finite(dtype, labels, weights):
    for z in (rows(dtype=dtype), torch.ones(9, 4, dtype=dtype)):
        z.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = NTXent(0.005, n_views=3, negative_weights=weights)(z, labels)
        value.backward()
        assert value.dtype == torch.float32 and value.isfinite() and z.grad.isfinite().all()


def test_what_they_refuse():
    with pytest.raises(InputError, match="clean_noisy weights pairs of 3 views: set symmetric and n_views"):
        NTXent(0.2, symmetric=False, n_views=3, negative_weights=partial(clean_noisy, weight=2.0))(rows(), LABELS)
    with pytest.raises(InputError, match="weight of clean_noisy is -1"):
        NTXent(0.2, n_views=3, negative_weights=partial(clean_noisy, weight=-1))(rows(), LABELS)
    with pytest.raises(InputError, match="temperature of class_aware"):
        NTXent(0.2, negative_weights=partial(class_aware, temperature=0))(rows(), LABELS)
