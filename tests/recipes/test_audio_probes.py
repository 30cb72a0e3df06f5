"""Whole runs of the audio recipes on a few clips: what they write, how they resume, what they say of bad input."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path

import pytest
import torch
import yaml

from sv_ssl.core.files import alone
from sv_ssl.data.synthetic import sounds
from sv_ssl.methods.labelled import Labelled
from sv_ssl.models import folder as model
from sv_ssl.training import classify, settings

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
]
spec = importlib.util.spec_from_file_location("audio_comparison", HERE / "compare.py")
compare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return sounds.corpus(tmp_path_factory.mktemp("sounds") / "s", per_class=6, seconds=0.2)


@lru_cache
def plain(path):
    return settings.top_level(path.read_text(), path, classify.NEEDED)


def options(clips, out, path, *more):
    known = plain(path)
    sizes = [size for size in SIZES if size[2:].partition("=")[0] in {*known, "device"}]
    return [
        *sizes,
        f"--data_folder={clips}",
        f"--output_folder={out / 'out'}",
        f"--results_folder={out / 'results'}",
        *more,
    ]


def run(clips, out, name, *more):
    path = HERE / "hparams" / f"{name}.yaml"
    return classify.main(str(HERE / "train_acl.py"), "the page", [str(path), *options(clips, out, path, *more)])


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
    built = classify.settings.build(path, {"corpus": "c", "n_classes": 3, "encoder_size": "tiny"})
    assert isinstance(built["method"], Labelled) and built["method"].embedder is built["embedder"]
    assert 0 <= built["lr"](0.5) <= built["peak_lr"]


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_no_key_is_idle_and_the_command_is_on_top(path):
    text, known = path.read_text(), plain(path)
    assert not [key for key in known if key not in classify.NEEDED | {"__set_seed"} and f"<{key}>" not in text]
    commands = re.findall(r"^#   python (\S+) (\S+)", text, re.MULTILINE)
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
    acl, clar, add = (
        classify.settings.build(HERE / "hparams" / f"{name}.yaml", {"n_classes": 50}) for name in ("acl", "clar", "add")
    )
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
    assert set(found["analysis"]["add"]) == set(classify.TERMS) and found["analysis"]["n"] == 8
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

    def spy(self, views, labels, forward=Labelled.forward):
        started.append(torch.equal(next(self.embedder.parameters()), next(embedder.parameters())))
        return forward(self, views, labels)

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
        ("acl", ["--alpha=2"], "--alpha is 2: wanted 1 at most"),
        ("acl", ["--peak_lr=-1"], "--peak_lr is -1: wanted a number of at least 0"),
        ("acl", ["--temperature=0"], "--temperature is 0: wanted"),
        ("acl", ["--margin_rad=-1"], "--margin_rad is -1"),
        ("acl", ["--seed=-1"], "--seed is -1: wanted a whole number"),
        ("acl", ["--n_mels=0"], "--n_mels is 0"),
        ("acl", ["--augmentations=fade"], "wanted a list such as [fade,mask"),
        ("acl", ["--name="], "--name is None: wanted a value"),
        ("acl", ["--n_views=1"], "pass --n_views 2"),
        ("acl", ["--valid_clips=3"], "no column is called 3"),
        ("acl", ["--n_classes=7"], "--n_classes is 7 but the clips"),
        ("add", ["--lambdas=[1,2]"], "want four numbers"),
        ("add", ["--lambdas=[a,b,c,d]"], "wanted a list such as"),
        ("add", ["--supervision=semi"], "wants the loss CLAR"),
        ("add_soft", ["--mixup=2"], "--mixup is 2: wanted 1"),
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


# -------------------------------------------------------------------------------------------------------- comparing
@pytest.mark.parametrize("name, n_runs, n_claims", [("words", 120, 20), ("esc50", 60, 3), ("fsdnoisy18k", 48, 2)])
def test_the_grids_are_as_their_claims_want_them(name, n_runs, n_claims):
    _, grid = compare.read(f"{name}.yaml")
    runs = compare.planned(grid)
    names = {run.name for run in runs}
    assert len(runs) == len({run.file(Path()) for run in runs}) == n_runs and len(grid["claims"]) >= n_claims
    for run in runs:
        assert set(run.changes) <= set(plain(HERE / "hparams" / run.yaml)) and (not run.after or run.after in names)
    assert all({claim["better"], claim["worse"]} <= names for claim in grid["claims"])
    assert all(claim["by"] in (*compare.JUDGES, *classify.TERMS) for claim in grid["claims"])
    known = {key for path in YAMLS for key in plain(path)}
    assert set(grid.get("sizes", {})) <= known


def test_every_seed_is_tested_on_all_folds_that_it_is_given():
    settings = {"a": {"yaml": "add.yaml"}, "b": {"yaml": "add.yaml", "after": "a"}}
    runs = compare.planned({"seeds": [0, 1], "folds": [[1, 2], [1, 2]], "settings": settings})
    assert [(run.name, run.seed, run.changes["test_fold"], run.key) for run in runs[:4]] == [
        ("a", 0, 1, "0-1"),
        ("b", 0, 1, "0-1"),
        ("a", 0, 2, "0-2"),
        ("b", 0, 2, "0-2"),
    ]
    done = {
        name: [
            {
                **made(right),
                "seed": seed,
                "run": {"changes": {"test_fold": fold}},
                "speakers": None,
                "accuracy": {"linear": {"accuracy": right.count("1") / 4}},
            }
            for seed in (0, 1)
            for fold, right in ((1, rights[0]), (2, rights[1]))
        ]
        for name, rights in (("a", ("1111", "1100")), ("b", ("0000", "1100")))
    }
    assert compare.accuracy(done["a"], "linear").startswith("75.0 ± 0.0 [")  # over seeds, not over folds
    claim = {"paper": "P", "claim": "C", "better": "a", "worse": "b", "by": "linear"}
    assert compare.judged(claim, done)[3].startswith("+50.0 [")


def test_a_comparison_runs_goes_on_and_makes_its_table(clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sizes = {"encoder_size": "tiny", "n_mels": 20, "crop_seconds": 0.2, "batch_size": 8, "epochs": 1, "num_workers": 0}
    grid = {
        "title": "A title",
        "about": "About.",
        "seeds": [0, 1],
        "sizes": sizes,
        "settings": {
            "add": {"yaml": "add.yaml", "each": {"lambdas": [[0, 0, 0, 0], [1, 0, 0, 0]]}},
            "tuned": {"yaml": "add.yaml", "after": "add-0_0_0_0"},
        },
        "claims": [{"paper": "ADD", "claim": "tight", "better": "add-1_0_0_0", "worse": "add-0_0_0_0", "by": "mu_p"}],
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    runs = compare.planned(grid)
    assert [run.name for run in runs] == 2 * ["add-0_0_0_0", "add-1_0_0_0", "tuned"]
    for run in runs:
        said = compare.one(run, sizes, tmp_path / "out", tmp_path / "work", str(clips))
        assert re.match(r"classifier \d+\.\d %, linear", said)
    capsys.readouterr()
    assert compare.main(["grid.yaml", "--out", "out", "--data_folder", str(clips)]) == 0
    assert "6 runs, 0 to do" in capsys.readouterr().out
    text = (tmp_path / "out.md").read_text()
    assert text.count("| add-") == 2 and re.search(r"\| ADD \| tight .*\(mu_p\) \| (holds|does not|cannot)", text)
    before = (tmp_path / "out" / "tuned-0.json").read_text()
    assert json.loads(before)["init_from"] and json.loads(before)["setting"] == "tuned"


def made(right, **terms):
    return {"right": {"linear": right}, "analysis": {"add": terms}, "speakers": None, "run": {"changes": {}}}


@pytest.mark.parametrize(
    "better, worse, verdict",
    [
        (["1111111011"] * 3, ["0000000011"] * 3, "holds"),
        (["0000000011"] * 3, ["1111111011"] * 3, "does not hold"),
        (["1010101010"] * 3, ["0101010101"] * 3, "cannot be told at this size"),
        (["1111111011", "0000000000", "1111111111"], ["0101010101"] * 3, "cannot be told at this size"),
    ],
)
def test_verdicts(better, worse, verdict):
    done = {
        name: [{**made(right), "seed": seed} for seed, right in enumerate(side)]
        for name, side in (("a", better), ("b", worse))
    }
    claim = {"paper": "P", "claim": "C", "better": "a", "worse": "b", "by": "linear"}
    assert compare.judged(claim, done)[-1] == verdict
    assert compare.judged(claim, {"a": done["a"]})[-1] == "not run yet"
    assert compare.judged(claim, {name: runs[:1] for name, runs in done.items()})[-1].endswith("(one seed)")


@pytest.mark.parametrize(
    "better, worse, verdict",
    [
        ([0.1, 0.11, 0.12], [0.5, 0.52, 0.51], "holds"),
        ([0.5, 0.52, 0.51], [0.1, 0.11, 0.12], "does not hold"),
        ([0.1, 0.5, 0.3], [0.2, 0.3, 0.4], "cannot be told at this size"),
    ],
)
def test_of_a_statistic_less_is_claimed(better, worse, verdict):
    done = {
        name: [{**made("1", mu_p=value), "seed": seed} for seed, value in enumerate(side)]
        for name, side in (("a", better), ("b", worse))
    }
    assert compare.judged({"paper": "P", "claim": "C", "better": "a", "worse": "b", "by": "mu_p"}, done)[-1] == verdict


def test_folds_of_other_sizes_and_speakers_are_one_table():
    """Two seeds that are tested on other clips: of three speakers and of two."""
    runs = [
        {**made("1111"), "seed": 0, "speakers": [0, 0, 1, 2], "accuracy": {"linear": {"accuracy": 1.0}}},
        {**made("10"), "seed": 1, "speakers": [3, 4], "accuracy": {"linear": {"accuracy": 0.5}}},
    ]
    right, seeds, speakers = compare.hits(runs, "linear")
    assert right.tolist() == [1, 1, 1, 1, 1, 0] and seeds.tolist() == [0] * 4 + [1] * 2
    assert speakers.tolist() == [0, 0, 1, 2, 3, 4]
    assert compare.accuracy(runs, "linear").startswith("83.3 ± 35.4 [0.0, 100.0]")


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("", "there is no title"),
        ("title: [", "is not YAML"),
        ("title: a", "there is no about"),
        ("{title: a, about: b, seeds: [0], settings: {x: {}}}", "the setting x wants a yaml"),
        ("{title: a, about: b, seeds: [0], folds: [1, 2], settings: {}}", "2 folds for 1 seeds"),
        ("{title: a, about: b, seeds: [0], settings: {}, claims: [{by: foo}]}", "a claim is by foo"),
    ],
)
def test_a_grid_that_is_none_is_one_line(tmp_path, capsys, text, wanted):
    (tmp_path / "g.yaml").write_text(text)
    assert compare.main([str(tmp_path / "g.yaml")]) == 2
    said = capsys.readouterr().err
    assert wanted in said and said.count("\n") == 1
    assert compare.main(["nowhere.yaml"]) == 2
    assert "choose one of esc50.yaml, fsdnoisy18k.yaml, words.yaml" in capsys.readouterr().err


def test_a_run_that_fails_does_not_end_the_others(clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    grid = {
        "title": "T",
        "about": "A",
        "seeds": [0],
        "sizes": {"encoder_size": "tiny", "n_mels": 20, "crop_seconds": 0.2, "batch_size": 8, "epochs": 1},
        "settings": {"bad": {"yaml": "add.yaml", "lambdas": [1]}, "good": {"yaml": "add.yaml", "num_workers": 0}},
    }
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(grid))
    ended = subprocess.run(
        [sys.executable, HERE / "compare.py", "g.yaml", "--out", "out", "--data_folder", clips],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2 and not ended.stderr, ended.stderr
    assert "bad, seed 0: failed: lambdas is [1]" in ended.stdout and "1 runs failed" in ended.stdout
    assert (tmp_path / "out" / "good-0.json").is_file()
    (tmp_path / "other").mkdir()
    assert compare.main(["g.yaml", "--out", "out", "--data_folder", "other"]) == 2
    assert "name another --out" in capsys.readouterr().err


def test_ctrl_c_ends_a_comparison_at_once(clips, tmp_path):
    grid = {
        "title": "T",
        "about": "A",
        "seeds": [0, 1],
        "sizes": {"encoder_size": "tiny", "n_mels": 20, "crop_seconds": 0.2, "batch_size": 8, "epochs": 5000},
        "settings": {"a": {"yaml": "add.yaml", "num_workers": 0}, "b": {"yaml": "acl.yaml", "num_workers": 0}},
    }
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(grid))
    process = subprocess.Popen(
        [sys.executable, HERE / "compare.py", "g.yaml", "--out", "out", "--jobs", "2", "--data_folder", clips],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "exp" / "audio_probes" / "out" / "a" / "0" / "log.txt"
    while process.poll() is None and not (log.is_file() and "epoch 1/" in log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said == "\nstopped\n" and not list((tmp_path / "out").glob("*"))


def test_two_runs_in_one_folder_are_told(clips, tmp_path, capsys):
    with alone(tmp_path / "out", "a run", "--output_folder"):
        assert run(clips, tmp_path, "acl") == 2
    assert "is running in" in capsys.readouterr().err


def test_a_run_for_debugging_is_not_taken_for_a_real_one(clips, tmp_path, capsys):
    assert run(clips, tmp_path, "acl", "--debug") == 0
    assert result(tmp_path)["overrides"]["debug"] is True
    assert run(clips, tmp_path, "acl") == 2 and "holds a run with debug True" in capsys.readouterr().err


@pytest.mark.parametrize("page", sorted((ROOT / "results" / "audio").glob("*.md")), ids=lambda page: page.stem)
def test_the_committed_pages_are_those_of_the_committed_runs(page):
    path, grid = compare.read(f"{page.stem}.yaml")
    out, runs = page.with_suffix(""), compare.planned(grid)
    lines, done = compare.page(grid, runs, out, path.name)
    assert "\n".join(lines) + "\n" == page.read_text(), "make the tables again"
    assert sum(map(len, done.values())) == len(list(out.glob("*.json"))) and page.with_suffix(".png").is_file()
