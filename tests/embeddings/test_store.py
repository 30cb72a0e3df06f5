"""Embedding files: written for the library that owns the format, read as others write them, refused when damaged."""

import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import kaldiio
import numpy as np
import pandas as pd
import pyarrow
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from sv_ssl.cli import extract
from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import store
from sv_ssl.models import folder as model
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34

IDS = ["id1/a.wav", "Zoë/été.1.wav", "id2/中文"]
SPACED = ["my voice/a b.wav", *IDS]
ROWS = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
FORMATS = ["e.npz", "e.npy", "e.ark", "e.scp", "e.parquet", "e.pt", "e/"]


def ids_for(name):
    return IDS if name.endswith((".ark", ".scp")) else SPACED


def written(tmp_path, name):
    """A file of three or four embeddings in a format -> its path."""
    path = f"{tmp_path}/{name}"
    store.write(path, ids_for(name), ROWS[: len(ids_for(name))])
    return path


def equal(found, ids, rows):
    return list(found[0]) == list(ids) and found[1].dtype == np.float32 and np.array_equal(found[1], rows)


# --- writing: read by the libraries that own the formats --------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_reads_back_exactly(tmp_path, name):
    ids = ids_for(name)
    path = f"{tmp_path}/deep/er/{name}"
    store.write(path, ids, ROWS[: len(ids)].astype(np.float64))
    found = dict(zip(*store.read(path)))
    assert sorted(found) == sorted(ids)
    assert all(np.array_equal(found[i], row) for i, row in zip(ids, ROWS))
    if not name.endswith("/"):  # a folder has the order of its names
        assert equal(store.read(path), ids, ROWS[: len(ids)])


def test_numpy_reads_npz_npy_and_the_folder(tmp_path):
    with np.load(written(tmp_path, "e.npz")) as file:
        assert file["ids"].tolist() == SPACED and np.array_equal(file["embeddings"], ROWS)
    assert np.array_equal(np.load(written(tmp_path, "e.npy")), ROWS)
    assert (tmp_path / "e.ids").read_text(encoding="utf-8").splitlines() == SPACED
    folder = written(tmp_path, "e/")
    assert all(np.array_equal(np.load(f"{folder}{i}.npy"), row) for i, row in zip(SPACED, ROWS))


def test_kaldiio_reads_ark_and_scp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.write("out/e.scp", IDS, ROWS[:3])
    for found in (dict(kaldiio.load_ark("out/e.ark")), dict(kaldiio.load_scp("out/e.scp"))):
        assert list(found) == IDS
        assert all(np.array_equal(found[i], row) for i, row in zip(IDS, ROWS))
    assert Path("out/e.scp").read_text(encoding="utf-8").startswith("id1/a.wav out/e.ark:10\n")


def test_pyarrow_reads_parquet(tmp_path):
    table = parquet.read_table(written(tmp_path, "e.parquet"))
    assert table["id"].to_pylist() == SPACED
    assert np.array_equal(np.float32(table["embedding"].to_pylist()), ROWS)


def test_torch_reads_pt(tmp_path):
    loaded = torch.load(written(tmp_path, "e.pt"), weights_only=True)
    assert loaded["ids"] == SPACED and np.array_equal(loaded["embeddings"].numpy(), ROWS)


def test_an_id_may_begin_as_windows_files_do(tmp_path):
    store.write(tmp_path / "e.npy", ["\ufeffa"], np.ones((1, 2)))
    assert store.read(tmp_path / "e.npy")[0] == ["\ufeffa"]


def test_a_changed_number_in_npz_and_parquet_is_noticed(tmp_path):
    for name in ("e.npz", "e.parquet"):
        path = Path(written(tmp_path, name))
        good, row = path.read_bytes(), ROWS[2].tobytes()
        assert row in good
        path.write_bytes(good.replace(row, row[:-1] + b"\1"))
        with pytest.raises(InputError, match="CRC"):
            store.read(path)


