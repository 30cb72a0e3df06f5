"""A bank with an embedding of each training row, and their clusters: by k-means once an epoch, or online."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.core.distributed import gather_batch
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.core.seeds import torch_stream
from sv_ssl.losses.geometry import unit
from sv_ssl.methods.base import Facts
from sv_ssl.methods.kmeans import draw_starts, follow, quality, spherical_kmeans


class Clusters(nn.Module):
    """Know the cluster of each training row, in P clusterings: `of(rows)` (B,) -> (P, B), -1 where unknown.

    Embeddings wait from the forward pass until `push`, which writes those of all processes. `refresh`, at the end of an
    epoch, clusters the rows that were written in that epoch; all others are unknown, however well they were known.
    Everything is part of a checkpoint, so that a resumed run goes on with the same clusters.

    counts      clusters of each clustering
    iterations  of k-means, which starts from rows drawn by `seed`
    start       epochs before the first clustering
    online      in place of k-means: after each step the centroids move to its rows, by this weight of the old ones
    """

    bank: Tensor
    written: Tensor
    assignments: Tensor

    def __init__(
        self,
        counts: Sequence[int],
        iterations: int = 10,
        online: float | None = None,
        seed: int = 0,
        start: int = 0,
    ):
        super().__init__()
        check_number("start of the clusters", start, at_least=0, whole=True)
        if not counts:
            raise InputError("counts is empty: name the number of clusters, such as [1000]")
        for count in counts:
            check_number("the number of clusters", count, at_least=2, whole=True)
        if online is not None:
            check_number("online, the weight of the old centroids,", online, at_least=0, at_most=1)
        self.counts = list(counts)
        self.iterations = iterations
        self.online = online
        self.seed = seed
        self.start = start
        self.waiting: list[tuple[Tensor, Tensor]] = []
        self.known: dict[str, np.ndarray] = {}

    def prepare(self, facts: Facts, dim: int) -> None:
        """Make room for an embedding of each row."""
        if facts.n_rows < max(self.counts):
            raise InputError(
                f"{max(self.counts):,} clusters cannot be made of {facts.n_rows:,} training utterances: "
                "name fewer clusters"
            )
        device = next((buffer.device for buffer in self.buffers()), None)
        self.register_buffer("bank", torch.zeros(facts.n_rows, dim, dtype=torch.float16, device=device))
        self.register_buffer("written", torch.zeros(facts.n_rows, dtype=torch.int32, device=device))  # in which epoch
        unknown = torch.full((len(self.counts), facts.n_rows), -1, device=device)
        self.register_buffer("assignments", unknown)
        for place, count in enumerate(self.counts):
            start = F.normalize(torch.randn(count, dim, generator=torch_stream(self.seed, "codebook", place)), dim=1)
            self.register_buffer(f"centroids_{place}", start.to(device or "cpu"))
        named = {"speaker": facts.speakers, "recording": facts.recordings}
        self.known = {name: labels for name, labels in named.items() if labels is not None}

    def centroids(self, place: int = 0) -> Tensor:
        """Return the centroids of a clustering, (K, D) unit rows."""
        return getattr(self, f"centroids_{place}")

    def of(self, rows: Tensor) -> Tensor:
        """Return the clusters of training rows, -1 where unknown: (B,) -> (P, B)."""
        return torch.where(rows >= 0, self.assignments[:, rows.clamp(min=0)], -1)

    # ---------------------------------------------------------------------------------------------------- what is kept
    def wait(self, rows: Tensor, embeddings: Tensor) -> None:
        """Take embeddings (B, D) of training rows (B,), to be written by the next `push`."""
        self.waiting.append((rows, unit(embeddings.detach())))

    @torch.no_grad()
    def push(self, epoch: int) -> None:
        """Write the waiting embeddings of all processes, and let online centroids follow them."""
        for rows, embeddings in self.waiting:
            rows, embeddings = gather_batch(rows), gather_batch(embeddings)
            self.bank[rows] = embeddings.to(self.bank.dtype)
            self.written[rows] = epoch
            if self.online is not None:
                for place in range(len(self.counts)):
                    clusters, centroids = follow(self.centroids(place), embeddings, self.online)
                    self.centroids(place).copy_(centroids)
                    self.assignments[place, rows] = clusters
        self.waiting.clear()

    def drop_waiting(self) -> None:
        """Forget the waiting embeddings."""
        self.waiting.clear()

    # --------------------------------------------------------------------------------------------------- once an epoch
    @torch.no_grad()
    def refresh(self, epoch: int) -> dict[str, float]:
        """Cluster what was written in this epoch; return its share of all rows, and how well it fits what is known.

        Of fewer rows than clusters nothing is made, and all are unknown: old clusters are of another network.
        """
        if epoch < self.start:
            return {}
        fresh = torch.nonzero(self.written == epoch)[:, 0]
        if len(fresh) < max(self.counts):
            self.assignments.fill_(-1)
            return {"clustered": 0.0}
        if self.online is None:
            self._kmeans(fresh, epoch)
        else:
            self._reseed(fresh, epoch)
        return self._figures(fresh)

    def _kmeans(self, fresh: Tensor, epoch: int) -> None:
        rows = unit(self.bank[fresh])
        self.assignments.fill_(-1)
        for place, count in enumerate(self.counts):
            starts = draw_starts(len(rows), count, self.seed, epoch, place).to(rows.device)
            clusters, centroids = spherical_kmeans(rows, starts, self.iterations)
            self.assignments[place, fresh] = clusters
            self.centroids(place).copy_(centroids)

    def _reseed(self, fresh: Tensor, epoch: int) -> None:
        """Move online centroids that got no row in this epoch to rows of the bank."""
        self.assignments[:, self.written != epoch] = -1
        for place, count in enumerate(self.counts):
            sizes = torch.bincount(self.assignments[place, fresh], minlength=count)
            empty = torch.nonzero(sizes == 0)[:, 0]
            chosen = draw_starts(len(fresh), count, self.seed, epoch, place)[: len(empty)].to(fresh.device)
            self.centroids(place)[empty] = unit(self.bank[fresh[chosen]])

    def _figures(self, fresh: Tensor) -> dict[str, float]:
        clusters = self.assignments[0, fresh].cpu().numpy()
        figures = {"clustered": len(fresh) / len(self.written)}
        for name, labels in self.known.items():
            of_row = labels[fresh.cpu().numpy()]
            if (of_row >= 0).any():
                measured = quality(of_row[of_row >= 0], clusters[of_row >= 0])
                figures |= {f"{name}_purity": measured["purity"], f"{name}_nmi": measured["nmi"]}
        return figures
