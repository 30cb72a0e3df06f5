"""Packing: what a shard holds, that packing goes on where it stopped, and what is refused."""

import io
import json
import os
import tarfile

import numpy as np
import pandas as pd
import pytest
import soundfile

from data_prep import shards
from sv_ssl.core.errors import InputError
from sv_ssl.data import manifest


@pytest.fixture
def source(tmp_path, speech):
    """Five recordings of two speakers."""
    names = ["a.wav", "b.v2.flac", "c.WAV", "d.ogg", "e.wav"]
    paths = [speech(f"in/{name}", 0.3, seed=i) for i, name in enumerate(names)]
    frame = pd.DataFrame(
        {
            "ID": [f"spk{i % 2}/v.{i}/{path.name}" for i, path in enumerate(paths)],
            "duration": 0.3,
            "wav": [path.name for path in paths],
            "start": 0,
            "stop": 4800,
            "spk_id": [f"spk{i % 2}" for i in range(5)],
            "session": [f"v.{i}" for i in range(5)],
        }
    )
    manifest.write(frame, tmp_path / "in" / "train.csv")
    return tmp_path / "in"


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_shard_is_webdatasets(source, tmp_path):
    """KEY.ending with the file as it was, and behind it KEY.json with what is known of it; no dot in a KEY."""
    assert shards.prepare(source, tmp_path / "out", speakers=True, utterances=2) == 0
    tars = sorted((tmp_path / "out").glob("*.tar"))
    assert [path.name for path in tars] == [f"shard-00000{i}.tar" for i in range(3)]
    seen = {}
    for path in tars:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for sound, note in zip(members[::2], members[1::2]):
                key, ending = sound.name.split(".", 1)
                assert note.name == f"{key}.json" and key.isdecimal()
                about = json.load(tar.extractfile(note))
                seen[about["ID"]] = ending, tar.extractfile(sound).read(), about
    table = manifest.read(source / "train.csv")
    assert sorted(seen) == sorted(table["ID"])
    for row in table.itertuples():
        ending, content, about = seen[row.ID]
        assert content == open(row.wav, "rb").read() and ending == os.path.splitext(row.wav)[1][1:].lower()
        assert about == {
            "ID": row.ID,
            "duration": 0.3,
            "start": 0,
            "stop": 4800,
            "spk_id": row.spk_id,
            "session": row.session,
        }


def test_the_table_says_where_each_utterance_is(source, tmp_path):
    shards.prepare(source, tmp_path / "out", utterances=2)
    table = manifest.read(tmp_path / "out" / "train.csv")
    assert table[["ID", "wav", "start", "stop"]].equals(
        manifest.read(source / "train.csv")[["ID", "wav", "start", "stop"]]
    )
    for row in table.itertuples():
        with open(manifest.resolve(row.shard, tmp_path / "out"), "rb") as file:
            file.seek(int(row.offset))
            assert file.read(int(row.size)) == open(row.wav, "rb").read()


def test_speakers_are_left_out_unless_asked_for(source, tmp_path):
    shards.prepare(source, tmp_path / "out")
    assert not {"spk_id", "session"} & set(manifest.read(tmp_path / "out" / "train.csv"))
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        assert json.load(tar.extractfile("000000000.json")).keys() == {"ID", "duration", "start", "stop"}


def test_utterances_are_shuffled(tmp_path, speech):
    path = speech("in/long.wav", 6)
    rows = [(str(i), 0.1, str(path), 1600 * i, 1600 * i + 1600) for i in range(60)]
    table = tmp_path / "in" / "train.csv"
    manifest.write(pd.DataFrame(rows, columns=["ID", "duration", "wav", "start", "stop"]), table)
    shards.prepare(table, tmp_path / "out", utterances=30)
    first = manifest.read(tmp_path / "out" / "train.csv")["shard"].str.endswith("0.tar").to_numpy()
    assert 5 < first[:30].sum() < 25 and first.sum() == 30


def test_a_stopped_packing_goes_on(source, tmp_path):
    out = tmp_path / "out"
    shards.prepare(source, out, utterances=2)
    before = contents(out)
    (out / "train.csv").unlink()
    (out / "shard-000001.tar").unlink()
    untouched = (out / "shard-000000.tar").stat().st_ino
    assert shards.prepare(source, out, utterances=2) == 0
    assert contents(out) == before
    assert (out / "shard-000000.tar").stat().st_ino == untouched


