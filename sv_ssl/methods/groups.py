"""Groups of parameters for the optimizer."""

from __future__ import annotations

from typing import Any

from torch import nn


def without_decay(method: nn.Module, *exempt: nn.Module, lr_scale: float = 1.0) -> list[dict[str, Any]]:
    """Return the learnt parameters in groups: matrices; biases and norms, which are not decayed; those of `exempt`.

    Parameters of `exempt`, such as prototypes, are not decayed, and `lr_scale` multiplies their learning rate.

    >>> [len(group["params"]) for group in without_decay(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))]
    [1, 3]
    """
    own = {id(parameter) for module in exempt for parameter in module.parameters()}
    learnt = [parameter for parameter in method.parameters() if parameter.requires_grad]
    others = [parameter for parameter in learnt if id(parameter) not in own]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in others if parameter.ndim > 1]},
        {"params": [parameter for parameter in others if parameter.ndim <= 1], "weight_decay": 0.0},
        {
            "params": [parameter for parameter in learnt if id(parameter) in own],
            "weight_decay": 0.0,
            "lr_scale": lr_scale,
        },
    ]
    return [group for group in groups if group["params"]]
