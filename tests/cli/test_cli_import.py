"""sv-import of a model folder that an earlier version wrote; other toolkits' checkpoints are in test_convert.py."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

import sv_ssl
from sv_ssl.cli import import_model
from sv_ssl.models import folder

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"
MODELS = ("model_plain", "model_fast", "model_ecapa")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The model folders of version 0.1.0, unpacked."""
    place = tmp_path_factory.mktemp("old")
    shutil.copytree(GOLDEN / "model_plain", place / "model_plain")
    shutil.copy(GOLDEN / "commands.json", place)
    for path in GOLDEN.glob("*.tar.xz"):
        with tarfile.open(path) as archive:
            archive.extractall(place, filter="data")
    return place


def wave(path):
    from sv_ssl import audio

    return torch.from_numpy(audio.read(path))[None]


@pytest.mark.parametrize("name", MODELS)
def test_speechbrain_gives_the_embeddings_of_a_folder_written_anew(old, tmp_path, capsys, name):
    from speechbrain.inference.classifiers import EncoderClassifier

    new = tmp_path / "new"
    assert import_model.main([str(old / name), "--out", str(new)]) == 0
    out = capsys.readouterr().out
    assert f"wrote {new}: the weights of {old / name}" in out and "next: sv-extract" in out
    before, after = sv_ssl.load(old / name), sv_ssl.load(new)
    theirs = EncoderClassifier.from_hparams(source=str(new), savedir=str(tmp_path / "speechbrain"))
    for path in sorted((GOLDEN / "data" / "wav").rglob("*.wav"))[:3]:
        assert (after.embed(path) == before.embed(path)).all()
        with torch.no_grad():
            row = theirs.encode_batch(wave(path))[0, 0].numpy()
        assert row == pytest.approx(before.embed(path), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_lost(old, tmp_path, name):
    new = tmp_path / "new"
    assert import_model.main([str(old / name), "--out", str(new)]) == 0
    assert (new / "model.safetensors").read_bytes() == (old / name / "model.safetensors").read_bytes()
    assert json.loads((new / "config.json").read_text()) == json.loads((old / name / "config.json").read_text())
    assert {path.name for path in new.iterdir()} == {path.name for path in (old / name).iterdir()}
    assert "| list | trials.txt |" in (new / "README.md").read_text()


def test_results_that_only_the_card_tells_are_kept(old, tmp_path):
    shutil.copytree(old / "model_plain", tmp_path / "m")
    card = tmp_path / "m" / "README.md"
    card.write_text(card.read_text().replace("| list | trials.txt |", "| list | trials.txt |\n| EER on mine | 7.5 % |"))
    assert import_model.main([str(tmp_path / "m"), "--out", str(tmp_path / "new")]) == 0
    assert folder.describe(tmp_path / "new")["results"] == {"list": "trials.txt", "EER on mine": "7.5 %"}
    assert "| EER on mine | 7.5 % |" in (tmp_path / "new" / "README.md").read_text()


def test_the_python_of_the_card_is_true(old, tmp_path, monkeypatch):
    """Its lines are run in the folder's place, on two recordings."""
    assert import_model.main([str(old / "model_fast"), "--out", str(tmp_path / "FOLDER")]) == 0
    monkeypatch.chdir(tmp_path)
    for target, path in zip("ab", sorted((GOLDEN / "data" / "wav").rglob("*.wav"))):
        shutil.copy(path, f"{target}.wav")
    code = (tmp_path / "FOLDER" / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    names = {}
    exec(code, names)
    assert names["model"].dim == 32


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["model_plain", "--kind", "sslsv"], "is a model folder of sv_ssl, which has no --kind"),
        (["nothing"], "is not a model folder of sv_ssl: pass --kind"),
        (["model_plain", "--out", "model_fast"], "is there already"),
        (["model_plain", "--out", "commands.json/new"], "--out: cannot write commands.json/new"),
    ],
)
def test_what_is_refused(old, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(old)
    assert import_model.main([*arguments, *([] if "--out" in arguments else ["--out", "new"])]) == 2
    assert reason in capsys.readouterr().err and not Path("new").exists()


def test_a_damaged_folder_is_refused(old, tmp_path, capsys):
    shutil.copytree(old / "model_fast", tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"")
    assert import_model.main([str(tmp_path / "m"), "--out", str(tmp_path / "new")]) == 2
    assert "cannot be read" in capsys.readouterr().err and not (tmp_path / "new").exists()
