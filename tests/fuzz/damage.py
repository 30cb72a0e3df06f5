"""Hypothesis strategies of damaged and of hostile files: bytes that are changed, and structures that lie.

`files(name)` is the strategy of a format. A quarter of what it gives is well formed and says what cannot be: a header
with the largest number that its field holds, a JSON with text where a number belongs, a pickle that wants to run.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.fuzz.whole import whole

SIZES = [
    0,
    1,
    2,
    3,
    7,
    8,
    255,
    256,
    4096,
    32767,
    65535,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**64 - 1,
]
NUMBERS: list[Any] = [0, -1, 1, 2, 0.5, 1e-300, -1e300, 1e309, float("nan"), 2**31, 2**63, 2**70, 20_000_000, 10**400]
OTHERS: list[Any] = [None, True, "", "x", "\u001b[31m", "\ud800", "x" * 5000, [], {}, [[]], ["a", 1], {"": None}, "1e3"]
ODD = [
    b"\0",
    b"\r",
    b"\n\n",
    b"\t",
    b",",
    b" ",
    b'"',
    b"#",
    b";;",
    b"nan",
    b"-inf",
    b"1e999",
    b"-0.0",
    b"\xff",
    b"\xc2\x85",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\xe2\x80\xae",
    b"\x1b[31m",
    b"1_0",
    b"0x1p3",
    b"\xed\xa0\x80",
    b"\xd9\xa3",
    b"\x1f\x8b",
    b"9" * 400,
    b"9" * 5000,
    b"x" * 140_000,
    b"target",
    b"\\",
    b"%s",
    b"{}",
    b"../",
    b"=1+1",
    b"|",
    b"&a [*a]",
    b"!ref <seed>",
    b"!!python/object/apply:os.getcwd []",
    b"<<: *x",
]
Way = Callable[[DrawFn, bytes], bytes]


def files(name: str) -> SearchStrategy[bytes]:
    """Return the strategy of a format's files."""
    text = name in ("scp", "calibration", "config", "trials", "models", "scores", "manifest", "rttm", "yaml")
    changed = damaged(whole(name), TEXT + BYTES[:4] if text else BYTES)
    return st.one_of(changed, changed, changed, HOSTILE[name]) if name in HOSTILE else changed


@st.composite
def damaged(draw: DrawFn, wholes: Sequence[bytes], ways: Sequence[Way]) -> bytes:
    """Return a valid file after one to four changes."""
    data = draw(st.sampled_from(list(wholes)))
    for _ in range(draw(st.integers(1, 4))):
        data = draw(st.sampled_from(list(ways)))(draw, data) if data else data
    if draw(st.integers(0, 7)) == 0:
        other = draw(st.sampled_from(list(wholes)))
        data = data[: _place(draw, data)] + other[_place(draw, other) :]
    return data


def _place(draw: DrawFn, data: bytes) -> int:
    """Return a place in a file: anywhere, or in its first or last 64 bytes, where headers and footers are."""
    near = st.integers(0, min(64, len(data)))
    return draw(st.one_of(near, near.map(lambda i: len(data) - i), st.integers(0, len(data))))


# ------------------------------------------------------------------------------------------------- ways to damage bytes
def _flip(draw: DrawFn, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw(st.sampled_from((1, 1, 2, 8, 50)))):
        changed[_place(draw, data) % len(data)] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed)


def _truncate(draw: DrawFn, data: bytes) -> bytes:
    return data[: _place(draw, data)]


def _lose(draw: DrawFn, data: bytes) -> bytes:
    start, end = sorted((_place(draw, data), _place(draw, data)))
    return data[:start] + data[end:]


def _repeat(draw: DrawFn, data: bytes) -> bytes:
    start, end = sorted((_place(draw, data), _place(draw, data)))
    return data[:end] + data[start:]


def _append(draw: DrawFn, data: bytes) -> bytes:
    more = draw(st.one_of(st.binary(max_size=64), st.sampled_from([b"\0" * 5000, data, b"\xff" * 16])))
    return data + more


