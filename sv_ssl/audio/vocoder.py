"""Time stretch and pitch shift of whole batches by a phase vocoder, each row by a ratio of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

N_FFT, HOP = 1024, 256  # of the phase vocoder: 64 ms at 16 kHz
TAPS = 16  # of the interpolation, on either side


def stretch(waves: Tensor, rate: Tensor) -> Tensor:
    """Play each row `rate` times as fast at the same pitch; its end is cut off, or silent.

    (R, T), (R,) -> (R, T)
    """
    return _vocoder(waves, rate, waves.shape[1]).to(waves.dtype)


def pitch(waves: Tensor, semitones: Tensor) -> Tensor:
    """Raise each row by so many semitones (or lower it, below 0) at the same speed.

    (R, T), (R,) -> (R, T)
    """
    factor, n_samples = 2 ** (semitones / 12), waves.shape[1]
    # A window more than the highest row takes: the frames that reach a row's end are there whatever its neighbours are.
    longer = _vocoder(waves, 1 / factor, int(n_samples * factor.max()) + 2 + N_FFT, highest=0.95 / factor)
    return _interpolate(longer, factor, n_samples).to(waves.dtype)


def _vocoder(waves: Tensor, rate: Tensor, n_samples: int, highest: Tensor | None = None) -> Tensor:
    """Stretch each row; leave out what lies above `highest`, parts of the Nyquist frequency.

    (R, T), (R,), (R,) -> (R, n_samples)
    """
    window = torch.hann_window(N_FFT, device=waves.device)
    spectrum = torch.stft(waves.float(), N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    last = spectrum.shape[2] - 1
    time = torch.arange(n_samples // HOP + 1, device=waves.device) * rate[:, None]  # in frames of the input
    left = time.long().clamp(max=last)
    part = (time - left)[:, None].float()
    before = _frames_at(spectrum, left)
    after = _frames_at(spectrum, (left + 1).clamp(max=last))
    magnitude = torch.lerp(before.abs(), after.abs(), part.clamp(0, 1)) * (time <= last)[:, None]
    if highest is not None:
        bins = torch.arange(magnitude.shape[1], device=waves.device) / (N_FFT // 2)
        magnitude = magnitude * (bins <= highest[:, None])[:, :, None]
    turn = after.angle() - before.angle()  # from one frame to the next: the hop of the output is that of the input
    frames = [torch.polar(magnitude[:, :, 0], before.angle()[:, :, 0])]
    for i in range(1, magnitude.shape[2]):
        # The bins of one tone have opposite signs side by side: without a look at the neighbours they drift apart.
        together = frames[-1] - F.pad(frames[-1], (1, -1)) - F.pad(frames[-1], (-1, 1))
        frames.append(torch.polar(magnitude[:, :, i], together.angle() + turn[:, :, i - 1]))
    return torch.istft(torch.stack(frames, dim=2), N_FFT, HOP, window=window, length=n_samples)


def _frames_at(spectrum: Tensor, places: Tensor) -> Tensor:
    """Take the frames at `places` of each row, (R, bins, frames), (R, F) -> (R, bins, F)."""
    return spectrum.gather(2, places[:, None].expand(-1, N_FFT // 2 + 1, -1))


def _interpolate(waves: Tensor, factor: Tensor, n_samples: int) -> Tensor:
    """Return the values at 0, factor, 2 factor, ... by a windowed sinc.

    (R, L), (R,) -> (R, n_samples)
    """
    place = torch.arange(n_samples, device=waves.device, dtype=torch.float64) * factor[:, None]
    first = place.long()
    part = (place - first).to(waves.dtype)
    padded = F.pad(waves, (TAPS, TAPS))
    values = torch.zeros_like(part)
    for tap in range(1 - TAPS, TAPS + 1):
        away = part - tap
        values += torch.sinc(away) * torch.cos(torch.pi / 2 * away / TAPS) ** 2 * padded.gather(1, first + tap + TAPS)
    return values
