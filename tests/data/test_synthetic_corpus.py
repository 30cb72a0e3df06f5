"""The built-in corpus: the same everywhere, whole or absent, disjoint, and neither too easy nor too hard."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from sv_ssl.core.errors import InputError
from sv_ssl.data import manifest, scan
from sv_ssl.data.synthetic.corpus import corpus
from sv_ssl.verification import metrics

TINY = dict(
    n_train=4,
    n_valid=2,
    n_test=4,
    test_sessions=2,
    test_utterances=2,
    seconds=1.0,
    n_noises=6,
    n_rooms=4,
    n_meetings=1,
    meeting_seconds=10.0,
)
SMALL = dict(
    n_train=40,
    n_valid=2,
    n_test=24,
    test_sessions=3,
    test_utterances=2,
    seconds=2.5,
    n_noises=0,
    n_rooms=0,
    n_meetings=0,
)


def made(folder, **changes):
    return corpus(folder, progress=False, **{**TINY, **changes})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return made(tmp_path_factory.mktemp("tiny"), workers=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    begin = time.perf_counter()
    folder = corpus(tmp_path_factory.mktemp("small"), progress=False, workers=2, **SMALL)
    took = time.perf_counter() - begin
    seconds = sum(manifest.read(folder / f"{split}.csv").duration.sum() for split in ("train", "valid", "test"))
    print(f"\nmade {seconds:.0f} s of speech in {took:.1f} s: {seconds / took:.0f} times real time on two workers")
    return folder


def fingerprint(folder):
    """Hash of every sample, trial and turn, and of the names of the files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".txt", ".rttm")):
        is_sound = path.suffix == ".wav"
        content = soundfile.read(path, dtype="int16")[0].astype("<i2").tobytes() if is_sound else path.read_bytes()
        digest.update(path.relative_to(folder).as_posix().encode() + content)
    return digest.hexdigest()


def trials_of(folder, name="trials.txt"):
    return [line.split(" ") for line in (folder / name).read_text().splitlines()]


def speaker_of(name):
    return name.split("/")[0]


def session_of(name):
    return name.split("/")[1]


def test_is_the_same_on_every_machine(tiny):
    """Fails when any sample changes: then raise FORMAT, which names the caches, and pin the new hash."""
    assert fingerprint(tiny) == "df83956d78a446d5b9c4ba158c40b8b813c7b055415c0411e3e358231b58b81a"


def test_is_the_same_for_any_number_of_workers(tiny, tmp_path):
    assert fingerprint(made(tmp_path / "one", workers=1)) == fingerprint(tiny)
    assert fingerprint(made(tmp_path / "three", workers=3)) == fingerprint(tiny)


def test_differs_by_seed_and_keeps_the_test_set_when_training_grows(tiny, tmp_path):
    assert fingerprint(made(tmp_path / "seed", seed=1)) != fingerprint(tiny)
    larger = made(tmp_path / "larger", n_train=6)
    assert (larger / "trials.txt").read_text() == (tiny / "trials.txt").read_text()
    assert len(manifest.read(larger / "train.csv")) == 6 / 4 * len(manifest.read(tiny / "train.csv"))


def test_a_second_call_writes_nothing(tiny):
    def state():
        return {path: path.stat().st_mtime_ns for path in [tiny.parent, tiny, *tiny.rglob("*")]}

    before = state()
    assert made(tiny) == tiny
    assert state() == before


def test_without_a_folder_it_is_kept_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = made(None, n_meetings=0, n_noises=0, n_rooms=0, seed=7)
    assert folder.parent == tmp_path / "sv_ssl" and folder.name.startswith("synthetic-7-")
    assert made(None, n_meetings=0, n_noises=0, n_rooms=0, seed=7, seconds=1) == folder
    assert made(None, n_meetings=0, n_noises=0, n_rooms=0, seed=7, seconds=1.1) != folder


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill on this system")
def test_a_kill_leaves_no_half_and_the_next_call_clears_up(tmp_path):
    folder, root = tmp_path / "corpus", Path(__file__).parents[2]
    code = f"from sv_ssl.data.synthetic.corpus import corpus; corpus({str(folder)!r}, workers=2, n_train=2000)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob(".aside-corpus/wav/*/*/*.wav")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not folder.exists()
    assert made(folder) == folder and os.listdir(tmp_path) == ["corpus"]


def test_two_at_once_make_it_once(tmp_path, tiny):
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: made(tmp_path / "corpus", workers=1), range(2)))
    assert folders == [tmp_path / "corpus"] * 2 and os.listdir(tmp_path) == ["corpus"]
    assert fingerprint(folders[0]) == fingerprint(tiny)


