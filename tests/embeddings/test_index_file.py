"""The file of an index: what our own writer makes is read, and nothing else reaches faiss."""

import json
import os
import re
import shutil
import struct
from pathlib import Path

import faiss
import numpy as np
import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import index_file, search, store

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"
COUNT, DIM = 300, 8
HEADER = 33  # bytes of what begins each of faiss's kinds, from its width on
NAMES = [f"s{number}" for number in range(COUNT)]
ROWS = np.random.default_rng(0).standard_normal((COUNT, DIM), dtype=np.float32)


@pytest.fixture(params=search.KINDS)
def saved(request, tmp_path):
    """The file of an index of each kind, two of whose speakers were removed."""
    index = search.create(request.param, NAMES, ROWS)
    index.remove(NAMES[3:5])
    index.save(tmp_path / "a.index")
    return tmp_path / "a.index"


def split(data):
    """faiss's data, and what is described behind them."""
    start = len(data) - 16 - int.from_bytes(data[-16:-8], "little")
    return data[:start], json.loads(data[start:-16])


def with_text(rows, text):
    return rows + text + len(text).to_bytes(8, "little") + index_file.MAGIC


def as_before(data, **changes):
    """The file as version 0.1 wrote it, without a checksum: nothing but the look at each number is left."""
    rows, described = split(data)
    described.pop("sha256", None)
    return with_text(rows, json.dumps({**described, **changes}).encode())


def refused(path, data, reason):
    path.write_bytes(data)
    with pytest.raises(InputError, match=reason) as error:
        search.load(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_one_flipped_bit_is_noticed_wherever_it_is(saved):
    good, rng = saved.read_bytes(), np.random.default_rng(0)
    for at in rng.integers(len(good), size=60).tolist() + list(range(len(good) - 110, len(good))):
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(8))
        refused(saved, bytes(bad), "is damaged: .*; delete it and make it anew: sv-index|is not a whole index")


def test_files_without_a_checksum_are_read_and_get_one(saved):
    index, asked = search.load(saved), ROWS[:20]
    saved.write_bytes(as_before(saved.read_bytes()))
    again = search.load(saved)
    assert again.search(asked, 3) == index.search(asked, 3) and again.names == index.names
    again.save(saved)
    assert "sha256" in split(saved.read_bytes())[1]


def test_an_index_of_version_0_1_is_read_and_changed(tmp_path):
    shutil.copy(GOLDEN / "speakers.index", tmp_path / "a.index")
    index = search.load(tmp_path / "a.index")
    assert sorted(index.numbers) == ["id1", "id2", "id3"]
    index.remove(["id2"])
    index.save(tmp_path / "a.index")
    assert len(search.load(tmp_path / "a.index")) == 2


def test_nothing_that_faiss_would_open_is_opened(tmp_path):
    """faiss opens, and cuts or makes, the file that the inverted lists of an index of another kind name."""
    index = search.create("ivf", NAMES, ROWS)
    index.save(tmp_path / "a.index")
    lists = faiss.OnDiskInvertedLists(index.rows.nlist, index.rows.code_size, f"{tmp_path}/thesis")
    held = faiss.InvertedListsPtrVector()
    held.push_back(index.rows.invlists)
    lists.merge_from_multiple(held.data(), held.size())
    index.rows.replace_invlists(lists)
    faiss.write_index(index.rows, str(tmp_path / "b.index"))
    del index, lists, held
    (tmp_path / "thesis").write_text("years of work")
    bad = with_text(
        (tmp_path / "b.index").read_bytes(), json.dumps(split((tmp_path / "a.index").read_bytes())[1]).encode()
    )
    refused(tmp_path / "a.index", as_before(bad), "its rows lie in 'ilod' and not in the file")
    assert (tmp_path / "thesis").read_text() == "years of work"


@pytest.mark.parametrize("recipe, metric", [("Flat", faiss.METRIC_L2), ("SQ8", faiss.METRIC_INNER_PRODUCT)])
def test_other_metrics_and_kinds_are_refused(tmp_path, recipe, metric):
    rows = faiss.index_factory(DIM, recipe, metric)
    rows.train(ROWS)
    rows = faiss.IndexIDMap2(rows)
    rows.add_with_ids(ROWS / np.linalg.norm(ROWS, axis=1)[:, None], np.arange(COUNT))
    index_file.write(tmp_path / "a.index", index_file.About("flat", DIM, NAMES), rows)
    refused(
        tmp_path / "a.index", (tmp_path / "a.index").read_bytes(), "is damaged: (faiss's kind|it is not trained for)"
    )


