"""The attacks that readers must bear, a file each, so that none comes back.

    python -m tests.fuzz.make_corpus

writes those of less than 20 kB below tests/fuzz/corpus, unless they are there: a file stays as it was made, whatever
later versions of libraries would write. Larger ones are made when they are read. Each is called by what it does; one
of the table that is `refused` has no meaning that could be taken, and of the others a reader may make something, as
long as that is finite and of the shape that it claims. A file that a fuzzer has found is put into its format's folder
by hand, and has to be taken or refused like any other.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.fuzz.damage import Calls
from tests.fuzz.formats import FORMATS
from tests.fuzz.whole import FRONT_ENDS, PLAIN, audio, described, rows, weights, whole

CORPUS = Path(__file__).parent / "corpus"
LARGEST = 20_000  # bytes of a file that is kept
DEEP = b"[" * 100_000 + b"]" * 100_000
BOMB = 1_500_000_000  # bytes that a small file unpacks to
ONE_PAGE: Any = {"data_page_size": 1 << 30, "max_rows_per_page": 1 << 30}  # of parquet, which then repeats nothing


class Attack(NamedTuple):
    """A file, and whether it has no meaning at all."""

    name: str
    make: Callable[[], bytes]
    refused: bool = True


def attacks() -> Iterator[tuple[str, Attack]]:
    """Yield every attack with its format."""
    for name, listed in ATTACKS.items():
        for attack in listed:
            yield name, attack


def path_of(name: str, attack: Attack) -> Path:
    """Return where an attack is kept, if it is small."""
    return CORPUS / name / f"{attack.name}{Path(FORMATS[name].file).suffix}"


def data_of(name: str, attack: Attack) -> bytes:
    """Return the bytes of an attack: as they are kept, or made anew where they are many."""
    path = path_of(name, attack)
    return path.read_bytes() if path.is_file() else attack.make()


# -------------------------------------------------------------------------------------------------------------- audio
def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def wav(rate: int = 16000, samples: int = 4000, channels: int = 1, bits: int = 16, promised: int = 0) -> bytes:
    """Return a WAV of noise that says of itself what it is told to."""
    noise = np.random.default_rng(0).integers(-3000, 3000, samples, np.int16).tobytes()
    width = channels * bits // 8
    about = struct.pack("<HHIIHH", 1, channels, rate, rate * width % 2**32, width % 2**16, bits)
    data = b"data" + struct.pack("<I", promised or len(noise)) + noise
    body = b"WAVE" + _chunk(b"fmt ", about) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _float_wav(value: float) -> bytes:
    samples = np.full(4000, value, np.float32).tobytes()
    body = b"WAVE" + _chunk(b"fmt ", struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)) + _chunk(b"data", samples)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _damaged(kind: str, count: int, seed: int) -> bytes:
    """Return a whole file in which so many bytes behind the first 200 are others."""
    rng, data = random.Random(seed), bytearray(audio(kind)[0] * (3 if kind == "MP3" else 1))
    for place in rng.sample(range(200, len(data)), count):
        data[place] = rng.randrange(256)
    return bytes(data)


# --------------------------------------------------------------------------------------------------------- embeddings
def npy(shape: str, kind: str = "<f4", data: bytes = b"\0\0\x80?" * 64) -> bytes:
    """Return an array whose header claims a shape."""
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + data


def npz(**members: bytes) -> bytes:
    """Return a zip of arrays."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, data in members.items():
            packed.writestr(f"{name}.npy", data)
    return file.getvalue()


def _ids(*names: str) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(names))
    return file.getvalue()


