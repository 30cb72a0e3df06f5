"""Manifests: what is read, and what each bad line is told."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.data import manifest

HEADER = "ID,duration,wav,start,stop,spk_id\n"
LINE = "u{0},2.0,$data_root/u{0}.wav,0,32000,s{0}\n"


@pytest.fixture
def table(tmp_path):
    """Write a manifest's text -> its path."""

    def save(text, encoding="utf-8"):
        (tmp_path / "train.csv").write_bytes(text.encode(encoding))
        return tmp_path / "train.csv"

    return save


def refusal(call, *arguments):
    """The one line with which a call refuses its input."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_read_gives_types_paths_and_further_columns(table, tmp_path):
    frame = manifest.read(
        table(
            "session,ID,duration,wav,start,stop,spk_id\n7,a,1.5,sub/a.wav,8000,32000,01\n"
            ",b,2,$data_root/b.wav,0,32000,02\n,c,2,/elsewhere/c.wav,0,32000,02\n"
        )
    )
    assert frame["wav"].tolist() == [f"{tmp_path}/sub/a.wav", f"{tmp_path}/b.wav", "/elsewhere/c.wav"]
    assert frame["duration"].dtype == np.float64 and frame["start"].dtype == frame["stop"].dtype == np.int64
    assert frame["spk_id"].tolist() == ["01", "02", "02"] and frame["session"].tolist() == ["7", "", ""]
    assert manifest.read(tmp_path / "train.csv", data_root="/d")["wav"][0] == "/d/sub/a.wav"


def test_read_takes_a_mark_crlf_blanks_blank_lines_and_no_speakers(table):
    text = 'ID, duration, wav, start, stop\r\na, 2.0, a.wav, 0, 32000\r\n\r\n"b,1", 2.0, b.wav, 0, 32000\r\n\r\n'
    frame = manifest.read(table(text, encoding="utf-8-sig"))
    assert frame["ID"].tolist() == ["a", "b,1"] and "spk_id" not in frame


def test_a_relative_path_is_made_absolute(table, tmp_path, monkeypatch):
    table(HEADER + LINE.format(1))
    monkeypatch.chdir(tmp_path)
    assert manifest.read("train.csv")["wav"].tolist() == [f"{tmp_path}/u1.wav"]


BAD = [
    ("u2,abc,u2.wav,0,32000,s", 'column "duration" is "abc", want a positive number of seconds'),
    ("u2,nan,u2.wav,0,32000,s", 'column "duration" is "nan", want a positive number of seconds'),
    ("u2,inf,u2.wav,0,32000,s", 'column "duration" is "inf", want a positive number of seconds'),
    ("u2,-2.0,u2.wav,0,32000,s", 'column "duration" is "-2.0", want a positive number of seconds'),
    ("u2,0,u2.wav,0,32000,s", 'column "duration" is "0", want a positive number of seconds'),
    ("u2,2.0,u2.wav,0,abc,s", 'column "stop" is "abc", want a whole number of samples'),
    ("u2,2.0,u2.wav,0.5,32000,s", 'column "start" is "0.5", want a whole number of samples'),
    ("u2,2.0,u2.wav,-1,32000,s", 'column "start" is "-1", want a whole number of samples'),
    (
        "u2,2.0,u2.wav,0,99999999999999999999,s",
        'column "stop" is "99999999999999999999", want a whole number of samples',
    ),
    ("u2,2.0,u2.wav,500,500,s", 'column "stop" is 500, want more than "start", 500'),
    ("u2,2.0,u2.wav,900,500,s", 'column "stop" is 500, want more than "start", 900'),
    (",2.0,u2.wav,0,32000,s", 'column "ID" is empty'),
    ("u2,2.0,,0,32000,s", 'column "wav" is empty'),
    ("u2,2.0,u2.wav,0,32000,", 'column "spk_id" is empty'),
    ("u2,2.0,u2.wav,0,32000", "5 fields, want 6 (ID,duration,wav,start,stop,spk_id)"),
    ("u2,2.0,u2.wav,0,32000,s,more", "7 fields, want 6 (ID,duration,wav,start,stop,spk_id)"),
    ("u1,2.0,u2.wav,0,32000,s", 'column "ID" is "u1", as on line 2: want each ID once'),
]


@pytest.mark.parametrize("line, fault", BAD)
def test_a_bad_line_is_named(table, line, fault):
    path = table(HEADER + LINE.format(1) + "\n" + line + "\n" + LINE.format(3))
    assert refusal(manifest.read, path) == f"{path}:4: {fault}"


def test_ten_bad_lines_are_shown_and_all_are_counted(table):
    path = table(HEADER + LINE.format(1) + "".join(f"b{i},x,b.wav,0,9,s\n" for i in range(25)))
    text = refusal(manifest.read, path)
    assert re.findall(r"train\.csv:(\d+): ", text) == [str(i) for i in range(3, 13)]
    assert text.endswith("; and 15 more: 25 bad lines in all")


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", 'train.csv:1: no column "ID", "duration", "wav", "start", "stop": want the header .* got nothing'),
        ("ID,wav,start,spk_id\n", r"train.csv:1: no column \"duration\", \"stop\": .* got ID,wav,start,spk_id"),
        ("ID,duration,wav,start,stop,ID\n", 'train.csv:1: column "ID" twice'),
        (HEADER, "train.csv: no utterances below the header"),
        (HEADER + LINE.format(1) + "u2,2.0," + "x" * 200000 + ",0,9,s\n", "train.csv:3: not CSV: field larger"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(table, text, fault):
    assert re.search(fault, refusal(manifest.read, table(text)))


def test_absent_folder_and_foreign_encodings_are_refused(table, tmp_path):
    assert refusal(manifest.read, tmp_path / "no.csv") == f"cannot read {tmp_path}/no.csv: No such file or directory"
    assert "this is a folder" in refusal(manifest.read, tmp_path)
    assert "not UTF-8 text" in refusal(manifest.read, table(HEADER + "é", encoding="latin-1"))


@pytest.mark.parametrize(
    "text, fault",
    [
        (HEADER + 'u1,2.0,"a\nb.wav",0,9,s\n', r"""train.csv:3: column "wav" is 'a\\nb.wav', which has a line break"""),
        (HEADER + '"a\r",2.0,b.wav,0,9,s\n', r"""train.csv:\d: column "ID" is 'a\\r', which has a line break"""),
        (HEADER + 'u1,2.0,a.wav,0,9,"s\nu2,2.0,b.wav,0,9,s\n', "train.csv:3: not CSV: unexpected end of data"),
        (HEADER + "u1,2.0,a\0.wav,0,9,s\n", "train.csv: not UTF-8 text: a zero byte"),
        (HEADER + "u1,2.0" + ",x" * 100_000 + "\n", r"train.csv:2: 100002 fields, want 6 \(ID,duration"),
        ("ID,duration" + ",x" * 100_000, 'train.csv:1: no column "wav", "start", "stop": want the header'),
        (HEADER[:-1] + ",x" * 100_000, 'train.csv:1: column "x" twice'),
        (HEADER + "u1," + "9" * 9999 + "x,a.wav,0,9,s\n", 'train.csv:2: column "duration" is "9{90}...", want'),
        (HEADER + "u1,2.0,a.wav,0," + "9" * 9999 + ",s\n", 'train.csv:2: column "stop" is "9{90}...", want'),
    ],
)
def test_what_a_stranger_may_have_written_is_told_in_one_short_line(table, text, fault):
    said = refusal(manifest.read, table(text))
    assert re.search(fault, said) and len(said) < 600


def test_write_then_read_gives_the_same(tmp_path):
    frame = pd.DataFrame(
        {
            "note": ['a "b", c', "é"],
            "ID": ["1", "2"],
            "wav": ["/a b.wav", "/c.wav"],
            "duration": [1 / 3, 2.0],
            "start": [0, 5],
            "stop": [5333, 32005],
            "spk_id": ["x", "y"],
        }
    )
    manifest.write(frame, tmp_path / "new" / "out.csv")
    assert (tmp_path / "new" / "out.csv").read_text(encoding="utf-8").splitlines()[0] == HEADER.strip() + ",note"
    pd.testing.assert_frame_equal(manifest.read(tmp_path / "new" / "out.csv")[frame.columns], frame)
    assert 'no column "stop"' in refusal(manifest.write, frame.drop(columns="stop"), tmp_path / "out.csv")


def test_the_recordings_at_hand_agree_with_their_manifest():
    folder = Path(__file__).parents[2] / "../shared/data/speech"
    if not folder.exists():
        pytest.skip("no recordings in ../shared/data")
    frame = manifest.read(folder / "train.csv")
    assert len(frame) == 2849 and frame["spk_id"].nunique() == 1625
    for row in frame.iloc[::200].itertuples():
        assert audio.info(row.wav).frames == row.stop
