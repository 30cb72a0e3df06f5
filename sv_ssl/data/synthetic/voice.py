"""Speech-like sound from numpy alone: a source of pulses and noise, and a vocal tract that moves from phone to phone.

Who speaks is heard in several cues at once, none of which decides alone, since their ranges overlap between
speakers: mean pitch and its range, length of the vocal tract, tilt and breathiness of the source, rate, sluggishness
of the formants, and habits: every speaker has a personal copy of the table of phones below.
Everything is float64, so that the last bit of the 16-bit samples is the same on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RATE = 16000
HOP, WINDOW, N_FFT = 128, 256, 768  # steps of 8 ms; N_FFT - WINDOW leaves a formant 32 ms to ring out

# Name; seconds; F1 F2 F3 (Hz) of a tract of 17 cm; amplitudes of voice, breath, hiss; nasality; poles of the hiss (Hz).
# Lines of the same name follow each other: a plosive is a closure, a burst and its breath. "_" is a pause.
_TABLE = """
i    .100  280 2250 2950  .9  0  0  0     0    0
I    .075  400 1950 2550  1.  0  0  0     0    0
e    .100  450 2050 2600  1.  0  0  0     0    0
E    .085  550 1800 2480  1.  0  0  0     0    0
ae   .120  680 1700 2420  1.  0  0  0     0    0
a    .120  760 1250 2500  1.  0  0  0     0    0
V    .080  630 1200 2400  1.  0  0  0     0    0
o    .110  480  850 2400  1.  0  0  0     0    0
U    .075  440 1050 2250  1.  0  0  0     0    0
u    .100  310  900 2250  .9  0  0  0     0    0
er   .110  490 1350 1700  1.  0  0  0     0    0
@    .050  500 1450 2450  .8  0  0  0     0    0
m    .070  260 1050 2250  .6  0  0  1     0    0
n    .065  270 1600 2600  .6  0  0  1     0    0
N    .070  270 2100 2700  .6  0  0  1     0    0
l    .060  360 1200 2800  .7  0  0 .1     0    0
r    .060  350 1150 1600  .7  0  0  0     0    0
w    .060  300  720 2250  .7  0  0  0     0    0
j    .055  270 2200 3000  .7  0  0  0     0    0
s    .100  320 1700 2600   0 .1 .8  0  4900 6600
S    .100  320 1850 2500   0 .1 .8  0  2800 4600
f    .090  330 1150 2250   0 .2 .3  0  1700 7000
T    .080  330 1400 2550   0 .2 .3  0  5800 7300
z    .070  300 1700 2600  .3  0 .4  0  4900 6600
v    .055  300 1150 2250  .4  0 .1  0  1700 7000
h    .060  500 1500 2500   0 .8  0  0     0    0
p    .065  300  950 2200   0  0  0  0     0    0
p    .010  300  950 2200   0  0 .5  0   900 2500
p    .025  400 1050 2300   0 .7  0  0     0    0
t    .055  300 1750 2650   0  0  0  0     0    0
t    .012  300 1750 2650   0  0 .9  0  3800 5800
t    .030  400 1700 2600   0 .7  0  0     0    0
k    .060  300 1900 2350   0  0  0  0     0    0
k    .016  300 1900 2350   0  0 .8  0  1900 3900
k    .035  400 1850 2350   0 .7  0  0     0    0
b    .055  250  900 2150  .2  0  0  0     0    0
b    .008  300  950 2200  .4  0 .3  0   900 2500
d    .045  250 1750 2650  .2  0  0  0     0    0
d    .010  300 1750 2650  .4  0 .5  0  3800 5800
g    .050  250 1950 2350  .2  0  0  0     0    0
g    .014  300 1900 2350  .4  0 .5  0  1900 3900
_    .220  450 1450 2450   0  0  0  0     0    0
"""
_COSINE, _SINE = (wave(2 * np.pi / N_FFT * np.arange(N_FFT // 2 + 1)) for wave in (np.cos, np.sin))
_NAMES = [line.split()[0] for line in _TABLE.split("\n") if line]
_ROWS = np.array([line.split()[1:] for line in _TABLE.split("\n") if line], dtype=float)
_SECONDS, _FORMANTS, _VOICE, _BREATH, _HISS, _NASAL, _POLES = 0, slice(1, 4), 4, 5, 6, 7, slice(8, 10)
_VOWELS = [
    "i",
    "I",
    "e",
    "E",
    "ae",
    "a",
    "V",
    "o",
    "U",
    "u",
    "er",
    "@",
    "@",
    "i",
    "a",
    "I",
]  # named twice: twice as frequent
_ONSETS = [
    "m",
    "n",
    "l",
    "r",
    "w",
    "j",
    "s",
    "S",
    "f",
    "T",
    "z",
    "v",
    "h",
    "p",
    "t",
    "k",
    "b",
    "d",
    "g",
    "t",
    "n",
    "s",
    "d",
    "k",
]
_CODAS = ["m", "n", "N", "l", "r", "s", "S", "f", "z", "v", "t", "k", "d", "n", "t", "s"]
_PIECES = {name: [row for row, other in enumerate(_NAMES) if other == name] for name in _NAMES}
# How far habits go, as standard deviations of the logarithm of each column of the table.
_HABITS = np.array([0.15, 0.06, 0.05, 0.05, 0.1, 0.3, 0.3, 0.2, 0.08, 0.06])


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
    """A new voice, of one of two groups with overlapping ranges, as those of women and men.

    >>> 60 < draw_speaker(np.random.default_rng(0), high=False).pitch < 250
    True
    """
    tract = (1.15 if high else 1.0) * _spread(rng, 0.06)
    phones = _ROWS * np.exp(_HABITS * rng.standard_normal(_ROWS.shape))
    phones[:, _FORMANTS] *= tract
    phones[:, _POLES] *= tract**0.5
    phones[:, _POLES] = phones[:, _POLES].clip(max=7500)
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
    """() -> (T,): speech without meaning at RATE, at no set level; `pitch_shift` is the day's mood, in semitones.

    >>> rng = np.random.default_rng(0)
    >>> speak(draw_speaker(rng, high=True), rng, seconds=0.5).shape
    (8000,)
    """
    n_samples = round(seconds * RATE)
    n_frames = n_samples // HOP + 2
    rows, phrase, row_of_frame = _phones(speaker, rng, n_frames)
    pitch = _pitch(speaker, rng, phrase, row_of_frame) * 2 ** (pitch_shift / 12)
    tracks = speaker.phones[rows]
    tracks[:, _VOICE : _HISS + 1] *= _decibels(2.5 * rng.standard_normal((len(rows), 1)))  # stress
    spectrum = _spectrum(speaker, rng, pitch, tracks[row_of_frame])
    return _overlap_add(np.fft.irfft(spectrum, N_FFT))[:n_samples]


def _spectrum(speaker: Speaker, rng: np.random.Generator, pitch: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """(F,), (F, 10) -> (F, bins): pulses and breath through the whole tract, and hiss from its front end."""
    formants = _smooth(tracks[:, _FORMANTS], speaker.glide)
    voice, breath, nasal = _smooth(tracks[:, [_VOICE, _BREATH, _NASAL]], 0.016).T
    noise = rng.standard_normal((len(pitch) + 1) * HOP)
    source = windows(pulses(pitch, voice, rng, speaker.jitter, speaker.shimmer))
    source += (0.2 * breath + speaker.breath * voice)[:, None] * windows(np.diff(noise, append=0.0))
    spectrum = np.fft.rfft(source, N_FFT) * _tract(speaker, formants, nasal, pitch)
    heard = np.flatnonzero(tracks[:, _HISS])
    front = 0.002 * tracks[heard, _HISS, None] * windows(noise)[heard]
    spectrum[heard] += np.fft.rfft(front, N_FFT) * _teeth(tracks[heard, _POLES])
    return spectrum


def _phones(speaker: Speaker, rng: np.random.Generator, n_frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(P,) rows of the table, (P,) how far into its phrase each lies, (F,) which of the P each frame belongs to."""
    rows: list[int] = []
    phrase: list[float] = []
    need = 1.3 * n_frames * HOP / RATE * speaker.rate
    while speaker.phones[rows, _SECONDS].sum() < need:
        said = [row for _ in range(rng.integers(3, 10)) for name in _syllable(rng) for row in _PIECES[name]]
        rows += said + _PIECES["_"]
        phrase += [*np.linspace(0, 1, len(said)), 1.0]
    seconds = speaker.phones[rows, _SECONDS] / speaker.rate * np.exp(0.2 * rng.standard_normal(len(rows)))
    ends = np.cumsum(seconds) * RATE / HOP
    return np.array(rows), np.array(phrase), np.searchsorted(ends, np.arange(n_frames)).clip(max=len(rows) - 1)


