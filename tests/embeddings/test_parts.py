"""The files of parts: what an earlier version wrote is merged too."""

import json
import os

import numpy as np
import pytest

from sv_ssl.core.errors import InputError, Skipped
from sv_ssl.embeddings import parts

ROWS = np.ones((1, 1, 4), np.float32)
GONE = Skipped("gone.wav", "missing", "gone.wav: no such file")


def made(shard, ids, skipped=()):
    return parts.Part("run", shard, 2, 0, ids, ROWS, 1.5, [GONE], list(skipped), [])


def test_a_part_comes_back_with_its_kinds(tmp_path):
    silent = Skipped("s.wav", "silent", "s.wav: silent: a part of samples")
    parts.write(tmp_path / "a.part", made(1, ["a.wav"], [silent]))
    parts.write(tmp_path / "b.part", made(2, ["b.wav"]))
    whole = parts.merged([tmp_path / "b.part", tmp_path / "a.part"])
    assert whole.ids == ["a.wav", "b.wav"] and whole.unplanned == [GONE] and whole.skipped == [silent]
    assert whole.rows.shape == (2, 1, 4) and whole.seconds == 3.0


def test_a_part_without_kinds_is_read(tmp_path):
    """Version 0.1 wrote (id, reason)."""
    about = made(1, ["a.wav"])._asdict()
    about.pop("rows")
    about["unplanned"] = about["skipped"] = [["gone.wav", "gone.wav: no such file"]]
    with open(tmp_path / "a.part", "wb") as file:
        np.savez(file, rows=ROWS, about=np.frombuffer(json.dumps(about).encode(), np.uint8))
    part = parts.read(tmp_path / "a.part")
    assert part.skipped == part.unplanned == [Skipped("gone.wav", "unknown", "gone.wav: no such file")]


def test_what_is_no_part_is_refused(tmp_path):
    (tmp_path / "a.part").write_text("no part")
    with pytest.raises(InputError, match="wanted a part that sv-extract --shard wrote"):
        parts.read(tmp_path / "a.part")


@pytest.mark.parametrize(
    "changes",
    [
        {"shard": "1"},
        {"shards": 0},
        {"shard": 3},
        {"crops": 2},
        {"ids": ["a.wav", "b.wav"]},
        {"ids": [7]},
        {"run": None},
        {"seconds": "long"},
        {"windows": [["a", "b"]]},
        {"skipped": [[1, 2, 3]]},
        {"more": 1},
    ],
    ids=str,
)
def test_a_part_of_another_form_is_refused(tmp_path, changes):
    about = {**made(1, ["a.wav"])._asdict(), **changes}
    about.pop("rows")
    with open(tmp_path / "a.part", "wb") as file:
        np.savez(file, rows=ROWS, about=np.frombuffer(json.dumps(about).encode(), np.uint8))
    with pytest.raises(InputError, match="a.part: wanted a part that sv-extract --shard wrote"):
        parts.read(tmp_path / "a.part")


def test_parts_of_other_widths_are_of_other_runs(tmp_path):
    parts.write(tmp_path / "a.part", made(1, ["a.wav"]))
    parts.write(tmp_path / "b.part", made(2, ["b.wav"])._replace(rows=np.ones((1, 1, 5), np.float32)))
    with pytest.raises(InputError, match="are of different runs"):
        parts.merged([tmp_path / "a.part", tmp_path / "b.part"])


@pytest.mark.parametrize("text", [b"[" * 100_000, b"\xff", b"7"])
def test_odd_json_in_a_part_is_refused(tmp_path, text):
    with open(tmp_path / "a.part", "wb") as file:
        np.savez(file, rows=ROWS, about=np.frombuffer(text, np.uint8))
    with pytest.raises(InputError, match="wanted a part that sv-extract"):
        parts.read(tmp_path / "a.part")


def test_a_fifo_is_no_part(tmp_path):
    os.mkfifo(tmp_path / "a.part")
    with pytest.raises(InputError, match="wanted an ordinary file, this is a FIFO"):
        parts.read(tmp_path / "a.part")
