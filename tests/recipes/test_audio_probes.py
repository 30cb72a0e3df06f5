"""Whole runs of the audio recipes on a few clips: what they write, how they resume, what they say of bad input."""

import json
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sv_ssl.core.files import exclusive
from sv_ssl.data.synthetic import sounds
from sv_ssl.methods import Facts, Labelled
from sv_ssl.models import folder as model
from sv_ssl.training import experiment, recipe_yaml
from sv_ssl.training.labelled_clips import TERMS
from sv_ssl.training.settings import ClipSettings, known

ROOT = Path(__file__).parents[2]
HERE = ROOT / "recipes" / "audio_probes"
YAMLS = sorted(path for path in (HERE / "hparams").glob("*.yaml") if path.stem != "demo")
ON_DISK = ("add_ast", "add_beats")  # their weights have to be there
SIZES = [
    "--encoder_size=tiny",
    "--n_mels=20",
    "--crop_seconds=0.2",
    "--epochs=2",
    "--batch_size=8",
    "--num_workers=0",
    "--sample_rate=16000",
    "--device=cpu",
    "--threads=1",
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return sounds.corpus(tmp_path_factory.mktemp("sounds") / "s", per_class=6, seconds=0.2)


@lru_cache
def read(path):
    return recipe_yaml.read(path, known(ClipSettings))


def plain(path):
    return read(path).written


def build(path, **changes):
    return recipe_yaml.build(path, read(path).text, changes)


def options(clips, out, path, *more):
    sizes = [size for size in SIZES if size[2:].partition("=")[0] in {*plain(path), "device", "threads"}]
    return [
        *sizes,
        f"--data_folder={clips}",
        f"--output_folder={out / 'out'}",
        f"--results_folder={out / 'results'}",
        *more,
    ]


def run(clips, out, name, *more):
    path = HERE / "hparams" / f"{name}.yaml"
    words = [str(path), *options(clips, out, path, *more)]
    return experiment.main(str(HERE / "train_acl.py"), "the page", words, task="clips")


def result(out):
    [path] = (out / "results" / "audio").glob("*.json")
    return json.loads(path.read_text())


# -------------------------------------------------------------------------------------------------------- the YAMLs
def test_those_are_all():
    assert [path.stem for path in YAMLS] == [
        "acl",
        "acl_supervised",
        "add",
        "add_ast",
        "add_beats",
        "add_soft",
        "clar",
        "clar_cross",
        "clar_raw",
        "clar_supervised",
    ]
    assert len({plain(path)["name"] for path in YAMLS}) == len(YAMLS)


@pytest.mark.parametrize("path", [p for p in YAMLS if p.stem not in ON_DISK], ids=lambda p: p.stem)
def test_builds_and_reads_every_key(path):
    built = build(path, corpus="c", encoder_size="tiny")
    assert isinstance(built["method"], Labelled) and built["method"].embedder is built["embedder"]
    assert 0 <= built["lr"](0.5) <= built["peak_lr"]


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_no_key_is_idle_and_the_command_is_on_top(path):
    assert not [key for key in plain(path) if key not in known(ClipSettings) and f"<{key}>" not in read(path).text]
    commands = re.findall(r"^#   python (\S+) (\S+)", path.read_text(), re.MULTILINE)
    assert len(commands) == 2 and all(
        (ROOT / script).is_file() and (ROOT / script).parent / file == path for script, file in commands
    )


def test_every_demo_key_is_known_somewhere():
    sizes = yaml.safe_load((HERE / "hparams" / "demo.yaml").read_text())
    own = {key for key in sizes if (HERE / f"{key}.py").is_file()}
    keys = set(sizes) - own | {key for name in own for key in sizes[name]}
    assert own == {"train_add"} and keys <= {key for path in YAMLS for key in plain(path)}


@pytest.mark.parametrize("script", ["train_acl", "train_clar", "train_add"])
def test_commands_of_a_page_name_what_is_there(script):
    page = (HERE / f"{script}.py").read_text()
    named = set(re.findall(r"hparams/\w+\.yaml", page))
    assert len(named) > 2 and all((HERE / name).is_file() for name in named)


def test_published_settings():
    acl, clar, add = (build(HERE / "hparams" / f"{name}.yaml") for name in ("acl", "clar", "add"))
    clar["method"].prepare(Facts(2, np.array([0, -1]), n_classes=50, steps=1, epochs=1, seed=0))
    loss = acl["method"].loss
    assert (loss.alpha, loss.margin_rad, loss.main.temperature) == (0.3, 0.5, 0.2)
    assert (acl["batch_size"], acl["epochs"]) == (128, 500)
    assert (acl["embedder"].dim, acl["embedder"].sample_rate) == (512, 22050)
    assert clar["method"].loss.contrastive.temperature == 0.5 and clar["embedder"].features.channels == 3
    assert clar["method"].classifier[-1].weight.shape == (50, 128)
    assert (add["epochs"], add["batch_size"], add["embedder"].dim) == (25, 32, 768)
    assert loss.reduction == ["sum_over", 25] and acl["peak_lr"] == 0.03
    assert acl["opt_class"].keywords["momentum"] == 0.9
    assert clar["method"].loss.weight == 2 and clar["method"].classifier[-1].bias is None  # a sum over two views
    assert add["opt_class"].keywords == {"lr": 6.7e-6, "betas": [0.95, 0.999], "weight_decay": 5e-6}
    beats = plain(HERE / "hparams" / "add_beats.yaml")
    assert (beats["batch_size"], beats["peak_lr"]) == (16, 8e-6)


# ------------------------------------------------------------------------------------------------------------- runs
@pytest.mark.parametrize("name", [p.stem for p in YAMLS if p.stem not in (*ON_DISK, "clar_raw")])
def test_a_run_leaves_all_that_it_promises(clips, tmp_path, capsys, name):
    assert run(clips, tmp_path, name) == 0
    out, found = tmp_path / "out", result(tmp_path)
    assert {path.name for path in out.iterdir()} >= {"model", "confusion.png", "train_log.txt", "settings.json"}
    judges = {"linear", "knn"} | ({"classifier"} if name != "acl" else set())
    assert found["accuracy"].keys() == judges == found["right"].keys()
    for judge, report in found["accuracy"].items():
        hits = found["right"][judge]
        assert report["accuracy"] == hits.count("1") / 8 and len(hits) == 8 and report["ci"][0] <= report["ci"][1]
    assert found["clips"] == {"train": 32, "valid": 8, "test": 8} and found["n_classes"] == 8
    assert set(found["analysis"]["add"]) == set(TERMS) and found["analysis"]["n"] == 8
    assert found["commit"] and found["versions"]["torch"]
    assert model.load(out / "model").dim == found["analysis"]["dim"]
    assert "chance: 12.5 %" in capsys.readouterr().out


def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(clips, tmp_path, monkeypatch, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    more = ["--epochs=3", "--ckpt_interval_steps=1"]
    assert run(clips, whole, "clar", *more) == 0
    calls = []

    def stopping(self, epoch):
        calls.append(epoch)
        if len(calls) in (3, 8):
            raise KeyboardInterrupt

    monkeypatch.setattr(Labelled, "on_step_end", stopping)
    assert [run(clips, parts, "clar", *more) for _ in range(3)] == [130, 130, 0]
    assert "resuming from" in capsys.readouterr().out
    files = [folder / "out" / "model" / "model.safetensors" for folder in (whole, parts)]
    assert files[0].read_bytes() == files[1].read_bytes()
    a, b = (result(folder) for folder in (whole, parts))
    assert a["right"] == b["right"] and a["analysis"] == b["analysis"]


def test_a_share_of_the_labels_is_used_and_said(clips, tmp_path, capsys):
    assert run(clips, tmp_path, "clar", "--labelled_share=0.25") == 0
    assert result(tmp_path)["labelled"] == {"clips": 8, "share": 0.25, "by": "clip"}
    assert "labels used in training: 8 of 32 clips, by clip" in capsys.readouterr().out


def test_fine_tuning_starts_from_a_model(clips, tmp_path, capsys):
    assert run(clips, tmp_path / "a", "clar", "--labelled_share=0") == 0
    assert "classifier" not in result(tmp_path / "a")["accuracy"]
    source = tmp_path / "a" / "out" / "model"
    embedder = model.load(source)
    started = []

    def spy(self, batch, forward=Labelled.forward):
        started.append(torch.equal(next(self.embedder.parameters()), next(embedder.parameters())))
        return forward(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Labelled, "forward", spy)
        assert run(clips, tmp_path / "b", "clar_supervised", f"--init_from={source}", "--labelled_share=0.25") == 0
    assert started[0] and not started[-1] and result(tmp_path / "b")["init_from"]
    assert run(clips, tmp_path / "c", "clar_supervised", f"--init_from={source}", "--encoder_size=small") == 2
    assert "sizes that it was trained with" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, more, text",
    [
        ("clar", ["--labelled_share=10"], "--labelled_share is 10: wanted 1 at most"),
        ("acl", ["--alpha=abc"], "--alpha is 'abc': wanted a number such as 0.3"),
        ("acl", ["--alpha=.nan"], "--alpha is nan: wanted a number"),
        ("acl", ["--alpha=2"], "alpha is 2: wanted 1 at most"),
        ("acl", ["--peak_lr=-1"], "the learning rate of epoch 1 is -0.8"),
        ("acl", ["--temperature=0"], "temperature is 0: wanted a number of at least 1e-06"),
        ("acl", ["--margin_rad=-1"], "margin_rad is -1: wanted a number of at least 0"),
        ("acl", ["--seed=-1"], "--seed is -1: wanted a whole number"),
        ("acl", ["--n_mels=0"], "n_mels is 0: wanted a whole number of at least 1"),
        ("acl", ["--window_seconds=0"], "window_seconds is 0: wanted a number of at least 0.001"),
        ("acl", ["--sample_rate=10"], "sample_rate is 10: wanted a whole number of at least 1000"),
        ("acl", ["--head_dim=0"], "hidden of the head is 0: wanted a whole number of at least 1"),
        ("acl", ["--augment_prob=2"], "prob of an augmentation is 2: wanted 1 at most"),
        ("acl", ["--momentum=1"], "momentum is 1: wanted less than 1"),
        ("add", ["--focal_gamma=-1"], "gamma of the focal loss is -1"),
        ("add", ["--opl_weight=-1"], "weight of OPL is -1"),
        ("clar", ["--hidden_layers=0"], "hidden_layers of the head is 0"),
        ("acl", ["--augmentations=fade"], "wanted a list such as [fade,mask"),
        ("acl", ["--name="], "--name is None: wanted a value"),
        ("acl", ["--n_views=1"], "pass --n_views 2"),
        ("acl", ["--valid_clips=3"], "no column is called 3"),
        ("acl", ["--n_classes=7"], "--n_classes is 7 but the clips"),
        ("add", ["--lambdas=[1,2]"], "want four numbers"),
        ("add", ["--lambdas=[a,b,c,d]"], "wanted a list such as"),
        ("add", ["--supervision=semi"], "wants the loss CLAR"),
        ("add_soft", ["--mixup=2"], "mixup is 2 and smoothing 0.0: want shares, from 0 to 1"),
        ("clar_cross", ["--n_views=3"], "3 views of a clip cannot be compared"),
        ("clar", ["--baselines=maybe"], "choose True or False"),
        ("clar", ["--labelled_by=day"], "choose clip or spk_id"),
        ("clar", ["--labelled_by=spk_id"], "the clips have no column spk_id"),
        ("clar", ["--epochs=0"], "--epochs is 0: wanted a whole number of at least 1"),
        ("clar", ["--temprature=1"], "did you mean temperature"),
        ("acl", ["--test_fold=1"], "no --test_fold"),
        ("clar_supervised", ["--labelled_share=0"], "there is nothing to learn from"),
        ("add_ast", [], "encoder_folder is None: want a folder"),
        ("add_beats", [], "encoder_checkpoint is None: want a checkpoint of BEATs"),
    ],
)
def test_bad_input_is_one_line(clips, tmp_path, capsys, name, more, text):
    assert run(clips, tmp_path, name, *more) == 2
    said = capsys.readouterr().err
    assert text in said and said.count("\n") == 1


# ------------------------------------------------------------------------------------------------- folders of runs
def test_two_runs_in_one_folder_are_told(clips, tmp_path, capsys):
    with exclusive(tmp_path / "out", "a run", "--output_folder"):
        assert run(clips, tmp_path, "acl") == 2
    assert "is running in" in capsys.readouterr().err


def test_a_run_for_debugging_is_not_taken_for_a_real_one(clips, tmp_path, capsys):
    assert run(clips, tmp_path, "acl", "--debug") == 0
    assert result(tmp_path)["overrides"]["debug"] is True
    assert run(clips, tmp_path, "acl") == 2 and "holds a run with debug True" in capsys.readouterr().err
