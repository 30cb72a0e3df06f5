"""What a YAML may leave out: labels, short crops, several lists, means of weights, a model to start from."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from test_experiment import MOCO, SIMCLR, options, run

from sv_ssl.cli import score
from sv_ssl.core.seeds import stream
from sv_ssl.data import manifest
from sv_ssl.embeddings import store
from sv_ssl.models import training_list
from sv_ssl.training import checkpoints, dataset
from sv_ssl.training.settings import SpeakerSettings

SUPERVISED = SIMCLR.parent / "train_supervised.py"


def result(tmp_path):
    [path] = (tmp_path / "results" / "runs").glob("*.json")
    return json.loads(path.read_text())


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "train_log.jsonl").read_text().splitlines()]


def failed(capsys, *words):
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return all(word in said for word in words)


@pytest.mark.parametrize("yaml", ["hparams/aam_softmax.yaml", "hparams/am_softmax.yaml"])
def test_supervised(tiny, tmp_path, yaml):
    assert run(SUPERVISED, yaml, *options(tiny, tmp_path)) == 0
    assert result(tmp_path)["training_utterances"] == 24
    loss = torch.load(next((tmp_path / "out" / "save").glob("*/method.ckpt")), weights_only=True)
    assert loss["loss.weight"].shape == (6, 512)


def test_the_number_of_speakers_is_told(tiny, tmp_path, capsys):
    assert run(SUPERVISED, "hparams/aam_softmax.yaml", *options(tiny, tmp_path, "--n_speakers=5")) == 2
    assert failed(capsys, "n_speakers is 5 but there are 6", "--n_speakers 6")
    faster = options(tiny, tmp_path, "--speeds=[1.0, 0.9]", "--n_speakers=6")
    assert run(SUPERVISED, "hparams/aam_softmax.yaml", *faster) == 2
    assert failed(capsys, "--n_speakers 12")
    assert run(SUPERVISED, "hparams/aam_softmax.yaml", *options(tiny, tmp_path, "--labels=utterance")) == 2
    assert failed(capsys, "--labels speaker")
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, "--labels=names")) == 2
    assert failed(capsys, "labels is 'names': choose utterance or speaker")
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, "--speeds=[1.0, 0.9]")) == 2
    assert failed(capsys, "--labels speaker")


def test_the_audio_papers_losses(tiny, tmp_path):
    assert run(SIMCLR, "hparams/acl.yaml", *options(tiny, tmp_path, "--epochs=1")) == 0
    assert (
        run(
            SUPERVISED,
            "hparams/add_hard.yaml",
            *options(tiny, tmp_path, "--epochs=1", "--per_speaker=2", f"--output_folder={tmp_path / 'add'}"),
        )
        == 0
    )
    weights = torch.load(next((tmp_path / "add" / "save").glob("*/method.ckpt")), weights_only=True)
    assert weights["loss.main.weight"].shape == (6, 512)


def test_class_aware_weights_beside_a_classifier(tiny, tmp_path):
    arguments = options(tiny, tmp_path, "--epochs=1", "--batch_size=6", "--encoder=ECAPA", "--dim=16")
    assert run(SUPERVISED, "hparams/class_aware.yaml", *arguments) == 0
    assert (
        run(
            SUPERVISED,
            "hparams/class_aware.yaml",
            *arguments,
            "--attention_temperature=1000000.0",
            f"--output_folder={tmp_path / 'flat'}",
        )
        == 0
    )
    weights = torch.load(next((tmp_path / "out" / "save").glob("*/method.ckpt")), weights_only=True)
    assert weights["loss.on_z.1.weight"].shape == (6, 16)
    assert losses(tmp_path / "out")[0] != losses(tmp_path / "flat")[0]


def test_known_and_unknown_speakers_at_once(tiny, tmp_path, capsys):
    """Half of the speakers are known, and one of their utterances is not: the others have the label -1."""
    frame = manifest.read(tiny / "train.csv")
    half = np.sort(stream(0, "label share").permutation(np.unique(frame.spk_id))[:3])
    frame.loc[np.flatnonzero(frame.spk_id == half[0])[0], "spk_id"] = ""
    objects = dict.fromkeys(("embedder", "method", "lr", "opt_class"))
    sizes = {"epochs": 1, "batch_size": 2, "label_share": 0.5}
    found = dataset.known_speakers(frame, SpeakerSettings(name="a", output_folder="b", **sizes, **objects))
    assert [half[n] for n in found[found >= 0]] == frame.spk_id[frame.spk_id.isin(half)].tolist()
    assert (found == -1).sum() == 24 - 11
    for yaml, script, more in (
        ("clar_semi", SIMCLR, ["--label_share=0.5", "--wave_augmentations=[fade,mask]"]),
        ("add_soft", SUPERVISED, ["--mixup=1.0", "--smoothing=0.1"]),
    ):
        out = tmp_path / yaml
        assert run(script, f"hparams/{yaml}.yaml", *options(tiny, tmp_path, *more, f"--output_folder={out}")) == 0
        weights = torch.load(next((out / "save").glob("*/method.ckpt")), weights_only=True)
        name, n_speakers = {"clar_semi": ("classifier.weight", 3), "add_soft": ("loss.main.weight", 6)}[yaml]
        assert weights[name].shape == (n_speakers, 512)
        assert np.isfinite(losses(out)).all()
    capsys.readouterr()
    assert run(SIMCLR, "hparams/clar_semi.yaml", *options(tiny, tmp_path, "--labels=speaker")) == 2
    assert failed(capsys, "clar_semi.yaml has no key 'labels'")  # its supervision says it
    assert run(SIMCLR, "hparams/supcon.yaml", *options(tiny, tmp_path, "--labels=both")) == 2
    assert failed(capsys, "labels is 'both': choose utterance or speaker")
    assert run(SIMCLR, "hparams/clar_semi.yaml", *options(tiny, tmp_path, "--n_short=2", "--epochs=1")) == 2
    assert failed(capsys, "--n_short 0")


def test_a_cohort_normalises_the_test_scores(tiny, tmp_path):
    """As sv-score does it with the cohort that is kept; and the cosines' error rates beside it."""
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, "--epochs=1")) == 0
    cosine = result(tmp_path)["test"]["eer"]
    again = options(tiny, tmp_path, "--epochs=1", "--cohort=12", f"--results_folder={tmp_path / 'other'}")
    assert run(SIMCLR, "hparams/am.yaml", *again) == 0  # nothing is trained anew
    out, [path] = tmp_path / "out", (tmp_path / "other" / "runs").glob("*.json")
    found = json.loads(path.read_text())
    assert found["cohort"] == 12 and found["by_cosine"]["trials"]["eer"] == cosine
    ids, rows = store.read(out / "cohort.npz")
    assert len(ids) == 12 and set(ids) <= set(manifest.read(tiny / "train.csv").ID)
    assert (
        score.main(
            [
                str(tiny / "trials.txt"),
                "--model",
                str(out / "model"),
                "--audio",
                str(tiny / "wav"),
                "--norm",
                "as",
                "--cohort",
                str(out / "cohort.npz"),
                "--scores-out",
                str(tmp_path / "again.txt"),
            ]
        )
        == 0
    )
    theirs, ours = (
        [float(line.split()[2]) for line in path.read_text().splitlines()]
        for path in (tmp_path / "again.txt", out / "scores.txt")
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert max(np.abs(ours)) > 1  # no cosines


def test_a_compiled_step_is_the_same(tiny, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda function: lambda x: calls.append(x.shape) or function(x))
    assert run(SIMCLR, "hparams/sym.yaml", *options(tiny, tmp_path, f"--output_folder={tmp_path / 'plain'}")) == 0
    assert not calls
    assert run(SIMCLR, "hparams/sym.yaml", *options(tiny, tmp_path, "--compiled=True")) == 0
    assert losses(tmp_path / "out") == losses(tmp_path / "plain") and len(set(calls)) == 1


def test_labels_make_simclr_supervised(tiny, tmp_path):
    arguments = options(tiny, tmp_path, "--batch_size=12")
    assert run(SIMCLR, "hparams/sym.yaml", *arguments) == 0
    assert run(SIMCLR, "hparams/supcon.yaml", *arguments, f"--output_folder={tmp_path / 'other'}") == 0
    assert losses(tmp_path / "out")[0] != losses(tmp_path / "other")[0]


def test_a_share_of_the_speakers(tiny, tmp_path, capsys):
    arguments = options(tiny, tmp_path, "--label_share=0.5", "--epochs=1")
    assert run(SUPERVISED, "hparams/aam_softmax.yaml", *arguments) == 0
    assert "training: 12 utterances" in capsys.readouterr().out


def test_a_share_needs_speakers(tiny, tmp_path, capsys):
    frame = manifest.read(tiny / "train.csv").drop(columns="spk_id")
    manifest.write(frame, tmp_path / "train.csv")
    arguments = options(tiny, tmp_path, f"--train_csv={tmp_path / 'train.csv'}", "--label_share=0.5")
    assert run(SIMCLR, "hparams/am.yaml", *arguments) == 2
    assert failed(capsys, "label_share", "spk_id")


def test_it_starts_from_a_model_folder(tiny, tmp_path, capsys):
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path)) == 0
    model = tmp_path / "out" / "model"
    training_list.write(model, training_list.of(["elsewhere/s/1"], []))
    again = [
        *options(tiny, tmp_path),
        f"--output_folder={tmp_path / 'again'}",
        f"--init_from={model}",
        "--epochs=1",
        "--peak_lr=1e-12",
        "--queue_size=8",
    ]
    assert run(MOCO, "hparams/moco_am.yaml", *again) == 0
    old, new = (load_file(folder / "model.safetensors") for folder in (model, tmp_path / "again" / "model"))
    weights = [name for name in old if name.endswith("weight")]
    assert weights and all(np.allclose(old[name], new[name], atol=1e-6) for name in weights)
    learnt_from = [*manifest.read(tiny / "train.csv").ID, "elsewhere/s/1"]  # by the one and by the other
    assert training_list.known(training_list.read(tmp_path / "again" / "model"), learnt_from).all()
    capsys.readouterr()
    assert run(SIMCLR, "hparams/am.yaml", *again[:-1], "--n_mels=30", f"--output_folder={tmp_path / 'third'}") == 2
    assert failed(capsys, "--init_from", "n_mels")
    assert run(SIMCLR, "hparams/am.yaml", *again[:-1], f"--init_from={tmp_path}") == 2
    assert failed(capsys, "is not a model folder")
    (model / training_list.FILE).write_bytes(b"cut")
    assert run(SIMCLR, "hparams/am.yaml", *again[:-1], f"--output_folder={tmp_path / 'fourth'}") == 2
    assert failed(capsys, "trained_on.hashes is damaged")


