import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from sv_ssl.cli import verify
from sv_ssl.embeddings import extraction
from sv_ssl.models import folder as model
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34
from sv_ssl.verification import calibrate, scoring


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    embedder = Embedder(LogMel(40), FastResNet34(40, "small", dim=16)).eval()
    return str(model.save(tmp_path_factory.mktemp("model") / "model", embedder, {}))


@pytest.fixture
def pair(speech):
    return [str(speech("a.wav", 0.6)), str(speech("b.wav", 0.8, seed=1))]


@pytest.fixture
def fitted(tmp_path):
    """fitted(scores, labels, ...) writes a calibration and gives its path."""

    def write(scores=(0.1, 0.6, 0.5, 0.99), labels=(0, 0, 1, 1), **options):
        calibrate.write(tmp_path / "cal.json", calibrate.fit(scores, labels, **options))
        return str(tmp_path / "cal.json")

    return write


def cosine(folder, pair):
    _, rows, _ = extraction.embed(model.load(folder), [extraction.Utterance(path, path) for path in pair])
    return float(np.dot(*(rows / np.linalg.norm(rows, axis=1, keepdims=True))))


def test_without_a_calibration_there_is_a_score_but_no_decision(folder, pair, capsys):
    assert verify.main([folder, *pair]) == 0
    out = capsys.readouterr().out
    assert float(re.search(r"score \(cosine\) +(\S+)", out)[1]) == pytest.approx(cosine(folder, pair), abs=1e-4)
    assert "no decision" in out and "same speaker" not in out and "different speakers" not in out
    assert out.splitlines()[-1].startswith("next: sv-score") and "--calibration-out cal.json" in out


def test_a_calibration_gives_the_ratio_and_a_decision(folder, pair, fitted, capsys):
    path = fitted()
    assert verify.main([folder, *pair, "--calibration", path]) == 0
    out = capsys.readouterr().out
    wanted = calibrate.apply(calibrate.read(path), [cosine(folder, pair)])[0]
    ratio, times = re.search(r"log-likelihood ratio +(\S+) +(\S+) times likelier from one speaker", out).groups()
    assert float(ratio) == pytest.approx(wanted, abs=1e-3) and float(times) == pytest.approx(np.exp(wanted), rel=0.01)
    assert "decision: same speaker  (threshold 0.0000: 0.5 of all pairs" in out
    assert out.splitlines()[-1].startswith("next: ")


def test_the_decision_follows_the_stated_prior(folder, pair, fitted, capsys):
    path = fitted()
    ratio = calibrate.apply(calibrate.read(path), [cosine(folder, pair)])[0]
    even = 1 / (1 + np.exp(ratio))  # the prior at which the two answers are equally good
    for p_target, decision in ((even * 0.9, "different speakers"), (even * 1.1, "same speaker")):
        assert verify.main([folder, *pair, "--calibration", path, "--p-target", str(p_target)]) == 0
        assert f"decision: {decision}  (threshold" in capsys.readouterr().out


def test_a_recording_is_of_the_speaker_of_itself(folder, pair, fitted, capsys):
    assert verify.main([folder, pair[0], pair[0], "--calibration", fitted()]) == 0
    out = capsys.readouterr().out
    assert re.search(r"score \(cosine\) +1.0000", out) and "decision: same speaker" in out


def test_a_ratio_below_one_speaks_for_two_speakers(folder, pair, fitted, capsys, monkeypatch):
    monkeypatch.setattr(scoring, "crop_score", lambda a, b: -0.2)
    assert verify.main([folder, *pair, "--calibration", fitted()]) == 0
    out = capsys.readouterr().out
    assert re.search(r"log-likelihood ratio +-\d.* times likelier from two speakers", out)
    assert "decision: different speakers" in out


def test_notes_of_the_calibration_are_told(folder, pair, fitted, capsys):
    assert verify.main([folder, *pair, "--calibration", fitted([0.1, 0.2, 0.8, 0.9])]) == 0
    assert "note: the columns part targets from non-targets" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"names": ["score", "min duration"], "scores": np.eye(4)[:, :2]},
            "is for the columns score, min duration: sv-verify needs a calibration of cosines alone",
        ),
        ({"names": ["llr"]}, "is for the columns llr: sv-verify needs"),
        ({"scores": [-3, 2, 1, 7]}, "was made from scores from -3 to 7, which are no cosines: sv-verify needs"),
    ],
)
def test_calibrations_of_other_scores_are_refused(folder, pair, fitted, capsys, options, message):
    assert verify.main([folder, *pair, "--calibration", fitted(**options)]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and not said.out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{m}", "{a}"], "WAV"),
        (["{m}", "{a}", "{b}", "{b}"], "unrecognized arguments"),
        (["nowhere", "{a}", "{b}"], "nowhere is not a model folder"),
        (["{m}", "{a}", "gone.wav"], "gone.wav: no such file"),
        (["{m}", "text.wav", "{b}"], "text.wav"),
        (["{m}", "{a}", "{b}", "--p-target", "0.5"], "--p-target: a decision needs --calibration FILE"),
        (["{m}", "{a}", "{b}", "--calibration", "{c}", "--p-target", "1"], "p_target must lie between 0 and 1"),
        (["{m}", "{a}", "{b}", "--calibration", "{c}", "--p-target", "half"], "invalid float value: 'half'"),
        (["{m}", "{a}", "{b}", "--calibration", "gone.json"], "cannot read gone.json"),
        (["{m}", "{a}", "{b}", "--calibration", "text.wav"], "text.wav: wanted a calibration, as JSON"),
    ],
)
def test_bad_input_gets_one_line(folder, pair, fitted, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.wav").write_text("text")
    names = {"m": folder, "a": pair[0], "b": pair[1], "c": fitted()}
    assert verify.main([argument.format(**names) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and not said.out


def test_help_teaches(capsys):
    with pytest.raises(SystemExit, match="0"):
        verify.main(["--help"])
    out = capsys.readouterr().out
    for word in ("--calibration", "--p-target", "examples", "--calibration-out cal.json", "exit code is 0"):
        assert word in out


def test_a_wrong_calibration_is_refused_before_torch_is_loaded(fitted):
    code = f"""import sys; from sv_ssl.cli import verify
print(verify.main(["MODEL", "a.wav", "b.wav", "--calibration", {fitted(names=["llr"])!r}]), "torch" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "2 False\n"


def test_the_command_is_installed():
    import configparser
    from pathlib import Path

    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parents[2] / "setup.cfg")
    assert "sv-verify = sv_ssl.cli.verify:main" in parser["options.entry_points"]["console_scripts"]
