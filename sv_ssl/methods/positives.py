"""SSPS: positives sampled from other recordings that are near, in place of the other view of the same recording."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sv_ssl.core.distributed import rank, world_size
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.core.seeds import torch_stream
from sv_ssl.data.batch import Batch
from sv_ssl.methods.base import Facts
from sv_ssl.methods.clusters import Clusters
from sv_ssl.methods.kmeans import neighbours
from sv_ssl.methods.queue import Queue

CODEBOOKS = ("kmeans", "online")


class Positives(nn.Module):
    """Replace the positive of a row by one that was computed of another recording of a near cluster.

    Lepage and Dehak, Interspeech 2025: a reference embedding of each training row, made of its clean crop, is kept in a
    bank; the bank is clustered after each epoch from `start` on; a positive is drawn from a queue of earlier ones, of
    a cluster beside the row's own. The replaced rows are constants, and never the row's own utterance.

    clusters    K: more than the speakers and fewer than the recordings, so that a cluster is larger than a recording
                and smaller than a speaker. N / sqrt(utterances per recording * utterances per speaker) is a start.
    near        a positive is of one of so many clusters nearest to the row's own, that one excluded; 0: of its own
    start       epochs of ordinary training before, and at least one, in which the bank is filled
    queue_size  positives that can be drawn; default: 2 K, so that 86 % of even clusters have an entry
    skip_empty  draw among the clusters that have an entry
    codebook    "kmeans" once an epoch, or "online": centroids that move with each step
    """

    def __init__(
        self,
        clusters: int,
        near: int = 1,
        start: int = 0,
        queue_size: int | None = None,
        skip_empty: bool = False,
        codebook: str = "kmeans",
        momentum: float = 0.9,
        seed: int = 0,
    ):
        super().__init__()
        check_number("near of the positives", near, at_least=0, whole=True)
        check_number("start of the positives", start, at_least=0, whole=True)
        if codebook not in CODEBOOKS:
            raise InputError(f"codebook is {codebook!r}: choose {' or '.join(CODEBOOKS)}")
        self.clusters = Clusters([clusters], online=momentum if codebook == "online" else None, seed=seed)
        if near >= clusters:
            raise InputError(f"near is {near}, of {clusters} clusters: wanted fewer than those beside the row's own")
        self.near = near
        self.start = start
        self.queue_size = 2 * clusters if queue_size is None else queue_size
        self.skip_empty = skip_empty
        self.seed = seed
        self.epoch = 1
        self.drawn = 0  # steps: the number of the random stream, kept over a resume
        self.known: dict[str, Tensor] = {}

    def get_extra_state(self) -> int:
        return self.drawn

    def set_extra_state(self, state: int) -> None:
        self.drawn = state

    def prepare(self, facts: Facts, reference_dim: int, dim: int, lanes: int = 1) -> None:
        """Make room for references (N, reference_dim) and a queue of positives (lanes, queue_size, dim)."""
        self.clusters.prepare(facts, reference_dim)
        self.queue = Queue(self.queue_size, dim, lanes, self.seed)
        self.known = {name: torch.from_numpy(labels) for name, labels in self.clusters.known.items()}

    @property
    def active(self) -> bool:
        """Return whether positives are replaced in this epoch."""
        return self.epoch > max(self.start, 1)

    @torch.no_grad()
    def look(self, embedder: nn.Module, batch: Batch) -> None:
        """Take the references of a batch: embeddings of its clean crops, by an embedder at rest."""
        if self.epoch < self.start:
            return  # they would be forgotten before they are used
        assert batch.clean is not None  # the engine saw to it: `Needs.clean` is 1
        was_training = embedder.training
        embedder.eval()
        self.clusters.wait(batch.rows, embedder(batch.clean[0]))
        embedder.train(was_training)

    def replace(self, positives: Tensor, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Replace positives (L, B, D) of training rows (B,); return them, and figures for the log.

        The given ones enter the queue after the step: what is sampled never does.
        """
        if self.training:
            self.queue.wait(positives.detach(), rows)
        if not self.active:
            return positives, {}
        draws = torch.rand(world_size() * len(rows), 2, dtype=torch.float64, generator=self._generator())
        places = self.sample(rows, draws[rank() :: world_size()].to(rows.device))
        found = places >= 0
        sampled = self.queue.rows[:, places.clamp(min=0)].to(positives.dtype)
        return torch.where(found[:, None], sampled, positives), self._figures(rows, places, found)

    def _generator(self) -> torch.Generator:
        generator = torch_stream(self.seed, "positives", self.drawn)
        self.drawn += 1
        return generator

    def sample(self, rows: Tensor, draws: Tensor) -> Tensor:
        """Return the place in the queue of a positive for each row, -1 where there is none: (B,), (B, 2) -> (B,).

        The first number of a row, from [0, 1), picks the cluster, the second the place among those of the cluster.
        """
        own = self.clusters.of(rows)[0]  # (B,)
        near = neighbours(self.clusters.centroids(), self.near, own.clamp(min=0))  # (B, M)
        entries = self.clusters.of(self.queue.labels)[0]  # (Q,): clusters of the queue's rows
        others = self.queue.labels != rows[:, None]  # (B, Q)
        if self.skip_empty:
            sizes = torch.stack([((entries == k[:, None]) & others).sum(dim=1) for k in near.unbind(1)], dim=1)
            filled = sizes > 0  # (B, M)
            wanted = (draws[:, 0] * filled.sum(dim=1)).long() + 1
            picked = (filled.cumsum(dim=1) == wanted[:, None]).long().argmax(dim=1)
        else:
            picked = (draws[:, 0] * near.shape[1]).long()
        cluster = near.gather(1, picked[:, None])  # (B, 1)
        legal = (entries == cluster) & others  # (B, Q)
        sizes = legal.sum(dim=1)
        wanted = (draws[:, 1] * sizes).long() + 1
        places = (legal.cumsum(dim=1) == wanted[:, None]).long().argmax(dim=1)
        return torch.where((sizes > 0) & (own >= 0), places, -1)

    def _figures(self, rows: Tensor, places: Tensor, found: Tensor) -> dict[str, Tensor]:
        """Return the share of rows with a sampled positive, how many steps old those are, and what share is alike."""
        n_found = found.sum().clamp(min=1)
        steps = (self.queue.position - 1 - places) % self.queue_size // (world_size() * len(rows)) + 1
        figures = {"coverage": found.float().mean(), "age": (steps * found).sum() / n_found}
        sampled = self.queue.labels[places.clamp(min=0)]
        for name, labels in self.known.items():
            self.known[name] = of_row = labels.to(rows.device)
            equal = (of_row[rows] == of_row[sampled]) & (of_row[rows] >= 0)
            figures[f"same_{name}"] = (equal & found).sum() / n_found
        return figures

    def push(self) -> None:
        """Write what waits to the queue and to the bank."""
        self.queue.push()
        self.clusters.push(self.epoch)

    def start_epoch(self, epoch: int) -> None:
        """Know which epoch it is; they count from 1."""
        self.epoch = epoch

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Cluster the bank for the next epoch, and return figures of the clusters."""
        self.queue.drop_waiting()
        self.clusters.drop_waiting()
        return self.clusters.refresh(epoch) if epoch >= self.start else {}
