"""Embeddings as tables and tensors: .parquet, .pt and .safetensors. `store` chooses and checks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.embeddings import claims

HEADER = 1 << 24  # bytes of a safetensors that may say what it holds, in any case
Stored = tuple[list[str], Iterable[Any]]  # N ids, (N, D) or N vectors, as a file has them


def read_parquet(path: Path) -> Stored:
    from pyarrow import parquet, types

    schema = parquet.read_schema(path)
    kinds = {field.name: field.type for field in schema}
    named = _only("id", [n for n, kind in kinds.items() if types.is_string(kind) or types.is_large_string(kind)])
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    listed = _only("embedding", [n for n, kind in kinds.items() if any(is_list(kind) for is_list in lists)])
    numbered = _numbered([n for n, kind in kinds.items() if types.is_floating(kind)])
    # As a dictionary: a long text may stand in the file once and in a billion rows.
    file = parquet.ParquetFile(path, page_checksum_verification=True, read_dictionary=[named] if named else None)
    held = path.stat().st_size
    claims.check(_claimed(file), held, claims.PACKED)
    columns = [named, listed] if named and listed else [named, *numbered] if named else []
    table = file.read(columns)
    if not named or not (listed or numbered) or not table.num_rows or table[named].null_count:
        found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise ValueError(f"it has {table.num_rows} rows of {found}: none, empty cells, or unclear columns")
    ids = _texts(table[named], held)
    return ids, _lists(table[listed], ids) if listed else np.column_stack([table[name].to_numpy() for name in numbered])


def _claimed(file: Any) -> int:
    """Return how many bytes a parquet file would become, by what is said of its pages, values and widths."""
    from pyarrow import types

    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    values = sum(group.column(number).num_values for group in groups for number in range(group.num_columns))
    widths = [field.type.list_size for field in file.schema_arrow if types.is_fixed_size_list(field.type)]
    pages = sum(group.total_byte_size for group in groups)
    return max(pages, 8 * values, 8 * file.metadata.num_rows * max(widths, default=1))


def _texts(column: Any, held: int) -> list[str]:
    """Return a column of texts that was read as dictionaries, unless they are far longer than its file."""
    from pyarrow import compute

    lengths = [compute.binary_length(chunk.dictionary).take(chunk.indices) for chunk in column.chunks]
    claims.check(sum(compute.sum(one).as_py() for one in lengths), held, claims.PACKED)
    return column.cast(column.type.value_type).to_pylist()


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
    tensors = [loaded["embeddings"]] if "ids" in loaded else list(loaded.values())
    claims.check(sum(map(_bytes_of, tensors)), path.stat().st_size)  # many may show the same numbers
    return ids, to_array(tensors[0]) if "ids" in loaded else map(to_array, tensors)


def torch_load(path: Path) -> Any:
    import torch

    try:
        _check_pt(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's, on forms that it no longer likes
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:
        raise ValueError("it is damaged, or holds more than tensors and text (no code is run to read it)") from None


def _check_pt(path: Path) -> None:
    """Raise ValueError for what torch.save never writes, and torch.load takes any memory for."""
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        if content.find(b"\nbytearray\n") >= 0:  # of a length that is named: it is filled at once
            raise ValueError("it holds a bytearray")
    if is_zipfile(path):
        with ZipFile(path) as archive:
            claims.check_zip(archive, path.stat().st_size, packed=False)


def _bytes_of(tensor: Any) -> int:
    import torch

    return tensor.numel() * tensor.element_size() if isinstance(tensor, torch.Tensor) else 0


def to_array(tensor: Any) -> np.ndarray:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"it holds a {type(tensor).__name__} where a tensor is wanted")
    claims.check(_bytes_of(tensor), tensor.untyped_storage().nbytes())  # a row may stand for many
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

    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > max(HEADER, path.stat().st_size // 2):
        raise ValueError(f"its header claims {header:,} of {path.stat().st_size:,} bytes")
    try:
        vectors = load_file(path)
    except (AttributeError, TypeError):  # numbers that numpy has not, such as bfloat16
        from safetensors.torch import load_file as load_tensors

        tensors = load_tensors(path)
        return list(tensors), map(to_array, tensors.values())
    # Once another package has taught numpy bfloat16, its arrays come as a kind of their own.
    return list(vectors), (v.astype(np.float32) if v.dtype.name == "bfloat16" else v for v in vectors.values())