def test_the_same_whatever_the_workers(source, tmp_path):
    for workers in (1, 3):
        shards.prepare(source, tmp_path / str(workers), utterances=2, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_damaged_files_are_named_each_time_and_left_out(source, tmp_path, capsys):
    (source / "a.wav").write_text("no audio")
    (source / "d.ogg").unlink()
    assert shards.prepare(source, tmp_path / "out") == 3
    table = pd.read_csv(tmp_path / "out" / "problems.csv")
    assert sorted(table["name"]) == ["spk0/v.0/a.wav", "spk1/v.3/d.ogg"]
    assert "not readable" in "".join(table["problem"]) and "no such file" in "".join(table["problem"])
    assert len(manifest.read(tmp_path / "out" / "train.csv")) == 3
    assert shards.prepare(source, tmp_path / "out") == 3
    again = pd.read_csv(tmp_path / "out" / "problems.csv")
    assert sorted(again["name"]) == sorted(table["name"])
    assert again["problem"].str.contains("delete that to try again").all()


def test_a_segment_beyond_its_file_is_named(source, tmp_path):
    frame = manifest.read(source / "train.csv")
    frame.loc[0, "stop"] = 5000
    manifest.write(frame, source / "train.csv")
    assert shards.prepare(source, tmp_path / "out") == 3
    assert "truncated: has 4800 samples" in (tmp_path / "out" / "problems.csv").read_text()


def test_loud_float_segments_are_not_cut(tmp_path):
    path = tmp_path / "in" / "loud.wav"
    path.parent.mkdir()
    soundfile.write(path, np.full(8000, 1.5), 16000, subtype="FLOAT")  # whole steps, but beyond 16 bits
    content, ending, first = shards.packed({"wav": str(path), "start": 100, "stop": 5000})
    assert (content, ending, first) == (path.read_bytes(), ".wav", 100)


@pytest.mark.parametrize(
    "prepare, fault",
    [
        (
            lambda source, out: shards.prepare(source, source),
            "holds the train.csv to pack: give another folder with --out",
        ),
        (lambda source, out: shards.prepare(source / "nothing", out), "cannot read .*nothing"),
        (
            lambda source, out: shards.prepare(source, out, utterances=3),
            "holds other utterances than would be packed now",
        ),
        (
            lambda source, out: (out / "shard-000000.tar").write_text("x") and shards.prepare(source, out),
            "shard-000000.tar: not a shard of this command",
        ),
    ],
)
def test_what_is_refused(source, tmp_path, prepare, fault):
    out = tmp_path / "out"
    shards.prepare(source, out, utterances=2)
    with pytest.raises(InputError, match=f"^[^\n]*{fault}[^\n]*$"):
        prepare(source, out)


def bent(path, change):
    """Write a shard anew with its first note changed."""
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    with tarfile.open(path, "w") as tar:
        for i, (member, content) in enumerate(members):
            if i == 1:
                content = change(member) or content
                member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)


@pytest.mark.parametrize(
    "change",
    [
        lambda note: setattr(note, "type", tarfile.CHRTYPE),
        lambda note: setattr(note, "type", tarfile.SYMTYPE) or setattr(note, "linkname", "000000000.flac"),
        lambda note: setattr(note, "type", tarfile.LNKTYPE) or setattr(note, "linkname", "/etc/passwd"),
        lambda note: b" " * 2**21 + b"{}",
        lambda note: b"[" * 100_000,
        lambda note: b"[]",
    ],
)
def test_a_shard_with_other_members_than_were_packed_is_refused(source, tmp_path, change):
    shards.prepare(source, tmp_path / "out", utterances=2)
    bent(tmp_path / "out" / "shard-000000.tar", change)
    with pytest.raises(InputError, match="^[^\n]*shard-000000.tar: not a shard of this command[^\n]*$"):
        shards.prepare(source, tmp_path / "out", utterances=2)


def test_a_shard_that_is_a_pipe_is_not_waited_for(source, tmp_path):
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "shard-000000.tar")
    with pytest.raises(InputError, match="this is a FIFO"):
        shards.prepare(source, tmp_path / "out", utterances=2)


def test_only_damaged_files_are_no_shards(source, tmp_path):
    for path in source.glob("*.*"):
        if path.suffix != ".csv":
            path.write_text("no audio")
    with pytest.raises(InputError, match="none of 5 recordings can be packed; the first: .*not readable"):
        shards.prepare(source, tmp_path / "out")


def test_the_command(source, tmp_path, capsys):
    assert shards.main([str(source), "--out", str(tmp_path / "out"), "--utterances", "2", "--speakers"]) == 0
    said = capsys.readouterr().out
    for text in ("wrote 3 shards", "train.csv: 5 utterances", f"--data_folder {tmp_path / 'out'}"):
        assert text in said
    assert shards.main([str(source), "--out", str(tmp_path / "out"), "--utterances", "0"]) == 2
