"""Waveforms to features: log-mel filterbanks with the mean of the sentence removed, ours and those of other toolkits.

Frames are time-major, (B, T, F), as SpeechBrain has them. Features are always float32: under autocast the
logarithm of a half-precision spectrum would lose the quiet bands. The front ends of others are here because weights
fit only the features that they were trained with.
"""

from __future__ import annotations

import numpy as np
import torch
import torchaudio
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

from sv_ssl.core.distributed import rank
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.core.seeds import stream

LARGEST_FILTERS = 2**22  # samples of a window times bands: of 128 ms at 48 kHz, 682 bands
VERSION = 1  # of the features of a wave: raise it with any change of them, and kept embeddings are made anew


class SpecAugment(nn.Module):
    """Mask stripes of features in training mode: (B, frames, n_mels) -> the same; in eval mode nothing is masked.

    https://arxiv.org/abs/1904.08779. A row is masked with probability `prob`: `n_time` stripes of 0 to `max_frames`
    frames and `n_mel` of 0 to `max_mels` bands, wherever they fit, are set to their band's mean over the sentence. Each
    batch has a random stream of its own, by the seed, the number of this module, the rank and the batches before it.

    >>> frames = torch.randn(2, 200, 40)
    >>> masked = SpecAugment()(frames)
    >>> masked.shape, torch.equal(SpecAugment().eval()(frames), frames)
    (torch.Size([2, 200, 40]), True)
    """

    def __init__(
        self,
        n_time: int = 2,
        max_frames: int = 20,
        n_mel: int = 2,
        max_mels: int = 5,
        prob: float = 1.0,
        seed: int = 0,
        number: int = 0,
    ):
        super().__init__()
        if min(n_time, max_frames, n_mel, max_mels) < 0 or not 0 <= prob <= 1:
            raise InputError(
                "SpecAugment wants numbers and widths of 0 or more and a prob from 0 to 1, got n_time "
                f"{n_time}, max_frames {max_frames}, n_mel {n_mel}, max_mels {max_mels}, prob {prob}"
            )
        self.n_time = n_time
        self.max_frames = max_frames
        self.n_mel = n_mel
        self.max_mels = max_mels
        self.prob = prob
        self.seed = seed
        self.number = number
        self.drawn = 0  # batches, kept over a resume

    def get_extra_state(self) -> int:
        return self.drawn

    def set_extra_state(self, state: int) -> None:
        self.drawn = state

    def draw(self, rng: np.random.Generator, n_rows: int) -> dict[str, np.ndarray]:
        """Draw widths and places of the stripes of each row as numbers from 0 to 1, and which rows are masked."""
        stripes = rng.random((n_rows, self.n_time + self.n_mel, 2), dtype=np.float32)
        return {"stripes": stripes, "hit": rng.random(n_rows) < self.prob}

    def mask(self, frames: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """Mask what was drawn: (B, frames, n_mels) -> the same. (`apply` is a method of every nn.Module.)"""
        _, n_frames, n_bands = frames.shape
        stripes, hit = parameters["stripes"], parameters["hit"][:, None, None]
        times = _stripes(stripes[:, : self.n_time], self.max_frames, n_frames)[:, :, None]  # (B, frames, 1)
        bands = _stripes(stripes[:, self.n_time :], self.max_mels, n_bands)[:, None]  # (B, 1, n_mels)
        return torch.where((times | bands) & hit, frames.mean(dim=1, keepdim=True), frames)

    def forward(self, frames: Tensor) -> Tensor:
        if not self.training:
            return frames
        self.drawn += 1
        drawn = self.draw(stream(self.seed, "masks", self.number, rank(), self.drawn), len(frames))
        return self.mask(frames, {key: torch.from_numpy(value).to(frames.device) for key, value in drawn.items()})


def seed_masks(module: nn.Module, seed: int) -> None:
    """Give each SpecAugment in a module a random stream of its own, so that a copy masks other stripes."""
    masks = [part for part in module.modules() if isinstance(part, SpecAugment)]
    for number, part in enumerate(masks):
        part.seed = seed
        part.number = number


def _stripes(drawn: Tensor, widest: int, length: int) -> Tensor:
    """Return n stripes of 0 to `widest` places within the length: (B, n, 2) numbers from 0 to 1 -> (B, length) bool."""
    width = (drawn[..., :1] * (min(widest, length) + 1)).floor()
    begin = (drawn[..., 1:] * (length - width + 1)).floor()
    place = torch.arange(length, device=drawn.device)
    return ((place >= begin) & (place < begin + width)).any(dim=1)


def check_rate(sample_rate: int | None, at_most: int = 384_000) -> None:
    """Raise InputError for a rate that no audio has."""
    check_number("sample_rate", sample_rate, at_least=1000, at_most=at_most, whole=True)


def check_frames(
    n_mels: int, sample_rate: int, hop_seconds: float = 0.010, window_seconds: float = 0.025, floor: float = 0.0
) -> None:
    """Raise InputError for sizes that no features can have, or whose filters would fill the memory."""
    check_number("n_mels", n_mels, at_least=1, at_most=2048, whole=True)
    check_rate(sample_rate)
    check_number("hop_seconds", hop_seconds, at_least=1e-3, at_most=1)
    check_number("window_seconds", window_seconds, at_least=1e-3, at_most=1)
    check_number("floor", floor, at_least=0)
    if n_mels * sample_rate * window_seconds > LARGEST_FILTERS:
        raise InputError(
            f"n_mels is {n_mels}: wanted {int(LARGEST_FILTERS / sample_rate / window_seconds)} at most for windows of "
            f"{window_seconds} s at {sample_rate} Hz"
        )


def check_flag(name: str, value: bool) -> None:
    """Raise InputError for what is neither True nor False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}: choose True or False")


class LogMel(nn.Module):
    """Log of mel band energies, 25 ms Hamming windows every 10 ms: (B, samples) -> (B, frames, n_mels).

    `sentence_mean` removes each band's mean over the sentence, and with it a fixed channel. `spec_augment` masks what
    comes out, in training mode alone; it is no part of a model folder.

    >>> LogMel(n_mels=40)(torch.zeros(2, 32000)).shape
    torch.Size([2, 201, 40])
    """

    window: Tensor
    mel: Tensor

    def __init__(
        self,
        n_mels: int = 40,
        sample_rate: int = 16000,
        window_seconds: float = 0.025,
        hop_seconds: float = 0.010,
        floor: float = 1e-6,
        sentence_mean: bool = True,
        spec_augment: SpecAugment | None = None,
    ):
        super().__init__()
        check_frames(n_mels, sample_rate, hop_seconds, window_seconds, floor)
        check_flag("sentence_mean", sentence_mean)
        self.config = {
            "n_mels": n_mels,
            "sample_rate": sample_rate,
            "window_seconds": window_seconds,
            "hop_seconds": hop_seconds,
            "floor": floor,
            "sentence_mean": sentence_mean,
        }
        self.hop = round(hop_seconds * sample_rate)
        self.floor = floor
        self.sentence_mean = sentence_mean
        self.spec_augment = spec_augment
        window = round(window_seconds * sample_rate)
        self.n_fft = 1 << (window - 1).bit_length()
        mel = torchaudio.functional.melscale_fbanks(self.n_fft // 2 + 1, 20.0, sample_rate / 2, n_mels, sample_rate)
        # Constants, rebuilt from the arguments: not part of the weights.
        self.register_buffer("window", torch.hamming_window(window), persistent=False)
        self.register_buffer("mel", mel, persistent=False)

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        with torch.autocast(wave.device.type, enabled=False):
            spectrum = torch.stft(
                wave.float(),
                self.n_fft,
                self.hop,
                len(self.window),
                self.window,
                pad_mode="constant",
                return_complex=True,
            )
            power = torch.view_as_real(spectrum).square().sum(-1)  # (B, bins, frames)
            frames = (power.transpose(1, 2) @ self.mel + self.floor).log()  # (B, frames, n_mels)
            frames = frames - frames.mean(dim=1, keepdim=True) if self.sentence_mean else frames
            return self.spec_augment(frames) if self.spec_augment else frames


class SpeechBrainFbank(nn.Module):
    """SpeechBrain's own Fbank with its defaults, less each band's mean: (B, samples) -> (B, frames, n_mels).

    LogMel cannot equal it: its triangles begin at 0 Hz and are as wide above as below, its transform has 400 points,
    and nothing is more than 80 dB below the sentence's loudest value.

    >>> SpeechBrainFbank()(torch.randn(1, 16000)).shape
    torch.Size([1, 101, 80])
    """

    def __init__(self, n_mels: int = 80, sample_rate: int = 16000):
        super().__init__()
        from speechbrain.lobes.features import Fbank  # seconds to import: only when it is built

        check_frames(n_mels, sample_rate)
        check_rate(sample_rate, at_most=16000)  # at more, 25 ms are longer than its 400 points
        self.config = {"n_mels": n_mels, "sample_rate": sample_rate}
        self.fbank = Fbank(sample_rate=sample_rate, n_mels=n_mels)

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        with torch.autocast(wave.device.type, enabled=False):
            frames = self.fbank(wave.float())
            return frames - frames.mean(dim=1, keepdim=True)


class KaldiFbank(nn.Module):
    """Kaldi's log filterbank, 25 ms windows every 10 ms, less each band's mean: (B, samples) -> (B, frames, n_mels).

    The windows lie wholly in the sentence; bands begin at 20 Hz, pre-emphasis is 0.97, there is no dither. 3D-Speaker's
    window is povey and its samples are between -1 and 1; WeSpeaker's is hamming and its samples are those of 16 bits.

    >>> KaldiFbank()(torch.randn(1, 16000)).shape
    torch.Size([1, 98, 80])
    """

    window: Tensor
    mel: Tensor

    def __init__(self, n_mels: int = 80, sample_rate: int = 16000, window: str = "povey", scale: float = 1.0):
        super().__init__()
        if window not in ("povey", "hamming"):
            raise InputError(f"the window of Kaldi's filterbank is povey or hamming, not {window!r}")
        check_frames(n_mels, sample_rate)
        check_number("n_mels", n_mels, at_least=4)  # Kaldi's own limit
        check_number("scale", scale)
        self.config = {"n_mels": n_mels, "sample_rate": sample_rate, "window": window, "scale": scale}
        self.size = round(0.025 * sample_rate)
        self.hop = round(0.010 * sample_rate)
        self.scale = scale
        self.n_fft = 1 << (self.size - 1).bit_length()
        shape = (
            torch.hann_window(self.size, periodic=False) ** 0.85
            if window == "povey"
            else torch.hamming_window(self.size, periodic=False)
        )
        mel, _ = get_mel_banks(n_mels, self.n_fft, sample_rate, 20.0, 0.0, 100.0, -500.0, 1.0)
        # Constants, rebuilt from the arguments: not part of the weights.
        self.register_buffer("window", shape, persistent=False)
        self.register_buffer("mel", nn.functional.pad(mel, (0, 1)).T.contiguous(), persistent=False)

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        with torch.autocast(wave.device.type, enabled=False):
            pieces = (wave.float() * self.scale).unfold(1, self.size, self.hop)  # (B, frames, 400)
            pieces = pieces - pieces.mean(dim=2, keepdim=True)
            pieces = pieces - 0.97 * torch.cat([pieces[..., :1], pieces[..., :-1]], dim=2)
            spectrum = torch.fft.rfft(pieces * self.window, self.n_fft)
            power = torch.view_as_real(spectrum).square().sum(-1)
            frames = (power @ self.mel).clamp_min(torch.finfo(torch.float32).eps).log()
            return frames - frames.mean(dim=1, keepdim=True)


class SslsvMel(nn.Module):
    """sslsv's log of torchaudio's mel spectrogram, each band of variance 1: (B, samples) -> (B, frames, n_mels).

    `window` is hamming or, in older checkpoints, hann.

    >>> SslsvMel()(torch.randn(1, 16000)).shape
    torch.Size([1, 101, 40])
    """

    def __init__(self, n_mels: int = 40, sample_rate: int = 16000, window: str = "hamming", hop_seconds: float = 0.010):
        super().__init__()
        check_frames(n_mels, sample_rate, hop_seconds)
        if window not in ("hamming", "hann"):
            raise InputError(f"sslsv's window is hamming or hann, not {window!r}")
        self.n_mels = n_mels
        self.config = {"n_mels": n_mels, "sample_rate": sample_rate, "window": window, "hop_seconds": hop_seconds}
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate,
            n_fft=512,
            win_length=400,
            hop_length=round(hop_seconds * sample_rate),
            n_mels=n_mels,
            window_fn=torch.hamming_window if window == "hamming" else torch.hann_window,
        )
        for part, name in ((self.mel.spectrogram, "window"), (self.mel.mel_scale, "fb")):
            part.register_buffer(name, getattr(part, name), persistent=False)  # constants: not part of the weights

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        with torch.autocast(wave.device.type, enabled=False):
            return nn.functional.instance_norm((self.mel(wave.float()) + 1e-6).log()).transpose(1, 2)
