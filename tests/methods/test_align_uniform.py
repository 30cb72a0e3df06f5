"""The loss is the two terms of the paper, by hand, and training on them brings views together."""

import math

import pytest
import torch
from small_batches import Linear, batch, facts

from sv_ssl.core.errors import InputError
from sv_ssl.losses import geometry
from sv_ssl.methods.align_uniform import AlignUniform


def test_the_loss_is_the_papers():
    torch.manual_seed(0)
    method, given = AlignUniform(Linear(), weight=0.5), batch()
    method.prepare(facts())
    step = method(given)
    views = [method.embedder(view).double() for view in given.views]
    together = geometry.alignment(torch.cat(views), given.rows.repeat(2))
    apart = sum(geometry.uniformity(view) for view in views) / 2
    assert math.isclose(step.loss.item(), together + 0.5 * apart, abs_tol=1e-5)
    assert math.isclose(step.log["uniformity_loss"].item(), apart, abs_tol=1e-5)
    assert step.z.shape == (8, 8) and step.labels.tolist() == [0, 1, 2, 3] * 2


def test_it_learns():
    torch.manual_seed(0)
    method, given = AlignUniform(Linear()), batch()
    optimizer = torch.optim.Adam(method.parameter_groups(), 1e-2)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        losses.append(method(given).loss)
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("values", [{"weight": -1.0}, {"t": 0.0}])
def test_sizes_that_cannot_be(values):
    with pytest.raises(InputError, match="want a weight of 0 or more and t above 0"):
        AlignUniform(Linear(), **values)


def test_three_views_are_refused():
    with pytest.raises(InputError, match="alignment compares 2 views, 3 came"):
        AlignUniform(Linear())(batch(3))
