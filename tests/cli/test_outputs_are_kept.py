"""Nothing of the user's is lost: each command refuses, before its work, to write over what it reads."""

import hashlib
import importlib
import os
import resource
import shutil
from contextlib import contextmanager
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
    shutil.copytree(GOLDEN / "data" / "wav", "wav")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-cache"))
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
    module = {"sv-import": "import_model"}.get(name, name.removeprefix("sv-"))
    return importlib.import_module(f"sv_ssl.cli.{module}").main(words)


@contextmanager
def a_disk_of(n_bytes):
    """Let no file grow beyond some bytes: the writes that would be too much fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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


@pytest.mark.parametrize(
    "line, made",
    [
        *[(f"sv-extract {MODEL} wav --out new.{ending}", f"new.{ending}") for ending in ("npz", "parquet", "pt")],
        (f"sv-extract {MODEL} wav --out new.npy", "new.npy new.ids"),
        (f"sv-extract {MODEL} wav --out new.ark", "new.ark new.scp"),
        (f"sv-extract {MODEL} wav --out new.npz --shard 1/2 --no-cache", "new.1-of-2.part"),
        (
            f"sv-extract {MODEL} meeting.wav --window 0.2 --workers 0 --out new.npz",
            "new.npz new.windows.csv",
        ),
        (f"sv-diarize {MODEL} meeting.wav --out new", "new/meeting.rttm"),
        ("sv-index new.index --enrol embeddings.npz", "new.index"),
        ("sv-identify speakers.index embeddings.npz --out new.csv", "new.csv"),
        ("sv-score trials.txt --embeddings embeddings.npz --json new.json", "new.json"),
        ("sv-score trials.txt --embeddings embeddings.npz --scores-out new.txt", "new.txt"),
        ("sv-score trials.txt --embeddings embeddings.npz --csv new.csv", "new.csv"),
        ("sv-score trials.txt --embeddings embeddings.npz --report new.html", "new.html"),
        ("sv-score trials.txt --embeddings embeddings.npz --plot new", "new/det.png new/scores.png"),
        (
            "sv-analyze embeddings.npz --labels out/pairs.csv --out new",
            "new/analysis.json new/pairs.csv new/pairs.png new/map.png",
        ),
    ],
)
def test_on_a_full_disk_the_old_stays_and_nothing_is_left(here, capsys, line, made):
    """Wherever the disk ends: a file is the old one or the new one, and the first that does not fit is the end."""
    assert call(line) == 0
    made = [Path(name) for name in made.split()]
    new, sizes = content(here), [path.stat().st_size for path in made]
    capsys.readouterr()
    for n_bytes in (0, sizes[0] - 1):
        for path in made:
            shutil.copy("speakers.index", path)  # which sv-index can add to
        before = content(here)
        with a_disk_of(n_bytes):
            assert call(line) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"{line.split()[0]}: cannot write ") and err.count("\n") == 1
        after = content(here)
        assert after.keys() == before.keys() and not list(here.rglob(".aside-*"))
        assert all(after[name] in (before[name], new[name]) for name in after) and after[str(here / made[0])] != new


@pytest.mark.parametrize("line", [f"sv-extract {MODEL} wav --out new/", f"sv-import {MODEL} --out new"])
def test_on_a_full_disk_no_folder_is_begun(here, capsys, line):
    before = content(here)
    for n_bytes in (0, 300):
        with a_disk_of(n_bytes):
            assert call(line) == 2
        err = capsys.readouterr().err
        assert "cannot write" in err and err.count("\n") == 1
        assert content(here) == before and not Path("new").exists()


def test_a_list_beside_the_embeddings_is_of_the_same_run(here, capsys, monkeypatch):
    """When the embeddings cannot be written, the list of what an earlier run skipped stays with its embeddings."""
    Path("wav/bad.wav").write_text("no audio")
    assert call(f"sv-extract {MODEL} wav --out new.npz") == 3
    before = content(here)
    Path("wav/bad.wav").unlink()
    before.pop(str(here / "wav/bad.wav"))
    with a_disk_of(300):
        assert call(f"sv-extract {MODEL} wav --out new.npz") == 2
    assert content(here) == before


NOWHERE = "/proc"  # where nobody may write, not even root
PLACES = [
    (f"sv-extract {MODEL} wav --out {{}}/new.npz", "--out"),
    (f"sv-extract {MODEL} wav --out {{}}/new/", "--out"),
    (f"sv-extract {MODEL} wav --out {{}}/new.npz --shard 1/2", "--out"),
    (f"sv-import {MODEL} --out {{}}/new", "--out"),
    (f"sv-diarize {MODEL} meeting.wav --out {{}}/new", "--out"),
    ("sv-index {}/new.index --enrol embeddings.npz", "INDEX"),
    ("sv-score trials.txt --embeddings embeddings.npz --json {}/new.json", "--json"),
    ("sv-analyze embeddings.npz --labels out/pairs.csv --out {}/new", "--out"),
]


@pytest.fixture
def no_work(monkeypatch):
    """Fail where a model or embeddings are read: that is work."""
    from sv_ssl.models import folder

    def worked(*_):
        pytest.fail("the work was begun")

    for module, name in ((folder, "load"), (folder, "renew"), (store, "read")):
        monkeypatch.setattr(module, name, worked)


@pytest.mark.parametrize("place", [NOWHERE, "trials.txt", "trials.txt/deeper"])
@pytest.mark.parametrize("line, option", PLACES)
def test_a_place_that_cannot_be_written_is_told_before_the_work(here, capsys, no_work, line, option, place):
    before = content(here)
    assert call(line.format(place)) == 2
    err = capsys.readouterr().err
    assert f"{option}: cannot write {place}/new" in err and err.count("\n") == 1
    assert content(here) == before


def test_a_full_disk_is_told_before_the_work(here, capsys, monkeypatch, no_work):
    disk = os.statvfs(here)

    class Full:
        f_frsize, f_blocks, f_bavail, f_bfree = disk.f_frsize, disk.f_blocks, 0, 0

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    os.mkdir("there")
    for line, option in PLACES:
        assert call(line.format("there")) == 2
        err = capsys.readouterr().err
        assert f"{option}: cannot write there/new" in err and "the disk is full" in err


def test_embeddings_that_do_not_fit_are_told_before_the_first_is_made(here, capsys, monkeypatch):
    disk = os.statvfs(here)

    class Nearly:
        f_frsize, f_blocks, f_bavail, f_bfree = 1, disk.f_blocks, 1000, 1000

    monkeypatch.setattr(os, "statvfs", lambda path: Nearly)
    from sv_ssl.embeddings import plan

    monkeypatch.setattr(plan, "embed_part", lambda *_: pytest.fail("the work was begun"))
    assert call(f"sv-extract {MODEL} wav --out new.npz") == 2
    assert "cannot write new.npz: 3,840 bytes are needed, the disk has 1,000 left" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["new.npz", "new.npy", "new.pt", "new/"])
def test_an_id_of_two_lines_is_told_before_the_work(here, capsys, no_work, out):
    os.rename("meeting.wav", "two\nlines.wav")
    before = content(here)
    os.mkdir("odd")
    os.rename("two\nlines.wav", "odd/two\nlines.wav")
    before = content(here)
    assert call(f"sv-extract {MODEL} odd --out {out}") == 2
    err = capsys.readouterr().err
    assert "'two\\nlines.wav' has a line break" in err and err.count("\n") == 1
    assert content(here) == before
