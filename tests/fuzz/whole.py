"""Small valid files of every format, made by the libraries that make them elsewhere or kept from version 0.1.0."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.formats import GOLDEN, ROOT

SECONDS = 0.25
SUBTYPES = {
    "WAV": ("PCM_16", "PCM_24", "PCM_U8", "FLOAT", "ULAW", "IMA_ADPCM"),
    "FLAC": ("PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}


@cache
def whole(name: str) -> list[bytes]:
    """Return the valid files of a format."""
    return MAKERS[name]()


def _wave(channels: int, rate: int) -> np.ndarray:
    rng = np.random.default_rng(channels)
    return 0.1 * rng.standard_normal((round(SECONDS * rate), channels)).astype(np.float32)


def audio(kind: str) -> list[bytes]:
    """Return a quarter of a second in each coding, of one channel and of two."""
    import soundfile

    made = []
    for subtype in SUBTYPES[kind]:
        for channels, rate in ((1, 16000), (2, 8000)):
            file = io.BytesIO()
            soundfile.write(file, _wave(channels, rate), rate, subtype, format=kind)
            made.append(file.getvalue())
    return made


def kept(*names: str) -> Callable[[], list[bytes]]:
    """Return files of tests/golden/v1."""
    return lambda: [(GOLDEN / name).read_bytes() for name in names]


def rows(count: int = 6, width: int = 8) -> tuple[list[str], np.ndarray]:
    """Return ids and embeddings."""
    return [f"id{i}/a.wav" for i in range(count)], np.random.default_rng(0).standard_normal((count, width), np.float32)


def stored(*names: str) -> list[bytes]:
    """Return embeddings as the product writes them, by the endings of the names."""
    from sv_ssl.embeddings import store

    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            store.write(f"{folder}/{name}", *rows())
        return [Path(folder, name).read_bytes() for name in names]


def npz() -> list[bytes]:
    ids, vectors = rows(3)
    single = io.BytesIO()
    np.savez_compressed(single, **dict(zip((i.replace("/", "-") for i in ids), vectors)))
    return [*stored("a.npz"), single.getvalue()]


def npy() -> list[bytes]:
    """Return arrays of as many rows as the ids beside them name."""
    made = []
    for dtype in (np.float32, np.float64, np.float16):
        file = io.BytesIO()
        np.save(file, rows(8)[1].astype(dtype))
        made.append(file.getvalue())
    return made


def ark() -> list[bytes]:
    ids, vectors = rows(3)
    text = "".join(f"{i} [ {' '.join(map(str, row))} ]\n" for i, row in zip(ids, vectors))
    return [*stored("a.ark"), text.encode()]


def parquet() -> list[bytes]:
    import pyarrow
    from pyarrow import parquet

    ids, vectors = rows(3, 4)
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"id": ids, **{str(d): vectors[:, d] for d in range(4)}}), file)
    return [*stored("a.parquet"), file.getvalue()]


def safetensors() -> list[bytes]:
    from safetensors.numpy import save

    return [save(dict(zip(*rows(3)))), save({"a": np.ones((1, 4), np.float16)})]


def pt() -> list[bytes]:
    import torch

    ids, vectors = rows(3)
    file = io.BytesIO()
    torch.save(dict(zip(ids, torch.tensor(vectors))), file)
    return [*stored("a.pt"), file.getvalue()]


def parts() -> list[bytes]:
    from sv_ssl.core.errors import Skipped
    from sv_ssl.embeddings import parts

    ids, vectors = rows()
    skipped = [Skipped("b.wav", "silent", "b.wav: silent")]
    part = parts.Part("0" * 40, 1, 1, 0, ids, vectors[:, None], 2.0, [], skipped, [])
    with tempfile.TemporaryDirectory() as folder:
        parts.write(Path(folder, "a.part"), part)
        return [Path(folder, "a.part").read_bytes()]


def index() -> list[bytes]:
    """Return an index of each kind as it is written today, and as version 0.1.0 wrote it."""
    from sv_ssl.embeddings import search

    made = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, count in (("flat", 8), ("ivf", 40), ("hnsw", 8), ("pq", 256)):
            found = search.create(kind, *rows(count))
            found.save(f"{folder}/{kind}.index")
            made += [Path(folder, f"{kind}.index").read_bytes(), _before(found)]
    return [*made, (GOLDEN / "speakers.index").read_bytes()]


def _before(found: Any) -> bytes:
    import faiss

    about = json.dumps({"kind": found.kind, "dim": found.dim, "names": found.names}).encode()
    rows = faiss.serialize_index(found.rows).tobytes()
    return rows + about + len(about).to_bytes(8, "little") + b"svssl-i1"


@cache
def _model() -> tuple[bytes, bytes]:
    """Return config.json and model.safetensors of an encoder of few weights."""
    import torch

    from sv_ssl.models import folder as model
    from sv_ssl.models.audio_papers import RawResNet18, Waveform
    from sv_ssl.models.embedder import Embedder

    with tempfile.TemporaryDirectory() as made, torch.random.fork_rng([]):
        torch.manual_seed(0)
        model.save(f"{made}/model", Embedder(Waveform(), RawResNet18("tiny")), {"name": "fuzz"})
        return Path(made, "model/config.json").read_bytes(), Path(made, "model/model.safetensors").read_bytes()


def config_of_weights() -> bytes:
    """Return the config.json that `weights()` fit."""
    return _model()[0]


def weights() -> bytes:
    """Return a model.safetensors."""
    return _model()[1]


def no_weights() -> bytes:
    """Return the model.safetensors of an encoder that learns nothing."""
    from safetensors.numpy import save

    return save({})


FRONT_ENDS = [
    {"name": "LogMel", "n_mels": 40, "sample_rate": 16000, "window_seconds": 0.025, "hop_seconds": 0.01},
    {"name": "KaldiFbank", "n_mels": 40, "sample_rate": 16000, "window": "hamming", "scale": 1.0},
    {"name": "SslsvMel", "n_mels": 40, "sample_rate": 16000, "window": "hann", "hop_seconds": 0.01},
    {"name": "SpeechBrainFbank", "n_mels": 40, "sample_rate": 16000},
    {"name": "ThreeSpectra", "n_mels": 40, "sample_rate": 16000, "window_seconds": 0.025, "hop_seconds": 0.01},
    {"name": "Waveform", "sample_rate": 16000},
]
PLAIN = {"name": "FrameStatistics", "n_mels": 40}
ENCODERS = [  # and how wide their embeddings are
    ({"name": "FastResNet34", "n_mels": 40, "size": "small", "dim": 8}, 8),
    ({"name": "ECAPA", "n_mels": 40, "size": "small", "dim": 8}, 8),
    ({"name": "WeSpeakerResNet34", "n_mels": 40, "size": "small", "dim": 8}, 8),
    ({"name": "AST", "n_mels": 40, "size": "tiny"}, 96),
    ({"name": "Pretrained", "folder": "."}, 768),
    ({"name": "BEATs", "checkpoint": "model.safetensors"}, 768),
]


def described(features: Mapping[str, Any], encoder: Mapping[str, Any], dim: Any) -> dict[str, Any]:
    """Return a config.json."""
    about = {"format": "sv_ssl model 1", "dim": dim, "sample_rate": features.get("sample_rate", 16000)}
    return {**about, "features": features, "encoder": encoder, "training": {"name": "fuzz"}, "results": {}}


def configs() -> list[bytes]:
    """Return the config.json of every front end, which load without weights, and of the encoders, which want some."""
    made = [described(features, PLAIN, 80) for features in FRONT_ENDS]
    made += [described(FRONT_ENDS[0], encoder, dim) for encoder, dim in ENCODERS]
    return [json.dumps(one).encode() for one in made]


def checkpoints() -> list[bytes]:
    """Return tensors by which the layouts of other toolkits are known; none is a whole encoder."""
    import torch

    layouts: list[dict[str, tuple[int, ...]]] = [
        {"conv1.weight": (8, 1, 3, 3), "seg_1.weight": (8, 640), "projection.weight": (4, 8)},
        {
            "blocks.0.conv.conv.weight": (128, 40, 5),
            "mfa.conv.conv.weight": (384, 384, 1),
            "asp.tdnn.conv.conv.weight": (64, 1152, 1),
            "fc.conv.weight": (8, 768, 1),
        },
        {
            "encoder.features_extractor.0.spectrogram.window": (400,),
            "encoder.features_extractor.0.mel_scale.fb": (257, 40),
            "encoder.conv.weight": (8, 1, 7, 7),
            "encoder.fc.weight": (8, 64),
        },
    ]
    made = []
    for shapes in layouts:
        file = io.BytesIO()
        torch.save({"model": {name: torch.zeros(shape) for name, shape in shapes.items()}}, file)
        made.append(file.getvalue())
    return made


def trials() -> list[bytes]:
    lines = (GOLDEN / "trials.txt").read_bytes()
    named = b"enroll\ttest\tlabel\n" + b"".join(
        b"%s\t%s\t%s\n" % (enrolled, tested, b"target" if label == b"1" else b"nontarget")
        for label, enrolled, tested in (line.split() for line in lines.splitlines())
    )
    return [lines, named]


def models() -> list[bytes]:
    return [
        b"anna a.wav b.wav\nben c.wav\n",
        b"modelid\tsegmentid\tside\nanna\t1.wav\ta\nanna\t2.wav\ta\notto\t3.wav\ta\n",
        b"anna,1.wav\nanna,2.wav\n",
    ]


def manifests() -> list[bytes]:
    return [
        (GOLDEN / "data" / "wav" / "manifest.csv").read_bytes(),
        b"ID,duration,wav,start,stop,label,fold\na,1.0,$data_root/a.wav,0,16000,dog,1\nb,1.0,b.wav,0,16000,cat,2\n",
        b"wav,kind,split\na.wav,music,train\nb.wav,noise,train\n",
    ]


def rttms() -> list[bytes]:
    return [
        (GOLDEN / "reference" / "meeting.rttm").read_bytes(),
        b";; who spoke when\nSPEAKER a 1 0.100 0.200 <NA> <NA> ann <NA> <NA>\nSPEAKER a 1 .2 1e1 <NA> <NA> bob <NA>\n",
        b"meeting 1 0.000 30.000\nmeeting 1 31.5 32\n",
    ]


def yamls() -> list[bytes]:
    folder = ROOT / "recipes" / "voxceleb" / "hparams"
    small = b"extends: %s\nname: mine\nencoder_size: small\nmethod: {loss: {temperature: 0.1}}\n"
    return [(folder / "am.yaml").read_bytes(), small % str(folder / "am.yaml").encode()]


MAKERS: dict[str, Callable[[], list[bytes]]] = {
    **{kind.lower(): lambda kind=kind: audio(kind) for kind in SUBTYPES},  # type: ignore[misc]
    "npz": npz,
    "npy": npy,
    "ark": ark,
    "scp": kept("embeddings.scp"),
    "parquet": parquet,
    "safetensors": safetensors,
    "pt": pt,
    "part": parts,
    "index": index,
    "config": configs,
    "weights": lambda: [weights()],
    "checkpoint": checkpoints,
    "calibration": kept("calibration.json", "fusion.json"),
    "trials": trials,
    "models": models,
    "scores": kept("scores.txt", "calibrated.txt"),
    "manifest": manifests,
    "rttm": rttms,
    "yaml": yamls,
}
