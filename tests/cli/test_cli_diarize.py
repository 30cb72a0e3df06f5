import configparser
import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sv_ssl import audio
from sv_ssl.cli import diarize
from sv_ssl.data import rttm
from sv_ssl.data.rttm import Region, Turn
from sv_ssl.data.synthetic import corpus
from sv_ssl.diarization import der
from sv_ssl.models import folder as model
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    embedder = Embedder(LogMel(40), FastResNet34(40, "small", dim=16)).eval()
    return str(model.save(tmp_path_factory.mktemp("model") / "model", embedder, {}))


@pytest.fixture(scope="module")
def meetings(tmp_path_factory):
    """Two built-in meetings of 12 s."""
    tiny = dict(n_train=2, n_valid=2, n_test=2, seconds=0.5, n_noises=0, n_rooms=0)
    made = corpus.corpus(
        tmp_path_factory.mktemp("corpus") / "c", workers=1, progress=False, n_meetings=2, meeting_seconds=12.0, **tiny
    )
    return made / "meetings"


@pytest.fixture
def call(folder, tmp_path, capsys):
    """call(recordings, options ...) -> exit code, what was printed, what was said of errors; writes to tmp_path/out."""

    def run(paths, *options):
        code = diarize.main([folder, *map(str, paths), "--out", str(tmp_path / "out"), *map(str, options)])
        return code, *capsys.readouterr()

    return run


def covered(turns):
    return sum(stop - start for start, stop in rttm.merged(turns))


def test_an_rttm_a_recording_and_its_error_rate(call, meetings, tmp_path):
    paths = sorted(meetings.glob("*.wav"))
    code, out, err = call(paths, "--rttm-in", meetings, "--reference", meetings, "--speakers", 2)
    assert code == 0 and err == f"wrote {tmp_path / 'out'}: 2 RTTM; next: any program that reads RTTM\n"
    parts = []
    for path in paths:
        true, found = (rttm.read(place / f"{path.stem}.rttm")[path.stem] for place in (meetings, tmp_path / "out"))
        assert rttm.merged(true) == rttm.merged(found) and {turn.speaker for turn in found} == {"spk1", "spk2"}
        parts.append(der.errors(true, found))
        assert parts[-1].false_alarm == pytest.approx(0, abs=1e-6)
        line = next(line for line in out.splitlines() if f"{path.stem}.rttm: 2 speakers" in line)
        assert line.endswith(parts[-1].text())
    assert out.splitlines()[-1] == f"all 2 recordings: {der.pooled(parts).text()}"


def test_the_same_again(call, meetings, tmp_path):
    texts = []
    for _ in range(2):
        assert call([meetings / "meeting1.wav"])[0] == 0
        texts.append((tmp_path / "out" / "meeting1.rttm").read_text())
    assert texts[0] == texts[1] and "spk1" in texts[0]


def test_without_regions_the_detector_finds_the_speech(call, meetings, tmp_path):
    assert call([meetings / "meeting1.wav"])[0] == 0
    found = rttm.read(tmp_path / "out" / "meeting1.rttm")["meeting1"]
    true = rttm.read(meetings / "meeting1.rttm")["meeting1"]
    assert covered(found) == pytest.approx(covered(true), rel=0.3)


def test_everything_may_be_taken_for_speech(call, meetings, tmp_path):
    assert call([meetings / "meeting1.wav"], "--vad", "none", "--method", "ahc", "--threshold", -1)[0] == 0
    assert rttm.read(tmp_path / "out" / "meeting1.rttm")["meeting1"] == [Turn(0.0, 12.0, "spk1")]


def test_a_uem_limits_search_and_error_rate(call, meetings, tmp_path):
    rttm.write_uem(tmp_path / "a.uem", {"meeting1": [Region(2, 4), Region(3, 6)]})
    code, out, _ = call(
        [meetings / "meeting1.wav"],
        "--vad",
        "none",
        "--uem",
        tmp_path / "a.uem",
        "--reference",
        meetings,
        "--collar",
        0.25,
        "--skip-overlap",
        "--speakers",
        1,
    )
    found = rttm.read(tmp_path / "out" / "meeting1.rttm")["meeting1"]
    assert code == 0 and found == [Turn(2.0, 6.0, "spk1")]
    wanted = der.errors(rttm.read(meetings)["meeting1"], found, [Region(2, 6)], 0.25, True)
    assert out.strip().endswith(wanted.text())


def test_silence_gives_an_empty_rttm(call, tmp_path):
    audio.write(tmp_path / "quiet.wav", np.zeros(32000), 16000)
    rttm.write(tmp_path / "true.rttm", {"quiet": [Turn(0, 1, "x")]})
    code, out, _ = call([tmp_path / "quiet.wav"], "--reference", tmp_path / "true.rttm")
    assert code == 0 and (tmp_path / "out" / "quiet.rttm").read_text() == ""
    assert "no speech found; DER 100.00 % (miss 100.00" in out


