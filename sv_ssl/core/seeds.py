"""Named random streams: the one place where generators are made.

A stream is told apart by its seed, its name and its numbers: streams that differ in any of these are independent, also
where one has a trailing zero more. (numpy's own `default_rng((0, 1))` and `default_rng((0, 1, 0))` are one stream.)
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# Raise it whenever the same seed gives other numbers. Results tell it: those of version 1 had no names.
VERSION = 2


def stream(seed: int, name: str, *numbers: int) -> np.random.Generator:
    """Return the generator of a named stream, such as `stream(seed, "crops", epoch, index)`.

    >>> first, again, other = (stream(0, "crops", *numbers).random() for numbers in [(1, 2), (1, 2), (1, 2, 0)])
    >>> first == again, first == other
    (True, False)
    """
    return np.random.Generator(np.random.PCG64(_digest(seed, name, numbers)))


def torch_stream(seed: int, name: str, *numbers: int) -> torch.Generator:
    """Return torch's generator of a named stream, on the CPU: the same numbers for any device."""
    return torch_generator(_digest(seed, name, numbers) & (2**63 - 1))


def torch_generator(number: int) -> torch.Generator:
    """Return torch's generator for a number that was itself drawn from a stream."""
    import torch

    return torch.Generator().manual_seed(number)


def seed_everything(seed: int) -> None:
    """Seed the global generators, from which torch draws weights and dropout."""
    import random

    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _digest(seed: int, name: str, numbers: tuple[int, ...]) -> int:
    """Hash the address of a stream to 128 bits; its text form tells every address from every other."""
    address = ":".join(map(str, (seed, name, *map(int, numbers))))
    return int.from_bytes(hashlib.blake2b(address.encode(), digest_size=16).digest(), "little")
