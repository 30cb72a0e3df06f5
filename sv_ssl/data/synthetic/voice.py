"""Make speech-like sound from numpy alone: pulses and noise through a vocal tract that moves from phone to phone.

Who speaks is heard in several cues at once, none of which decides alone, since their ranges overlap between
speakers: mean pitch and its range, length of the vocal tract, tilt and breathiness of the source, rate, sluggishness
of the formants, and habits: every speaker has a personal copy of the table of phones.
Everything is float64, so that the last bit of the 16-bit samples is the same on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sv_ssl.data.synthetic.phones import (
    BREATH,
    FORMANTS,
    HABITS,
    HISS,
    NASAL,
    PIECES,
    POLES,
    ROWS,
    SECONDS,
    VOICE,
    draw_syllable,
)

RATE = 16000
HOP, WINDOW, N_FFT = 128, 256, 768  # steps of 8 ms; N_FFT - WINDOW leaves a formant 32 ms to ring out
_COSINE, _SINE = (wave(2 * np.pi / N_FFT * np.arange(N_FFT // 2 + 1)) for wave in (np.cos, np.sin))


class Speaker(NamedTuple):
    """What is constant in a voice."""

    phones: np.ndarray  # (rows, 10): the table of phones as this speaker says them
    pitch: float  # median, Hz
    pitch_range: float  # standard deviation, semitones
    upper: np.ndarray  # (4,): F4 to F7, Hz
    widths: np.ndarray  # (7,): bandwidths of F1 to F7, Hz
    antiresonance: float  # of the side cavities of the larynx, Hz
    nose: np.ndarray  # (2,): resonance and antiresonance of the nose, Hz
    nasality: float  # 0 to 1: how much of the nose is heard in every voiced sound
    corner: float  # Hz, above which the source falls faster: low in soft voices
    opening: float  # resonance of the glottal flow over the pitch: strength of the first harmonic
    breath: float  # noise over pulses
    jitter: float  # of a period
    shimmer: float  # of an amplitude
    rate: float  # 1 = the durations of the table
    glide: float  # seconds that a formant takes to move


def draw_speaker(rng: np.random.Generator, high: bool) -> Speaker:
    """Draw a new voice, of one of two groups with overlapping ranges, as those of women and men.

    >>> 60 < draw_speaker(np.random.default_rng(0), high=False).pitch < 250
    True
    """
    tract = (1.15 if high else 1.0) * _spread(rng, 0.06)
    phones = ROWS * np.exp(HABITS * rng.standard_normal(ROWS.shape))
    phones[:, FORMANTS] *= tract
    phones[:, POLES] *= tract**0.5
    phones[:, POLES] = phones[:, POLES].clip(max=7500)
    return Speaker(
        phones=phones,
        pitch=(200.0 if high else 115.0) * _spread(rng, 0.16),
        pitch_range=2.2 * _spread(rng, 0.35),
        upper=(np.array([3500, 4500, 5500, 6500]) * tract * np.exp(0.04 * rng.standard_normal(4))).clip(max=7500),
        widths=np.array([70, 90, 130, 200, 250, 300, 400]) * np.exp(0.25 * rng.standard_normal(7)),
        antiresonance=4600 * tract * _spread(rng, 0.08),
        nose=np.array([270, 900]) * np.exp([0.1, 0.15] * rng.standard_normal(2)),
        nasality=0.4 * rng.random() ** 2,
        corner=3500 * _spread(rng, 0.7),
        opening=0.9 * _spread(rng, 0.35),
        breath=0.03 * _spread(rng, 1.2),
        jitter=0.008 * _spread(rng, 0.5),
        shimmer=0.06 * _spread(rng, 0.5),
        rate=_spread(rng, 0.12),
        glide=0.06 * _spread(rng, 0.25),
    )


def _spread(rng: np.random.Generator, deviation: float) -> float:
    return float(np.exp(deviation * rng.standard_normal()))


def speak(speaker: Speaker, rng: np.random.Generator, seconds: float, pitch_shift: float = 0.0) -> np.ndarray:
    """Return speech without meaning at RATE, (T,), at no set level; `pitch_shift` is the day's mood, in semitones.

    >>> rng = np.random.default_rng(0)
    >>> speak(draw_speaker(rng, high=True), rng, seconds=0.5).shape
    (8000,)
    """
    n_samples = round(seconds * RATE)
    n_frames = n_samples // HOP + 2
    rows, phrase, row_of_frame = _phones(speaker, rng, n_frames)
    pitch = _pitch(speaker, rng, phrase, row_of_frame) * 2 ** (pitch_shift / 12)
    tracks = speaker.phones[rows]
    tracks[:, VOICE : HISS + 1] *= _decibels(2.5 * rng.standard_normal((len(rows), 1)))  # stress
    spectrum = _spectrum(speaker, rng, pitch, tracks[row_of_frame])
    return _overlap_add(np.fft.irfft(spectrum, N_FFT))[:n_samples]


def _spectrum(speaker: Speaker, rng: np.random.Generator, pitch: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """Filter pulses and breath by the whole tract, and hiss by its front end, (F,), (F, 10) -> (F, bins)."""
    formants = _smooth(tracks[:, FORMANTS], speaker.glide)
    voice, breath, nasal = _smooth(tracks[:, [VOICE, BREATH, NASAL]], 0.016).T
    noise = rng.standard_normal((len(pitch) + 1) * HOP)
    source = windows(pulses(pitch, voice, rng, speaker.jitter, speaker.shimmer))
    source += (0.2 * breath + speaker.breath * voice)[:, None] * windows(np.diff(noise, append=0.0))
    spectrum = np.fft.rfft(source, N_FFT) * _tract(speaker, formants, nasal, pitch)
    heard = np.flatnonzero(tracks[:, HISS])
    front = 0.002 * tracks[heard, HISS, None] * windows(noise)[heard]
    spectrum[heard] += np.fft.rfft(front, N_FFT) * _teeth(tracks[heard, POLES])
    return spectrum


def _phones(speaker: Speaker, rng: np.random.Generator, n_frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw P phones: (P,) rows of the table, (P,) how far into its phrase each lies, (F,) the phone of each frame."""
    rows: list[int] = []
    phrase: list[float] = []
    need = 1.3 * n_frames * HOP / RATE * speaker.rate
    while speaker.phones[rows, SECONDS].sum() < need:
        said = [row for _ in range(rng.integers(3, 10)) for name in draw_syllable(rng) for row in PIECES[name]]
        rows += said + PIECES["_"]
        phrase += [*np.linspace(0, 1, len(said)), 1.0]
    seconds = speaker.phones[rows, SECONDS] / speaker.rate * np.exp(0.2 * rng.standard_normal(len(rows)))
    ends = np.cumsum(seconds) * RATE / HOP
    return np.array(rows), np.array(phrase), np.searchsorted(ends, np.arange(n_frames)).clip(max=len(rows) - 1)


