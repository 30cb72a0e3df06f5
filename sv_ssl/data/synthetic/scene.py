"""Make what speech is recorded in, from numpy alone: rooms, channels, backgrounds; and noises for augmentation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sv_ssl.data.synthetic.voice import RATE

_LENGTH = 8192  # samples of a recording's response
_LEAD = 128  # samples kept before its direct path, for what a channel of zero phase spreads forward


class Scene(NamedTuple):
    """What the recordings of one session have in common."""

    response: np.ndarray  # (_LENGTH,): from the mouth to the file, through room and channel
    background: np.ndarray  # (_LENGTH,): the filter that makes its noise of white noise
    unrest: float  # standard deviation of the level of the background over time, nepers
    snr_db: float
    level_db: float  # of the recording, RMS, below full scale
    mood: float  # of the speaker on that day, semitones of pitch


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a new room, microphone, background, distance and day.

    >>> 8 <= draw_scene(np.random.default_rng(0)).snr_db <= 25
    True
    """
    curve = channel(rng)
    reflections = np.pad(room(rng), (0, _LENGTH))[:_LENGTH]
    colour = curve * _bumps(rng, 4.0) * _slope(rng.uniform(0, 6))
    return Scene(
        response=np.roll(np.fft.irfft(np.fft.rfft(reflections) * curve), _LEAD),
        background=np.roll(np.fft.irfft(colour), _LEAD),
        unrest=0.4 * rng.random(),
        snr_db=rng.uniform(8, 25),
        level_db=rng.uniform(-31, -21),
        mood=0.8 * rng.standard_normal(),
    )


