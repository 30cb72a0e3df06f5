import math

import numpy as np
import pytest
import torch

from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream
from sv_ssl.embeddings import extraction
from sv_ssl.models import folder
from sv_ssl.models.embedder import Embedder, FrameStatistics
from sv_ssl.models.features import LogMel, SpecAugment


def test_one_band_by_the_definition():
    """A frame in the middle, computed by hand: Hamming window, FFT, power, triangle in mels, logarithm."""
    wave = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    got = LogMel(40, sentence_mean=False)(wave[None])[0, 12]
    begin = 12 * 160 - 256  # frames are centred on multiples of the hop
    n = np.arange(400)
    window = np.zeros(512)
    window[56:456] = 0.54 - 0.46 * np.cos(2 * math.pi * n / 400)
    power = np.abs(np.fft.rfft(wave.numpy()[begin : begin + 512] * window)) ** 2
    mel = lambda hz: 2595 * np.log10(1 + hz / 700)  # noqa: E731
    edges = 700 * (10 ** (np.linspace(mel(20), mel(8000), 42) / 2595) - 1)
    low, mid, high = edges[20:23]
    hz = np.arange(257) * 16000 / 512
    triangle = np.clip(np.minimum((hz - low) / (mid - low), (high - hz) / (high - mid)), 0, None)
    assert got[20].item() == pytest.approx(math.log(triangle @ power + 1e-6), abs=1e-3)


def test_sentence_mean_is_zero_and_removes_a_gain():
    wave = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    frames = LogMel(40)(wave)
    assert frames.mean(dim=1).abs().max() < 1e-4
    assert torch.allclose(frames, LogMel(40)(3 * wave), atol=1e-2)  # up to the floor under the logarithm


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


# ---------------------------------------------------------------------------------------------------- SpecAugment
def frames_of(n_rows=1000, n_frames=50, n_mels=20):
    return torch.randn(n_rows, n_frames, n_mels, generator=torch.Generator().manual_seed(1))


def masked(augment, frames, seed=0):
    """(B, frames, n_mels) bool: the cells that were changed; all to the mean of their band."""
    before = frames.clone()
    drawn = augment.draw(stream(seed, "masks"), len(frames))
    after = augment.mask(frames, {key: torch.from_numpy(value) for key, value in drawn.items()})
    assert torch.equal(frames, before)
    changed = after != frames
    torch.testing.assert_close(after[changed], frames.mean(dim=1, keepdim=True).expand_as(frames)[changed])
    return changed


@pytest.mark.parametrize("n_time, n_mel, prob", [(1, 0, 1.0), (0, 1, 1.0), (2, 2, 1.0), (2, 2, 0.4), (0, 0, 1.0)])
def test_as_much_is_masked_as_asked_for(n_time, n_mel, prob):
    """With all widths from 0 to the widest as likely, and all places where they fit."""
    changed = masked(SpecAugment(n_time, 10, n_mel, 4, prob), frames_of())
    free = 1.0
    for count, widest, length in ((n_time, 10, 50), (n_mel, 4, 20)):
        hit = torch.zeros(length)
        for width in range(widest + 1):
            for begin in range(length - width + 1):
                hit[begin : begin + width] += 1 / (widest + 1) / (length - width + 1)
        free = free * (1 - hit)[:, None] ** count if length == 50 else free * (1 - hit)[None] ** count
    expected = prob * (1 - free) * torch.ones(50, 20)
    torch.testing.assert_close(changed.float().mean(dim=0), expected, atol=0.07, rtol=0)
    assert changed.float().mean().item() == pytest.approx(expected.mean().item(), abs=0.015)
    assert changed.flatten(1).any(dim=1).float().mean() <= prob + 0.05


def test_stripes_are_whole_and_no_wider_than_asked_for():
    whole = masked(SpecAugment(n_time=1, max_frames=10, n_mel=0), frames_of())
    times = whole.any(dim=2)
    assert torch.equal(whole, times[:, :, None].expand_as(whole))
    edges = times.float().diff(dim=1, prepend=torch.zeros(1000, 1), append=torch.zeros(1000, 1)).abs().sum(dim=1)
    assert set(edges.tolist()) == {0, 2} and set(times.sum(dim=1).tolist()) == set(range(11))
    assert times[:, 0].any() and times[:, -1].any()
    assert masked(SpecAugment(1, 99, 0), frames_of(n_frames=7)).any(dim=2).sum(dim=1).max() == 7


def test_rows_differ_and_a_seed_repeats():
    changed = masked(SpecAugment(), frames_of(50, 200, 40))
    assert len({tuple(row.flatten().tolist()) for row in changed}) == 50
    assert torch.equal(changed, masked(SpecAugment(), frames_of(50, 200, 40)))
    assert not torch.equal(changed, masked(SpecAugment(), frames_of(50, 200, 40), seed=1))
    made = [SpecAugment(seed=seed)(frames_of(5, 200, 40)) for seed in (3, 3, 4)]
    assert torch.equal(*made[:2]) and not torch.equal(*made[1:])
    augment = SpecAugment(seed=3)
    assert torch.equal(augment(frames_of(5, 200, 40)), made[0])
    assert not torch.equal(augment(frames_of(5, 200, 40)), made[0])  # the next batch


def test_it_acts_in_training_alone_and_stays_out_of_the_model_folder(tmp_path):
    wave = torch.randn(3, 16000, generator=torch.Generator().manual_seed(0))
    plain, embedder = (
        Embedder(LogMel(20, spec_augment=augment), FrameStatistics(20)) for augment in (None, SpecAugment())
    )
    state = torch.get_rng_state()
    assert torch.equal(plain(wave), embedder.eval()(wave)) and torch.equal(torch.get_rng_state(), state)
    training = embedder.train().features(wave)
    assert not torch.equal(training, plain.features(wave)) and training.abs().min(dim=2).values.max() > 0
    assert (training.abs() < 1e-5).float().mean() > 0.05  # zeros, up to the rounding of the mean
    assert embedder.features.config == plain.features.config and [*embedder.state_dict()] == [
        "features.spec_augment._extra_state"
    ]
    loaded = folder.load(folder.save(tmp_path / "model", embedder, {}))
    folder.fill(embedder, tmp_path / "model")
    assert embedder.features.spec_augment.drawn == 1 and extraction.digest(embedder) == extraction.digest(plain)
    assert loaded.features.spec_augment is None and torch.equal(loaded(wave), plain(wave))
    assert "spec_augment" not in (tmp_path / "model" / "hyperparams.yaml").read_text()


def test_it_is_built_from_yaml():
    from hyperpyyaml import load_hyperpyyaml

    given, plain = (
        load_hyperpyyaml(
            "features: !new:sv_ssl.models.features.LogMel\n  n_mels: 40\n  spec_augment: "
            f"!new:sv_ssl.models.features.SpecAugment{rest}"
        )["features"]
        for rest in ("\n    max_mels: 3", "")
    )
    assert given.spec_augment.max_mels == 3 and plain.spec_augment.max_mels == 5
    wave = torch.randn(1, 16000)
    assert not torch.equal(plain(wave), plain.eval()(wave))


@pytest.mark.parametrize("wrong", [{"n_time": -1}, {"max_mels": -2}, {"prob": 1.5}])
def test_impossible_masks_say_what_to_do(wrong):
    with pytest.raises(InputError, match=f"got .*{[*wrong][0]} {[*wrong.values()][0]}"):
        SpecAugment(**wrong)