def _pitch(speaker: Speaker, rng: np.random.Generator, phrase: np.ndarray, row_of_frame: np.ndarray) -> np.ndarray:
    """Draw a pitch that falls through a phrase, with accents and a slow wander, (P,), (F,) -> (F,) Hz."""
    accents = speaker.pitch_range * (rng.standard_normal(len(phrase)) + 1.5 - 3.0 * phrase)
    wander = 0.3 * np.sqrt(HOP / RATE) * np.cumsum(rng.standard_normal(len(row_of_frame)))
    semitones = _smooth(accents[row_of_frame, None], 0.12)[:, 0] + wander
    return (speaker.pitch * 2 ** (semitones / 12)).clip(55, 500)


def pulses(pitch: np.ndarray, loud: np.ndarray, rng: np.random.Generator, jitter: float, shimmer: float) -> np.ndarray:
    """Make an impulse for each opening of the glottis, between samples by a short sinc.

    (F,) Hz, (F,) -> ((F + 1) * HOP,)

    >>> rng = np.random.default_rng(0)
    >>> round(pulses(np.full(125, 100.0), np.ones(125), rng, jitter=0.0, shimmer=0.0).sum())
    99
    """
    middle = (np.arange(len(pitch)) + 1) * HOP  # a frame is at its best in its middle
    phase = np.cumsum(pitch) * HOP / RATE
    count = np.arange(np.ceil(phase[0]), phase[-1])
    at = np.interp(count + jitter * rng.standard_normal(len(count)), phase, middle)
    height = np.interp(at, middle, loud) * (1 + shimmer * rng.standard_normal(len(count)))
    taps = np.floor(at)[:, None] + np.arange(-3, 5)  # (pulses, 8)
    away = taps - at[:, None]
    weight = height[:, None] * np.sinc(away) * np.cos(np.pi / 9 * away) ** 2
    size = (len(pitch) + 1) * HOP
    return np.bincount(taps.astype(int).ravel().clip(0, size - 1), weight.ravel(), size)


