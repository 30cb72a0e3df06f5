"""Labelled clips and what is learnt from them: parts, views, batches, the method's losses, what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.data import clips, manifest
from sv_ssl.data import views as data
from sv_ssl.data.synthetic import sounds
from sv_ssl.models.audio_papers import ResNet18
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.training import classify


def frame_of(labels, folds, **more):
    names = [str(i) for i in range(len(labels))]
    return pd.DataFrame({"ID": names, "label": list(labels), "fold": list(folds), **more})


# -------------------------------------------------------------------------------------------------- tables and parts
@pytest.fixture
def folder(tmp_path):
    return sounds.corpus(tmp_path / "sounds", per_class=6, seconds=0.1)


def test_three_tables_are_as_one(folder, tmp_path):
    whole = clips.table(folder)
    for part in clips.PARTS:
        manifest.write(whole[whole.fold == part].drop(columns="fold"), tmp_path / f"{part}.csv")
    again = clips.table(tmp_path)
    assert dict(zip(again.ID, again.fold)) == dict(zip(whole.ID, whole.fold)) and len(again) == len(whole) == 48


def test_a_table_of_another_name_is_found_and_problems_are_no_table(folder):
    (folder / "clips.csv").rename(folder / "words.csv")
    (folder / "problems.csv").write_text("kind,id,reason\n")
    assert len(clips.table(folder)) == 48
    (folder / "more.csv").write_text("")
    with pytest.raises(InputError, match="there are more.csv, words.csv"):
        clips.table(folder)


@pytest.mark.parametrize("column", ["label", "fold"])
def test_a_table_without_labels_or_folds_is_refused(folder, column):
    manifest.write(clips.table(folder).drop(columns=column), folder / "clips.csv")
    with pytest.raises(InputError, match=f"want a column {column}"):
        clips.table(folder)


def test_numbered_folds():
    frame = frame_of("ab" * 10, [1, 1, 2, 2, 3, 3, 4, 4, 10, 10] * 2)
    for test, valid in ((1, 2), (4, 10), (10, 1)):
        part = clips.split(frame, test).part
        assert set(frame.fold[part == "test"]) == {test} and set(frame.fold[part == "valid"]) == {valid}
    for wrong in (None, 7):
        with pytest.raises(InputError, match="the folds are 1, 2, 3, 4, 10: pass --test_fold"):
            clips.split(frame, wrong)


def test_where_nothing_is_for_validation_a_tenth_of_each_class_is():
    frame = frame_of("ab" * 60, ["train"] * 100 + ["test"] * 20)
    part = clips.split(frame).part
    assert (part == clips.split(frame).part).all()
    assert frame.label[part == "valid"].value_counts().to_dict() == {"a": 5, "b": 5}
    assert (part == "test").sum() == 20


def test_validation_clips_by_a_column():
    frame = frame_of("aabbab", ["train"] * 4 + ["test"] * 2, subset=["noisy", "clean"] * 3)
    assert clips.split(frame, valid_clips="subset=clean").part.tolist() == ["train", "valid"] * 2 + ["test"] * 2
    with pytest.raises(InputError, match="no column is called part"):
        clips.split(frame, valid_clips="part=clean")


# ------------------------------------------------------------------------------------------------------ audio, views
def waves_of(tmp_path, lengths, rate=8000):
    rng = np.random.default_rng(0)
    rows = []
    for i, length in enumerate(lengths):
        audio.write(tmp_path / f"{i}.wav", 0.3 * rng.standard_normal(length), rate)
        rows.append(
            {"ID": str(i), "wav": str(tmp_path / f"{i}.wav"), "start": 0, "stop": length, "duration": length / rate}
        )
    return clips.Audio(pd.DataFrame(rows), rate)


def test_views_depend_on_seed_epoch_and_place_alone(tmp_path):
    waves = waves_of(tmp_path, [1000, 900, 820])
    views = clips.ClipViews(waves, np.array([2, 0, 1]), np.array([5, 6, 7]), 2, 0.11, seed=3)
    first, again, later = views[1, 1], views[1, 1], views[2, 1]
    assert np.array_equal(first["views"], again["views"]) and not np.array_equal(first["views"], later["views"])
    assert first["views"].shape == (2, 880) and first["label"] == 6
    assert all(row.tobytes() in waves[0].tobytes() for row in first["views"])
    assert np.array_equal(views[1, 0]["views"][0], np.resize(waves[2], 880))
    batch = data.collate([views[1, 0], views[1, 2]])
    assert batch["views"].shape == (2, 2, 880) and batch["labels"].tolist() == [5, 7]


def test_much_audio_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "KEPT_HOURS", 0.0)
    waves = waves_of(tmp_path, [900])
    assert waves.kept is None and np.array_equal(waves[0], waves[0])


def test_outputs_are_those_of_each_clip_alone(tmp_path):
    waves = waves_of(tmp_path, [900, 1200, 900, 1100, 1200])
    embedder = Embedder(LogMel(20, 8000), ResNet18(20, size="tiny")).eval()
    rows = clips.outputs(embedder, waves, np.array([4, 1, 0, 2, 3, 0]), batch=4)
    alone = [embedder(torch.from_numpy(waves[i])[None])[0].detach().numpy() for i in (4, 1, 0, 2, 3, 0)]
    assert np.allclose(rows, alone, atol=1e-5) and not np.allclose(rows[0], rows[1], atol=1e-3)


# ------------------------------------------------------------------------------------------------- shares of labels
def test_shares_of_labels_are_of_training_clips_by_clip_or_by_speaker():
    frame = frame_of(
        list("ab" * 30),
        ["train"] * 40 + ["valid"] * 10 + ["test"] * 10,
        spk_id=[str(i // 4) for i in range(60)],
        duration=1.0,
        wav="",
        start=0,
        stop=0,
    )
    found = classify.Corpus(clips.split(frame), clips.Audio(frame, 8000), ["a", "b"])
    hparams = {"seed": 0, "supervision": "semi", "labelled_by": "clip", "labelled_share": 0.25}
    some = classify.labelled(hparams, found)
    assert len(some) == 10 and some.max() < 40 and set(found.codes[some]) == {0, 1}
    whole = classify.labelled({**hparams, "labelled_by": "spk_id"}, found)
    assert sorted(np.unique(whole // 4, return_counts=True)[1]) == [4] * len(set(whole // 4))
    for changes in ({"labelled_share": 0}, {"supervision": "none"}):
        assert len(classify.labelled({**hparams, **changes}, found)) == 0
    with pytest.raises(InputError, match="the clips have no column spk_id"):
        nobody = found._replace(frame=found.frame.drop(columns="spk_id"))
        classify.labelled({**hparams, "labelled_by": "spk_id"}, nobody)


def test_the_four_statistics_are_adds():
    rows, labels = np.array([[1.0, 0], [1, 0], [0, 1], [1, 1]]), np.array(["a", "a", "b", "b"])
    found = classify.analysed(rows, labels)["add"]
    root = 1 - np.sqrt(0.5)
    assert found["mu_p"] == pytest.approx(root**2 / 2) and found["mu_n"] == pytest.approx(0.25)
    assert found["sigma_n"] == pytest.approx(np.std([0, 0, 0.5, 0.5] * 2, ddof=1))


# ------------------------------------------------------------------------------------------------ who sees which clips
@pytest.fixture
def prepared(folder, tmp_path):
    """-> recipe's YAML, what is changed -> its settings and corpus, built."""
    here = Path(__file__).parents[2] / "recipes" / "audio_probes"

    def build(name, **given):
        sizes = {
            "encoder_size": "tiny",
            "n_mels": 20,
            "crop_seconds": 0.1,
            "epochs": 1,
            "batch_size": 8,
            "num_workers": 0,
            "data_folder": str(folder),
            "output_folder": str(tmp_path / "out"),
            "device": "cpu",
        }
        hparams = classify.read(str(here / "train_clar.py"), str(here / "hparams" / f"{name}.yaml"), {**sizes, **given})
        return hparams, classify.corpus(hparams)

    return build


