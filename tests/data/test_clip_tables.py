"""The tables of labelled clips and their three parts: what is read, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.data import clips, manifest
from sv_ssl.data.synthetic import sounds


def frame_of(labels, folds, **more):
    names = [str(i) for i in range(len(labels))]
    return pd.DataFrame({"ID": names, "label": list(labels), "fold": list(folds), **more})


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