def _number(draw: DrawFn, data: bytes) -> bytes:
    """Write an extreme of 1, 2, 4 or 8 bytes over what stands there, in either order."""
    width, order = draw(st.sampled_from((1, 2, 4, 4, 8))), draw(st.sampled_from(("little", "big")))
    number = draw(st.sampled_from([size for size in SIZES if size < 256**width])).to_bytes(width, order)
    at = _place(draw, data)
    return data[:at] + number + data[at + width :]


def _insert(draw: DrawFn, data: bytes) -> bytes:
    at = _place(draw, data)
    return data[:at] + draw(st.one_of(st.sampled_from(ODD), st.binary(max_size=8))) + data[at:]


BYTES: list[Way] = [_flip, _truncate, _lose, _repeat, _append, _insert, _number, _number, _number]


# -------------------------------------------------------------------------------------------------- ways to damage text
def _field(draw: DrawFn, data: bytes) -> bytes:
    """Put something odd, or another field of the file, in the place of a field."""
    separator = draw(st.sampled_from((b" ", b"\t", b",", b":", b"\n", b'"')))
    fields = data.split(separator)
    other = draw(st.sampled_from([*ODD, b"", b"0", b"-1", b"0.5", *fields[:20]]))
    fields[draw(st.integers(0, len(fields) - 1))] = other
    return separator.join(fields)


def _lines(draw: DrawFn, data: bytes) -> bytes:
    """Put lines in another order, twice, or away."""
    lines = data.split(b"\n")
    order = draw(st.lists(st.integers(0, len(lines) - 1), min_size=1, max_size=2 * len(lines)))
    return b"\n".join(lines[i] for i in order)


def _separators(draw: DrawFn, data: bytes) -> bytes:
    old = draw(st.sampled_from((b" ", b"\t", b",", b"\n", b".", b"/", b":")))
    return data.replace(old, draw(st.sampled_from(ODD[:12])), draw(st.sampled_from((-1, 1, 5))))


def _encode(draw: DrawFn, data: bytes) -> bytes:
    codes = ("utf-16", "utf-16-le", "utf-32", "utf-8", "cp500", "utf-7")
    return data.decode("latin-1").encode(draw(st.sampled_from(codes)))


TEXT: list[Way] = [_field, _field, _field, _lines, _separators, _insert, _encode]


# --------------------------------------------------------------------------------------------------- files that lie
def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


@st.composite
def wav(draw: DrawFn) -> bytes:
    """A RIFF whose fields say anything."""
    size = st.sampled_from([size for size in SIZES if size < 2**32])
    short = st.sampled_from([size for size in SIZES if size < 2**16])
    kind = draw(st.sampled_from((1, 1, 3, 6, 7, 17, 2, 49, 85, 0xFFFE, 0)))
    rate = draw(st.one_of(size, st.sampled_from((1, 7, 8000, 16000, 44100, 48000, 192000, 5_000_000, 655350))))
    about = struct.pack("<HHIIHH", kind, draw(st.one_of(short, st.integers(1, 3))), rate, draw(size), draw(short), 16)
    about = about[:14] + struct.pack("<H", draw(st.sampled_from((0, 1, 4, 8, 12, 16, 24, 32, 64, 65535)))) + about[16:]
    samples = draw(
        st.sampled_from((b"", b"\0" * 400, bytes(range(256)) * 20, b"\xff\x7f" * 900, b"\0\0\xc0\x7f" * 500))
    )
    chunks = [_chunk(b"fmt ", about), _chunk(b"data", samples)]
    if draw(st.booleans()):
        named = st.sampled_from(
            (b"LIST", b"fact", b"data", b"fmt ", b"bext", b"cue ", b"PEAK", b"ds64", b"smpl", b"\0\0\0\0")
        )
        chunks.insert(draw(st.integers(0, 2)), _chunk(draw(named), draw(st.binary(max_size=40))))
    body = b"WAVE" + b"".join(chunks)
    form = draw(st.sampled_from((b"RIFF", b"RIFF", b"RIFX", b"RF64")))
    return form + struct.pack("<I", draw(st.one_of(st.just(len(body)), size))) + body


def _crc_of_page(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 1 << 31 else crc << 1) & 0xFFFFFFFF
    return crc


