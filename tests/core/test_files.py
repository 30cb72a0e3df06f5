import os
import stat

import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write


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


def test_a_written_file_has_the_users_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "new" / "a.txt") as temporary:
            temporary.write_text("whole")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "new" / "a.txt").st_mode) == 0o640
