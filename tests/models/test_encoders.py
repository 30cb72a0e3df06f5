import pytest
import torch

from sv_ssl.core.errors import InputError
from sv_ssl.models import registry
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import Embedder, FrameStatistics
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34, ResNet34


def n_parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_those_published():
    assert n_parameters(FastResNet34(40)) == 1_437_078  # sslsv's, layer for layer
    assert n_parameters(ECAPA(80, 512)) == 6_194_048  # SpeechBrain's
    assert n_parameters(ECAPA(80, 1024)) == 20_767_552


@pytest.mark.parametrize(
    "encoder",
    [ECAPA(40, "small"), FastResNet34(40, "small"), ResNet34(40, "small"), FrameStatistics(40)],
    ids=lambda e: type(e).__name__,
)
def test_every_encoder(encoder):
    """Every exported class: the width it promises, rebuilt from its config, alone as among neighbours."""
    frames = torch.randn(3, 120, 40, generator=torch.Generator().manual_seed(0))
    encoder.eval()
    with torch.no_grad():
        together = encoder(frames)
        assert together.shape == (3, encoder.dim)
        alone = torch.cat([encoder(row[None]) for row in frames])
        assert torch.allclose(together, alone, atol=1e-5)
        again = type(encoder)(**encoder.config).eval()
        again.load_state_dict(encoder.state_dict())
        assert torch.equal(again(frames), together)


def test_those_are_all():
    """Of the package; those of the audio papers and of other toolkits have tests of their own."""
    others = {"AST", "BEATs", "Pretrained", "RawResNet18", "ResNet18", "WeSpeakerResNet34"}
    assert sorted(registry.ENCODERS.keys() - others) == ["ECAPA", "FastResNet34", "FrameStatistics", "ResNet34"]


@pytest.mark.parametrize(
    "encoder", [ECAPA(40, "small"), FastResNet34(40, "small"), ResNet34(40, "small")], ids=lambda e: type(e).__name__
)
def test_a_tenth_of_a_second_is_enough_and_gradients_are_finite(encoder):
    embedder = Embedder(LogMel(40), encoder)
    embedder.train()
    embedder(torch.zeros(2, 1600)).sum().backward()
    assert all(p.grad.isfinite().all() for p in embedder.parameters() if p.grad is not None)
    assert any(p.grad is not None for p in embedder.parameters())


def test_statistics_are_the_mean_and_the_deviation():
    frames = torch.tensor([[[1.0, 0.0], [3.0, 0.0]]])
    assert FrameStatistics(2)(frames).tolist() == [[2.0, 0.0, pytest.approx(2**0.5), 0.0]]


def test_wrong_sizes_are_named():
    with pytest.raises(InputError, match="ECAPA has no size 'c256': choose one of c1024, c512, small"):
        ECAPA(40, 256)
    with pytest.raises(InputError, match="encoder wants 80 mel bands but the features have 40"):
        Embedder(LogMel(40), FastResNet34(80, "small"))