def record(wave: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Record a sound in this scene, within +-1, (T,) -> (T,).

    >>> rng = np.random.default_rng(0)
    >>> record(rng.standard_normal(RATE), draw_scene(rng), rng).shape
    (16000,)
    """
    speech = _filtered(wave, scene.response)
    unrest = np.exp(scene.unrest * _wander(rng, len(wave)))
    noise = _filtered(unrest * rng.standard_normal(len(wave)), scene.background)
    noise *= _rms(speech) / max(_rms(noise), 1e-12) * 10 ** (-scene.snr_db / 20)
    both = speech + noise
    return both * min(10 ** (scene.level_db / 20) / max(_rms(both), 1e-12), 0.99 / max(abs(both).max(), 1e-12))


def room(rng: np.random.Generator) -> np.ndarray:
    """Draw an impulse response, (T,): a direct path, early reflections, a tail that dies by 60 dB in 0.1 to 0.7 s.

    >>> int(room(np.random.default_rng(0)).argmax())
    0
    """
    seconds = rng.uniform(0.1, 0.7)
    time = np.arange(int(seconds * RATE)) / RATE
    decay = 10 ** (-3 * time / seconds)
    white = rng.standard_normal(len(time))
    tail = np.convolve(white, [0.25, 0.5, 0.25], "same") * decay + np.diff(white, prepend=0.0) * decay**2
    tail *= 10 ** (rng.uniform(-15, 2) / 20) / np.sqrt((tail**2).sum())  # reverberant to direct energy
    early = rng.integers(16, 16 * 40, size=8)  # 1 to 40 ms
    tail[early] += rng.choice([-1.0, 1.0], 8) * 0.4 * rng.random(8) * decay[early]
    tail[: rng.integers(8, 16)] = 0.0
    tail[0] = 1.0
    return tail


def channel(rng: np.random.Generator) -> np.ndarray:
    """Draw a microphone, (_LENGTH // 2 + 1,) amplitudes over 0 to RATE / 2: smooth bumps between two edges."""
    hertz = _hertz()
    low, high = rng.uniform(30, 150), rng.uniform(5500, 9000)
    edges = 1 / np.sqrt(1 + (low / np.maximum(hertz, 1)) ** 4) / np.sqrt(1 + (hertz / high) ** 8)
    return edges * _bumps(rng, 3.0) * _slope(rng.uniform(-1, 1))


def noise(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Draw wind, a machine, clatter or rain, of some colour, (T,)."""
    size = round(seconds * RATE)
    white, kind = rng.standard_normal(size), rng.integers(4)
    if kind == 0:
        wave = white * np.exp(rng.uniform(0.1, 1.0) * _wander(rng, size))
    elif kind == 1:
        wave = _hum(rng, size) + rng.uniform(0.1, 1) * white
    else:
        wave = _clicks(rng, size, per_second=rng.uniform(1, 8) if kind == 2 else rng.uniform(50, 500))
        wave += 0.3 * _rms(wave) * white
    return _filtered(wave, np.roll(np.fft.irfft(_bumps(rng, 6.0) * _slope(rng.uniform(0, 8))), _LEAD))


def _hum(rng: np.random.Generator, size: int) -> np.ndarray:
    base, time = rng.choice([50.0, 60.0, rng.uniform(80, 400)]), np.arange(size) / RATE
    heights = rng.random(12) / np.arange(1, 13)
    return sum(height * np.sin(2 * np.pi * (base * n * time + rng.random())) for n, height in enumerate(heights, 1))


def _clicks(rng: np.random.Generator, size: int, per_second: float) -> np.ndarray:
    """Draw short rings at random moments, (size,)."""
    hits = np.zeros(size)
    hits[rng.integers(size, size=1 + int(per_second * size / RATE))] = 1.0
    hits *= rng.exponential(size=size)
    time = np.arange(_LENGTH) / RATE
    ring = np.exp(-time / rng.uniform(0.002, 0.03)) * np.sin(2 * np.pi * rng.uniform(500, 6000) * time)
    return _filtered(hits, ring)


def music(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Draw broken chords of one instrument in one key, (T,)."""
    wave = np.zeros(round(seconds * RATE))
    beat = rng.uniform(0.12, 0.5)
    tonic, timbre, decay = rng.uniform(80, 250), rng.random(8) / np.arange(1, 9), rng.uniform(0.2, 1.5)
    scale = np.array([0, 4, 7, 12, 16, 19]) + rng.choice([0, 5, 7, 9], size=(64, 1)).repeat(4, axis=0)
    time = np.arange(RATE) / RATE
    for step in range(int(seconds / beat)):
        pitch = tonic * 2 ** (scale[step % len(scale)][rng.integers(6)] / 12)
        tones = sum(height * np.sin(2 * np.pi * pitch * n * time) for n, height in enumerate(timbre, 1))
        begin = int(step * beat * RATE)
        part = wave[begin : begin + RATE]
        part += (tones * np.exp(-time / decay) * (1 - time) * np.minimum(1, time / 0.01))[: len(part)]
    return wave


def _hertz() -> np.ndarray:
    return np.fft.rfftfreq(_LENGTH, 1 / RATE)


def _bumps(rng: np.random.Generator, deviation_db: float) -> np.ndarray:
    """Draw amplitudes that vary smoothly over the logarithm of frequency, (_LENGTH // 2 + 1,)."""
    octaves = np.log2(1 + _hertz() / 200)  # 0 to 5.4
    knots = deviation_db * rng.standard_normal(10)
    return 10 ** (np.interp(octaves, np.linspace(0, 5.4, 10), knots) / 20)


def _slope(db_per_octave: float) -> np.ndarray:
    """Return amplitudes that fall from 200 Hz on, (_LENGTH // 2 + 1,)."""
    return (1 + _hertz() / 200) ** (-db_per_octave / 6.02)


def _wander(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a curve of 4 knots a second, deviation 1, (size,)."""
    knots = np.arange(0, size + RATE // 2, RATE // 4)
    return np.interp(np.arange(size), knots, rng.standard_normal(len(knots)))


def _filtered(wave: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolve, and cut the lead away, (T,), (_LENGTH,) -> (T,)."""
    size = -(-(len(wave) + _LENGTH) // 4096) * 4096  # the FFT likes round numbers
    spectrum = np.fft.rfft(wave, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum, size)[_LEAD : _LEAD + len(wave)]


def _rms(wave: np.ndarray) -> float:
    return float(np.sqrt((wave**2).mean()))
