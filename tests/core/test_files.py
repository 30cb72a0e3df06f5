import multiprocessing
import os
import socket
import stat
import time

import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write, check_ordinary, exclusive, locked


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyError), atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert (tmp_path / "a.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_what_is_no_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: it is no ordinary file"), atomic_write(tmp_path / "pipe"):
        pass
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write .*folder: Is a directory"), atomic_write(tmp_path / "folder"):
        pass


def test_only_an_ordinary_file_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    os.mkfifo("pipe")
    os.symlink("pipe", "link")
    (tmp_path / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        wrong = {"pipe": "a FIFO", "link": "a FIFO", "socket": "a socket", "/dev/zero": "a device", ".": "a folder"}
        for name, kind in wrong.items():
            with pytest.raises(InputError, match=f"^{name}: wanted an ordinary file, this is {kind}: .* file"):
                check_ordinary(name)
    for name in ("file", tmp_path / "file", "absent", "a\0b"):
        check_ordinary(name)


def test_a_written_file_has_the_users_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "new" / "a.txt") as temporary:
            temporary.write_text("whole")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "new" / "a.txt").st_mode) == 0o640


def test_a_folder_is_held_by_one_and_left_as_it_was_found(tmp_path):
    with exclusive(tmp_path / "new", "a run", "--output_folder"):
        second = exclusive(tmp_path / "new", "a run", "--output_folder")
        with pytest.raises(InputError, match="a run is running in .*new already"), second:
            pass
    assert not (tmp_path / "new").exists()
    with exclusive(tmp_path / "new", "a run", "--output_folder"):
        (tmp_path / "new" / "a.txt").write_text("a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(KeyError), exclusive(tmp_path / "empty", "a run", "--output_folder"):
        raise KeyError("wrong data")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".lock", "a.txt"]
    assert not list((tmp_path / "empty").iterdir())


def _count(path, times):
    for _ in range(times):
        with locked(path):
            number = int(path.read_text())
            time.sleep(0.001)
            path.write_text(str(number + 1))


def test_who_reads_changes_and_writes_does_so_alone(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")
    processes = [multiprocessing.get_context("fork").Process(target=_count, args=(path, 20)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert path.read_text() == "80" and not (tmp_path / ".count.lock").exists()


def test_a_lock_leaves_no_folder_that_was_made_for_it(tmp_path):
    with pytest.raises(InputError), locked(tmp_path / "new" / "staff.index"):
        raise InputError("there is nothing to change")
    assert not list(tmp_path.iterdir())