def test_probes_learn_from_the_training_part_and_are_chosen_by_the_validation_part(prepared, monkeypatch):
    hparams, found = prepared("clar")
    monkeypatch.setattr(clips, "outputs", lambda module, waves, numbers: np.asarray(numbers, float)[:, None])
    seen = {}
    for name in ("linear", "knn"):

        def spied(train, valid, *more, name=name, fit=getattr(classify.probe, name)):
            seen[name] = train, valid
            return fit(train, valid, *more)

        monkeypatch.setattr(classify.probe, name, spied)
    _, rows, guesses = classify.judged(hparams["embedder"], found)
    labels = found.frame.label.to_numpy()
    for parts in seen.values():
        for part, (numbers, names) in zip(("train", "valid"), parts):
            assert numbers[:, 0].tolist() == found.numbers(part).tolist()
            assert names.tolist() == labels[found.numbers(part)].tolist()
    assert seen.keys() == {"linear", "knn"} == guesses.keys()
    assert rows[:, 0].tolist() == found.numbers("test").tolist() and all(len(g) == len(rows) for g in guesses.values())


@pytest.mark.parametrize(
    "name, share", [("acl", 1.0), ("clar", 0.25), ("clar", 1.0), ("clar", 0.0), ("clar_supervised", 0.25)]
)
def test_the_encoder_learns_from_the_training_part_and_its_known_labels(prepared, monkeypatch, name, share):
    hparams, found = prepared(name, labelled_share=share)
    monkeypatch.setattr(classify, "fitted", lambda hparams, views, batches: (views, batches))
    views, _ = classify.train(hparams, found)
    train, known = found.numbers("train"), classify.labelled(hparams, found)
    assert set(views.numbers) <= set(train) and set(known) <= set(train)
    if name == "clar_supervised":
        assert set(views.numbers) == set(known) and len(known) == 8
        assert views.labels.tolist() == found.codes[views.numbers].tolist()
    else:
        assert views.numbers.tolist() == train.tolist() and views.labels.tolist() == list(range(len(train)))
        wanted = np.where(np.isin(train, known), found.codes[train], -1)
        assert hparams["method"].targets.tolist() == wanted.tolist()
        assert (wanted >= 0).sum() == (0 if name == "acl" else round(share * len(train)))


