"""What an experiment's engine asks of a task: whom it learns from, by what it chooses the epoch, how it is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import nn

from sv_ssl.training.brain import Validate
from sv_ssl.training.command_line import Config
from sv_ssl.training.settings import Settings


class Task(Protocol):
    """A way to train and judge an embedder. Its constructor reads and checks the data, and says what it found."""

    settings_class: ClassVar[type[Settings]]
    built_in: ClassVar[str]  # what to know of the corpus that a run has where none is named
    settings: Any  # of this run, of the class above

    def __init__(self, settings: Any, config: Config): ...

    @staticmethod
    def sources(config: Config) -> dict[str, Any]:
        """Return what the command leaves open: folders of the data, the corpus's name. Make a built-in corpus."""
        ...

    def identity(self) -> dict[str, str]:
        """Return what tells the training data from others, for settings.json."""
        ...

    def trained_on(self) -> np.ndarray:
        """Return which utterances are learnt from, as a model folder keeps it (`models/training_list.py`)."""
        ...

    def views_and_batches(self) -> tuple[Any, Any]:
        """Return what the loader reads, and in which order."""
        ...

    def classes(self) -> tuple[np.ndarray | None, int]:
        """Return the (n_rows,) classes that the method looks up, as far as it needs any, and their number."""
        ...

    def known_of_rows(self) -> dict[str, np.ndarray | None]:
        """Return what is known of the training rows and never learnt from: their `speakers` and `recordings`."""
        ...

    def validator(self) -> Validate | None:
        """Return what measures an embedder after an epoch; None where the last epoch is taken."""
        ...

    def baselines(self) -> Any:
        """Judge systems without learning, before the training."""
        ...

    def described(self) -> dict[str, Any]:
        """Return what a result tells of the data and of this task's settings."""
        ...

    def judge(self, embedder: nn.Module, before: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Judge the trained embedder, and return the result's own part and lines for the model card.

        Scores and pictures are written into the output folder.
        """
        ...

    def figures(self, result: dict[str, Any]) -> list[str]:
        """Return the figures of a result as lines for people."""
        ...

    def files(self, result: dict[str, Any]) -> list[str]:
        """Return what was written into the output folder beside the model."""
        ...

    def next_steps(self) -> list[str]:
        """Return commands that go on from here."""
        ...

    def tables(self, folder: Path) -> str:
        """Make the tables of a results folder anew, and return where they are as the end of a line."""
        ...
