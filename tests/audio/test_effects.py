"""CLAR's augmentations: what each does to a tone, to noise and to silence; and that rows are drawn alone."""

import math

import numpy as np
import pytest
import scipy.signal
import torch

from sv_ssl.audio.effects import SAFE, Fade, Pitch, Stretch, coloured, fade, mask, named, shift
from sv_ssl.audio.noise import add_noise
from sv_ssl.audio.transform import Pipeline
from sv_ssl.audio.vocoder import pitch, stretch
from sv_ssl.core.errors import InputError

RATE = 16000
ALL = ("fade", "mask", "stretch", "pitch", "shift", "white", "mixed")


def tone(hertz, seconds=2.0, rows=1):
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE).repeat(rows, 1)


def speechlike(rows=4, n_samples=8000, seed=0):
    return 0.1 * torch.randn(rows, n_samples, generator=torch.Generator().manual_seed(seed))


def hertz(wave, begin=4000, end=12000):
    """The strongest frequency away from the ends, refined below a bin by zero padding."""
    piece = wave[begin:end].double().numpy() * scipy.signal.get_window("hann", end - begin)
    return np.abs(np.fft.rfft(piece, 1 << 18)).argmax() * RATE / (1 << 18)


def draw(names=ALL, wave=None, seed=0, **ranges):
    """Draw for each row with a generator of its own, as the loader's workers do, and apply to all."""
    wave = speechlike() if wave is None else wave
    pipeline = Pipeline(named(names, **{"prob": 1.0, **ranges}))
    drawn = [pipeline.draw(np.random.default_rng((seed, row)), wave.shape[1]) for row in range(len(wave))]
    return pipeline.apply(wave, stacked(drawn))


def stacked(drawn):
    return {name: torch.from_numpy(np.stack([one[name] for one in drawn])) for name in drawn[0]}


# ---------------------------------------------------------------------------------------------------------- each alone
@pytest.mark.parametrize("shape", [0, 1, 2])
def test_a_fade_begins_and_ends_at_zero_and_leaves_the_middle(shape):
    wave = torch.ones(2, 1000)
    faded = fade(wave, torch.tensor([300, 1]), torch.tensor([200, 500]), torch.tensor([shape, shape]))
    assert (faded[:, [0, -1]] == 0).all()
    assert torch.equal(faded[0, 300:800], wave[0, 300:800]) and torch.equal(faded[1, 1:500], wave[1, 1:500])
    assert (faded[0, :301].diff() > 0).all() and (faded[0, 799:].diff() < 0).all()


def test_fades_bend_below_and_above_the_straight_one():
    linear, exponential, logarithmic = (
        fade(torch.ones(1, 400), torch.tensor([200]), torch.tensor([1]), torch.tensor([shape]))[0, 100]
        for shape in range(3)
    )
    assert linear == 0.5 and exponential < 0.3 and logarithmic > 0.7


def test_a_fade_is_at_most_half_on_each_side():
    wave = draw(("fade",), torch.ones(200, 101))
    assert (wave[:, [0, -1]] == 0).all() and (wave[:, 50] == 1).all()
    assert (wave[:, 1] == 1).any() and (wave[:, 48] < 1).any()


def test_a_mask_is_at_most_an_eighth_anywhere_silent_or_noise():
    wave = draw(("mask",), torch.ones(400, 804))
    changed = wave != 1
    length = changed.sum(1)
    assert length.min() >= 1 and length.max() <= 100 and length.float().std() > 20
    assert ((changed.diff(dim=1) != 0).sum(1) <= 2).all()  # one piece
    assert changed[:, :20].any() and changed[:, -20:].any()
    silent = torch.tensor([not row[at].any() for row, at in zip(wave, changed)])
    assert 0.4 < silent.float().mean() < 0.6
    assert wave[~silent][changed[~silent]].std() == pytest.approx(0.01, rel=0.05)


def test_mask_by_hand():
    filled = mask(torch.arange(6.0)[None], torch.tensor([4]), torch.tensor([9]), -torch.ones(1, 6))
    assert filled.tolist() == [[0, 1, 2, 3, -1, -1]]


def test_a_shift_is_a_permutation_of_up_to_half_either_way():
    wave = torch.arange(100.0).repeat(300, 1)
    shifted = draw(("shift",), wave)
    assert torch.equal(shifted.sort(dim=1).values, wave)
    samples = (-shifted[:, 0]) % 100
    assert (((shifted.diff(dim=1) % 100) == 1).all()) and samples.min() < 3 and samples.max() > 97
    assert torch.equal(shift(wave[:1], torch.tensor([-30])), wave[:1].roll(-30, dims=1))


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 12.3, 30.0])
@pytest.mark.parametrize("slope", [0, 1, 2])
def test_noise_has_the_snr_that_was_asked_for(snr_db, slope):
    wave = speechlike() * torch.tensor([1.0, 10.0, 1e-4, 0.3])[:, None]
    noise = coloured(torch.randn(4, 8000), torch.full((4,), slope))
    added = (add_noise(wave, noise, torch.full((4,), snr_db)) - wave).double()
    found = 10 * torch.log10(wave.double().square().mean(1) / added.square().mean(1))
    assert (found - snr_db).abs().max() < 0.1
    assert torch.allclose(torch.cosine_similarity(added, noise.double()), torch.ones(4).double(), atol=1e-4)


