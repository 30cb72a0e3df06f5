"""docs/embeddings.md: its commands and its Python run, in its order, in one folder."""

import re
import shlex
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from support import pages

from sv_ssl import audio
from sv_ssl.models import convert, folder
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import Embedder, FrameStatistics
from sv_ssl.models.features import LogMel

PAGE = pages.read("docs/embeddings.md")
BLOCKS = pages.blocks(PAGE)


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
    name, *words = shlex.split(line)
    module, function = pages.console_scripts()[name]
    assert getattr(import_module(module), function)(words) == 0, line


@pytest.mark.skipif(not find_spec("onnxruntime"), reason="the page exports to ONNX: pip install 'sv_ssl[onnx]'")
def test_the_page_runs(there):
    found = {}
    for kind, _, text in BLOCKS:
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
    assert len(found["starts"]) == len(found["stops"]) == len(found["windows"]) and -1 <= found["cosine"] <= 1


def test_enough_of_each_kind():
    kinds = [block.language for block in BLOCKS]
    assert kinds.count("python") >= 10 and kinds.count("sh") >= 4


def test_the_table_of_kinds_is_complete():
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(convert.FRONT_ENDS)