def _syllable(rng: np.random.Generator) -> list[str]:
    onset = [_pick(rng, _ONSETS)] if rng.random() < 0.85 else []
    return onset + [_pick(rng, _VOWELS)] + ([_pick(rng, _CODAS)] if rng.random() < 0.4 else [])


def _pick(rng: np.random.Generator, names: list[str]) -> str:
    return names[rng.integers(len(names))]


def _pitch(speaker: Speaker, rng: np.random.Generator, phrase: np.ndarray, row_of_frame: np.ndarray) -> np.ndarray:
    """(P,), (F,) -> (F,) Hz: falls through a phrase, with an accent on some phones and a slow wander."""
    accents = speaker.pitch_range * (rng.standard_normal(len(phrase)) + 1.5 - 3.0 * phrase)
    wander = 0.3 * np.sqrt(HOP / RATE) * np.cumsum(rng.standard_normal(len(row_of_frame)))
    semitones = _smooth(accents[row_of_frame, None], 0.12)[:, 0] + wander
    return (speaker.pitch * 2 ** (semitones / 12)).clip(55, 500)


def pulses(pitch: np.ndarray, loud: np.ndarray, rng: np.random.Generator, jitter: float, shimmer: float) -> np.ndarray:
    """(F,) Hz, (F,) -> ((F + 1) * HOP,): an impulse for each opening of the glottis, between samples by a short sinc.

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
    """(F, 3), (F,), (F,) -> (F, bins): glottis, formants, nose, larynx and lips."""
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
    """K pairs of (F,) frequencies and bandwidths (Hz) -> (F, bins): the product of K zeros, 1 at 0 Hz.

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
    """(F, 2) -> (F, bins): what teeth and lips make of noise, 1 RMS."""
    response = np.fft.rfft([1.0, -1.0], N_FFT) / antiresonance([(poles[:, 0], 600.0), (poles[:, 1], 1200.0)])
    return response / np.sqrt((abs(response) ** 2).mean(axis=1, keepdims=True))