def test_short_crops_are_learnt_from(tiny, tmp_path):
    arguments = options(tiny, tmp_path)
    assert run(SIMCLR, "hparams/am.yaml", *arguments) == 0
    assert (
        run(
            SIMCLR,
            "hparams/am.yaml",
            *arguments,
            f"--output_folder={tmp_path / 'short'}",
            "--n_short=2",
            "--short_seconds=0.3",
        )
        == 0
    )
    assert losses(tmp_path / "short")[0] > 1.5 * losses(tmp_path / "out")[0]  # a second term
    record = json.loads((tmp_path / "short" / "train_log.jsonl").read_text().splitlines()[-1])
    assert record["crops"] == 2 * 24 * (2 + 2)


def test_spec_augment_is_for_training_alone(tiny, tmp_path):
    arguments = options(tiny, tmp_path)
    assert run(SIMCLR, "hparams/am.yaml", *arguments, "--spec_augment=True") == 0
    assert run(SIMCLR, "hparams/am.yaml", *arguments, f"--output_folder={tmp_path / 'other'}") == 0
    assert losses(tmp_path / "out") != losses(tmp_path / "other")
    config = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert "spec_augment" not in config["features"] and config["training"]["overrides"]["spec_augment"]


@pytest.mark.parametrize(
    "option, word",
    [
        ("--spec_augment=no", "choose True or False"),
        ("--speeds=0.9", "wanted a list"),
        ("--test_trials=[gone.txt]", "gone.txt"),
    ],
)
def test_odd_values_are_refused(tiny, tmp_path, capsys, option, word):
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, option)) == 2
    assert failed(capsys, word)


