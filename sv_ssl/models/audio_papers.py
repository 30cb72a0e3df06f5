"""Encoders of the audio papers, and the features that two of them take: each with a preset for a CPU.

    Waveform      (B, samples) -> (B, samples, 1)            RawResNet18: CLAR's encoder of raw audio
    ThreeSpectra  (B, samples) -> (B, frames, 3 * n_mels)    ResNet18, channels=3: CLAR's encoder of spectra
    LogMel        (B, samples) -> (B, frames, n_mels)        ResNet18: ACL's; AST: the transformer of the ADD paper
    Waveform      (B, samples) -> (B, samples, 1)            Pretrained: one that `transformers` loads; BEATs

The contract is that of `models.embedder`: (B, T, F) -> (B, dim), and `config` holds what rebuilds it.
"""

from __future__ import annotations

import math
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.models.features import check_frames, check_rate
from sv_ssl.models.presets import preset
from sv_ssl.models.resnet import stages
from sv_ssl.models.weights import tensors_only


class Waveform(nn.Module):
    """Pass samples on as they are, in float32: (B, samples) -> (B, samples, 1).

    >>> Waveform()(torch.zeros(2, 16000)).shape
    torch.Size([2, 16000, 1])
    """

    def __init__(self, sample_rate: int = 16000):
        super().__init__()
        check_rate(sample_rate)
        self.config = {"sample_rate": sample_rate}

    def forward(self, wave: Tensor) -> Tensor:
        return wave.float().unsqueeze(2)