def test_views_of_a_clip_are_different_crops(folder):
    frame = clips.split(clips.table(folder))
    views = clips.ClipViews(clips.Audio(frame, 16000), np.arange(8), np.arange(8), 2, 0.05, seed=0)
    pairs = [views[0, place]["views"] for place in range(8)]
    assert all(pair.shape == (2, 800) for pair in pairs) and not any((a == b).all() for a, b in pairs)


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


@pytest.mark.parametrize(
    "change, test_fold, text",
    [
        (lambda frame: frame, "test", "want no others, and no --test_fold"),
        (lambda frame: frame.replace({"fold": {"valid": "dev"}}), None, "the folds are dev, test, train: where some"),
        (
            lambda frame: frame.assign(label=np.where(frame.fold == "train", "a", frame.label)),
            None,
            'all training clips have the label "a"',
        ),
    ],
)
def test_parts_that_cannot_be_meant_are_refused(folder, change, test_fold, text):
    with pytest.raises(InputError, match=text):
        clips.split(change(clips.table(folder)), test_fold)


def test_a_clip_in_two_parts_is_refused(folder, tmp_path):
    whole = clips.table(folder).drop(columns="fold")
    for part in clips.PARTS:
        manifest.write(whole.assign(ID=[f"{part}{i}" for i in range(len(whole))]), tmp_path / f"{part}.csv")
    with pytest.raises(InputError, match="is there twice, at the same place"):
        clips.table(tmp_path)


@pytest.mark.parametrize("name, text", [("nowhere", "is not there: check --data_folder"), ("file", "is no folder")])
def test_a_folder_that_is_none_is_told(tmp_path, name, text):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=text):
        clips.table(tmp_path / name)


def test_an_encoder_that_diverged_is_told(prepared):
    hparams, found = prepared("clar")
    torch.nn.init.constant_(next(hparams["embedder"].encoder.parameters()), float("nan"))
    with pytest.raises(InputError, match="not finite: training has diverged"):
        classify.judged(hparams["embedder"].eval(), found)
