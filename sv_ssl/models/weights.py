"""Weights on disk: safetensors, which are data and run nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sv_ssl.core.errors import InputError


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


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the tensors of a module to a file that others may read as any new file."""
    path.touch()  # save_file gives it to its owner alone
    mode = path.stat().st_mode
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(module).items()}, path)
    path.chmod(mode)


def load_weights(module: nn.Module, path: str | os.PathLike) -> None:
    """Fill a module from a safetensors file; every tensor must be there, of the right shape and finite."""
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    wanted = _tensors(module)
    if missing := sorted(wanted.keys() ^ weights.keys()):
        raise InputError(
            f"{path} does not fit config.json: {len(missing)} tensors are missing or not wanted, such as {missing[0]}"
        )
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            raise InputError(f"{path}: {name} is {tuple(tensor.shape)}, wanted {tuple(wanted[name].shape)}")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{path}: {name} holds values that are not finite")
    module.load_state_dict({**module.state_dict(), **weights})


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state without the counters of random streams, which are no tensors."""
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
