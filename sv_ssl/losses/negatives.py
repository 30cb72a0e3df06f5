"""Weights of negatives: plain functions of `Sides` and the mask of the positives, handed to `NTXent` with their numbers
fixed, `NTXent(0.1, n_views=3, negative_weights=partial(clean_noisy, weight=2.0))`.

They return the logarithms of the weights, without a gradient: 0 is no weight, and -inf takes a candidate away.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sv_ssl.core.errors import InputError, check_number
from sv_ssl.losses.contrastive import Sides
from sv_ssl.losses.geometry import cosines, unit


@torch.no_grad()
def clean_noisy(sides: Sides, positive: Tensor, weight: float, n_views: int = 3, n_clean: int = 1) -> Tensor:
    """Weight the negatives of which one is clean and the other is not: (A, C) log of weights.

    The last `n_clean` of `n_views` views are the clean ones. After the asymmetric clean segments of Gan et al. (2023),
    whose weights we do not know: this form is ours.

    >>> rows, labels = torch.eye(4), torch.tensor([0, 1, 0, 1])
    >>> clean_noisy(Sides(rows, labels, rows, labels, 0), labels[:, None] == labels, weight=math.e, n_views=2)[0]
    tensor([0., 0., 0., 1.])
    """
    check_number("weight of clean_noisy", weight, at_least=0)
    n = len(sides.rows)
    if sides.own is None or n % n_views:
        raise InputError(f"clean_noisy weights pairs of {n_views} views: set symmetric and n_views, and no short crops")
    # The rows of each process are view by view.
    clean = torch.arange(len(sides.keys), device=positive.device) % n >= n - n_clean * (n // n_views)
    mixed = (clean[:n, None] != clean) & ~positive
    weights = torch.zeros(mixed.shape, dtype=sides.rows.dtype, device=mixed.device)
    return weights.masked_fill_(mixed, math.log(weight) if weight else -math.inf)


@torch.no_grad()
def class_aware(sides: Sides, positive: Tensor, temperature: float) -> Tensor:
    """Weight negatives by a softmax of -cosine(anchor, mean of the negative's class) / temperature, so that those of
    classes that are like the anchor count less: (A, C) log of weights. An anchor's weights have the mean 1.

    Our reading of the class-aware attention of Li, Mak and Meng (2022), whose equations we do not know. Labels are to
    be classes, not recordings.

    >>> sides = Sides(torch.eye(3)[:1], torch.tensor([0]), torch.eye(3), torch.arange(3), None)
    >>> class_aware(sides, torch.tensor([[True, False, False]]), temperature=1.0)
    tensor([[0., 0., 0.]])
    """
    check_number("temperature of class_aware", temperature, at_least=1e-6)
    _, of = sides.key_labels.unique(return_inverse=True)
    means = unit(torch.zeros_like(sides.keys).index_add_(0, of, sides.keys))[of]
    negative = sides.labels[:, None] != sides.key_labels
    logits = (-cosines(sides.rows, means) / temperature).masked_fill(~negative, -math.inf)
    weights = logits.log_softmax(1) + negative.sum(1, keepdim=True).clamp_min(1).log()
    return torch.where(negative, weights, 0.0)