def _tract(speaker: Speaker, formants: np.ndarray, nasal: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Return the response of glottis, formants, nose, larynx and lips, (F, 3), (F,), (F,) -> (F, bins)."""
    nasal = (nasal + speaker.nasality).clip(0, 1)
    nose, notch = speaker.nose
    larynx = np.array([speaker.antiresonance])
    poles = [*zip(formants.T, speaker.widths[:3, None] * (1 + nasal)), (speaker.opening * pitch, 0.7 * pitch + 30)]
    still = [*zip(speaker.upper[:, None], speaker.widths[3:]), (np.array([nose]), 100.0), (larynx, 1500.0)]
    still.append((np.array([7600.0]), 3000.0))  # all that lies above F7
    lips = np.fft.rfft([1.0, -0.97], N_FFT) / np.fft.rfft([1.0, -np.exp(-2 * np.pi * speaker.corner / RATE)], N_FFT)
    level = (150 / (speaker.opening * speaker.pitch)) ** 2  # low voices are as loud as high ones
    fixed = level * lips * antiresonance([(larynx, 300.0)]) / antiresonance(still)
    # Without nasality the zero of the nose lies on its pole, and both are silent.
    return fixed * antiresonance([(nose + nasal * (notch - nose), 100.0)]) / antiresonance(poles)


def antiresonance(pairs: Sequence[tuple[np.ndarray, np.ndarray | float]]) -> np.ndarray:
    """Return the product of K zeros, 1 at 0 Hz; K pairs of (F,) frequencies and bandwidths (Hz) -> (F, bins).

    Its inverse has resonances instead. A zero is z - 2 r cos w + r^2 / z, one sample early, which spares the product
    of polynomials: that would lose half of the digits.

    >>> resonance = 1 / antiresonance([(np.array([1000.0]), 80.0)])
    >>> float(abs(resonance[0]).argmax() * RATE / N_FFT)
    1000.0
    """
    product = np.ones((len(pairs[0][0]), N_FFT // 2 + 1), dtype=complex)
    factor = np.empty_like(product)
    for frequency, width in pairs:
        radius = np.exp(-np.pi * width / RATE) * np.ones(len(frequency))
        middle = 2 * radius * np.cos(2 * np.pi * frequency / RATE)
        scale = 1 + radius**2 - middle
        np.multiply.outer((1 + radius**2) / scale, _COSINE, out=factor.real)
        factor.real -= (middle / scale)[:, None]
        np.multiply.outer((1 - radius**2) / scale, _SINE, out=factor.imag)
        product *= factor
    return product


def _teeth(poles: np.ndarray) -> np.ndarray:
    """Return what teeth and lips make of noise, of RMS 1, (F, 2) -> (F, bins)."""
    response = np.fft.rfft([1.0, -1.0], N_FFT) / antiresonance([(poles[:, 0], 600.0), (poles[:, 1], 1200.0)])
    return response / np.sqrt((abs(response) ** 2).mean(axis=1, keepdims=True))


def _decibels(level: np.ndarray) -> np.ndarray:
    return 10 ** (level / 20)


def _smooth(tracks: np.ndarray, seconds: float) -> np.ndarray:
    """Turn steps into glides, half of which take `seconds`, (F, K) -> (F, K)."""
    reach = int(seconds * RATE / HOP)
    kernel = np.cos(np.pi / 2 / seconds * HOP / RATE * np.arange(-reach, reach + 1)) ** 2
    padded = np.pad(tracks, ((reach, reach), (0, 0)), mode="edge")
    return sum(weight * padded[i : i + len(tracks)] for i, weight in enumerate(kernel / kernel.sum()))


def windows(wave: np.ndarray) -> np.ndarray:
    """Cut a wave to frames that overlap by half, under a window that adds up to 1, ((F + 1) * HOP,) -> (F, WINDOW)."""
    blocks = wave.reshape(-1, HOP)
    return np.hstack([blocks[:-1], blocks[1:]]) * (np.sin(np.pi / WINDOW * np.arange(WINDOW)) ** 2)


def _overlap_add(frames: np.ndarray) -> np.ndarray:
    """Add up frames that start HOP apart, (F, N_FFT) -> (T,)."""
    steps = N_FFT // HOP
    blocks = np.zeros((len(frames) + steps - 1, HOP))
    for i in range(steps):
        blocks[i : i + len(frames)] += frames[:, i * HOP : (i + 1) * HOP]
    return blocks.ravel()
