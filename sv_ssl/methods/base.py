"""The contract between a method and the engine that trains it: what it needs, what it is told, what a step returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.data.batch import Batch
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.frozen import Frozen


class Needs(NamedTuple):
    """What a method needs of the data. The engine refuses a run that cannot give it, before any work."""

    views: int = 2  # long crops of an utterance in a step: at least so many
    short: bool = False  # whether it can use short crops
    clean: int = 0  # crops without noises and rooms: exactly so many
    labels: str = "none"  # "none", "some" (-1 where unknown) or "all": the classes that it looks up by row
    partners: int = 0  # other recordings whose audio must come along (no method wants any yet)


class Facts(NamedTuple):
    """What a run knows before its first step."""

    n_rows: int  # rows of the training manifest
    classes: np.ndarray | None  # (n_rows,) int64, -1 where unknown; None where nobody knows
    n_classes: int  # of the classifier: speeds counted (0 without classes)
    steps: int  # of an epoch
    epochs: int
    seed: int
    # Where the manifest knows them, (n_rows,) int64, -1 where unknown: to measure clusters by, never to learn from.
    speakers: np.ndarray | None = None
    recordings: np.ndarray | None = None


class Step(NamedTuple):
    """What a method returns for a batch of R rows."""

    loss: Tensor  # ()
    z: Tensor  # (R, D) detached, to watch
    labels: Tensor  # (R,) of z's rows: equal for what should be alike
    log: dict[str, Tensor] = {}
    h: Tensor | None = None  # (R, E) detached: the embeddings that z was made of, where a head lies between


class Method(nn.Module):
    """A way to train `self.embedder`. Subclasses write `forward`, and those hooks that they need.

    The engine calls `prepare` once, then `on_epoch_start`; for each optimizer step `on_step_start`, `forward` (several
    times where gradients are accumulated) and `on_step_end`; then `on_epoch_end`. `progress` is in epochs, fractional.
    """

    needs: Needs = Needs()
    embedder: Any  # a module, with `dim`
    frozen: bool = False  # whether `freeze_encoder` was called

    def prepare(self, facts: Facts) -> None:
        """Size and fill what depends on the training manifest. Call it before the optimizer is made."""

    def forward(self, batch: Batch) -> Step:
        """Return the loss of a batch, and the rows to watch."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def on_epoch_start(self, epoch: int) -> None:
        """Called before the first step of an epoch; epochs count from 1."""

    def on_step_start(self, progress: float) -> None:
        """Called before a step: sets what follows a schedule."""

    def on_step_end(self, progress: float) -> None:
        """Called after the optimizer has changed the weights."""

    def on_epoch_end(self, epoch: int) -> dict[str, float] | None:
        """Called after the last step of an epoch, before a checkpoint. May return what is to be logged of it."""

    def embedder_to_keep(self) -> nn.Module:
        """Return the embedder that is validated and saved."""
        return self.embedder.folded() if self.frozen else self.embedder

    def freeze_encoder(self) -> None:
        """Leave the encoder as it is from now on: a linear layer on its embeddings learns in its place."""
        if self.needs.labels == "none" or sum(isinstance(part, Embedder) for part in self.modules()) > 1:
            raise InputError(
                f"--freeze_encoder True is for learning with speaker labels and one encoder, and {type(self).__name__} "
                "has others here: leave it out"
            )
        self.embedder = Frozen(self.embedder)
        self.frozen = True

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return groups for the optimizer; a group's "lr_scale" multiplies the scheduled rate."""
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]

    def weights_loaded(self) -> None:
        """Called after weights of a model folder were read into the embedder."""
