import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sv_ssl import audio
from sv_ssl.audio.noise import Noise, Noises, Reverberation, Rooms
from sv_ssl.audio.transform import Pipeline
from sv_ssl.core.errors import InputError
from sv_ssl.data import Batches, FileReader, Views, collate, manifest, n_classes, speaker_labels, to_batch
from sv_ssl.data.loader import loader


def pipeline_of(tiny):
    return Pipeline([Reverberation(Rooms(tiny / "rir")), Noise(Noises(tiny / "noise"))])


def views_of(tiny, **kwargs):
    reader = FileReader(manifest.read(tiny / "train.csv"), 16000)
    return Views(reader, crop_seconds=0.5, transforms=pipeline_of(tiny), **kwargs)


def plain(frame, **options):
    """Views of half a second without transforms, unless said otherwise."""
    return Views(FileReader(frame, 16000), **{"crop_seconds": 0.5, **options})


def batches_of(views, n_workers, epoch=1, done=0):
    batches = Batches(len(views), 4, seed=0)
    batches.epoch, batches.done = epoch, done
    return list(loader(views, batches, n_workers))


def same(a, b):
    """Whether two raw batches have equal tensors; what was drawn lies one level deeper."""
    assert a.keys() == b.keys()
    tensors = {key: (a[key], b[key]) for key in a if key != "notes"}
    return all(same(x, y) if isinstance(x, dict) else torch.equal(x, y) for x, y in tensors.values())


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
    drawn = batch["drawn"]
    assert batch["views"].shape == drawn["1.noise"].shape == (3, 4, 8000)
    assert drawn["1.snr_db"].shape == (3, 4) and drawn["0.rir"].shape == (3, 4, 8000)
    assert batch["rows"].shape == (4,) and batch["rows"].dtype == torch.int64
    assert batch["views"].dtype == drawn["1.noise"].dtype == drawn["0.rir"].dtype == torch.float32
    assert "speeds" not in batch and "short" not in batch


def test_a_batch_has_the_transforms_applied_crop_by_crop(tiny):
    views = views_of(tiny, n_short=1, short_seconds=0.2, speeds=(1.0, 0.9))
    items = [views[1, row] for row in (3, 7)]
    batch = to_batch(collate(items), views.transforms, "cpu")
    assert batch.views.shape == (2, 2, 8000) and batch.short.shape == (1, 2, 3200)
    assert batch.rows.tolist() == [3, 7] and batch.speeds.tolist() == [item["speed"] for item in items]
    for place, item in enumerate(items):
        long = zip(item["views"], item["drawn"], batch.views[:, place], strict=True)
        short = zip(item["short"], item["short_drawn"], batch.short[:, place], strict=True)
        for crops in (long, short):
            for crop, parameters, wave in crops:
                one = {name: torch.from_numpy(np.array(value))[None] for name, value in parameters.items()}
                alone = views.transforms.apply(torch.from_numpy(crop)[None], one)[0]
                torch.testing.assert_close(wave, alone, atol=1e-6, rtol=1e-4)
                assert not torch.equal(wave, torch.from_numpy(crop))
    untouched = to_batch(collate(items), None, "cpu")
    assert torch.equal(untouched.views, collate(items)["views"])


def test_a_batch_of_one_speed_and_without_short_crops_has_neither(tiny):
    batch = to_batch(collate([plain(manifest.read(tiny / "train.csv"))[1, 0]]), pipeline_of(tiny), "cpu")
    assert batch.speeds is None and batch.short is None and batch.views.shape == (2, 1, 8000)


def test_transforms_do_not_change_the_crops(tiny):
    frame = manifest.read(tiny / "train.csv")
    assert np.array_equal(views_of(tiny)[1, 2]["views"], plain(frame)[1, 2]["views"])