@st.composite
def ogg(draw: DrawFn) -> bytes:
    """An Ogg with a changed page whose checksum is right, so that the decoder meets what was changed."""
    data = bytearray(draw(st.sampled_from(whole("ogg"))))
    starts = [i for i in range(len(data)) if data[i : i + 4] == b"OggS"]
    at = draw(st.sampled_from(starts[:3] + starts[-1:]))
    end = next((start for start in starts if start > at), len(data))
    for _ in range(draw(st.integers(1, 6))):
        place = at + 4 + draw(st.integers(0, min(end - at - 5, 200)))
        data[place] = draw(st.sampled_from((0, 1, 127, 128, 255)))
    data[at + 22 : at + 26] = bytes(4)
    data[at + 22 : at + 26] = _crc_of_page(bytes(data[at:end])).to_bytes(4, "little")
    return bytes(data)


@st.composite
def npy(draw: DrawFn) -> bytes:
    """An array whose header says anything."""
    number = st.sampled_from(["8", "0", "1", "-1", "1000000000000", "99999999999999999999", "8.0", "True", "''", "()"])
    shape = draw(st.lists(number, max_size=3).map(lambda numbers: f"({''.join(f'{one}, ' for one in numbers)})"))
    kinds = (
        "<f4",
        "<f8",
        "<f2",
        ">f4",
        "<i8",
        "|O",
        "|b1",
        "<U4",
        "|S8",
        "<c8",
        "<M8[ns]",
        "|V4",
        "<f16",
        "",
        "<f99",
        "4f4",
    )
    kind = draw(
        st.sampled_from([*map(repr, kinds), "[('a', '<f4')]", "('<f4', (8,))", "('<f4', (100000, 100000))", "None"])
    )
    order = draw(st.sampled_from(("False", "True", "2", "None")))
    head = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}"
    head = draw(
        st.sampled_from((head, head, head, "{}", "(" * 300, "[" * 9000, f"{head}#{head}", "__import__('os').getcwd()"))
    )
    text = head.encode() + b" " * 20 + b"\n"
    version = draw(st.sampled_from(((1, 0), (2, 0), (3, 0), (9, 0))))
    length = struct.pack("<H" if version == (1, 0) else "<I", draw(st.sampled_from((len(text), len(text), 0, 65535))))
    return (
        b"\x93NUMPY" + bytes(version) + length + text + draw(st.sampled_from((b"", b"\0\0\x80?" * 64, b"\xff" * 256)))
    )


@st.composite
def npz(draw: DrawFn) -> bytes:
    """A zip of arrays of which one or both lie, under any names, packed or not."""
    good = whole("npz")[0]
    with zipfile.ZipFile(io.BytesIO(good)) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    names = st.sampled_from(
        ("ids.npy", "embeddings.npy", "ids", "a.npy", "/etc/x.npy", "../x.npy", "a\nb.npy", "\x1b.npy")
    )
    for name, data in draw(st.lists(st.tuples(names, npy()), min_size=1, max_size=3)):
        members[name] = data
    if draw(st.booleans()):
        members.pop("ids.npy", None)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return file.getvalue()


@st.composite
def ark(draw: DrawFn) -> bytes:
    """Entries whose sizes and kinds say anything."""
    size = st.sampled_from([size for size in SIZES if size < 2**32])
    kind = st.sampled_from((b"FV ", b"DV ", b"FM ", b"DM ", b"CM ", b"CM2 ", b"CM3 ", b"IV ", b"XX ", b"FV"))
    data = b""
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from((b"a", b"b", b"", b"\xff", b"a\n", b"\x1b[2J", b"x" * 300)))
        numbers = b"".join(b"\4" + struct.pack("<I", draw(size)) for _ in range(draw(st.integers(0, 2))))
        binary = b"\0B" + draw(kind) + numbers + draw(st.sampled_from((b"", b"\0\0\x80?" * 8, b"\xff" * 16)))
        numbers = draw(st.sampled_from((b"1 2 3", b"nan 1", b"1e999", b"", b"1_0 2", b"1 2\n3", b"inf", b"9" * 400)))
        data += name + b" " + draw(st.sampled_from((binary, b"[ " + numbers + b" ]\n", b" [" + numbers)))
    return data


