"""Manifests of folders: what a scan makes of trees, of plain files and of Kaldi's tables."""

import os
import re

import numpy as np
import pandas as pd
import pytest

from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.data import manifest, scan


def refusal(call, *arguments):
    """The one line with which a call refuses its input."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def voice(path, seconds=0.5, rate=16000):
    audio.write(path, 0.1 * np.sin(np.arange(round(seconds * rate))), rate)


def test_scan_of_a_voxceleb_tree(tmp_path):
    for name in ("dev/wav/id10002/xyz/00001.wav", "dev/wav/id10001/abc/00002.wav", "test/aac/id10003/q/00001.flac"):
        voice(tmp_path / name)
    voice(tmp_path / "intro.wav")
    frame = scan.scan(tmp_path)
    assert frame["ID"].tolist() == ["id10001/abc/00002.wav", "id10002/xyz/00001.wav", "id10003/q/00001.flac"]
    assert frame["wav"][0] == "$data_root/dev/wav/id10001/abc/00002.wav"
    assert frame["spk_id"].tolist() == ["id10001", "id10002", "id10003"]
    assert frame["session"].tolist() == ["abc", "xyz", "q"]
    assert (frame["start"] == 0).all() and (frame["stop"] == 8000).all() and (frame["duration"] == 0.5).all()
    assert frame.attrs["skipped"] == [("intro.wav", "misplaced", "intro.wav: not id00000/session/utterance")]
    manifest.write(frame, tmp_path / "train.csv")
    assert audio.info(manifest.read(tmp_path / "train.csv")["wav"][0]).frames == 8000


def test_scan_of_a_folder_a_speaker(tmp_path):
    for name in ("anna/1.wav", "bert/x/2.ogg", "bert/x/1.wav", "loose.wav"):
        voice(tmp_path / name)
    frame = scan.scan(tmp_path)
    assert frame["ID"].tolist() == ["anna/1.wav", "bert/x/1.wav", "bert/x/2.ogg"]
    assert frame["spk_id"].tolist() == ["anna", "bert", "bert"]
    assert "session" not in frame and [one.id for one in frame.attrs["skipped"]] == ["loose.wav"]


def test_scan_takes_folders_between_speaker_and_file_as_the_session(tmp_path):
    for name in ("anna/s1/1.wav", "anna/s2/a/1.wav", "bert/s1/1.wav"):
        voice(tmp_path / name)
    assert scan.scan(tmp_path)["session"].tolist() == ["anna/s1", "anna/s2/a", "bert/s1"]


def test_scan_of_a_flat_folder_has_no_speakers_and_uses_the_files_own_rate(tmp_path):
    voice(tmp_path / "b.flac", 0.5, rate=8000)
    voice(tmp_path / "a.wav", 1.0, rate=44100)
    frame = scan.scan(tmp_path)
    assert frame.columns.tolist() == ["ID", "duration", "wav", "start", "stop"]
    assert frame["ID"].tolist() == ["a.wav", "b.flac"]
    assert frame["stop"].tolist() == [44100, 4000] and frame["duration"].tolist() == [1.0, 0.5]


def test_from_flat_takes_files_at_any_depth(tmp_path):
    for name in ("a/b/1.wav", "2.wav"):
        voice(tmp_path / name)
    frame = scan.from_flat(tmp_path)
    assert frame["ID"].tolist() == ["2.wav", "a/b/1.wav"] and "spk_id" not in frame


def test_scan_leaves_out_what_cannot_be_used_and_says_why(tmp_path):
    voice(tmp_path / "good.wav")
    voice(tmp_path / "short.wav", 0.05)
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "cut.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:5000])
    frame = scan.scan(tmp_path)
    assert frame["ID"].tolist() == ["good.wav"]
    reasons = {one.id: one.reason for one in frame.attrs["skipped"]}
    assert sorted(reasons) == ["cut.wav", "short.wav", "text.wav"]
    assert "truncated" in reasons["cut.wav"] and "too short" in reasons["short.wav"]
    assert reasons["text.wav"].startswith(f"{tmp_path}/text.wav: not readable")


def test_names_that_a_manifest_cannot_hold_are_left_out(tmp_path):
    for name in (b"good.wav", b"two\nlines.wav", b"caf\xe9.wav"):
        voice(tmp_path / "x.wav")
        os.rename(tmp_path / "x.wav", os.fsencode(tmp_path) + b"/" + name)
    frame = scan.scan(tmp_path)
    manifest.write(frame, tmp_path / "train.csv")
    assert manifest.read(tmp_path / "train.csv")["ID"].tolist() == ["good.wav"]
    assert [(one.kind, one.reason) for one in frame.attrs["skipped"]] == [
        ("misnamed", r"'caf\udce9.wav' is not UTF-8 text: rename it"),
        ("misnamed", r"'two\nlines.wav' has a line break: rename it"),
    ]


def test_a_loop_of_links_makes_no_further_recordings(tmp_path):
    voice(tmp_path / "a" / "1.wav")
    (tmp_path / "a" / "loop").symlink_to(".")
    (tmp_path / "b").symlink_to("a")
    assert scan.scan(tmp_path)["ID"].tolist() == ["a/1.wav"]


def test_scan_without_any_usable_file_is_refused(tmp_path):
    assert "no such folder" in refusal(scan.scan, tmp_path / "absent")
    assert "no audio files" in refusal(scan.scan, tmp_path)
    (tmp_path / "text.wav").write_text("no audio")
    assert "none of 1 files can be used; the first: " in refusal(scan.scan, tmp_path)


def test_scan_refuses_two_files_with_one_id(tmp_path):
    for name in ("one/id10001/a/1.wav", "two/id10001/a/1.wav"):
        voice(tmp_path / name)
    assert "$data_root/one/id10001/a/1.wav and $data_root/two/id10001/a/1.wav" in refusal(scan.scan, tmp_path)


def test_scan_is_the_same_with_any_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "CHUNK", 2)
    for i in range(9):
        voice(tmp_path / f"s{i % 2}/{i}.wav", 0.2 + i / 10)
    pd.testing.assert_frame_equal(scan.scan(tmp_path, workers=1), scan.scan(tmp_path, workers=4))


# ------------------------------------------------------------------------------------------------------- Kaldi
@pytest.fixture
def kaldi(tmp_path):
    """Write the tables of a Kaldi folder that holds x.wav (1 s at 8 kHz) -> the folder; another has y.wav."""
    voice(tmp_path / "data" / "x.wav", 1.0, rate=8000)
    voice(tmp_path / "other" / "y y.wav", 0.5)

    def save(**tables):
        for name, text in tables.items():
            (tmp_path / "data" / name.replace("_", ".")).write_text(text.replace("OTHER", str(tmp_path / "other")))
        return tmp_path / "data"

    return save


def test_kaldi_wav_scp_alone(kaldi, tmp_path):
    frame = scan.scan(kaldi(wav_scp="u1 x.wav\nu2\tOTHER/y y.wav\n"))
    assert frame["wav"].tolist() == [f"{tmp_path}/other/y y.wav", "$data_root/x.wav"]
    assert frame["ID"].tolist() == ["u2", "u1"] and frame["stop"].tolist() == [8000, 8000]
    assert "spk_id" not in frame and frame["duration"].tolist() == [0.5, 1.0]


def test_kaldi_segments_are_turned_into_the_files_samples(kaldi):
    frame = scan.scan(
        kaldi(
            wav_scp="rec x.wav\n",
            segments="u1 rec 0.25 0.75\nu2 rec 0.5 1.2\nu3 rec 0.5 9\n",
            utt2spk="u1 anna\nu2 bert\nu3 bert\nu4 nobody\n",
        )
    )
    rows = frame[["ID", "start", "stop", "spk_id"]].to_numpy().tolist()
    assert rows == [["u1", 2000, 6000, "anna"], ["u2", 4000, 8000, "bert"]]
    assert frame["duration"].tolist() == [0.5, 0.5]
    assert "ends at 9.0 s, but the file at 1.000 s" in frame.attrs["skipped"][0].reason


@pytest.mark.parametrize(
    "tables, fault",
    [
        (dict(wav_scp="u1 x.wav\nu2 sph2pipe -f wav y.sph |\n"), r'wav.scp:2: "sph2pipe -f wav y.sph \|" is a command'),
        (dict(wav_scp="u1 x.wav\nu2\n"), 'wav.scp:2: want "id path", got "u2"'),
        (dict(wav_scp="u1 x.wav\nu1 x.wav\n"), 'wav.scp:2: "u1" is on line 1 already'),
        (dict(wav_scp="u1 x.wav\n", utt2spk="u2 anna\n"), 'utt2spk: no speaker for utterance "u1"'),
        (dict(wav_scp="u1 x.wav\n", segments="s1 u1 0.5\n"), 'segments:1: want "id recording start end"'),
        (dict(wav_scp="u1 x.wav\n", segments="s1 u1 0.5 end\n"), 'segments:1: want "id recording start end"'),
        (dict(wav_scp="u1 x.wav\n", segments="s1 u9 0 1\n"), 'segments:1: recording "u9" is not in wav.scp'),
        (dict(wav_scp="u1 x.wav\n", segments="s1 u1 0.5 0.5\n"), "segments:1: from 0.5 to 0.5 s is no segment"),
        (dict(wav_scp="u1 x.wav\n", segments="s1 u1 1e306 1e307\n"), "segments:1: from 1e306 to 1e307 s is no segment"),
        (dict(wav_scp="u1 x\0.wav\n"), "wav.scp: not UTF-8 text: a zero byte"),
        (dict(wav_scp="u1" + "x" * 3_000_000), "wav.scp:1: a line of more than"),
    ],
)
def test_kaldi_faults_are_named(kaldi, tables, fault):
    assert re.search(fault, refusal(scan.scan, kaldi(**tables)))