def test_a_crop_is_part_of_its_file(tiny):
    frame = manifest.read(tiny / "train.csv")
    whole = audio.read(frame.wav[0])
    crop = views_of(tiny)[1, 0]["views"][0]
    begins = [i for i in range(len(whole) - 8000 + 1) if whole[i] == crop[0]]
    assert any(np.array_equal(whole[i : i + 8000], crop) for i in begins)


def test_a_damaged_file_is_replaced_and_named(tiny, tmp_path):
    frame = manifest.read(tiny / "train.csv")
    frame.loc[3, "wav"] = str(tmp_path / "gone.wav")
    item = plain(frame)[1, 3]
    assert item["row"] != 3 and item["views"].shape == (2, 8000)
    gone = str(tmp_path / "gone.wav")
    assert [(note.wav, note.outcome, note.kind) for note in item["notes"]] == [(gone, "skipped", "missing")]
    assert "gone.wav" in item["notes"][0].reason


def test_another_rate_is_converted_and_named(tiny, speech):
    frame = manifest.read(tiny / "train.csv")
    frame.loc[0, ["wav", "start", "stop"]] = [str(speech("slow.wav", rate=8000)), 0, 8000]
    notes = plain(frame)[1, 0]["notes"]
    assert notes[0].outcome == "converted" and "8000 Hz" in notes[0].reason


def test_only_damaged_files_end_it(tiny):
    frame = manifest.read(tiny / "train.csv").assign(wav="/nowhere.wav")
    with pytest.raises(InputError, match="20 training files in a row"):
        plain(frame)[1, 0]


def test_a_damaged_noise_is_replaced_and_named_by_its_kind(tiny, tmp_path):
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "a.wav").write_text("no audio")
    audio.write(tmp_path / "noise" / "b.wav", np.full(16000, 0.1), 16000)
    views = plain(manifest.read(tiny / "train.csv"), transforms=Pipeline([Noise(Noises(tmp_path))]))
    notes = [note for row in range(24) for note in views[1, row]["notes"]]
    assert {(note.wav, note.outcome, note.kind) for note in notes} == {
        (str(tmp_path / "noise" / "a.wav"), "left out of augmentation", "unreadable")
    }
    (tmp_path / "noise" / "b.wav").unlink()
    views.transforms.steps[0].noises = Noises(tmp_path)
    with pytest.raises(InputError, match="20 noises or rooms in a row cannot be used; the last: .*a.wav"):
        views[1, 0]


def test_processes_share_a_batch():
    whole = list(Batches(20, 8, seed=3))
    parts = [list(Batches(20, 8, seed=3, rank=r, world_size=2)) for r in range(2)]
    for batch, a, b in zip(whole, *parts):
        assert sorted(batch) == sorted(a + b) and len(a) == len(b) == 4


def test_an_epoch_holds_every_utterance_once():
    batches = Batches(20, 5, seed=0)
    assert sorted(index for batch in batches for _, index in batch) == list(range(20))
    first = list(batches)
    batches.epoch = 2
    assert list(batches) != first


def collision_rate(speakers, batches):
    """The share of the batches' utterances that meet another of their own speaker in their batch."""
    met = [np.unique(speakers[[key[1] for key in batch]], return_counts=True)[1] for batch in batches]
    counts = np.concatenate(met)
    return counts[counts > 1].sum() / counts.sum()


@pytest.mark.parametrize("n_speakers, batch_size", [(20, 8), (50, 32), (200, 64)])
def test_class_collisions_are_as_rare_as_they_should_be(n_speakers, batch_size):
    """An utterance meets another of its speaker with probability 1 - (1 - 1/S)^(N - 1), the oracle's never."""
    speakers = np.repeat(np.arange(n_speakers), 100)
    random = Batches(len(speakers), batch_size, seed=0)
    expected = 1 - (1 - 1 / n_speakers) ** (batch_size - 1)
    assert collision_rate(speakers, random) == pytest.approx(expected, abs=0.03)
    oracle = Batches(len(speakers), batch_size, seed=0, labels=speakers, per_speaker=1)
    assert len(list(oracle)) == len(random) and collision_rate(speakers, oracle) == 0


