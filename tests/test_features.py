import math

import numpy as np
import pytest
import torch

from sv_ssl.features import LogMel


def test_one_band_by_the_definition():
    """A frame in the middle, computed by hand: Hamming window, FFT, power, triangle in mels, logarithm."""
    wave = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    got = LogMel(40, sentence_mean=False)(wave[None])[0, 12]
    begin = 12 * 160 - 256                                       # frames are centred on multiples of the hop
    n = np.arange(400)
    window = np.zeros(512)
    window[56:456] = 0.54 - 0.46 * np.cos(2 * math.pi * n / 400)
    power = np.abs(np.fft.rfft(wave.numpy()[begin:begin + 512] * window)) ** 2
    mel = lambda hz: 2595 * np.log10(1 + hz / 700)               # noqa: E731
    edges = 700 * (10 ** (np.linspace(mel(20), mel(8000), 42) / 2595) - 1)
    low, mid, high = edges[20:23]
    hz = np.arange(257) * 16000 / 512
    triangle = np.clip(np.minimum((hz - low) / (mid - low), (high - hz) / (high - mid)), 0, None)
    assert got[20].item() == pytest.approx(math.log(triangle @ power + 1e-6), abs=1e-3)


def test_sentence_mean_is_zero_and_removes_a_gain():
    wave = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    frames = LogMel(40)(wave)
    assert frames.mean(dim=1).abs().max() < 1e-4
    assert torch.allclose(frames, LogMel(40)(3 * wave), atol=1e-2)      # up to the floor under the logarithm


def test_silence_is_finite_and_precision_is_kept_under_autocast():
    assert LogMel(80)(torch.zeros(1, 8000)).isfinite().all()
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames = LogMel(80)(wave)
    assert frames.dtype == torch.float32
    assert torch.equal(frames, LogMel(80)(wave))


@pytest.mark.parametrize("n_mels", [40, 80])
def test_every_band_hears_something(n_mels):
    assert (LogMel(n_mels).mel.sum(dim=0) > 0).all()
