"""Checkpoints on a disk that fails."""

import os
from types import SimpleNamespace

import pytest
import torch

from sv_ssl.core.errors import InputError
from sv_ssl.training import checkpoints
from sv_ssl.training.checkpoints import AtomicCheckpointer
from sv_ssl.training.journal import Journal


@pytest.fixture
def layer():
    return torch.nn.Linear(3, 3)


@pytest.fixture
def checkpointer(layer, tmp_path):
    """A checkpointer that has kept the layer when it was full of ones, of twos and of threes."""
    made = AtomicCheckpointer(tmp_path / "save", {"layer": layer, "journal": Journal()})
    for value in (1, 2, 3):
        torch.nn.init.constant_(layer.weight, value)
        made.save_and_keep_only(meta={"unixtime": value})
    torch.nn.init.zeros_(layer.weight)
    return made


def folders(checkpointer):
    return sorted(checkpointer.list_checkpoints(), key=lambda c: c.meta["unixtime"])


def test_the_last_and_the_one_before_are_kept(checkpointer, layer, capsys):
    assert [c.meta["unixtime"] for c in folders(checkpointer)] == [2, 3]
    assert checkpointer.recover_if_possible().meta["unixtime"] == 3
    assert (layer.weight == 3).all() and not capsys.readouterr().out


@pytest.mark.parametrize("name", ["layer.ckpt", "journal.ckpt", "CKPT.yaml", "sums.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "missing"])
def test_a_damaged_one_is_replaced_by_the_one_before(checkpointer, layer, capsys, name, damage):
    path = folders(checkpointer)[-1].path / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "zeros": bytes(len(content))}[damage])
    found = checkpointer.recover_if_possible()
    if (name, damage) == ("sums.json", "missing"):  # as an earlier version wrote it
        assert (layer.weight == 3).all()
    else:
        assert (layer.weight == 2).all() and found == checkpointer.find_checkpoint()
        [line] = capsys.readouterr().out.splitlines()
        assert str(path.parent) in line and "the one before takes its place" in line


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900])
def test_checksums_that_are_none_are_damage(checkpointer, capsys, text):
    path = folders(checkpointer)[-1].path
    (path / "sums.json").write_text(text)
    assert checkpointer.recover_if_possible().path != path
    assert "the one before takes its place" in capsys.readouterr().out


def test_nothing_whole_is_a_new_start(checkpointer, capsys):
    for checkpoint in folders(checkpointer):
        (checkpoint.path / "layer.ckpt").write_bytes(b"PK")
    assert checkpointer.recover_if_possible() is None
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_best_is_kept_too(layer, tmp_path):
    made = AtomicCheckpointer(tmp_path / "save", {"layer": layer})
    for value, eer in enumerate((0.3, 0.1, 0.2, 0.4, 0.5)):
        made.save_and_keep_only(meta={"unixtime": value, "eer": eer}, min_keys=["eer"])
    assert [c.meta["eer"] for c in folders(made)] == [0.1, 0.4, 0.5]
    made.save_and_keep_only(end_of_epoch=False, ckpt_predicate=lambda c: "eer" not in c.meta)
    assert len(folders(made)) == 4


def test_a_clock_that_is_put_back_changes_no_order(checkpointer, layer, monkeypatch):
    times = iter([10_000.0, 6_400.0, 6_500.0])
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(time=lambda: next(times)))
    for epoch in (1, 2, 3):
        checkpointer.save_checkpoint(meta={"number": epoch})
    assert checkpointer.find_checkpoint().meta["number"] == 3
    assert [found.meta["number"] for found in checkpointer.find_checkpoints()[:3]] == [3, 2, 1]


class Hostile:
    def __reduce__(self):
        import os

        return os.mkdir, ("code_was_run",)


def test_a_checkpoint_runs_no_code_whatever_the_environment_says(checkpointer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = checkpointer.find_checkpoint().path
    torch.save({"weight": Hostile()}, path / "layer.ckpt")
    (path / checkpoints.SUMS).unlink()
    checkpoints.seal(path)  # whoever plants it can seal it
    with pytest.raises(InputError, match="holds more than tensors and is not loaded"):
        checkpointer.recover_if_possible()
    assert not (tmp_path / "code_was_run").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
