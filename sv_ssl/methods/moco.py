"""MoCo: queries from one encoder, keys from its slow copy, negatives from a queue of older keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import torch_stream
from sv_ssl.data.batch import Batch
from sv_ssl.losses.rows import Loss, set_progress
from sv_ssl.methods.base import Facts, Method, Needs, Step
from sv_ssl.methods.classes import Classes
from sv_ssl.methods.clusters import Clusters
from sv_ssl.methods.ema import Ema, copy_weights, slow_copy
from sv_ssl.methods.positives import Positives
from sv_ssl.methods.prototype_term import PrototypeTerm
from sv_ssl.methods.queue import Queue
from sv_ssl.models.features import seed_masks


class MoCo(Method):
    """Compare queries with keys of a slow encoder and with a queue: loss(q, k, queue). Step.z is (2 * B, P).

    https://arxiv.org/abs/1911.05722; hparams/moco.yaml, and moco_am.yaml with a margin.

    loss         `InfoNCE`, or another one called with queries, keys and a queue, which says so by `takes_queue`.
    ema          weight of the old key encoder in theta_k <- ema theta_k + (1 - ema) theta_q: a number, or a function
                 of the epochs done (a schedule). Parameters only: the key encoder's BatchNorm statistics are its own.
    directions   2: each view is query once and key once, with a queue for the keys of each view, as in the paper's
                 code; 1: view 1 gives the queries and view 2 the keys, as the paper writes it.
    shuffle      queries and keys are encoded in so many groups, each with BatchNorm statistics of its own, and the keys
                 are permuted before. Otherwise a query could be matched to its key by the statistics that the two share
                 and the queue does not. 1 switches it off.
    head_dim     width of what `head` puts out.
    mask_labels  queue entries with the query's own label are no negatives.
    clusters     queue entries of the query's own cluster are no negatives, as in C3-DINO's first stage: moco_c3.yaml. The
                 clusters are those of the keys of the epoch before.
    prototypes   a query is to find its cluster's centroid too: protonce.yaml
    positives    another recording's keys in place of the row's own: SSPS
    labels       "utterance": labels are the rows of the training manifest; "speaker": their classes. With mask_labels
                 the latter removes all wrong negatives, which only somebody who knows the speakers can do.
    """

    def __init__(
        self,
        embedder: Any,
        loss: Loss,
        queue_size: int = 32768,
        ema: float | Callable[[float], float] = 0.999,
        directions: int = 2,
        shuffle: int = 4,
        head: nn.Module | None = None,
        head_dim: int | None = None,
        mask_labels: bool = False,
        seed: int = 0,
        labels: str = "utterance",
        clusters: Clusters | None = None,
        prototypes: PrototypeTerm | None = None,
        positives: Positives | None = None,
    ):
        super().__init__()
        if directions not in (1, 2):
            raise InputError(f"directions is {directions!r}: MoCo knows 1 (view 1 asks view 2) and 2 (both ask)")
        if head is not None and head_dim is None:
            raise InputError("a head is given but not the width of what it puts out: give head_dim")
        if not getattr(loss, "takes_queue", False):
            raise InputError(f"MoCo needs a loss that takes a queue, such as InfoNCE, not {type(loss).__name__}")
        if labels not in ("utterance", "speaker"):
            raise InputError(f"labels is {labels!r}: choose utterance or speaker")
        self.embedder = embedder
        self.loss = loss
        self.head = head or nn.Identity()
        self.key = slow_copy(self._query_encoder())
        self.ema = Ema(ema)
        self.directions = directions
        self.shuffle = shuffle
        self.mask_labels = mask_labels
        self.seed = seed
        self.by_class = labels == "speaker"
        self.classes = Classes()
        if clusters is not None and mask_labels:
            raise InputError("mask_labels and clusters both choose whom the queue leaves out: leave one of them out")
        self.clusters = clusters
        self.prototypes = prototypes
        self.positives = positives
        self.needs = Needs(views=2, labels="all" if self.by_class else "none", clean=1 if positives is not None else 0)
        self.width = head_dim or embedder.dim
        self.queue = Queue(queue_size, self.width, lanes=directions, seed=seed)
        self.epoch = 1
        self.shuffled = 0  # views: the number of the random stream, kept over a resume

    def get_extra_state(self) -> int:
        return self.shuffled

    def set_extra_state(self, state: int) -> None:
        self.shuffled = state

    def prepare(self, facts: Facts) -> None:
        seed_masks(self, facts.seed)
        if self.by_class:
            self.classes.prepare(facts, all_known=True)
        for part in (self.clusters, self.prototypes):
            if part is not None:
                part.prepare(facts, self.width)
        if self.positives is not None:
            self.positives.prepare(facts, self.embedder.dim, self.width, lanes=self.directions)

    def on_epoch_start(self, epoch: int) -> None:
        self.epoch = epoch
        if self.positives is not None:
            self.positives.start_epoch(epoch)

    def weights_loaded(self) -> None:
        copy_weights(self.key, self._query_encoder())

    def on_step_start(self, progress: float) -> None:
        set_progress(self.loss, progress)

    def forward(self, batch: Batch) -> Step:
        views = batch.views
        if len(views) != 2 or batch.short is not None:
            came = f"{len(views)} and short ones" if batch.short is not None else f"{len(views)}"
            raise InputError(f"MoCo compares two views of an utterance, {came} came: pass --n_views 2 --n_short 0")
        labels = self.classes(batch) if self.by_class else batch.rows
        # Direction d has queries of view d; their keys, and those of its queue, are of the other view.
        z = self._queries(views[: self.directions])  # (directions, B, P)
        keys = self._keys(views[2 - self.directions :]).flip(0)  # (directions, B, P)
        positive, figures = keys, {}
        if self.positives is not None:
            self.positives.look(self.embedder, batch)
            positive, figures = self.positives.replace(keys, batch.rows)
        masks = self._masks(batch.rows, labels)
        losses = [self.loss(*pair, queue, **masks) for *pair, queue in zip(z, positive, self.queue.rows)]
        loss = torch.stack(losses).mean()
        if self.prototypes is not None:
            term = self.prototypes(z.flatten(0, 1), batch.rows.repeat(self.directions))
            figures["prototype_loss"] = term.detach()
            loss = loss + term
        if self.training:
            self._wait(keys, labels, batch.rows)
        watched = z.detach() if self.directions == 2 else torch.cat([z.detach(), keys])  # of both views
        return Step(loss, watched.flatten(0, 1), labels.repeat(2), figures)

    def _masks(self, rows: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the labels of the batch and of the queue by which entries are no negatives."""
        if self.clusters is not None:
            own = self.clusters.of(rows)[0]
            unknown = torch.where(own < 0, -2, own)  # and so like no entry, whose cluster is -1 where unknown
            return {"labels": unknown, "queue_labels": self.clusters.of(self.queue.labels)[0]}
        return {"labels": labels, "queue_labels": self.queue.labels} if self.mask_labels else {}

    def _wait(self, keys: Tensor, labels: Tensor, rows: Tensor) -> None:
        self.queue.wait(keys, labels)
        for part in (self.clusters, self.prototypes):
            if part is not None:
                part.wait(rows, keys[0])

    def on_step_end(self, progress: float) -> None:
        """Move the key encoder, and write the step's keys, of all processes, to the queue and to the banks."""
        self.ema.update(self.key, self._query_encoder(), progress)
        self.queue.push()
        for part in (self.clusters, self.prototypes):
            if part is not None:
                part.push(self.epoch)
        if self.positives is not None:
            self.positives.push()

    def on_epoch_end(self, epoch: int) -> dict[str, float]:
        """Forget the keys of an accumulated batch that the epoch's end cut short: its gradients are dropped too."""
        self.queue.drop_waiting()
        figures: dict[str, float] = {}
        for part in (self.clusters, self.prototypes):
            if part is not None:
                part.drop_waiting()
                figures |= part.refresh(epoch)
        return figures | (self.positives.end_epoch(epoch) if self.positives is not None else {})

    def _query_encoder(self) -> nn.Module:
        return nn.Sequential(self.embedder, self.head)

    def _groups(self, batch: int) -> int:
        return max(1, min(self.shuffle, batch // 2))  # a group of one has no statistics

    def _queries(self, views: Tensor) -> Tensor:
        """Encode queries, (V, B, samples) -> (V, B, P): all views of a group share BatchNorm statistics."""
        groups = views.tensor_split(self._groups(views.shape[1]), dim=1)
        return torch.cat([self.head(self.embedder(g.flatten(0, 1))).unflatten(0, g.shape[:2]) for g in groups], dim=1)

    @torch.no_grad()
    def _keys(self, views: Tensor) -> Tensor:
        """Encode keys, (V, B, samples) -> (V, B, P) unit rows: groups are drawn anew, for each view by itself."""
        return torch.stack([F.normalize(self._shuffled(view).float(), dim=1) for view in views])

    def _shuffled(self, view: Tensor) -> Tensor:
        generator = torch_stream(self.seed, "key shuffle", self.shuffled)
        order = torch.randperm(len(view), generator=generator).to(view.device)
        self.shuffled += 1
        keys = torch.cat([self.key(group) for group in view[order].tensor_split(self._groups(len(view)))])
        return keys[order.argsort()]
