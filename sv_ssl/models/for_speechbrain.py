"""A model folder as SpeechBrain's `EncoderClassifier.from_hparams(source=FOLDER)` reads it.

hyperparams.yaml names classes of `sv_ssl.speechbrain` alone, which stay where they are when modules move.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sv_ssl.models.registry import read_parts
from sv_ssl.models.weights import load_weights


class Unpadded(nn.Module):
    """Stand where SpeechBrain normalises features by relative lengths: ours are ready, and padding is refused."""

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        if bool((lengths < 1).any()):
            raise ValueError(
                "this batch is padded (a relative length is below 1) and padding changes embeddings: "
                "encode utterances one by one or in batches of equal length"
            )
        return frames


class ForSpeechBrain(nn.Module):
    """Call an encoder as SpeechBrain does: (B, T, F), relative lengths -> (B, 1, dim)."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        return self.encoder(frames).unsqueeze(1)


def load_for_speechbrain(module: ForSpeechBrain, path: str | os.PathLike) -> None:
    """Load the file that SpeechBrain's Pretrainer hands over with the module: safetensors in spite of its ending."""
    load_weights(module, path)


def hyperparams_yaml(config: Mapping[str, Any]) -> str:
    """Return the text of hyperparams.yaml for the model that a config.json describes."""
    (features, _, of_features), (encoder, _, of_encoder) = read_parts(config, "this model")
    return f"""# For SpeechBrain: EncoderClassifier.from_hparams(source=<this folder>).encode_batch(wavs)
# It needs sv_ssl to be installed.
compute_features: !new:sv_ssl.speechbrain.{features}
{_lines(of_features)}mean_var_norm: !new:sv_ssl.speechbrain.Unpadded
encoder: !new:sv_ssl.speechbrain.{encoder}
{_lines(of_encoder)}embedding_model: !new:sv_ssl.speechbrain.ForSpeechBrain
  encoder: !ref <encoder>
modules:
  compute_features: !ref <compute_features>
  mean_var_norm: !ref <mean_var_norm>
  embedding_model: !ref <embedding_model>
  classifier: !new:torch.nn.Identity
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  loadables:
    embedding_model: !ref <embedding_model>
  custom_hooks:
    embedding_model: !name:sv_ssl.speechbrain.load_for_speechbrain
"""


def _lines(arguments: Mapping[str, Any]) -> str:
    """Return the indented lines of a class's arguments; JSON's values are YAML's."""
    return "".join(f"  {key}: {json.dumps(value)}\n" for key, value in arguments.items())
