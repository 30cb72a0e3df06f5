import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sv_ssl import audio
from sv_ssl.data import rttm
from sv_ssl.data.rttm import Region, Turn
from sv_ssl.data.synthetic import corpus
from sv_ssl.models import folder as model
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34
from sv_ssl.reporting import result_tables

PATH = Path(__file__).parents[2] / "recipes" / "diarization" / "diarize.py"
spec = importlib.util.spec_from_file_location("diarization_recipe", PATH)
recipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipe)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    embedder = Embedder(LogMel(40), FastResNet34(40, "small", dim=16)).eval()
    return str(model.save(tmp_path_factory.mktemp("model") / "model", embedder, {"name": "none", "seed": 3}))


@pytest.fixture(scope="module")
def meetings(tmp_path_factory):
    tiny = dict(n_train=2, n_valid=2, n_test=2, seconds=0.5, n_noises=0, n_rooms=0)
    return (
        corpus.corpus(
            tmp_path_factory.mktemp("corpus") / "c",
            workers=1,
            progress=False,
            n_meetings=2,
            meeting_seconds=10.0,
            **tiny,
        )
        / "meetings"
    )


def test_a_table_of_both_counts_is_printed_and_recorded(folder, meetings, tmp_path, capsys):
    for name in ("one", "other", "one"):
        assert recipe.main([folder, "--data_folder", str(meetings), "--name", name, "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "number of speakers: one for all, given, estimated" in out
    found = json.loads((tmp_path / "benchmarks" / "diarization_meetings.json").read_text())
    assert found["columns"] == recipe.COLUMNS and all(len(row) == len(recipe.COLUMNS) for row in found["rows"])
    assert [row[:2] for row in found["rows"]] == [
        ["no model", "one for all"],
        ["other", "given"],
        ["other", "estimated"],
        ["one", "given"],
        ["one", "estimated"],
    ]
    assert found["rows"][1][2:] == found["rows"][3][2:] and found["rows"][1][2] == "2.00 (2.00)"
    assert found["rows"][0][2] == "1.00 (2.00)" and float(found["rows"][0][6]) > 0
    rate, miss, false_alarm, confusion = map(float, found["rows"][1][3:7])
    assert rate == pytest.approx(miss + false_alarm + confusion, abs=0.02) and false_alarm == 0
    result_tables.write(tmp_path)
    assert "## Diarization, meetings" in (tmp_path / "README.md").read_text()


def test_files_laid_out_as_ami(folder, meetings, tmp_path, capsys):
    for number in (1, 2):
        place = tmp_path / "amicorpus" / f"ES200{number}a" / "audio"
        place.mkdir(parents=True)
        for kind in ("Mix-Headset", "Array1-01"):
            shutil.copy(meetings / f"meeting{number}.wav", place / f"ES200{number}a.{kind}.wav")
        turns = rttm.read(meetings / f"meeting{number}.rttm")[f"meeting{number}"]
        rttm.write(tmp_path / "rttms" / f"ES200{number}a.rttm", {f"ES200{number}a": turns})
        rttm.write_uem(tmp_path / "uems" / f"ES200{number}a.uem", {f"ES200{number}a": [Region(0, 8)]})
    options = ["--data_folder", str(tmp_path / "amicorpus"), "--rttm", str(tmp_path / "rttms")]
    assert recipe.main([folder, *options]) == 2
    assert "are both ES2001a: choose one kind by --audio PATTERN" in capsys.readouterr().err
    options += ["--audio", "*.Mix-Headset.wav"]
    assert recipe.main([folder, *options, "--uem", str(tmp_path / "uems")]) == 0
    assert "model: no model, none, seed 3, none, seed 3" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "amicorpus" / "ES2002a")
    assert recipe.main([folder, *options]) == 2
    assert "has no audio named *.Mix-Headset.wav for ES2002a of the reference (1 of 2" in capsys.readouterr().err


def test_one_speaker_and_an_empty_recording(folder, tmp_path, capsys):
    audio.write(tmp_path / "one.wav", 0.1 * np.random.default_rng(0).standard_normal(80000), 16000)
    audio.write(tmp_path / "none.wav", np.zeros(16000), 16000)
    rttm.write(tmp_path / "one.rttm", {"one": [Turn(0, 5, "x")]})
    rttm.write(tmp_path / "none.rttm", {})
    assert recipe.main([folder, "--data_folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "speakers found (true), mean: 0.50 (0.50), 0.50 (0.50), 0.50 (0.50)\nDER %: 0.00, 0.00, 0.00" in out


def test_the_built_in_meetings_need_no_other_part_of_the_corpus(tmp_path, monkeypatch):
    """They are those of the corpus that is trained on."""
    made = []
    monkeypatch.setattr(corpus, "corpus", lambda **sizes: made.append(sizes) or tmp_path)
    assert recipe.built_in() == tmp_path / "meetings"
    sizes = corpus.Sizes(**made[0])
    assert sizes[-2:] == corpus.Sizes()[-2:] and sizes._fields[-2:] == ("n_meetings", "meeting_seconds")
