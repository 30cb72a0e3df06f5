"""CLAR's seven augmentations of waves (Al-Tahan and Mohsenzadeh 2021, https://arxiv.org/abs/2010.09542) as transforms.

Each changes a row with probability `prob`; which rows, and by how much, is drawn in the loader's workers. Where noise
is needed a number is drawn in its place, from which the noise is made when it is applied.

Fade, mask, shift and noise leave a voice what it is. A pitch shift of more than about a semitone makes another speaker
of it, and a time stretch another way to speak: as two views of one speaker they teach to ignore what verification
needs. So `named` leaves "pitch" and "stretch" out unless they are asked for, as is right for sounds and words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sv_ssl.audio.noise import add_noise
from sv_ssl.audio.transform import Transform
from sv_ssl.audio.vocoder import pitch, stretch
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.core.seeds import torch_generator

SAFE = ("fade", "mask", "shift", "white", "mixed")  # for views of one speaker
SNR_DB = (0, 20)
RATE = (0.5, 1.5)
SEMITONES = 15
MASK_LEVEL = 0.01  # standard deviation of the noise in a mask

Drawn = dict[str, np.ndarray]


def named(
    names: Sequence[str] = SAFE,
    prob: float = 0.5,
    snr_db: Sequence[float] = SNR_DB,
    rate: Sequence[float] = RATE,
    semitones: float = SEMITONES,
) -> list[Transform]:
    """Return the transforms of these names, in CLAR's order whatever the order of the names.

    names      of fade, mask, stretch, pitch, shift, white, mixed
    prob       of each row to be changed by each of them
    snr_db     the range of "white" and "mixed"
    rate       the range of "stretch"
    semitones  the most of "pitch", up or down

    >>> [type(transform).__name__ for transform in named(["shift", "fade"])]
    ['Fade', 'Shift']
    """
    check_number("prob of an augmentation", prob, at_least=0, at_most=1)
    known: dict[str, Transform] = {
        "fade": Fade(prob),
        "mask": Mask(prob),
        "stretch": Stretch(prob, rate),
        "pitch": Pitch(prob, semitones),
        "shift": Shift(prob),
        "white": WhiteNoise(prob, snr_db),
        "mixed": ColouredNoise(prob, snr_db),
    }
    if unknown := [name for name in names if name not in known]:
        raise InputError(f'no augmentation is called "{unknown[0]}": choose from {", ".join(known)}')
    return [transform for name, transform in known.items() if name in names]


# ------------------------------------------------------------------------------------------------- the transforms
class Fade:
    """Begin and end in silence, each over up to half of the crop, along a straight line or a curve."""

    def __init__(self, prob: float = 0.5):
        self.prob = prob

    def draw(self, rng: np.random.Generator, n_samples: int) -> Drawn:
        """Draw {"chosen", "fade_in", "fade_out", "shape"}, all ()."""
        half = max(1, n_samples // 2)
        fade_in = rng.integers(1, half, endpoint=True)
        fade_out = rng.integers(1, half, endpoint=True)
        return _drawn(rng, self.prob, fade_in=fade_in, fade_out=fade_out, shape=rng.integers(3))

    def apply(self, waves: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Fade the chosen rows, (R, T) -> (R, T)."""
        return _on_chosen(waves, parameters, fade)


