"""A file that is hashed and decoded as one."""

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sv_ssl import audio
from sv_ssl.embeddings import held_file
from sv_ssl.embeddings.held_file import held


def content(path):
    return held(str(path)).content


@pytest.mark.parametrize("size", [1, held_file.AT_ONCE, held_file.AT_ONCE + 1, 3 << 21])
def test_content_is_the_bytes_alone(tmp_path, size):
    for name in "ab":
        (tmp_path / name).write_bytes(b"x" * size)
    assert content(tmp_path / "a") == content(tmp_path / "b") == hashlib.sha1(b"x" * size).hexdigest()
    (tmp_path / "a").write_bytes(b"y" * size + b"y")
    assert content(tmp_path / "a") != content(tmp_path / "b")


def test_what_cannot_be_held_is_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").write_text("")
    assert [held(str(tmp_path / name)) for name in ("none", "pipe", "empty", ".", "a\0b")] == [None] * 5
    assert held(7) is None


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("at_once", [100, held_file.AT_ONCE])
def test_samples_are_those_of_the_path_to_the_last_bit(tmp_path, monkeypatch, ending, at_once):
    monkeypatch.setattr(held_file, "AT_ONCE", at_once)
    path = str(tmp_path / f"a.{ending}")
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((30000, 2)), 22050)
    spans = [(0, None), (4000, 9000), (8000, 20000), (25000, 30000), (3000, 7000)]
    for one, other in zip(audio.parts(held(path).source, spans), audio.parts(path, spans), strict=True):
        assert np.array_equal(one, other) and len(one) > 2000


@pytest.mark.parametrize("at_once", [2, held_file.AT_ONCE])
def test_a_fault_is_told_by_the_name(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(held_file, "AT_ONCE", at_once)
    path = str(tmp_path / "a.wav")
    Path(path).write_text("text")
    with pytest.raises(audio.AudioError, match="not readable as WAV") as caught:
        audio.read(held(path).source)
    assert str(caught.value).startswith(f"{path}: ") and caught.value.path == path


@pytest.mark.parametrize("age, steady", [(10, True), (0, False), (-10, False)])
def test_a_large_file_is_trusted_once_its_last_change_is_over(tmp_path, monkeypatch, age, steady):
    """A second change within one tick of the clock would not be seen."""
    monkeypatch.setattr(held_file, "AT_ONCE", 2)
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    os.utime(path, (time.time() - age,) * 2)
    file = held(str(path))
    assert file.is_steady() == steady
    path.write_bytes(b"y" * 10)
    assert not file.is_steady()
    os.unlink(path)
    assert not file.is_steady()


def test_a_long_recording_is_hashed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(held_file, "AT_ONCE", 2)
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    os.utime(path, (1, 1))
    before = content(path)
    monkeypatch.setattr(held_file, "BLOCK", None)  # nothing can be hashed now
    assert content(path) == before