def test_impossible_batches_say_what_to_do():
    with pytest.raises(InputError, match="a batch of 8 utterances cannot be drawn from 6"):
        Batches(6, 8, seed=0)
    with pytest.raises(InputError, match="batch_size 9 does not divide by 2 processes: pass --batch_size 8"):
        Batches(20, 9, seed=0, world_size=2)


def test_waiting_is_counted(tiny):
    timed = loader(views_of(tiny), Batches(24, 4, seed=0), 0)
    list(timed)
    assert timed.waited > 0


# ------------------------------------------------------------------------------------------- speakers in a batch
def by_speaker(speakers, batch_size, per_speaker, **kwargs):
    return Batches(
        len(speakers), batch_size, labels=np.asarray(speakers), per_speaker=per_speaker, **{"seed": 0, **kwargs}
    )


@given(st.data())
def test_a_batch_is_of_p_speakers_with_k_utterances_each(draw):
    """Whoever they are: from many with one utterance to one who has nearly all."""
    sizes = draw.draw(st.lists(st.integers(1, 30), min_size=1, max_size=12))
    speakers = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 7 - 3, sizes))
    k = draw.draw(st.integers(1, 4))
    p = draw.draw(st.integers(1, len(sizes)))
    if p * k > len(speakers):
        return
    batches = by_speaker(speakers, p * k, k, seed=draw.draw(st.integers(0, 99)))
    made, keys = list(batches), [key for batch in batches for key in batch]
    assert len(made) == len(batches) == len(speakers) // (p * k) and len(keys) == len(set(keys))
    for batch in made:
        counts = Counter(speakers[key[1]] for key in batch)
        assert len(counts) == p and set(counts.values()) == {k}
        for speaker in counts:  # as different as they can be
            assert len({key[1] for key in batch if speakers[key[1]] == speaker}) == min(k, sum(speakers == speaker))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_every_utterance_is_seen_about_once_whatever_its_speaker(k):
    sizes = np.random.default_rng(0).integers(4, 60, 50)
    speakers = np.repeat(np.arange(50), sizes)
    batches, seen = by_speaker(speakers, 16, k), np.zeros(len(speakers))
    for batches.epoch in range(1, 41):
        for batch in batches:
            np.add.at(seen, [key[1] for key in batch], 1)
    share = len(batches) * 16 / len(speakers)  # what does not fill a batch waits
    means = np.bincount(speakers, seen) / sizes / 40
    np.testing.assert_allclose(means, share, atol=0.12 * k / np.sqrt(sizes.min()))
    assert seen.sum() == 40 * len(batches) * 16 and seen.min() > 20


def test_speakers_with_few_utterances_repeat_them_cropped_anew(tiny):
    frame = manifest.read(tiny / "train.csv").iloc[:9].reset_index(drop=True)
    batches = by_speaker([0] + [1] * 4 + [2] * 4, 6, 2)
    batch = next(batch for batches.epoch in range(1, 99) for batch in batches if (batches.epoch, 0, 1) in batch)
    alone = [key for key in batch if key[1] == 0]
    assert alone == [(batches.epoch, 0), (batches.epoch, 0, 1)]
    once, again = (plain(frame)[key]["views"] for key in alone)
    assert not np.array_equal(once, again)


def test_speakers_meet_different_others():
    speakers = np.repeat(np.arange(40), 20)
    batches = by_speaker(speakers, 10, 1)
    pairs = Counter(
        (min(a, b), max(a, b))
        for batch in batches
        for a in (speakers[key[1]] for key in batch)
        for b in (speakers[key[1]] for key in batch)
        if a != b
    )
    assert len(pairs) > 0.95 * 40 * 39 / 2  # 80 batches of 45 pairs: each about 4.6 times, and counted twice