def test_spec_augment_is_for_log_mel_alone(tiny, tmp_path, capsys):
    assert run(SIMCLR, "hparams/sslsv.yaml", *options(tiny, tmp_path, "--spec_augment=True")) == 2
    assert failed(capsys, "not SslsvMel's")


def test_the_mean_of_the_last_epochs(tiny, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(checkpoints, "mean", lambda states: kept.append(states) or real(states))
    arguments = options(tiny, tmp_path, "--epochs=4", "--average_last=3")
    assert run(SIMCLR, "hparams/am.yaml", *arguments) == 0
    [states] = kept
    assert len(states) == 3
    name = "embedder.encoder.project.weight"
    wanted = torch.stack([state[name] for state in states]).mean(dim=0)
    assert not torch.equal(states[0][name], states[2][name])
    saved = load_file(tmp_path / "out" / "model" / "model.safetensors")["encoder.project.weight"]
    assert np.allclose(saved, wanted.numpy(), atol=1e-7)
    assert result(tmp_path)["valid_eer"] is not None


real = checkpoints.mean


def test_several_lists_and_crops(tiny, tmp_path, capsys):
    trials = (tiny / "trials.txt").read_text().splitlines(keepends=True)
    (tmp_path / "hard.txt").write_text("".join(trials[:21]))
    lists = f"--test_trials=[{tiny / 'trials.txt'}, {tmp_path / 'hard.txt'}]"
    arguments = options(tiny, tmp_path, lists, "--baselines=True", "--score_crops=3", "--score_crop_seconds=0.5")
    assert run(SIMCLR, "hparams/am.yaml", *arguments) == 0
    found = result(tmp_path)
    for kept in (found["lists"], found["baseline_lists"], found["by_crops"]["lists"]):
        assert kept.keys() == {"trials", "hard"}
    assert found["lists"]["trials"]["eer"] == found["test"]["eer"]
    assert found["baselines"] == found["baseline_lists"]["trials"]
    assert found["lists"]["hard"]["n_trials"] == 21
    assert (tmp_path / "out" / "scores-hard.txt").read_text().count("\n") == 21
    assert found["by_crops"]["lists"]["trials"]["eer"] != found["test"]["eer"] or found["by_crops"]["n"] == 3
    assert (
        run(
            SIMCLR,
            "hparams/am.yaml",
            *options(tiny, tmp_path, f"--test_trials=[{tiny / 'trials.txt'}, {tiny / 'trials.txt'}]"),
        )
        == 2
    )
    assert failed(capsys, "two of the test lists are called trials")


def test_validation_without_labels(tiny, tmp_path, capsys, monkeypatch):
    """No list named, none in the folder: training utterances are held out, and the best epoch is chosen by them."""
    monkeypatch.setattr(dataset.held_out, "MOST_SHARE", 0.5)
    monkeypatch.setattr(dataset.held_out, "LEAST_SECONDS", 0.5)
    arguments = options(tiny, tmp_path, f"--train_csv={tiny / 'train.csv'}", f"--data_folder={tiny / 'wav'}")
    assert run(SIMCLR, "hparams/am.yaml", *arguments) == 0
    said = capsys.readouterr().out
    assert "halves of 12 training utterances" in said and "training: 12 utterances" in said
    assert "valid EER" in said and len(list((tmp_path / "out").glob("valid-*/valid.txt"))) == 1
    assert not Path(tmp_path / "results").exists()  # nothing to be tested on


def test_utterances_of_a_speaker_share_no_batch(tiny, tmp_path, capsys):
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, tmp_path, "--per_speaker=1", "--batch_size=6")) == 0
    assert (
        run(
            SIMCLR,
            "hparams/am.yaml",
            *options(tiny, tmp_path, "--per_speaker=1", "--batch_size=8", f"--output_folder={tmp_path / 'other'}"),
        )
        == 2
    )