def test_a_folder_with_something_else_is_refused(tiny, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not a synthetic corpus: pass a new or empty folder"):
        made(tmp_path)
    with pytest.raises(InputError, match="holds a corpus made with {'seed': 0}, not {'seed': 5}"):
        made(tiny, seed=5)
    with pytest.raises(InputError, match="cannot make the corpus in .*mine.txt.corpus: "):
        made(tmp_path / "mine.txt" / "corpus")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name, value", [("n_test", 1), ("test_sessions", 1), ("seconds", 0.1), ("seed", -1)])
def test_sizes_that_make_no_trials_are_refused(tmp_path, name, value):
    with pytest.raises(InputError, match=f"{name} is {value} but a synthetic corpus needs at least"):
        made(tmp_path / "corpus", **{name: value})
    assert not list(tmp_path.iterdir())


def test_manifests_describe_the_files(tiny):
    for split, rows in (("train", 4 * 2 * 2), ("valid", 2 * 2 * 2), ("test", 4 * 2 * 2)):
        frame = manifest.read(tiny / f"{split}.csv")
        assert list(frame.columns) == ["ID", "duration", "wav", "start", "stop", "spk_id", "session"]
        assert len(frame) == rows and frame.ID.is_unique
        for row in frame.itertuples():
            sound = soundfile.info(row.wav)
            assert (sound.samplerate, sound.channels, sound.subtype) == (16000, 1, "PCM_16")
            assert (row.start, row.stop, row.duration) == (0, sound.frames, sound.frames / 16000)
            assert 0.75 <= row.duration <= 1.25
            assert Path(row.wav).relative_to(tiny / "wav").parts[:2] == (row.spk_id, row.session)
    assert ",$data_root/wav/id10001/" in (tiny / "train.csv").read_text()


def test_is_recognised_as_a_voxceleb_tree(tiny):
    frame = scan.scan(tiny / "wav", progress=False)
    people = [*range(10001, 10005), *range(20001, 20003), *range(30001, 30005)]
    assert sorted(set(frame.spk_id)) == [f"id{number}" for number in people]


def test_speakers_and_sessions_are_in_one_split_only(small):
    frames = [manifest.read(small / f"{split}.csv") for split in ("train", "valid", "test")]
    for column, counts in (("spk_id", [40, 2, 24]), ("session", [80, 6, 72])):
        values = [set(frame[column]) for frame in frames]
        assert [len(v) for v in values] == counts and len(set.union(*values)) == sum(counts)
    assert all(len(session) == 11 and session.isalnum() for session in frames[0].session)


def test_trials_have_the_form_of_voxceleb_and_are_balanced(small):
    for name, split in (("valid.txt", "valid"), ("trials.txt", "test")):
        trials = trials_of(small, name)
        known = {wav.split("/wav/")[1] for wav in manifest.read(small / f"{split}.csv").wav}
        assert all(len(trial) == 3 and {trial[1], trial[2]} <= known and trial[1] != trial[2] for trial in trials)
        assert [trial[0] for trial in trials] == ["1", "0"] * (len(trials) // 2)
        assert all((speaker_of(a) == speaker_of(b)) == (label == "1") for label, a, b in trials)
        assert len({frozenset(trial[1:]) for trial in trials}) == len(trials)


def test_targets_are_mostly_across_sessions_and_half_of_the_others_within_a_group(small):
    trials = trials_of(small)
    across = [session_of(a) != session_of(b) for label, a, b in trials if label == "1"]
    alike = [(int(speaker_of(a)[2:]) - int(speaker_of(b)[2:])) % 2 == 0 for label, a, b in trials if label == "0"]
    assert len(across) == 24 * (12 + 3) and np.mean(across) == 0.8
    assert np.mean(alike) == 0.5


def test_sounds_for_augmentation_are_listed_with_kind_and_split(tiny):
    noises, rooms = (pd.read_csv(tiny / name / f"{name}.csv") for name in ("noise", "rir"))
    for folder, frame in (("noise", noises), ("rir", rooms)):
        assert list(frame.columns) == ["wav", "duration", "kind", "split"]
        found = [path.relative_to(tiny / folder).as_posix() for path in (tiny / folder).rglob("*.wav")]
        assert sorted(frame.wav) == sorted(found)
        assert all(soundfile.info(tiny / folder / row.wav).duration == row.duration for row in frame.itertuples())
        assert set(frame.split) == {"train", "test"}
    assert noises.kind.value_counts().to_dict() == {"noise": 2, "music": 2, "speech": 2}
    assert noises.duration.between(8, 10).all() and rooms.duration.between(0.1, 0.7).all()


def test_meetings_have_valid_turns_of_two_people_who_are_nowhere_else(tiny):
    (path,) = (tiny / "meetings").glob("*.rttm")
    wave, _ = soundfile.read(path.with_suffix(".wav"))
    assert len(wave) == 10 * 16000
    turns = [line.split(" ") for line in path.read_text().splitlines()]
    assert all(len(turn) == 10 and turn[:3] == ["SPEAKER", path.stem, "1"] for turn in turns)
    assert all(turn[5:7] == turn[8:10] == ["<NA>", "<NA>"] for turn in turns)
    begins, seconds = (np.array([float(turn[i]) for turn in turns]) for i in (3, 4))
    assert (np.diff(begins) > 0).all() and (seconds > 0).all() and (begins + seconds <= 10).all()
    assert (begins[2:] > (begins + seconds)[:-2]).all()  # nobody overlaps himself
    speech = np.zeros(len(wave), dtype=bool)
    for begin, length in zip(begins, seconds):
        speech[round(begin * 16000) : round((begin + length) * 16000)] = True
    assert wave[speech].std() > 2 * wave[~speech].std()
    people = {turn[7] for turn in turns}
    assert len(people) == 2 and not people & {path.name for path in (tiny / "wav").iterdir()}


def test_no_sound_is_clipped_or_silent(tiny):
    for path in tiny.rglob("*.wav"):
        wave, _ = soundfile.read(path, dtype="int16")
        assert 300 < abs(wave.astype(int)).max() < 32767, path


def log_mel(path):
    """(T, 40): natural logarithm of mel bands, 25 ms windows every 10 ms."""
    wave, _ = soundfile.read(path)
    frames = np.lib.stride_tricks.sliding_window_view(wave, 400)[::160] * np.hamming(400)
    edges = 700 * (10 ** (np.linspace(0, 2840, 42) / 2595) - 1)
    bins = np.fft.rfftfreq(512, 1 / 16000)[:, None]
    bank = np.minimum((bins - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - bins) / np.diff(edges)[1:]).clip(0)
    return np.log(abs(np.fft.rfft(frames, 512)) ** 2 @ bank + 1e-6)


def error_rate(folder, embed):
    trials = trials_of(folder)
    vectors = {name: embed(folder / "wav" / name) for name in {name for trial in trials for name in trial[1:]}}
    vectors = {name: vector / np.linalg.norm(vector) for name, vector in vectors.items()}
    return metrics.eer([vectors[a] @ vectors[b] for _, a, b in trials], [int(trial[0]) for trial in trials])[0]


def plain_statistics(path):
    frames = log_mel(path)
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0)])