def test_speakers_in_batches_depend_on_seed_and_epoch_alone_and_resume():
    speakers = np.repeat(np.arange(20), 10)
    whole = list(by_speaker(speakers, 16, 2))
    assert whole == list(by_speaker(speakers, 16, 2)) != list(by_speaker(speakers, 16, 2, seed=1))
    rest = by_speaker(speakers, 16, 2)
    rest.done = 5
    assert list(rest) == whole[5:]
    rest.epoch, rest.done = 2, 0
    assert list(rest) != whole
    assert list(by_speaker([f"id{speaker:03}" for speaker in speakers], 16, 2)) == whole


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_take_whole_speakers(world_size):
    speakers = np.repeat(np.arange(20), 10)
    whole = list(by_speaker(speakers, 24, 3))
    parts = [list(by_speaker(speakers, 24, 3, rank=rank, world_size=world_size)) for rank in range(world_size)]
    for i, batch in enumerate(whole):
        assert sorted(batch) == sorted(key for part in parts for key in part[i])
        for part in parts:
            assert set(Counter(speakers[key[1]] for key in part[i]).values()) == {3}


def test_workers_do_not_change_the_speakers_batches(tiny):
    views, labels = views_of(tiny), speaker_labels(manifest.read(tiny / "train.csv"))
    alone, others = (list(loader(views, by_speaker(labels, 8, 4), n)) for n in (0, 2))
    assert len(alone) == 3 and all(map(same, alone, others))
    assert all(sorted(Counter(labels[batch["rows"]].tolist()).values()) == [4, 4] for batch in alone)


@pytest.mark.parametrize(
    "labels, batch_size, k, fault",
    [
        ([0, 1, 2, 3] * 3, 6, 1, "wants 6 speakers but there are 4: pass --batch_size 4 or less"),
        ([0, 1, 2, 3] * 3, 10, 2, "wants 5 speakers but there are 4: pass --batch_size 8 or less"),
        ([0, 1, 2, 3] * 3, 8, 3, "batch_size 8 is no multiple of per_speaker 3: pass --batch_size 6"),
        ([0, 1], 4, 2, "there are 2 speaker labels of 12 utterances"),
        (None, 4, 2, "there are 0 speaker labels of 12 utterances"),
    ],
)
def test_impossible_speakers_say_what_to_do(labels, batch_size, k, fault):
    with pytest.raises(InputError, match=f"^[^\n]*{fault}[^\n]*$"):
        Batches(12, batch_size, seed=0, labels=None if labels is None else np.array(labels), per_speaker=k)


def test_labels_alone_change_nothing():
    assert list(Batches(20, 4, 0, labels=np.arange(20))) == list(Batches(20, 4, 0))


def test_speakers_are_numbered_as_sorted(tiny):
    frame = manifest.read(tiny / "train.csv")
    labels = speaker_labels(frame)
    assert labels.dtype == np.int64 and labels.shape == (24,)
    assert [sorted(set(frame.spk_id))[label] for label in labels] == frame.spk_id.tolist()
    with pytest.raises(InputError, match='has no column "spk_id"'):
        speaker_labels(frame.drop(columns="spk_id"))
    for nobody in ("", None, np.nan):
        frame.loc[[3, 7], "spk_id"] = nobody
        with pytest.raises(InputError, match=f'2 of 24 utterances have no spk_id, the first is "{frame.ID[3]}"'):
            speaker_labels(frame)


# ---------------------------------------------------------------------------------------------------- short crops
def test_short_crops_come_beside_the_long_ones(tiny):
    long = batches_of(views_of(tiny), 0)[0]
    batch = batches_of(views_of(tiny, n_short=3, short_seconds=0.2), 0)[0]
    drawn, short = batch["drawn"], batch["short_drawn"]
    assert batch["short"].shape == short["1.noise"].shape == (3, 4, 3200)
    assert short["1.snr_db"].shape == (3, 4) and short["0.rir"].shape == (3, *drawn["0.rir"].shape[1:])
    assert same({key: batch[key] for key in long}, long)
    assert not any("short" in key for key in long)
    assert len({tuple(row) for row in batch["short"].flatten(0, 1).tolist()}) == 12
    noises = torch.cat([short["1.noise"].flatten(0, 1), drawn["1.noise"].flatten(0, 1)[:, :3200]])
    assert len({tuple(row) for row in noises.tolist()}) == 12 + 8
    assert short["1.snr_db"].unique().numel() == 12


