"""A study of labelled clips: its grid, statistics and page, with a recipe that only pretends; and a true one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from sv_ssl.core.errors import InputError
from sv_ssl.data.synthetic import sounds
from sv_ssl.study import clips_table, command_lines, compare, grid, grid_file, run_files, tables
from sv_ssl.study.__main__ import main
from sv_ssl.training import command_line, labelled_clips, settings

ROOT = Path(__file__).parents[2]
HERE = ROOT / "recipes" / "audio_probes"

# A clip is right with a chance that is `skill`; a model folder is left for others to start from.
RECIPE = """
import json, pathlib, random, sys
given = dict(argument[2:].split("=", 1) for argument in sys.argv[2:])
out, results = pathlib.Path(given["output_folder"]), pathlib.Path(given["results_folder"])
with open(out / "starts.txt", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
if given.get("broken") == "True":
    sys.exit("the last words")
source = given.get("init_from", "null")
skill = float(given["skill"]) + (0.3 if source != "null" else 0)
if source != "null":
    assert (pathlib.Path(source) / "weights").read_text() == f"{given['seed']} {given.get('test_fold')}"
(out / "model").mkdir(exist_ok=True)
(out / "model" / "weights").write_text(f"{given['seed']} {given.get('test_fold')}")
draw = random.Random(given["seed"] + str(given.get("test_fold")))
right = "".join("01"[draw.random() < skill] for _ in range(40))
run = {"name": given["name"], "corpus": pathlib.Path(given["data_folder"]).resolve().name, "seed": int(given["seed"]),
       "yaml": sys.argv[1], "overrides": given, "init_from": source != "null", "device": "cpu", "minutes": 0.5,
       "clips": {"train": 100, "valid": 20, "test": 40}, "n_classes": 2, "commit": "1" * 40, "streams": 2,
       "accuracy": {judge: {"accuracy": right.count("1") / 40} for judge in ("linear", "knn")},
       "right": {"linear": right, "knn": right}, "speakers": [i // 4 for i in range(40)],
       "untrained": {"linear": {"accuracy": 0.5}} if given.get("baselines") == "True" else None,
       "analysis": {"add": {term: 1 - skill + 0.001 * int(given["seed"]) for term in TERMS}}}
(results / "audio").mkdir(parents=True, exist_ok=True)
(results / "audio" / "toy.json").write_text(json.dumps(run))
""".replace("TERMS", '("mu_p", "sigma_p", "mu_n", "sigma_n")')
STUDY = {
    "name": "toy",
    "title": "A title",
    "about": "About.",
    "out": "results/audio/toy",
    "recipes": "recipes",
    "seeds": [0, 1, 2],
    "folds": [1, 2, 3],
    "options": {"data_folder": "$data"},
    "sizes": {"epochs": 20, "skill": 0.5, "elsewhere": 1, "head_dim": 3},  # nothing reads the last in toy.yaml
    "systems": {
        "base": {"recipe": "train_toy.py", "yaml": "toy.yaml", "options": {"baselines": True}},
        "some": {"recipe": "train_toy.py", "yaml": "toy.yaml", "each": {"skill": [0.6, 1]}},
        "tuned": {"recipe": "train_toy.py", "yaml": "toy.yaml", "after": "base"},
    },
    "pairs": [
        {"claim": "skill helps", "better": "some-1", "worse": "base", "by": "linear", "paper": "P", "published": "yes"},
        {"claim": "skill is tight", "better": "some-1", "worse": "base", "by": "mu_p"},
    ],
    "conclusions": "Skill helps.",
}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """toy(changes) writes a study and returns its command line; all happens in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home" / "recipes").mkdir(parents=True)
    (tmp_path / "home" / "recipes" / "train_toy.py").write_text(RECIPE)
    (tmp_path / "home" / "recipes" / "base.yaml").write_text("epochs: 40\nhead_dim: 2\n")
    (tmp_path / "home" / "recipes" / "toy.yaml").write_text("extends: base.yaml\nskill: 0.1\nmethod: !ref <skill>\n")
    (tmp_path / "words").mkdir()

    def write(**changes):
        (tmp_path / "home" / "toy.yaml").write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return ["home/toy.yaml", "--data", "words"]

    return write


def starts(tmp_path):
    return {path.parent.name[:-7]: path.read_text() for path in tmp_path.glob("exp/study/toy/*/starts.txt")}


# ------------------------------------------------------------------------------------------------------------- the grid
def test_sizes_lie_beneath_and_are_passed_over_where_no_key_is(toy):
    toy()
    runs = grid_file.read("home/toy.yaml").runs()
    assert [run.title for run in runs[:5]] == ["base/0", "some-0.6/0", "some-1/0", "tuned/0", "base/1"]
    assert runs[0].options == {"epochs": 20, "skill": 0.5, "data_folder": "$data", "baselines": True, "test_fold": 1}
    assert runs[1].options["skill"] == 0.6 and runs[7].options["test_fold"] == 2
    assert runs[3].source == runs[0] and runs[7].source == runs[4]


def test_every_seed_is_tested_on_all_folds_that_it_is_given(toy):
    toy(seeds=[0, 1], folds=[[1, 2], [1, 2]])
    runs = [run for run in grid_file.read("home/toy.yaml").runs() if run.system in ("base", "tuned")]
    assert [(run.system, run.seed, run.options["test_fold"], run.key) for run in runs[:4]] == [
        ("base", 0, 1, "0-1"),
        ("tuned", 0, 1, "0-1"),
        ("base", 0, 2, "0-2"),
        ("tuned", 0, 2, "0-2"),
    ]
    systems = {
        name: [
            {
                **made(right),
                "seed": seed,
                "run": {"options": {"test_fold": fold}},
                "speakers": None,
                "accuracy": {"linear": {"accuracy": right.count("1") / 4}},
            }
            for seed in (0, 1)
            for fold, right in ((1, rights[0]), (2, rights[1]))
        ]
        for name, rights in (("a", ("1111", "1100")), ("b", ("0000", "1100")))
    }
    assert clips_table.accuracy_cell(systems["a"], "linear").startswith("75.0 ± 0.0 [")  # over seeds, not over folds
    claim = {"paper": "P", "claim": "C", "better": "a", "worse": "b", "by": "linear"}
    assert clips_table.claim_row(claim, systems)[3].startswith("+50.0 [")


def test_another_source_makes_another_run(toy):
    toy()
    before = [run for run in grid_file.read("home/toy.yaml").runs() if run.system == "tuned"]
    toy(systems={**STUDY["systems"], "base": {**STUDY["systems"]["base"], "options": {"skill": 0.4}}})
    after = [run for run in grid_file.read("home/toy.yaml").runs() if run.system == "tuned"]
    assert before[0].options == after[0].options and before[0].work_name != after[0].work_name


def system(**changes):
    return {"a": {"recipe": "train_toy.py", "yaml": "toy.yaml", **changes}}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"folds": [1, 2]}, "2 folds for 3 seeds: want as many"),
        ({"systems": system(after="b")}, "the `after` of a names the system 'b', which is not there"),
        ({"systems": system(after="a")}, "system a starts from itself: a after a"),
        ({"systems": system(each={"skill": 1})}, "each is {'skill': 1}, wanted one key with a list"),
        ({"systems": system(each={"skill": ["a/b"]})}, "is 'a-a/b': it names files"),
        ({"systems": system(seeds=[7])}, "has the seed 7, for which the study has no fold"),
        ({"systems": system(yaml="no.yaml")}, "there is no no.yaml, here or in"),
        ({"systems": {**system(after="b"), "b": system(seeds=[0])["a"]}}, "a has the seed 1, b before it has not"),
        ({"pairs": [{"claim": "x", "better": "a", "worse": "a", "by": "foo"}]}, "pair 1 is by 'foo': choose eer"),
        (
            {"pairs": [{"claim": "x", "better": "a", "worse": "a", "by": by} for by in ("eer", "knn")]},
            "pairs are by eer and knn: a study is of speakers (eer, alignment) or of clips (classifier",
        ),
    ],
)
def test_a_grid_that_is_none_is_one_line(toy, capsys, changes, message):
    assert main(toy(**{"pairs": [], "systems": system(), **changes})) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


