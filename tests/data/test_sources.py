import io
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sv_ssl.core.errors import InputError
from sv_ssl.data import sources
from sv_ssl.data.sources import Utterance

TURNS = (
    "SPEAKER talk 1 0.5 1.0 <NA> <NA> ann <NA> <NA>\nSPEAKER talk 1 1.25 0.5 <NA> <NA> bob <NA> <NA>\n"
    "SPEAKER talk 1 1.25 0.5 <NA> <NA> cat <NA> <NA>\nSPEAKER talk 1 2.0 0.75 <NA> <NA> ann <NA> <NA>\n"
)


def test_a_list_is_looked_for_below_its_folder_then_from_here(speech, tmp_path, monkeypatch):
    inside, outside = speech("lists/a b.wav"), speech("here/c.wav")
    (tmp_path / "lists" / "all.txt").write_text("\ufeffa b.wav\n\nhere/c.wav\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found, skipped = sources.find([str(tmp_path / "lists" / "all.txt")])
    assert [u.id for u in found] == ["a b.wav", "here/c.wav"] and not skipped
    assert [u.wav for u in found] == [str(inside), "here/c.wav"] and outside.is_file()
    assert sources.find([str(tmp_path / "lists" / "all.txt")], tmp_path / "here")[0][0].wav == "a b.wav"


def test_a_list_on_standard_input(speech, tmp_path, monkeypatch):
    path = str(speech("a.wav"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.encode() + b"\r\n")))
    assert sources.find(["-"])[0] == [Utterance(path, path)]


def test_a_kaldi_folder_with_segments(speech, tmp_path):
    speech("k/a.wav", 2.0)
    (tmp_path / "k" / "wav.scp").write_text("rec a.wav\n")
    (tmp_path / "k" / "segments").write_text("u1 rec 0.5 1.5\nu2 rec 1.0 1.05\n")
    for name in ("k", "k/wav.scp"):
        found, skipped = sources.find([str(tmp_path / name)])
        assert [u[:1] + u[2:4] for u in found] == [("u1", 8000, 24000)]
        assert [(one.id, one.kind) for one in skipped] == [("u2", "short")] and "too short" in skipped[
            0
        ].reason  # and not the whole recording instead


def test_turns_of_an_rttm_once_each_or_joined(speech, tmp_path):
    speech("wav/talk.x.flac", 3.0)
    (tmp_path / "all.rttm").write_text(TURNS + "SPEAKER gone 1 0 1 <NA> <NA> a <NA> <NA>\n")
    found, skipped = sources.find([str(tmp_path / "all.rttm")], tmp_path / "wav")
    assert [u.id.removeprefix("talk/") for u in found] == [
        "000000.50-000001.50",
        "000001.25-000001.75",
        "000002.00-000002.75",
    ]
    assert [u[2:] for u in found[:2]] == [(8000, 24000, "talk"), (20000, 28000, "talk")]
    assert [(one.id, one.kind) for one in skipped] == [("gone", "missing")]
    joined = sources.find([str(tmp_path / "all.rttm")], tmp_path / "wav", joined=True)[0]
    assert [u[2:4] for u in joined] == [(8000, 28000), (32000, 44000)]
    windows = sources.windows(joined, 1.0, 0.5)[0]
    assert [w.utterance.id for w in windows][::2] == ["talk/000000.50-000001.50", "talk/000002.00-000002.75"]
    assert [(w.recording, w.start, w.stop) for w in windows[1:2]] == [("talk", 0.75, 1.75)]


def test_two_files_for_one_recording_are_refused(speech, tmp_path):
    speech("talk.wav"), speech("b/talk.flac")
    (tmp_path / "talk.rttm").write_text(TURNS)
    with pytest.raises(InputError, match="several files for talk"):
        sources.find([str(tmp_path / "talk.rttm")])


