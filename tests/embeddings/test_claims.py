"""Files that claim more than they have are refused in one line, before memory is taken for the claim."""

import io
import json
import os
import struct
import zipfile

import kaldiio
import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import claims, store, table_files

HUGE = 10**12


def npy(shape, data=b"", descr="<f4"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def npz(path, packed=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def huge_npy(folder):
    (folder / "e.ids").write_text("a\n")
    (folder / "e.npy").write_bytes(npy((HUGE, 5), bytes(1000)))


def npy_of_names_of_no_length(folder):
    npz(folder / "e.npz", ids=npy((HUGE,), descr="<U0"), embeddings=npy((1, 2), bytes(8)))


def npy_with_more_behind_it(folder):
    (folder / "e.ids").write_text("a\n")
    (folder / "e.npy").write_bytes(npy((1, 2), struct.pack("<3f", 1, 2, 3)))


def huge_member(folder):
    npz(folder / "e.npz", a=npy((HUGE,), bytes(1000)))


def bomb(folder):
    npz(folder / "e.npz", zipfile.ZIP_DEFLATED, a=npy((claims.SMALL,), bytes(4 * claims.SMALL)))


def members_that_overlap(folder):
    npz(folder / "e.npz", a=npy((1000,), bytes(4000)), b=npy((1,), bytes(4)))
    data = bytearray((folder / "e.npz").read_bytes())
    at = data.rindex(b"PK\x01\x02")  # what the archive says of b: as many bytes as it has in all
    data[at + 20 : at + 28] = struct.pack("<II", len(data), len(data))
    (folder / "e.npz").write_bytes(data)


def ark_named_again_and_again(folder):
    row = np.ones(claims.SMALL // 400, np.float32)
    kaldiio.save_ark(str(folder / "x.ark"), {"a": row}, scp=str(folder / "x.scp"))
    place = (folder / "x.scp").read_text().split(maxsplit=1)[1]
    (folder / "e.scp").write_text("".join(f"a{number} {place}" for number in range(300)))


def ark_matrix(folder):
    (folder / "e.ark").write_bytes(b"a \0BFM \4" + struct.pack("<i", 2**31 - 1) + b"\4" + struct.pack("<i", 2**30))


def pt_of_one_number(folder):
    torch.save({"a": torch.ones(1).expand(HUGE)}, folder / "e.pt")


def pt_of_a_row_many_times(folder):
    row = torch.ones(claims.SMALL // 400)
    torch.save({f"a{number}": row for number in range(200)}, folder / "e.pt")


def pt_packed(folder):
    torch.save({"a": torch.ones(1000)}, folder / "x.pt")
    with zipfile.ZipFile(folder / "x.pt") as old, zipfile.ZipFile(folder / "e.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


def pt_of_a_bytearray(folder):
    """weights_only calls bytearray(1,000,000,000), which fills as many bytes."""
    torch.save({"a": torch.ones(2)}, folder / "x.pt")
    with zipfile.ZipFile(folder / "x.pt") as old, zipfile.ZipFile(folder / "e.pt", "w") as new:
        for name in old.namelist():
            pickled = b"\x80\x02}X\1\0\0\0acbuiltins\nbytearray\nJ" + struct.pack("<i", 10**9) + b"\x85Rs."
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))


def parquet_of_many_rows(folder):
    count = 1_000_000
    row = pyarrow.array([1.0], pyarrow.float32())
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(count, np.int32)), row)
    ids = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(count, np.int32)), ["a"])
    table = pyarrow.table({"id": ids.cast(pyarrow.string()), "dim_0": column.cast(pyarrow.float32())})
    parquet.write_table(table.replace_schema_metadata(None), folder / "e.parquet", compression="zstd")


def parquet_of_a_long_text(folder):
    count, text = 300, "a" * 20_000
    ids = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(count, np.int32)), [text])
    schema = pyarrow.schema([("id", pyarrow.string()), ("dim_0", pyarrow.float32())])
    with parquet.ParquetWriter(folder / "e.parquet", schema, compression="zstd") as writer:
        for _ in range(4):  # of one row group each
            columns = {"id": ids.cast(pyarrow.string()), "dim_0": pyarrow.array(np.ones(count, np.float32))}
            writer.write_table(pyarrow.table(columns, schema))