@st.composite
def scp(draw: DrawFn) -> bytes:
    """Lines that lead elsewhere: beyond the ark's end, to commands, to other files and to the same place."""
    place = st.sampled_from(
        (
            b"embeddings.ark:16",
            b"embeddings.ark:170",
            b"embeddings.ark:99999999999999999999",
            b"embeddings.ark:-1",
            b"embeddings.ark",
            b"embeddings.ark:16[0:3]",
            b"embeddings.ark:16[0:3,1:2]",
            b"touch pwned |",
            b"| cat",
            b"/etc/passwd",
            b"/dev/zero:16",
            b"/dev/stdin",
            b"/proc/self/mem:16",
            b".",
            b"..:0",
            b"nosuch.ark:1",
            b"a\0b.ark:1",
            b"x" * 5000 + b":1",
            b"-",
        )
    )
    names = st.sampled_from((b"a", b"b", b"c", b"\xff", b"\x1b[31m", b"", b"a b"))
    return b"".join(b"%s %s\n" % line for line in draw(st.lists(st.tuples(names, place), min_size=1, max_size=4)))


@st.composite
def parquet(draw: DrawFn) -> bytes:
    """A table of other columns: of other types, with empty cells, nested, or of vectors that differ in length."""
    import pyarrow
    from pyarrow import parquet as format

    count = draw(st.integers(0, 3))
    columns = {
        "text": pyarrow.array(["a", "b", "c"][:count], pyarrow.string()),
        "large text": pyarrow.array(["a", "b", "c"][:count], pyarrow.large_string()),
        "no text": pyarrow.array([None, "b", "c"][:count], pyarrow.string()),
        "bytes": pyarrow.array([b"\xff", b"b", b"c"][:count]),
        "words": pyarrow.array(["a", "b", "c"][:count], pyarrow.string()).dictionary_encode(),
        "lists": pyarrow.array([[1.0, 2.0]] * count, pyarrow.list_(pyarrow.float32())),
        "uneven": pyarrow.array([[1.0, 2.0], [1.0], [3.0]][:count], pyarrow.list_(pyarrow.float32())),
        "holes": pyarrow.array([[1.0, None], None, [1.0, 2.0]][:count], pyarrow.list_(pyarrow.float32())),
        "fixed": pyarrow.array([[1.0, 2.0]] * count, pyarrow.list_(pyarrow.float64(), 2)),
        "fixed holes": pyarrow.array([None, [1.0, 2.0], None][:count], pyarrow.list_(pyarrow.float32(), 2)),
        "lists of text": pyarrow.array([["a"]] * count, pyarrow.list_(pyarrow.string())),
        "lists of lists": pyarrow.array([[[1.0]]] * count, pyarrow.list_(pyarrow.list_(pyarrow.float32()))),
        "whole": pyarrow.array([1, 2, 3][:count]),
        "float": pyarrow.array([1.0, float("nan"), None][:count], pyarrow.float64()),
        "half": pyarrow.array([1.0, 2.0, 3.0][:count], pyarrow.float32()).cast(pyarrow.float16()),
        "struct": pyarrow.array([{"a": 1.0}] * count, pyarrow.struct([("a", pyarrow.float32())])),
    }
    names = st.sampled_from(("id", "embedding", "0", "1", "dim_1", "dim_2", "x", "id\n", ""))
    chosen = draw(st.lists(st.tuples(names, st.sampled_from(sorted(columns))), min_size=1, max_size=4))
    file = io.BytesIO()
    format.write_table(pyarrow.table([columns[kind] for _, kind in chosen], [name for name, _ in chosen]), file)
    return file.getvalue()


