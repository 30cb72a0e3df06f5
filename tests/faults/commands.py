"""The commands that write: how each is called, what it writes, and how that is read to tell whether it is whole.

`build` makes the folder that they read: six recordings of three speakers, a model that learns nothing, and what the
commands make of these. A command is run twice in a folder of its own, first with `before`, which leaves what is to be
replaced, and then with `words`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "voxceleb" / "train_simclr_am.py"
INPUTS = "in"  # the folder of what is read, as commands see it
PASSING = ("version", "versions", "commit", "time", "date", "seconds", "minutes", "cpu_minutes", "peak_gb")
SMALL = (
    "--encoder_size=small --dim=8 --n_mels=20 --batch_size=4 --crop_seconds=0.3 --epochs=2 --valid_every=1 "
    "--num_workers=0 --device=cpu --threads=1 --debug=True --ckpt_interval_minutes=0.001"
)


class Command(NamedTuple):
    """A line, what it writes, each with a function that reads it, and the line that wrote there before."""

    words: str
    outputs: Mapping[str, Callable[[Path], Any]]
    before: str = ""
    pair: bool = False  # of files that belong together: between the two nothing is read, and that is said
    once: bool = False  # what is there is not replaced: the same line again is refused


# ---------------------------------------------------------------------------------------------------- what was written
def _embeddings(path: Path) -> Any:
    from sv_ssl.embeddings import store

    ids, rows = store.read(path)
    return ids, rows.round(5).tolist()


def _part(path: Path) -> Any:
    from sv_ssl.embeddings import parts

    part = parts.read(path)
    return part.ids, part.rows.round(5).tolist()


def _speakers(path: Path) -> Any:
    from sv_ssl.embeddings import search

    index = search.load(path)
    return sorted(index.numbers), index.search(np.eye(index.dim, dtype=np.float32)[:3], k=2)


def _text(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n"), f"{path} ends within a line"
    return text


def _json(path: Path) -> Any:
    return _lasting(json.loads(path.read_text(encoding="utf-8")))


def _lasting(value: Any) -> Any:
    """Return a JSON without what differs from run to run."""
    if isinstance(value, dict):
        return {key: _lasting(one) for key, one in value.items() if key not in PASSING}
    return [_lasting(one) for one in value] if isinstance(value, list) else value


def _page(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    assert text.rstrip().endswith("</html>"), f"{path} is no whole page"
    return text.partition("<h1")[2].partition("</h1>")[0]


def _picture(path: Path) -> Any:
    from matplotlib import image

    pixels = image.imread(path)
    return pixels.shape, float(pixels.sum())


def _model(path: Path) -> Any:
    from sv_ssl.embeddings.extraction import digest
    from sv_ssl.models import folder

    names = {"config.json", "model.safetensors", "README.md", "hyperparams.yaml", "embedding_model.ckpt"}
    assert names <= set(os.listdir(path)), f"{path} lacks {names - set(os.listdir(path))}"
    return digest(folder.load(path)), folder.describe(path)["dim"]


def _script(path: Path) -> Any:
    import torch

    return torch.jit.load(path)(torch.ones(1, 16000)).detach().numpy().round(4).tolist()


def _table(path: Path) -> Any:
    from sv_ssl.data import manifest

    frame = manifest.read(path)
    return frame["ID"].tolist(), frame["stop"].tolist()


def _sound(path: Path) -> Any:
    from sv_ssl import audio

    return audio.read(path).round(4).tolist()


def _shard(path: Path) -> Any:
    import tarfile

    with tarfile.open(path) as tar:
        return sorted((member.name, member.size) for member in tar)


# --------------------------------------------------------------------------------------------------------- the commands
def _extract(name: str, **more: Any) -> Command:
    words = f"sv-extract in/model in/a --out {name} --workers 0"
    return Command(words, {name: _embeddings}, f"sv-extract in/model in/b --out {name} --workers 0", **more)


_SCORED = "--scores-out s.txt --json m.json --csv c.csv --report r.html --plot plots --calibration-out cal.json"
_RECIPE = f"recipe hparams/am.yaml {SMALL} --data_folder in/data --noise_folder in/noise --room_folder in/rir"
COMMANDS = {
    "extract npz": _extract("e.npz"),
    "extract npy": _extract("e.npy", pair=True),
    "extract ark": _extract("e.ark", pair=True),
    "extract parquet": _extract("e.parquet"),
    "extract pt": _extract("e.pt"),
    "extract folder": Command("sv-extract in/model in/a --out e/ --workers 0", {"e": _embeddings}, once=True),
    "extract part": Command(
        "sv-extract in/model in/a --out e.npz --workers 0 --shard 1/2",
        {"e.1-of-2.part": _part},
        "sv-extract in/model in/b --out e.npz --workers 0 --shard 1/2",
    ),
    "merge parts": Command(
        "sv-extract --merge in/parts/a.1-of-2.part in/parts/a.2-of-2.part --out e.npz", {"e.npz": _embeddings},
        "sv-extract in/model in/b --out e.npz --workers 0",
    ),
    "index": Command("sv-index s.index --enrol in/a.npz --speakers ids", {"s.index": _speakers}, once=True),
    "index, add": Command(
        "sv-index s.index --enrol in/b.npz", {"s.index": _speakers}, "sv-index s.index --enrol in/a.npz", once=True
    ),
    "index, remove": Command(
        "sv-index s.index --remove s1/1.wav", {"s.index": _speakers}, "sv-index s.index --enrol in/a.npz", once=True
    ),
    "identify": Command(
        "sv-identify in/s.index in/a.npz --out who.tsv", {"who.tsv": _text},
        "sv-identify in/s.index in/b.npz --out who.tsv",
    ),
    "export": Command(
        "sv-export in/model --torchscript m.pt", {"m.pt": _script}, "sv-export in/wider --torchscript m.pt"
    ),
    "diarize": Command(
        "sv-diarize in/model in/meeting.wav --out turns", {"turns/meeting.rttm": _text},
        "sv-diarize in/model in/other/meeting.wav --out turns",
    ),
    "score": Command(
        f"sv-score in/trials.txt --embeddings in/a.npz --calibrate in/trials.txt {_SCORED}",
        {"s.txt": _text, "m.json": _json, "c.csv": _text, "r.html": _page, "plots/det.png": _picture}
        | {"cal.json": _json},
        f"sv-score in/few.txt --embeddings in/a.npz --calibrate in/few.txt {_SCORED}",
    ),
    "analyze": Command(
        "sv-analyze in/a.npz --labels in/a/train.csv --column spk_id --out made",
        {"made/analysis.json": _json, "made/pairs.csv": _text, "made/map.png": _picture},
    ),
    "import": Command("sv-import in/model --out copy", {"copy": _model}, once=True),
    "prepare a folder": Command(
        "data_prep.folder in/a --out made --speakers --workers 1", {"made/train.csv": _table},
        "data_prep.folder in/b --out made --speakers --workers 1",
    ),
    "prepare wavs": Command(
        "data_prep.wav in/data --out made --workers 1", {"made/train.csv": _table, "made/u1/1.wav": _sound}
    ),
    "prepare shards": Command(
        "data_prep.shards in/data --out made --speakers --workers 1",
        {"made/train.csv": _text, "made/shard-000000.tar": _shard},
    ),
    "train": Command(f"{_RECIPE} --output_folder run", {"run/model": _model, "run/scores.txt": _text}),
}  # fmt: skip


def call(line: str) -> int:
    """Run a line in this process -> exit code."""
    program, *words = shlex.split(line)
    if program == "recipe":
        from sv_ssl.training import experiment

        return experiment.main(str(RECIPE), "", words)
    module = f"sv_ssl.cli.{program.removeprefix('sv-')}" if program.startswith("sv-") else program
    return importlib.import_module(module.replace("cli.import", "cli.import_model")).main(words)


# --------------------------------------------------------------------------------------------------- what they read
def build(folder: Path) -> None:
    """Make what the commands read, below `folder`/in; it is not changed by them."""
    import torch

    from sv_ssl import audio
    from sv_ssl.models import folder as model
    from sv_ssl.models.embedder import Embedder, FrameStatistics
    from sv_ssl.models.features import LogMel

    home = folder / INPUTS
    rng = np.random.default_rng(0)
    places = (("a", "s", 3), ("b", "t", 2), ("data", "u", 6), ("noise", "noise", 1), ("rir", "room", 1))
    for place, stem, speakers in places:
        for name in (f"{stem}{speaker}/{number}.wav" for speaker in range(speakers) for number in range(2)):
            audio.write(home / place / name, 0.003 * rng.standard_normal(8000).cumsum(), 16000)
    voices = [0.1 * rng.standard_normal(24000), np.zeros(8000), 0.3 * np.sin(np.arange(24000) ** 1.3)]
    audio.write(home / "meeting.wav", np.concatenate(voices), 16000)
    audio.write(home / "other" / "meeting.wav", np.concatenate(voices[::-1])[8000:], 16000)
    torch.manual_seed(0)
    model.save(home / "model", Embedder(LogMel(20, sentence_mean=False), FrameStatistics(20)), {"name": "faults"})
    model.save(home / "wider", Embedder(LogMel(24), FrameStatistics(24)), {"name": "other"})
    lines = _pairs("s", 3)
    (home / "trials.txt").write_text("".join(lines))
    (home / "few.txt").write_text("".join(lines[:9]))
    (home / "data" / "trials.txt").write_text("".join(_pairs("u", 2)))
    for line in (
        "data_prep.folder data --out data --speakers --workers 1",
        "data_prep.folder a --out a --speakers --workers 1",
        "sv-extract model a --out a.npz --workers 0",
        "sv-extract model b --out b.npz --workers 0",
        "sv-extract model a --out parts/a.npz --workers 0 --shard 1/2",
        "sv-extract model a --out parts/a.npz --workers 0 --shard 2/2",
        "sv-index s.index --enrol a.npz",
    ):
        made(home, line)


def _pairs(stem: str, speakers: int) -> list[str]:
    """Return every pair of the two recordings of each speaker, as lines of a trial list."""
    names = [f"{stem}{speaker}/{number}.wav" for speaker in range(speakers) for number in range(2)]
    return [f"{int(one[:2] == other[:2])} {one} {other}\n" for i, one in enumerate(names) for other in names[i + 1 :]]


def made(home: Path, line: str) -> None:
    """Run a line in a folder, with a cache of its own, and see that it did what it should."""
    before, cache = os.getcwd(), os.environ.get("XDG_CACHE_HOME")
    os.chdir(home)
    os.environ["XDG_CACHE_HOME"] = str(home / "cache")
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            assert call(line) == 0, f"{line}: {said.getvalue()}"
    finally:
        os.chdir(before)
        del os.environ["XDG_CACHE_HOME"]
        if cache is not None:
            os.environ["XDG_CACHE_HOME"] = cache