def rich_statistics(path):
    """(180,): of mel cepstra without the mean of the utterance, for loud and soft frames, and of their movement."""
    frames = log_mel(path)
    frames -= frames.mean(axis=0)
    order = np.argsort(frames.mean(axis=1))
    cepstra = frames @ np.cos(np.pi / 40 * np.outer(np.arange(40) + 0.5, np.arange(30)))
    parts = [cepstra[part] for part in np.array_split(order, 3)]
    movement = cepstra[4:] - cepstra[:-4]
    return np.concatenate([parts[0].mean(0), parts[1].mean(0), *(part.std(0) for part in parts), movement.std(0)])


@pytest.fixture(scope="module")
def plain_rate(small):
    rate = error_rate(small, plain_statistics)
    print(f"\nequal error rate without learning: {100 * rate:.1f} %")
    return rate


def test_is_neither_easy_nor_impossible_without_learning(plain_rate):
    assert 0.15 < plain_rate < 0.40


def test_voices_can_be_learnt_across_sessions(small, plain_rate):
    """Within-speaker whitening, learnt on 40 other speakers, at least halves the errors of the plain statistics."""
    train = manifest.read(small / "train.csv")
    vectors = np.array([rich_statistics(path) for path in train.wav])
    mean, scale = vectors.mean(axis=0), vectors.std(axis=0)
    vectors = (vectors - mean) / scale
    within = vectors - np.array([vectors[train.spk_id == speaker].mean(axis=0) for speaker in train.spk_id])
    values, axes = np.linalg.eigh(within.T @ within / len(within) + 0.1 * np.eye(len(scale)))
    rate = error_rate(small, lambda path: (rich_statistics(path) - mean) / scale @ axes / np.sqrt(values))
    print(f"\nequal error rate with whitening: {100 * rate:.1f} %")
    assert rate < 0.5 * plain_rate
