"""The files of parts: what an earlier version wrote is merged too."""

import json

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
