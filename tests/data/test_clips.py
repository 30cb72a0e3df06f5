"""Labelled clips: crops of them, and what is made of whole ones."""

import numpy as np
import pandas as pd
import pytest
import torch

from sv_ssl import audio
from sv_ssl.data import ClipReader, Views, clips, collate


def waves_of(tmp_path, lengths, rate=8000):
    rng = np.random.default_rng(0)
    rows = []
    for i, length in enumerate(lengths):
        audio.write(tmp_path / f"{i}.wav", 0.3 * rng.standard_normal(length), rate)
        rows.append(
            {"ID": str(i), "wav": str(tmp_path / f"{i}.wav"), "start": 0, "stop": length, "duration": length / rate}
        )
    return clips.Audio(pd.DataFrame(rows), rate)


def test_views_depend_on_seed_epoch_and_row_alone(tmp_path):
    waves = waves_of(tmp_path, [1000, 900, 820])
    views = Views(ClipReader(waves, np.array([2, 0, 1])), 2, 0.11, seed=3)
    first, again, later = views[1, 1], views[1, 1], views[2, 1]
    assert np.array_equal(first["views"], again["views"]) and not np.array_equal(first["views"], later["views"])
    assert first["views"].shape == (2, 880) and first["row"] == 1 and not first["notes"]
    assert all(row.tobytes() in waves[0].tobytes() for row in first["views"])
    assert np.array_equal(views[1, 0]["views"][0], np.resize(waves[2], 880))
    raw = collate([views[1, 0], views[1, 2]])
    assert raw["views"].shape == (2, 2, 880) and raw["rows"].tolist() == [0, 2]


def test_crops_of_clips_are_those_of_their_files(tmp_path):
    waves = waves_of(tmp_path, [1000, 900, 820])
    wanted = [(np.array([0.0, 0.3, 1.0]), 810), (np.array([0.5]), 860)]
    crops, about = ClipReader(waves, np.array([1])).crops(0, wanted)
    assert about == (8000, 900, 1)
    for views, (fractions, n_samples) in zip(crops, wanted, strict=True):
        expected, _ = audio.crops(tmp_path / "1.wav", 0, 900, fractions, n_samples, 8000)
        np.testing.assert_array_equal(views, expected)


def test_much_audio_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "KEPT_HOURS", 0.0)
    waves = waves_of(tmp_path, [900])
    assert waves.kept is None and np.array_equal(waves[0], waves[0])


def test_a_clip_that_is_lost_meanwhile_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "KEPT_HOURS", 0.0)
    views = Views(ClipReader(waves_of(tmp_path, [900, 1000]), np.array([0, 1])), 2, 0.1)
    (tmp_path / "0.wav").unlink()
    item = views[1, 0]
    assert item["row"] == 1 and {note.kind for note in item["notes"]} == {"missing"}


class Moments(torch.nn.Module):
    """(B, T) -> (B, 2): a module for which padding would change the outcome."""

    def forward(self, waves):
        return torch.stack([waves.mean(1), waves.std(1)], 1)


@pytest.mark.parametrize("batch", [1, 4, 50])
def test_clips_of_one_length_pass_together_and_come_in_order(tmp_path, batch):
    waves = waves_of(tmp_path, [900, 1200, 900, 1100, 1200])
    numbers = np.array([4, 1, 0, 2, 3, 0])
    rows = clips.by_length(Moments(), waves, numbers, batch)
    alone = [Moments()(torch.from_numpy(waves[i])[None])[0].numpy() for i in numbers]
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, alone, atol=1e-6)
