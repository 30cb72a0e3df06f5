"""The tensors of another toolkit's checkpoint: plain arrays by name, no larger than their file."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import check_ordinary
from sv_ssl.models.weights import load_torch


def tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the tensors of a torch or safetensors file by name, without the layers `model`, `state_dict` and `module.`.

    Nothing in the file is run.
    """
    loaded = _loaded(path)
    for layer in ("model", "state_dict"):
        loaded = loaded[layer] if isinstance(loaded, dict) and isinstance(loaded.get(layer), dict) else loaded
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(
            f"{path}: wanted a dictionary of tensors by name, perhaps under `model` or `state_dict`; it "
            f"holds {_kinds(loaded)}"
        )
    named = {str(name).removeprefix("module."): value for name, value in loaded.items()}
    if len(named) < len(loaded):
        raise InputError(f"{path} has tensors of one name, with and without `module.`: wanted each once")
    for name, value in named.items():
        _check_tensor(name, value, path)
    return named


def _loaded(path: str | os.PathLike) -> Any:
    """Return what a torch or safetensors file holds."""
    check_ordinary(path)
    try:
        try:
            return load_file(path)
        except SafetensorError:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickle's versions: what matters is said below
                return load_torch(path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception:  # a foreign file fails in any of a dozen ways
        raise InputError(
            f"{path} is damaged, or holds more than tensors, numbers and text (no code is run to read "
            "it): save it again as torch.save(model.state_dict(), PATH)"
        ) from None


def _check_tensor(name: str, value: Tensor, path: str | os.PathLike) -> None:
    """Raise InputError for a tensor that is no plain array, or claims more memory than its file has."""
    if value.layout != torch.strided or value.is_nested or value.is_quantized or value.device.type != "cpu":
        raise InputError(f"{path}: {name!r} is no plain tensor ({value.layout}, {value.dtype}, {value.device.type})")
    if value.numel() * value.element_size() > os.path.getsize(path):
        raise InputError(f"{path}: {name!r} claims the shape {tuple(value.shape)}, which is more than the file holds")
    if not name.isprintable():
        raise InputError(f"{path}: {name!r} is no name of a tensor")


def _kinds(loaded: Any) -> str:
    if not isinstance(loaded, dict):
        return f"a {type(loaded).__name__}"
    return (
        ", ".join(f"{str(name)[:60]!r} ({type(value).__name__})" for name, value in list(loaded.items())[:5])
        or "nothing"
    )
