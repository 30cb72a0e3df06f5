"""Waveforms to features: log-mel filterbanks with the mean of the sentence removed.

Frames are time-major, (B, T, F), as SpeechBrain has them. Features are always float32: under autocast the
logarithm of a half-precision spectrum would lose the quiet bands.
"""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn


class LogMel(nn.Module):
    """(B, samples) -> (B, frames, n_mels): log of mel band energies, 25 ms Hamming windows every 10 ms.

    `sentence_mean` removes each band's mean over the sentence, and with it a fixed channel.

    >>> LogMel(n_mels=40)(torch.zeros(2, 32000)).shape
    torch.Size([2, 201, 40])
    """

    window: Tensor
    mel: Tensor

    def __init__(self, n_mels: int = 40, sample_rate: int = 16000, window_seconds: float = 0.025,
                 hop_seconds: float = 0.010, floor: float = 1e-6,
                 sentence_mean: bool = True):
        super().__init__()
        self.config = {"n_mels": n_mels, "sample_rate": sample_rate, "window_seconds": window_seconds,
                       "hop_seconds": hop_seconds, "floor": floor, "sentence_mean": sentence_mean}
        self.hop, self.floor, self.sentence_mean = round(hop_seconds * sample_rate), floor, sentence_mean
        window = round(window_seconds * sample_rate)
        self.n_fft = 1 << (window - 1).bit_length()
        mel = torchaudio.functional.melscale_fbanks(self.n_fft // 2 + 1, 20.0, sample_rate / 2, n_mels, sample_rate)
        # Constants, rebuilt from the arguments: not part of the weights.
        self.register_buffer("window", torch.hamming_window(window), persistent=False)
        self.register_buffer("mel", mel, persistent=False)

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        with torch.autocast(wave.device.type, enabled=False):
            spectrum = torch.stft(wave.float(), self.n_fft, self.hop, len(self.window), self.window,
                                  pad_mode="constant", return_complex=True)
            power = torch.view_as_real(spectrum).square().sum(-1)          # (B, bins, frames)
            frames = (power.transpose(1, 2) @ self.mel + self.floor).log()   # (B, frames, n_mels)
            return frames - frames.mean(dim=1, keepdim=True) if self.sentence_mean else frames
