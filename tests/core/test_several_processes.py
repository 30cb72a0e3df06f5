"""Several gloo processes are one process with the whole batch; and what happens when one of them dies or hangs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import methods_of_rows
import pytest
import several_processes
import torch

from sv_ssl.training import experiment

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes" / "voxceleb"
RESUME = "the same command goes on from the last checkpoint"


def torchrun(n, *command):
    """A command in n processes, and all that it says."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}", *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "SV_SSL_PATIENCE": "3", "OMP_NUM_THREADS": "1"},
    )


def checked(process):
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


# ---------------------------------------------------------------------------------------------- every method and loss
@pytest.fixture(scope="module")
def one():
    found, tallest = several_processes.results()
    assert tallest == 2 * several_processes.BATCH and len(found) == 53
    assert sorted(name for name, case in found.items() if len(case["losses"]) == 20) == sorted(several_processes.LONG)
    return found


@pytest.fixture(scope="module")
def rows():
    return methods_of_rows.results()


def same(found, expected, skipped=("queue",), atol=1e-5):
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        torch.testing.assert_close(found[name]["losses"], one["losses"], atol=atol, rtol=0)
        for part in ("gradients", "weights"):
            assert found[name][part].keys() == one[part].keys() and one[part]
            for key, value in one[part].items():
                if torch.is_tensor(value) and not any(name in key for name in skipped):
                    torch.testing.assert_close(found[name][part][key], value, atol=atol, rtol=0, msg=f"{name} {key}")


@pytest.mark.parametrize("n, end", [(2, "killed"), (4, "hung")])
def test_several_processes_learn_as_one_until_one_is_lost(one, rows, tmp_path, n, end):
    process, lines = torchrun(n, "tests/core/several_processes.py", tmp_path, end), []
    for line in process.stdout:
        lines.append(line)
        if hung := re.search(r"process \d of \d \(pid (\d+) on .*\) gave no sign of life for 3 s", line):
            os.kill(int(hung[1]), signal.SIGKILL)  # as torchrun does, after half a minute
    assert process.wait() != 0
    told = [line for line in lines if RESUME in line]
    assert len(told) == 1 and ("gave no sign of life" if end == "hung" else "has died") in told[0], "".join(lines)
    assert not any("gloo" in line for line in lines)
    for rank in range(n):
        found, tallest = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        same(found, one)
        assert tallest == 2 * several_processes.BATCH // n  # no process makes the whole matrix
        same(torch.load(tmp_path / f"rows-{rank}.pt", weights_only=True), rows, skipped=(), atol=1e-9)


def test_the_cases_differ_and_learn(one):
    first = [float(found["gradients"][next(iter(found["gradients"]))].abs().max()) for found in one.values()]
    assert min(first) > 1e-4 and len({tuple(found["losses"].tolist()) for found in one.values()}) >= len(one) - 4


# ------------------------------------------------------------------------------------------------------ whole recipes
YAML = f"""extends: {RECIPES / "hparams" / "moco_am.yaml"}
embedder:
  features: !new:sv_ssl.models.features.LogMel
    n_mels: !ref <n_mels>
    sentence_mean: False
  encoder: !new:sv_ssl.models.embedder.FrameStatistics
    n_mels: !ref <n_mels>
method:
  head: !new:torch.nn.Linear
    in_features: 80
    out_features: 16
  head_dim: 16
"""


@pytest.fixture
def command(tiny, tmp_path):
    """command(folder, epochs) -> a recipe of MoCo without BatchNorm, a checkpoint at every step, and its arguments."""
    yaml = tmp_path / "moco.yaml"
    yaml.write_text(YAML)
    same = {
        "data_folder": tiny,
        "noise_folder": tiny / "noise",
        "room_folder": tiny / "rir",
        "device": "cpu",
        "results_folder": tmp_path / "results",
        "batch_size": 8,
        "crop_seconds": 0.4,
        "num_workers": 0,
        "valid_every": 5,
        "watch_every": 1,
        "ckpt_interval_steps": 1,
        "queue_size": 20,
        "ema": 0.9,
    }
    return lambda folder, epochs: [
        str(RECIPES / "train_moco_am.py"),
        str(yaml),
        *(f"--{key}={value}" for key, value in {**same, "output_folder": folder, "epochs": epochs}.items()),
    ]


def alone(command):
    assert experiment.main(command[0], "", command[1:]) == 0


def last(folder):
    """-> what a run has learnt, and the losses of its epochs."""
    epochs = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    newest = max(folder.glob("save/CKPT*"), key=lambda path: path.stat().st_mtime_ns)
    return torch.load(newest / "method.ckpt", weights_only=True), [epoch["loss"] for epoch in epochs]


def test_one_process_then_four_of_which_one_is_killed_then_two_then_one(command, tmp_path):
    out, reference = tmp_path / "out", tmp_path / "alone"
    alone(command(out, 1))
    before = set(out.glob("save/CKPT*"))
    four = torchrun(4, *command(out, 1000))
    while four.poll() is None and len(set(out.glob("save/CKPT*")) - before) < 2:
        time.sleep(0.005)
    os.kill(int(Path(f"/proc/{four.pid}/task/{four.pid}/children").read_text().split()[2]), signal.SIGKILL)
    killed, said = time.monotonic(), four.communicate(timeout=300)[0]
    assert time.monotonic() - killed < 60 and four.returncode != 0
    assert said.count(RESUME) == 1 and "gloo" not in said, said
    assert "1 of 1000 epochs done" in said
    done = len(last(out)[1])
    said = checked(torchrun(2, *command(out, done + 2)))
    assert said.count("resuming from") == 1 and said.count(f"epoch {done + 2}/") == 1  # one process speaks
    assert said.count("next: sv-extract") == 1
    alone(command(out, done + 3))
    alone(command(reference, done + 3))
    (learnt, losses), (expected, undisturbed) = last(out), last(reference)
    assert losses == pytest.approx(undisturbed, abs=1e-4) and len(losses) == done + 3
    assert learnt.keys() == expected.keys() and learnt["queue.rows"].abs().max() > 0
    for name in learnt:
        if "extra_state" in name:
            assert learnt[name] == expected[name], name
        else:
            torch.testing.assert_close(learnt[name], expected[name], atol=1e-4, rtol=0, msg=name)
