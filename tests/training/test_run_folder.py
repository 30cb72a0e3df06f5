"""Where a run writes, with how many threads it computes, and which begun run it refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_experiment import SIMCLR, options, refused, run

from sv_ssl.core import seeds
from sv_ssl.core.errors import InputError
from sv_ssl.training import experiment, run_folder

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "v1"


# ------------------------------------------------------------------------------------------------ where the result goes
def without_results_folder(tiny, tmp_path, *more):
    return [*(word for word in options(tiny, tmp_path) if "results_folder" not in word), "--epochs=1", *more]


def test_a_result_goes_into_the_output_folder(tiny, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run(SIMCLR, "hparams/am.yaml", *without_results_folder(tiny, tmp_path)) == 0
    assert len(list(tmp_path.glob("out/results/runs/*.json"))) == 1 and not list(Path().iterdir())
    assert run(SIMCLR, "hparams/am.yaml", *without_results_folder(tiny, tmp_path, "--record")) == 0
    assert len(list(Path().glob("results/runs/*.json"))) == 1
    named = f"--results_folder={tmp_path / 'named'}"
    assert run(SIMCLR, "hparams/am.yaml", *without_results_folder(tiny, tmp_path, "--record", named)) == 0
    assert len(list(tmp_path.glob("named/runs/*.json"))) == 1 and len(list(Path().glob("results/runs/*.json"))) == 1


def test_git_has_nothing_to_say_of_an_output_folder():
    done = subprocess.run(["git", "check-ignore", "exp/built-in/simclr_am/0/results/runs/a.json"], cwd=ROOT)
    assert done.returncode == 0


# ------------------------------------------------------------------------------------------------- who may go on in it
def test_of_what_differs_a_plain_value_is_named_before_an_object(tiny, tmp_path, capsys):
    words = [*options(tiny, tmp_path), "--epochs=1"]
    assert run(SIMCLR, "hparams/am.yaml", *words) == 0
    (tmp_path / "rooms").mkdir()
    shutil.copy(next(Path(tiny).rglob("*.wav")), tmp_path / "rooms" / "a.wav")
    capsys.readouterr()
    assert run(SIMCLR, "hparams/am.yaml", *words, f"--room_folder={tmp_path / 'rooms'}") == 2
    line = capsys.readouterr().err.strip()
    assert "holds a run with room_folder " in line and "!new" not in line and "\n" not in line


def test_a_run_that_never_began_leaves_nothing(tiny, tmp_path):
    words = [word for word in options(tiny, tmp_path) if "data_folder" not in word and "output_folder" not in word]
    wrong = [f"--data_folder={tmp_path / 'nowhere'}", f"--output_folder={tmp_path / 'fresh'}"]
    assert run(SIMCLR, "hparams/am.yaml", *words, *wrong) == 2
    assert not (tmp_path / "fresh").exists()


def test_a_value_that_an_object_refuses_is_named_as_an_option(tiny, tmp_path, capsys):
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path), "--margin=-1") == 2
    assert "--margin is -1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option, place", [("output_folder", "file"), ("output_folder", "file/out"), ("results_folder", "file")]
)
def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(tiny, tmp_path, capsys, option, place):
    (tmp_path / "file").write_text("mine")
    words = [*options(tiny, tmp_path), f"--{option}={tmp_path / place}"]
    assert run(SIMCLR, "hparams/am.yaml", *words) == 2
    printed = capsys.readouterr()
    assert f"--{option}: cannot write" in printed.err and "is no folder" in printed.err and not printed.out
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("option, wrong", [("room_folder", "no audio files"), ("noise_folder", "no audio files")])
def test_noises_and_rooms_that_are_none_are_refused_before_anything_is_written(tiny, tmp_path, capsys, option, wrong):
    (tmp_path / "empty").mkdir()
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path), f"--{option}={tmp_path / 'empty'}") == 2
    assert f"{tmp_path / 'empty'}: {wrong}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    "word, reason",
    [
        ("--lr_every=0", "the learning rate of epoch 1 cannot be computed: every is 0, wanted a number above 0"),
        ("--lr_every=-1", "every is -1, wanted a number above 0"),
        ("--dim=10000000000", "--dim is 10000000000: wanted 65536 at most"),
        ("--encoder=[1]", "--encoder is [1]: choose one of FastResNet34"),
        ("--n_mels=1000000", "--n_mels is 1000000: wanted 2048 at most"),
        ("--epochs=1000000000000", "--epochs is 1000000000000: wanted 100000 at most"),
        ("--n_views=100000000", "--n_views is 100000000: wanted 1000 at most"),
        ("--crop_seconds=1e12", "--crop_seconds is 1000000000000.0: wanted 3600 at most"),
        ("--num_workers=100000", "--num_workers is 100000: wanted 1024 at most"),
        ("--threads=100000", "--threads is 100000: wanted 1024 at most"),
        ("--seed=99999999999999999999999", "--seed is 99999999999999999999999: wanted"),
    ],
)
def test_a_value_that_hangs_or_fills_the_memory_is_one_line(tiny, tmp_path, capsys, word, reason):
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path), word) == 2
    refused(capsys, reason)
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------------- threads
def test_threads_decide_and_not_the_environment(tiny, tmp_path):
    found = []
    for variable in ("1", "2", None):
        folder = tmp_path / str(variable)
        environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
        if variable:
            environment |= {"OMP_NUM_THREADS": variable, "MKL_NUM_THREADS": variable}
        words = [*options(tiny, folder), "--threads=1", "--epochs=2", "--baselines=True"]
        done = subprocess.run(
            [sys.executable, str(SIMCLR), "hparams/am.yaml", *words], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        [path] = (folder / "results" / "runs").glob("*.json")
        result = json.loads(path.read_text())
        log = [json.loads(line) for line in (folder / "out" / "train_log.jsonl").read_text().splitlines()]
        assert result["threads"] == 1 and result["streams"] == seeds.VERSION
        scores = (folder / "out" / "scores.txt").read_text()
        losses = [(epoch["loss"], epoch["eer"], epoch["spread"]) for epoch in log]
        found.append((scores, losses, result["baselines"], result["test"]["eer"], result["best_epoch"]))
    assert found[0] == found[1] == found[2]


def test_a_run_is_resumed_with_the_threads_that_it_was_begun_with(tiny, tmp_path, monkeypatch):
    before = torch.get_num_threads()
    usual = [word for word in options(tiny, tmp_path) if "threads" not in word]
    assert run(SIMCLR, "hparams/am.yaml", *usual, "--epochs=1", "--threads=2") == 0
    assert run(SIMCLR, "hparams/am.yaml", *usual, "--epochs=2") == 0
    found = [json.loads(path.read_text()) for path in (tmp_path / "results" / "runs").glob("*.json")]
    assert [(result["epochs"], result["threads"]) for result in found] in ([(1, 2), (2, 2)], [(2, 2), (1, 2)])
    monkeypatch.setattr(run_folder, "cores_each", lambda: 3)
    assert run(SIMCLR, "hparams/am.yaml", *usual, f"--output_folder={tmp_path / 'new'}", "--epochs=1") == 0
    assert json.loads((tmp_path / "new" / "settings.json").read_text())["threads"] == 3
    assert torch.get_num_threads() == before


# ----------------------------------------------------------------------------------------------- runs begun before
@pytest.mark.parametrize("name", ["run_begun", "run_begun_am"])
def test_a_run_begun_by_version_0_1_is_refused_and_left_as_it_is(tmp_path, monkeypatch, capsys, name):
    """Its random streams are gone: what is drawn from here on would be another run's."""
    shutil.copytree(GOLDEN, tmp_path / "v1")
    monkeypatch.chdir(tmp_path / "v1")
    before = {path: path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}
    words = (
        "--corpus golden --data_folder data --noise_folder data/noise --room_folder data/rir --valid_trials trials.txt"
    )
    sizes = "--audio_root data/wav --epochs 2 --batch_size 4 --crop_seconds 0.5 --valid_every 1 --num_workers 0"
    assert run(SIMCLR, "hparams/am.yaml", *f"{words} {sizes} --output_folder {name}".split()) == 2
    refused(
        capsys, f"{name} holds a run that another version", "random streams (version 1) are gone", "--output_folder"
    )
    after = {path: path.read_bytes() for path in Path(name).rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before


def test_a_run_of_other_streams_is_refused(tiny, tmp_path, capsys, monkeypatch):
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, "--epochs=1")) == 0
    monkeypatch.setattr(seeds, "VERSION", seeds.VERSION + 1)
    capsys.readouterr()
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, "--epochs=2")) == 2
    refused(capsys, f"random streams (version {seeds.VERSION - 1}) are gone", "delete it to start afresh")


def test_a_run_of_version_1_with_a_yaml_of_its_own_is_refused_for_its_streams(tmp_path, capsys, monkeypatch):
    """Its YAML names classes that are gone, but what the user should hear is that the run cannot go on."""
    golden = Path(__file__).parents[1] / "golden" / "v1"
    shutil.copytree(golden / "run_begun", tmp_path / "run_begun")
    shutil.copy(golden / "run_begun.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    recipe = Path(__file__).parents[2] / "recipes" / "voxceleb" / "train_simclr_am.py"
    data = [f"--data_folder={golden / 'data'}", f"--noise_folder={golden / 'data' / 'noise'}"]
    arguments = ["run_begun.yaml", "--output_folder=run_begun", *data, f"--room_folder={golden / 'data' / 'rir'}"]
    assert experiment.main(str(recipe), "", arguments) == 2
    assert "its random streams (version 1) are gone" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, "\x80", '{"threads": "x"}', '{"threads": 1e9}'])
def test_damaged_settings_are_one_line(tmp_path, text):
    (tmp_path / "settings.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="settings.json is damaged .*choose another --output_folder"):
        run_folder.begun(tmp_path)
