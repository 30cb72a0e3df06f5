"""The task of labelled clips: who sees which clips, what the probes learn from, what is refused before the training."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.data import clips
from sv_ssl.data.synthetic import sounds
from sv_ssl.training import command_line, labelled_clips
from sv_ssl.training.labelled_clips import ClipTask
from sv_ssl.training.settings import ClipSettings


@pytest.fixture
def folder(tmp_path):
    return sounds.corpus(tmp_path / "sounds", per_class=6, seconds=0.1)


@pytest.fixture
def prepared(folder, tmp_path):
    """prepared(YAML, what is changed in it) -> the task, with its settings built and its clips read."""
    here = Path(__file__).parents[2] / "recipes" / "audio_probes"

    def build(name, **given):
        sizes = {
            "encoder_size": "tiny",
            "n_mels": 20,
            "crop_seconds": 0.1,
            "epochs": 1,
            "batch_size": 8,
            "num_workers": 0,
            "data_folder": folder,
            "output_folder": tmp_path / "out",
            "device": "cpu",
        }
        words = [f"hparams/{name}.yaml", *(f"--{key}={value}" for key, value in {**sizes, **given}.items())]
        config = command_line.read(ClipSettings, str(here / "train_clar.py"), words)
        return ClipTask(config.build(ClipTask.sources(config)), config)

    return build


# ------------------------------------------------------------------------------------------------ who sees which clips
def test_shares_of_labels_are_of_training_clips_by_clip_or_by_speaker(prepared):
    task = prepared("clar", labelled_share=0.25)
    names = [str(i) for i in range(60)]
    folds = ["train"] * 40 + ["valid"] * 10 + ["test"] * 10
    frame = pd.DataFrame(
        {"ID": names, "label": list("ab" * 30), "fold": folds, "spk_id": [str(i // 4) for i in range(60)]}
    )
    task.frame, settings = clips.split(frame), task.settings
    known = task.known()
    assert len(known) == 10 and known.max() < 40 and set(frame.label[known]) == {"a", "b"}
    by_speaker = {**vars(settings), "labelled_by": "spk_id"}
    task.settings = ClipSettings(**by_speaker)
    whole = task.known()
    assert sorted(np.unique(whole // 4, return_counts=True)[1]) == [4] * len(set(whole // 4))
    task.frame = task.frame.drop(columns="spk_id")
    with pytest.raises(InputError, match="the clips have no column spk_id"):
        task.known()
    task.settings = ClipSettings(**{**vars(settings), "labelled_share": 0})
    assert len(task.known()) == 0 and len(prepared("acl").known()) == 0


@pytest.mark.parametrize(
    "name, share", [("acl", 1.0), ("clar", 0.25), ("clar", 1.0), ("clar", 0.0), ("clar_supervised", 0.25)]
)
def test_the_encoder_learns_from_the_training_part_and_its_known_labels(prepared, name, share):
    task = prepared(name, labelled_share=share)
    views, batches = task.views_and_batches()
    classes, n_classes = task.classes()
    train, known = task.numbers("train"), task.known()
    numbers = views.reader.numbers
    codes = np.searchsorted(sorted(set(task.frame.label)), task.frame.label)
    assert set(numbers) <= set(train) and set(known) <= set(train) and len(views) == len(train) == batches.n_rows
    if name == "clar_supervised":
        assert set(numbers) == set(known) and len(known) == 8
        assert classes.tolist() == codes[numbers].tolist() and n_classes == 8
    elif name == "acl":
        assert numbers.tolist() == train.tolist() and (classes, n_classes) == (None, 0)
    else:
        assert numbers.tolist() == train.tolist() and n_classes == 8
        assert classes.tolist() == np.where(np.isin(train, known), codes[train], -1).tolist()
        assert (classes >= 0).sum() == round(share * len(train))


def test_views_of_a_clip_are_different_crops(prepared):
    views, _ = prepared("clar", crop_seconds=0.1, augment_prob=0).views_and_batches()
    views.kinds["views"] = (2, 800)
    pairs = [views[1, row]["views"] for row in range(8)]
    assert all(pair.shape == (2, 800) for pair in pairs) and not any((a == b).all() for a, b in pairs)


def test_probes_learn_from_the_training_part_and_are_chosen_by_the_validation_part(prepared, monkeypatch):
    task = prepared("clar")
    monkeypatch.setattr(clips, "by_length", lambda module, waves, numbers: np.asarray(numbers, float)[:, None])
    seen = {}
    for name in ("linear", "knn"):

        def spied(train, valid, *more, name=name, fit=getattr(labelled_clips.probe, name)):
            seen[name] = train, valid
            return fit(train, valid, *more)

        monkeypatch.setattr(labelled_clips.probe, name, spied)
    _, rows, guesses = task.probed(task.settings.embedder)
    labels = task.frame.label.to_numpy()
    for parts in seen.values():
        for part, (numbers, names) in zip(("train", "valid"), parts):
            assert numbers[:, 0].tolist() == task.numbers(part).tolist()
            assert names.tolist() == labels[task.numbers(part)].tolist()
    assert seen.keys() == {"linear", "knn"} == guesses.keys()
    assert rows[:, 0].tolist() == task.numbers("test").tolist() and all(len(g) == len(rows) for g in guesses.values())


def test_the_four_statistics_are_adds():
    rows, labels = np.array([[1.0, 0], [1, 0], [0, 1], [1, 1]]), np.array(["a", "a", "b", "b"])
    found = labelled_clips.analysed(rows, labels)["add"]
    root = 1 - np.sqrt(0.5)
    assert found["mu_p"] == pytest.approx(root**2 / 2) and found["mu_n"] == pytest.approx(0.25)
    assert found["sigma_n"] == pytest.approx(np.std([0, 0, 0.5, 0.5] * 2, ddof=1))


# --------------------------------------------------------------------------------------------- told before the training
@pytest.mark.parametrize(
    "harm, text",
    [
        (lambda path: path.write_bytes(b"noise"), "1 of 48 clips cannot be used; the first: .*not readable"),
        (lambda path: path.unlink(), "1 of 48 clips cannot be used; the first: .*: mend them"),
        (lambda path: audio.write(path, np.zeros(100, np.float32), 16000), "1 of 48 clips cannot be used"),
    ],
)
@pytest.mark.parametrize("part", clips.PARTS)
def test_a_clip_that_cannot_be_used_is_told_of_before_the_training(prepared, folder, harm, text, part):
    frame = clips.split(clips.table(folder))
    harm(Path(frame.wav[frame.part == part].iloc[0]))
    with pytest.raises(InputError, match=text):
        prepared("clar")


def test_an_encoder_that_diverged_is_told(prepared):
    task = prepared("clar")
    torch.nn.init.constant_(next(task.settings.embedder.encoder.parameters()), float("nan"))
    with pytest.raises(InputError, match="not finite: training has diverged"):
        task.probed(task.settings.embedder.eval())
