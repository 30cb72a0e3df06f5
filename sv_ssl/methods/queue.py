"""A queue of keys: the negatives of methods that compare with more rows than a batch holds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sv_ssl.core.distributed import gather_batch
from sv_ssl.core.errors import check_number
from sv_ssl.core.seeds import torch_stream


class Queue(nn.Module):
    """Keep the newest keys of all processes: `rows` (L, K, D), in L lanes, and their `labels` (K,).

    Keys wait from the forward pass until `push`, since a queue may not change before the backward pass. The queue
    starts with random unit vectors, labelled -1: no recording has that label, so they are negatives of every query.
    """

    rows: Tensor
    labels: Tensor

    def __init__(self, size: int, dim: int, lanes: int = 1, seed: int = 0):
        super().__init__()
        check_number("the size of the queue", size, at_least=1, whole=True)
        start = torch.randn(lanes, size, dim, generator=torch_stream(seed, "queue"))
        self.register_buffer("rows", F.normalize(start, dim=-1))
        self.register_buffer("labels", torch.full((size,), -1))
        # A plain number, saved as extra state: reading a buffer back from a GPU every step would stall it.
        self.position = 0
        self.waiting: list[tuple[Tensor, Tensor]] = []

    def get_extra_state(self) -> int:
        return self.position

    def set_extra_state(self, state: int) -> None:
        self.position = state

    def wait(self, keys: Tensor, labels: Tensor) -> None:
        """Take keys (L, N, D) and their labels (N,), to be written by the next `push`."""
        self.waiting.append((keys, labels))

    @torch.no_grad()
    def push(self) -> None:
        """Write the waiting keys of all processes over the oldest ones."""
        for keys, labels in self.waiting:
            keys = gather_batch(keys.transpose(0, 1)).transpose(0, 1)  # (L, all N, D)
            for lane, new in zip(self.rows, keys):
                enqueue(lane, self.position, new)
            self.position = enqueue(self.labels, self.position, gather_batch(labels))
        self.waiting.clear()

    def drop_waiting(self) -> None:
        """Forget the waiting keys."""
        self.waiting.clear()


@torch.no_grad()
def enqueue(queue: Tensor, position: int, keys: Tensor) -> int:
    """Write keys over the oldest entries, in place, and return the next position: (K, ...), (N, ...), any N and K.

    >>> queue = torch.zeros(4)
    >>> enqueue(queue, 3, torch.tensor([1.0, 2.0])), queue
    (1, tensor([2., 0., 0., 1.]))
    """
    size, n = len(queue), len(keys)
    kept = keys[-size:]
    places = torch.arange(n - len(kept), n, device=queue.device)
    queue[(position + places) % size] = kept.to(queue.dtype)
    return (position + n) % size
