"""An .onnx file of `sv-export` in an embedder's place; one from a stranger is looked through before it is run.

What it is made of has to be as our exporter writes it: one file, no control flow, no functions, no operators but ONNX's
own, and no tensor that a second of audio makes huge. A size that the graph computes from the audio cannot be foretold.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from sv_ssl.core.errors import InputError, check_number
from sv_ssl.core.files import check_ordinary
from sv_ssl.core.json_file import parse_object
from sv_ssl.models.features import check_rate

FORMAT = "sv_ssl onnx 1"
MOST_VALUES = 2**26  # of a tensor, for a second of audio: a hundred times what a large encoder makes
GROWING = {"ConstantOfShape", "Expand", "EyeLike", "OneHot", "Resize", "Tile", "Upsample"}  # a number becomes a size


class OnnxEmbedder(nn.Module):
    """An .onnx file run by onnxruntime in an embedder's place: (B, samples) -> (B, dim), on the CPU."""

    def __init__(self, path: str | os.PathLike, threads: int = 1):
        super().__init__()
        self.path = os.path.abspath(path)
        self.threads = threads
        need("onnx", "onnxruntime")
        content = _read(path)
        described = _checked(content, path)
        self.dim, self.sample_rate = described["dim"], described["sample_rate"]
        self.features = SimpleNamespace(config=described["features"])
        self.encoder = SimpleNamespace(config=described["encoder"], dim=self.dim)
        self.session = _session(content, path, threads)
        # Tells one file from another where embeddings are kept by a model's weights.
        digest = hashlib.sha256(content).digest()
        self.register_buffer("content", torch.frombuffer(bytearray(digest), dtype=torch.uint8))

    def __reduce__(self) -> tuple[Callable, tuple[str, int]]:
        return load_onnx, (self.path, self.threads)  # a session cannot be sent to another process, its file can

    def forward(self, wave: Tensor) -> Tensor:
        return torch.cat([self._embed(row[None]) for row in wave.float().cpu()])

    def _embed(self, wave: Tensor) -> Tensor:
        """Embed one utterance: (1, samples) -> (1, dim)."""
        try:
            (row,) = self.session.run(None, {"wave": wave.numpy()})
        except Exception as error:  # onnxruntime's exceptions have no common class
            raise InputError(f"{self.path} cannot embed {wave.shape[1]:,} samples: {_line(error)}") from None
        if row.shape != (1, self.dim):
            raise InputError(f"{self.path} made an embedding of shape {row.shape}, wanted (1, {self.dim})")
        return torch.from_numpy(row)


def load_onnx(path: str | os.PathLike, threads: int = 1) -> OnnxEmbedder:
    """Load an .onnx file that `to_onnx` wrote; it has the `sample_rate`, `dim` and call of an Embedder."""
    return OnnxEmbedder(path, threads).eval()


def need(*packages: str) -> None:
    """Raise InputError that says what to install if one of these packages is not."""
    from importlib.util import find_spec

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise InputError(f"ONNX needs {' and '.join(missing)}: pip install 'sv_ssl[onnx]'")


def _read(path: str | os.PathLike) -> bytes:
    check_ordinary(path)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _session(content: bytes, path: str | os.PathLike, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.add_session_config_entry("session.load_model_format", "ONNX")  # and not onnxruntime's own, unchecked
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"{path} is not a whole ONNX model: {_line(error)}") from None


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


# ------------------------------------------------------------------------------------------------------- before it runs
def _checked(content: bytes, path: str | os.PathLike) -> dict[str, Any]:
    """Return what the file says of itself; raise InputError for what our exporter would not write."""
    import onnx

    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # protobuf's
        raise InputError(f"{path} is not a whole ONNX model: {_line(error)}") from None
    described = _described(model, path)
    if fault := next(_faults(model), ""):
        raise InputError(f"{path} is not as sv-export writes it and is not run: {fault}")
    _check_ends(model, described["dim"], path)
    _check_sizes(model, described["sample_rate"], path)
    return described


def _described(model: Any, path: str | os.PathLike) -> dict[str, Any]:
    """Return the metadata that `to_onnx` has put in."""
    text = {entry.key: entry.value for entry in model.metadata_props}.get("sv_ssl")
    described = parse_object(text, f"{path}: its metadata") if text else {}
    if described.get("format") != FORMAT:
        raise InputError(f"{path} was not written by sv-export of this version: its sample rate is unknown")
    try:
        check_number("dim", described.get("dim"), at_least=1, whole=True)
        check_rate(described.get("sample_rate", 0))
    except InputError as error:
        raise InputError(f"{path}: in its metadata {error}") from error
    for part in ("features", "encoder"):
        if not isinstance(described.get(part), dict):
            raise InputError(f"{path}: its metadata do not describe its {part}")
    return described


def _faults(model: Any) -> Iterator[str]:
    """Yield what our exporter does not write."""
    if model.functions:
        yield f"it has a function of its own, {model.functions[0].name!r}"
    if model.graph.sparse_initializer:
        yield "it has a sparse tensor"
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            yield f"the operator {node.op_type!r} is of {node.domain!r}"
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                yield f"it has control flow, {node.op_type!r}"
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                yield "it has a sparse tensor"
            tensors += [attribute.t, *attribute.tensors]
    for tensor in tensors:
        if tensor.data_location or tensor.external_data:
            yield f"the tensor {tensor.name!r} is in another file"


def _check_ends(model: Any, dim: int, path: str | os.PathLike) -> None:
    """Raise InputError unless a wave goes in, (1, any) float32, and an embedding comes out, (1, dim) float32."""
    wave, embedding = ([_end(value) for value in ends] for ends in (model.graph.input, model.graph.output))
    if wave != [("wave", 1, [1, 0])]:
        raise InputError(f"{path}: its input is {wave}, wanted a float32 'wave' of shape (1, any length)")
    if embedding != [("embedding", 1, [1, dim])]:
        raise InputError(f"{path}: its output is {embedding}, wanted a float32 'embedding' of shape (1, {dim})")


def _end(value: Any) -> tuple[str, int, list[int]]:
    """Return the name, the type (1 is float32) and the shape, 0 where it is free, of an input or output."""
    kind = value.type.tensor_type
    return value.name, kind.elem_type, [dim.dim_value for dim in kind.shape.dim]


def _check_sizes(model: Any, n_samples: int, path: str | os.PathLike) -> None:
    """Raise InputError for a tensor that `n_samples` make huge; the model is changed and of no use after it."""
    import onnx

    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = n_samples
    del model.graph.value_info[:]  # what it says itself
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 1024:  # no list of sizes: only its own shape is asked for
            tensor.ClearField("raw_data")
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # of half a dozen kinds
        raise InputError(f"{path}: its shapes contradict each other: {_line(error)}") from None
    sizes = {value.name: _size(value) for value in [*graph.value_info, *graph.output]}
    for node in graph.node:
        for name in node.output:
            size = sizes.get(name, 0)
            if size > MOST_VALUES or (node.op_type in GROWING and not size):
                count = f"{size:,}" if size else "an unknown number of"
                raise InputError(f"{path}: {node.op_type!r} makes {count} values of a second of audio: it is not run")


def _size(value: Any) -> int:
    """Return how many values a tensor has, 0 where that is not known."""
    return math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
