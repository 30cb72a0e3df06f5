"""Rooms, channels and backgrounds do to a sound what their figures say."""

import numpy as np
import pytest

from sv_ssl.data.synthetic.scene import channel, draw_scene, music, noise, record, room
from sv_ssl.data.synthetic.voice import RATE


def test_a_recording_has_the_level_of_its_scene_and_never_clips():
    wave = np.random.default_rng(0).standard_normal(RATE)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scene = draw_scene(rng)
        recorded = record(wave, scene, rng)
        assert np.sqrt((recorded**2).mean()) == pytest.approx(10 ** (scene.level_db / 20))
        assert abs(record(wave, scene._replace(level_db=20.0), rng)).max() == pytest.approx(0.99)


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_the_noise_is_as_strong_as_the_scene_says(snr_db):
    scene = draw_scene(np.random.default_rng(0))
    wave = np.random.default_rng(1).standard_normal(8 * RATE)
    clean, noisy = (record(wave, scene._replace(snr_db=snr), np.random.default_rng(2)) for snr in (200.0, snr_db))
    share = noisy @ clean / (clean @ clean)
    left = noisy - share * clean
    assert 10 * np.log10(share**2 * (clean @ clean) / (left @ left)) == pytest.approx(snr_db, abs=0.3)


def test_a_recording_is_not_late():
    click = np.zeros(RATE)
    click[5000] = 1.0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        recorded = record(click, draw_scene(rng)._replace(snr_db=60.0), rng)
        assert abs(abs(recorded).argmax() - 5000) < 16  # a millisecond


def test_silence_stays_finite():
    rng = np.random.default_rng(0)
    assert np.isfinite(record(np.zeros(4000), draw_scene(rng), rng)).all()


def test_rooms_begin_with_the_direct_path_and_die_away():
    lengths = []
    for seed in range(30):
        wave = room(np.random.default_rng(seed))
        tenth = len(wave) // 10
        assert abs(wave).argmax() == 0 and wave[0] == 1
        assert (wave[-tenth:] ** 2).sum() < 1e-3 * (wave[:tenth] ** 2).sum()
        lengths.append(len(wave) / RATE)
    assert 0.1 <= min(lengths) < 0.25 and 0.5 < max(lengths) <= 0.7


def test_channels_differ_by_decibels_and_stay_bounded():
    curves = np.array([20 * np.log10(channel(np.random.default_rng(seed))) for seed in range(30)])
    middle = curves[:, 200:2500]  # 200 Hz to 5 kHz
    assert 1 < middle.std(axis=0).mean() < 6 and abs(middle).max() < 30


@pytest.mark.parametrize("make", [noise, music])
def test_noises_are_as_long_as_asked_and_differ(make):
    waves = [make(np.random.default_rng(seed), 1.5) for seed in range(12)]
    assert all(wave.shape == (24000,) and np.isfinite(wave).all() and wave.std() > 0 for wave in waves)
    alike = np.corrcoef(waves) - np.eye(len(waves))
    assert abs(alike).max() < 0.5
