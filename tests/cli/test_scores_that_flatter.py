"""What makes scores look better than they are is told in every output of sv-score: printed, JSON, CSV, page."""

import csv
import html
import json
import shutil

import numpy as np
import pytest
import torch

from sv_ssl.cli import identify, score, verify
from sv_ssl.embeddings import search, store
from sv_ssl.models import folder as model
from sv_ssl.models import training_list
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34
from sv_ssl.verification import calibrate

ITSELF = "trials compare an utterance with itself, which says nothing of speakers: leave them out"
VERY = "the calibration was learnt from these very trials, so the numbers look better than they are"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Pure noise: 20 speakers of 6 recordings, half of them in dev.txt, half in trials.txt; embeddings of all."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    ids = [f"s{i:02}/u{k}" for i in range(20) for k in range(6)]
    store.write("emb.npz", ids, rng.normal(size=(120, 16)))
    for name, part in (("dev", ids[:60]), ("trials", ids[60:])):
        pairs = [(a, b) for i, a in enumerate(part) for b in part[:i]]
        (tmp_path / f"{name}.txt").write_text("".join(f"{int(a[:3] == b[:3])} {a} {b}\n" for a, b in pairs))
    return tmp_path


@pytest.fixture
def told(here, capsys):
    """Arguments of sv-score -> the notes that it prints, asserted to be those of the JSON and the CSV."""

    def run(*arguments):
        capsys.readouterr()
        assert score.main(["trials.txt", *arguments, "--json", "out.json", "--csv", "out.csv"]) == 0
        printed = [line[6:] for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
        notes = json.loads((here / "out.json").read_text())["notes"]
        assert printed == notes
        with open("out.csv", newline="") as file:
            assert next(csv.DictReader(file))["note"] == "; ".join(notes)
        return notes

    return run


EMBEDDED = "--embeddings", "emb.npz"


def test_nothing_is_told_of_what_does_not_flatter(told):
    assert told(*EMBEDDED) == []
    assert told(*EMBEDDED, "--calibrate", "dev.txt") == []


def test_trials_of_an_utterance_with_itself(here, told):
    with open("trials.txt", "a") as file:
        file.writelines(f"1 s{i}/u{k} s{i}/u{k}\n" for i in range(10, 20) for k in range(6))
    notes = told(*EMBEDDED, "--report", "out.html")
    assert notes[0] == f"60 {ITSELF}" and notes[1].endswith("of the scores are repeated ones: were they rounded?")
    page = html.unescape((here / "out.html").read_text())
    assert all(f"<li>{note}</li>" in page for note in notes)
    assert json.loads((here / "out.json").read_text())["eer"] < 0.45  # of pure noise


def test_one_recording_under_two_names(here, told):
    ids, rows = store.read("emb.npz")
    rows[ids.index("s12/u3")] = rows[ids.index("s12/u1")]
    store.write("emb.npz", ids, rows)
    note, _ = told(*EMBEDDED)
    assert note.startswith("1 trials compare two ids of one embedding") and note.endswith("the first: s12/u3 s12/u1")


def test_a_calibration_that_is_measured_on_its_own_trials(here, told):
    (note,) = told(*EMBEDDED, "--calibrate", "trials.txt", "--calibration-out", "cal.json")
    assert note.startswith(VERY)
    (note,) = told(*EMBEDDED, "--calibration", "cal.json")
    assert note.startswith(VERY)
    lines = (here / "trials.txt").read_text().splitlines()
    (here / "trials.txt").write_text("\n".join(lines[::-1] + (here / "dev.txt").read_text().splitlines()) + "\n")
    (note,) = told(*EMBEDDED, "--calibration", "cal.json")
    assert note.startswith("the calibration was learnt from about ")
    assert float(note.split()[6].rstrip("%")) == pytest.approx(50, abs=7)


def test_a_fusion_that_is_measured_on_its_own_trials(here, told):
    for name in ("a", "b"):
        assert score.main(["trials.txt", *EMBEDDED, "--scores-out", f"{name}.txt"]) == 0
    shutil.copy("a.txt", "trials.txt")
    notes = told("--fuse", "b.txt", "--calibrate", "a.txt", "--calibrate", "b.txt", "--calibration-out", "cal.json")
    assert notes[0].startswith(VERY)
    assert told("--fuse", "b.txt", "--calibration", "cal.json") == notes


def test_a_calibration_that_falls(here, told):
    cal = calibrate.read(learnt(here))
    calibrate.write("falls.json", cal._replace(weights=(-2.0,)))
    assert "the ratio falls as the score rises" in told(*EMBEDDED, "--calibration", "falls.json")[0]


def learnt(here):
    assert score.main(["dev.txt", *EMBEDDED, "--calibrate", "dev.txt", "--calibration-out", "cal.json"]) == 0
    return "cal.json"


def test_an_operating_point_that_no_score_reaches(told):
    (note,) = told(*EMBEDDED, "--calibrate", "dev.txt", "--p-target", "0.001")
    assert note == "no score reaches the Bayes threshold 6.907 of p_target 0.001: all trials are refused"
    assert told(*EMBEDDED, "--p-target", "0.001") == []  # cosines have no such threshold
    assert told(*EMBEDDED, "--llr", "--p-target", "0.001") == [note]


def test_a_pair_of_both_labels_is_an_error_unless_its_ids_are_of_different_things(here, told, capsys):
    with open("trials.txt", "a") as file:
        file.write("1 s10/u0 s11/u0\n1 s10/u0 s10/u0\n")
    assert score.main(["trials.txt", *EMBEDDED]) == 2
    error = capsys.readouterr().err
    reason = "the other way round (see --sides-apart) the pair has the other label on line 16"
    assert f":1771: {reason}" in error and error.count("\n") == 1
    assert score.main(["trials.txt", *EMBEDDED, "--sides-apart"]) == 2
    assert "an embedding is found by its id, which is one on both sides" in capsys.readouterr().err
    (here / "trials.txt").write_text("1 1 0.5 target\n1 2 0.25 nontarget\n2 1 0.75 target\n")
    assert told("--columns", "enroll,test,score,label", "--sides-apart") == []


# --- what a model was trained on --------------------------------------------------------------------------------------


@pytest.fixture
def trained(here):
    """A model folder that was trained on two utterances of trials.txt."""
    torch.manual_seed(0)
    embedder = Embedder(LogMel(40), FastResNet34(40, "small", dim=8)).eval()
    kept = training_list.of(["s12/u0", "elsewhere"], ["/data/x/s12/u0.wav", "/corpus/wav/s13/u1.flac"])
    return model.save("MODEL", embedder, {}, trained_on=kept)


def test_utterances_that_the_model_was_trained_on(here, trained, told):
    (note,) = told(*EMBEDDED, "--made-by", "MODEL")
    assert note == (
        "1 of 60 utterances of trials.txt have the names of utterances that MODEL was trained on, so the numbers look "
        "better than they are"
    )
    (trained / training_list.FILE).unlink()
    assert told(*EMBEDDED, "--made-by", "MODEL") == ["what MODEL was trained on is not known"]


@pytest.mark.parametrize(
    "words, message",
    [
        ("--made-by none", "--made-by none is not a model folder: it has no config.json"),
        ("--made-by MODEL --model MODEL --audio .", "--model and --made-by exclude each other"),
        ("--made-by MODEL --json MODEL/config.json", "would overwrite what --made-by reads"),
        ("--model MODEL --audio . --json MODEL/config.json", "would overwrite what --model reads"),
    ],
)
def test_a_model_that_is_named_wrongly(here, trained, capsys, words, message):
    embedded = [] if "--model" in words else EMBEDDED
    assert score.main(["trials.txt", *embedded, *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_model_that_embeds_is_asked_by_paths_too(here, trained, told, speech, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    ids = ["s12/u0.wav", "s13/u1.wav", "s14/u0.wav"]
    for seed, name in enumerate(ids):
        (here / "wav" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(speech(f"{seed}.wav", 0.5, seed=seed), here / "wav" / name)
    (here / "trials.txt").write_text("1 s12/u0.wav s13/u1.wav\n0 s12/u0.wav s14/u0.wav\n1 s13/u1.wav s14/u0.wav\n")
    (note,) = told("--model", "MODEL", "--audio", "wav")
    assert note.startswith("2 of 3 utterances of trials.txt have the names of utterances that MODEL was trained on")


# --- thresholds of the other commands ---------------------------------------------------------------------------------


def test_sv_verify_tells_a_threshold_beyond_all_cosines(here, trained, speech, capsys):
    cal = calibrate.read(learnt(here))
    calibrate.write("cal.json", cal._replace(weights=(6.0,), offset=-4.0))
    pair = [str(speech(f"{seed}.wav", 0.5, seed=seed)) for seed in (0, 1)]
    capsys.readouterr()
    assert verify.main(["MODEL", *pair, "--calibration", "cal.json", "--p-target", "0.001"]) == 0
    wanted = "note: at p_target 0.001 the threshold is a cosine of 1.818, which none can reach: all is refused"
    assert wanted in capsys.readouterr().out
    assert verify.main(["MODEL", *pair, "--calibration", "cal.json", "--p-target", "0.2"]) == 0
    assert "note: " not in capsys.readouterr().out
    calibrate.write("cal.json", cal._replace(weights=(-6.0,)))
    assert verify.main(["MODEL", *pair, "--calibration", "cal.json"]) == 0
    assert "note: the ratio falls as the score rises" in capsys.readouterr().out


def test_sv_identify_tells_a_threshold_beyond_all_cosines(here, capsys):
    cal = calibrate.read(learnt(here))
    calibrate.write("cal.json", cal._replace(weights=(6.0,), offset=-4.0))
    ids, rows = store.read("emb.npz")
    search.create("flat", ids[:3], rows[:3]).save("staff.index")
    store.write("test.npz", ids[:5], rows[:5])
    capsys.readouterr()
    assert identify.main(["staff.index", "test.npz", "--calibration", "cal.json", "--p-target", "0.001"]) == 0
    said = capsys.readouterr()
    assert "note: at p_target 0.001 the threshold is a cosine of 1.818, which none can reach" in said.err
    assert "note" not in said.out