class ThreeSpectra(nn.Module):
    """Log-magnitude, phase (of pi) and log-mel, `n_mels` bands of each: (B, samples) -> (B, frames, 3 * n_mels).

    Bands go from 40 Hz to 8 kHz, evenly on a logarithmic axis for the first two. The two logarithms have mean 0 over
    the clip: its level does not matter, while its spectrum, unlike `LogMel`'s, stays as it is.

    >>> ThreeSpectra(n_mels=64)(torch.randn(2, 16000)).shape
    torch.Size([2, 126, 192])
    """

    channels = 3
    kernel: Tensor
    window: Tensor
    mel: Tensor

    def __init__(
        self,
        n_mels: int = 128,
        sample_rate: int = 16000,
        window_seconds: float = 0.128,
        hop_seconds: float = 0.008,
        floor: float = 1e-6,
    ):
        super().__init__()
        check_frames(n_mels, sample_rate, hop_seconds, window_seconds, floor)
        self.config = {
            "n_mels": n_mels,
            "sample_rate": sample_rate,
            "window_seconds": window_seconds,
            "hop_seconds": hop_seconds,
            "floor": floor,
        }
        self.hop, self.floor = round(hop_seconds * sample_rate), floor
        n_samples, top = round(window_seconds * sample_rate), min(8000.0, sample_rate / 2)
        window = torch.hann_window(n_samples)
        turns = torch.logspace(math.log2(40), math.log2(top), n_mels, base=2, dtype=torch.float64) / sample_rate
        angles = 2 * math.pi * (torch.arange(n_samples)[:, None] * turns).remainder(1).float()  # (n_samples, n_mels)
        kernel = torch.cat([angles.cos(), -angles.sin()], dim=1) * window[:, None]
        mel = torchaudio.functional.melscale_fbanks(n_samples // 2 + 1, 40.0, top, n_mels, sample_rate)
        # Constants, rebuilt from the arguments: not part of the weights.
        for name, constant in (("window", window), ("kernel", kernel), ("mel", mel)):
            self.register_buffer(name, constant, persistent=False)

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        with torch.autocast(wave.device.type, enabled=False):
            n_samples = len(self.window)
            frames = F.pad(wave.float(), (n_samples // 2, n_samples - n_samples // 2)).unfold(1, n_samples, self.hop)
            real, imaginary = (frames @ self.kernel).chunk(2, dim=2)
            magnitude = (real.square() + imaginary.square() + self.floor).log() / 2
            power = torch.fft.rfft(frames * self.window).abs().square()
            log_mel = (power @ self.mel + self.floor).log()
            level = [spectrum - spectrum.mean(dim=(1, 2), keepdim=True) for spectrum in (magnitude, log_mel)]
            return torch.cat([level[0], torch.atan2(imaginary, real) / math.pi, level[1]], dim=2)


class ResNet18(nn.Module):
    """ResNet-18 with an average over time and frequency: (B, T, channels * n_mels) -> (B, dim).

    >>> ResNet18(n_mels=64, channels=3, size="small")(torch.randn(2, 100, 192)).shape
    torch.Size([2, 128])
    """

    SIZES = {"paper": (64, 128, 256, 512), "small": (16, 32, 64, 128), "tiny": (8, 16, 32, 64)}

    def __init__(self, n_mels: int = 128, channels: int = 1, size: str = "paper"):
        super().__init__()
        self.config = {"n_mels": n_mels, "channels": channels, "size": size}
        widths = preset(self.SIZES, size, "ResNet18")
        self.dim = widths[-1]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 7, 2, 3, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.blocks = stages(widths, (2, 2, 2, 2), (1, 2, 2, 2), fast=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, frames: Tensor) -> Tensor:
        image = frames.unflatten(2, (self.config["channels"], -1)).permute(0, 2, 3, 1)  # (B, channels, n_mels, T)
        return self.blocks(self.stem(image)).mean(dim=(2, 3))


class RawBlock(nn.Module):
    """Two convolutions along time and a shortcut: (B, C, T) -> (B, C', T')."""

    KERNEL = 9

    def __init__(self, inputs: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, channels, self.KERNEL, stride, self.KERNEL // 2, bias=False)
        self.bn1 = nn.BatchNorm1d(channels)
        self.conv2 = nn.Conv1d(channels, channels, self.KERNEL, 1, self.KERNEL // 2, bias=False)
        self.bn2 = nn.BatchNorm1d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != channels:
            self.shortcut = nn.Sequential(nn.Conv1d(inputs, channels, 1, stride, bias=False), nn.BatchNorm1d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class RawResNet18(nn.Module):
    """ResNet-18 along time, kernels of 9 samples: (B, samples, 1) -> (B, dim).

    >>> RawResNet18("small")(torch.randn(2, 16000, 1)).shape
    torch.Size([2, 128])
    """

    SIZES = {
        "paper": dict(widths=(64, 128, 256, 512), stem=2),
        "small": dict(widths=(16, 32, 64, 128), stem=4),
        "tiny": dict(widths=(16, 16, 32, 64), stem=8),
    }

    def __init__(self, size: str = "paper"):
        super().__init__()
        self.config = {"size": size}
        sizes = preset(self.SIZES, size, "RawResNet18")
        widths, stem = sizes["widths"], sizes["stem"]
        self.dim = widths[-1]
        self.stem = nn.Sequential(
            nn.Conv1d(1, widths[0], RawBlock.KERNEL, stem, RawBlock.KERNEL // 2, bias=False),
            nn.BatchNorm1d(widths[0]),
            nn.ReLU(),
            nn.MaxPool1d(3, stem, 1),
        )
        shapes = zip((widths[0], *widths[:-1]), widths, (1, 2, 2, 2))
        blocks: list[nn.Module] = []
        for inputs, width, stride in shapes:
            blocks += [RawBlock(inputs, width, stride), RawBlock(width, width, 1)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, frames: Tensor) -> Tensor:
        return self.blocks(self.stem(frames.transpose(1, 2))).mean(dim=2)


class AST(nn.Module):
    """A transformer over patches of the spectrogram (Gong et al. 2021), for any length: (B, T, n_mels) -> (B, dim).

    Where a patch lies is given by a learnt vector for its bands and a fixed one (sines) for its time.

    >>> AST(n_mels=40, size="small")(torch.randn(2, 100, 40)).shape
    torch.Size([2, 192])
    """

    PATCH = 16
    SIZES = {
        "paper": dict(dim=768, depth=12, heads=12, stride=10),
        "small": dict(dim=192, depth=4, heads=3, stride=16),
        "tiny": dict(dim=96, depth=3, heads=3, stride=16),
    }

    def __init__(self, n_mels: int = 128, size: str = "paper"):
        super().__init__()
        self.config = {"n_mels": n_mels, "size": size}
        s = preset(self.SIZES, size, "AST")
        self.dim, self.stride = s["dim"], s["stride"]
        self.patches = nn.Conv2d(1, self.dim, self.PATCH, self.stride)
        bands = 1 + (n_mels + self._missing(n_mels) - self.PATCH) // self.stride
        self.band = nn.Parameter(0.02 * torch.randn(bands, 1, self.dim))
        layer = nn.TransformerEncoderLayer(
            self.dim, s["heads"], 4 * self.dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, s["depth"], nn.LayerNorm(self.dim), enable_nested_tensor=False)

    def _missing(self, length: int) -> int:
        """Return what lacks to a whole number of patches."""
        return (self.PATCH - length) if length < self.PATCH else (self.PATCH - length) % self.stride

    def forward(self, frames: Tensor) -> Tensor:
        n_frames, n_mels = frames.shape[1:]
        image = F.pad(frames, (0, self._missing(n_mels), 0, self._missing(n_frames))).transpose(1, 2)
        tokens = self.patches(image.unsqueeze(1)).permute(0, 2, 3, 1)  # (B, bands, times, dim)
        tokens = tokens + self.band + _sines(tokens.shape[2], self.dim).to(tokens.device)
        return self.layers(tokens.flatten(1, 2)).mean(dim=1)


def _sines(n: int, dim: int) -> Tensor:
    """Return sines and cosines of n places, from one that turns at every place to one that hardly does: (n, dim)."""
    speed = 10000.0 ** (-torch.arange(0, dim, 2) / dim)
    angle = torch.arange(n)[:, None] * speed
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class Pretrained(nn.Module):
    """An encoder of audio from a folder in the format of `transformers`, such as AST: (B, samples, 1) -> (B, dim).

    Its own feature extractor goes before it, and the mean over what it puts out for each place follows. Weights are
    read from safetensors, and no code from the folder is run. A model folder made of it names this one, which has to be
    there when it is loaded.
    """

    def __init__(self, folder: str | None = None, sample_rate: int = 16000):
        super().__init__()
        if folder is None or not (Path(folder) / "config.json").is_file():
            raise InputError(
                f"encoder_folder is {folder}: want a folder with the config.json, preprocessor_config.json and "
                "model.safetensors of an encoder, such as AST's; it is not downloaded"
            )
        try:
            from transformers import AutoFeatureExtractor, AutoModel
        except ImportError as error:
            raise InputError(
                f'{folder} is read by transformers, which is not installed: pip install "sv_ssl[audio]"'
            ) from error
        safely = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.extract = AutoFeatureExtractor.from_pretrained(folder, **safely)
            self.model = AutoModel.from_pretrained(folder, use_safetensors=True, **safely)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{folder} is no encoder that transformers can load: {str(error).splitlines()[0]}"
            ) from error
        self.config = {"folder": str(folder), "sample_rate": sample_rate}
        self.dim = self.model.config.hidden_size

    def forward(self, frames: Tensor) -> Tensor:
        waves = list(frames[:, :, 0].detach().float().cpu().numpy())
        made = self.extract(waves, sampling_rate=self.config["sample_rate"], return_tensors="pt")
        return self.model(made["input_values"].to(frames.device)).last_hidden_state.mean(dim=1)


class BEATs(nn.Module):
    """BEATs (Chen et al. 2022) from its checkpoint, which `transformers` does not read: (B, samples, 1) -> (B, dim).

    The network is SpeechBrain's, with its features before it (log-mel of Povey windows), and the mean over the patches
    follows; the AudioSet classes of a fine-tuned checkpoint are left out. A model folder made of it names the
    checkpoint, which has to be there when it is loaded.
    """

    def __init__(self, checkpoint: str | None = None):
        super().__init__()
        if checkpoint is None or not Path(checkpoint).is_file():
            raise InputError(
                f"encoder_checkpoint is {checkpoint}: want a checkpoint of BEATs, a .pt file such as "
                "BEATs_iter3_plus_AS2M.pt; it is not downloaded"
            )
        from speechbrain.lobes.models import beats

        try:
            with tensors_only():  # no code of the checkpoint is run
                torch.load(checkpoint, "cpu", mmap=True)["model"]  # SpeechBrain would take weights that it has drawn
                self.model = beats.BEATs(str(checkpoint), freeze=False)
        except (RuntimeError, EOFError, AttributeError, LookupError, TypeError, ValueError, UnpicklingError) as error:
            raise InputError(f"{checkpoint} is no checkpoint of BEATs: {str(error).partition(chr(10))[0]}") from error
        self.model.predictor = None
        self.config = {"checkpoint": str(checkpoint)}
        self.dim = self.model.cfg.encoder_embed_dim

    def forward(self, frames: Tensor) -> Tensor:
        whole = frames.new_ones(len(frames))
        return self.model.extract_features(frames[:, :, 0], whole)[0].mean(dim=1)
