"""An embedder in the place of pyannote.audio's speaker-embedding model. pyannote.audio itself is not imported.

    pipeline = Pipeline.from_pretrained("pyannote/speaker-diarization-3.1")
    pipeline._embedding = SpeakerEmbedding("MODEL")

pyannote's own wrappers pad the shorter voices of a batch, which changes their embeddings; here each is embedded alone.
"""

from __future__ import annotations

import os
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from sv_ssl.embeddings.extraction import embed_wave
from sv_ssl.models import folder
from sv_ssl.models.embedder import Embedder

SHARE = 0.5  # of a sample's mask above which it is the speaker's


class SpeakerEmbedding:
    """Embed as pyannote's embedding models do: waveforms (B, 1, samples), masks (B, frames) -> (B, dimension).

    Of each waveform only the samples that its mask chooses are embedded, put together. One with fewer of them than
    `min_num_samples` is a row of NaN, which pyannote takes for "too short to tell".
    """

    metric = "cosine"

    def __init__(self, embedder: Embedder | str | os.PathLike, device: torch.device | str = "cpu"):
        self.embedder = embedder if isinstance(embedder, nn.Module) else folder.load(embedder)
        self.to(torch.device(device))

    def to(self, device: torch.device) -> SpeakerEmbedding:
        self.device = device
        self.embedder.to(device).eval()
        return self

    @property
    def sample_rate(self) -> int:
        return self.embedder.sample_rate

    @property
    def dimension(self) -> int:
        return self.embedder.dim

    @cached_property
    def min_num_samples(self) -> int:
        """Find the shortest waveform, to a hundredth of a second, that gives finite numbers."""
        step = self.sample_rate // 100
        return next(samples for samples in range(step, self.sample_rate + 1, step) if self._takes(samples))

    def _takes(self, samples: int) -> bool:
        try:
            return bool(np.isfinite(embed_wave(self.embedder, np.linspace(-0.1, 0.1, samples, dtype=np.float32))).all())
        except RuntimeError:
            return False

    def __call__(self, waveforms: Tensor, masks: Tensor | None = None) -> np.ndarray:
        if waveforms.ndim != 3 or waveforms.shape[1] != 1:
            raise ValueError(f"waveforms are of shape {tuple(waveforms.shape)}, wanted (B, 1, samples)")
        chosen = [wave[0] for wave in waveforms]
        if masks is not None:
            if len(masks) != len(waveforms):
                raise ValueError(f"{len(masks)} masks for {len(waveforms)} waveforms")
            spread = nn.functional.interpolate(masks[:, None].float(), size=waveforms.shape[2], mode="nearest")
            chosen = [wave[mask[0] > SHARE] for wave, mask in zip(chosen, spread)]
        rows = np.full((len(chosen), self.dimension), np.nan, np.float32)
        for row, wave in zip(rows, chosen):
            if len(wave) >= self.min_num_samples:
                row[:] = embed_wave(self.embedder, wave.float().cpu().numpy())
        return rows
