"""What a model folder knows of its training utterances."""

import os

import numpy as np
import pytest
import torch

from sv_ssl.core.errors import InputError
from sv_ssl.models import folder as model
from sv_ssl.models import training_list
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34

IDS = ["id1/s/00001", "id1/s/00002", "7"]
PATHS = ["/data/vox/wav/id1/s/00001.wav", "/data/vox/wav/id1/s/00002.flac", "/data/7.wav"]


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    embedder = Embedder(LogMel(40), FastResNet34(40, "small", dim=8)).eval()
    return model.save(tmp_path / "m", embedder, {}, trained_on=training_list.of(IDS, PATHS))


def test_utterances_are_known_by_their_ids_and_by_the_ends_of_their_paths(folder):
    kept = training_list.read(folder)
    names = ["id1/s/00001", "id1/s/00002.m4a", "wav/id1/s/00001.wav", "id2/s/00001", "s/00001", "7", "7.wav"]
    assert training_list.known(kept, names).tolist() == [True, True, True, False, False, False, False]
    paths = ["/other/disk/id1/s/00001.flac", "/other/disk/id1/s/00003.flac"]
    assert training_list.known(kept, ["a", "b"], paths).tolist() == [True, False]


def test_one_number_is_kept_where_id_and_path_say_the_same(folder):
    assert len(training_list.of(IDS[:2], PATHS[:2])) == 2
    assert (folder / training_list.FILE).stat().st_size == 8 * len(training_list.of(IDS, PATHS))


def test_the_folder_is_the_same_model_without_the_file(folder):
    wave = torch.randn(1, 8000)
    with_it = model.load(folder)(wave)
    (folder / training_list.FILE).unlink()
    assert torch.equal(model.load(folder)(wave), with_it) and training_list.read(folder) is None


def test_a_folder_made_anew_keeps_it(folder, tmp_path):
    model.renew(folder, tmp_path / "new")
    assert np.array_equal(training_list.read(tmp_path / "new"), training_list.of(IDS, PATHS))
    (folder / training_list.FILE).unlink()
    model.renew(folder, tmp_path / "new")
    assert training_list.read(tmp_path / "new") is None


def test_trainings_one_after_the_other_are_joined():
    parts = training_list.of(IDS, []), None, training_list.of(["id9/s/1"], [])
    assert training_list.known(training_list.joined(*parts), ["id1/s/00001", "id9/s/1", "id9/s/2"]).tolist() == [
        True,
        True,
        False,
    ]
    assert len(training_list.joined(None)) == 0


def test_of_too_many_the_least_hashes_are_kept(monkeypatch):
    monkeypatch.setattr(training_list, "MOST", 50)
    ids = [f"id{i}/s/1" for i in range(100)]
    kept = training_list.of(ids, [])
    assert len(kept) == 50 and training_list.known(kept, ids).sum() == 50
    assert not training_list.known(kept, [f"other{i}/s/1" for i in range(100)]).any()


@pytest.mark.parametrize("content", [b"1234567", b"\0" * 8 * 101], ids=["cut", "large"])
def test_a_damaged_file_is_refused_in_one_line(folder, monkeypatch, content):
    monkeypatch.setattr(training_list, "MOST", 100)
    (folder / training_list.FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"trained_on.hashes is damaged: delete it, the model does without$"):
        training_list.read(folder)


def test_a_fifo_is_refused(folder):
    (folder / training_list.FILE).unlink()
    os.mkfifo(folder / training_list.FILE)
    with pytest.raises(InputError, match="wanted an ordinary file, this is a FIFO"):
        training_list.read(folder)
