"""Nothing of the user's is lost: each command refuses, before its work, to write over what it reads."""

import hashlib
import importlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from sv_ssl.embeddings import store

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"
MODEL = "model_plain"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a copy of what the commands take."""
    monkeypatch.chdir(tmp_path)
    for name in ("embeddings.npz", "embeddings.npy", "embeddings.ids", "trials.txt", "meeting.wav", "speakers.index"):
        shutil.copy(GOLDEN / name, name)
    for name in (MODEL, "reference"):
        shutil.copytree(GOLDEN / name, name)
    os.mkdir("lists")
    Path("lists/wav.scp").write_text("a meeting.wav\n")
    shutil.copy(GOLDEN / "data" / "train.csv", "lists/test.skipped.csv")
    os.mkdir("out")
    ids, _ = store.read("embeddings.npz")
    Path("out/pairs.csv").write_text("id,label\n" + "".join(f"{i},{n % 2}\n" for n, i in enumerate(ids)))
    Path("other.ids").write_text("the ids of something else\n")
    return tmp_path


def content(folder):
    return {
        str(path): hashlib.sha1(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def call(line):
    name, *words = line.split()
    return importlib.import_module(f"sv_ssl.cli.{name.removeprefix('sv-')}").main(words)


@pytest.mark.parametrize(
    "line, words",
    [
        (f"sv-diarize {MODEL} meeting.wav --reference reference --out reference", "what --reference reads"),
        (f"sv-diarize {MODEL} meeting.wav --rttm-in reference/meeting.rttm --out reference", "what --rttm-in reads"),
        (f"sv-extract {MODEL} lists/wav.scp --out lists/wav.ark", "lists/wav.scp would be written beside it"),
        (f"sv-extract {MODEL} lists/test.skipped.csv --out lists/test.npz", "what INPUT reads"),
        (f"sv-extract {MODEL} meeting.wav --out other.npy", "other.ids would be written beside it and is there"),
        ("sv-identify speakers.index embeddings.npz --out speakers.index", "what INDEX reads"),
        ("sv-identify speakers.index embeddings.npz --out embeddings.npz", "what EMBEDDINGS reads"),
        ("sv-identify speakers.index embeddings.npy --out embeddings.ids", "what EMBEDDINGS reads"),
        (f"sv-export {MODEL} --torchscript {MODEL}/model.safetensors", "what MODEL reads"),
        (f"sv-export {MODEL} --torchscript out", "this is a folder"),
        (f"sv-export {MODEL} --torchscript m.pt --onnx m.pt", "would overwrite what --onnx writes"),
        ("sv-analyze embeddings.npz --labels out/pairs.csv --out out", "what --labels reads"),
        ("sv-score trials.txt --json embeddings.npz", "would overwrite what"),
        ("sv-score trials.txt --embeddings embeddings.npz --json trials.txt", "what TRIALS reads"),
        ("sv-index embeddings.npz --enrol embeddings.npz", "what --enrol reads"),
    ],
)
def test_an_input_is_never_replaced(here, capsys, line, words):
    before = content(here)
    assert call(line) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert content(here) == before


def test_the_arks_behind_an_scp_are_inputs(here, capsys):
    ids, rows = store.read("embeddings.npz")
    store.write("kept.ark", ids, rows)
    os.rename("kept.scp", "elsewhere.scp")
    before = content(here)
    assert call("sv-identify speakers.index elsewhere.scp --out kept.ark") == 2
    assert "what EMBEDDINGS reads" in capsys.readouterr().err and content(here) == before


def test_the_last_speaker_is_not_removed(here, capsys):
    store.write("one.npz", ["anna"], np.ones((1, 4)))
    assert call("sv-index one.index --enrol one.npz") == 0
    before = content(here)
    assert call("sv-index one.index --remove anna") == 2
    assert "would hold no speaker" in capsys.readouterr().err and content(here) == before


@pytest.mark.parametrize(
    "line, words",
    [
        ("sv-identify speakers.index embeddings.npz --p-target 0.1", "--p-target needs --calibration as well"),
        (f"sv-extract {MODEL} meeting.wav --window 1.5 --hop 0 --out a.npz", "windows of 1.5 s every 0 s"),
        (f"sv-extract {MODEL} meeting.wav --audio nosuch --out a.npz", "wanted the input to be an RTTM or a list"),
        (f"sv-extract {MODEL} lists/list.txt --audio nosuch --out a.npz", "no such folder"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(here, capsys, line, words):
    Path("lists/list.txt").write_text("meeting.wav\n")
    assert call(line) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and not Path("a.npz").exists()


def test_torchscript_may_have_a_name_without_an_ending(here, capsys):
    assert call(f"sv-export {MODEL} --torchscript exported") == 0
    assert Path("exported").stat().st_size > 1000
