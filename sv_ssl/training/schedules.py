"""Schedules: pure `step -> value` functions; fix the rest with functools.partial, or `!name:` in a YAML.

A step is whatever the caller counts: optimiser steps, or epochs.
"""

from __future__ import annotations

import math


def constant(step: float, value: float) -> float:
    """-> the same value at every step.

    >>> constant(1000, value=0.999)
    0.999
    """
    return value


def stepped(step: float, start: float, factor: float, every: int) -> float:
    """-> start * factor^k after k times `every` steps; x 0.95 every 5 epochs is that of NT-Xent-AM.

    >>> [round(stepped(epoch, start=1e-3, factor=0.95, every=5), 7) for epoch in (0, 4, 5, 10)]
    [0.001, 0.001, 0.00095, 0.0009025]
    """
    if not every > 0:
        raise ValueError(f"every is {every}, wanted a number above 0")
    return start * factor ** (step // every)


def linear(step: float, total: int, start: float, end: float) -> float:
    """-> a straight line from `start` at step 0 to `end` at `total`, and `end` from there on.

    DINO's teacher temperature, over 30 epochs that count from 0, reaches its end in the last of them, at 29.

    >>> [round(linear(epoch, total=29, start=0.04, end=0.07), 4) for epoch in (0, 10, 29, 100)]
    [0.04, 0.0503, 0.07, 0.07]
    """
    fraction = min(step / total, 1.0) if total > 0 else 1.0
    return start + (end - start) * fraction


def cosine(step: float, total: int, start: float, end: float) -> float:
    """-> half a cosine from `start` at step 0 to `end` at `total`, and `end` from there on.

    >>> [round(cosine(step, total=100, start=0.99, end=1.0), 4) for step in (0, 50, 100, 200)]
    [0.99, 0.995, 1.0, 1.0]
    """
    fraction = min(step / total, 1.0) if total > 0 else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


def warmup_cosine(step: float, total: int, peak: float, warmup: int, final: float = 0.0) -> float:
    """-> a straight line up to `peak` at step `warmup`, then half a cosine to `final` at `total`.

    >>> [round(warmup_cosine(step, total=12, peak=1.0, warmup=4), 2) for step in (0, 3, 4, 8, 12)]
    [0.0, 0.75, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return peak * step / warmup
    return cosine(step - warmup, total - warmup, peak, final)
