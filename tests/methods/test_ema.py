"""The slow copy of a network."""

import pytest
import torch
from torch import nn

from sv_ssl.core.errors import InputError
from sv_ssl.methods.ema import Ema, copy_weights, slow_copy


def test_a_slow_copy_moves_by_its_weight_or_by_a_schedule():
    fast = nn.Linear(2, 2)
    slow = slow_copy(fast)
    start = slow.weight.clone()
    with torch.no_grad():
        fast.weight += 1
    Ema(0.75).update(slow, fast, progress=0.0)
    torch.testing.assert_close(slow.weight, start + 0.25)
    Ema(lambda progress: 1.0 if progress < 2 else 0.0).update(slow, fast, progress=1.9)
    torch.testing.assert_close(slow.weight, start + 0.25)
    Ema(lambda progress: 1.0 if progress < 2 else 0.0).update(slow, fast, progress=2.0)
    assert torch.equal(slow.weight, fast.weight) and not slow.weight.requires_grad


@pytest.mark.parametrize("copies", [True, False])
def test_buffers_of_a_copy_of_weights_are_copied(copies):
    fast = nn.BatchNorm1d(3)
    slow = slow_copy(fast)
    fast(torch.randn(8, 3) + 5)
    copy_weights(slow, fast) if copies else Ema(0.5).update(slow, fast, 0.0)
    assert torch.equal(slow.running_mean, fast.running_mean) == copies
    assert (slow.num_batches_tracked == fast.num_batches_tracked) == copies


@pytest.mark.parametrize("buffers, share", [("own", 0.0), ("ema", 0.25), ("copy", 1.0)])
def test_buffers_of_each_kind(buffers, share):
    fast = nn.BatchNorm1d(3)
    slow = slow_copy(fast)
    fast(torch.randn(8, 3) + 5)
    Ema(0.75, buffers).update(slow, fast, 0.0)
    torch.testing.assert_close(slow.running_mean, share * fast.running_mean)
    assert slow.num_batches_tracked == (0 if buffers == "own" else 1)  # a count has no mean


@pytest.mark.parametrize(
    "weight, buffers, text", [(1.5, "own", "1 at most"), (-0.1, "own", "least 0"), (1, "old", "own")]
)
def test_what_is_refused(weight, buffers, text):
    with pytest.raises(InputError, match=text):
        Ema(weight, buffers)
