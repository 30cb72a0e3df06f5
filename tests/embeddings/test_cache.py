import pickle
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sv_ssl.core.host import cache_folder
from sv_ssl.embeddings import cache


def test_rows_survive_the_process_and_models_are_kept_apart(tmp_path):
    row = np.random.default_rng(0).normal(size=192).astype(np.float32)
    cache.Cache("one", tmp_path).put("file", row)
    assert np.array_equal(cache.Cache("one", tmp_path).get("file"), row)
    assert cache.Cache("two", tmp_path).get("file") is None


def test_a_place_that_cannot_be_written_is_only_forgetful(tmp_path):
    (tmp_path / "file").write_text("")
    kept = cache.Cache("one", tmp_path / "file")
    kept.put("a", np.float32([1]))
    assert kept.get("a") == 1


def test_a_damaged_file_is_only_forgetful(tmp_path):
    cache.Cache("one", tmp_path).put("a", np.float32([1]))
    for path in tmp_path.iterdir():
        path.write_bytes(b"no database at all" * 1000)
    kept = cache.Cache("one", tmp_path)
    assert kept.get("a") is None
    kept.put("a", np.float32([2]))
    assert kept.get("a") == 2


def test_the_folder_follows_the_users_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "sv_ssl"


def test_another_process_and_other_threads_use_the_same_rows(tmp_path):
    kept = cache.Cache("one", tmp_path)
    kept.put("a", np.float32([1]))
    assert pickle.loads(pickle.dumps(kept)).get("a") == 1
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(kept.get, "a" * 8)) == [1] * 8


def test_damage_in_the_middle_is_only_forgetful(tmp_path, capsys):
    kept = cache.Cache("one", tmp_path)
    for i in range(200):
        kept.put(str(i), np.zeros(512))
    kept.rows.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (path,) = tmp_path.glob("*.sqlite")
    data = bytearray(path.read_bytes())
    data[8192:] = b"x" * (len(data) - 8192)
    path.write_bytes(data)
    kept = cache.Cache("one", tmp_path)
    assert sum(kept.get(str(i)) is None for i in range(200)) > 100
    kept.put("new", np.float32([1]))
    assert kept.get("new") == 1 and cache.Cache("one", tmp_path).get("new") == 1  # on disk again
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"note: {path} is damaged: the embeddings kept there are forgotten" in told


def change(path, column, value):
    with sqlite3.connect(path) as rows:
        rows.execute(f"UPDATE rows SET {column} = ?", (value,))
    rows.close()


@pytest.mark.parametrize(
    "column, value",
    [
        ("row", np.float32([1, 3]).tobytes()),
        ("row", b""),
        ("row", "text"),
        ("row", None),
        ("seconds", 2.0),
        ("front_end", b"0.0"),
        ("checksum", None),
        ("key", "b"),
    ],
)
def test_a_row_with_damage_is_none(tmp_path, column, value):
    kept = cache.Cache("one", tmp_path)
    kept.put("a", np.float32([1, 2]), 3.0)
    change(kept.path, column, value)
    asked = "b" if column == "key" else "a"
    assert kept.get(asked) is None and kept.damaged == {asked}
    kept.put(asked, np.float32([1, 2]), 3.0)
    assert kept.get(asked).tolist() == [1, 2] and not kept.damaged


def test_a_row_of_another_front_end_is_made_anew(tmp_path, monkeypatch):
    kept = cache.Cache("one", tmp_path)
    kept.put("a", np.float32([1]))
    monkeypatch.setattr(cache, "FRONT_END", b"1.2")
    assert kept.get("a") is None and not kept.damaged
    kept.put("a", np.float32([2]))
    assert kept.get("a") == 2


def test_a_row_of_a_longer_recording_than_wanted_is_none(tmp_path):
    kept = cache.Cache("one", tmp_path)
    kept.put("a", np.float32([1]), 2.5)
    assert kept.get("a", longest=2.5) == 1 and kept.get("a", longest=2.4) is None and not kept.damaged


def test_what_an_earlier_version_kept_is_forgotten_with_one_line(tmp_path, capsys):
    path = cache.Cache("one", tmp_path).path
    path.unlink()
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE rows (key TEXT PRIMARY KEY, row BLOB)")
        old.executemany("INSERT INTO rows VALUES (?, ?)", [(str(i), np.float32([i]).tobytes()) for i in range(1500)])
    old.close()
    for _ in range(2):
        kept = cache.Cache("one", tmp_path)
        assert kept.get("7") is None and not kept.damaged
    told = "note: 1,500 embeddings that an earlier version kept are forgotten: they have no checksum\n"
    assert capsys.readouterr().err == told
    kept.put("7", np.float32([7]))
    assert cache.Cache("one", tmp_path).get("7") == 7


def test_of_several_that_meet_a_damaged_file_one_begins_it_anew(tmp_path, capsys):
    first = cache.Cache("one", tmp_path)
    for i in range(200):
        first.put(str(i), np.zeros(512))
    first.rows.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    caches = [cache.Cache("one", tmp_path) for _ in range(3)]
    with open(first.path, "r+b") as file:
        file.write(b"x" * first.path.stat().st_size)
    for number, kept in enumerate(caches):
        kept.get("1")
        kept.put(f"own {number}", np.float32([number]))
    assert capsys.readouterr().err.count("is damaged") == 1
    assert [cache.Cache("one", tmp_path).get(f"own {number}") for number in range(3)] == [0, 1, 2]