def test_short_crops_are_of_their_utterance_and_need_no_augmentation(tiny):
    frame = manifest.read(tiny / "train.csv")
    views = plain(frame, n_short=2, short_seconds=0.25)
    whole, item = audio.read(frame.wav[5]), views[1, 5]
    for crop in item["short"]:
        begins = np.flatnonzero(whole[: len(whole) - 3999] == crop[0])
        assert any(np.array_equal(whole[i : i + 4000], crop) for i in begins)
    raw = collate([item])
    assert raw.keys() == {"views", "short", "rows", "notes", "drawn", "short_drawn"}
    assert raw["drawn"] == raw["short_drawn"] == {}


def test_clean_crops_come_beside_the_others_and_no_transform_changes_them(tiny):
    long = batches_of(views_of(tiny), 0)[0]
    batch = batches_of(views_of(tiny, n_clean=2, clean_seconds=0.3), 0)[0]
    assert same({key: batch[key] for key in long}, long) and batch.keys() - long.keys() == {"clean"}
    whole = audio.read(manifest.read(tiny / "train.csv").wav[int(batch["rows"][0])])
    assert batch["clean"].shape == (2, 4, 4800) and np.isin(batch["clean"][:, 0].numpy(), whole).all()
    assert to_batch(batch, None, "cpu").clean is batch["clean"] and to_batch(long, None, "cpu").clean is None


def test_an_utterance_may_have_no_long_crops(tiny):
    views = views_of(tiny, n_views=0, n_short=2, short_seconds=0.2, n_clean=1, clean_seconds=0.3)
    raw = batches_of(views, 0)[0]
    assert raw["views"].shape == (0, 4, 8000) and raw["short"].shape == (2, 4, 3200) and views.n_crops == 3
    batch = to_batch(raw, views.transforms, "cpu")
    assert batch.views.shape == (0, 4, 8000) and not torch.equal(batch.short, raw["short"])


@pytest.mark.parametrize(
    "options",
    [
        {"n_short": 2, "short_seconds": 0.2},
        {"n_clean": 1, "clean_seconds": 0.2},
        {"speeds": (0.9, 1.0, 1.1)},
        {"n_short": 1, "short_seconds": 0.2, "speeds": [0.8, 1.25]},
    ],
)
def test_options_give_the_same_whatever_the_workers_and_processes(tiny, options):
    views = views_of(tiny, **options)
    alone = batches_of(views, 0)
    assert all(map(same, alone, batches_of(views_of(tiny, **options), 2)))
    assert all(map(same, alone[3:], batches_of(views, 0, done=3)))
    parts = [list(loader(views, Batches(24, 4, 0, rank, 2), 0)) for rank in range(2)]
    for i, batch in enumerate(alone):
        assert same(batch, interleaved([part[i] for part in parts]))


def interleaved(parts):
    """The raw batches of two processes as one."""

    def joined(name, values):
        if name == "notes":
            return []
        if isinstance(values[0], dict):
            return {key: joined(key, [value[key] for value in values]) for key in values[0]}
        axis = 0 if name in ("rows", "speeds") else 1
        return torch.stack([row for pair in zip(*(value.unbind(axis) for value in values)) for row in pair], axis)

    return {name: joined(name, [part[name] for part in parts]) for name in parts[0]}


def test_a_damaged_file_takes_its_short_crops_with_it(tiny, tmp_path):
    frame = manifest.read(tiny / "train.csv")
    frame.loc[3, "wav"] = str(tmp_path / "gone.wav")
    item = plain(frame, n_short=2, short_seconds=0.2)[1, 3]
    whole = audio.read(frame.wav[item["row"]])
    assert all(np.isin(crop, whole).all() for crop in item["short"]) and len(item["notes"]) == 1


