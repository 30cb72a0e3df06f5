"""MoCo: queries from one encoder, keys from its slow copy, negatives from a queue of older keys."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.core.distributed import gather_batch
from sv_ssl.core.errors import InputError
from sv_ssl.losses.contrastive import InfoNCE, enqueue


class Momentum(nn.Module):
    """(2, B, samples), (B,) -> {"loss": (), "z": (2*B, P)}; call `after_step` after each optimiser step.

    momentum    weight of the old key encoder in theta_k <- m theta_k + (1 - m) theta_q: a number, or a function of the
                epoch (a schedule). Parameters only: the key encoder's BatchNorm statistics are its own.
    directions  2: each view is query once and key once, with a queue for each view's keys (as the released code of
                the paper does); 1: view 1 asks, view 2 answers (as the paper writes it).
    shuffle     queries and keys are encoded in this many groups, each with its own BatchNorm statistics, and the keys
                are permuted before: else a query and its key could be told by the batch that they share, which the
                queue does not, without listening. 1 switches it off.
    mask_labels queue entries with the query's own label are no negatives (an oracle where labels are speakers).
    """

    queue: Tensor
    queue_labels: Tensor

    def __init__(
        self,
        embedder: Any,
        loss: InfoNCE,
        queue_size: int = 32768,
        momentum: float | Callable[[float], float] = 0.999,
        directions: int = 2,
        shuffle: int = 4,
        head: nn.Module | None = None,
        head_dim: int | None = None,
        mask_labels: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        if directions not in (1, 2):
            raise InputError(f"directions is {directions!r}: MoCo knows 1 (view 1 asks view 2) and 2 (both ask)")
        if head is not None and head_dim is None:
            raise InputError("a head is given but not the width of what it puts out: give head_dim")
        self.embedder, self.loss, self.head = embedder, loss, head or nn.Identity()
        self.key = copy.deepcopy(nn.Sequential(self.embedder, self.head)).requires_grad_(False)
        self.momentum, self.directions, self.shuffle = momentum, directions, shuffle
        self.mask_labels, self.seed = mask_labels, seed
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(directions, queue_size, head_dim or embedder.dim, generator=generator)
        self.register_buffer("queue", F.normalize(start, dim=-1))
        # -1 is no utterance's label: the random vectors of the start are everybody's negatives.
        self.register_buffer("queue_labels", torch.full((queue_size,), -1))
        # Plain numbers, saved as extra state: reading a buffer back from a GPU every step would stall it.
        self.position, self.drawn = 0, 0
        self.fresh: list[tuple[Tensor, Tensor]] = []

    def get_extra_state(self) -> dict[str, int]:
        return {"position": self.position, "drawn": self.drawn}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.position, self.drawn = state["position"], state["drawn"]

    def reset_key(self) -> None:
        """Make the key encoder what the encoder is: weights were loaded into that."""
        self.key.load_state_dict(nn.Sequential(self.embedder, self.head).state_dict())

    def forward(self, views: Tensor, labels: Tensor, short: Tensor | None = None) -> dict[str, Tensor]:
        if len(views) != 2 or short is not None:
            came = f"{len(views)}" + " and short ones" * (short is not None)
            raise InputError(f"MoCo compares two views of an utterance, {came} came: pass --n_views 2 --n_short 0")
        # Direction d asks with view d; its answers, and its queue, are keys of the other view.
        z = self._queries(views[: self.directions])  # (directions, B, P)
        keys = self._keys(views[2 - self.directions :]).flip(0)  # (directions, B, P)
        masks = {"labels": labels, "queue_labels": self.queue_labels} if self.mask_labels else {}
        losses = [self.loss(*pair, queue, **masks) for *pair, queue in zip(z, keys, self.queue)]
        if self.training:
            self.fresh.append((keys, labels))
        shown = z.detach() if self.directions == 2 else torch.cat([z.detach(), keys])  # of both views
        return {"loss": torch.stack(losses).mean(), "z": shown.flatten(0, 1)}

    def _groups(self, batch: int) -> int:
        return max(1, min(self.shuffle, batch // 2))  # a group of one has no statistics

    def _queries(self, views: Tensor) -> Tensor:
        """(V, B, samples) -> (V, B, P): neighbours in the batch share BatchNorm statistics, all views together."""
        groups = views.tensor_split(self._groups(views.shape[1]), dim=1)
        return torch.cat([self.head(self.embedder(g.flatten(0, 1))).unflatten(0, g.shape[:2]) for g in groups], dim=1)

    @torch.no_grad()
    def _keys(self, views: Tensor) -> Tensor:
        """(V, B, samples) -> (V, B, P) unit rows: the groups are drawn anew, for each view by itself."""
        return torch.stack([F.normalize(self._shuffled(view).float(), dim=1) for view in views])

    def _shuffled(self, view: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.drawn)
        order = torch.randperm(len(view), generator=generator).to(view.device)
        self.drawn += 1
        keys = torch.cat([self.key(group) for group in view[order].tensor_split(self._groups(len(view)))])
        return keys[order.argsort()]

    @torch.no_grad()
    def after_step(self, epoch: float) -> None:
        """Move the key encoder towards the query encoder and put the step's keys, of all processes, into the queue."""
        m = self.momentum(epoch) if callable(self.momentum) else self.momentum
        old: list[Tensor] = list(self.key.parameters())
        new: list[Tensor] = [*self.embedder.parameters(), *self.head.parameters()]
        torch._foreach_lerp_(old, new, 1.0 - m)
        for keys, labels in self.fresh:
            keys = gather_batch(keys.transpose(0, 1)).transpose(0, 1)  # (directions, all B, P)
            for queue, key in zip(self.queue, keys):
                enqueue(queue, self.position, key)
            self.position = enqueue(self.queue_labels, self.position, gather_batch(labels))
        self.fresh.clear()

    def end_epoch(self) -> None:
        """Forget the keys of batches whose gradients, short of a whole accumulated batch, were dropped too."""
        self.fresh.clear()