@st.composite
def safetensors(draw: DrawFn, names: Sequence[str] = ("a", "b", "id0/a.wav", "", "\n", "__metadata__")) -> bytes:
    """A header whose types, shapes and offsets say anything."""
    size = st.sampled_from((0, 1, 4, 8, 32, -1, 2**31, 2**40, 2**63, 2**64, 1.5, None, "4"))
    tensor = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(
                ("F32", "F64", "F16", "BF16", "F8_E4M3", "I64", "BOOL", "U8", "C64", "", None, "F4")
            ),
            "shape": st.one_of(st.lists(size, max_size=3), st.just([8]), st.just(8)),
            "data_offsets": st.one_of(st.lists(size, max_size=3), st.just([0, 32]), st.just([32, 0])),
        }
    )
    header = draw(st.dictionaries(st.sampled_from(list(names)), st.one_of(tensor, st.sampled_from(OTHERS)), max_size=3))
    text = draw(st.sampled_from((json.dumps(header), json.dumps(header), "[" * 5000, "{", '{"a":1,"a":2}'))).encode()
    length = draw(st.sampled_from((len(text), len(text), len(text), 0, 2**63, 2**40, 100_000_000, len(text) + 8)))
    return struct.pack("<Q", length) + text + draw(st.sampled_from((b"", b"\0\0\x80?" * 8, b"\xff" * 32)))


class Calls:
    """What a pickle of it does: call a function with arguments."""

    def __init__(self, function: Callable, *arguments: Any):
        self.called = function, arguments

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.called


@st.composite
def pt(draw: DrawFn) -> bytes:
    """A file of torch.save that holds anything: strange types, views that claim more than they store, calls."""
    import torch

    vectors = [
        torch.ones(4),
        torch.ones(1, 4),
        torch.ones(4, dtype=torch.float64),
        torch.ones(4).half(),
        torch.ones(4).bfloat16(),
        torch.ones(1).expand(500_000_000),
        torch.ones(1).expand(4),
        torch.ones(4).to_sparse(),
        torch.ones(4, dtype=torch.complex64),
        torch.ones(4, dtype=torch.int64),
        torch.tensor(1.0),
        torch.ones(0),
        torch.full((4,), float("nan")),
        torch.ones(4, requires_grad=True),
        torch.nn.Parameter(torch.ones(4)),
        torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
        torch.ones(4, device="meta"),
        torch.ones(4, dtype=torch.float8_e4m3fn),
        torch.ones(4).conj(),
        "text",
        None,
        7,
        Calls(eval, "open('pwned', 'w')"),
    ]
    value: Any = st.sampled_from(vectors)
    names = st.sampled_from(("a", "b", "ids", "embeddings", "", "\n", 7, None, ("a",), "model", "state_dict"))
    held = draw(st.one_of(st.dictionaries(names, value, max_size=3), value, st.lists(value, max_size=2)))
    if isinstance(held, dict) and draw(st.booleans()):
        held = {
            "ids": draw(st.sampled_from((["a", "b"], "ab", 7, [1, 2], ["a", "a"], None))),
            "embeddings": torch.ones(2, 4),
        }
    file = io.BytesIO()
    try:
        torch.save(held, file, _use_new_zipfile_serialization=draw(st.booleans()))
    except (RuntimeError, NotImplementedError, ValueError):  # of what torch itself cannot write
        return pickle.dumps({"a": 1})
    return file.getvalue()


@st.composite
def index(draw: DrawFn) -> bytes:
    """An index as version 0.1.0 wrote it: faiss's own bytes, the names behind them changed, and their length false."""
    wholes = [data for data in whole("index") if data.endswith(b"svssl-i1")]
    lengths = [int.from_bytes(data[-16:-8], "little") for data in wholes]
    chosen = draw(st.integers(0, len(wholes) - 1))
    text = wholes[chosen][-16 - lengths[chosen] : -16]
    if draw(st.booleans()):
        text = _dumped(draw(changed(json.loads(text))))
    text = draw(st.sampled_from((text, text, text, b"[" * 100_000, b"{}", b"null", b"\xff")))
    claimed = draw(st.sampled_from((len(text), len(text), len(text), 0, 2**40, 2**64 - 1, len(text) + 1)))
    faiss = [data[: -16 - length] for data, length in zip(wholes, lengths)]
    start = draw(st.sampled_from((faiss[chosen], faiss[chosen], *faiss, faiss[chosen][:99], b"")))
    return start + text + claimed.to_bytes(8, "little") + b"svssl-i1"


# --------------------------------------------------------------------------------------------------------- documents
def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", errors="surrogatepass")


