"""300 recordings of mixed length, rate, channels and format: no batch, worker, shard or kill changes a number."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from test_extraction import rows_kept

from sv_ssl import audio
from sv_ssl.cli import extract
from sv_ssl.data import sources
from sv_ssl.embeddings import extraction, parts
from sv_ssl.embeddings.extraction import Options
from sv_ssl.models import folder as model
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34

ROOT = Path(__file__).parents[2]
FILES = 300
COMMAND = [sys.executable, "-c", "import sys; from sv_ssl.cli.extract import main; sys.exit(main(sys.argv[1:]))"]


def write_mixed(folder):
    """Two thirds share one of four lengths, so that batches form; the others have any from 0.3 to 6 s, mostly short."""
    rng, folder = np.random.default_rng(0), Path(folder)
    folder.mkdir()
    endings = [
        ending
        for ending, name in (("wav", "WAV"), ("flac", "FLAC"), ("ogg", "OGG"), ("mp3", "MP3"))
        if name in soundfile.available_formats()
    ]
    for i in range(FILES):
        rate, channels = (8000, 16000, 22050, 44100)[i % 4], 1 + i // 4 % 2
        seconds = (0.3, 0.4, 0.5, 0.8)[i // 8 % 4] if i % 3 else 0.3 + 5.7 * rng.random() ** 6
        wave = 0.1 * rng.standard_normal((round(seconds * rate), channels))
        soundfile.write(folder / f"{i:03}.{endings[i // 3 % len(endings)]}", wave, rate)
    (folder / "damaged.wav").write_text("no audio")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact")
    write_mixed(folder / "audio")
    return folder / "audio"


@pytest.fixture(scope="module")
def embedder():
    torch.manual_seed(0)
    return Embedder(LogMel(20), FastResNet34(20, "small", dim=8)).eval()


@pytest.fixture(scope="module")
def folder(embedder, tmp_path_factory):
    return str(model.save(tmp_path_factory.mktemp("exact") / "model", embedder, {}))


@pytest.fixture(scope="module")
def alone(embedder, corpus):
    """The ids, and the embedding of each file by itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    names = [name for name in audio.find(corpus) if name != "damaged.wav"]
    with torch.no_grad():
        rows = [embedder(torch.from_numpy(audio.read(corpus / name))[None])[0].numpy() for name in names]
    torch.set_num_threads(threads)
    return names, np.stack(rows)


def assert_same(ids, rows, alone):
    assert list(ids) == alone[0] and len(ids) == FILES
    assert np.abs(rows - alone[1]).max() < 1e-5 < 1e-3 < np.abs(alone[1] - alone[1][::-1]).max()


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("batch", [1, 8, 64])
def test_neither_batch_nor_workers(embedder, corpus, alone, batch, workers):
    utterances, _ = sources.find([str(corpus)])
    found = extraction.extract(embedder, utterances, Options(batch=batch), workers=workers, progress=False)
    assert_same(found.ids, found.rows[:, 0], alone)
    assert [skipped.id for skipped in found.skipped] == ["damaged.wav"]


def test_two_shards_merged_are_one_run(folder, corpus, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = str(tmp_path / "e.npz")
    for shard in ("2/2", "1/2"):
        extract.main([folder, str(corpus), "--out", out, "--shard", shard, "--no-cache", "--workers", "0"])
    pieces = [parts.path_of(out, shard, 2) for shard in (1, 2)]
    assert not Path(out).exists() and all(len(parts.read(piece).ids) > FILES / 10 for piece in pieces)
    assert extract.main(["--merge", *map(str, pieces), "--out", out]) == 3
    with np.load(out) as arrays:
        assert_same(arrays["ids"], arrays["embeddings"], alone)
    assert extract.main([folder, str(corpus), "--out", str(tmp_path / "one.npz"), "--workers", "0"]) == 3
    assert (tmp_path / "one.npz").read_bytes() == Path(out).read_bytes()
    assert (tmp_path / "one.skipped.csv").read_bytes() == (tmp_path / "e.skipped.csv").read_bytes()


def together(folder, corpus, tmp_path, *more):
    """Two processes as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = dict(
        os.environ,
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=port,
        WORLD_SIZE="2",
        LOCAL_WORLD_SIZE="2",
        OMP_NUM_THREADS="1",
        SV_SSL_PATIENCE="10",
    )
    command = [*COMMAND, folder, str(corpus), "--out", str(tmp_path / "e.npz"), "--workers", "0", *more]
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=common | dict(RANK=rank, LOCAL_RANK=rank),
        )
        for rank in "01"
    ]


def test_a_kill_in_the_middle_of_two_processes_and_again(folder, corpus, alone, tmp_path):
    both = together(folder, corpus, tmp_path)
    deadline = time.monotonic() + 120
    while rows_kept(tmp_path) < 20 and all(one.poll() is None for one in both) and time.monotonic() < deadline:
        time.sleep(0.01)
    both[1].send_signal(signal.SIGKILL)
    _, error = both[0].communicate(timeout=120)  # it does not wait for ever
    both[1].communicate()
    assert (both[0].returncode, both[1].returncode) == (1, -signal.SIGKILL), error
    assert "process" in error and "Traceback" not in error
    before = rows_kept(tmp_path)
    assert 20 <= before < FILES and not (tmp_path / "e.npz").exists()
    both = together(folder, corpus, tmp_path)
    said = [one.communicate(timeout=120) for one in both]
    assert [one.returncode for one in both] == [3, 3], said
    with np.load(tmp_path / "e.npz") as arrays:
        assert_same(arrays["ids"], arrays["embeddings"], alone)
    assert rows_kept(tmp_path) == FILES and "wrote" in said[0][0] and not said[1][0]
    assert {path.name for path in tmp_path.iterdir()} == {"e.npz", "e.skipped.csv", "cache"}
