"""The optimizer of a run: made of the method's groups of parameters, its rate set by a schedule."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from sv_ssl.core.errors import InputError

KINDS = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}


def named(name: str, **options: Any) -> Callable:
    """Return an optimizer's class with those of the options that it knows: momentum is SGD's alone.

    >>> named("AdamW", lr=0.1, momentum=0.9).keywords
    {'lr': 0.1}
    """
    if name not in KINDS:
        raise InputError(f"optimizer is {name!r}: choose {', '.join(KINDS)}")
    known = inspect.signature(KINDS[name]).parameters
    return partial(KINDS[name], **{key: value for key, value in options.items() if key in known})


def make(opt_class: Callable, groups: list[dict[str, Any]], device_type: str) -> torch.optim.Optimizer:
    """Return an optimizer of these groups; what its constructor refuses is an InputError of one line."""
    try:
        made = (opt_class if device_type == "cpu" else fused(opt_class))(groups)
    except (TypeError, ValueError) as error:
        raise InputError(f"the optimizer cannot be made: {error}: look at opt_class and the keys beside it") from error
    if made.defaults.get("momentum", 0) >= 1:
        raise InputError(f"momentum is {made.defaults['momentum']}: wanted less than 1, or the steps never die away")
    return made


def fused(opt_class: Callable) -> Callable:
    """Return an optimizer's class with one kernel for all parameters, where it has such a one.

    >>> fused(torch.optim.Adam).keywords
    {'fused': True}
    """
    return partial(opt_class, fused=True) if "fused" in inspect.signature(opt_class).parameters else opt_class


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group; its "lr_scale" multiplies it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def clip(optimizer: torch.optim.Optimizer, norm: float, each: bool = False) -> None:
    """Scale the gradient down where it is longer than `norm`: as one vector, or each tensor's by itself.

    >>> weights = [torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))]
    >>> weights[0].grad, weights[1].grad = torch.tensor([3.0]), torch.tensor([0.5])
    >>> clip(torch.optim.SGD(weights, 0.1), norm=1.0, each=True)
    >>> [round(weight.grad.item(), 4) for weight in weights]
    [1.0, 0.5]
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for part in [[parameter] for parameter in parameters] if each else [parameters]:
        torch.nn.utils.clip_grad_norm_(part, norm)
