"""Text of strangers: what is read of it, and one line on what is none."""

import os
import tracemalloc

import pytest

from sv_ssl.core import text_file
from sv_ssl.core.errors import InputError
from sv_ssl.core.text_file import LONGEST, csv_rows, lines


@pytest.fixture
def saved(tmp_path):
    """Write bytes -> the path."""

    def save(content):
        (tmp_path / "a.csv").write_bytes(content)
        return tmp_path / "a.csv"

    return save


def refusal(rows, path):
    """The one line with which a file is refused; whatever it claims, little memory is taken."""
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        list(rows(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * LONGEST and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("size", [1, 2, 3, 7, LONGEST])
def test_lines_and_rows_do_not_depend_on_the_pieces_in_which_they_are_read(saved, monkeypatch, size):
    path = saved('\ufeffa,b\r\n\r\n"x\ny", "é"\rlast,1'.encode())
    monkeypatch.setattr(text_file, "LONGEST", size) if size > 3 else None
    assert list(lines(path)) == ["a,b\n", "\n", '"x\n', 'y", "é"\n', "last,1"]
    assert list(csv_rows(path)) == [(1, ["a", "b"]), (4, ["x\ny", "é"]), (5, ["last", "1"])]


def test_many_pieces_are_read_as_one(saved, monkeypatch):
    path = saved("".join(f"{i},{'x' * (i % 50)}\n" for i in range(5000)).encode())
    whole = list(csv_rows(path))
    monkeypatch.setattr(text_file, "LONGEST", 100)
    assert list(csv_rows(path)) == whole and [number for number, _ in whole] == list(range(1, 5001))
    assert "".join(lines(path)) == path.read_text()


@pytest.mark.parametrize(
    "content, fault",
    [
        (b"a,b\n" + b"x" * 40 * LONGEST, ":2: a line of more than 1,048,576 characters"),
        (b"a," * 10 * LONGEST, ":1: a line of more than"),
        (b'a,b\n1,"x\n' + b"2,y\n" * 40 * LONGEST, "not CSV: field larger than .*: is a quotation mark not closed"),
        (b'a,b\n1,"x\n2,y\n', ":3: not CSV: unexpected end of data: is a quotation mark not closed"),
        (b"a,b\n1," + b'"\n",' * LONGEST, "not CSV: a row of more than 1,048,576 characters"),
        (b"a,b\n1,2\n3,\0\n", ": not UTF-8 text: a zero byte"),
        ("a,b\n1,é\n".encode("latin-1"), ": not UTF-8 text, somewhere after line 0"),
        ("a,b\n1,2\n".encode("utf-16"), ": not UTF-8 text, somewhere after line 0"),
    ],
)
def test_what_is_no_table_is_refused_in_little_memory(saved, content, fault):
    path = saved(content)
    assert pytest.raises(InputError, list, csv_rows(path)).match(f"^{path}.*{fault}")
    assert refusal(csv_rows, path).startswith(f"{path}:")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, fault in (("pipe", "is a FIFO"), (".", "is a folder"), ("gone", "No such file")):
        assert fault in refusal(lines, tmp_path / name) and fault in refusal(csv_rows, tmp_path / name)
