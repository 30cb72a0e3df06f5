"""The voice has the pitch and the formants it is asked for."""

import numpy as np
import pytest

from sv_ssl.data.synthetic.voice import HOP, N_FFT, RATE, antiresonance, draw_speaker, pulses, speak, windows


def pitch_of(wave):
    """Hz: median over the louder half of 50 ms frames of the highest peak of the autocorrelation, 60 to 450 Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 800)[::400] * np.hanning(800)
    frames = frames[np.argsort(frames.var(axis=1))[len(frames) // 2 :]]
    power = abs(np.fft.rfft(frames, 2048)) ** 2 * (np.fft.rfftfreq(2048, 1 / RATE) < 1000)
    shortest = RATE // 450
    return RATE / np.median(np.fft.irfft(power)[:, shortest : RATE // 60].argmax(axis=1) + shortest)


def plain_speaker(rng, **changes):
    return draw_speaker(rng, high=False)._replace(jitter=0.0, shimmer=0.0, pitch_range=0.0, breath=0.0, **changes)


@pytest.mark.parametrize("hertz", [90.0, 155.0, 310.0])
def test_pulses_have_the_pitch_that_is_asked_for(hertz):
    wave = pulses(np.full(126, hertz), np.ones(126), np.random.default_rng(0), jitter=0.0, shimmer=0.0)
    assert pitch_of(wave) == pytest.approx(hertz, rel=0.02)
    assert wave.sum() == pytest.approx(hertz, abs=1.5)  # one second from the first to the last middle of a frame


def test_pulses_are_as_loud_as_the_track_says():
    wave = pulses(np.full(250, 200.0), np.repeat([1.0, 3.0], 125), np.random.default_rng(0), jitter=0.0, shimmer=0.0)
    quiet, loud = wave[2000:14000].std(), wave[18000:30000].std()
    assert loud / quiet == pytest.approx(3, rel=0.02)


def test_jitter_moves_pulses_and_shimmer_changes_their_height():
    tracks = np.full(500, 100.0), np.ones(500), np.random.default_rng(0)
    waves = [pulses(*tracks, jitter, shimmer) for jitter, shimmer in ((0, 0), (0.02, 0), (0, 0.2))]
    first = waves[0][:400].argmax()
    blocks = [wave[first - 80 : first + 350 * 160 - 80].reshape(-1, 160) for wave in waves]  # a pulse in each middle
    places = [block.argmax(axis=1).std() for block in blocks]
    heights = [block.sum(axis=1).std() for block in blocks]
    assert places[0] < 1 and places[1] == pytest.approx(3.2, rel=0.2) and places[2] < 1  # 0.02 of 160 samples
    assert heights[0] < 0.02 and heights[1] < 0.02 and heights[2] == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("hertz", [110.0, 230.0])
def test_speech_has_the_pitch_of_the_speaker(hertz):
    rng = np.random.default_rng(1)
    speaker = plain_speaker(rng, pitch=hertz)
    assert pitch_of(speak(speaker, rng, 6.0)) == pytest.approx(hertz, rel=0.04)
    assert pitch_of(speak(speaker, rng, 6.0, pitch_shift=6)) == pytest.approx(hertz * 2**0.5, rel=0.04)


@pytest.mark.parametrize("hertz, width", [(300.0, 60.0), (1500.0, 90.0), (5000.0, 200.0)])
def test_a_formant_is_where_it_is_asked_for_and_as_wide(hertz, width):
    response = abs(1 / antiresonance([(np.array([hertz]), width)])[0])
    bins = np.fft.rfftfreq(N_FFT, 1 / RATE)
    assert bins[response.argmax()] == pytest.approx(hertz, abs=RATE / N_FFT)
    assert response[0] == pytest.approx(1)
    radius = np.exp(-np.pi * width / RATE)  # of a pair of poles in the plane of z
    pole, z = radius * np.exp(2j * np.pi * hertz / RATE), np.exp(2j * np.pi * bins / RATE)
    want = abs(1 / ((z - pole) * (z - pole.conj())))
    np.testing.assert_allclose(response, want / want[0], rtol=1e-9)


def test_a_vowel_has_its_formants_in_the_wave():
    """Long-term spectrum of one vowel, held: its two highest ranges are round F1 and F2."""
    source = pulses(np.full(500, 100.0), np.ones(500), np.random.default_rng(0), jitter=0.01, shimmer=0.0)
    formants = [(np.full(500, hertz), 80.0) for hertz in (700.0, 1900.0)]
    frames = np.fft.irfft(np.fft.rfft(windows(source), N_FFT) / antiresonance(formants), N_FFT)
    power = (abs(np.fft.rfft(frames, 16 * N_FFT)) ** 2).mean(axis=0)
    bins = np.fft.rfftfreq(16 * N_FFT, 1 / RATE)
    below, above = bins < 1200, bins >= 1200
    assert bins[below][power[below].argmax()] == pytest.approx(700, abs=60)
    assert bins[above][power[above].argmax()] == pytest.approx(1900, abs=60)


def test_windows_add_up_to_the_wave():
    wave = np.random.default_rng(0).standard_normal(21 * HOP)
    whole = np.zeros_like(wave)
    for i, frame in enumerate(windows(wave)):
        whole[i * HOP : i * HOP + len(frame)] += frame
    np.testing.assert_allclose(whole[HOP:-HOP], wave[HOP:-HOP], atol=1e-12)


@pytest.mark.parametrize("seconds", [0.2, 1.0, 3.33])
def test_speech_is_finite_and_as_long_as_asked_and_never_constant(seconds):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        wave = speak(draw_speaker(rng, high=seed % 2 == 0), rng, seconds)
        assert wave.shape == (round(seconds * RATE),) and wave.dtype == np.float64
        assert np.isfinite(wave).all() and 1e-4 < wave.std() < 1


def test_the_generator_decides_everything():
    one, same, other = (np.random.default_rng(seed) for seed in (3, 3, 4))
    waves = [speak(draw_speaker(rng, high=True), rng, 0.5) for rng in (one, same, other)]
    np.testing.assert_array_equal(waves[0], waves[1])
    assert not np.allclose(waves[0], waves[2])


def test_the_two_groups_differ_and_overlap():
    rng = np.random.default_rng(0)
    low, high = ([draw_speaker(rng, group) for _ in range(200)] for group in (False, True))
    for cue in (lambda speaker: speaker.pitch, lambda speaker: speaker.upper.mean()):
        assert np.median([cue(s) for s in high]) > 1.1 * np.median([cue(s) for s in low])
        assert min(cue(s) for s in high) < max(cue(s) for s in low)
