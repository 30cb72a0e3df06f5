"""BYOL and SimSiam: predict the other view from one view. Nothing pushes recordings apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.data.batch import Batch
from sv_ssl.losses.prediction import byol, simsiam
from sv_ssl.methods.base import Facts, Method, Needs, Step
from sv_ssl.methods.ema import Ema, copy_weights, slow_copy
from sv_ssl.methods.groups import without_decay
from sv_ssl.models.features import seed_masks


class Predictive(Method):
    """Predict one view's projection from the other's, both ways. Step.z is (2 * B, P).

    With `ema`, targets are of a slow copy: BYOL, https://arxiv.org/abs/2006.07733; hparams/byol.yaml. Without, they are
    those of the network itself: SimSiam, https://arxiv.org/abs/2011.10566.

    What keeps it from collapsing is that targets have no gradient, and the BatchNorm in projector and predictor. The
    loss says nothing: it is near 0 both when all is well and when all embeddings are one. Watch the spread.

    head             the projector
    predictor        of projections
    ema              weight of the old target network: a number, or a function of the epochs done; None: no such network
    stop_gradient    False shows the collapse that the method is built against
    """

    needs = Needs(views=2)

    def __init__(
        self,
        embedder: Any,
        head: nn.Module,
        predictor: nn.Module,
        ema: float | Callable[[float], float] | None = 0.996,
        stop_gradient: bool = True,
    ):
        super().__init__()
        if ema is not None and not stop_gradient:
            raise InputError("a slow target network gets no gradient: leave stop_gradient True, or ema null")
        self.embedder = embedder
        self.head = head
        self.predictor = predictor
        self.ema = Ema(ema) if ema is not None else None
        self.target = slow_copy(self._online()) if ema is not None else None
        self.stop_gradient = stop_gradient

    def prepare(self, facts: Facts) -> None:
        seed_masks(self, facts.seed)

    def weights_loaded(self) -> None:
        if self.target is not None:
            copy_weights(self.target, self._online())

    def parameter_groups(self) -> list[dict[str, Any]]:
        return without_decay(self)

    def forward(self, batch: Batch) -> Step:
        views = batch.views
        if len(views) != 2 or batch.short is not None:
            raise InputError(f"{type(self).__name__} compares 2 views, {len(views)} came: pass --n_views 2 --n_short 0")
        h = self.embedder(views.flatten(0, 1))
        z = self.head(h)  # (2 * B, P)
        targets = self._targets(views, z)
        predicted = self.predictor(z)
        compare = simsiam if self.target is None else byol
        loss = compare(predicted.chunk(2), targets.chunk(2), stop_gradient=self.stop_gradient)
        return Step(loss, z.detach(), batch.rows.repeat(2), h=h.detach())

    def _targets(self, views: Tensor, z: Tensor) -> Tensor:
        """Return what is to be predicted: (2, B, T), (2 * B, P) -> (2 * B, P)."""
        if self.target is None:
            return z
        with torch.no_grad():
            return self.target(views.flatten(0, 1))

    def on_step_end(self, progress: float) -> None:
        if self.target is not None and self.ema is not None:
            self.ema.update(self.target, self._online(), progress)

    def _online(self) -> nn.Module:
        return nn.Sequential(self.embedder, self.head)