def safetensors_of_a_long_header(folder):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(100_000)
    (folder / "e.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def safetensors_of_deep_json(folder):
    (folder / "e.safetensors").write_bytes(struct.pack("<Q", 30_006) + b'{"a": ' + b"[" * 30_000)


CLAIMS = {
    huge_npy: r"its header claims \(1000000000000, 5\) of float32, .* and 1,000 are there",
    npy_of_names_of_no_length: r"its header claims \(1000000000000,\) of <U0, 0 bytes",
    npy_with_more_behind_it: "8 bytes, and 12 are there",
    huge_member: r"its header claims .* and 1,000 are there",
    bomb: "it claims to hold 4,194,.* bytes in",
    members_that_overlap: "its members claim .* bytes of its|Overlapped|overlap",
    ark_named_again_and_again: "it claims to hold .* bytes in",
    ark_matrix: "cannot reshape",
    pt_of_one_number: "it claims to hold 4,000,000,000,000 bytes in",
    pt_of_a_row_many_times: "it claims to hold .* bytes in",
    pt_packed: "it is damaged, or holds more than tensors and text",
    pt_of_a_bytearray: "it is damaged, or holds more than tensors and text",
    parquet_of_many_rows: "it claims to hold .* bytes in",
    parquet_of_a_long_text: "it claims to hold 24,000,000 bytes in",
    safetensors_of_a_long_header: "its header claims 100,000 of 100,012 bytes",
    safetensors_of_deep_json: "recursion limit exceeded",
}


@pytest.mark.parametrize("make", CLAIMS, ids=lambda make: make.__name__)
def test_a_claim_is_refused_in_one_line(tmp_path, make, monkeypatch):
    monkeypatch.setattr(claims, "SMALL", 1 << 20)  # so that small files will do
    monkeypatch.setattr(table_files, "HEADER", 1 << 16)
    make(tmp_path)
    path = next(path for path in tmp_path.iterdir() if path.stem == "e" and path.suffix != ".ids")
    with pytest.raises(InputError, match=CLAIMS[make]) as error:
        store.read(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_what_shrinks_well_is_read(tmp_path):
    """Ids of one length and equal rows: far from a bomb's size."""
    ids = [f"id{number:050}" for number in range(5000)]
    np.savez_compressed(tmp_path / "e.npz", ids=np.array(ids), embeddings=np.ones((5000, 64), np.float32))
    assert store.read(tmp_path / "e.npz")[0] == ids
    table = pyarrow.table({"id": ids, "embedding": [[1.0] * 64] * 5000})
    parquet.write_table(table, tmp_path / "e.parquet", compression="zstd")
    assert store.read(tmp_path / "e.parquet")[0] == ids


@pytest.mark.parametrize("taught", [False, True])
def test_bfloat16_of_safetensors_becomes_float32(tmp_path, taught):
    if taught:
        pytest.importorskip("ml_dtypes", reason="it comes with the extra onnx")
    from safetensors.torch import save_file

    save_file({"a": torch.tensor([1.5, 2]).bfloat16()}, tmp_path / "e.safetensors")
    ids, rows = store.read(tmp_path / "e.safetensors")
    assert ids == ["a"] and rows.dtype == np.float32 and rows.tolist() == [[1.5, 2]]


@pytest.mark.parametrize("ending", [ending for ending in store.READERS if ending.startswith(".")])
def test_no_reader_waits_for_a_fifo(tmp_path, ending):
    os.mkfifo(tmp_path / f"e{ending}")
    with pytest.raises(InputError, match=f"e{ending}: wanted an ordinary file, this is a FIFO"):
        store.read(tmp_path / f"e{ending}")


def test_an_scp_opens_ordinary_files_alone(tmp_path):
    os.mkfifo(tmp_path / "x.ark")
    for place, kind in (("x.ark:5", "a FIFO"), ("/dev/zero", "a device")):
        (tmp_path / "e.scp").write_text(f"a {place}\n")
        with pytest.raises(InputError, match=f"wanted an ordinary file, this is {kind}"):
            store.read(tmp_path / "e.scp")


@pytest.mark.parametrize("name", ["e.ids", "e.txt"])
def test_ids_beside_an_npy_are_an_ordinary_file(tmp_path, name):
    np.save(tmp_path / "e.npy", np.ones((1, 2), np.float32))
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="there is neither"):
        store.read(tmp_path / "e.npy")