def _bomb() -> bytes:
    """Return an .npz of two rows of zeros, which unpack to two hundred times the file's size.

    The same block of zeros stands in it many times, packed once.
    """
    head, block = npy(f"(2, {BOMB // 8})", data=b""), bytes(10_000_000)
    first, again = (zlib.compressobj(1, zlib.DEFLATED, -15) for _ in range(2))
    start = first.compress(head) + first.flush(zlib.Z_FULL_FLUSH)
    packed = start + (again.compress(block) + again.flush(zlib.Z_FULL_FLUSH)) * (BOMB // len(block)) + b"\3\0"
    crc = zlib.crc32(head)
    for _ in range(BOMB // len(block)):
        crc = zlib.crc32(block, crc)
    name = b"embeddings.npy"
    about = struct.pack("<HHHHHIII", 20, 0, zipfile.ZIP_DEFLATED, 0, 33, crc, len(packed), len(head) + BOMB)
    local = b"PK\3\4" + about + struct.pack("<HH", len(name), 0) + name + packed
    listed = b"PK\1\2\x14\0" + about + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name
    return local + listed + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(listed), len(local), 0)


def _packed_bomb() -> bytes:
    """Return an .npz that unpacks to a million times its size."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as packed, packed.open("a.npy", "w", force_zip64=True) as member:
        member.write(npy(f"({BOMB // 4},)", data=b""))
        for _ in range(BOMB // 10_000_000):
            member.write(bytes(10_000_000))
    return file.getvalue()


def _kept(name: str) -> bytes:
    return whole(name)[0]


def _parquet(count: int, **columns: Any) -> bytes:
    """Return a table of so many rows that are all alike: in each column a value."""
    import pyarrow
    from pyarrow import parquet

    place, file = pyarrow.array(np.zeros(count, np.int8)), io.BytesIO()
    held = {name: pyarrow.DictionaryArray.from_arrays(place, pyarrow.array([one])) for name, one in columns.items()}
    parquet.write_table(
        pyarrow.table(held), file, store_schema=False, compression="zstd", row_group_size=max(count, 1), **ONE_PAGE
    )
    return file.getvalue()


def _other_columns() -> bytes:
    return _parquet(3, id=1, embedding="1 2 3")


def safetensors(header: Any, length: int | None = None, data: bytes = b"\0\0\x80?" * 8) -> bytes:
    """Return a file with this header."""
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _tensor(kind: str = "F32", shape: tuple[int, ...] = (8,), offsets: tuple[int, ...] = (0, 32)) -> dict[str, Any]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": list(offsets)}


def _torch(held: Any) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(held, file)
    return file.getvalue()


def _running() -> bytes:
    """Return a pickle that makes a file where it is loaded as pickles are."""
    import torch

    return _torch({"a": Calls(eval, "open('pwned', 'w')"), "conv1.weight": torch.ones(4)})


def _views(width: int) -> bytes:
    """Return vectors that claim a width and store one number."""
    import torch

    return _torch({"a": torch.ones(1).expand(width), "b": torch.ones(1).expand(width)})


def _checkpoint(dim: int) -> bytes:
    """Return the tensors by which WeSpeaker's ResNet is known, for embeddings of a width that is not stored."""
    import torch

    return _torch({"conv1.weight": torch.ones(8, 1, 3, 3), "seg_1.weight": torch.ones(1, 1).expand(dim, 640)})


def _part(**changed: Any) -> bytes:
    about = {"run": "0" * 40, "shard": 1, "shards": 1, "crops": 0, "ids": ["a", "b"], "seconds": 1.0}
    about |= {"unplanned": [], "skipped": [], "windows": [], **changed}
    file = io.BytesIO()
    np.savez(file, rows=np.ones((2, 1, 4), np.float32), about=np.frombuffer(json.dumps(about).encode(), np.uint8))
    return file.getvalue()


# -------------------------------------------------------------------------------------------------------------- index
def index(about: bytes | None = None, claimed: int | None = None, faiss: bytes | None = None, **changed: Any) -> bytes:
    """Return an index as version 0.1.0 wrote it, of seven speakers, whose footer says something else."""
    about = _names(**changed) if about is None else about
    start = _by("METRIC_INNER_PRODUCT") if faiss is None else faiss
    return start + about + (len(about) if claimed is None else claimed).to_bytes(8, "little") + b"svssl-i1"


def _faiss(make: Callable[[Any, np.ndarray], Any]) -> bytes:
    """Return faiss's own bytes of an index of seven speakers."""
    import faiss

    vectors = rows(7)[1]
    with tempfile.TemporaryDirectory() as folder:
        before = os.getcwd()
        os.chdir(folder)
        try:
            faiss.write_index(make(faiss, vectors), "made.index")
            return Path("made.index").read_bytes()
        finally:
            os.chdir(before)


def _by(metric: str, factor: float = 1.0, first: int = 0) -> bytes:
    """Return faiss's bytes by a metric, of vectors of a length, numbered from a number on."""

    def make(faiss: Any, vectors: np.ndarray) -> Any:
        vectors = factor * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        made = faiss.IndexIDMap2(faiss.IndexFlat(vectors.shape[1], getattr(faiss, metric)))
        made.add_with_ids(np.float32(vectors), np.arange(first, first + len(vectors)))
        return made

    return _faiss(make)


def _on_disk(faiss: Any, vectors: np.ndarray) -> Any:
    """Return an index whose vectors are in another file, by its name."""
    made = faiss.index_factory(vectors.shape[1], "IVF1,Flat", faiss.METRIC_INNER_PRODUCT)
    made.cp.min_points_per_centroid = 1
    made.train(vectors)
    made.add_with_ids(vectors, np.arange(len(vectors)))
    held, lists = faiss.InvertedListsPtrVector(), faiss.OnDiskInvertedLists(made.nlist, made.code_size, "victim.bin")
    held.push_back(made.invlists)
    lists.merge_from_multiple(held.data(), held.size())
    made.replace_invlists(lists, True)
    lists.this.disown()  # the index has them now
    return made


def _names(count: int = 7, **changed: Any) -> bytes:
    return json.dumps({"kind": "flat", "dim": 8, "names": [f"id{i}" for i in range(count)], **changed}).encode()


# -------------------------------------------------------------------------------------------------------------- models
def config(front_end: int = 0, encoder: Mapping[str, Any] = PLAIN, **changed: Any) -> bytes:
    """Return the config.json of a front end with changed arguments, and of an encoder that fits it."""
    features = {**FRONT_ENDS[front_end], **changed}
    if "n_mels" in encoder:
        encoder = {**encoder, "n_mels": features.get("n_mels", 1)}
    wide = 2 * encoder["n_mels"] if encoder["name"] == PLAIN["name"] else encoder.get("dim", 768)
    return json.dumps(described(features, encoder, wide)).encode()


def _wide(name: str, dim: Any) -> bytes:
    """Return the config.json of an encoder of any width."""
    return config(0, {"name": name, "n_mels": 40, "size": "small", "dim": dim})


def _weights_with(value: float) -> bytes:
    from safetensors.numpy import load, save

    held = load(weights())
    first = next(name for name, tensor in held.items() if tensor.ndim > 1)
    held[first].flat[3] = value
    return save(held)


# ------------------------------------------------------------------------------------------------- lists and settings
def calibration(**changed: Any) -> bytes:
    """Return a calibration with changed fields, signed anew."""
    document = {**json.loads(whole("calibration")[0]), **changed}
    document.pop("digest", None)
    fields = {key: value for key, value in document.items() if key != "format"}
    document["digest"] = hashlib.sha1(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return json.dumps(document).encode()


def manifest(**changed: str) -> bytes:
    """Return a table of two clips; the first has changed cells."""
    row = {"ID": "a", "duration": "1.0", "wav": "a.wav", "start": "0", "stop": "16000", "label": "dog", "fold": "1"}
    cells = [",".join(f'"{cell}"' for cell in line.values()) for line in ({**row, **changed}, {**row, "ID": "b"})]
    return "\n".join([",".join(row), *cells, ""]).encode()


def rttm(start: str, duration: str = "1.0", name: str = "ann") -> bytes:
    return f"SPEAKER a 1 {start} {duration} <NA> <NA> {name} <NA> <NA>\n".encode()


def _gzip_bomb() -> bytes:
    """Return a list of 250 million lines, as many small files one behind the other."""
    return gzip.compress(b"1 a b\n" * 1_000_000, 1, mtime=0) * (BOMB // 6_000_000)


def _laughs() -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join([*lines, ""]).encode()


def _yaml(*more: str) -> bytes:
    return whole("yaml")[0] + "".join(f"{line}\n" for line in more).encode()


EMPTY = Attack("empty", bytes)
ATTACKS: dict[str, list[Attack]] = {
    "wav": [
        EMPTY,
        Attack("five_megahertz_of_a_megabyte", partial(wav, 4_999_999, 500_000), refused=False),
        Attack("five_megahertz", partial(wav, 4_999_999), refused=False),
        Attack("four_gigahertz", partial(wav, 2**32 - 1), refused=False),
        Attack("rate_0", partial(wav, 0)),
        Attack("rate_1", partial(wav, 1), refused=False),
        Attack("rate_1_of_a_megabyte", partial(wav, 1, 500_000), refused=False),
        Attack("rate_16001", partial(wav, 16001), refused=False),
        Attack("promises_more", partial(wav, promised=60_000_000)),
        Attack("promises_more_than_there_is", partial(wav, promised=2**32 - 1), refused=False),
        Attack("channels_0", partial(wav, channels=0)),
        Attack("channels_65535", partial(wav, channels=65535), refused=False),
        Attack("bits_0", partial(wav, bits=0), refused=False),
        Attack("not_a_number", partial(_float_wav, float("nan"))),
        Attack("infinite", partial(_float_wav, float("inf"))),
        Attack("as_loud_as_can_be", partial(_float_wav, 3e38), refused=False),
    ],
    "flac": [Attack("damaged", partial(_damaged, "FLAC", 50, 0), refused=False)],
    "ogg": [Attack("damaged", partial(_damaged, "OGG", 50, 0), refused=False)],
    "mp3": [Attack(f"damaged_{seed}", partial(_damaged, "MP3", 50, seed), refused=False) for seed in range(4)],
    "npz": [
        EMPTY,
        Attack("bomb", _bomb),
        Attack("bomb_of_a_kilobyte", _packed_bomb),
        Attack("claims_a_trillion_rows", lambda: npz(ids=_ids("a"), embeddings=npy("(1000000000000, 8)"))),
        Attack("claims_fewer_rows", lambda: npz(ids=_ids("a", "b"), embeddings=npy("(2, 8)")), refused=False),
        Attack("objects", lambda: npz(ids=_ids("a"), embeddings=npy("(1, 8)", "|O"))),
        Attack("names_that_break_the_line", lambda: npz(ids=_ids("a\nb", "c"), embeddings=npy("(2, 8)"))),
        Attack(
            "names_of_surrogates", lambda: npz(ids=npy("(1,)", "<U1", b"\0\xd8\0\0"), embeddings=npy("(1, 8)")), False
        ),
        Attack("names_beyond_unicode", lambda: npz(ids=npy("(1,)", "<U1", b"\xff" * 4), embeddings=npy("(1, 8)"))),
    ],
    "npy": [
        EMPTY,
        Attack("claims_a_trillion_rows", partial(npy, "(1000000000000, 8)")),
        Attack("claims_fewer_than_none", partial(npy, "(-8, 8)")),
        Attack("objects", partial(npy, "(8, 8)", "|O")),
        Attack("not_numbers", partial(npy, "(8, 8)", data=b"\xff" * 256)),
        Attack("zeros", partial(npy, "(8, 8)", data=bytes(256))),
        Attack("header_is_deep", lambda: npy("(" * 5000 + ")" * 5000)),
    ],
    "ark": [
        EMPTY,
        Attack("claims_four_gigabytes", lambda: b"a \0BFV \4" + struct.pack("<I", 2**32 - 1) + bytes(32)),
        Attack("claims_fewer_than_none", lambda: b"a \0BFV \4" + struct.pack("<i", -1) + bytes(32)),
        Attack("huge_matrix", lambda: b"a \0BFM \4" + struct.pack("<iBi", 2**31 - 1, 4, 2**31 - 1) + bytes(32)),
        Attack(
            "huge_packed_matrix", lambda: b"a \0BCM " + struct.pack("<ffii", 0, 1, 2**31 - 1, 2**31 - 1) + bytes(64)
        ),
        Attack("text_of_no_numbers", lambda: b"a [ nan 1 2 ]\n"),
        Attack("no_name", lambda: b" \0BFV \4" + struct.pack("<I", 4) + b"\0\0\x80?" * 4),
    ],
    "scp": [
        EMPTY,
        Attack("a_command", lambda: b"a touch pwned |\n"),
        Attack("a_command_first", lambda: b"a | touch pwned\n"),
        Attack("beyond_the_end", lambda: b"a embeddings.ark:99999999999999999999\n"),
        Attack("an_endless_device", lambda: b"a /dev/zero:16\n"),
        Attack("the_memory_of_the_process", lambda: b"a /proc/self/mem:16\n"),
        Attack("standard_input", lambda: b"a /dev/stdin:0\n"),
        Attack("itself", lambda: b"a input.scp:0\n"),
        Attack("control_characters", lambda: b"\x1b[31m |\n\x1b[2J \xc2\x85|\n"),
    ],
    "parquet": [
        EMPTY,
        Attack("other_columns", _other_columns),
        Attack("no_rows", partial(_parquet, 0, id="a", dim_1=1.0)),
        Attack("equal_names", partial(_parquet, 3, id="a", dim_1=1.0)),
        Attack("bomb", partial(_parquet, 20_000_000, id="a", **{f"dim_{d}": 1.0 for d in range(10)})),
    ],
    "safetensors": [
        EMPTY,
        Attack("header_longer_than_the_file", partial(safetensors, {"a": _tensor()}, 2**40)),
        Attack("header_as_long_as_can_be", partial(safetensors, {"a": _tensor()}, 2**64 - 1)),
        Attack("header_is_deep", partial(safetensors, b"[" * 15_000)),
        Attack("beyond_the_end", partial(safetensors, {"a": _tensor(offsets=(0, 2**40))})),
        Attack("backwards", partial(safetensors, {"a": _tensor(offsets=(32, 0))})),
        Attack("one_over_the_other", partial(safetensors, {"a": _tensor(), "b": _tensor(offsets=(16, 48))})),
        Attack("shape_larger_than_the_data", partial(safetensors, {"a": _tensor(shape=(2**40, 8))})),
        Attack("shape_that_overflows", partial(safetensors, {"a": _tensor(shape=(2**62, 4))})),
        Attack("of_no_known_type", partial(safetensors, {"a": _tensor("F4")})),
        Attack("half_of_a_brain", partial(safetensors, {"a": _tensor("BF16", (16,))}), refused=False),
        Attack("eighths", partial(safetensors, {"a": _tensor("F8_E4M3", (32,))}), refused=False),
    ],
    "pt": [
        EMPTY,
        Attack("runs_code", _running),
        Attack("views_of_one_number", partial(_views, 500_000_000)),
        Attack("views_of_one_number_of_usual_width", partial(_views, 8), refused=False),
        Attack("cut", lambda: _kept("pt")[:-300]),
        Attack("no_dictionary", lambda: _torch([1, 2])),
    ],
    "part": [
        EMPTY,
        Attack("deep", lambda: npz(rows=npy("(1, 1, 4)"), about=npy("(200000,)", "|u1", DEEP))),
        Attack("claims_a_billion_shards", partial(_part, shards=10**9)),
        Attack("ids_that_are_numbers", partial(_part, ids=[1, 2])),
        Attack("fewer_ids_than_rows", partial(_part, ids=["a"])),
        Attack("skipped_what_is_no_list", partial(_part, skipped=7)),
        Attack("seconds_that_are_no_number", partial(_part, seconds="x")),
    ],
    "index": [
        EMPTY,
        Attack("as_it_was", index, refused=False),
        Attack("names_another_file", lambda: index(_names(kind="ivf"), faiss=_faiss(_on_disk))),
        Attack("cut_in_the_footer", lambda: index()[:-9]),
        Attack("cut_in_the_vectors", lambda: index()[:200]),
        Attack("footer_longer_than_the_file", partial(index, claimed=2**63)),
        Attack("footer_is_deep", partial(index, DEEP)),
        Attack("footer_is_no_object", partial(index, b"7")),
        Attack("footer_without_names", partial(index, b'{"kind": "flat", "dim": 8}')),
        Attack("more_names_than_vectors", lambda: index(_names(9))),
        Attack("names_that_are_numbers", lambda: index(_names(names=[1, 2, 3, 4, 5, 6, 7]))),
        Attack("names_twice", lambda: index(_names(names=["a"] * 7))),
        Attack("names_that_break_the_line", lambda: index(_names(names=["a\nb", *"cdefgh"])), refused=False),
        Attack("other_kind", lambda: index(_names(kind="hnsw"))),
        Attack("no_kind", lambda: index(_names(kind=["flat"]))),
        Attack("other_width", partial(index, dim=16)),
        Attack("euclidean", lambda: index(faiss=_by("METRIC_L2"))),
        Attack("cosines_of_25", lambda: index(faiss=_by("METRIC_INNER_PRODUCT", 5.0))),
        Attack("not_numbers", lambda: index(faiss=_by("METRIC_INNER_PRODUCT", float("nan")))),
        Attack("numbered_beyond_the_names", lambda: index(faiss=_by("METRIC_INNER_PRODUCT", first=90))),
        Attack("numbered_below_none", lambda: index(faiss=_by("METRIC_INNER_PRODUCT", first=-3))),
    ],
    "config": [
        EMPTY,
        Attack("deep", lambda: DEEP),
        Attack("dim_20000000", partial(_wide, "FastResNet34", 20_000_000)),
        Attack("dim_-1", partial(_wide, "FastResNet34", -1)),
        Attack("dim_that_is_text", partial(_wide, "ECAPA", "8")),
        Attack("dim_of_another_model", lambda: config().replace(b'"dim": 80', b'"dim": 81'), refused=False),
        Attack("n_mels_0", partial(config, n_mels=0)),
        Attack("n_mels_a_billion", partial(config, n_mels=10**9)),
        Attack("sample_rate_0", partial(config, sample_rate=0)),
        Attack("sample_rate_1", partial(config, sample_rate=1)),
        Attack("sample_rate_two_billion", partial(config, sample_rate=2 * 10**9)),
        Attack("sample_rate_of_kaldi_1", partial(config, 1, sample_rate=1)),
        Attack("sample_rate_of_sslsv_0", partial(config, 2, sample_rate=0)),
        Attack("sample_rate_of_speechbrain_1", partial(config, 3, sample_rate=1)),
        Attack("sample_rate_of_waveforms_0", partial(config, 5, sample_rate=0)),
        Attack("n_mels_of_kaldi_0", partial(config, 1, n_mels=0)),
        Attack("scale_that_is_text", partial(config, 1, scale="1")),
        Attack("hop_0", partial(config, hop_seconds=0)),
        Attack("hop_of_a_nanosecond", partial(config, hop_seconds=1e-9)),
        Attack("window_of_a_year", partial(config, window_seconds=3e7)),
        Attack("floor_that_is_no_number", partial(config, floor=float("nan"))),
        Attack("arguments_that_are_unknown", partial(config, spec_augment="x", device="cuda")),
        Attack("front_end_that_is_a_list", lambda: json.dumps(described({}, PLAIN, 80) | {"features": [1]}).encode()),
        Attack("encoder_that_is_missing", lambda: json.dumps(described(FRONT_ENDS[0], {}, 80)).encode()),
        Attack("weights_elsewhere", partial(config, 5, {"name": "Pretrained", "folder": "/etc"})),
    ],
    "weights": [
        EMPTY,
        Attack("not_numbers", partial(_weights_with, float("nan"))),
        Attack("infinite", partial(_weights_with, float("inf"))),
        Attack("as_large_as_can_be", partial(_weights_with, 3e38), refused=False),
        Attack("header_longer_than_the_file", partial(safetensors, {"a": _tensor()}, 2**40)),
        Attack("beyond_the_end", partial(safetensors, {"a": _tensor(offsets=(0, 2**40))})),
        Attack("other_tensors", partial(safetensors, {"a": _tensor()})),
        Attack("cut", lambda: weights()[:1000]),
    ],
    "checkpoint": [
        EMPTY,
        Attack("runs_code", _running),
        Attack("dim_20000000_that_is_not_stored", partial(_checkpoint, 20_000_000)),
    ],
    "calibration": [
        EMPTY,
        Attack("deep", lambda: DEEP),
        Attack("deep_objects", lambda: b'{"a":' * 50_000),
        Attack("not_a_number", partial(calibration, weights=[float("nan")])),
        Attack("offset_that_is_infinite", partial(calibration, offset=float("inf"))),
        Attack("weights_that_are_text", partial(calibration, weights=["6"])),
        Attack("more_weights_than_columns", partial(calibration, weights=[1.0, 2.0])),
        Attack("weights_without_a_list", partial(calibration, weights=7)),
        Attack("no_columns", partial(calibration, weights=[], columns=[], ranges=[])),
        Attack("columns_that_are_numbers", partial(calibration, columns=[1])),
        Attack("ranges_upside_down", partial(calibration, ranges=[[1.0, -1.0]])),
        Attack("prior_2", partial(calibration, prior=2)),
        Attack("trained_on_none", partial(calibration, n_target=-4)),
        Attack("notes_that_are_numbers", partial(calibration, notes=[7])),
        Attack("lists_that_are_none", partial(calibration, lists=None)),
        Attack("control_characters", partial(calibration, notes=["\u001b[2J"], lists=[["a\nb\u001b[31m", "0"]]), False),
        Attack("a_number_of_400_digits", partial(calibration, offset=10**400)),
        Attack("changed_by_hand", lambda: whole("calibration")[0].replace(b"6.2", b"9.2")),
    ],
    "trials": [
        EMPTY,
        Attack("both_ways_with_both_labels", lambda: b"1 a b\n0 b a\n1 a c\n0 a d\n"),
        Attack("the_same_way_with_both_labels", lambda: b"1 a b\n0 a b\n1 a c\n0 a d\n"),
        Attack("itself_as_another", lambda: b"0 a a\n1 a b\n0 a c\n", refused=False),
        Attack("itself", lambda: b"1 a a\n1 a b\n0 a c\n", refused=False),
        Attack("gzip_bomb", _gzip_bomb),
        Attack("gzip_cut", lambda: gzip.compress(whole("trials")[0], mtime=0)[:-9]),
        Attack("control_characters", lambda: b"1 \x1b[31ma b\n2 \x1b[2J c\n"),
        Attack("formulas", lambda: b"1 =1+1 @b\n0 =1+1 -c\n", refused=False),
        Attack("a_line_of_a_megabyte", lambda: b"1 a " + b"b" * 1_000_000 + b"\n0 a c\n", refused=False),
    ],
    "models": [EMPTY, Attack("control_characters", lambda: b"\x1b[31m\n\x1b[2J\n")],
    "scores": [
        EMPTY,
        Attack("not_numbers", lambda: b"a b nan target\na c 0.5 nontarget\n"),
        Attack("infinite", lambda: b"a b 1e999 target\na c -1e999 nontarget\n", refused=False),
        Attack("both_ways_with_both_labels", lambda: b"a b 0.5 target\nb a 0.5 nontarget\na c 0.1 nontarget\n"),
        Attack("of_400_digits", lambda: b"a b " + b"9" * 400 + b" target\na c 0.5 nontarget\n", refused=False),
        Attack("control_characters", lambda: b"\x1b[31ma b 0.5 target\na \xe2\x80\xae 0.1 nontarget\n", refused=False),
    ],
    "manifest": [
        EMPTY,
        Attack("formulas", partial(manifest, ID="=1+1", label="@SUM(A1)"), refused=False),
        Attack(
            "control_characters", partial(manifest, ID="\x1b[2J", duration="\x1b[31mx", stop="\u2028"), refused=False
        ),
        Attack("lines_in_a_cell", partial(manifest, ID="a\nb"), refused=False),
        Attack("a_cell_of_a_megabyte", partial(manifest, duration="9" * 1_000_000), refused=False),
        Attack("a_cell_of_100000", partial(manifest, duration="x" * 100_000), refused=False),
        Attack("durations_that_are_no_numbers", partial(manifest, duration="nan"), refused=False),
        Attack("a_stop_of_5000_digits", partial(manifest, stop="9" * 5000), refused=False),
        Attack("numbers_in_other_digits", partial(manifest, duration="\u0661.\u0660", stop="1_6000"), refused=False),
    ],
    "rttm": [
        EMPTY._replace(refused=False),
        Attack("times_that_are_no_numbers", partial(rttm, "nan", "nan")),
        Attack("times_without_end", partial(rttm, "inf")),
        Attack("times_before_the_start", partial(rttm, "-1.0")),
        Attack("times_of_5000_digits", partial(rttm, "9" * 5000)),
        Attack("exponents_of_many_digits", partial(rttm, "1e" + "9" * 3000)),
        Attack("turns_of_no_length", partial(rttm, "1.0", "0.0")),
        Attack("turns_that_vanish", partial(rttm, "1e15", "1e-15")),
        Attack("control_characters", partial(rttm, "\x1b[31m", name="\x1b[2J")),
        Attack("hidden_ends_of_lines", lambda: b"a\xe2\x80\xa8b\x85\x0c1\n"),
    ],
    "yaml": [
        EMPTY,
        Attack("deep", lambda: DEEP),
        Attack("deep_lists", lambda: _yaml("deep: " + "[" * 5000 + "]" * 5000)),
        Attack("a_billion_laughs", _laughs),
        Attack("a_billion_laughs_in_a_recipe", lambda: whole("yaml")[0] + _laughs()),
        Attack("contains_itself", lambda: _yaml("mine: &a [*a]"), refused=False),
        Attack("keys_twice", lambda: _yaml("seed: 1", "seed: 2")),
        Attack("refers_to_nothing", lambda: _yaml("mine: !ref <nothing>")),
        Attack("refers_to_itself", lambda: _yaml("mine: !ref <mine>")),
        Attack("refers_in_a_circle", lambda: _yaml("mine: !ref <yours>", "yours: !ref <mine>")),
        Attack("refers_to_sums_without_end", lambda: _yaml("mine: !ref 9**9**9"), refused=False),
        Attack("extends_itself", lambda: b"extends: input.yaml\nname: mine\n"),
        Attack("extends_an_endless_device", lambda: b"extends: /dev/zero\nname: mine\n"),
        Attack("includes_another_file", lambda: _yaml("mine: !include:/etc/passwd"), refused=False),
        Attack("runs_code", lambda: _yaml("mine: !!python/object/apply:os.system ['touch pwned']"), refused=False),
        Attack("applies_code", lambda: _yaml("mine: !apply:os.system ['touch pwned']"), refused=False),
        Attack("control_characters", lambda: _yaml("mine: \u001b[31m")),
        Attack("no_yaml", lambda: b"a: [\n\tb: %"),
    ],
}


def main() -> int:
    """Write the attacks that are small and not there -> exit code."""
    for name, attack in attacks():
        path = path_of(name, attack)
        if path.is_file() or len(data := attack.make()) > LARGEST:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"wrote {path}: {len(data):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
