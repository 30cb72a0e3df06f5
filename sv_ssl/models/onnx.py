"""An embedder as one file that needs no sv_ssl: ONNX or TorchScript, features inside, checked against PyTorch.

    onnx.to_onnx(embedder, "model.onnx")           wave (1, samples) float32 -> embedding (1, dim)
    onnx.to_torchscript(embedder, "model.pt")      torch.jit.load("model.pt")(wave)
    onnx.load_onnx("model.onnx")                   what sv_ssl embeds with, run by onnxruntime

Utterances go in one by one, of any length: padding would change embeddings.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.core.seeds import torch_stream
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.registry import describe_part

FORMAT = "sv_ssl onnx 1"
LARGEST = 1e-4  # difference from PyTorch that is let pass, of embeddings of length one
SECONDS = (0.8, 1.7, 4.3)  # what is compared


def to_onnx(embedder: Embedder, path: str | os.PathLike) -> float:
    """Write an .onnx file if it gives the embedder's embeddings; return the largest difference from PyTorch."""
    _need("onnx", "onnxruntime", "onnxscript")
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
        return _checked(embedder, load_onnx(temporary), path)


def to_torchscript(embedder: Embedder, path: str | os.PathLike) -> float:
    """Write a traced module if it gives the embedder's embeddings; return the largest difference from PyTorch."""
    embedder = embedder.cpu().eval()
    with atomic_write(path) as temporary, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that tracing takes for constant: what matters is compared below
        traced = torch.jit.trace(embedder, torch.randn(1, 2 * embedder.sample_rate), check_trace=False)
        with open(temporary, "wb") as file:  # by its name it would want an ending, and abort where the disk is full
            torch.jit.save(traced, file)
        return _checked(embedder, torch.jit.load(temporary), path)


class OnnxEmbedder(nn.Module):
    """An .onnx file run by onnxruntime in an embedder's place: (B, samples) -> (B, dim), on the CPU."""

    def __init__(self, path: str | os.PathLike, threads: int = 1):
        super().__init__()
        self.path = os.path.abspath(path)
        self.threads = threads
        self.session = _session(path, threads)
        text = self.session.get_modelmeta().custom_metadata_map.get("sv_ssl")
        described = json.loads(text) if text else {}
        if described.get("format") != FORMAT:
            raise InputError(f"{path} was not written by sv-export of this version: its sample rate is unknown")
        self.dim, self.sample_rate = int(described["dim"]), int(described["sample_rate"])
        self.features = SimpleNamespace(config=described["features"])
        self.encoder = SimpleNamespace(config=described["encoder"], dim=self.dim)
        # Tells one file from another where embeddings are kept by a model's weights.
        digest = hashlib.sha256(Path(path).read_bytes()).digest()
        self.register_buffer("content", torch.frombuffer(bytearray(digest), dtype=torch.uint8))

    def __reduce__(self) -> tuple[Callable, tuple[str, int]]:
        return load_onnx, (self.path, self.threads)  # a session cannot be sent to another process, its file can

    def forward(self, wave: Tensor) -> Tensor:
        rows = [self.session.run(None, {"wave": row[None].numpy()})[0] for row in wave.float().cpu()]
        return torch.cat([torch.from_numpy(row) for row in rows])


def load_onnx(path: str | os.PathLike, threads: int = 1) -> OnnxEmbedder:
    """Load an .onnx file that `to_onnx` wrote; it has the `sample_rate`, `dim` and call of an Embedder."""
    return OnnxEmbedder(path, threads).eval()


def _session(path: str | os.PathLike, threads: int) -> Any:
    _need("onnxruntime")
    import onnxruntime

    if not os.path.isfile(path):
        raise InputError(f"cannot read {path}: No such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise InputError(f"{path} is not a whole ONNX model: {str(error).splitlines()[0]}") from None


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


def _need(*packages: str) -> None:
    from importlib.util import find_spec

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise InputError(f"ONNX needs {' and '.join(missing)}: pip install 'sv_ssl[onnx]'")


class _quiet(warnings.catch_warnings):
    """Keep the exporter's notes on its own workings from the screen."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
