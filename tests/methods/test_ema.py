"""The slow copy of a network."""

import pytest
import torch
from torch import nn

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
def test_buffers_are_copied_and_never_averaged(copies):
    fast = nn.BatchNorm1d(3)
    slow = slow_copy(fast)
    fast(torch.randn(8, 3) + 5)
    copy_weights(slow, fast) if copies else Ema(0.5).update(slow, fast, 0.0)
    assert torch.equal(slow.running_mean, fast.running_mean) == copies
    assert (slow.num_batches_tracked == fast.num_batches_tracked) == copies