class Mask:
    """Replace a piece of up to an eighth of the crop by silence or by faint noise."""

    def __init__(self, prob: float = 0.5):
        self.prob = prob

    def draw(self, rng: np.random.Generator, n_samples: int) -> Drawn:
        """Draw {"chosen", "start", "length", "noisy", "seed"}, all ()."""
        length = rng.integers(1, n_samples // 8, endpoint=True) if n_samples >= 8 else 0
        start = rng.integers(n_samples - length + 1)
        return _drawn(rng, self.prob, start=start, length=length, noisy=rng.integers(2), seed=_draw_seed(rng))

    def apply(self, waves: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Mask the chosen rows, (R, T) -> (R, T)."""
        return _on_chosen(waves, parameters, self._fill)

    def _fill(self, waves: Tensor, start: Tensor, length: Tensor, noisy: Tensor, seed: Tensor) -> Tensor:
        return mask(waves, start, length, MASK_LEVEL * noisy[:, None] * white(waves, seed))


class Stretch:
    """Play the crop faster or slower at the same pitch, at a rate of this range."""

    def __init__(self, prob: float = 0.5, rate: Sequence[float] = RATE):
        self.prob = prob
        self.rate = rate

    def draw(self, rng: np.random.Generator, n_samples: int) -> Drawn:
        """Draw {"chosen", "rate"}, both ()."""
        slowest, fastest = self.rate
        return _drawn(rng, self.prob, rate=rng.uniform(slowest, fastest))

    def apply(self, waves: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Stretch the chosen rows, (R, T) -> (R, T)."""
        return _on_chosen(waves, parameters, stretch)


class Pitch:
    """Raise or lower the crop by up to `semitones` at the same speed."""

    def __init__(self, prob: float = 0.5, semitones: float = SEMITONES):
        self.prob = prob
        self.semitones = semitones

    def draw(self, rng: np.random.Generator, n_samples: int) -> Drawn:
        """Draw {"chosen", "semitones"}, both ()."""
        return _drawn(rng, self.prob, semitones=rng.uniform(-self.semitones, self.semitones))

    def apply(self, waves: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Shift the pitch of the chosen rows, (R, T) -> (R, T)."""
        return _on_chosen(waves, parameters, pitch)


class Shift:
    """Move the crop in time by up to half of it; what leaves one end comes back at the other."""

    def __init__(self, prob: float = 0.5):
        self.prob = prob

    def draw(self, rng: np.random.Generator, n_samples: int) -> Drawn:
        """Draw {"chosen", "samples"}, both ()."""
        half = n_samples // 2
        return _drawn(rng, self.prob, samples=rng.integers(-half, half, endpoint=True))

    def apply(self, waves: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Shift the chosen rows, (R, T) -> (R, T)."""
        return _on_chosen(waves, parameters, shift)


class WhiteNoise:
    """Add white noise at a ratio of this range, in dB."""

    def __init__(self, prob: float = 0.5, snr_db: Sequence[float] = SNR_DB):
        self.prob = prob
        self.snr_db = snr_db

    def draw(self, rng: np.random.Generator, n_samples: int) -> Drawn:
        """Draw {"chosen", "snr_db", "seed"}, all ()."""
        return _drawn(rng, self.prob, snr_db=_draw_ratio(rng, self.snr_db), seed=_draw_seed(rng))

    def apply(self, waves: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Add noise to the chosen rows, (R, T) -> (R, T)."""
        return _on_chosen(waves, parameters, self._add)

    def _add(self, waves: Tensor, snr_db: Tensor, seed: Tensor) -> Tensor:
        return add_noise(waves, white(waves, seed), snr_db)


class ColouredNoise:
    """Add white, pink or brown noise at a ratio of this range, in dB."""

    def __init__(self, prob: float = 0.5, snr_db: Sequence[float] = SNR_DB):
        self.prob = prob
        self.snr_db = snr_db

    def draw(self, rng: np.random.Generator, n_samples: int) -> Drawn:
        """Draw {"chosen", "slope", "snr_db", "seed"}, all ()."""
        snr_db = _draw_ratio(rng, self.snr_db)
        return _drawn(rng, self.prob, slope=rng.integers(3), snr_db=snr_db, seed=_draw_seed(rng))

    def apply(self, waves: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Add noise to the chosen rows, (R, T) -> (R, T)."""
        return _on_chosen(waves, parameters, self._add)

    def _add(self, waves: Tensor, slope: Tensor, snr_db: Tensor, seed: Tensor) -> Tensor:
        return add_noise(waves, coloured(white(waves, seed), slope), snr_db)


def _drawn(rng: np.random.Generator, prob: float, **parameters: Any) -> Drawn:
    """Draw whether the crop is changed; every parameter becomes an array."""
    return {"chosen": np.array(rng.random() < prob), **{name: np.array(value) for name, value in parameters.items()}}


def _draw_ratio(rng: np.random.Generator, snr_db: Sequence[float]) -> np.float32:
    low, high = snr_db
    return np.float32(rng.uniform(low, high))


def _draw_seed(rng: np.random.Generator) -> np.int64:
    return rng.integers(2**62)


def _on_chosen(waves: Tensor, parameters: dict[str, Tensor], change: Callable[..., Tensor]) -> Tensor:
    """Change the chosen rows by their parameters; the others, and the waves that came, stay as they are."""
    rows = torch.nonzero(parameters["chosen"])[:, 0]
    changed = waves.clone()
    if len(rows):
        own = {name: value[rows] for name, value in parameters.items() if name != "chosen"}
        changed[rows] = change(waves[rows], **own)
    return changed


# --------------------------------------------------------------------------------------- functions of their parameters
def white(like: Tensor, seeds: Tensor) -> Tensor:
    """Return Gaussian noise of deviation 1, each row from its seed; made on the CPU, so that any device gets the same.

    (R, T), (R,) -> (R, T) in float32 at least
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    rows = [torch.randn(like.shape[1], generator=torch_generator(seed), dtype=dtype) for seed in seeds.tolist()]
    return torch.stack(rows).to(like.device)


def fade(waves: Tensor, fade_in: Tensor, fade_out: Tensor, shape: Tensor) -> Tensor:
    """Rise from silence over `fade_in` samples and fall to silence over `fade_out`.

    (R, T), (R,), (R,), (R,) -> (R, T); `shape` is 0 for a straight ramp, 1 for an exponential, 2 for a logarithmic one

    >>> one = torch.tensor([1])
    >>> fade(torch.ones(1, 6), fade_in=2 * one, fade_out=one, shape=0 * one)
    tensor([[0.0000, 0.5000, 1.0000, 1.0000, 1.0000, 0.0000]])
    """
    place = torch.arange(waves.shape[1], device=waves.device)
    rise = _ramp(place / fade_in[:, None], shape)
    fall = _ramp(place.flip(0) / fade_out[:, None], shape)
    return waves * (rise * fall).to(waves.dtype)


def _ramp(part: Tensor, shape: Tensor) -> Tensor:
    """Turn parts of the way into gains, from 0 at 0 to 1 at 1 and beyond; (R, T), (R,) -> (R, T)."""
    ramp = part.clamp(max=1)
    for kind, bend in ((1, lambda x: (10**x - 1) / 9), (2, lambda x: (1 + 9 * x).log10())):
        rows = torch.nonzero(shape == kind)[:, 0]  # those alone: powers and logarithms are what takes long
        if len(rows):
            ramp[rows] = bend(ramp[rows])
    return ramp


def mask(waves: Tensor, start: Tensor, length: Tensor, filling: Tensor) -> Tensor:
    """Take `length` samples from `start` on from `filling`.

    (R, T), (R,), (R,), (R, T) -> (R, T)

    >>> mask(torch.ones(1, 5), start=torch.tensor([1]), length=torch.tensor([2]), filling=torch.zeros(1, 5))
    tensor([[1., 0., 0., 1., 1.]])
    """
    place = torch.arange(waves.shape[1], device=waves.device) - start[:, None]
    return torch.where((place >= 0) & (place < length[:, None]), filling.to(waves.dtype), waves)


def shift(waves: Tensor, samples: Tensor) -> Tensor:
    """Move each row to a later time; what leaves the end comes back at the start.

    (R, T), (R,) -> (R, T)

    >>> shift(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([1]))
    tensor([[3., 1., 2.]])
    """
    n_samples = waves.shape[1]
    return waves.gather(1, (torch.arange(n_samples, device=waves.device) - samples[:, None]) % n_samples)


def coloured(noises: Tensor, slope: Tensor) -> Tensor:
    """Filter white noise so that its power falls as frequency ** -slope, and take its mean away.

    (R, T), (R,) -> (R, T); a slope of 0 is white, 1 pink, 2 brown
    """
    spectrum = torch.fft.rfft(noises)
    gain = torch.arange(spectrum.shape[1], device=noises.device).clamp_min(1) ** (-slope[:, None] / 2)
    gain[:, 0] = 0
    return torch.fft.irfft(spectrum * gain, noises.shape[1])
