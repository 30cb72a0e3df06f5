"""The Brain knows methods, batches and steps: hooks come in order, groups have their own rates, numbers are logged."""

import json
import re
from pathlib import Path

import pytest
import torch
from test_experiment import SIMCLR, options, refused, run
from torch import nn
from watched_method import CALLS, Watched

from sv_ssl.core.errors import InputError
from sv_ssl.training import optimizer

ROOT = Path(__file__).parents[2]
YAML = f"""extends: {SIMCLR.parent / "hparams" / "am.yaml"}
name: watched
method: !new:watched_method.Watched
  embedder: !ref <embedder>
"""


@pytest.fixture
def watched(tiny, tmp_path):
    """watched(more options) -> the log of a run of the method above, and its weights at the end."""
    (tmp_path / "watched.yaml").write_text(YAML)
    CALLS.clear()

    def go(*more):
        assert run(SIMCLR, str(tmp_path / "watched.yaml"), *options(tiny, tmp_path, "--batch_size=8", *more)) == 0
        log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
        newest = max(tmp_path.glob("out/save/CKPT*"), key=lambda path: path.stat().st_mtime_ns)
        return log, torch.load(newest / "method.ckpt", weights_only=True)

    return go


def test_hooks_come_in_order(watched):
    watched("--epochs=2")
    step = lambda progress: [("start", progress), "forward", ("end", progress)]  # noqa: E731
    one = [("epoch", 1), *step(0.5 / 3), *step(1.5 / 3), *step(2.5 / 3), ("over", 1)]
    assert CALLS[0] == ("prepare", 24, 3, 2, 0) and CALLS[1:12] == one
    assert CALLS[12] == ("epoch", 2) and CALLS[-1] == ("over", 2) and len(CALLS) == 23


def test_a_step_that_accumulates_has_no_end(watched):
    watched("--epochs=1", "--grad_accumulation_factor=2", "--batch_size=4")
    starts, ends = ([call[1] for call in CALLS if call[0] == name] for name in ("start", "end"))
    assert len(starts) == 6 and ends == starts[1::2]


def test_what_a_method_logs_is_in_the_epochs_line(watched):
    log, _ = watched("--epochs=2", "--watch_every=1")
    assert all(line["twice"] == pytest.approx(2 * line["loss"], rel=0.2) for line in log) and len(log) == 2


def test_a_group_has_a_rate_of_its_own(watched, tmp_path):
    _, first = watched("--epochs=1")
    _, second = watched("--epochs=2")
    changed = {name for name in first if torch.is_tensor(first[name]) and not torch.equal(first[name], second[name])}
    assert changed and not any(name.startswith("head") for name in changed)


def test_too_few_views_are_refused_before_any_work(tiny, tmp_path, capsys):
    (tmp_path / "three.yaml").write_text(YAML)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watched, "needs", Watched.needs._replace(views=3))
        assert run(SIMCLR, str(tmp_path / "three.yaml"), *options(tiny, tmp_path)) == 2
        refused(capsys, "Watched compares 3 views, --n_views is 2: pass --n_views 3")
        patch.setattr(Watched, "needs", Watched.needs._replace(views=2, partners=1))
        assert run(SIMCLR, str(tmp_path / "three.yaml"), *options(tiny, tmp_path)) == 2
        refused(capsys, "needs 1 partners")
    assert not (tmp_path / "out" / "settings.json").exists()


@pytest.mark.parametrize("keys, words", [({"momentum": -1}, "cannot be made"), ({"momentum": 1.5}, "momentum is 1.5")])
def test_an_optimizer_that_cannot_be_is_one_line(keys, words):
    def sgd(groups):
        return torch.optim.SGD(groups, lr=0.1, **keys)

    with pytest.raises(InputError, match=words):
        optimizer.make(sgd, [{"params": nn.Linear(2, 2).parameters()}], "cpu")


def test_nobody_asks_what_a_loss_or_a_method_is():
    """A method says what it needs, a loss how it is called: neither is known by its class."""
    found = []
    kinds = r"SimCLR|MoCo|Labelled|NTXent|InfoNCE|ACL|ADD|CLAR|Penalised|MarginSoftmax|Focal|OPL|Mixup|Scheduled|Method"
    for room in ("training", "methods"):
        for path in (ROOT / "sv_ssl" / room).glob("*.py"):
            found += [
                f"{path.name}: {call}" for call in re.findall(rf"isinstance\([^)]*\b(?:{kinds})\b", path.read_text())
            ]
    assert not found
