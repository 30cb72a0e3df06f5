"""A file that is hashed and decoded as one."""

import hashlib
import os
import time

import numpy as np
import pytest
import soundfile

from sv_ssl import audio
from sv_ssl.embeddings import held_file
from sv_ssl.embeddings.held_file import hold


def content(path):
    with hold(str(path)) as file:
        return file.content


@pytest.mark.parametrize("size", [0, 1, held_file.AT_ONCE, held_file.AT_ONCE + 1, 3 << 21])
def test_content_is_the_bytes_alone(tmp_path, size):
    for name in "ab":
        (tmp_path / name).write_bytes(b"x" * size)
    assert content(tmp_path / "a") == content(tmp_path / "b") == hashlib.sha1(b"x" * size).hexdigest()
    (tmp_path / "a").write_bytes(b"y" * size + b"y")
    assert content(tmp_path / "a") != content(tmp_path / "b")


def test_what_cannot_be_held_is_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "locked").mkdir()
    for path in (str(tmp_path / "none"), str(tmp_path), str(tmp_path / "pipe"), "a\0b", 7):
        with hold(path) as file:
            assert file is None


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("at_once", [100, held_file.AT_ONCE])
def test_samples_are_those_of_the_path_to_the_last_bit(tmp_path, monkeypatch, ending, at_once):
    monkeypatch.setattr(held_file, "AT_ONCE", at_once)
    path = str(tmp_path / f"a.{ending}")
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((30000, 2)), 22050)
    spans = [(0, None), (4000, 9000), (8000, 20000), (25000, 30000), (3000, 7000)]
    with hold(path) as file:
        for one, other in zip(audio.parts(file.source, spans), audio.parts(path, spans), strict=True):
            assert np.array_equal(one, other) and len(one) > 2000


@pytest.mark.parametrize("at_once", [2, held_file.AT_ONCE])
def test_faults_are_told_by_the_name(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(held_file, "AT_ONCE", at_once)
    for name, text, words in (("a.wav", "text", "not readable as WAV"), ("b.wav", "", "is empty, it has no bytes")):
        (tmp_path / name).write_text(text)
        with hold(str(tmp_path / name)) as file, pytest.raises(audio.AudioError, match=words) as caught:
            audio.read(file.source)
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and caught.value.path == str(tmp_path / name)


@pytest.mark.parametrize("age, steady", [(10, True), (0, False), (-10, False)])
def test_a_large_file_is_trusted_once_its_last_change_is_over(tmp_path, monkeypatch, age, steady):
    """A second change within one tick of the clock would not be seen."""
    monkeypatch.setattr(held_file, "AT_ONCE", 2)
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    os.utime(path, (time.time() - age,) * 2)
    with hold(str(path)) as file:
        assert file.is_steady() == steady
        path.write_bytes(b"y" * 10)
        assert not file.is_steady()


def test_a_long_recording_is_hashed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(held_file, "AT_ONCE", 2)
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    os.utime(path, (1, 1))
    before = content(path)
    monkeypatch.setattr(held_file, "BLOCK", None)  # nothing can be hashed now
    assert content(path) == before