def test_drawn_snrs_fill_their_range():
    wave = speechlike(200, 2000)
    for name in ("white", "mixed"):
        added = draw((name,), wave, snr_db=(3, 13)) - wave
        found = 10 * torch.log10(wave.square().mean(1) / added.square().mean(1))
        assert 2.9 < found.min() < 3.5 and 12.5 < found.max() < 13.1


@pytest.mark.parametrize("slope", [0, 1, 2])
def test_colours(slope):
    """The slope of Welch's spectrum on doubly logarithmic axes."""
    noise = coloured(torch.randn(8, 1 << 15), torch.full((8,), slope)).numpy()
    f, power = scipy.signal.welch(noise, nperseg=2048)
    band = (f > 0.01) & (f < 0.3)
    assert np.polyfit(np.log(f[band]), np.log(power.mean(0)[band]), 1)[0] == pytest.approx(-slope, abs=0.1)
    assert np.abs(noise.mean(1)).max() < 1e-6


def test_mixed_noise_is_white_pink_or_brown():
    wave = speechlike(300, 2000)
    added = draw(("mixed",), wave, snr_db=(0, 0)) - wave
    neighbours = (added[:, 1:] * added[:, :-1]).mean(1) / added.square().mean(1)  # 0 white, about 0.8 pink, 1 brown
    counts = torch.histc(neighbours, bins=3, min=-0.3, max=1.2)
    white, pink, brown = (
        (neighbours < 0.3).sum(),
        ((neighbours > 0.3) & (neighbours < 0.95)).sum(),
        (neighbours > 0.95).sum(),
    )
    assert counts.sum() == 300 and min(white, pink, brown) > 70


@pytest.mark.parametrize("rate", [0.5, 0.8, 1.3, 1.5])
def test_a_stretched_tone_keeps_its_pitch_and_level(rate):
    wave = tone(440)
    stretched = stretch(wave, torch.tensor([rate]))
    assert hertz(stretched[0]) == pytest.approx(440, abs=0.5)
    assert stretched[0, 4000:12000].std() == pytest.approx(wave[0, 4000:12000].std().item(), rel=0.03)


def test_a_stretch_changes_the_tempo():
    """Bursts every 0.2 s come every 0.2 / rate s."""
    place = torch.arange(2 * RATE)
    wave = torch.where(place % 3200 < 1600, tone(600)[0], torch.tensor(0.0))[None]
    stretched = stretch(wave.repeat(2, 1), torch.tensor([0.5, 1.25]))
    for row, rate in zip(stretched, (0.5, 1.25)):
        envelope = row.abs().unfold(0, 160, 160).mean(1).double().numpy()[:150]
        beat = np.abs(np.fft.rfft(envelope - envelope.mean(), 1 << 14))
        assert beat[10:].argmax() + 10 == pytest.approx(5 * rate * (1 << 14) / 100, rel=0.03)


def test_past_the_end_of_a_faster_one_is_silence():
    faster = stretch(tone(440), torch.tensor([1.25]))[0]
    end = int(2 * RATE / 1.25)
    assert faster[end - 2000 : end - 1000].std() > 0.3 and faster[end + 1100 :].abs().max() < 1e-4


@pytest.mark.parametrize(
    "semitones, expected",
    [(12, 880.0), (-12, 220.0), (0, 440.0), (15, 440 * 2**1.25), (-15, 440 * 2**-1.25), (0.5, 440 * 2 ** (1 / 24))],
)
def test_a_shifted_pitch(semitones, expected):
    wave = tone(440)
    shifted = pitch(wave, torch.tensor([float(semitones)]))
    assert hertz(shifted[0]) == pytest.approx(expected, abs=1)
    assert shifted.shape == wave.shape
    assert shifted[0, 4000:28000].std() == pytest.approx(wave.std().item(), rel=0.05)
    assert shifted[0, -3000:-1000].std() > 0.2  # to the very end


def test_what_would_alias_is_removed():
    """7 kHz an octave up is 14 kHz, which would come back as 2 kHz."""
    assert pitch(tone(7000), torch.tensor([12.0]))[0, 2000:-2000].abs().max() < 0.01


