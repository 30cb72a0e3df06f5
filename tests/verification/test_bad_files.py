"""Whatever a file of the scorer is in place of a list: one line, at once."""

import os

import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.verification import calibrate
from sv_ssl.verification.enroll import read_models
from sv_ssl.verification.manifest_columns import read_manifest
from sv_ssl.verification.normalise import read_speakers
from sv_ssl.verification.trials import read_trials

READERS = {
    "trials": read_trials,
    "models": read_models,
    "speakers": read_speakers,
    "manifest": lambda path: read_manifest(path, ["a"]),
    "calibration": calibrate.read,
}
TEXTS = {
    "zero bytes": b"a b\0c\n1 a b\n",
    "UTF-16": "1 a b\n0 a c\n".encode("utf-16"),
    "UTF-16 without a mark": "1 a b\n0 a c\n".encode("utf-16-le"),
    "a long line": b"x" * 10**6 + b"\n",
    "long words": b"1 a b\n" + b" ".join([b"y" * 10**6] * 4) + b"\n",
    "one word": b"a\n",
    "nothing": b"",
    "a mark and nothing": b"\xef\xbb\xbf",
}


@pytest.fixture(params=READERS)
def read(request):
    return READERS[request.param]


@pytest.mark.parametrize("kind", ["FIFO", "device", "folder"])
def test_what_is_no_ordinary_file_is_refused_at_once(read, tmp_path, kind):
    path = {"FIFO": tmp_path / "list.txt", "device": "/dev/zero", "folder": tmp_path}[kind]
    if kind == "FIFO":
        os.mkfifo(path)
    with pytest.raises(InputError, match=f"wanted an ordinary file, this is a {kind}"):
        read(path)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_of_another_kind_is_refused_in_one_line(read, tmp_path, text):
    (tmp_path / "list.txt").write_bytes(text)
    with pytest.raises(InputError) as caught:
        read(tmp_path / "list.txt")
    message = str(caught.value)
    assert "list.txt" in message and message.isprintable() and len(message) < 1000, message[:2000]
