"""Weights on disk: safetensors, which are data and run nothing; and the one door to the torch files of others."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import check_ordinary

LONGEST_HEADER = 2**22  # bytes; a thousand tensors take a hundred thousand
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
Shapes = Mapping[str, tuple[int, ...]]


@contextmanager
def tensors_only() -> Iterator[None]:
    """Let every torch.load inside, a library's too, refuse what is no tensor and would run code.

    An environment variable of torch can turn that protection off where a caller does not ask for it; not here.
    """
    with_, without = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = {name: os.environ.pop(name) for name in (with_, without) if name in os.environ}
    os.environ[with_] = "1"
    try:
        yield
    finally:
        del os.environ[with_]
        os.environ.update(before)


def load_torch(path: str | os.PathLike, device: str = "cpu") -> Any:
    """Return what a file of torch.save holds: tensors, numbers and text; all else is refused, and no code is run."""
    check_ordinary(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # torch.save packs nothing: a small file would fill the memory
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise InputError(f"{path} is a compressed archive: unpack it, or save it again by torch.save")
    with tensors_only():
        return torch.load(path, map_location=device, weights_only=True)


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the tensors of a module to a file that others may read as any new file."""
    path.touch()  # save_file gives it to its owner alone
    mode = path.stat().st_mode
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(module).items()}, path)
    path.chmod(mode)


def load_weights(module: nn.Module, path: str | os.PathLike) -> None:
    """Fill a module from a safetensors file; every tensor must be there, of the right shape and finite."""
    wanted = _tensors(module)
    check_shapes(read_shapes(path), shapes(module), path)
    with _reading(path):
        weights = load_file(path)
    checked = {name: fit(tensor, wanted[name], f"{path}: {name}") for name, tensor in weights.items()}
    module.load_state_dict({**module.state_dict(), **checked})


def read_shapes(path: str | os.PathLike) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a safetensors file, which tell its memory: the tensors are not read."""
    check_ordinary(path)
    with _reading(path):
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            raise InputError(f"{path} cannot be read: its header is {length:,} bytes long, wanted {LONGEST_HEADER:,}")
        with safe_open(path, framework="pt") as opened:
            names = opened.keys()
            return {name: tuple(opened.get_slice(name).get_shape()) for name in names}


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a module."""
    return {name: tuple(tensor.shape) for name, tensor in _tensors(module).items()}


def check_shapes(found: Shapes, wanted: Shapes, path: str | os.PathLike) -> None:
    """Raise InputError unless a file has the tensors that config.json makes, with the same shapes."""
    if missing := sorted(wanted.keys() ^ found.keys()):
        raise InputError(
            f"{path} does not fit config.json: {len(missing)} tensors are missing or not wanted, such as {missing[0]!r}"
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise InputError(f"{path} does not fit config.json: {name} is {found[name]}, wanted {shape}")


def fit(tensor: Tensor, wanted: Tensor, where: str) -> Tensor:
    """Return a tensor as the type of the one whose place it takes; only finite numbers of its kind can be that."""
    kinds = FLOATS if wanted.is_floating_point() else INTEGERS
    if tensor.shape != wanted.shape or tensor.dtype not in kinds:
        came, needed = (f"{value.dtype} of shape {tuple(value.shape)}" for value in (tensor, wanted))
        raise InputError(f"{where} is {came}, wanted {needed}")
    cast = tensor.to(wanted.dtype)
    if not bool(cast.isfinite().all()):
        raise InputError(f"{where} holds values that are not finite")
    return cast


@contextmanager
def _reading(path: str | os.PathLike) -> Iterator[None]:
    """Turn what safetensors says of a file that it cannot read into one line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError) as error:  # the last two: a type that torch has not
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state without the counters of random streams, which are no tensors."""
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
