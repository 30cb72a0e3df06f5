"""Embeddings as tables and tensors: .parquet, .pt and .safetensors. `store` chooses and checks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write

Stored = tuple[list[str], Iterable[Any]]  # N ids, (N, D) or N vectors, as a file has them


def read_parquet(path: Path) -> Stored:
    from pyarrow import parquet, types

    table = parquet.ParquetFile(path, page_checksum_verification=True).read()
    kinds = {field.name: field.type for field in table.schema}
    named = _only("id", [n for n, kind in kinds.items() if types.is_string(kind) or types.is_large_string(kind)])
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    listed = _only("embedding", [n for n, kind in kinds.items() if any(is_list(kind) for is_list in lists)])
    numbered = _numbered([n for n, kind in kinds.items() if types.is_floating(kind)])
    if not named or not (listed or numbered) or not table.num_rows or table[named].null_count:
        columns = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise ValueError(f"it has {table.num_rows} rows of {columns}: none, empty cells, or unclear columns")
    ids = table[named].to_pylist()
    return ids, _lists(table[listed], ids) if listed else np.column_stack([table[name].to_numpy() for name in numbered])


def _only(usual: str, names: list[str]) -> str | None:
    return usual if usual in names else names[0] if len(names) == 1 else None


def _numbered(names: list[str]) -> list[str]:
    """Return names of columns in the order of the numbers that end them, or none if there is a gap."""
    parts = {name: re.fullmatch(r"(.*?)(\d+)", name) for name in names}
    ordered = sorted((int(part[2]), part[1], name) for name, part in parts.items() if part)
    numbers = [number for number, _, _ in ordered]
    whole = numbers == list(range(numbers[0], numbers[0] + len(names))) if ordered else False
    return [name for _, _, name in ordered] if whole and len({stem for _, stem, _ in ordered}) == 1 else []


def _lists(column: Any, ids: list[str]) -> np.ndarray:
    """Return pyarrow's column of N lists as (N, D)."""
    from pyarrow import compute

    lengths = compute.list_value_length(column).to_numpy()
    odd = (lengths != lengths[0]).argmax()
    if lengths[odd] != lengths[0]:
        raise ValueError(f"that of {ids[odd]} has {lengths[odd]:g} dimensions, that of {ids[0]} {lengths[0]:g}")
    numbers = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(numbers).reshape(len(ids), -1)


def write_parquet(path: Path, ids: list[str], rows: np.ndarray) -> None:
    import pyarrow
    from pyarrow import parquet

    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.reshape(-1)), rows.shape[1])
    with atomic_write(path) as temporary:
        table = pyarrow.table({"id": ids, "embedding": vectors})
        parquet.write_table(table, temporary, use_dictionary=False, write_page_checksum=True)


def read_pt(path: Path) -> Stored:
    loaded = torch_load(path)
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds a {type(loaded).__name__}")
    ids = list(loaded.get("ids", loaded))
    if not all(isinstance(i, str) for i in ids):
        raise ValueError("its ids are not text")
    if "ids" in loaded:
        return ids, to_array(loaded["embeddings"])
    return ids, map(to_array, loaded.values())


def torch_load(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:
        raise ValueError("it is damaged, or holds more than tensors and text (no code is run to read it)") from None


def to_array(tensor: Any) -> np.ndarray:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"it holds a {type(tensor).__name__} where a tensor is wanted")
    return (tensor.detach().float() if tensor.is_floating_point() else tensor).numpy()


def write_pt(path: Path, ids: list[str], rows: np.ndarray) -> None:
    import torch

    with atomic_write(path) as temporary:
        try:
            torch.save({"ids": ids, "embeddings": torch.tensor(rows)}, temporary)
        except RuntimeError:
            raise InputError(f"cannot write {path}: torch could not finish the file; is the disk full?") from None


def read_safetensors(path: Path) -> Stored:
    from safetensors.numpy import load_file

    vectors = load_file(path)
    return list(vectors), vectors.values()
