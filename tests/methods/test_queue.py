"""The queue of keys: the newest are kept, with their labels, and what waits is not lost by accident."""

import pytest
import torch

from sv_ssl.core.errors import InputError
from sv_ssl.methods.queue import Queue, enqueue


@pytest.mark.parametrize("size, position", [(1, 0), (3, 2), (4, 1), (7, 0)])
def test_the_queue_holds_the_latest_keys(size, position):
    """Like a list whose head moves on: for batches shorter, equal to and longer than the queue."""
    queue, expected, start = torch.full((size, 2), -1.0), [-1.0] * size, position
    keys = iter(range(1, 1000))
    for n in (1, 0, 2, 3, 4, 9, 5):
        batch = torch.tensor([float(next(keys)) for _ in range(n)])
        for value in batch.tolist():
            expected[start] = value
            start = (start + 1) % size
        position = enqueue(queue, position, batch[:, None].repeat(1, 2))
        assert position == start and queue[:, 0].tolist() == expected == queue[:, 1].tolist()


def test_labels_and_half_precision_keys_fit_a_queue():
    labels = torch.full((3,), -1)
    assert enqueue(labels, 2, torch.tensor([8, 9])) == 1 and labels.tolist() == [9, -1, 8]
    queue = torch.zeros(2, 2)
    enqueue(queue, 0, torch.ones(1, 2, dtype=torch.bfloat16, requires_grad=True))
    assert queue.tolist() == [[1, 1], [0, 0]] and not queue.requires_grad


def test_lanes_start_with_random_rows_that_belong_to_nobody():
    queue, other = Queue(5, 3, lanes=2), Queue(5, 3, lanes=2, seed=1)
    assert queue.rows.shape == (2, 5, 3) and queue.labels.tolist() == [-1] * 5
    torch.testing.assert_close(queue.rows.norm(dim=2), torch.ones(2, 5))
    assert not torch.equal(queue.rows[0], queue.rows[1]) and not torch.equal(queue.rows, other.rows)
    assert torch.equal(queue.rows, Queue(5, 3, lanes=2).rows)


@pytest.mark.parametrize("size", [0, -1, 2.5, "8"])
def test_a_queue_has_a_size(size):
    with pytest.raises(InputError, match="the size of the queue is .*: wanted a whole number of at least 1"):
        Queue(size, 2)


def test_keys_wait_until_they_are_pushed():
    queue, keys = Queue(3, 2), torch.eye(2)[None]
    before = queue.rows.clone()
    queue.wait(keys, torch.tensor([4, 5]))
    queue.wait(-keys, torch.tensor([6, 7]))
    assert torch.equal(queue.rows, before)
    queue.push()
    assert queue.position == 1 and queue.labels.tolist() == [7, 5, 6] and not queue.waiting
    assert torch.equal(queue.rows[0], torch.tensor([[-0.0, -1], [0, 1], [-1, -0.0]]))
    resumed = Queue(3, 2, seed=9)
    resumed.load_state_dict(queue.state_dict())
    assert resumed.position == 1 and torch.equal(resumed.rows, queue.rows)
