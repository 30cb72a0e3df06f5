"""CLAR's seven augmentations of waveforms (Al-Tahan and Mohsenzadeh 2021): functions of their parameters, and a drawer.

Fade, mask, shift and noise leave a voice what it is. Pitch shift of more than about a semitone makes another speaker of
it, and a time stretch another way to speak: as two views of one speaker they teach to ignore what verification needs.
So `WaveAugment` leaves "pitch" and "stretch" out unless they are named, as is right for sounds and words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sv_ssl.core.errors import InputError

SAFE = ("fade", "mask", "shift", "white", "mixed")  # for views of one speaker
QUIET = 1e-12  # an RMS below any sound's
N_FFT, HOP = 1024, 256  # of the phase vocoder: 64 ms at 16 kHz
TAPS = 16  # of the interpolation, on either side


def fade(wave: Tensor, fade_in: Tensor, fade_out: Tensor, shape: Tensor) -> Tensor:
    """(B, T), (B,), (B,), (B,) -> (B, T): from silence over `fade_in` samples, and to silence over `fade_out`.

    `shape` is 0 for a straight ramp, 1 for an exponential, 2 for a logarithmic one.

    >>> one = torch.tensor([1])
    >>> fade(torch.ones(1, 6), fade_in=2 * one, fade_out=one, shape=0 * one)
    tensor([[0.0000, 0.5000, 1.0000, 1.0000, 1.0000, 0.0000]])
    """
    place = torch.arange(wave.shape[1], device=wave.device)
    both = [_ramp(steps / length[:, None], shape) for steps, length in ((place, fade_in), (place.flip(0), fade_out))]
    return wave * (both[0] * both[1]).to(wave.dtype)


def _ramp(part: Tensor, shape: Tensor) -> Tensor:
    """(B, T) parts of the way, (B,) -> (B, T) gains, from 0 at 0 to 1 at 1 and beyond."""
    ramp = part.clamp(max=1)
    for kind, bent in ((1, lambda x: (10**x - 1) / 9), (2, lambda x: (1 + 9 * x).log10())):
        rows = torch.nonzero(shape == kind)[:, 0]  # those alone: powers and logarithms are what takes long
        if len(rows):
            ramp[rows] = bent(ramp[rows])
    return ramp


def mask(wave: Tensor, start: Tensor, length: Tensor, filling: Tensor) -> Tensor:
    """(B, T), (B,), (B,), (B, T) -> (B, T): `length` samples from `start` on are those of `filling`.

    >>> mask(torch.ones(1, 5), start=torch.tensor([1]), length=torch.tensor([2]), filling=torch.zeros(1, 5))
    tensor([[1., 0., 0., 1., 1.]])
    """
    place = torch.arange(wave.shape[1], device=wave.device) - start[:, None]
    return torch.where((place >= 0) & (place < length[:, None]), filling.to(wave.dtype), wave)


def shift(wave: Tensor, samples: Tensor) -> Tensor:
    """(B, T), (B,) -> (B, T): later by so many samples; what leaves the end comes back at the start.

    >>> shift(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([1]))
    tensor([[3., 1., 2.]])
    """
    n_samples = wave.shape[1]
    return wave.gather(1, (torch.arange(n_samples, device=wave.device) - samples[:, None]) % n_samples)


def add_noise(wave: Tensor, noise: Tensor, snr_db: Tensor) -> Tensor:
    """(B, T), (B, T), (B,) -> (B, T): noise whose RMS is exactly so far below the row's; silence stays silence.

    >>> add_noise(torch.ones(1, 2), torch.tensor([[5.0, -5.0]]), torch.tensor([20.0]))
    tensor([[1.1000, 0.9000]])
    """
    wide = wave.to(torch.promote_types(wave.dtype, torch.float32))
    gain = _level(wide) / _level(noise).clamp_min(QUIET) * 10 ** (-snr_db[:, None] / 20)
    return (wide + gain * noise).to(wave.dtype)


def _level(wave: Tensor) -> Tensor:
    return wave.square().mean(dim=1, keepdim=True).sqrt()


def coloured(white: Tensor, slope: Tensor) -> Tensor:
    """(B, T) white noise, (B,) -> (B, T): its power falls as frequency ** -slope: 0 white, 1 pink, 2 brown; no mean."""
    spectrum = torch.fft.rfft(white)
    gain = torch.arange(spectrum.shape[1], device=white.device).clamp_min(1) ** (-slope[:, None] / 2)
    gain[:, 0] = 0
    return torch.fft.irfft(spectrum * gain, white.shape[1])


def stretch(wave: Tensor, rate: Tensor) -> Tensor:
    """(B, T), (B,) -> (B, T): `rate` times as fast at the same pitch; the end is cut off, or silent."""
    return _vocoder(wave, rate, wave.shape[1]).to(wave.dtype)


def pitch(wave: Tensor, semitones: Tensor) -> Tensor:
    """(B, T), (B,) -> (B, T): higher (or lower, below 0) by so many semitones at the same speed."""
    factor, n_samples = 2 ** (semitones / 12), wave.shape[1]
    # A window more than the highest row takes: the frames that reach a row's end are there whatever its neighbours are.
    longer = _vocoder(wave, 1 / factor, int(n_samples * factor.max()) + 2 + N_FFT, highest=0.95 / factor)
    return _interpolated(longer, factor, n_samples).to(wave.dtype)


def _vocoder(wave: Tensor, rate: Tensor, n_samples: int, highest: Tensor | None = None) -> Tensor:
    """(B, T), (B,) -> (B, n_samples): stretched; without what lies above `highest`, a part of the Nyquist frequency."""
    window = torch.hann_window(N_FFT, device=wave.device)
    spectrum = torch.stft(wave.float(), N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    last = spectrum.shape[2] - 1
    time = torch.arange(n_samples // HOP + 1, device=wave.device) * rate[:, None]  # in frames of the input
    left = time.long().clamp(max=last)
    part = (time - left)[:, None].float()
    before, after = (
        spectrum.gather(2, at[:, None].expand(-1, N_FFT // 2 + 1, -1)) for at in (left, (left + 1).clamp(max=last))
    )
    magnitude = torch.lerp(before.abs(), after.abs(), part.clamp(0, 1)) * (time <= last)[:, None]
    if highest is not None:
        bins = torch.arange(magnitude.shape[1], device=wave.device) / (N_FFT // 2)
        magnitude = magnitude * (bins <= highest[:, None])[:, :, None]
    turn = after.angle() - before.angle()  # from one frame to the next: the hop of the output is that of the input
    frames = [torch.polar(magnitude[:, :, 0], before.angle()[:, :, 0])]
    for i in range(1, magnitude.shape[2]):
        # The bins of one tone have opposite signs side by side: without a look at the neighbours they drift apart.
        together = frames[-1] - F.pad(frames[-1], (1, -1)) - F.pad(frames[-1], (-1, 1))
        frames.append(torch.polar(magnitude[:, :, i], together.angle() + turn[:, :, i - 1]))
    return torch.istft(torch.stack(frames, dim=2), N_FFT, HOP, window=window, length=n_samples)


def _interpolated(wave: Tensor, factor: Tensor, n_samples: int) -> Tensor:
    """(B, L), (B,) -> (B, n_samples): the values at 0, factor, 2 factor, ..., by a windowed sinc."""
    place = torch.arange(n_samples, device=wave.device, dtype=torch.float64) * factor[:, None]
    first = place.long()
    part = (place - first).to(wave.dtype)
    padded = F.pad(wave, (TAPS, TAPS))
    values = torch.zeros_like(part)
    for tap in range(1 - TAPS, TAPS + 1):
        away = part - tap
        values += torch.sinc(away) * torch.cos(torch.pi / 2 * away / TAPS) ** 2 * padded.gather(1, first + tap + TAPS)
    return values


class Rows:
    """A generator for each row, so that what one draws does not depend on the others, nor on how much they draw."""

    def __init__(self, generators: Iterable[torch.Generator], device: torch.device):
        self.generators, self.device = list(generators), device

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """-> (B,) float64."""
        drawn = [torch.rand((), generator=g, dtype=torch.float64) for g in self.generators]
        return (low + (high - low) * torch.stack(drawn)).to(self.device)

    def whole(self, low: int, high: int) -> Tensor:
        """-> (B,) int64 from low to high, both included."""
        return self.uniform(low, high + 1).floor().long()

    def normal(self, like: Tensor) -> Tensor:
        """(B, T) -> (B, T), in float32 at least."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        return torch.stack([torch.randn(like.shape[1], generator=g, dtype=dtype) for g in self.generators]).to(
            self.device
        )