@settings(max_examples=50)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"), min_size=1),
        min_size=1,
        max_size=5,
        unique=True,
    )
)
def test_any_ids_of_one_line_come_back(ids):
    with tempfile.TemporaryDirectory() as folder:
        for ending in ("npz", "npy", "parquet", "pt"):
            store.write(f"{folder}/e.{ending}", ids, np.ones((len(ids), 2)))
            assert store.read(f"{folder}/e.{ending}")[0] == ids


TARGETS = {
    "no ending": ("emb", IDS, "wanted a name that ends in .npz, .npy, .ark, .scp, .parquet, .pt or /"),
    "unknown": ("emb.csv", IDS, "cannot write .*emb.csv: wanted a name that ends in .npz"),
    "read only": ("emb.safetensors", IDS, "wanted a name that ends in"),
    "blanks for Kaldi": ("emb.ark", SPACED, "'my voice/a b.wav' has: use .npz, .parquet or .pt"),
    "wide blanks for Kaldi": ("emb.scp", ["a\u3000b"], "Kaldi's ids have no blanks"),
    "up and out": ("emb/", ["../x"], "the id '../x' is no path below it: use .npz"),
    "out and in": ("emb/", ["a/../../x"], "is no path below it"),
    "absolute": ("emb/", ["/tmp/x"], "the id '/tmp/x' is no path below it"),
    "full folder": ("full/", IDS, "the folder is not empty; name a new one"),
    "full folder by name": ("full", IDS, "the folder is not empty"),
    "here": ("", IDS, "the folder is not empty"),
    "no text": ("emb.npy", ["a\udcff"], "is not UTF-8 text: use .npz or .pt"),
    "empty id": ("emb.npz", ["a", ""], "the id '' is empty or breaks the line"),
    "two lines": ("emb.npy", ["a\nb"], r"the id 'a\\nb' is empty or breaks the line"),
    "file as folder": ("full/file.txt/emb.npz", IDS, "cannot write .*emb.npz: (Not a directory|File exists)"),
    "file and folder": ("emb/", ["a", "a.npy/b"], "cannot write .*emb: (Not a directory|File exists)"),
}