@pytest.mark.parametrize("name, n_runs, n_claims", [("words", 120, 20), ("esc50", 60, 3), ("fsdnoisy18k", 48, 2)])
def test_the_grids_are_as_their_claims_want_them(name, n_runs, n_claims):
    plan = grid_file.read(ROOT / "recipes" / "study" / f"{name}.yaml")
    runs = plan.runs()
    assert len(runs) == len({run.title for run in runs}) == n_runs and len(plan.pairs) >= n_claims
    for run in runs:
        _, recipe, *arguments = command_lines.command(plan, run, "/data", "/work", output_folder="x")
        config = command_line.read(settings.ClipSettings, recipe, arguments)
        assert ("init_from" in config.given) == (run.source is not None)
        assert set(config.yaml.written) >= set(run.options)
    assert all(pair["by"] in grid_file.MEASURES[1] for pair in plan.pairs)
    known = {key for system in plan.systems.values() for key in grid.yaml_keys(plan.recipes / system["yaml"])}
    assert set(plan.sizes) <= known


def test_the_measures_are_those_of_the_recipes():
    assert grid_file.STATISTICS == labelled_clips.TERMS


# ------------------------------------------------------------------------------------------------------------- the runs
def test_a_study_of_clips_runs_goes_on_and_makes_its_page(toy, tmp_path, capsys):
    assert main([*toy(), "--jobs", "2"]) == 0
    said = capsys.readouterr().out
    assert "12 runs, 0 of them done; 2 at a time" in said and re.search(r"some-1/0: linear 100.0%, knn 100.0%", said)
    folder = tmp_path / "results" / "audio" / "toy"
    assert sorted(path.name for path in folder.iterdir())[:3] == ["base-0.json", "base-1.json", "base-2.json"]
    result = json.loads((folder / "tuned-1.json").read_text())
    assert result["init_from"] and result["run"]["source"]["system"] == "base" and "overrides" not in result
    assert re.search(r" --init_from=\$work/base-1-\w{6}/model .*--threads=\d", result["command"])
    assert str(tmp_path) not in json.dumps(result)
    text = (tmp_path / "results" / "audio" / "toy.md").read_text()
    assert "12 runs, 6 minutes of training on cpu; clips of words: 100 train" in text and "chance 50.0 %" in text
    assert re.search(r"\| P \| skill helps \| yes \| \+\d.* points \(linear\) \| holds \|", text)
    assert re.search(r"\| skill is tight \|  \| -0.500 \[.*\] \(mu_p\) \| holds \|", text)
    assert text.count("| some-") == 2 and "| untrained (base) | 3 |  | 50.0 ± 0.0 |" in text
    assert "Skill helps." in text and "random streams" not in text and "data=FOLDER work=FOLDER" in text
    assert (tmp_path / "results" / "audio" / "toy.png").is_file()
    before = starts(tmp_path)
    assert main(toy()) == 0
    assert starts(tmp_path) == before and "12 runs, 12 of them done" in capsys.readouterr().out
    assert main([*toy(), "--list", "--only", "tuned/0"]) == 0
    assert "--init_from=$work/base-0-" in capsys.readouterr().out


