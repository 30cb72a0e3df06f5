import numpy as np
import pytest
import torch

from sv_ssl.embeddings.pyannote import SpeakerEmbedding
from sv_ssl.models import folder
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34


@pytest.fixture(scope="module")
def embedder():
    torch.manual_seed(0)
    return Embedder(LogMel(40), FastResNet34(40, "small", dim=24)).eval()


@pytest.fixture(scope="module")
def waves():
    return 0.1 * torch.randn(3, 1, 16000, generator=torch.Generator().manual_seed(0))


def test_what_a_pipeline_asks_of_it(embedder, tmp_path):
    ours = SpeakerEmbedding(folder.save(tmp_path / "m", embedder, {}))
    assert (ours.sample_rate, ours.dimension, ours.metric) == (16000, 24, "cosine")
    assert 0 < ours.min_num_samples <= 16000
    assert ours.to(torch.device("cpu")) is ours


def test_each_row_is_that_of_the_wave_alone(embedder, waves):
    rows = SpeakerEmbedding(embedder)(waves)
    assert rows.shape == (3, 24)
    with torch.no_grad():
        alone = torch.cat([embedder(wave) for wave in waves]).numpy()
    assert np.array_equal(rows, alone)


def test_a_mask_chooses_samples(embedder, waves):
    masks = torch.zeros(3, 100)
    masks[0], masks[1, 20:60], masks[2, 10:30], masks[2, 70:] = 1, 1, 1, 1
    rows = SpeakerEmbedding(embedder)(waves, masks=masks)
    pieces = [waves[0], waves[1][:, 3200:9600], torch.cat([waves[2][:, 1600:4800], waves[2][:, 11200:]], 1)]
    with torch.no_grad():
        assert np.allclose(rows, torch.cat([embedder(piece) for piece in pieces]).numpy(), atol=1e-6)


def test_too_little_speech_is_a_row_of_nan(embedder, waves):
    masks = torch.ones(3, 100)
    masks[1] = 0
    rows = SpeakerEmbedding(embedder)(waves, masks)
    assert np.isnan(rows).all(1).tolist() == [False, True, False] and np.isfinite(rows[[0, 2]]).all()


def test_the_shortest_wave_is_the_shortest_that_the_encoder_takes():
    ours = SpeakerEmbedding(Embedder(LogMel(40), ECAPA(40, "small")))
    least = ours.min_num_samples
    assert np.isfinite(ours(torch.randn(1, 1, least))).all()
    with pytest.raises(RuntimeError), torch.no_grad():
        ours.embedder(torch.randn(1, least - 160))


@pytest.mark.parametrize(
    "shape, masks, reason",
    [
        ((2, 16000), None, "wanted"),
        ((2, 2, 16000), None, "wanted"),
        ((2, 1, 16000), (3, 10), "3 masks for 2 waveforms"),
    ],
)
def test_other_shapes_are_refused(embedder, shape, masks, reason):
    with pytest.raises(ValueError, match=reason):
        SpeakerEmbedding(embedder)(torch.zeros(shape), masks and torch.ones(masks))