DESCRIBED = {
    "another kind": ({"kind": "tree"}, "no kind 'tree' of index is known"),
    "a kind that it is not": ({"kind": "pq"}, "faiss's kind 'IxFI' where sv-index writes 'IxPq'"),
    "another width": ({"dim": 9}, f"{COUNT} rows of {DIM} dimensions for {COUNT} of 9"),
    "a width that is no number": ({"dim": "8"}, "'8' dimensions"),
    "fewer names": ({"names": NAMES[:-1]}, f"{COUNT} rows of {DIM} dimensions for {COUNT - 1} of {DIM}"),
    "names as text": ({"names": "abc"}, "its names are no list"),
    "names that are numbers": ({"names": [1, *NAMES[1:]]}, "a name is no text"),
    "a name twice": ({"names": [*NAMES[:-1], NAMES[0]]}, "a name comes twice"),
    "another number removed": ({"names": [*NAMES, None, "new"][1:]}, "the numbers of its rows"),
    "no names": ({"names": None}, "its names are no list"),
}


@pytest.mark.parametrize("changes, reason", DESCRIBED.values(), ids=DESCRIBED)
def test_what_is_said_of_the_rows_must_fit_them(tmp_path, changes, reason):
    search.create("flat", NAMES, ROWS).save(tmp_path / "a.index")
    refused(tmp_path / "a.index", as_before((tmp_path / "a.index").read_bytes(), **changes), reason)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"{}", b"[]", b"7", b"\xff\xfe", b'{"kind": "flat", "dim": 8}'])
def test_other_json_is_damage(tmp_path, text):
    search.create("flat", NAMES, ROWS).save(tmp_path / "a.index")
    rows, _ = split((tmp_path / "a.index").read_bytes())
    refused(tmp_path / "a.index", with_text(rows, text), "a.index is damaged: ")


def test_rows_without_a_checksum_must_be_directions(tmp_path):
    for kind in ("flat", "ivf", "hnsw"):
        search.create(kind, NAMES, ROWS).save(tmp_path / "a.index")
        data = as_before((tmp_path / "a.index").read_bytes())
        at = data.index(store.unit(ROWS)[7].tobytes())
        for number in (np.nan, 3.0):
            refused(
                tmp_path / "a.index", data[:at] + struct.pack("<f", number) + data[at + 4 :], "row .* is no direction"
            )


@pytest.mark.parametrize("count", [2**62, 2**33, 10**9])
def test_sizes_that_are_only_claimed_take_no_memory(saved, count):
    data = as_before(saved.read_bytes())
    for found in re.finditer(rb"IxFI|IxPq|IHNf", data):
        at = found.start() + 4 + HEADER
        refused(saved, data[:at] + struct.pack("<q", count) + data[at + 8 :], "numbers where|ends before|codes of")


def test_a_neighbour_that_is_none_is_refused(tmp_path):
    search.create("hnsw", NAMES, ROWS).save(tmp_path / "a.index")
    rows, described = split((tmp_path / "a.index").read_bytes())
    index = faiss.deserialize_index(np.frombuffer(rows, np.uint8))
    neighbours = faiss.vector_to_array(faiss.downcast_index(index.index).hnsw.neighbors)
    at = rows.index(neighbours.tobytes())
    last = int(np.flatnonzero(neighbours >= 0)[-1])
    for number in (COUNT, -2, 10**9):
        bad = rows[: at + 4 * last] + struct.pack("<i", number) + rows[at + 4 * last + 4 :]
        refused(
            tmp_path / "a.index", as_before(with_text(bad, json.dumps(described).encode())), "a neighbour is out of"
        )


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.index")
    with pytest.raises(InputError, match="wanted an ordinary file, this is a FIFO"):
        search.load(tmp_path / "a.index")


def test_no_mutation_reaches_faiss_in_a_way_that_ends_the_process(saved):
    good, rng = as_before(saved.read_bytes()), np.random.default_rng(1)
    heads = [found.start() for found in re.finditer(rb"IxM2|IxFI|IHNf|IxPq|IwFl|ilar", good)]
    for turn in range(200):
        at = int(rng.choice(heads) + rng.integers(80)) if turn % 2 else int(rng.integers(len(good)))
        bad = bytearray(good)
        new = int(rng.integers(-3, 400)).to_bytes(4, "little", signed=True)
        bad[at : at + 4] = new if turn % 3 else bytes([int(rng.choice([0, 1, 127, 128, 255]))]) * 4
        saved.write_bytes(bad)
        try:
            assert len(search.load(saved).search(ROWS[:20], 5)) == 20
        except InputError as error:
            assert "\n" not in str(error)
