"""The model folder: an embedder on disk as data, safe to load from a stranger.

    config.json            what the embedder is made of, how it was trained, its results
    model.safetensors      its weights
    README.md              the model card
    hyperparams.yaml, embedding_model.ckpt
                           for SpeechBrain's `EncoderClassifier.from_hparams(source=FOLDER)`; never read here

Loading builds the classes named in config.json from this package's own encoders and runs nothing from the folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sv_ssl.core import distributed
from sv_ssl.core.errors import InputError
from sv_ssl.models import audio_papers, encoders, onnx, peer_resnet
from sv_ssl.models.audio_papers import ThreeSpectra, Waveform
from sv_ssl.models.encoders import Embedder
from sv_ssl.models.features import KaldiFbank, LogMel, SpeechBrainFbank, SslsvMel

FORMAT = "sv_ssl model 1"
FEATURES: dict[str, type] = {
    kind.__name__: kind for kind in (LogMel, Waveform, ThreeSpectra, SpeechBrainFbank, KaldiFbank, SslsvMel)
}
ENCODERS: dict[str, type] = {
    name: getattr(module, name) for module in (encoders, audio_papers, peer_resnet) for name in module.__all__
}


def save(folder: str | os.PathLike, embedder: Embedder, training: dict, results: dict | None = None) -> Path:
    """Write the model folder, whole or not at all; one that stands there is replaced.

    `training` tells how it was made (name, corpus, seed, ...); `results` what was measured, as the card is to say it.
    """
    folder = Path(folder)
    new = folder.with_name(f".{folder.name}-new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        config = {
            "format": FORMAT,
            "dim": embedder.dim,
            "sample_rate": embedder.sample_rate,
            "features": {"name": type(embedder.features).__name__, **embedder.features.config},
            "encoder": {"name": type(embedder.encoder).__name__, **embedder.encoder.config},
            "training": training,
            "results": results or {},
        }
        (new / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        state = embedder.state_dict()  # counters of random streams are no tensors
        weights = {k: v.detach().cpu().contiguous() for k, v in state.items() if isinstance(v, Tensor)}
        save_file(weights, new / "model.safetensors")
        shutil.copyfile(new / "model.safetensors", new / "embedding_model.ckpt")
        (new / "hyperparams.yaml").write_text(speechbrain_yaml(config))
        (new / "README.md").write_text(card(config))
        _replace(folder, new)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write the model folder {folder}: {why}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _replace(folder: Path, new: Path) -> None:
    """Put `new` in `folder`'s place; the old one is moved away first because a full folder cannot be renamed over."""
    old = new.with_name(new.name + "-old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: str | os.PathLike, device: str = "cpu") -> Embedder:
    """The embedder of a model folder or of an .onnx file of `sv-export`, in eval mode; others are refused, with why."""
    if os.fspath(folder).endswith(".onnx"):
        if device != "cpu":
            raise InputError(f"{folder} runs on the CPU, in float32: leave --device out, or load the model folder")
        return cast(Embedder, onnx.load_onnx(folder))
    config = describe(folder)
    try:
        embedder = Embedder(*(kind(**arguments) for kind, arguments in _parts(config, folder)))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise InputError(f"{folder}/config.json does not describe an embedder of this version: {error}") from error
    load_weights(embedder, Path(folder) / "model.safetensors")
    return embedder.eval().to(distributed.device(device))


def _parts(config: dict, folder: str | os.PathLike) -> Iterator[tuple[type, dict]]:
    """The classes and arguments of the features, which are `LogMel` where they have no name, and of the encoder."""
    for what, kinds in (("features", FEATURES), ("encoder", ENCODERS)):
        arguments = {"name": "LogMel", **config[what]}
        name = arguments.pop("name")
        if name not in kinds:
            raise InputError(f"{folder}: the {what} {name!r} is not one of {', '.join(kinds)}")
        yield kinds[name], arguments


def fill(embedder: Embedder, folder: str | os.PathLike) -> None:
    """Load the weights of a model folder into an embedder of the same features and encoder."""
    there = describe(folder)
    for what, part in (("features", embedder.features), ("encoder", embedder.encoder)):
        wanted = {"name": type(part).__name__, **part.config}
        if {"name": "LogMel", **there[what]} != wanted:
            raise InputError(
                f"--init_from {folder}: its {what} are {there[what]}, this run's are {wanted}: choose the "
                "YAML and the sizes that it was trained with"
            )
    load_weights(embedder, Path(folder) / "model.safetensors")


def describe(folder: str | os.PathLike) -> dict:
    """The folder's config.json, checked to be one of ours."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} is not a model folder: it has no config.json")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path} is not of the format {FORMAT!r}: it was made by another program or version")
    return config


def load_weights(module: nn.Module, path: str | os.PathLike) -> None:
    """Fill `module` from a safetensors file; every tensor must be there, of the right shape and finite."""
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    state = module.state_dict()
    wanted = {name: value for name, value in state.items() if isinstance(value, Tensor)}  # no counters of streams
    if missing := sorted(wanted.keys() ^ weights.keys()):
        raise InputError(
            f"{path} does not fit config.json: {len(missing)} tensors are missing or not wanted, such as {missing[0]}"
        )
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            raise InputError(f"{path}: {name} is {tuple(tensor.shape)}, wanted {tuple(wanted[name].shape)}")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{path}: {name} holds values that are not finite")
    module.load_state_dict({**state, **weights})


class Unpadded(nn.Module):
    """Where SpeechBrain normalises features with relative lengths: ours are ready, and padding is refused."""

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        if bool((lengths < 1).any()):
            raise ValueError(
                "this batch is padded (a relative length is below 1) and padding changes embeddings: "
                "encode utterances one by one or in batches of equal length"
            )
        return frames


class ForSpeechBrain(nn.Module):
    """The encoder as SpeechBrain calls it: (B, T, F), relative lengths -> (B, 1, dim)."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        return self.encoder(frames).unsqueeze(1)


def load_for_speechbrain(module: ForSpeechBrain, path: str | os.PathLike) -> None:
    """SpeechBrain's Pretrainer hands over the module and the file (safetensors in spite of its ending)."""
    load_weights(module, path)


def speechbrain_yaml(config: dict) -> str:
    """hyperparams.yaml for `EncoderClassifier.from_hparams`; it needs sv_ssl to be installed."""

    def lines(arguments: dict, indent: int) -> str:
        return "".join(f"{' ' * indent}{key}: {value}\n" for key, value in arguments.items())

    (features, of_features), (encoder, of_encoder) = _parts(config, "this model")
    return f"""# For SpeechBrain: EncoderClassifier.from_hparams(source=<this folder>).encode_batch(wavs)
compute_features: !new:{features.__module__}.{features.__name__}
{lines(of_features, 2)}mean_var_norm: !new:sv_ssl.models.folder.Unpadded
encoder: !new:{encoder.__module__}.{encoder.__name__}
{lines(of_encoder, 2)}embedding_model: !new:sv_ssl.models.folder.ForSpeechBrain
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
    embedding_model: !name:sv_ssl.models.folder.load_for_speechbrain
"""


def card(config: dict) -> str:
    """The model card: what it is, how it was trained, on what, and its error rates with their intervals."""
    training, results = config["training"], config["results"]
    rows = "".join(f"| {key} | {value} |\n" for key, value in training.items())
    measured = "".join(f"| {key} | {value} |\n" for key, value in results.items() if not isinstance(value, dict | list))
    return f"""# {training.get("name", "A speaker encoder")}

{config["encoder"]["name"]}: {config["sample_rate"]} Hz speech to {config["dim"]} numbers; two recordings are compared
by the cosine of theirs. Trained by sv_ssl.

```python
from sv_ssl import model
embedder = model.load("FOLDER")     # this folder
```

## Training

| | |
|---|---|
{rows}
## Results

| | |
|---|---|
{measured}
A threshold belongs to a corpus: set it on recordings like yours. Voices are personal data, and error rates differ
between groups of speakers: measure on the people it will be used on.
"""