class WaveAugment:
    """(B, T), generator -> (B, T): each of `names` on each row with probability `prob`, in CLAR's order.

    Row i depends on itself, the generator and i alone. Lengths and dtype are kept, and the input is left as it was.
    `rate` and `semitones` (up or down) are the ranges of "stretch" and "pitch", `snr_db` that of "white" and "mixed",
    which is white, pink or brown.

    >>> wave = torch.ones(2, 16000)
    >>> views = [WaveAugment()(wave, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    >>> torch.equal(views[0], views[1]), torch.equal(views[0], views[2])
    (True, False)
    """

    def __init__(
        self,
        names: Sequence[str] = SAFE,
        prob: float = 0.5,
        snr_db: Sequence[float] = (0, 20),
        rate: Sequence[float] = (0.5, 1.5),
        semitones: float = 15,
    ):
        self.steps = {
            "fade": self._fade,
            "mask": self._mask,
            "stretch": self._stretch,
            "pitch": self._pitch,
            "shift": self._shift,
            "white": self._white,
            "mixed": self._mixed,
        }
        if unknown := [name for name in names if name not in self.steps]:
            raise InputError(f'no augmentation is called "{unknown[0]}": choose from {", ".join(self.steps)}')
        self.names, self.prob, self.snr_db, self.rate, self.semitones = names, prob, snr_db, rate, semitones

    def __call__(self, wave: Tensor, generator: torch.Generator) -> Tensor:
        wave, named = wave.clone(), [name for name in self.steps if name in self.names]
        if not named:
            return wave  # a generator a row is not for nothing
        seeds = torch.randint(2**62, (len(wave),), generator=generator).tolist()
        every = [torch.Generator().manual_seed(seed) for seed in seeds]
        for name in named:
            chosen = torch.nonzero(Rows(every, wave.device).uniform() < self.prob)[:, 0]
            if len(chosen):
                wave[chosen] = self.steps[name](wave[chosen], Rows([every[i] for i in chosen.tolist()], wave.device))
        return wave

    def _fade(self, wave: Tensor, rows: Rows) -> Tensor:
        half = wave.shape[1] // 2
        return fade(wave, rows.whole(1, half), rows.whole(1, half), rows.whole(0, 2))

    def _mask(self, wave: Tensor, rows: Rows) -> Tensor:
        length = rows.whole(1, wave.shape[1] // 8) if wave.shape[1] >= 8 else rows.whole(0, 0)
        start = (rows.uniform() * (wave.shape[1] - length + 1)).long()
        noisy = rows.whole(0, 1)[:, None]  # or silent
        return mask(wave, start, length, 0.01 * noisy * rows.normal(wave))

    def _stretch(self, wave: Tensor, rows: Rows) -> Tensor:
        return stretch(wave, rows.uniform(*self.rate))

    def _pitch(self, wave: Tensor, rows: Rows) -> Tensor:
        return pitch(wave, rows.uniform(-self.semitones, self.semitones))

    def _shift(self, wave: Tensor, rows: Rows) -> Tensor:
        half = wave.shape[1] // 2
        return shift(wave, rows.whole(-half, half))

    def _white(self, wave: Tensor, rows: Rows) -> Tensor:
        return add_noise(wave, rows.normal(wave), rows.uniform(*self.snr_db).to(torch.float32))

    def _mixed(self, wave: Tensor, rows: Rows) -> Tensor:
        noise = coloured(rows.normal(wave), rows.whole(0, 2))
        return add_noise(wave, noise, rows.uniform(*self.snr_db).to(torch.float32))