def _decibels(level: np.ndarray) -> np.ndarray:
    return 10 ** (level / 20)


def _smooth(tracks: np.ndarray, seconds: float) -> np.ndarray:
    """(F, K) -> (F, K): steps become glides, half of which take `seconds`."""
    reach = int(seconds * RATE / HOP)
    kernel = np.cos(np.pi / 2 / seconds * HOP / RATE * np.arange(-reach, reach + 1)) ** 2
    padded = np.pad(tracks, ((reach, reach), (0, 0)), mode="edge")
    return sum(weight * padded[i : i + len(tracks)] for i, weight in enumerate(kernel / kernel.sum()))


def windows(wave: np.ndarray) -> np.ndarray:
    """((F + 1) * HOP,) -> (F, WINDOW): overlapping halves, under a window that adds up to 1."""
    blocks = wave.reshape(-1, HOP)
    return np.hstack([blocks[:-1], blocks[1:]]) * (np.sin(np.pi / WINDOW * np.arange(WINDOW)) ** 2)


def _overlap_add(frames: np.ndarray) -> np.ndarray:
    """(F, N_FFT) -> (T,): frames that start HOP apart."""
    steps = N_FFT // HOP
    blocks = np.zeros((len(frames) + steps - 1, HOP))
    for i in range(steps):
        blocks[i : i + len(frames)] += frames[:, i * HOP : (i + 1) * HOP]
    return blocks.ravel()