@st.composite
def changed(draw: DrawFn, document: Any) -> Any:
    """Return a JSON document with one value, at any depth, taken out or replaced by what does not belong there."""
    if isinstance(document, (dict, list)) and document and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(list(document) if isinstance(document, dict) else range(len(document))))
        copy = dict(document) if isinstance(document, dict) else list(document)
        if draw(st.integers(0, 6)):
            copy[key] = draw(changed(document[key]))  # type: ignore[index]
        else:
            del copy[key]  # type: ignore[arg-type]
        return copy
    deep: Any = []
    for _ in range(draw(st.sampled_from((0, 0, 900)))):
        deep = [deep]
    return draw(st.sampled_from([*NUMBERS, *OTHERS, deep]))


@st.composite
def documents(draw: DrawFn, name: str, signed: bool = False) -> bytes:
    """A JSON of a format after one to three changes; `signed` is as a calibration is, anew."""
    document = json.loads(draw(st.sampled_from(whole(name))))
    document.pop("digest", None)
    for _ in range(draw(st.integers(1, 3))):
        document = draw(changed(document))
    if signed and isinstance(document, dict):
        fields = {key: value for key, value in document.items() if key != "format"}
        document["digest"] = hashlib.sha1(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return _dumped(document)


@st.composite
def rttm(draw: DrawFn) -> bytes:
    """Lines whose times and names are odd."""
    time = st.sampled_from(
        ("0", "1.5", "-0", "nan", "inf", "1e308", "1e-400", "-1", "1e5", "9" * 400, "1_0", "0x1", "١", "")
    )
    name = st.sampled_from(("ann", "<NA>", ";;", "\u200f", "a\u0085b", "\x1b[31m", "x" * 3000))
    line = st.tuples(name, time, time, name).map(lambda row: "SPEAKER {} 1 {} {} <NA> <NA> {} <NA> <NA>\n".format(*row))
    region = st.tuples(name, time, time).map(lambda row: "{} 1 {} {}\n".format(*row))
    return "".join(draw(st.lists(draw(st.sampled_from((line, region))), min_size=1, max_size=5))).encode()


@st.composite
def manifest(draw: DrawFn) -> bytes:
    """A table whose cells are odd, quoted as CSV wants it."""
    import csv

    odd = (
        "0",
        "1.0",
        "nan",
        "inf",
        "-1",
        "1e400",
        "9" * 30,
        "16000",
        "١٢",
        " 3",
        "=1+1",
        "a\nb",
        '"',
        "\x1b[31m",
        "\u2028",
        "",
    )
    columns = draw(
        st.sampled_from((("ID", "duration", "wav", "start", "stop", "label", "fold"), ("wav", "kind", "split")))
    )
    kinds = {"duration": ("1.0",), "start": ("0",), "stop": ("16000",), "kind": ("music",), "split": ("train",)}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for number in range(draw(st.integers(1, 4))):
        usual = {column: kinds.get(column, (f"{column}{number}",)) for column in columns}
        writer.writerow([draw(st.sampled_from((*usual[column] * 9, *odd))) for column in columns])
    return file.getvalue().encode("utf-8")


@st.composite
def trials(draw: DrawFn) -> bytes:
    """Lines of few ids, so that pairs come again, the other way round, and with themselves."""
    name = st.sampled_from(("a", "b", "c", "=1+1", "\x1b[31m", "\u202e", "#a", "nan", "1"))
    last = draw(st.sampled_from((("1", "0"), ("target", "nontarget"), ("0.5", "nan", "1e999"), ("1", "0", "2"))))
    rows = draw(st.lists(st.tuples(name, name, st.sampled_from(last)), min_size=1, max_size=12))
    return "".join(f"{one} {other} {what}\n" for one, other, what in rows).encode()


HOSTILE: dict[str, SearchStrategy[bytes]] = {
    "wav": wav(),
    "ogg": ogg(),
    "npz": npz(),
    "npy": npy(),
    "ark": ark(),
    "scp": scp(),
    "parquet": parquet(),
    "safetensors": safetensors(),
    "pt": pt(),
    "part": npz(),
    "index": index(),
    "config": documents("config"),
    "weights": safetensors(["encoder.stem.0.weight", "encoder.blocks.0.bn1.bias", "a"]),
    "checkpoint": pt(),
    "calibration": documents("calibration", signed=True),
    "trials": trials(),
    "scores": trials(),
    "manifest": manifest(),
    "rttm": rttm(),
}
