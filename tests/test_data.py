import numpy as np
import pytest
import torch

from sv_ssl import audio, data, manifest
from sv_ssl.augment import Augment, Noises, Rooms
from sv_ssl.files import InputError


def views_of(tiny, **kwargs):
    augment = Augment(Noises(tiny / "noise"), Rooms(tiny / "rir"))
    return data.Views(manifest.read(tiny / "train.csv"), crop_seconds=0.5, augment=augment, **kwargs)


def batches_of(views, n_workers, epoch=1, done=0):
    batches = data.Batches(len(views), 4, seed=0)
    batches.epoch, batches.done = epoch, done
    return list(data.loader(views, batches, n_workers))


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a if k != "notes")


def test_the_same_whatever_the_workers_and_wherever_resumed(tiny):
    alone = batches_of(views_of(tiny), 0)
    assert len(alone) == 6
    for n_workers in (1, 2):
        assert all(map(same, alone, batches_of(views_of(tiny), n_workers)))
    assert all(map(same, alone[2:], batches_of(views_of(tiny), 1, done=2)))


def test_another_epoch_seed_or_view_is_another_crop(tiny):
    first = views_of(tiny)[1, 0]["views"]
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, views_of(tiny)[2, 0]["views"])
    assert not np.array_equal(first, views_of(tiny, seed=1)[1, 0]["views"])
    assert np.array_equal(first, views_of(tiny)[1, 0]["views"])


def test_shapes_with_three_views(tiny):
    batch = batches_of(views_of(tiny, n_views=3), 0)[0]
    assert batch["views"].shape == batch["noise"].shape == (3, 4, 8000)
    assert batch["snr_db"].shape == (3, 4)
    assert batch["labels"].shape == (4,)
    assert batch["views"].dtype == batch["noise"].dtype == batch["rir"].dtype == torch.float32


def test_a_crop_is_part_of_its_file(tiny):
    frame = manifest.read(tiny / "train.csv")
    whole = audio.read(frame.wav[0])
    crop = views_of(tiny)[1, 0]["views"][0]
    begins = [i for i in range(len(whole) - 8000 + 1) if whole[i] == crop[0]]
    assert any(np.array_equal(whole[i:i + 8000], crop) for i in begins)


def test_a_damaged_file_is_replaced_and_named(tiny, tmp_path):
    frame = manifest.read(tiny / "train.csv")
    frame.loc[3, "wav"] = str(tmp_path / "gone.wav")
    item = data.Views(frame, crop_seconds=0.5)[1, 3]
    assert item["label"] != 3 and item["views"].shape == (2, 8000)
    assert [(note.wav, note.outcome) for note in item["notes"]] == [(str(tmp_path / "gone.wav"), "skipped")]
    assert "gone.wav" in item["notes"][0].reason


def test_another_rate_is_converted_and_named(tiny, speech):
    frame = manifest.read(tiny / "train.csv")
    frame.loc[0, ["wav", "start", "stop"]] = [str(speech("slow.wav", rate=8000)), 0, 8000]
    notes = data.Views(frame, crop_seconds=0.5)[1, 0]["notes"]
    assert notes[0].outcome == "converted" and "8000 Hz" in notes[0].reason


def test_only_damaged_files_end_it(tiny):
    frame = manifest.read(tiny / "train.csv").assign(wav="/nowhere.wav")
    with pytest.raises(InputError, match="20 training files in a row"):
        data.Views(frame)[1, 0]


def test_processes_share_a_batch():
    whole = list(data.Batches(20, 8, seed=3))
    parts = [list(data.Batches(20, 8, seed=3, rank=r, world_size=2)) for r in range(2)]
    for batch, a, b in zip(whole, *parts):
        assert sorted(batch) == sorted(a + b) and len(a) == len(b) == 4


def test_an_epoch_holds_every_utterance_once():
    batches = data.Batches(20, 5, seed=0)
    assert sorted(index for batch in batches for _, index in batch) == list(range(20))
    first = list(batches)
    batches.epoch = 2
    assert list(batches) != first


@pytest.mark.parametrize("n_speakers, batch_size", [(20, 8), (50, 32), (200, 64)])
def test_class_collisions_are_as_rare_as_they_should_be(n_speakers, batch_size):
    """An utterance meets another of its speaker in a batch with probability 1 - (1 - 1/S)^(N - 1)."""
    batches, met = data.Batches(100 * n_speakers, batch_size, seed=0), []
    for batch in batches:
        speakers = np.array([index // 100 for _, index in batch])
        met += [(speakers == speaker).sum() > 1 for speaker in speakers]
    expected = 1 - (1 - 1 / n_speakers) ** (batch_size - 1)
    assert np.mean(met) == pytest.approx(expected, abs=0.03)


def test_impossible_batches_say_what_to_do():
    with pytest.raises(InputError, match="a batch of 8 utterances cannot be drawn from 6"):
        data.Batches(6, 8, seed=0)
    with pytest.raises(InputError, match="batch_size 9 does not divide by 2 processes: pass --batch_size 8"):
        data.Batches(20, 9, seed=0, world_size=2)


def test_waiting_is_counted(tiny):
    loader = data.loader(views_of(tiny), data.Batches(24, 4, seed=0), 0)
    list(loader)
    assert loader.waited > 0