@pytest.mark.parametrize("name, ids, message", TARGETS.values(), ids=TARGETS)
def test_targets_that_cannot_be_written(tmp_path, name, ids, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file.txt").touch()
    with pytest.raises(InputError, match=message):
        store.write(f"{tmp_path}/{name}", ids, np.ones((len(ids), 2)))
    assert os.listdir(tmp_path) == ["full"] and os.listdir(tmp_path / "full") == ["file.txt"]


@pytest.mark.parametrize("name, beside", [("e.npy", "e.ids"), ("e.ark", "e.scp"), ("e.scp", "e.ark")])
def test_what_lies_beside_is_not_replaced_unless_it_is_of_earlier_embeddings(tmp_path, name, beside):
    (tmp_path / beside).write_text("of something else\n")
    with pytest.raises(InputError, match=f"{beside} would be written beside it and is there: name another file"):
        store.write(tmp_path / name, IDS, ROWS[:3])
    assert os.listdir(tmp_path) == [beside] and (tmp_path / beside).read_text() == "of something else\n"
    (tmp_path / beside).unlink()
    for _ in range(2):
        store.write(tmp_path / name, IDS, ROWS[:3])


def test_file_names_that_are_no_text_keep_their_bytes_in_npz(tmp_path):
    store.write(tmp_path / "e.npz", ["a\udcff.wav"], np.ones((1, 2)))
    assert store.read(tmp_path / "e.npz")[0] == ["a\udcff.wav"]


def test_an_empty_folder_is_filled(tmp_path):
    store.write(tmp_path, IDS, ROWS[:3])
    assert (tmp_path / "id1" / "a.wav.npy").is_file()


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_leaves_what_was_there(tmp_path, name):
    out = tmp_path / "out"
    path = f"{out}/{name}"
    if not name.endswith("/"):
        store.write(path, ["old"], np.ones((1, 2)))
    before = {p.name: p.read_bytes() for p in out.rglob("*")}
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, old[1][1]))
    try:
        with pytest.raises(InputError, match="cannot write"):
            store.write(path, IDS, np.random.default_rng(0).normal(size=(3, 20_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old[1])
        signal.signal(signal.SIGXFSZ, old[0])
    assert {p.name: p.read_bytes() for p in out.rglob("*")} == before


@pytest.mark.parametrize("name, beside", [("e.npy", "e.ids"), ("e.ark", "e.scp")])
def test_a_stop_between_the_two_files_of_a_pair_leaves_no_wrong_pair(tmp_path, monkeypatch, name, beside):
    store.write(tmp_path / name, ["old1", "old2"], np.ones((2, 2)))
    moved, replace = [], os.replace

    def stopped(source, target):
        moved.append(target)
        if len(moved) == 2:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(InputError, match="No space left"):
        store.write(tmp_path / name, ["new1", "new2"], np.ones((2, 2)))
    assert os.listdir(tmp_path) == [name] and beside not in os.listdir(tmp_path)


# --- reading what others write ----------------------------------------------------------------------------------------


def npz_by_id(folder):
    np.savez_compressed(folder / "e.npz", **dict(zip(IDS, ROWS)))


def npz_bytes(folder):
    np.savez(folder / "e.npz", ids=np.array([i.encode() for i in IDS]), embeddings=ROWS[:3].astype(">f4"))


def npy_and_windows_text(folder):
    np.save(folder / "e.npy", np.asfortranarray(ROWS[:3], np.float64))
    (folder / "e.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(IDS).encode())


def ark_text(folder):
    kaldiio.save_ark(str(folder / "e.ark"), dict(zip(IDS, ROWS[:3].astype(np.float64))), text=True)


def ark_double(folder):
    kaldiio.save_ark(str(folder / "e.ark"), dict(zip(IDS, ROWS[:3].astype(np.float64))))


def ark_matrices(folder):
    kaldiio.save_ark(str(folder / "e.ark"), {i: row[None] for i, row in zip(IDS, ROWS)})


def scp_of_two_arks(folder):
    for name, part in (("x", [0, 2]), ("y", [1])):
        rows = {IDS[i]: ROWS[i] for i in part}
        kaldiio.save_ark(str(folder / f"{name}.ark"), rows, scp=str(folder / f"{name}.scp"), text=name == "y")
    lines = [(folder / f"{name}.scp").read_text().splitlines() for name in "xy"]
    (folder / "e.scp").write_text("\n".join([lines[0][0], lines[1][0], lines[0][1]]) + "\n")


def scp_of_one_file_an_id(folder):
    for i in range(3):
        kaldiio.save_mat(str(folder / f"my vector {i}"), ROWS[i])
    (folder / "e.scp").write_text("".join(f"{name}\tmy vector {i}\r\n" for i, name in enumerate(IDS)))


def parquet_lists(folder):
    lists = pyarrow.array([row.tolist() for row in ROWS[:3]], pyarrow.large_list(pyarrow.float64()))
    columns = {"utt": pyarrow.array(IDS, pyarrow.large_string()), "seconds": [1.0, 2.0, 3.0], "xvector": lists}
    parquet.write_table(pyarrow.table(columns), folder / "e.parquet", row_group_size=2)


def parquet_columns(folder):
    frame = pd.DataFrame(ROWS[:3].astype(np.float64), index=pd.Index(IDS, name="utterance"))
    frame[frame.columns[::-1]].rename(columns="ecapa512_{}".format).to_parquet(folder / "e.parquet")


def folder_of_npy(folder):
    for i, row in zip(IDS, ROWS):
        (folder / "e" / i).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / "e" / f"{i}.npy", row.astype(np.float64))
    (folder / "e" / "README.txt").write_text("not an embedding")


def folder_of_pt(folder):
    for i, row in zip(IDS, ROWS):
        (folder / "e" / i).parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.tensor(row)[None, None].requires_grad_(), folder / "e" / f"{i}.pt")  # as encode_batch gives it


def pt_by_id(folder):
    torch.save(dict(zip(IDS, torch.tensor(ROWS).double())), folder / "e.pt")


def pt_of_old(folder):
    tensors = {"ids": tuple(IDS), "embeddings": torch.tensor(ROWS[:3])}
    torch.save(tensors, folder / "e.pt", _use_new_zipfile_serialization=False)


def safetensors_by_id(folder):
    safetensors.numpy.save_file(dict(zip(IDS, ROWS)), folder / "e.safetensors")


OTHERS = [
    npz_by_id,
    npz_bytes,
    npy_and_windows_text,
    ark_text,
    ark_double,
    ark_matrices,
    scp_of_two_arks,
    scp_of_one_file_an_id,
    parquet_lists,
    parquet_columns,
    folder_of_npy,
    folder_of_pt,
    pt_by_id,
    pt_of_old,
    safetensors_by_id,
]


@pytest.mark.parametrize("make", OTHERS, ids=lambda make: make.__name__)
def test_files_of_others_are_read(tmp_path, make):
    make(tmp_path)
    path = next(p for p in tmp_path.iterdir() if p.stem == "e" and p.suffix not in (".txt", ".ids"))
    ids, rows = store.read(path)
    assert rows.dtype == np.float32 and sorted(ids) == sorted(IDS)
    found = dict(zip(ids, rows))
    tolerance = 1e-6 if make is ark_text else 0  # twelve digits
    assert all(np.allclose(found[i], row, rtol=tolerance, atol=0) for i, row in zip(IDS, ROWS))


def test_compressed_arks_are_read_as_kaldi_rounds_them(tmp_path):
    kaldiio.save_ark(str(tmp_path / "e.ark"), {i: row[None] for i, row in zip(IDS, ROWS)}, compression_method=2)
    expected = np.concatenate([row for _, row in kaldiio.load_ark(str(tmp_path / "e.ark"))])
    assert equal(store.read(tmp_path / "e.ark"), IDS, expected)


def test_text_arks_as_copy_vector_prints_them(tmp_path):
    (tmp_path / "e.ark").write_text("a  [ 1 0.5 -2e-05 ]\nb  [\n  3 4 5 ]\n")
    assert equal(store.read(tmp_path / "e.ark"), "ab", np.float32([[1, 0.5, -2e-05], [3, 4, 5]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_widths_become_float32(tmp_path, dtype):
    tensor = torch.tensor(ROWS).to(dtype)
    torch.save({"ids": SPACED, "embeddings": tensor}, tmp_path / "e.pt")
    assert equal(store.read(tmp_path / "e.pt"), SPACED, tensor.float().numpy())


# --- what is refused --------------------------------------------------------------------------------------------------

BAD_ROWS = {
    "zero": (["a", "b", "c"], [[1, 2], [0, 0], [0, 0]], r"the embedding of b is zero.*\(2 such rows\)"),
    "NaN": (["a", "b", "c"], [[1, 2], [1, 1], [np.nan, 0]], "the embedding of c holds NaN or infinity"),
    "infinite": (["a", "b", "c"], [[1, -np.inf], [1, 1], [2, 0]], "the embedding of a holds NaN or infinity"),
    "beyond float32": (["a", "b", "c"], [[1, 1], [1e300, 1], [2, 0]], "the embedding of b holds NaN or infinity"),
    "twice": (["a", "b", "a"], [[1, 2], [1, 1], [2, 0]], "the id a has more than one embedding"),
    "fewer ids": (["a", "b"], [[1, 2], [1, 1], [2, 0]], r"2 ids and embeddings of shape \(3, 2\)"),
    "flat": (["a", "b"], [1, 2], r"2 ids and embeddings of shape \(2,\)"),
    "no rows": ([], np.zeros((0, 4)), r"0 ids and embeddings of shape \(0, 4\)"),
    "whole numbers": (["a", "b"], np.array([[1, 2], [3, 4]]), "the embeddings are int64; wanted floats"),
    "text": (["a", "b"], np.array([["1", "2"], ["3", "4"]]), "the embeddings are <U1; wanted floats"),
    "complex": (["a"], np.array([[1j, 2]]), "the embeddings are complex128; wanted floats"),
}


@pytest.mark.parametrize("ids, rows, message", BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows_are_named_in_reading_and_in_writing(tmp_path, ids, rows, message):
    rows = np.array(rows, float) if isinstance(rows, list) else rows
    np.savez(tmp_path / "emb.npz", ids=np.array(ids, dtype=str), embeddings=rows)
    with pytest.raises(InputError, match=f"emb.npz: {message}"):
        store.read(tmp_path / "emb.npz")
    with pytest.raises(InputError, match=f"out.npz: {message}"):
        store.write(tmp_path / "out.npz", ids, rows)
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e30, 1e37])
def test_tiny_and_huge_rows_are_neither_zero_nor_infinite(tmp_path, scale):
    store.write(tmp_path / "e.npz", SPACED, ROWS * scale)
    assert np.array_equal(store.read(tmp_path / "e.npz")[1], np.float32(ROWS * scale))


def npy(rows, ids="a\nb\n"):
    def make(folder):
        np.save(folder / "e.npy", rows, allow_pickle=True)
        (folder / "e.ids").write_text(ids)

    return make


def npz(**arrays):
    return lambda folder: np.savez(folder / "e.npz", **arrays)


def text(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def table(**columns):
    return lambda folder: parquet.write_table(pyarrow.table(columns), folder / "e.parquet")


def saved(thing):
    return lambda folder: torch.save(thing, folder / "e.pt")


def below(name, rows):
    def make(folder):
        (folder / "e").mkdir()
        for i, row in rows.items():
            np.save(folder / "e" / f"{i}.npy", row)

    return make


TWO = np.eye(2, dtype=np.float32)
BAD_FILES = {
    "none": (text("other.npz", b""), "e.npz", "cannot read .*e.npz: No such file"),
    "unknown": (text("e.csv", b"a,1,2\n"), "e.csv", "wanted embeddings as .npz, .npy, .* a folder, by the ending"),
    "empty npz": (text("e.npz", b""), "e.npz", "wanted an npz with text `ids`.*; File is not a zip file"),
    "text npz": (text("e.npz", b"a 1 2 3\n"), "e.npz", "wanted an npz with text `ids`.*; File is not a zip file"),
    "npy as npz": (lambda f: np.save(open(f / "e.npz", "wb"), TWO), "e.npz", "File is not a zip file"),
    "npz without rows": (npz(ids=["a"], x=TWO), "e.npz", "embeddings is not a file in the archive"),
    "npz without ids": (npz(embeddings=TWO), "e.npz", r"that of embeddings is float32 of shape \(2, 2\), wanted one"),
    "npz with nothing": (npz(), "e.npz", "there are none"),
    "npz of numbers": (npz(x=1, y=2), "e.npz", r"that of x is int64 of shape \(\)"),
    "npz of two sizes": (npz(x=TWO[0], y=np.ones(3)), "e.npz", "that of y has 3 dimensions, that of x 2"),
    "ids that are numbers": (npz(ids=[1, 2], embeddings=TWO), "e.npz", r"`ids` are int64 of shape \(2,\)"),
    "ids that are objects": (npz(ids=np.array(["a", "b"], object), embeddings=TWO), "e.npz", "allow_pickle=False"),
    "ids in a square": (npz(ids=[["a"], ["b"]], embeddings=TWO), "e.npz", r"`ids` are <U1 of shape \(2, 1\)"),
    "ids in latin": (npz(ids=[b"\xe9"], embeddings=TWO[:1]), "e.npz", "can't decode"),
    "npy without ids": (lambda f: np.save(f / "e.npy", TWO), "e.npy", r"neither .*e.ids nor .*e.txt"),
    "npy with few ids": (npy(TWO, "a\n"), "e.npy", r"1 ids and embeddings of shape \(2, 2\)"),
    "npy with an empty line": (npy(TWO, "a\n\n"), "e.npy", "the id '' is empty"),
    "npy of objects": (npy(np.array([[1.0], [1.0, 2.0]], object)), "e.npy", "Object arrays cannot be loaded"),
    "npy of whole numbers": (npy(np.eye(2, dtype=int)), "e.npy", "the embeddings are int64; wanted floats"),
    "npy of a cube": (npy(np.ones((2, 2, 2))), "e.npy", r"embeddings of shape \(2, 2, 2\)"),
    "empty ark": (text("e.ark", b""), "e.ark", "wanted a Kaldi ark of vectors; there are none"),
    "ark of an ark's name": (text("e.ark", b"emb.ark\n"), "e.ark", "at byte 0 there is no id"),
    "ark of prose": (text("e.ark", b"once upon a time\n"), "e.ark", "at byte 5 there is no Kaldi vector"),
    "ark of words": (text("e.ark", b"a [ one two ]\n"), "e.ark", "could not convert string to float"),
    "ark of two sizes": (text("e.ark", b"a [ 1 2 ]\nb [ 1 2 3 ]\n"), "e.ark", "b has 3 dimensions, that of a 2"),
    "ark of features": (text("e.ark", b"a [ 1 2\n 3 4 ]\n"), "e.ark", r"that of a is float32 of shape \(2, 2\)"),
    "ark of whole numbers": (lambda f: kaldiio.save_ark(f"{f}/e.ark", {"a": np.int32([1])}), "e.ark", "a is int32"),
    "ark that ends early": (text("e.ark", b"a \0BFV \4\2\0\0\0" + bytes(7)), "e.ark", "smaller than requested"),
    "ark that claims much": (text("e.ark", b"a \0BFV \4\xff\xff\xff\xff" + bytes(8)), "e.ark", "smaller than"),
    "ark twice": (text("e.ark", b"a [ 1 2 ]\na [ 2 1 ]\n"), "e.ark", "the id a has more than one embedding"),
    "scp without its ark": (text("e.scp", b"a gone.ark:5\n"), "e.scp", "cannot read .*gone.ark: No such file"),
    "scp of ids alone": (text("e.scp", b"a\nb\n"), "e.scp", "the entry of a has no file"),
    "scp of commands": (text("e.scp", b"a copy-vector x - |\n"), "e.scp", "a has no file .a command is not run"),
    "scp beyond its ark": (
        lambda f: [text("x.ark", b"a [ 1 2 ]\n")(f), text("e.scp", b"a x.ark:99\n")(f)],
        "e.scp",
        "at byte 99 there is no Kaldi vector",
    ),
    "text parquet": (text("e.parquet", b"PAR1 or so"), "e.parquet", "wanted a column of text `id`"),
    "parquet without ids": (table(embedding=TWO.tolist()), "e.parquet", "2 rows of embedding .list<.*: none, empty"),
    "parquet without rows": (
        table(id=pyarrow.array([], "string"), embedding=pyarrow.array([], pyarrow.list_(pyarrow.float32()))),
        "e.parquet",
        "it has 0 rows of id .string., embedding",
    ),
    "parquet of whole numbers": (table(id=["a"], embedding=[[1, 2]]), "e.parquet", "the embeddings are int64"),
    "parquet of two sizes": (
        table(id=["a", "b"], embedding=[[1.0], [1.0, 2.0]]),
        "e.parquet",
        "that of b has 2 dimensions, that of a 1",
    ),
    "parquet with a hole": (table(id=["a", "b"], embedding=[[1.0], None]), "e.parquet", "b has nan dimensions"),
    "parquet with a small hole": (
        table(id=["a", "b"], embedding=[[1.0, 1.0], [1.0, None]]),
        "e.parquet",
        "the embedding of b holds NaN",
    ),
    "parquet without an id": (table(id=["a", None], embedding=TWO.tolist()), "e.parquet", "empty cells"),
    "parquet of two lists": (table(id=["a"], x=[[1.0]], y=[[1.0]]), "e.parquet", "unclear columns"),
    "parquet of other columns": (table(id=["a"], dim_0=[1.0], seconds=[2.0]), "e.parquet", "unclear columns"),
    "parquet with a gap": (table(id=["a"], dim_0=[1.0], dim_2=[1.0]), "e.parquet", "unclear columns"),
    "text pt": (text("e.pt", b"a 1 2 3\n"), "e.pt", "it is damaged, or holds more than tensors"),
    "empty pt": (text("e.pt", b""), "e.pt", "it is damaged"),
    "pt of a tensor": (saved(torch.eye(2)), "e.pt", "wanted a dictionary of id: vector.*; it holds a Tensor"),
    "pt of lists": (saved({"a": [1.0, 2.0]}), "e.pt", "it holds a list where a tensor is wanted"),
    "pt of whole numbers": (saved({"a": torch.tensor([1, 2])}), "e.pt", r"that of a is int64 of shape \(2,\)"),
    "pt of numbered": (saved({1: torch.ones(2)}), "e.pt", "its ids are not text"),
    "pt of weights": (saved(torch.nn.Linear(2, 3).state_dict()), "e.pt", "that of weight is float32 of shape"),
    "pt of nothing": (saved({}), "e.pt", "there are none"),
    "text safetensors": (text("e.safetensors", b"a 1 2 3\n"), "e.safetensors", "wanted one vector an id;"),
    "empty folder": (below("e", {}), "e", "wanted one .npy or .pt vector an id; there are none"),
    "folder of matrices": (below("e", {"a": TWO}), "e", r"that of a is float32 of shape \(2, 2\)"),
    "folder of two sizes": (below("e", {"a": TWO[0], "b": np.ones(3)}), "e", "that of b has 3 dimensions"),
    "folder with a damaged file": (
        lambda f: [below("e", {"a": TWO[0]})(f), (f / "e" / "b.pt").touch()],
        "e",
        r"e/b.pt: it is damaged",
    ),
    "folder with an id twice": (
        lambda f: [below("e", {"a": TWO[0]})(f), torch.save(torch.ones(2), f / "e" / "a.pt")],
        "e",
        "the id a has more than one embedding",
    ),
}


@pytest.mark.parametrize("make, name, message", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_refused_in_one_line(tmp_path, make, name, message):
    make(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        store.read(tmp_path / name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert name in str(error.value) or "gone.ark" in str(error.value)


class Evil:
    """Unpickling one makes a file."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (f"{self.folder}/ran",)


def test_no_code_of_a_file_is_run(tmp_path):
    evil, objects = Evil(tmp_path), np.array([[Evil(tmp_path)]], object)
    torch.save({"a": evil}, tmp_path / "a.pt")
    npy(objects, "a\n")(tmp_path)
    np.savez(tmp_path / "a.npz", ids=["a"], embeddings=objects)
    (tmp_path / "a.ark").write_bytes(b"a PKL" + pickle.dumps(evil))
    for name, entry in (("a", "mkdir {}/ran |"), ("b", "| mkdir {}/ran"), ("c", "{}/a.ark:2")):
        (tmp_path / f"{name}.scp").write_text(f"a {entry.format(tmp_path)}\n")
    for name in ("a.pt", "e.npy", "a.npz", "a.ark", "a.scp", "b.scp", "c.scp"):
        with pytest.raises(InputError):
            store.read(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with open(tmp_path / "a.ark", "rb") as file:  # it would have run
        file.seek(5)
        pickle.load(file)
    assert (tmp_path / "ran").exists()


def claimed(tmp_path, new):
    """A .pt whose tensor of five numbers claims to have 2^31 - 1."""
    torch.save({"a": torch.ones(5)}, tmp_path / "good.pt", _use_new_zipfile_serialization=new)
    good, shape, huge = (tmp_path / "good.pt").read_bytes(), b"K\x05\x85", b"J" + struct.pack("<i", 2**31 - 1) + b"\x85"
    if not new:
        return good.replace(shape, huge, 1)
    with zipfile.ZipFile(tmp_path / "good.pt") as old, zipfile.ZipFile(tmp_path / "new.pt", "w") as file:
        for name in old.namelist():
            file.writestr(name, old.read(name).replace(shape, huge) if name.endswith(".pkl") else old.read(name))
    return (tmp_path / "new.pt").read_bytes()


@pytest.mark.parametrize("new", [True, False])
def test_sizes_that_a_file_only_claims_take_no_memory(tmp_path, new):
    (tmp_path / "e.pt").write_bytes(claimed(tmp_path, new))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="e.pt: wanted .*; it is damaged"):
        store.read(tmp_path / "e.pt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@pytest.mark.parametrize("shape", [(2**34, 5), (2**60, 5), (3, 2**62)])
def test_arrays_larger_than_memory_are_damage(tmp_path, shape):
    with open(tmp_path / "e.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(bytes(60))
    (tmp_path / "e.ids").write_text("a\n")
    with zipfile.ZipFile(tmp_path / "e.npz", "w") as packed:
        packed.write(tmp_path / "e.npy", "a.npy")
    for name in ("e.npy", "e.npz"):
        with pytest.raises(InputError, match=f"{name}: wanted"):
            store.read(tmp_path / name)


def mutated(good, rng):
    """Bytes flipped, overwritten, cut off or added."""
    bad, at = bytearray(good), int(rng.integers(len(good)))
    kind = rng.integers(4)
    if kind == 0:
        bad[at] ^= int(rng.integers(1, 256))
    elif kind == 1:
        bad[at : at + 8] = bytes([int(rng.choice([0, 127, 128, 255]))]) * int(rng.integers(1, 9))
    elif kind == 2:
        del bad[at:]
    else:
        bad += rng.bytes(rng.integers(1, 20))
    return bytes(bad)


def test_no_mutation_gives_a_traceback_or_a_wrong_result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [Path(written(tmp_path, name)) for name in FORMATS if name != "e/"] + [tmp_path / "e.ids"]
    for make in OTHERS:
        if "scp" not in make.__name__ and "windows" not in make.__name__:
            (tmp_path / make.__name__).mkdir()
            make(tmp_path / make.__name__)
            paths.append(next(p for p in (tmp_path / make.__name__).rglob("*") if p.is_file() and p.suffix != ".txt"))
    rng, refused = np.random.default_rng(0), 0
    assert len(paths) >= 19
    for index in range(1000):
        path = paths[index % len(paths)]
        target = path.with_suffix(".npy") if path.suffix == ".ids" else path
        target = next((parent for parent in path.parents if parent.name == "e"), target)
        good = path.read_bytes()
        path.write_bytes(mutated(good, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch has some for odd pickles
                ids, rows = store.read(target)
            assert len(set(ids)) == len(ids) == len(rows) and all(ids)
            assert rows.dtype == np.float32 and rows.ndim == 2 and np.isfinite(rows).all() and rows.any(1).all()
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 700
            refused += 1
        path.write_bytes(good)
    assert refused > 600


# --- cost -------------------------------------------------------------------------------------------------------------


def test_reading_takes_little_more_memory_than_the_rows(tmp_path):
    ids = [f"id{i // 100:05}/{i:011}/00001.wav" for i in range(20_000)]
    store.write(tmp_path / "e.npz", ids, np.ones((20_000, 192), np.float32))
    tracemalloc.start()
    rows = store.read(tmp_path / "e.npz")[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.6 * rows.nbytes


def test_npz_needs_numpy_alone(tmp_path):
    written(tmp_path, "e.npz")
    code = """if True:
        import sys
        from sv_ssl import embeddings
        embeddings.read("e.npz")
        print({"torch", "pandas", "scipy", "pyarrow", "kaldiio", "safetensors"} & set(sys.modules))
    """
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])},
    )
    assert run.stdout.strip() == "set()", run.stderr


# --- sv-extract -------------------------------------------------------------------------------------------------------


def test_extract_writes_what_the_ending_says(tmp_path, speech, monkeypatch, capsys):
    torch.manual_seed(0)
    embedder = Embedder(LogMel(40), FastResNet34(40, "small", dim=16))
    model.save(tmp_path / "model", embedder, {})
    for name in ("audio/a 1.wav", "audio/b.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        os.replace(speech("x.wav", seed=len(name)), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for out in ("e.npz", "e.parquet", "e/"):
        assert extract.main(["model", "audio", "--out", out]) == 0
    expected = store.read("e.npz")
    assert expected[0] == ["a 1.wav", "b.wav"]
    assert equal(store.read("e.parquet"), *expected) and equal(store.read("e/"), *expected)
    capsys.readouterr()
    for out, message in (("e.ark", "Kaldi's ids have no blanks"), ("e/", "not empty"), ("e.txt", "ends in .npz, .npy")):
        assert extract.main(["no model", "audio", "--out", out]) == 2  # said before anything slow is begun
        assert message in capsys.readouterr().err
