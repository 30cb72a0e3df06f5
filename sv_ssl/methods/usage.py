"""How targets use the prototypes, by which a collapse is told before the loss or the EER shows it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sv_ssl.core.distributed import world_size
from sv_ssl.losses.dino_loss import dino_stats


@torch.no_grad()
def of_targets(targets: Tensor, loss: Tensor) -> dict[str, Tensor]:
    """Return entropy, KL divergence and usage of targets (G, N, K), and what share of the most possible they are.

    usage is the perplexity of the mean target: how many prototypes are in use. So many rows with so much entropy can
    use no more than rows * exp(entropy).

    >>> {name: round(value.item(), 3) for name, value in of_targets(torch.eye(2)[None], torch.tensor(0.5)).items()}
    {'target_entropy': 0.0, 'usage': 2.0, 'kl': 0.5, 'usage_share': 1.0, 'entropy_share': 0.0}
    """
    stats = dino_stats(loss, targets)
    n_rows = world_size() * len(targets.flatten(0, -2))
    count = targets.shape[-1]
    return {
        "target_entropy": stats["target_entropy"],
        "usage": stats["usage_perplexity"],
        "kl": stats["kl"],
        "usage_share": stats["usage_perplexity"] / (n_rows * stats["target_entropy"].exp()).clamp(max=count),
        "entropy_share": stats["target_entropy"] / max(math.log(count), 1e-9),
    }
