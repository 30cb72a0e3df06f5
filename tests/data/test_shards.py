"""Shards give the batches that the files give, read each chunk once, and say what is wrong with them."""

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from data_prep import shards as packing
from sv_ssl import audio
from sv_ssl.audio.noise import Noise, Noises, Reverberation, Rooms
from sv_ssl.audio.transform import Pipeline
from sv_ssl.core.errors import InputError
from sv_ssl.data import Batches, FileReader, ShardReader, Views, manifest, shards
from sv_ssl.data.loader import loader


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Chunks of 3 utterances, and 2 x 2 streams."""
    for name, value in (("CHUNK", 3), ("PARTS", 2), ("TURNS", 2)):
        monkeypatch.setattr(shards, name, value)


@pytest.fixture(scope="module")
def packed(tiny, tmp_path_factory):
    """The 24 utterances of the tiny corpus in shards of 7."""
    out = tmp_path_factory.mktemp("shards")
    assert packing.prepare(tiny, out, utterances=7) == 0
    return out


@pytest.fixture
def frame(packed):
    return manifest.read(packed / "train.csv")


def views_of(kind, frame, tiny, **options):
    transforms = Pipeline([Reverberation(Rooms(tiny / "rir")), Noise(Noises(tiny / "noise"))])
    return Views(kind(frame, 16000), crop_seconds=0.5, transforms=transforms, seed=5, **options)


def plain(kind, frame, crop_seconds=0.5):
    return Views(kind(frame, 16000), crop_seconds=crop_seconds)


def batches_of(views, batches, n_workers=0, done=0):
    batches.done = done
    return list(loader(views, batches, n_workers))


def same(a, b):
    assert a.keys() == b.keys()
    tensors = {key: (a[key], b[key]) for key in a if key != "notes"}
    return all(same(x, y) if isinstance(x, dict) else torch.equal(x, y) for x, y in tensors.values())


# ---------------------------------------------------------------------------------------------- files and shards
@pytest.mark.parametrize("n_workers", [0, 1, 2])
def test_shards_and_files_give_the_same_batches(frame, tiny, n_workers):
    expected = batches_of(views_of(FileReader, frame, tiny), shards.ShardBatches(frame, 4, seed=5))
    found = batches_of(views_of(ShardReader, frame, tiny), shards.ShardBatches(frame, 4, seed=5), n_workers)
    assert len(found) == len(expected) == 6
    assert all(map(same, found, expected))


def test_in_the_files_order_shards_give_the_same_batches_too(frame, tiny):
    found, expected = (
        batches_of(views_of(kind, frame, tiny), Batches(24, 4, seed=5)) for kind in (ShardReader, FileReader)
    )
    assert all(map(same, found, expected))
    files = batches_of(views_of(FileReader, manifest.read(tiny / "train.csv"), tiny), Batches(24, 4, seed=5))
    assert all(map(same, files, expected))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_stopped_epoch_goes_on_with_the_same_batches(frame, tiny, n_workers):
    whole = batches_of(views_of(ShardReader, frame, tiny), shards.ShardBatches(frame, 4, seed=5))
    rest = batches_of(views_of(ShardReader, frame, tiny), shards.ShardBatches(frame, 4, 5), n_workers, done=2)
    assert len(rest) == 4 and all(map(same, rest, whole[2:]))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_short_crops_and_speeds_are_the_same_too(frame, tiny, n_workers):
    options = {"n_short": 2, "short_seconds": 0.2, "speeds": (0.9, 1.0, 1.1)}
    expected = batches_of(views_of(FileReader, frame, tiny, **options), shards.ShardBatches(frame, 4, seed=5))
    views = views_of(ShardReader, frame, tiny, **options)
    assert all(map(same, batches_of(views, shards.ShardBatches(frame, 4, seed=5), n_workers), expected))
    assert expected[0]["short"].shape == (2, 4, 3200)


def test_batches_by_speaker_are_refused(frame):
    with pytest.raises(InputError, match="^per_speaker is 2, but shards are read in the order[^\n]*$"):
        shards.ShardBatches(frame, 4, seed=5, labels=np.zeros(24), per_speaker=2)
    plain, labelled = shards.ShardBatches(frame, 4, seed=5), shards.ShardBatches(frame, 4, seed=5, labels=np.zeros(24))
    assert list(plain) == list(labelled)


def test_part_of_a_manifest_can_be_used(frame, tiny):
    part = frame[np.arange(24) % 5 > 0].reset_index(drop=True)
    found, expected = (
        batches_of(views_of(kind, part, tiny), shards.ShardBatches(part, 4, seed=5))
        for kind in (ShardReader, FileReader)
    )
    assert len(found) == 4 and all(map(same, found, expected))


def test_segments_and_other_kinds_of_files(tmp_path, speech):
    """Segments of a long 16-bit file are cut out, those of others come with the whole file."""
    rng = np.random.default_rng(0)
    speech("long.wav", seconds=9)
    soundfile.write(tmp_path / "stereo.wav", rng.uniform(-0.5, 0.5, (32000, 2)), 16000)
    soundfile.write(tmp_path / "float.wav", rng.uniform(-0.5, 0.5, 24000), 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "lossy.ogg", rng.uniform(-0.5, 0.5, 48000), 16000)
    speech("whole.flac", seconds=2)
    rows = [
        ("a", 2.0, "long.wav", 8000, 40000),
        ("b", 3.0, "long.wav", 96000, 144000),
        ("c", 1.0, "stereo.wav", 100, 16100),
        ("d", 2.0, "float.wav", 3000, 19000),
        ("e", 1.5, "lossy.ogg", 0, 24000),
        ("f", 2.0, "whole.flac", 0, 32000),
    ]
    manifest.write(pd.DataFrame(rows, columns=["ID", "duration", "wav", "start", "stop"]), tmp_path / "train.csv")
    assert packing.prepare(tmp_path, tmp_path / "out") == 0
    frame = manifest.read(tmp_path / "out" / "train.csv")
    assert frame["first"].astype(int).tolist() == [0, 0, 100, 3000, 0, 0]
    assert frame["size"].astype(int)[:2].max() < 100_000 < (tmp_path / "long.wav").stat().st_size
    for epoch in range(3):
        for index in range(6):
            found, expected = (plain(kind, frame, 0.7)[epoch, index] for kind in (ShardReader, FileReader))
            np.testing.assert_array_equal(found["views"], expected["views"])
            assert found["notes"] == expected["notes"]


@pytest.mark.parametrize(
    "kind, direct",
    [
        ("plain", True),
        ("quiet", False),
        ("8k", False),
        ("stereo", False),
        ("float", False),
        ("cut", False),
        ("brief", False),
        ("flac", False),
    ],
)
def test_plain_wavs_are_cut_without_libsndfile_and_come_out_the_same(tmp_path, monkeypatch, kind, direct):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 24000)
    rate, path = 8000 if kind == "8k" else 16000, tmp_path / ("a.flac" if kind == "flac" else "a.wav")
    wave = {"quiet": wave * 1e-5, "stereo": np.stack([wave, wave[::-1]], 1), "brief": wave[:3000]}.get(kind, wave)
    soundfile.write(path, wave, rate, subtype="FLOAT" if kind == "float" else "PCM_16")
    content = path.read_bytes()[: -20 if kind == "cut" else None]
    frame = made_up(1, 1).assign(stop=len(wave), wav="a.wav")
    monkeypatch.setattr(shards.Layout, "check", lambda self: None)
    reader, calls, wanted = ShardReader(frame, 16000), [], (np.array([0.3, 0.8]), 6400)
    monkeypatch.setattr(reader, "take", lambda row: shards.Member(content, "x.tar"))
    monkeypatch.setattr(shards.audio, "crops", lambda *a, crops=audio.crops: calls.append(a) or crops(*a))

    def by_libsndfile():
        views, about = audio.crops(shards.Member(content, "x.tar"), 0, len(wave), *wanted, 16000)
        return [views], about

    results = []
    for cut in (lambda: reader.crops(0, [wanted]), by_libsndfile):
        try:
            results.append(cut())
        except audio.AudioError as error:
            results.append(([np.array(str(error))], None))
    ([found], about), ([expected], known) = results
    assert found.dtype == expected.dtype and np.array_equal(found, expected) and about == known
    assert len(calls) == (1 if direct else 2)


# ----------------------------------------------------------------------------------------------------- the order
@pytest.mark.parametrize("batch_size", [2, 4, 5, 7, 24])
def test_an_epoch_holds_no_utterance_twice(frame, batch_size):
    batches = shards.ShardBatches(frame, batch_size, seed=0)
    seen = [index for batch in batches for _, index in batch]
    assert len(seen) == len(set(seen)) == 24 // batch_size * batch_size and set(seen) <= set(range(24))
    batches.epoch = 2
    assert [index for batch in batches for _, index in batch] != seen


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_batch_of_one(frame, world_size):
    whole = list(shards.ShardBatches(frame, 8, seed=3))
    parts = [list(shards.ShardBatches(frame, 8, 3, rank, world_size)) for rank in range(world_size)]
    for i, batch in enumerate(whole):
        assert sorted(batch) == sorted(key for part in parts for key in part[i])


def made_up(n, per_shard):
    """A manifest of n utterances of 10 bytes in shards; nothing of it exists."""
    frame = pd.DataFrame(
        {
            "ID": [str(i) for i in range(n)],
            "wav": "",
            "start": 0,
            "stop": 1,
            "size": 10,
            "first": 0,
            "shard": [f"{i // per_shard:03d}.tar" for i in range(n)],
            "offset": [str(20 * (i % per_shard)) for i in range(n)],
        }
    )
    frame.attrs["data_root"] = "/"
    return frame


@pytest.mark.parametrize("world_size, n_workers", [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3)])
def test_chunks_are_read_once_one_after_the_other_and_let_go(monkeypatch, world_size, n_workers):
    """By all processes and workers together, but for the chunks that a stream begins or ends in."""
    frame, reads = made_up(1000, 90), []
    monkeypatch.setattr(shards.Layout, "check", lambda self: None)

    def read(self, chunk):
        reads.append(chunk)
        rows = self.layout.flow[self.layout.bounds[chunk] : self.layout.bounds[chunk + 1]]
        return {row: bytes(10) for row in rows.tolist()}

    monkeypatch.setattr(ShardReader, "_read_chunk", read)
    for rank in range(world_size):
        for worker in range(n_workers):
            reader = ShardReader(frame, 16000)
            for batch in list(shards.ShardBatches(frame, 8, 0, rank, world_size))[worker::n_workers]:
                for _, index in batch:
                    reader.take(index)
                    assert len(reader.held) <= 2 * 3
    n_chunks = len(reader.layout.bounds) - 1
    assert n_chunks == 11 * 30 + 4
    assert len(reads) <= n_chunks + 4 if n_workers < 3 else len(reads) <= 3 * (n_chunks + 4)
    if (world_size, n_workers) == (2, 2):  # a stream each
        first = reads[: len(reads) // 5]
        shard = [reader.layout.shard[reader.layout.flow[reader.layout.bounds[chunk]]] for chunk in first]
        assert all(b == a + 1 for a, b, s, t in zip(first, first[1:], shard, shard[1:]) if s == t)


def test_a_batch_is_from_several_places_and_a_chunk_is_shuffled():
    frame = made_up(1000, 100)
    batch = np.array([index for _, index in next(iter(shards.ShardBatches(frame, 6, 0)))])
    assert abs(batch[0::2].mean() - batch[1::2].mean()) > 3
    orders = set()
    for seed in range(20):
        [*first] = shards.ShardBatches(frame, 6, seed)
        orders.add(tuple(index % 100 % 3 for _, index in first[0][0::2]))
    assert len(orders) == 6


# -------------------------------------------------------------------------------------------------------- faults
def test_a_manifest_of_files_is_refused(tiny):
    with pytest.raises(InputError, match='no column "shard": want the train.csv that data_prep/shards.py has written'):
        ShardReader(manifest.read(tiny / "train.csv"), 16000)


@pytest.mark.parametrize(
    "break_it, fault",
    [
        (lambda path: path.unlink(), "shard-000001.tar: no such shard"),
        (lambda path: path.write_bytes(path.read_bytes()[:100_000]), "has 100,000 bytes, but train.csv knows of"),
    ],
)
def test_a_shard_that_is_gone_or_short_is_told_at_once(packed, tmp_path, break_it, fault):
    shutil.copytree(packed, tmp_path / "copy")
    break_it(tmp_path / "copy" / "shard-000001.tar")
    with pytest.raises(InputError, match=f"^[^\n]*{fault}[^\n]*$"):
        ShardReader(manifest.read(tmp_path / "copy" / "train.csv"), 16000)


@pytest.mark.parametrize(
    "name, value", [("offset", "-512"), ("size", "0"), ("first", "-1"), ("size", str(2**63 - 1)), ("offset", "9" * 30)]
)
def test_a_place_that_no_file_has_is_refused(frame, name, value):
    rows = frame.assign(**{name: frame[name].astype(str)})
    rows.loc[1, name] = value
    with pytest.raises(InputError, match=f'(column "{name}" of the manifest of shards has|is no number)'):
        ShardReader(rows, 16000)


def test_an_offset_that_is_no_number_is_refused(frame):
    with pytest.raises(InputError, match="a column of the manifest of shards is no number: .*'x'"):
        ShardReader(frame.assign(offset="x"), 16000)


@pytest.mark.parametrize(
    "break_it, reason",
    [
        (lambda path: path.unlink(), "shard-000001.tar: cannot be read: No such file"),
        (lambda path: path.write_bytes(bytes(100)), "shard-000001.tar: cut short in the middle of an utterance"),
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), "shard-000001.tar: not readable as WAV"),
    ],
)
def test_damage_during_training_costs_the_utterances_alone(packed, tmp_path, break_it, reason):
    shutil.copytree(packed, tmp_path / "copy")
    frame = manifest.read(tmp_path / "copy" / "train.csv")
    views = plain(ShardReader, frame)
    break_it(tmp_path / "copy" / "shard-000001.tar")
    for index in range(24):
        item = views[1, index]
        hit = frame["shard"][index].endswith("shard-000001.tar")
        assert bool(item["notes"]) == hit
        assert all(note.outcome == "skipped" and reason in note.reason for note in item["notes"])
        assert not frame["shard"][item["row"]].endswith("shard-000001.tar")
        assert not hit or item["notes"][0].wav == frame["wav"][index]


def test_the_files_need_not_be_there(packed, tiny):
    frame = manifest.read(packed / "train.csv").assign(wav="/nowhere.wav")
    expected = plain(FileReader, manifest.read(tiny / "train.csv"))[1, 3]
    np.testing.assert_array_equal(plain(ShardReader, frame)[1, 3]["views"], expected["views"])
    assert audio.info(manifest.read(tiny / "train.csv").wav[3])