def test_no_change_changes_nothing():
    wave = tone(440)
    for same in (stretch(wave, torch.ones(1)), pitch(wave, torch.zeros(1))):
        torch.testing.assert_close(same[:, 1000:-1000], wave[:, 1000:-1000], atol=0.01, rtol=0)


# --------------------------------------------------------------------------------------------------------- all of them
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_length_dtype_and_input_are_kept(name, dtype):
    wave = speechlike().to(dtype)
    before = wave.clone()
    changed = draw((name,), wave)
    assert changed.shape == wave.shape and changed.dtype == dtype and changed.isfinite().all()
    assert torch.equal(wave, before) and not torch.equal(changed, wave)


@pytest.mark.parametrize("name", [*ALL, None])
def test_a_row_depends_on_its_place_and_the_seed_alone(name):
    names = ALL if name is None else (name,)
    wave = speechlike(6)
    together = draw(names, wave, seed=5, prob=0.6)
    others = torch.cat([wave[:3], 100 * torch.randn(2, 8000)])
    torch.testing.assert_close(draw(names, others, seed=5, prob=0.6)[:3], together[:3], atol=1e-5, rtol=0)
    assert torch.equal(draw(names, wave, seed=5, prob=0.6), together)
    assert not torch.equal(draw(names, wave, seed=6, prob=0.6), together)
    assert not torch.equal(draw(names, wave[:1].repeat(2, 1), seed=5)[0], draw(names, wave[:1].repeat(2, 1), seed=5)[1])


def test_probability_is_that_of_each_row():
    wave = torch.ones(600, 64)
    changed = (draw(("fade",), wave, prob=0.3) != 1).any(1).float().mean()
    assert 0.24 < changed < 0.36
    assert torch.equal(draw(ALL, wave, prob=0.0), wave)


def test_what_makes_another_speaker_is_off_unless_named():
    assert set(ALL) - set(SAFE) == {"stretch", "pitch"} and len(named()) == len(SAFE)
    assert not any(isinstance(transform, (Stretch, Pitch)) for transform in named())


@pytest.mark.parametrize("n_samples", [1, 7, 100])
def test_silence_and_short_waves_stay_finite(n_samples):
    for seed in range(5):
        assert draw(ALL, torch.zeros(3, n_samples), seed=seed).isfinite().all()
    assert not draw(("fade", "shift", "white", "mixed"), torch.zeros(3, n_samples)).any()


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match='no augmentation is called "echo": choose from fade, mask, stretch, pitch'):
        named(("fade", "echo"))


def test_the_ranges_are_the_papers():
    made = dict(zip(ALL, named(ALL[::-1])))
    assert all(transform.prob == 0.5 for transform in made.values())
    assert list(made["stretch"].rate) == [0.5, 1.5] and made["pitch"].semitones == 15
    assert list(made["white"].snr_db) == list(made["mixed"].snr_db) == [0, 20]
    types = ["Fade", "Mask", "Stretch", "Pitch", "Shift", "WhiteNoise", "ColouredNoise"]
    assert [type(transform).__name__ for transform in made.values()] == types


def test_what_is_drawn_fills_the_ranges():
    rng = np.random.default_rng(0)
    faded, stretched, shifted = (
        stacked([transform.draw(rng, 1000) for _ in range(600)]) for transform in (Fade(), Stretch(), Pitch())
    )
    shape, rate, semitones = faded["shape"], stretched["rate"], shifted["semitones"]
    assert sorted(shape.unique().tolist()) == [0, 1, 2] and shape.bincount().min() > 150
    for length in (faded["fade_in"], faded["fade_out"]):
        assert 1 <= length.min() < 20 and 480 < length.max() <= 500
    assert 0.5 <= rate.min() < 0.52 and 1.48 < rate.max() <= 1.5
    assert -15 <= semitones.min() < -14.5 and 14.5 < semitones.max() <= 15
    assert all(0.44 < drawn["chosen"].float().mean() < 0.56 for drawn in (faded, stretched, shifted))


@pytest.mark.parametrize("name", ALL)
def test_what_travels_is_short(name):
    """Noise is made from a drawn number where it is applied: no array as long as the crop leaves a worker."""
    [transform] = named([name])
    drawn = transform.draw(np.random.default_rng(0), 32000)
    assert all(value.shape == () for value in drawn.values())


@pytest.mark.parametrize("semitones", [-12.0, -1.0, 3.0])
def test_a_pitch_does_not_depend_on_the_neighbours(semitones):
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(8000) / 16000)[None]
    alone = pitch(tone, torch.tensor([semitones]))
    beside = pitch(tone.repeat(3, 1), torch.tensor([semitones, 15.0, -15.0]))[:1]
    assert torch.allclose(alone, beside, atol=1e-4)
