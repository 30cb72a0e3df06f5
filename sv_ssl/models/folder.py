"""The model folder: an embedder on disk as data, safe to load from a stranger.

    config.json            what the embedder is made of, how it was trained, its results
    model.safetensors      its weights
    README.md              the model card
    trained_on.hashes      which utterances it was trained on, where that is known (`training_list.py`)
    hyperparams.yaml, embedding_model.ckpt
                           for SpeechBrain's `EncoderClassifier.from_hparams(source=FOLDER)`; never read here

Loading builds the classes named in config.json from this package's own encoders and runs nothing from the folder.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import cast

import numpy as np
from safetensors import SafetensorError

from sv_ssl.core import distributed
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import read_text
from sv_ssl.core.json_file import read_object
from sv_ssl.models import gate, training_list
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.folder_swap import finish, replacing
from sv_ssl.models.for_speechbrain import hyperparams_yaml
from sv_ssl.models.onnx_file import load_onnx
from sv_ssl.models.registry import describe_part, part, with_name
from sv_ssl.models.weights import load_weights, save_weights

FORMAT = "sv_ssl model 1"


def save(
    folder: str | os.PathLike,
    embedder: Embedder,
    training: dict,
    results: dict | None = None,
    trained_on: np.ndarray | None = None,
) -> Path:
    """Write the model folder, whole or not at all; one that stands there is replaced.

    `training` says how it was made (name, corpus, seed, ...); `results` what was measured, as the card is to say it;
    `trained_on` from what, as `training_list.of` returns it.
    """
    config = {
        "format": FORMAT,
        "dim": embedder.dim,
        "sample_rate": embedder.sample_rate,
        "features": describe_part(embedder.features),
        "encoder": describe_part(embedder.encoder),
        "training": training,
        "results": results or {},
    }
    try:
        with replacing(folder) as new:
            (new / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            save_weights(embedder, new / "model.safetensors")
            shutil.copyfile(new / "model.safetensors", new / "embedding_model.ckpt")
            (new / "hyperparams.yaml").write_text(hyperparams_yaml(config), encoding="utf-8")
            (new / "README.md").write_text(card(config), encoding="utf-8", errors="backslashreplace")
            if trained_on is not None:
                training_list.write(new, trained_on)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write the model folder {folder}: {why}") from error
    return Path(folder)


def load(folder: str | os.PathLike, device: str = "cpu") -> Embedder:
    """Load the embedder of a model folder or of an .onnx file of `sv-export`, in eval mode; others are refused."""
    if os.fspath(folder).endswith(".onnx"):
        if device != "cpu":
            raise InputError(f"{folder} runs on the CPU, in float32: leave --device out, or load the model folder")
        return cast(Embedder, load_onnx(folder))
    embedder = gate.build(describe(folder), folder)
    load_weights(embedder, Path(folder) / "model.safetensors")
    return embedder.eval().to(distributed.device(device))


def renew(old: str | os.PathLike, new: str | os.PathLike) -> Embedder:
    """Write a model folder anew as `save` writes it today: the same weights, training and results.

    SpeechBrain cannot read folders whose hyperparams.yaml names modules that have moved since.
    """
    embedder, config = load(old), describe(old)
    card_path = Path(old) / "README.md"
    on_card = read_results(read_text(card_path, "a model card")) if card_path.exists() else {}
    save(new, embedder, config["training"], {**on_card, **config["results"]}, training_list.read(old))
    return embedder


def read_results(text: str) -> dict[str, str]:
    r"""Return the table of results of a model card.

    >>> read_results("# m\n\n## Training\n\n| seed | 3 |\n\n## Results\n\n| | |\n|---|---|\n| EER | 5 % |\n")
    {'EER': '5 %'}
    """
    lines = text.partition("\n## Results\n")[2].partition("\n## ")[0].splitlines()
    rows = (line.strip("| ").split(" | ", 1) for line in lines if line.startswith("| "))
    return {row[0]: row[1] for row in rows if len(row) == 2}


def fill(embedder: Embedder, folder: str | os.PathLike) -> None:
    """Load the weights of a model folder into an embedder of the same features and encoder."""
    there = describe(folder)
    for what, ours in (("features", embedder.features), ("encoder", embedder.encoder)):
        theirs, wanted = part(there, what, folder), describe_part(ours)
        if with_name(theirs) != wanted:
            raise InputError(
                f"--init_from {folder}: its {what} are {theirs}, this run's are {wanted}: choose the "
                "YAML and the sizes that it was trained with"
            )
    load_weights(embedder, Path(folder) / "model.safetensors")


def describe(folder: str | os.PathLike) -> dict:
    """Read the folder's config.json and check that it is one of ours."""
    with suppress(OSError):  # a folder that can only be read
        finish(folder)
    path = Path(folder) / "config.json"
    if not path.exists():
        raise InputError(f"{folder} is not a model folder: it has no config.json")
    config = read_object(path)
    if config.get("format") != FORMAT:
        raise InputError(f"{path} is not of the format {FORMAT!r}: it was made by another program or version")
    for key in ("training", "results"):
        if not isinstance(config.setdefault(key, {}), dict):
            raise InputError(f"{path} is damaged: {key} is no object, {{...}}")
    return config


def card(config: dict) -> str:
    """Return the model card: what it is, how it was trained, on what, and its error rates with their intervals."""
    training, results = config["training"], config["results"]
    rows = "".join(f"| {key} | {value} |\n" for key, value in training.items())
    measured = "".join(f"| {key} | {value} |\n" for key, value in results.items() if not isinstance(value, dict | list))
    return f"""# {training.get("name", "A speaker encoder")}

{config["encoder"]["name"]}: {config["sample_rate"]} Hz speech to {config["dim"]} numbers; two recordings are compared
by the cosine of theirs. Trained by sv_ssl.

```python
import sv_ssl
model = sv_ssl.load("FOLDER")           # this folder
model.verify("a.wav", "b.wav")          # a cosine: the higher, the likelier one speaker
model.embed("a.wav")                    # ({config["dim"]},) float32
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
