"""The contract of everything that changes waves in training, and several such transforms in a row.

What is random is drawn for one crop at a time in the loader's workers; the change itself is made to a whole batch on
the training device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:  # to draw needs no torch
    from torch import Tensor


class Transform(Protocol):
    """A change of waves, drawn in the worker and applied on the device."""

    def draw(self, rng: np.random.Generator, n_samples: int) -> dict[str, np.ndarray]:
        """Draw the parameters for one crop: arrays, with the names and shapes that any other crop gets."""

    def apply(self, waves: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Change each row by its own parameters, whatever the other rows are.

        (R, T), {name: (R, ...)} -> (R, T)
        """


class Pipeline:
    """Apply transforms in the order given; a transform itself.

    >>> class Louder:
    ...     def draw(self, rng, n_samples):
    ...         return {"gain": np.array(rng.integers(2, 4))}
    ...     def apply(self, waves, parameters):
    ...         return waves * parameters["gain"][:, None]
    >>> pipeline = Pipeline([Louder(), Louder()])
    >>> {name: int(gain) for name, gain in pipeline.draw(np.random.default_rng(0), n_samples=100).items()}
    {'0.gain': 3, '1.gain': 3}
    >>> pipeline.apply(np.ones((1, 2)), {"0.gain": np.array([3]), "1.gain": np.array([3])})
    array([[9., 9.]])
    """

    def __init__(self, steps: Sequence[Transform]):
        self.steps = list(steps)

    def draw(self, rng: np.random.Generator, n_samples: int) -> dict[str, np.ndarray]:
        """Draw for each step; a name begins with the number of its step."""
        return {
            f"{number}.{name}": value
            for number, step in enumerate(self.steps)
            for name, value in step.draw(rng, n_samples).items()
        }

    def apply(self, waves: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Apply each step with what was drawn for it; where nothing was drawn the waves come back as they are.

        (R, T), {name: (R, ...)} -> (R, T)
        """
        if not parameters:
            return waves
        drawn: list[dict[str, Tensor]] = [{} for _ in self.steps]
        for key, value in parameters.items():
            number, _, name = key.partition(".")
            drawn[int(number)][name] = value
        for step, own in zip(self.steps, drawn):
            waves = step.apply(waves, own)
        return waves
