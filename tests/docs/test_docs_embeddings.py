"""docs/embeddings.md: its commands and its Python run, in its order, in one folder."""

import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from test_readme import setup

from sv_ssl import audio
from sv_ssl.models import convert, folder
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import Embedder, FrameStatistics
from sv_ssl.models.features import LogMel

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "embeddings.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A model, six recordings of two speakers, and a SpeechBrain checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    folder.save("MODEL", Embedder(LogMel(20), FrameStatistics(20)), {})
    torch.save(ECAPA(80, "small").tdnn.state_dict(), "embedding_model.ckpt")
    rng = np.random.default_rng(0)
    for i in range(6):
        path = tmp_path / "audio" / f"{'ab'[i % 2]}" / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, 0.1 * rng.standard_normal(8000), 16000)
    return tmp_path


def run(line):
    words = shlex.split(line)
    scripts = setup()["options.entry_points"]["console_scripts"]
    module, function = re.search(rf"^{words[0]} = ([\w.]+):(\w+)$", scripts, re.MULTILINE).groups()
    assert getattr(import_module(module), function)(words[1:]) == 0, line


@pytest.mark.skipif(not find_spec("onnxruntime"), reason="the page exports to ONNX: pip install 'sv_ssl[onnx]'")
def test_the_page_runs(there):
    found = {}
    for kind, text in BLOCKS:
        if kind == "sh":
            for line in text.splitlines():
                run(line)
        elif kind == "python":
            exec(text, found)
    assert found["rows"].shape == (6, 40) and len(found["labels"]) == 6
    assert found["vectors"].shape == (2, 40)
    assert set(found["means"]) == {"a", "b"} and len(found["nearest"][0]) == 2
    assert np.allclose(found["cosines"][0], [cosine for _, cosine in found["nearest"][0]])
    assert np.allclose(found["vector"], found["same"].numpy(), atol=1e-3)
    assert folder.load("ecapa").dim == 192


def test_enough_of_each_kind():
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds.count("python") >= 9 and kinds.count("sh") >= 4


def test_the_table_of_kinds_is_complete():
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(convert.FRONT_ENDS)
