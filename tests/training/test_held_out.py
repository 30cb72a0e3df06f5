"""Validation without labels: who is held out, and what is made of them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sv_ssl import audio
from sv_ssl.audio import noise
from sv_ssl.audio.transform import Pipeline
from sv_ssl.core.errors import InputError
from sv_ssl.methods import Needs
from sv_ssl.training import dataset, held_out
from sv_ssl.verification.trials import read_trials


@pytest.fixture
def held(speech):
    paths = [str(speech(f"{k}.wav", 2.0 + k / 10, seed=k)) for k in range(12)]
    lengths = [audio.info(path).frames for path in paths]
    return pd.DataFrame({"ID": paths, "wav": paths, "start": 0, "stop": lengths, "duration": np.array(lengths) / 16000})


@pytest.mark.parametrize("n, wanted", [(0, 0), (5, 0), (15, 15), (1000, 20)])
def test_no_more_than_a_twentieth_and_none_if_few(n, wanted):
    train = pd.DataFrame({"duration": [1.0, 4.0] * 200})
    chosen = held_out.choose(train, n, seed=0)
    assert chosen.sum() == wanted and (train.duration[chosen] >= held_out.LEAST_SECONDS).all()
    assert np.array_equal(chosen, held_out.choose(train, n, seed=0))


def test_each_utterance_meets_its_other_half_and_ten_others(held, tmp_path):
    listed = held_out.write(held, tmp_path / "valid", None, seed=0, rate=16000)
    trials = read_trials(listed)
    assert trials.labels.sum() == 12 and (~trials.labels).sum() == 120
    for first, second, label in zip(trials.enroll, trials.test, trials.labels):
        assert (trials.ids[first][:4] == trials.ids[second][:4]) == label
    whole = audio.read(held.wav[3])
    halves = [audio.read(tmp_path / "valid" / f"0003-{name}.wav") for name in "ab"]
    assert np.abs(np.concatenate(halves) - whole).max() < 1e-4


def test_the_second_half_is_moved_and_the_same_seed_moves_it_alike(held, tmp_path, tiny):
    rooms, noises = noise.Rooms(tiny / "rir"), noise.Noises(tiny / "noise")
    moving = Pipeline([noise.Reverberation(rooms), noise.Noise(noises)])
    for name in ("one", "two"):
        held_out.write(held, tmp_path / name, moving, seed=0, rate=16000)
    held_out.write(held, tmp_path / "plain", None, seed=0, rate=16000)
    one, two, plain = (audio.read(tmp_path / name / "0000-b.wav") for name in ("one", "two", "plain"))
    assert np.array_equal(one, two) and np.abs(one - plain).max() > 0.01
    first, same = (audio.read(tmp_path / name / "0000-a.wav") for name in ("one", "plain"))
    assert np.array_equal(first, same)


def test_a_damaged_utterance_is_passed_over_and_many_are_an_error(held, tmp_path):
    for path in held.wav[:2]:
        open(path, "w").close()
    trials = read_trials(held_out.write(held, tmp_path / "valid", None, seed=0, rate=16000))
    assert trials.labels.sum() == 10 and not any(name.startswith(("0000", "0001")) for name in trials.ids)
    wave = audio.read(held.wav[4])
    wave[: len(wave) // 2] = 0
    audio.write(held.wav[4], wave, 16000)
    trials = read_trials(held_out.write(held, tmp_path / "silent", None, seed=0, rate=16000))
    assert trials.labels.sum() == 9 and not any(name.startswith("0004") for name in trials.ids)
    for path in held.wav:
        open(path, "w").close()
    with pytest.raises(InputError, match="--valid_utterances 0"):
        held_out.write(held, tmp_path / "none", None, seed=0, rate=16000)


@pytest.mark.parametrize("utterances, held", [(200, True), (0, False)])
def test_the_test_list_never_chooses_the_epoch(tiny, tmp_path, monkeypatch, utterances, held):
    """A folder with a test list and none for validation: utterances are held out, or nothing is validated."""
    monkeypatch.setattr(dataset.held_out, "MOST_SHARE", 0.5)
    monkeypatch.setattr(dataset.held_out, "LEAST_SECONDS", 0.5)
    for name in ("wav", "train.csv", "trials.txt"):
        (tmp_path / name).symlink_to(tiny / name)
    unset = dict.fromkeys(("valid_trials", "test_trials", "audio_root", "train_csv", "transforms"))
    settings = SimpleNamespace(
        **unset,
        data_folder=tmp_path,
        output_folder=tmp_path / "out",
        label_share=1.0,
        label_share_of="speakers",
        per_speaker_labels=0,
        valid_utterances=utterances,
        seed=0,
        embedder=SimpleNamespace(sample_rate=16000),
        method=SimpleNamespace(needs=Needs()),
    )
    train, valid, [test] = dataset.read(settings)
    assert test.stem == "trials" and (valid is not None) == held
    learnt = set(train.wav.map(lambda path: "/".join(Path(path).parts[-3:])))  # speaker/session/file, as in the lists
    assert learnt and not learnt & set(test.trials.ids)
    if valid is not None:
        assert not set(valid.trials.ids) & set(test.trials.ids) and valid.audio_root.parent == tmp_path / "out"
