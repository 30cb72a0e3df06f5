import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np

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


def test_content_is_the_bytes_alone(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * (1 << 21))
    (tmp_path / "b").write_bytes(b"x" * (1 << 21))
    assert cache.content(tmp_path / "a") == cache.content(tmp_path / "b") != cache.content(__file__)


def test_the_folder_follows_the_users_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "sv_ssl"


def test_another_process_and_other_threads_use_the_same_rows(tmp_path):
    kept = cache.Cache("one", tmp_path)
    kept.put("a", np.float32([1]))
    assert pickle.loads(pickle.dumps(kept)).get("a") == 1
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(kept.get, "a" * 8)) == [1] * 8


def test_a_recording_that_changed_has_another_content(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    before = cache.content(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"y")
    os.utime(tmp_path / "a", (1, 1))
    assert cache.content(tmp_path / "a") != before


def test_damage_in_the_middle_is_only_forgetful(tmp_path):
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
