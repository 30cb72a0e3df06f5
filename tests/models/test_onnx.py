import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from sv_ssl.cli import export as command
from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import extraction
from sv_ssl.models import folder as model
from sv_ssl.models import onnx as export
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import Embedder, FrameStatistics
from sv_ssl.models.features import KaldiFbank, LogMel, SpeechBrainFbank, SslsvMel
from sv_ssl.models.resnet import FastResNet34


def made(features, encoder):
    torch.manual_seed(0)
    embedder = Embedder(features, encoder)
    embedder.train()(0.1 * torch.randn(4, 8000))
    return embedder.eval()


def waves():
    generator = torch.Generator().manual_seed(2)
    return [0.1 * torch.randn(1, samples, generator=generator) for samples in (9001, 16000, 40321)]


@torch.no_grad()
def difference(embedder, other):
    return max(float((embedder(wave) - other(wave)).abs().max()) for wave in waves())


@pytest.fixture(scope="module")
def small():
    return made(LogMel(40), FastResNet34(40, "small", dim=16))


@pytest.fixture(scope="module")
def onnx_file(small, tmp_path_factory):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert export.to_onnx(small, path) < 1e-5
    return path


def test_onnxruntime_alone_gives_the_embeddings(small, onnx_file):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    assert difference(small, lambda wave: torch.from_numpy(session.run(None, {"wave": wave.numpy()})[0])) < 1e-4


def test_an_onnx_file_stands_in_for_an_embedder(small, onnx_file):
    ours = export.load_onnx(onnx_file)
    assert (ours.dim, ours.sample_rate, ours.training) == (16, 16000, False)
    assert difference(small, ours) < 1e-4
    wave = waves()[0][0].numpy()
    assert np.allclose(extraction.embed_wave(ours, wave), extraction.embed_wave(small, wave), atol=1e-4)
    assert ours(torch.cat([waves()[0], waves()[0]])).shape == (2, 16)
    assert difference(ours, pickle.loads(pickle.dumps(ours))) == 0


def test_speechbrains_ecapa_with_its_features_inside(tmp_path, onnx_file):
    embedder = made(SpeechBrainFbank(20), ECAPA(20, "small", dim=16))
    export.to_onnx(embedder, tmp_path / "a.onnx")
    assert difference(embedder, export.load_onnx(tmp_path / "a.onnx")) < 1e-4


@pytest.mark.parametrize(
    "features",
    [LogMel(20), SpeechBrainFbank(20), SslsvMel(20), KaldiFbank(20)],
    ids=lambda features: type(features).__name__,
)
def test_every_front_end_goes_inside(tmp_path, features, onnx_file):
    embedder = made(features, FrameStatistics(20))
    assert export.to_onnx(embedder, tmp_path / "a.onnx") < 1e-4
    assert difference(embedder, export.load_onnx(tmp_path / "a.onnx")) < 1e-3  # of values up to 20
    assert export.to_torchscript(embedder, tmp_path / "a.pt") < 1e-5
    assert difference(embedder, torch.jit.load(tmp_path / "a.pt")) < 1e-4


def test_torchscript_of_an_ecapa(tmp_path):
    embedder = made(LogMel(20), ECAPA(20, "small", dim=16))
    export.to_torchscript(embedder, tmp_path / "a.pt")
    assert difference(embedder, torch.jit.load(tmp_path / "a.pt")) < 1e-4


def test_a_file_that_differs_is_not_written(small, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "LARGEST", -1.0)
    with pytest.raises(InputError, match="was not written: its embeddings differ"):
        export.to_torchscript(small, tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())


def test_other_onnx_files_are_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    value = onnx.helper.make_tensor_value_info("wave", onnx.TensorProto.FLOAT, [1, 4])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["wave"], ["embedding"])],
        "g",
        [value],
        [onnx.helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, [1, 4])],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"text")
    reasons = {"a.onnx": "not written by sv-export", "b.onnx": "not a whole ONNX", "c.onnx": "cannot read"}
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=reason):
            export.load_onnx(tmp_path / name)


def test_without_the_packages_it_says_what_to_install(small, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"ONNX needs onnx and .*: pip install 'sv_ssl\[onnx\]'"):
        export.to_onnx(small, tmp_path / "a.onnx")


def test_the_command(small, tmp_path, capsys):
    folder = str(model.save(tmp_path / "m", small, {}))
    assert command.main([folder, "--torchscript", str(tmp_path / "a.pt")]) == 0
    assert "differ from PyTorch's by at most" in capsys.readouterr().out and (tmp_path / "a.pt").is_file()
    assert command.main([folder]) == 2 and "pass --onnx" in capsys.readouterr().err


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from sv_ssl.cli import export
sys.exit(export.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("option, name", [("--torchscript", "a.pt"), ("--onnx", "a.onnx")])
def test_a_full_disk_is_one_line_and_leaves_nothing(small, tmp_path, onnx_file, option, name):
    folder = model.save(tmp_path / "m", small, {})
    arguments = [sys.executable, "-c", FULL, str(folder), option, str(tmp_path / "out" / name)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.endswith(f": cannot write {tmp_path / 'out' / name}: File too large\n")
    assert done.stderr.count("\n") == 1 and not list((tmp_path / "out").iterdir())


def test_sv_extract_takes_an_onnx_file(tmp_path, speech):
    pytest.importorskip("onnxruntime")
    from sv_ssl.cli import extract
    from sv_ssl.embeddings import store
    from sv_ssl.models import folder as model

    embedder = Embedder(LogMel(40), FastResNet34(40, "small")).eval()
    export.to_onnx(embedder, tmp_path / "m.onnx")
    model.save(tmp_path / "m", embedder, {"name": "untrained"})
    wav = str(speech("a.wav", 1.3))
    for name in ("m", "m.onnx"):
        assert extract.main([str(tmp_path / name), wav, "--out", str(tmp_path / f"{name}.npz")]) == 0
    (_, ours), (_, theirs) = (store.read(tmp_path / f"{name}.npz") for name in ("m", "m.onnx"))
    assert abs(ours - theirs).max() < 1e-4 * abs(ours).max()
    with pytest.raises(InputError, match="runs on the CPU"):
        model.load(tmp_path / "m.onnx", "cuda")
