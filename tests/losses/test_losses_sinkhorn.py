"""Sinkhorn-Knopp: rows and columns, what changes nothing, and scores of any size."""

import pytest
import torch

from sv_ssl.core.errors import InputError
from sv_ssl.losses.sinkhorn import sinkhorn


def scores(n=6, k=4, dtype=torch.float32):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def test_columns_share_the_rows_after_many_iterations():
    q = sinkhorn(scores(dtype=torch.float64), epsilon=1.0, iterations=200)
    torch.testing.assert_close(q.sum(0), torch.full((4,), 1.5, dtype=torch.float64))
    torch.testing.assert_close(q.sum(1), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("shift", [7.0, -7.0, 1e4])
def test_a_constant_over_all_scores_changes_nothing(shift):
    moved = sinkhorn(scores(dtype=torch.float64) + shift, epsilon=0.25)
    torch.testing.assert_close(moved, sinkhorn(scores(dtype=torch.float64), epsilon=0.25), atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("n, k", [(1, 1), (3, 1), (3, 9), (1, 4)])
def test_any_scores_give_rows_that_sum_to_1(dtype, size, n, k):
    q = sinkhorn((scores(n, k) * size).to(dtype), epsilon=0.005)
    assert q.dtype == torch.float32 and not q.requires_grad
    torch.testing.assert_close(q.sum(1), torch.ones(n))


def test_probabilities_of_0_stay_finite():
    q = sinkhorn(torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), form="probs")
    torch.testing.assert_close(q.sum(1), torch.ones(2))


def test_the_input_is_left_alone():
    given = scores()
    sinkhorn(given, form="logits"), sinkhorn(given.softmax(1), form="probs")
    assert torch.equal(given, scores())


def test_what_it_refuses():
    with pytest.raises(InputError, match="form is 'logit': choose logits or probs"):
        sinkhorn(scores(), form="logit")
    with pytest.raises(InputError, match="epsilon"):
        sinkhorn(scores(), epsilon=0.0)
    with pytest.raises(InputError, match="iterations"):
        sinkhorn(scores(), iterations=0)
