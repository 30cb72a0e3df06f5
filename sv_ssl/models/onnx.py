"""An embedder as one file that needs no sv_ssl: ONNX or TorchScript, features inside, checked against PyTorch.

    onnx.to_onnx(embedder, "model.onnx")           wave (1, samples) float32 -> embedding (1, dim)
    onnx.to_torchscript(embedder, "model.pt")      torch.jit.load("model.pt")(wave)

Utterances go in one by one, of any length: padding would change embeddings.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.core.seeds import torch_stream
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.onnx_file import FORMAT, load_onnx, need
from sv_ssl.models.registry import describe_part

LARGEST = 1e-4  # difference from PyTorch that is let pass, of embeddings of length one
SECONDS = (0.8, 1.7, 4.3)  # what is compared


def to_onnx(embedder: Embedder, path: str | os.PathLike) -> float:
    """Write an .onnx file if it gives the embedder's embeddings; return the largest difference from PyTorch."""
    need("onnx", "onnxruntime", "onnxscript")
    embedder = embedder.cpu().eval()
    wave = torch.randn(1, 2 * embedder.sample_rate)
    with atomic_write(path) as temporary:
        try:
            with _quiet():
                program: Any = torch.onnx.export(
                    embedder,
                    (wave,),
                    dynamo=True,
                    verbose=False,
                    opset_version=18,
                    input_names=["wave"],
                    output_names=["embedding"],
                    dynamic_shapes=({1: torch.export.Dim.DYNAMIC},),
                    custom_translation_table={torch.ops.aten.stft.default: _stft},
                )
                program.model.metadata_props["sv_ssl"] = json.dumps(_described(embedder))
                program.save(temporary)
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise InputError(
                f"{type(embedder.features).__name__} with {type(embedder.encoder).__name__} cannot be "
                f"written as ONNX by torch {torch.__version__}: {str(error).strip().splitlines()[0]}"
            ) from error
        try:
            made = load_onnx(temporary)
        except InputError as error:
            raise InputError(str(error).replace(os.fspath(temporary), f"{path} was not written: it")) from error
        return _checked(embedder, made, path)


def to_torchscript(embedder: Embedder, path: str | os.PathLike) -> float:
    """Write a traced module if it gives the embedder's embeddings; return the largest difference from PyTorch."""
    embedder = embedder.cpu().eval()
    with atomic_write(path) as temporary, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that tracing takes for constant: what matters is compared below
        traced = torch.jit.trace(embedder, torch.randn(1, 2 * embedder.sample_rate), check_trace=False)
        with open(temporary, "wb") as file:  # by its name it would want an ending, and abort where the disk is full
            torch.jit.save(traced, file)
        return _checked(embedder, torch.jit.load(temporary), path)


def _stft(
    self,
    n_fft: int,
    hop_length: int,
    win_length: int | None = None,
    window=None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
):
    """Write torch.stft of (B, samples) as one convolution: onnxruntime's own STFT takes as long as a small encoder."""
    import onnx.numpy_helper
    import onnxscript

    op: Any = onnxscript.opset18
    n_window = window.shape[0]
    left, bins = (n_fft - n_window) // 2, n_fft // 2 + 1  # the window stands in the middle of the frame
    turns = np.arange(bins)[:, None] * np.arange(left, left + n_window) % n_fft * (2 * np.pi / n_fft)
    waves = np.concatenate([np.cos(turns), -np.sin(turns)])[:, None].astype(np.float32)  # (2 * bins, 1, W)
    weight = op.Mul(op.Constant(value=onnx.numpy_helper.from_array(waves)), window)
    ends = [left + n_window - n_fft or 2**62]
    wave = op.Slice(
        op.Unsqueeze(self, op.Constant(value_ints=[1])),
        op.Constant(value_ints=[left]),
        op.Constant(value_ints=ends),
        op.Constant(value_ints=[2]),
    )
    frames = op.Conv(wave, weight, strides=[hop_length])  # (B, 2 * bins, T)
    return op.Transpose(op.Reshape(frames, op.Constant(value_ints=[0, 2, bins, -1])), perm=[0, 2, 3, 1])


def _described(embedder: Embedder) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "dim": embedder.dim,
        "sample_rate": embedder.sample_rate,
        "features": describe_part(embedder.features),
        "encoder": describe_part(embedder.encoder),
    }


@torch.no_grad()
def _checked(embedder: Embedder, made: Callable[[Tensor], Tensor], path: str | os.PathLike) -> float:
    """Embed random audio with both and return the largest difference; one that is too large is an error."""
    largest = 0.0
    for seconds in SECONDS:
        wave = 0.1 * torch.randn(1, round(seconds * embedder.sample_rate), generator=torch_stream(0, "compared audio"))
        ours, theirs = (nn.functional.normalize(model(wave)) for model in (embedder, made))
        largest = max(largest, float((ours - theirs).abs().max()))
    if not largest <= LARGEST:
        raise InputError(
            f"{path} was not written: its embeddings differ from PyTorch's by {largest:.2g}, more than {LARGEST:g}"
        )
    return largest


class _quiet(warnings.catch_warnings):
    """Keep the exporter's notes on its own workings from the screen."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
