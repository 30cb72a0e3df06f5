"""An encoder at rest with a linear layer behind it, and the two as one encoder."""

import copy

import pytest
import torch

from sv_ssl.core.errors import InputError
from sv_ssl.models import folder
from sv_ssl.models.embedder import Embedder, FrameStatistics, named
from sv_ssl.models.features import LogMel
from sv_ssl.models.frozen import Frozen
from sv_ssl.models.resnet import WeSpeakerResNet34

ENCODERS = {name: lambda name=name: named(name, 40, "small", 16) for name in ("ECAPA", "FastResNet34", "ResNet34")}
ENCODERS["WeSpeakerResNet34"] = lambda: WeSpeakerResNet34(40, "small", 16)


def embedder(name):
    torch.manual_seed(0)
    return Embedder(LogMel(40), ENCODERS[name]())


def learnt(frozen, steps=3):
    """Take some steps on random waves, so that the layer is no identity any more."""
    optimizer = torch.optim.Adam([p for p in frozen.parameters() if p.requires_grad], 0.05)
    for seed in range(steps):
        waves = torch.randn(4, 8000, generator=torch.Generator().manual_seed(seed))
        frozen.train()(waves).square().sum().backward()
        optimizer.step()
    return frozen.eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_the_layer_goes_into_the_encoder(name, tmp_path):
    frozen = learnt(Frozen(embedder(name)))
    waves = 0.1 * torch.randn(3, 8000)
    wanted, before = frozen(waves), frozen.embedder(waves)
    assert (wanted - before).abs().max() > 0.01
    folded = frozen.folded()
    torch.testing.assert_close(folded(waves), wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(frozen.embedder(waves), before)  # which stays as it is
    folder.save(tmp_path / "model", folded, {"name": "frozen"})
    torch.testing.assert_close(folder.load(tmp_path / "model")(waves), wanted, atol=1e-4, rtol=1e-4)


def test_nothing_of_the_encoder_changes():
    frozen = Frozen(embedder("ECAPA"))
    before = copy.deepcopy(frozen.embedder.state_dict())
    waves = 0.1 * torch.randn(2, 8000)
    first = frozen.eval()(waves)
    torch.testing.assert_close(first, frozen.embedder(waves))  # the layer begins as 1
    learnt(frozen)
    assert all(torch.equal(value, before[name]) for name, value in frozen.embedder.state_dict().items())
    assert not torch.equal(frozen(waves), first)


def test_an_encoder_without_a_linear_end_is_refused():
    with pytest.raises(InputError, match="freeze_encoder True .* FrameStatistics's is not linear: take ECAPA"):
        Frozen(Embedder(LogMel(40), FrameStatistics(40)))
