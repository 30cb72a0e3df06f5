"""A stranger's config.json to an embedder: nothing is built that is larger than the weights beside it are.

Front ends have no weights: their constructors bound what they take. An encoder is outlined on the device "meta", which
takes no memory, and built only where each tensor has the shape that the header of model.safetensors gives.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sv_ssl.core.errors import InputError
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.registry import SIZED_ELSEWHERE, describe_part, read_parts
from sv_ssl.models.weights import check_shapes, read_shapes, shapes


def build(config: Mapping[str, Any], folder: str | os.PathLike) -> Embedder:
    """Build the embedder that a config.json describes, without its weights but of their sizes."""
    (_, features, of_features), (name, encoder, of_encoder) = read_parts(config, folder)
    weights = Path(folder) / "model.safetensors"
    if name not in SIZED_ELSEWHERE:
        with _refusing(folder), torch.device("meta"):
            wanted = shapes(nn.ModuleDict({"encoder": encoder(**of_encoder)}))
        found = {name: shape for name, shape in read_shapes(weights).items() if name.startswith("encoder.")}
        check_shapes(found, wanted, weights)
    with _refusing(folder):
        embedder = Embedder(features(**of_features), encoder(**of_encoder))
    _check_told(config, embedder, folder)
    return embedder


@contextmanager
def _refusing(folder: str | os.PathLike) -> Iterator[None]:
    """Turn what a constructor says of arguments that it cannot take into one line."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    except (TypeError, ValueError, RuntimeError, ArithmeticError, AssertionError, LookupError, OSError) as error:
        why = str(error).strip().partition("\n")[0]
        raise InputError(f"{folder}/config.json does not describe an embedder of this version: {why}") from error


def _check_told(config: Mapping[str, Any], embedder: Embedder, folder: str | os.PathLike) -> None:
    """Raise InputError where config.json says what the embedder is not."""
    for part in ("features", "encoder"):
        if unknown := sorted(config[part].keys() - describe_part(getattr(embedder, part)).keys()):
            raise InputError(f"{folder}/config.json: the {part} of a model folder have no {unknown[0]!r}")
    for key in ("dim", "sample_rate"):
        ours = getattr(embedder, key)
        if config.get(key, ours) != ours:
            raise InputError(f"{folder}/config.json: {key} is {config[key]!r}, its parts give {ours}")
