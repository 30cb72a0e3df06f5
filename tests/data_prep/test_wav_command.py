"""A folder of compressed recordings becomes the same folder of WAV."""

import csv

import numpy as np
import pytest
import soundfile

from data_prep import wav
from sv_ssl import audio
from sv_ssl.data import manifest


@pytest.fixture
def source(tmp_path):
    """Two recordings, one of them at another rate and with a segment; a noise list; a trial list."""
    rng = np.random.default_rng(0)
    for name, rate in (("speech/a/one.ogg", 16000), ("speech/two.flac", 8000), ("noise/hum.ogg", 16000)):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(2 * rate), rate)
    (tmp_path / "data" / "speech" / "train.csv").write_text(
        "ID,duration,wav,start,stop,spk_id,room\n1,2.0,a/one.ogg,0,32000,ann,x\n"
        "2,1.0,$data_root/two.flac,4000,12000,bob,y\n"
    )
    (tmp_path / "data" / "noise" / "noise.csv").write_text("wav,kind,split\nhum.ogg,noise,train\n")
    (tmp_path / "data" / "speech" / "trials.txt").write_text("1 a/one.ogg two.flac\n0 two.flac elsewhere.ogg\n")
    (tmp_path / "data" / "speech" / "numbers.csv").write_text("a,b\n1,2\n")
    return tmp_path / "data"


def test_the_lists_name_the_new_files(source, tmp_path, capsys):
    out = tmp_path / "wav"
    assert wav.main([str(source), "--out", str(out)]) == 0
    train = manifest.read(out / "speech" / "train.csv")
    assert train.wav.tolist() == [str(out / "speech" / name) for name in ("a/one.wav", "two.wav")]
    assert train.start.tolist() == [0, 8000] and train.stop.tolist() == [32000, 24000]
    assert train.room.tolist() == ["x", "y"]
    assert (out / "speech" / "trials.txt").read_text() == "1 a/one.wav two.wav\n0 two.wav elsewhere.ogg\n"
    with open(out / "noise" / "noise.csv") as file:
        assert list(csv.DictReader(file)) == [{"wav": "hum.wav", "kind": "noise", "split": "train"}]
    old, new = audio.read(source / "speech" / "a" / "one.ogg"), audio.read(train.wav[0])
    assert np.abs(old - new).max() < 1e-4
    assert "3 files" in capsys.readouterr().out


def test_what_is_there_is_not_made_again(source, tmp_path):
    out = tmp_path / "wav"
    assert wav.main([str(source), "--out", str(out)]) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    (out / "noise" / "hum.wav").unlink()
    assert wav.main([str(source), "--out", str(out)]) == 0
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    assert [path.name for path in before if before[path] != after[path]] == ["hum.wav"]


def test_a_damaged_file_is_left_out_and_named(source, tmp_path):
    (source / "speech" / "two.flac").write_bytes(b"no audio")
    assert wav.main([str(source), "--out", str(tmp_path / "wav")]) == 3
    assert manifest.read(tmp_path / "wav" / "speech" / "train.csv").ID.tolist() == ["1"]
    assert "two.flac" in (tmp_path / "wav" / "problems.csv").read_text()


@pytest.mark.parametrize("out, words", [("data", "one in the other"), ("data/wav", "one in the other")])
def test_the_source_is_never_written_to(source, tmp_path, capsys, out, words):
    assert wav.main([str(source), "--out", str(tmp_path / out)]) == 2
    assert words in capsys.readouterr().err


def test_names_that_would_be_one(source, tmp_path, capsys):
    soundfile.write(source / "noise" / "hum.flac", np.zeros(1600), 16000)
    (source / "noise" / "noise.csv").write_text("wav,kind\nhum.ogg,noise\nhum.flac,noise\n")
    assert wav.main([str(source), "--out", str(tmp_path / "wav")]) == 2
    assert "endings alone" in capsys.readouterr().err