def test_what_cannot_be_opened_has_no_windows(speech, tmp_path):
    whole = Utterance("a", str(speech("a.wav", 2.0)))
    found, skipped = sources.windows([whole, Utterance("b", "gone.wav")], 1.0, 1.0)
    assert [w.utterance.id for w in found] == ["a/000000.00-000001.00", "a/000001.00-000002.00"]
    assert [(one.id, one.kind) for one in skipped] == [("b", "missing")]


@pytest.mark.parametrize("window, hop", [(0.05, 0.05), (1, 0.01), (1, 1.5), (float("nan"), 1), (float("inf"), 1)])
def test_windows_that_make_no_sense(window, hop):
    with pytest.raises(InputError, match="wanted windows"):
        sources.windows([], window, hop)


@given(st.integers(0, 1000), st.integers(1, 5000), st.floats(10, 300), st.floats(0.1, 1))
def test_windows_cover_a_part_and_nothing_else(start, length, window, share):
    hop = max(2.0, share * window)
    spans = sources.cut(start, start + length, window, hop)
    assert spans[0][0] == start and spans[-1][1] == start + length
    assert {stop - begin for begin, stop in spans} == {min(round(window), length)}
    steps = [later[0] - earlier[0] for earlier, later in zip(spans, spans[1:])]
    assert all(0 < step <= hop + 1 for step in steps) and all(step >= hop - 1 for step in steps[:-1])


def test_a_name_that_is_no_text(speech, tmp_path):
    (tmp_path / "a").mkdir()
    os.rename(speech("x.wav", 2.0), os.fsencode(tmp_path / "a") + b"/caf\xe9.wav")
    found, _ = sources.find([str(tmp_path / "a")])
    assert len(sources.windows(found, 1, 1)[0]) == 2 and sources.seconds(found) == [2.0]


def test_a_name_with_a_line_break_is_refused_before_anything_is_embedded(speech, tmp_path):
    os.rename(speech("a/x.wav"), tmp_path / "a" / "x\n1.wav")
    for inputs in ([str(tmp_path / "a")], [str(tmp_path / "a" / "x\n1.wav")]):
        with pytest.raises(InputError, match=r"^'.*x\\n1.wav' has a line break, and ids are written one a line"):
            sources.find(inputs)


def test_standard_input_that_is_closed_or_endless_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        sources.find(["-"])
    monkeypatch.setattr(sys, "stdin", open("/dev/zero"))
    with pytest.raises(InputError, match="-: not UTF-8 text: a zero byte"):
        sources.find(["-"])


def test_seconds_are_those_of_the_headers(speech):
    a, b = str(speech("a.wav", 2.0)), str(speech("b.wav", 0.5, rate=8000))
    listed = [Utterance("a", a), Utterance("x", a, 8000, 16000), Utterance("y", "gone.wav"), Utterance("b", b, 2000)]
    assert sources.seconds(listed) == [2.0, 0.5, 0.0, 0.25]


def test_an_rttm_without_audio(tmp_path):
    (tmp_path / "talk.rttm").write_text(TURNS)
    for root, words in ((tmp_path, "no audio file of this name"), (tmp_path / "gone", "no such folder")):
        with pytest.raises(InputError, match=words):
            sources.find([str(tmp_path / "talk.rttm")], root)


def test_an_id_that_comes_twice():
    with pytest.raises(InputError, match="a.wav comes twice"):
        sources.refuse_twins(["a.wav", "b.wav", "a.wav"])


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("a.txt", "", "empty"),
        ("a.lst", b"\xff\xfe\x00", "not UTF-8"),
        ("a.lst", "a\0b.wav", "not UTF-8"),
        ("a.xyz", "a", "is not an input"),
    ],
)
def test_lists_that_are_none(tmp_path, name, text, words):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words):
        sources.find([str(tmp_path / name)])


def test_recordings_that_are_not_below_a_manifest_have_its_ids(speech, tmp_path):
    wav = speech("words/a.wav")
    for folder, name in (("out", "first"), (".", "words/a.wav")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "clips.csv").write_text(f"ID,duration,wav,start,stop\nfirst,0.5,{wav},0,8000\n")
        assert [one.id for one in sources.find([str(tmp_path / folder / "clips.csv")])[0]] == [name]
