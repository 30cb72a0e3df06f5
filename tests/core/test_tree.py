"""The walk through folders: each once, in one order, and no loops."""

import os

import pytest

from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.core.tree import walk


def made(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder):
    return [os.path.relpath(entry.path, folder) for entry in walk(folder)]


def test_hidden_files_and_loops_are_left_out(tmp_path):
    made(tmp_path, "b/2.wav", "a.wav", ".hidden/3.wav", "b/.4.wav")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    assert sorted(found(tmp_path)) == ["a.wav", "b/2.wav"]
    assert audio.find(tmp_path) == audio.find(f"{tmp_path}/") == ["a.wav", "b/2.wav"]


def test_two_folders_that_lead_into_each_other_end(tmp_path):
    made(tmp_path, "a/1.wav", "b/2.wav")
    (tmp_path / "a" / "x").symlink_to("../b")
    (tmp_path / "a" / "y").symlink_to("../b")
    (tmp_path / "b" / "x").symlink_to("../a")
    (tmp_path / "b" / "y").symlink_to("../a")
    assert audio.find(tmp_path) == ["a/1.wav", "b/2.wav"]


def test_a_folder_elsewhere_is_followed_once(tmp_path):
    made(tmp_path, "here/1.wav", "there/deep/2.wav", "there/3.wav")
    (tmp_path / "here" / "far").symlink_to(tmp_path / "there")
    (tmp_path / "here" / "deeper").symlink_to(tmp_path / "there" / "deep")
    (tmp_path / "there" / "back").symlink_to(tmp_path / "here")
    (tmp_path / "there" / "deep" / "above").symlink_to(tmp_path)
    assert audio.find(tmp_path / "here") == ["1.wav", "deeper/2.wav", "far/3.wav"]


def test_a_folder_is_known_by_its_own_name_and_a_file_by_each(tmp_path):
    made(tmp_path, "z/1.wav")
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "z" / "2.wav").symlink_to("1.wav")
    (tmp_path / "gone.wav").symlink_to("nothing")
    assert audio.find(tmp_path) == ["gone.wav", "z/1.wav", "z/2.wav"]


def test_the_order_is_that_of_the_names(tmp_path):
    made(tmp_path, "b/2", "b/10", "a/c/1", "a/d", "e")
    assert found(tmp_path) == ["e", "a/d", "a/c/1", "b/2", "b/10"]


def test_a_folder_that_may_not_be_read_is_no_empty_folder(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        list(walk(tmp_path))
    with pytest.raises(PermissionError):
        audio.find(tmp_path)


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        list(walk(tmp_path / "gone"))
