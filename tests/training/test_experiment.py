"""Whole runs of the recipes on tiny corpora: what they write, how they resume, what they say of bad input."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file

from data_prep import shards as pack
from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.data import manifest
from sv_ssl.models import folder as model
from sv_ssl.models import training_list
from sv_ssl.training import experiment, speaker_scores, watch
from sv_ssl.verification.trials import read_trials

ROOT = Path(__file__).parents[2]
SIMCLR, MOCO = (ROOT / "recipes" / "voxceleb" / f"train_{name}_am.py" for name in ("simclr", "moco"))
TRAIN = ROOT / "recipes" / "voxceleb" / "train.py"
SSPS = ["--start=2", "--clusters=4", "--positives_queue=24", "--clean_seconds=0.5"]
SHORT = ["--n_short=2", "--short_seconds=0.3", "--hidden=16", "--bottleneck=8", "--prototypes=8", "--dim=32"]
SMALL = [
    "--encoder_size=small",
    "--batch_size=4",
    "--crop_seconds=0.4",
    "--epochs=2",
    "--valid_every=1",
    "--num_workers=0",
    "--watch_every=2",
    "--device=cpu",
    "--threads=1",
]


def options(tiny, tmp_path, *more):
    """A run on the tiny corpus, small enough for a test."""
    return [
        *SMALL,
        f"--data_folder={tiny}",
        f"--noise_folder={tiny / 'noise'}",
        f"--room_folder={tiny / 'rir'}",
        f"--output_folder={tmp_path / 'out'}",
        f"--results_folder={tmp_path / 'results'}",
        *more,
    ]


def run(script, yaml, *arguments):
    return experiment.main(str(script), "the recipe's page", [yaml, *arguments])


def command(script, yaml, *arguments):
    return [sys.executable, str(script), yaml, *arguments]


def test_a_run_leaves_all_that_it_promises(tiny, tmp_path, capsys):
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, "--baselines=True")) == 0
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} >= {
        "model",
        "det.png",
        "scores.png",
        "scores.txt",
        "train_log.txt",
        "train_log.jsonl",
        "watch.png",
        "hyperparams.yaml",
        "settings.json",
        "save",
    }
    log = [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in log] == [1, 2]
    assert all({"loss", "eer", "spread", "alignment", "uniformity", "waiting"} <= record.keys() for record in log)
    [path] = (tmp_path / "results" / "runs").glob("*.json")
    result = json.loads(path.read_text())
    assert result["corpus"] == "built-in" and result["seed"] == 0 and result["test"]["n_target"] > 0
    assert result["baselines"].keys() == {"no_learning", "untrained"}
    said = capsys.readouterr().out
    assert "EER of the same encoder, untrained" in said and "next: sv-extract" in said
    assert "/model, watch.png, det.png" in said
    assert f"{result['test']['eer']:.2%}" in (out / "model" / "README.md").read_text()
    kept = training_list.read(out / "model")
    assert training_list.known(kept, manifest.read(tiny / "train.csv").ID.tolist()).all()
    assert not training_list.known(kept, read_trials(tiny / "trials.txt").ids).any()


def test_the_same_command_again_changes_nothing(tiny, tmp_path):
    arguments = options(tiny, tmp_path)
    for _ in range(2):
        assert run(SIMCLR, "hparams/sym.yaml", *arguments) == 0
        scores = (tmp_path / "out" / "scores.txt").read_text()
        log = (tmp_path / "out" / "train_log.txt").read_text()
    assert (tmp_path / "out" / "scores.txt").read_text() == scores
    assert (tmp_path / "out" / "train_log.txt").read_text() == log and log.count("\n") == 2


def finish(arguments, kills, seed):
    """Run to the end in processes that are killed `kills` times, each at a random moment after new progress."""
    out = Path(next(a for a in arguments if a.startswith("--output_folder=")).partition("=")[2])
    rng = random.Random(seed)
    for _ in range(kills):
        before = {p.name for p in out.glob("save/CKPT*")}
        process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None and {p.name for p in out.glob("save/CKPT*")} <= before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        assert process.poll() is None, "the run ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not kills or "resuming from" in done.stdout
    return out


@pytest.mark.parametrize(
    "script, yaml, more",
    [
        (SIMCLR, "hparams/am.yaml", []),
        (MOCO, "hparams/moco_am.yaml", ["--queue_size=10", "--ema=0.9", "--grad_accumulation_factor=2"]),
        (TRAIN, "hparams/dino.yaml", [*SHORT, "--average_last=0"]),
        (TRAIN, "hparams/sdpn.yaml", [*SHORT, "--average_last=0", "--clean_seconds=0.5"]),
        (TRAIN, "hparams/ssps.yaml", [*SSPS, "--near=1"]),
    ],
    ids=["simclr", "moco", "dino", "sdpn", "ssps"],
)
def test_five_kills_change_no_bit(tiny, tmp_path, script, yaml, more):
    same = ["--ckpt_interval_steps=3", "--epochs=10", "--valid_every=4", "--num_workers=1", *more]
    alone = finish(command(script, yaml, *options(tiny, tmp_path / "alone", *same)), kills=0, seed=0)
    killed = finish(command(script, yaml, *options(tiny, tmp_path / "killed", *same)), kills=5, seed=1)
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (alone, killed))
    assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
    assert (alone / "scores.txt").read_text() == (killed / "scores.txt").read_text()
    clocks = ("seconds", "cpu_seconds", "crops_per_second", "waiting")
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if k not in clocks}
            for line in (folder / "train_log.jsonl").read_text().splitlines()
        ]
        for folder in (alone, killed)
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 10


def test_ctrl_c_says_how_to_go_on(tiny, tmp_path):
    arguments = command(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, "--epochs=500", "--num_workers=1"))
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and not list((tmp_path / "out").glob("save/CKPT*")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from the last checkpoint" in out and "Traceback" not in out + err


# ---------------------------------------------------------------------------------------------- damaged training data
def damage(path, kind):
    """Make a good WAV file bad in one of the ways that are found in the wild."""
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:6000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "silent":
        audio.write(path, np.zeros(9600), 16000)
    elif kind == "NaN":
        soundfile.write(path, np.full(9600, np.nan, np.float32), 16000, subtype="FLOAT")
    elif kind == "text":
        path.write_text("this is no audio\n" * 50)
    else:
        soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((9600, 2)), 8000)


def test_five_hundred_files_of_which_twenty_five_are_damaged(tmp_path):
    kinds = ["truncated", "empty", "silent", "NaN", "text"] * 4 + ["8 kHz stereo"] * 5
    rows, rng = [], np.random.default_rng(0)
    for i in range(500):
        path = tmp_path / "data" / f"{i:03}.wav"
        path.parent.mkdir(exist_ok=True)
        audio.write(path, 0.1 * rng.standard_normal(9600), 16000)
        rows.append([f"{i:03}", 0.6, f"$data_root/{i:03}.wav", 0, 9600])
        if i % 20 == 7:
            damage(path, kinds[i // 20])
    with open(tmp_path / "data" / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows([["ID", "duration", "wav", "start", "stop"], *rows])
    options = [
        *SMALL,
        f"--data_folder={tmp_path / 'data'}",
        f"--output_folder={tmp_path / 'out'}",
        "--noise_prob=0",
        "--reverb_prob=0",
        f"--noise_folder={tmp_path}",
        f"--room_folder={tmp_path}",
        "--epochs=1",
        "--batch_size=50",
    ]
    assert run(SIMCLR, "hparams/am.yaml", *options) == 0
    assert run(SIMCLR, "hparams/am.yaml", *options, "--epochs=2") == 0  # resumed: no file is counted twice
    with open(tmp_path / "out" / "files.csv", newline="") as file:
        notes = list(csv.DictReader(file))
    assert sum(note["outcome"] == "skipped" for note in notes) == 20
    assert sum(note["outcome"] == "converted" for note in notes) == 5
    for word, count in {"truncated": 4, "is empty": 4, "silent": 4, "NaN": 4, "not readable": 4, "8000 Hz": 5}.items():
        assert sum(word.lower() in note["reason"].lower() for note in notes) == count, word
    assert model.load(tmp_path / "out" / "model").dim == 512  # trained without any trial list


def test_a_damaged_noise_is_left_out_and_named(tiny, tmp_path):
    noises = tmp_path / "noise"
    audio.write(noises / "good.wav", 0.1 * np.random.default_rng(0).standard_normal(9600), 16000)
    for name in ("bad", "worse"):
        (noises / f"{name}.wav").write_text("no audio")
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, f"--noise_folder={noises}")) == 0
    notes = (tmp_path / "out" / "files.csv").read_text()
    assert notes.count("left out of augmentation") == 2 and "skipped" not in notes


@pytest.mark.parametrize(
    "script, yaml", [(SIMCLR, "hparams/am.yaml"), (MOCO, "hparams/moco_am.yaml")], ids=["simclr", "moco"]
)
def test_bf16(tiny, tmp_path, script, yaml):
    more = ["--precision=bf16", "--epochs=1"] + ["--queue_size=16"] * (script == MOCO)
    assert run(script, yaml, *options(tiny, tmp_path, *more)) == 0
    log = json.loads((tmp_path / "out" / "train_log.jsonl").read_text())
    assert np.isfinite(log["loss"]) and log["spread"] > 0


def test_collapse_stops_and_names_the_last_good_checkpoint(tiny, tmp_path, capsys, monkeypatch):
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, "--epochs=1")) == 0
    capsys.readouterr()
    (tmp_path / "out" / "watch.png").unlink()
    monkeypatch.setattr(watch, "COLLAPSED", 2.0)  # no spread is as wide
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, "--epochs=2")) == 2
    refused(capsys, "have collapsed to one point", "The last good checkpoint is", "CKPT")
    assert (tmp_path / "out" / "watch.png").exists()


def test_speakers_of_the_lists_are_left_out(tiny, tmp_path, capsys):
    """A folder without train.csv: what is judged is not trained on, not even by way of a link."""
    (tmp_path / "linked").symlink_to(tiny)
    arguments = [a for a in options(tiny, tmp_path) if "data_folder" not in a]
    lists = [f"--{name}_trials={tiny / file}" for name, file in (("valid", "valid.txt"), ("test", "trials.txt"))]
    assert (
        run(
            SIMCLR,
            "hparams/am.yaml",
            *arguments,
            *lists,
            f"--data_folder={tmp_path / 'linked' / 'wav'}",
            f"--audio_root={tiny / 'wav'}",
            "--epochs=1",
        )
        == 0
    )
    assert "training: 24 utterances" in capsys.readouterr().out


def test_an_epoch_whose_validation_fails_is_kept(tiny, tmp_path, capsys, monkeypatch):
    def unreadable(*_):
        raise InputError("valid.wav is damaged")

    monkeypatch.setattr(speaker_scores, "scored", unreadable)
    arguments = options(tiny, tmp_path)
    assert run(SIMCLR, "hparams/am.yaml", *arguments) == 2
    assert "valid.wav is damaged" in capsys.readouterr().err
    monkeypatch.undo()
    assert run(SIMCLR, "hparams/am.yaml", *arguments) == 0
    assert "1 of 2 epochs done" in capsys.readouterr().out


def test_shards_are_trained_on(tiny, tmp_path, capsys):
    assert pack.main([str(tiny), "--out", str(tmp_path / "shards"), "--utterances", "8"]) == 0
    arguments = options(tiny, tmp_path, f"--train_csv={tmp_path / 'shards' / 'train.csv'}", "--num_workers=1")
    assert run(SIMCLR, "hparams/am.yaml", *arguments) == 0
    assert "training: 24 utterances" in capsys.readouterr().out


def test_the_margin_may_follow_a_schedule(tiny, tmp_path):
    text = (SIMCLR.parent / "hparams" / "am.yaml").read_text()
    (tmp_path / "ramp.yaml").write_text(
        text.replace(
            "      m: !ref <margin>",
            "      m: !name:sv_ssl.training.schedules.stepped\n        start: 0.1\n        factor: 0.5\n"
            "        every: 1",
        )
    )
    assert run(SIMCLR, str(tmp_path / "ramp.yaml"), *options(tiny, tmp_path)) == 0
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, f"--output_folder={tmp_path / 'other'}")) == 0
    other = [json.loads(line)["loss"] for line in (tmp_path / "other" / "train_log.jsonl").read_text().splitlines()]
    assert losses[0] == other[0] and losses[1] < other[1]


def test_too_many_damaged_files_end_it(tiny, tmp_path, capsys):
    for name in ("a", "b"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for i in range(16):
            noise = np.random.default_rng(i).standard_normal(9600)
            audio.write(folder / f"{i}.wav", 0.1 * noise * (name == "a"), 16000)  # those of "b" are silent
    arguments = [a for a in options(tiny, tmp_path) if "data_folder" not in a] + [f"--data_folder={tmp_path / 'data'}"]
    assert run(SIMCLR, "hparams/am.yaml", *arguments) == 2
    assert "max_damaged_share 0.1 allows" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------- one clear line
def refused(capsys, *words):
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1 and "Traceback" not in err, err
    assert all(word in err for word in words), err


def test_bad_settings_get_one_line(tiny, tmp_path, capsys):
    good = options(tiny, tmp_path)
    for yaml, more, words in [
        ("hparams/am.yaml", ["--batchsize=3"], ["am.yaml has no key 'batchsize'", "batch_size"]),
        ("hparams/ma.yaml", [], ["there is no hparams/ma.yaml", "hparams/am.yaml"]),
        ("hparams/am.yaml", ["--data_folder=/no/such=place"], ["data_folder /no/such=place does not exist"]),
        ("hparams/am.yaml", ["--noise_folder=/nowhere"], ["noise_folder /nowhere does not exist"]),
        ("hparams/am.yaml", ["--encoder_size=huge"], ["FastResNet34 has no size 'huge'", "paper"]),
        ("hparams/am.yaml", ["--batch_size=400"], ["a batch of 400 utterances cannot be drawn from 24"]),
        ("hparams/am.yaml", ["--train_csv=/no.csv"], ["/no.csv"]),
        ("hparams/am.yaml", ["--test_trials=/no.txt"], ["/no.txt"]),
        ("hparams/am.yaml", [f"--audio_root={tmp_path}"], ["cannot be used (is --audio_root right?)"]),
        ("hparams/am.yaml", ["--lr=0.0005"], ["--lr is an object", "the keys that it refers to"]),
        ("hparams/am.yaml", ["--epochs=0"], ["--epochs is 0: wanted a whole number of at least 1"]),
        ("hparams/am.yaml", ["--batch_size=many"], ["--batch_size is 'many'"]),
        ("hparams/am.yaml", ["--n_views=1"], ["--n_views is 1"]),
        ("hparams/am.yaml", ["--max_grad_norm=-1"], ["--max_grad_norm is -1"]),
        ("hparams/am.yaml", ["--precision=float16"], ["choose fp32, bf16 or fp16"]),
        ("hparams/am.yaml", ["--precision=fp16"], ["fp16 needs a GPU"]),
        (
            "hparams/moco_am.yaml",
            ["--n_views=3", f"--output_folder={tmp_path / 'moco'}"],
            ["two views of an utterance, 3 came"],
        ),
    ]:
        assert run(SIMCLR, yaml, *good, *more) == 2, more
        refused(capsys, *words)


def test_a_bad_line_is_named(tiny, tmp_path, capsys):
    lines = (tiny / "train.csv").read_text().splitlines()
    lines[4] = lines[4].replace(",0,", ",zero,")
    bad = tmp_path / "bad.csv"
    bad.write_text("\n".join(lines) + "\n")
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, f"--train_csv={bad}")) == 2
    refused(capsys, "bad.csv:5", '"start"', "zero")


def test_other_settings_do_not_mix_with_what_is_there(tiny, tmp_path, capsys):
    arguments = options(tiny, tmp_path, "--epochs=1")
    assert run(SIMCLR, "hparams/am.yaml", *arguments) == 0
    capsys.readouterr()
    assert run(SIMCLR, "hparams/am.yaml", *arguments, "--margin=0.2") == 2
    refused(capsys, "holds a run with margin 0.1, this one has 0.2", "--output_folder")
    assert run(SIMCLR, "hparams/am.yaml", *arguments, "--epochs=2") == 0  # more of the same is resumed


def mounted(tmp_path, *mount_options):
    """A file system of our own, or a skip where that is not allowed."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", *mount_options, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    return folder


@pytest.mark.parametrize(
    "mount_options, words",
    [(["-o", "ro"], "Read-only file system"), (["-o", "size=300k"], "space")],
    ids=["read-only", "full"],
)
def test_no_room_to_write(tiny, tmp_path, capsys, mount_options, words):
    folder = mounted(tmp_path, *mount_options)
    try:
        assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, f"--output_folder={folder / 'out'}")) == 2
        refused(capsys, words, str(folder))
        assert not list(folder.glob("out/save/CKPT*"))
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_file_in_the_way(tiny, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path)) == 2
    refused(capsys, str(tmp_path / "out"))


def test_divergence_stops(tiny, tmp_path, capsys):
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, "--epochs=30", "--peak_lr=1e20")) == 2
    refused(capsys, "training has diverged", "No epoch was finished before", "--peak_lr")


def test_help_is_the_recipes_page_and_every_option(capsys):
    assert experiment.main(str(SIMCLR), "The page.", ["--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("The page.\n\nOptions") and "hparams/am.yaml" in page and "\n  --crop_seconds 2.0\n" in page