def test_speech_that_is_digitally_silent_gets_no_turn(call, tmp_path):
    audio.write(tmp_path / "quiet.wav", np.zeros(32000), 16000)
    assert call([tmp_path / "quiet.wav"], "--vad", "none")[0] == 0
    assert (tmp_path / "out" / "quiet.rttm").read_text() == ""


def test_what_cannot_be_read_is_listed_and_the_rest_done(call, meetings, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    audio.write(tmp_path / "short.wav", np.ones(800) / 2, 16000)
    paths = [tmp_path / "empty.wav", meetings / "meeting1.wav", tmp_path / "short.wav"]
    code, out, err = call(paths, "--vad", "none")
    assert code == 3 and "meeting1.rttm" in out
    assert f"skipped 2 of 3 recordings, listed in {tmp_path / 'out' / 'skipped.csv'}" in err
    with open(tmp_path / "out" / "skipped.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["recording", "empty", "short"] and "is empty" in rows[1][1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["meeting1.rttm", "skipped.csv"]


def test_where_none_can_be_read_nothing_was_done(call, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    code, _, err = call([tmp_path / "empty.wav"])
    assert code == 2 and "none of 1 recordings could be diarized; the first: " in err and "is empty" in err
    assert "next: " not in err


def test_blanks_in_names(call, meetings, tmp_path):
    (tmp_path / "my meeting.wav").write_bytes((meetings / "meeting1.wav").read_bytes())
    assert call([tmp_path / "my meeting.wav"])[0] == 0
    assert list(rttm.read(tmp_path / "out" / "my_meeting.rttm")) == ["my_meeting"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--rttm-in", "{true}", "--vad", "none"], "--rttm-in says where there is speech: leave --vad out"),
        (["--speakers", "0"], "--speakers 0: wanted 1 or more"),
        (["--method", "ahc"], "--method ahc needs either --threshold T or --speakers N"),
        (["--method", "ahc", "--threshold", "0.5", "--speakers", "2"], "needs either --threshold T or --speakers N"),
        (["--threshold", "0.5"], "--threshold is for --method ahc"),
        (["--method", "ahc", "--threshold", "7"], "--threshold 7.0: wanted a cosine"),
        (["--reference", "{true}", "--collar", "-1"], "--collar -1.0: wanted seconds, 0 or more"),
        (["--collar", "0.25"], "--collar and --skip-overlap need --reference RTTM"),
        (["--rttm-in", "{other}"], "other.rttm (--rttm-in) does not have the recording meeting1"),
        (["--reference", "{other}"], "other.rttm (--reference) does not have the recording meeting1"),
        (["--uem", "{bad}"], "bad.uem:1: stop must be after start: meeting1 1 5 4"),
        (["--rttm-in", "{long}"], "meeting1.wav has 12.00 s, but a speech region lasts until 99.00 s"),
        (["--rttm-in", "gone.rttm"], "cannot read gone.rttm"),
    ],
)
def test_bad_input_gets_one_line(call, meetings, tmp_path, options, message):
    rttm.write(tmp_path / "true.rttm", {"meeting1": [Turn(0, 1, "x")]})
    rttm.write(tmp_path / "long.rttm", {"meeting1": [Turn(98, 99, "x")]})
    rttm.write(tmp_path / "other.rttm", {"meeting2": [Turn(0, 1, "x")]})
    (tmp_path / "bad.uem").write_text("meeting1 1 5 4\n")
    names = {name: tmp_path / f"{name}.rttm" for name in ("true", "long", "other")}
    options = [option.format(**names, bad=tmp_path / "bad.uem", wav=meetings / "meeting1.wav") for option in options]
    code, out, err = call([meetings / "meeting1.wav"], *options)
    assert code == 2 and message in err and err.count("\n") == 1 and not out
    assert not list(tmp_path.glob("out/*"))


def test_two_recordings_of_one_name_are_refused(call, meetings, tmp_path):
    code, out, err = call([meetings / "meeting1.wav", tmp_path / "meeting1.flac"])
    assert code == 2 and "would both be written to meeting1.rttm: rename one of them" in err and not out


def test_help_teaches(capsys):
    with pytest.raises(SystemExit, match="0"):
        diarize.main(["--help"])
    out = capsys.readouterr().out
    for word in ("--rttm-in", "--uem", "--vad", "--speakers", "--threshold", "--method", "--reference", "examples"):
        assert re.search(rf"(^|\W){word}\b", out)


def test_the_command_is_installed():
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parents[2] / "setup.cfg")
    assert "sv-diarize = sv_ssl.cli.diarize:main" in parser["options.entry_points"]["console_scripts"]


def test_a_model_without_weights_diarizes_too(meetings, tmp_path):
    plain = Path(__file__).parents[1] / "golden" / "v1" / "model_plain"
    recording = str(next(meetings.glob("*.wav")))
    assert diarize.main([str(plain), recording, "--out", str(tmp_path / "rttm")]) == 0
    assert len(list((tmp_path / "rttm").glob("*.rttm"))) == 1