def test_what_starts_from_a_run_waits_for_it(toy, tmp_path, capsys):
    assert main([*toy(), "--only", "tuned"]) == 2
    assert "tuned/0 failed: it starts from the model of base/0, which is not in" in capsys.readouterr().err
    first = {"tuned": STUDY["systems"]["tuned"], "base": STUDY["systems"]["base"]}  # named before what it waits for
    assert main([*toy(systems=first, pairs=[]), "--jobs", "4"]) == 0


def test_what_starts_from_a_failed_run_fails_and_others_go_on(toy, tmp_path, capsys):
    broken = {**STUDY["systems"], "base": {**STUDY["systems"]["base"], "options": {"broken": True}}}
    assert main(toy(systems=broken, seeds=[0], folds=[1])) == 2
    lines = [line.partition(" (")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines[0] == "base/0 failed: the last words" and lines[1].startswith("tuned/0 failed: it starts from")
    assert {path.name for path in (tmp_path / "results/audio/toy").iterdir()} == {"some-0.6-0.json", "some-1-0.json"}


def test_other_clips_of_the_same_names_are_refused(toy, tmp_path, capsys):
    assert main([*toy(), "--only", "base/0"]) == 0
    (tmp_path / "other").mkdir()
    assert main(["home/toy.yaml", "--data", "other"]) == 2
    assert "is of the clips of words, not of other: name another --out" in capsys.readouterr().err
    assert main(["home/toy.yaml", "--data", "other", "--out", "out", "--only", "base/0"]) == 0
    assert (tmp_path / "out" / "base-0.json").is_file() and (tmp_path / "out.md").is_file()


def test_pairs_are_of_speakers_alone(toy, capsys):
    assert main([*toy(), "--only", "base/0"]) == 0
    assert main([*toy(), "--pairs", "base"]) == 2
    assert "is of labelled clips, which have no trials" in capsys.readouterr().err


def test_speakers_and_clips_are_two_studies(toy, tmp_path):
    run = grid_file.read(toy()[0]).runs()[0]
    results = {run: {"accuracy": {}}, "other": {"test": {}}}
    with pytest.raises(InputError, match="results of speakers and of labelled clips"):
        tables.is_of_clips(tmp_path, results)


# ------------------------------------------------------------------------------------------------------- the statistics
def made(right, **terms):
    return {"right": {"linear": right}, "analysis": {"add": terms}, "speakers": None, "run": {"options": {}}}


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
    systems = {
        name: [{**made(right), "seed": seed} for seed, right in enumerate(side)]
        for name, side in (("a", better), ("b", worse))
    }
    claim = {"paper": "P", "claim": "C", "better": "a", "worse": "b", "by": "linear"}
    assert clips_table.claim_row(claim, systems)[-1] == verdict
    assert clips_table.claim_row(claim, {"a": systems["a"]})[-1] == "not run yet"
    one_seed = {name: runs[:1] for name, runs in systems.items()}
    assert clips_table.claim_row(claim, one_seed)[-1].endswith("(one seed)")


@pytest.mark.parametrize(
    "better, worse, verdict",
    [
        ([0.1, 0.11, 0.12], [0.5, 0.52, 0.51], "holds"),
        ([0.5, 0.52, 0.51], [0.1, 0.11, 0.12], "does not hold"),
        ([0.1, 0.5, 0.3], [0.2, 0.3, 0.4], "cannot be told at this size"),
    ],
)
def test_of_a_statistic_less_is_claimed(better, worse, verdict):
    systems = {
        name: [{**made("1", mu_p=value), "seed": seed} for seed, value in enumerate(side)]
        for name, side in (("a", better), ("b", worse))
    }
    claim = {"paper": "P", "claim": "C", "better": "a", "worse": "b", "by": "mu_p"}
    assert clips_table.claim_row(claim, systems)[-1] == verdict


def test_a_claim_by_a_judge_that_was_not_there_is_refused():
    systems = {name: [{**made("1"), "seed": 0}] for name in "ab"}
    with pytest.raises(InputError, match="the claim C is by classifier, by which a was not judged"):
        clips_table.claim_row({"claim": "C", "better": "a", "worse": "b", "by": "classifier"}, systems)


def test_folds_of_other_sizes_and_speakers_are_one_table():
    """Two seeds that are tested on other clips: of three speakers and of two."""
    runs = [
        {**made("1111"), "seed": 0, "speakers": [0, 0, 1, 2], "accuracy": {"linear": {"accuracy": 1.0}}},
        {**made("10"), "seed": 1, "speakers": [3, 4], "accuracy": {"linear": {"accuracy": 0.5}}},
    ]
    right, seeds, speakers = compare.hits(runs, "linear")
    assert right.tolist() == [1, 1, 1, 1, 1, 0] and seeds.tolist() == [0] * 4 + [1] * 2
    assert speakers.tolist() == [0, 0, 1, 2, 3, 4]
    assert clips_table.accuracy_cell(runs, "linear").startswith("83.3 ± 35.4 [0.0, 100.0]")


# ----------------------------------------------------------------------------------------------------------- true runs
SIZES = {
    "encoder_size": "tiny",
    "n_mels": 20,
    "crop_seconds": 0.2,
    "batch_size": 8,
    "epochs": 1,
    "num_workers": 0,
    "sample_rate": 16000,
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return sounds.corpus(tmp_path_factory.mktemp("sounds") / "s", per_class=6, seconds=0.2)


def true_study(folder, **changes):
    study = {**STUDY, "recipes": str(HERE), "seeds": [0], "folds": [], "sizes": SIZES, "pairs": [], "threads": 1}
    (folder / "true.yaml").write_text(yaml.safe_dump({**study, **changes}))


def test_a_true_study_of_clips(clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    add = {"recipe": "train_add.py", "yaml": "hparams/add.yaml"}
    systems = {
        "add": {**add, "each": {"lambdas": [[0, 0, 0, 0], [1, 0, 0, 0]]}},
        "tuned": {**add, "after": "add-0_0_0_0"},
        "bad": {**add, "options": {"lambdas": [1]}},
    }
    claim = {"paper": "ADD", "claim": "tight", "better": "add-1_0_0_0", "worse": "add-0_0_0_0", "by": "mu_p"}
    true_study(tmp_path, systems=systems, pairs=[claim])
    assert main(["true.yaml", "--data", str(clips), "--device", "cpu"]) == 2
    said = capsys.readouterr()
    assert "bad/0 failed: " in said.err and "lambdas is [1]" in said.err and said.err.count("\n") == 1
    assert re.search(r"add-0_0_0_0/0: classifier \d+\.\d%, linear", said.out)
    text = (tmp_path / "results/audio/toy.md").read_text()
    assert text.count("| add-") == 2 and re.search(r"\| ADD \| tight .*\(mu_p\) \| (holds|does not|cannot)", text)
    result = json.loads((tmp_path / "results/audio/toy/tuned-0.json").read_text())
    assert result["init_from"] and result["run"]["system"] == "tuned"
    again = subprocess.run(
        f"{result['command']} --output_folder={tmp_path}/again --results_folder={tmp_path}/again",
        shell=True,
        env={**os.environ, "data": str(clips), "work": "exp/study/toy", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    [path] = (tmp_path / "again" / "audio").glob("*.json")
    repeated = json.loads(path.read_text())
    assert repeated["right"] == result["right"] and repeated["analysis"] == result["analysis"]


def test_ctrl_c_ends_a_true_study_at_once(clips, tmp_path):
    acl, add = ({"recipe": f"train_{name}.py", "yaml": f"hparams/{name}.yaml"} for name in ("acl", "add"))
    true_study(tmp_path, systems={"a": add, "b": acl}, sizes={**SIZES, "epochs": 5000})
    process = subprocess.Popen(
        [sys.executable, "-m", "sv_ssl.study", "true.yaml", "--jobs", "2", "--data", str(clips), "--device", "cpu"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "exp" / "study" / "toy"
    while process.poll() is None and not any("epoch 1/" in path.read_text() for path in log.glob("a-0-*/log.txt")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said == "\nstopped\n" and not list(tmp_path.glob("results/audio/toy/*"))


# ----------------------------------------------------------------------------------------------------------- the record
@pytest.mark.parametrize("page", sorted((ROOT / "results" / "audio").glob("*.md")), ids=lambda page: page.stem)
def test_the_committed_pages_are_those_of_the_committed_runs(page):
    plan, folder = grid_file.read(ROOT / "recipes" / "study" / f"{page.stem}.yaml"), page.with_suffix("")
    results = run_files.read_results(folder, plan)
    assert tables.clips_page(folder, plan, results) == page.read_text(), "make the tables again"
    assert len(results) == len(list(folder.glob("*.json"))) and page.with_suffix(".png").is_file()