# --------------------------------------------------------------------------------------------------------- speeds
def test_speeds_are_drawn_evenly_and_1_keeps_the_crops(tiny):
    labels = np.arange(24) // 4
    views = views_of(tiny, speeds=(0.9, 1.0, 1.1))
    usual = views_of(tiny)
    drawn = [(views[epoch, row], usual[epoch, row]) for epoch in range(10) for row in range(24)]
    copies = Counter()
    for item, other in drawn:
        copies[item["speed"]] += 1
        assert item["row"] == other["row"] and item["views"].shape == (2, 8000) and item["views"].dtype == np.float32
        assert np.array_equal(item["views"], other["views"]) == (item["speed"] == 0) and other["speed"] is None
        assert all(np.array_equal(a[key], b[key]) for a, b in zip(item["drawn"], other["drawn"]) for key in a)
    assert min(copies.values()) > 50 and sorted(copies) == [0, 1, 2]
    assert n_classes(labels, views.speeds) == 18 and n_classes(labels) == 6


@pytest.mark.parametrize("rate", [16000, 8000])
def test_speed_changes_pitch_and_tempo_of_all_crops(tmp_path, rate):
    """A tone of 500 Hz that sounds twice a second."""
    at = np.arange(4 * rate) / rate
    audio.write(tmp_path / "tone.wav", np.sin(2 * np.pi * 500 * at) * (0.5 + 0.4 * np.cos(4 * np.pi * at)), rate)
    frame = pd.DataFrame({"wav": [str(tmp_path / "tone.wav")], "start": [0], "stop": [4 * rate]})
    views = plain(frame, crop_seconds=2.0, n_short=2, short_seconds=1.0, speeds=(1.0, 0.8, 1.25, 1.1))
    for epoch in range(20):
        item = views[epoch, 0]
        speed = (1.0, 0.8, 1.25, 1.1)[item["speed"]]
        for crop in [*item["views"], *item["short"]]:
            spectrum = np.abs(np.fft.rfft(crop * np.hanning(len(crop)), 160000))  # bins of 0.1 Hz
            assert spectrum.argmax() / 10 == pytest.approx(500 * speed, abs=1)
        loudness = np.abs(np.fft.rfft(np.abs(item["views"][0]) * np.hanning(32000), 160000))[12:60]
        assert 1.2 + loudness.argmax() / 10 == pytest.approx(2 * speed, abs=0.25)


def test_a_speed_is_what_resampling_gives(tiny):
    frame = manifest.read(tiny / "train.csv")
    views = plain(frame, crop_seconds=9.0, speeds=(1.1,))  # longer than the file: its beginning, then again
    whole = audio.read(frame.wav[0])
    quick = views[1, 0]["views"][0]
    assert quick.shape == (144000,)
    times = 1.1 * np.arange(200, 12000)
    expected = np.interp(times, np.arange(len(whole)), whole)
    assert np.corrcoef(quick[200:12000], expected)[0, 1] > 0.95


@pytest.mark.parametrize("speeds", [(), (1.0, 1.0), (0.0, 1.0), (1.0, 3.0)])
def test_impossible_speeds_say_what_to_do(tiny, speeds):
    with pytest.raises(InputError, match="want different ones from 0.5 to 2"):
        views_of(tiny, speeds=speeds)


def test_a_worker_says_nothing_of_a_main_process_that_is_gone():
    """After Ctrl-C nobody takes its batch: not a word of the broken pipe, but of all other errors."""
    code = (
        "import sys; from sv_ssl.data import loader; loader._leave_interrupts(0); "
        "sys.excepthook(BrokenPipeError, BrokenPipeError('gone'), None); "
        "sys.excepthook(ValueError, ValueError('wrong'), None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "gone" not in done.stderr and "ValueError: wrong" in done.stderr
