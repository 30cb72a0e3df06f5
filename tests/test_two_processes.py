"""Two gloo processes are one process with the whole batch: losses, gradients, queues, and a whole recipe."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
SCRIPT = str(ROOT / "tests" / "two_processes.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def check(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    check(sys.executable, SCRIPT, str(one))
    check(*TORCHRUN, SCRIPT, str(two))
    return lambda kind: [torch.load(path, weights_only=True) for path in
                         (one / f"{kind}-0.pt", two / f"{kind}-0.pt", two / f"{kind}-1.pt")]


@pytest.mark.parametrize("kind", ["simclr", "one_way", "moco"])
def test_loss_gradients_and_queue_are_those_of_one_process(steps, kind):
    one, first, second = steps(kind)
    for half in (first, second):
        assert half["loss"].item() == pytest.approx(one["loss"].item(), abs=1e-5)
        assert half["gradients"].keys() == one["gradients"].keys() and one["gradients"]
        for name, gradient in one["gradients"].items():
            assert torch.allclose(half["gradients"][name], gradient, atol=1e-5), name
        assert torch.allclose(half["queue"], one["queue"], atol=1e-5)
    assert torch.equal(first["queue"], second["queue"])
    assert torch.cat([g.flatten() for g in one["gradients"].values()]).abs().max() > 1e-4


def test_a_recipe_under_torchrun(tiny, tmp_path):
    out = check(*TORCHRUN, "recipes/voxceleb/train_moco_am.py", "hparams/moco_am.yaml", "--device=cpu",
                f"--data_folder={tiny}", f"--noise_folder={tiny / 'noise'}", f"--room_folder={tiny / 'rir'}",
                f"--output_folder={tmp_path / 'out'}", f"--results_folder={tmp_path / 'results'}",
                "--encoder_size=small", "--batch_size=8", "--crop_seconds=0.4", "--epochs=2",
                "--valid_every=1", "--num_workers=0", "--queue_size=16", "--watch_every=1")
    assert out.count("epoch 2/2") == 1 and out.count("next: sv-extract") == 1     # one process speaks
    [result] = (tmp_path / "results" / "runs").glob("*.json")
    assert json.loads(result.read_text())["test"]["eer"] >= 0
