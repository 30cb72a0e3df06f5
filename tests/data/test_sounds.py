"""The built-in sound classes: the same each time, in three parts, told apart by what they are."""

import json

import numpy as np
import pytest

from sv_ssl import audio
from sv_ssl.analysis import probe
from sv_ssl.core.errors import InputError
from sv_ssl.data import manifest
from sv_ssl.data.synthetic import sounds


def test_a_corpus_is_the_same_each_time_and_other_seeds_make_others(tmp_path):
    a, b, other = (
        sounds.corpus(tmp_path / name, seed, per_class=6, seconds=0.2) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    frames = [manifest.read(folder / "clips.csv") for folder in (a, b, other)]
    waves = [[audio.read(wav) for wav in frame.wav] for frame in frames]
    assert all(np.array_equal(x, y) for x, y in zip(*waves[:2]))
    assert not any(np.array_equal(x, y) for x, y in zip(waves[0], waves[2]))
    assert len({wave.tobytes() for wave in waves[0]}) == len(waves[0])


def test_more_clips_leave_the_first_as_they_were(tmp_path):
    few, many = (sounds.corpus(tmp_path / str(n), per_class=n, seconds=0.1) for n in (6, 12))
    for name in ("bell/000", "warble/005"):
        assert (few / f"wav/{name}.wav").read_bytes() == (many / f"wav/{name}.wav").read_bytes()


def test_every_class_is_in_every_part(tmp_path):
    frame = manifest.read(sounds.corpus(tmp_path / "s", per_class=12, seconds=0.1) / "clips.csv")
    counts = frame.groupby(["fold", "label"]).size().unstack()
    assert sorted(counts.columns) == sorted(sounds.MAKERS)
    assert {fold: set(row) for fold, row in counts.iterrows()} == {"train": {8}, "valid": {2}, "test": {2}}
    assert (frame.label_id.astype(int) == frame.label.map(sorted(sounds.MAKERS).index)).all()


def test_a_folder_is_made_once_and_no_other_is_overwritten(tmp_path):
    folder = sounds.corpus(tmp_path / "s", per_class=6, seconds=0.1)
    before = (folder / "clips.csv").stat().st_mtime_ns
    assert sounds.corpus(folder, per_class=6, seconds=0.1) == folder
    assert (folder / "clips.csv").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="delete it or pass another folder"):
        sounds.corpus(folder, per_class=7, seconds=0.1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(InputError, match="holds no sounds"):
        sounds.corpus(tmp_path / "mine", per_class=6, seconds=0.1)
    with pytest.raises(InputError, match="want 6 at least"):
        sounds.corpus(tmp_path / "few", per_class=5)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".aside")]


def test_without_a_folder_it_is_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = sounds.corpus(per_class=6, seconds=0.1)
    assert folder.parent == tmp_path / "sv_ssl" and json.loads((folder / "sounds.json").read_text())["per_class"] == 6


@pytest.mark.parametrize("label", sounds.MAKERS)
def test_sounds_are_finite_not_clipped_and_of_many_levels(label):
    waves = [sounds.make(label, np.random.default_rng(seed), 0.5) for seed in range(8)]
    peaks = [np.abs(wave).max() for wave in waves]
    assert all(wave.shape == (8000,) and wave.dtype == np.float32 and np.isfinite(wave).all() for wave in waves)
    assert 0.09 < min(peaks) < max(peaks) <= 0.9 and max(peaks) > 1.5 * min(peaks)


def test_the_task_is_neither_trivial_nor_impossible():
    """Mean and deviation of coarse spectra tell much more than chance (12.5 %), and far from all."""
    parts = []
    for part in range(3):
        rows, labels = [], []
        for label in sounds.MAKERS:
            for i in range(20):
                wave = sounds.make(label, np.random.default_rng((part, i, sorted(sounds.MAKERS).index(label))))
                spectrum = np.log(np.abs(np.fft.rfft(wave[:15872].reshape(-1, 256))) + 1e-3)
                rows.append(np.concatenate([spectrum.mean(axis=0), spectrum.std(axis=0)]))
                labels.append(label)
        parts.append((np.array(rows), np.array(labels)))
    found = probe.linear(parts[0], parts[1], (1e-3, 1e-2))
    assert 0.3 < np.mean(found.predict(parts[2][0]) == parts[2][1]) < 0.95
