"""The guard of outputs: what a command reads, or writes elsewhere, is not replaced."""

import os
import tempfile

import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.core.guard import check_outputs, check_room


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.txt").write_text("b")
    return tmp_path


@pytest.mark.parametrize("name", ["a.txt", "./a.txt", "folder/../a.txt", "link", "hard"])
def test_an_input_is_not_replaced_by_any_of_its_names(here, name):
    os.symlink("a.txt", "link")
    os.link("a.txt", "hard")
    with pytest.raises(InputError, match="--out .* would overwrite what TRIALS reads: name another file"):
        check_outputs([("TRIALS", "a.txt")], [("--out", name)])
    check_outputs([("TRIALS", "a.txt")], [("--out", "c.txt"), ("--json", None)])


def test_files_right_in_a_folder_that_is_read_are_not_replaced_and_new_ones_may_be_written(here):
    with pytest.raises(InputError, match="would overwrite what --reference reads"):
        check_outputs([("--reference", "folder")], [("--out", "folder/b.txt")])
    check_outputs([("--reference", "folder")], [("--out", "folder/new.txt")])


def test_two_outputs_are_two_files(here):
    with pytest.raises(InputError, match="--torchscript ./m would overwrite what --onnx writes"):
        check_outputs([], [("--onnx", "m"), ("--torchscript", "./m")])


def test_a_place_that_cannot_be_written_is_told_before_the_work(here, monkeypatch):
    os.mkfifo("pipe")
    for path, words in (
        ("folder", "this is a folder"),
        ("pipe", "this is no ordinary file"),
        ("a.txt/b/c", "no folder"),
    ):
        with pytest.raises(InputError, match=words):
            check_outputs([], [("--out", path)])
    monkeypatch.setattr(tempfile, "TemporaryFile", denied)  # root may write anywhere
    with pytest.raises(InputError, match="folder cannot be written to .Permission denied."):
        check_outputs([], [("--out", "folder/c.txt")])


def denied(dir):
    raise PermissionError(13, "Permission denied", dir)


def test_to_look_at_a_place_leaves_nothing_there(here):
    check_outputs([], [("--out", "folder/c.txt"), ("--json", "folder/new/d.txt")])
    assert os.listdir("folder") == ["b.txt"]


def test_a_disk_must_have_room_for_what_will_be_written(here, monkeypatch):
    class Disk:
        f_frsize, f_blocks, f_bavail, f_bfree = 512, 1000, 2, 2

    monkeypatch.setattr(os, "statvfs", lambda path: Disk)
    check_room("--out", "folder/new/c.npz", 1024)
    with pytest.raises(InputError, match="--out: cannot write c.npz: 1,025 bytes are needed, the disk has 1,024 left"):
        check_room("--out", "c.npz", 1025)
    Disk.f_bavail = Disk.f_bfree = 0
    with pytest.raises(InputError, match="--out: cannot write c.npz: the disk is full"):
        check_outputs([], [("--out", "c.npz")])
    Disk.f_blocks = 0  # a file system that does not count
    check_outputs([], [("--out", "c.npz")])
