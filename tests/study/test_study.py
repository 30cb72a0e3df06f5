"""A study with a recipe that only pretends, so that a run takes a moment."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import exclusive
from sv_ssl.study import command_lines, compare, grid_file, hard_pairs, run_files, tables
from sv_ssl.study.__main__ import main
from sv_ssl.training import command_line, settings
from sv_ssl.verification.metrics import headline
from sv_ssl.verification.trials import Trials

ROOT = Path(__file__).parents[2]
WRITE = tables.write

RECIPE = """
import json, os, pathlib, random, sys, time
given = dict(argument[2:].split("=", 1) for argument in sys.argv[2:])
out, results = pathlib.Path(given["output_folder"]), pathlib.Path(given["results_folder"])
seed, skill = int(given["seed"]), float(given["skill"])
with open(out / "starts.txt", "a") as file:
    file.write(" ".join([*sys.argv[1:], given["threads"], os.environ["OMP_NUM_THREADS"]]) + "\\n")
time.sleep(float(given.get("sleep", 0)))
if given.get("broken") == "True":
    print("first words")
    sys.exit("the last words")
stems = [pathlib.Path(name.strip(" []")).stem for name in given["test_trials"].split(",")]
reports, draw = {}, random.Random(seed)
for number, stem in enumerate(stems):
    lines = []
    for a in "abcdefgh":
        for b in "abcdefgh":
            for k in range(3):
                score = draw.gauss(skill * (a == b) - 0.1 * number, 1)
                lines.append(f"{a}/1 {b}/{k + 2} {score:.6f} {'target' if a == b else 'nontarget'}")
    (out / ("scores.txt" if number == 0 else f"scores-{stem}.txt")).write_text("\\n".join(lines) + "\\n")
    eer = 0.5 - 0.1 * skill + 0.01 * seed + 0.02 * number + 1e-9 * int(given["threads"])
    reports[stem] = {"list": f"{stem}.txt", "sha1": "0" * 40, "eer": eer, "min_dcf": {"0.01": 2 * eer, "0.05": eer},
                     "n_trials": 192, "n_target": 24, "n_nontarget": 168, "ci": {"eer": [eer - 0.05, eer + 0.05]}}
log = [{"epoch": e, "loss": 3.0 / e, "seconds": 6.0, "spread": 0.5, "alignment": 0.5 / e, "uniformity": -e,
        **({"eer": 0.4 / e} if e % 2 == 0 else {})} for e in range(1, 5)]
(out / "train_log.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in log))
baselines = {stem: {"no_learning": 0.5, "untrained": 0.45 + 0.01 * seed} for stem in stems}
run = {"name": given["name"], "corpus": "toy", "seed": seed, "yaml": sys.argv[1], "test": reports[stems[0]],
       "lists": reports, "epochs": 4, "best_epoch": 4, "parameters": 7, "minutes": 0.4, "cpu_minutes": 0.5,
       "peak_gb": 0.3, "crops": 4000, "valid_eer": 0.1, "device": "CPU, 1 threads", "commit": "0" * 40, "versions": {},
       "streams": int(given.get("streams", 2)),
       "training_utterances": 10, "training_hours": 0.1, "overrides": given,
       **({"baselines": baselines[stems[0]], "baseline_lists": baselines} if given.get("baselines") == "True" else {})}
(results / "runs").mkdir(parents=True, exist_ok=True)
(results / "runs" / "toy.json").write_text(json.dumps(run))
"""
STUDY = {
    "name": "toy",
    "about": "A toy.",
    "conclusions": "Skill helps.",
    "recipes": "recipes",
    "seeds": [0, 1],
    "options": {"test_trials": ["$data/one_far.txt", "$data/one.txt"]},
    "lists": {"far": ["one_far"], "plain": ["one"]},
    "systems": {
        "good": {"recipe": "train_toy.py", "yaml": "hparams/toy.yaml", "options": {"skill": 3, "baselines": True}},
        "bad": {"recipe": "train_toy.py", "yaml": "hparams/toy.yaml", "options": {"skill": 0.3}, "about": "a bad one"},
    },
    "pairs": [
        {"claim": "good is better than bad", "better": "good", "worse": "bad"},
        {"claim": "good is tighter than bad", "better": "good", "worse": "bad", "by": "alignment"},
    ],
    "drawn": ["good", "bad"],
}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """toy(changes) writes a study and says how it is called; all happens in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "N", 200)  # draws
    monkeypatch.setattr(tables, "write", lambda *_: 0)
    (tmp_path / "home" / "recipes").mkdir(parents=True)
    (tmp_path / "home" / "recipes" / "train_toy.py").write_text(RECIPE)
    (tmp_path / "speech").mkdir()

    def write(**changes):
        (tmp_path / "home" / "toy.yaml").write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return ["home/toy.yaml", "--data", "speech"]

    return write


@pytest.fixture
def tabled(toy, monkeypatch):
    """The same with tables, which take longer than the runs."""
    monkeypatch.setattr(tables, "write", WRITE)
    return toy


def systems(**options):
    """The toy's systems with further options, by system."""
    return {
        name: {**system, "options": {**system["options"], **options.get(name, {})}}
        for name, system in STUDY["systems"].items()
    }


def starts(tmp_path):
    return sorted(path.read_text() for path in tmp_path.glob("exp/study/toy/*/starts.txt"))


def test_every_system_is_run_with_every_seed_and_kept(toy, tmp_path, capsys):
    assert main([*toy(), "--jobs", "2"]) == 0
    folder = tmp_path / "results" / "study" / "toy"
    assert sorted(path.stem for path in (folder / "runs").iterdir()) == ["bad-0", "bad-1", "good-0", "good-1"]
    found = json.loads((folder / "runs" / "bad-1.json").read_text())
    assert found["run"]["options"]["skill"] == 0.3 and found["run"]["seed"] == 1 and found["cpu_minutes"] == 0.5
    assert found["curve"]["crops"] == [1000, 2000, 3000, 4000] and found["curve"]["minutes"] == [0.1, 0.2, 0.3, 0.4]
    assert found["curve"]["eer"] == [None, 0.2, None, 0.1]
    text = "".join(path.read_text() for path in folder.glob("runs/*.json"))
    assert str(tmp_path) not in text.replace(str(Path(sys.executable)), "")  # no folder of this machine
    assert '--test_trials=[$data/one_far.txt, $data/one.txt]"' in found["command"]
    assert found["command"].startswith("python home/recipes/train_toy.py hparams/toy.yaml --name=bad --seed=1")
    said = capsys.readouterr().out
    assert "4 runs, 0 of them done; 2 at a time" in said and "[4/4]" in said and "none left" in said
    assert "good/0: far 20.00%, plain 22.00%" in said


def test_scores_and_lists_read_back_exactly(toy, tmp_path):
    assert main(toy()) == 0
    folder, [run, *_] = tmp_path / "results" / "study" / "toy", grid_file.read("home/toy.yaml").runs()
    (folder / "trials" / "dropped.npz").write_bytes(b"a list that the study has no more")
    scores, lists = run_files.read_scores(folder, run), run_files.read_lists(folder, [run])
    assert scores.keys() == lists.keys() == {"one", "one_far"}
    lines = next(tmp_path.glob("exp/study/toy/good-0-*/scores-one.txt")).read_text().splitlines()
    assert scores["one"].tolist() == [np.float32(line.split()[2]) for line in lines]
    one = lists["one"]
    assert one.labels.sum() == 24 and one.speakers.tolist() == [f"{letter}/" for letter in "abcdefgh"]
    assert [one.speakers[i] for i in one.enroll] == [line[:2] for line in lines]


def test_what_is_done_is_not_done_again(toy, tmp_path, capsys):
    assert main(toy()) == 0
    before = starts(tmp_path)
    assert main(toy()) == 0
    assert starts(tmp_path) == before and len(before) == 4
    assert "4 runs, 4 of them done" in capsys.readouterr().out
    assert main(toy(systems=systems(bad={"skill": 0.5}))) == 0  # other options: another run, in a folder of its own
    assert len(starts(tmp_path)) == 6
    assert json.loads((tmp_path / "results/study/toy/runs/bad-0.json").read_text())["run"]["options"]["skill"] == 0.5


def test_cores_are_shared(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("sv_ssl.study.runner.cores", lambda: 7)
    assert main([*toy(), "--jobs", "2", "--only", "*/0"]) == 0
    assert [text.split()[-2:] for text in starts(tmp_path)] == [["3", "3"], ["3", "3"]]
    assert main([*toy(threads=2, seeds=[2]), "--jobs", "2"]) == 0  # the study's own word comes first
    assert sorted(text.split()[-2:] for text in starts(tmp_path)) == [["2", "2"]] * 2 + [["3", "3"]] * 2


def test_a_run_and_its_repetition_have_the_same_threads(toy, tmp_path, monkeypatch):
    """The toy's error rate depends on them, as the last digits of true runs do."""
    monkeypatch.setattr("sv_ssl.study.runner.cores", lambda: 5)
    assert main([*toy(), "--only", "good/0"]) == 0
    found = json.loads((tmp_path / "results/study/toy/runs/good-0.json").read_text())
    assert " --threads=5" in found["command"]
    for threads in ("1", "3"):
        (tmp_path / threads).mkdir()
        subprocess.run(
            f"{found['command']} --output_folder={tmp_path / threads} --results_folder={tmp_path / threads}",
            shell=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "data": "speech", "work": "exp/study/toy"},
        )
        again = json.loads((tmp_path / threads / "runs" / "toy.json").read_text())
        assert again["test"]["eer"] == found["test"]["eer"]


def test_the_device_is_passed_on_and_no_part_of_what_was_run(toy, tmp_path, capsys):
    assert main([*toy(), "--only", "good/0", "--device", "cuda:1"]) == 0
    found = json.loads((tmp_path / "results/study/toy/runs/good-0.json").read_text())
    assert " --device=cuda:1" in found["command"] and "device" not in found["run"]["options"]
    assert main([*toy(), "--only", "good/0"]) == 0
    assert "1 runs, 1 of them done" in capsys.readouterr().out


def test_only_some_runs(toy, tmp_path, capsys):
    assert main([*toy(), "--only", "go*"]) == 0
    assert [path.stem for path in sorted((tmp_path / "results/study/toy/runs").iterdir())] == ["good-0", "good-1"]
    assert main([*toy(), "--only", "nothing"]) == 2
    assert "--only nothing fits no run; the systems are good, bad" in capsys.readouterr().err


def test_listing_runs_nothing(toy, tmp_path, capsys):
    assert main([*toy(), "--only", "good/0"]) == 0
    capsys.readouterr()
    assert main([*toy(), "--list"]) == 0
    said = capsys.readouterr().out
    assert said.count("to do") == 3 and "far 20.00%" in said
    assert said.count("python home/recipes/train_toy.py") == 4 and len(starts(tmp_path)) == 1


def test_a_failed_run_is_told_at_the_end_and_others_go_on(toy, tmp_path, capsys):
    assert main(toy(systems=systems(good={"broken": True}))) == 2
    assert sorted(path.stem for path in (tmp_path / "results/study/toy/runs").iterdir()) == ["bad-0", "bad-1"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [f"good/{seed} failed: the last words" for seed in (0, 1)]
    assert Path(lines[0].rpartition("(")[2].rstrip(")")).read_text() == "first words\nthe last words\n"


def test_ctrl_c_ends_the_runs_and_the_same_command_goes_on(toy, tmp_path):
    arguments = [sys.executable, "-m", "sv_ssl.study", *toy(options={**STUDY["options"], "sleep": 60}), "--jobs", "2"]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and len(starts(tmp_path)) < 2:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err == "\nstopped\n"
    assert not running(tmp_path)
    assert not list(tmp_path.glob("results/study/toy/runs/*"))


def test_two_studies_do_not_share_a_folder(toy, capsys):
    arguments = toy()
    with exclusive("exp/study/toy", "a study", "--work"):
        assert main(arguments) == 2
    assert "is running in exp/study/toy already" in capsys.readouterr().err
    assert main(arguments) == 0


def running(tmp_path):
    """Command lines of processes that work in this test's folder."""
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            pass  # it has just ended
    return [text for text in texts if "train_toy.py" in text and str(tmp_path) in text]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sytems": {}}, "no use for the key 'sytems': did you mean systems"),
        ({"seeds": ["a"]}, "system good: seeds are ['a'], wanted whole numbers"),
        ({"seeds": 3}, "seeds is '3', wanted list"),
        ({"name": "a/b"}, "is 'a/b': it names files"),
        ({"drawn": ["god"]}, "drawn names the system 'god', which is not there: did you mean good"),
        ({"pairs": [{"claim": "x", "better": "good", "worse": "bat"}]}, "pair 1 names the system 'bat'"),
        (
            {"pairs": [{"claim": "x", "better": "good", "worse": "bad", "by": "luck"}]},
            "is by 'luck': choose eer",
        ),
        ({"pairs": [{"claim": "x", "better": "good"}]}, "pair 1 lacks the key worse"),
        ({"systems": {"a": {"recipe": "no.py", "yaml": "x"}}, "pairs": [], "drawn": []}, "there is no"),
        ({"systems": {"a": {"yaml": "x"}}, "pairs": [], "drawn": []}, "system a lacks the key recipe"),
        ({"threads": 0}, "threads is 0, wanted at least 1"),
    ],
)
def test_a_bad_study_is_refused_in_one_line(toy, capsys, changes, message):
    assert main(toy(**changes)) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_the_data_must_be_named(toy, capsys):
    [file, *_] = toy()
    assert main([file]) == 2
    assert "say with --data FOLDER" in capsys.readouterr().err
    assert main([file, "--data", "nowhere"]) == 2
    assert "--data nowhere is not a folder" in capsys.readouterr().err


def test_another_list_of_the_same_name_is_refused(toy, tmp_path, capsys):
    assert main([*toy(), "--only", "*/0"]) == 0
    text = (tmp_path / "home/recipes/train_toy.py").read_text()
    (tmp_path / "home/recipes/train_toy.py").write_text(text.replace('in "abcdefgh"', 'in "abcdefg"'))
    assert main(toy()) == 2
    assert "keeps another list than the one that was scored now" in capsys.readouterr().err


def test_a_damaged_record_is_named(toy, tmp_path):
    assert main([*toy(), "--only", "good/0"]) == 0
    path = tmp_path / "results/study/toy/runs/good-0.json"
    path.write_text("{}")
    with pytest.raises(InputError, match="good-0.json is not the record of a study's run"):
        run_files.read_results(tmp_path / "results/study/toy", grid_file.read("home/toy.yaml"))


@pytest.mark.parametrize("name", ["built_in", "small"])
def test_the_studies_give_no_option_that_their_recipes_refuse(name):
    found = grid_file.read(ROOT / "recipes" / "study" / f"{name}.yaml")
    assert len(found.systems) > 3 and found.pairs and found.drawn and found.lists
    for run in found.runs():
        _, recipe, *arguments = command_lines.command(found, run, "/data", output_folder="x", results_folder="y")
        given = command_line.read(settings.SpeakerSettings, recipe, arguments).given
        assert {Path(name).stem for name in np.atleast_1d(given["test_trials"])} == {
            stem for stems in found.lists.values() for stem in stems
        }


# --- tables ---------------------------------------------------------------------------------------------------------


def table(text, beginning):
    """Cells of the rows that begin so."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {beginning} |")]


def test_the_page_says_what_the_jsons_say(tabled, tmp_path):
    assert main([*tabled(), "--jobs", "2"]) == 0
    folder = tmp_path / "results/study/toy"
    text = (folder / "README.md").read_text()
    good, bad = table(text, "good")[0], table(text, "bad")[0]
    assert good[2] == "0, 1" and good[3].startswith("20.50 ± 0.71 [") and good[4].startswith("22.50 ± 0.71 [")
    assert bad[1] == "a bad one" and bad[3].startswith("47.50 ± 0.71 [")
    assert good[7] == "0.410 ± 0.014"  # twice the EER, as the recipe pretends
    assert table(text, "no learning")[0][2:4] == ["1", "50.00"]
    assert table(text, "untrained (good)")[0][2:4] == ["2", "45.50 ± 0.71"]
    assert text.index("| good |") < text.index("| untrained (good) |") < text.index("| bad |")
    assert {path.name for path in folder.glob("*.png")} == {"learning.png", "sphere.png", "det.png"}
    assert "![DET curves](det.png)" in text and "4 of 4 runs, on CPU, 1 threads; commit 000000000000." in text
    assert "random streams" not in text and "export data=FOLDER work=FOLDER" in text


def test_results_of_older_random_streams_are_marked(tabled, tmp_path):
    assert main(tabled(systems=systems(bad={"streams": 1}))) == 0
    text = (tmp_path / "results/study/toy/README.md").read_text()
    assert "\n2 of 4 runs were made with the random streams of version 1, until they are made again.\n" in text


def test_claims_are_answered(tabled, tmp_path):
    turned = [
        {"claim": "bad is better", "better": "bad", "worse": "good"},
        {"claim": "good beats itself", "better": "good", "worse": "good"},
    ]
    assert main(tabled(pairs=[*STUDY["pairs"], *turned], seeds=[0, 1, 2, 3, 4])) == 0
    text = (tmp_path / "results/study/toy/README.md").read_text()
    assert [row[-1] for row in table(text, "good is better than bad")] == ["**yes**"] * 2  # far, plain
    assert [row[-1] for row in table(text, "bad is better")] == ["**no, the reverse**"] * 2
    assert [row[-1] for row in table(text, "good beats itself")] == ["**not at this size**"] * 2
    assert table(text, "good is better than bad")[0][7] == "5 of 5"


def test_the_page_can_be_made_again_from_what_is_kept(tabled, tmp_path, capsys):
    assert main(tabled()) == 0
    folder, found = tmp_path / "results/study/toy", grid_file.read("home/toy.yaml")
    before = (folder / "README.md").read_text()
    results = run_files.read_results(folder, found)
    assert tables.page(folder, found, results, tables.read_measured(folder, results)) == before
    (folder / "README.md").unlink()
    assert main(["home/toy.yaml", "--tables-only"]) == 0  # no --data
    assert (folder / "README.md").read_text() == before
    (folder / "runs" / "bad-1.json").unlink()
    with pytest.raises(InputError, match="is of other runs"):
        tables.read_measured(folder, run_files.read_results(folder, found))


def test_tables_of_nothing(tabled, capsys):
    assert main([*tabled()[:1], "--tables-only"]) == 0
    assert "no run of home/toy.yaml is recorded" in capsys.readouterr().out


def test_seeds_widen_an_interval():
    same, other = np.zeros((3, 1000)), np.array([[-1.0], [0.0], [1.0]]) + np.zeros((3, 1000))
    assert not compare.over_seeds(same).any()
    spread = compare.over_seeds(other)
    low, high = np.percentile(compare.over_seeds(np.repeat(other, 100, axis=1)), [2.5, 97.5])
    assert -low == pytest.approx(4.303 / 3**0.5, rel=0.05) and high == pytest.approx(4.303 / 3**0.5, rel=0.05)
    assert abs(np.median(spread)) < 0.1


def test_lists_of_the_same_speakers_draw_the_same():
    rng = np.random.default_rng(0)
    sides = np.repeat(np.arange(6), 6), np.tile(np.arange(6), 6)
    names = [np.array([f"{letter}{i}" for i in range(6)]) for letter in "ab"]
    lists = {
        stem: run_files.List(sides[0] == sides[1], *sides, of)
        for stem, of in (("near", names[0]), ("far", names[0]), ("other", names[1]))
    }
    scores = rng.standard_normal(36)
    for name in ("eer", "alignment"):
        near, far, other = (compare.draw(name, lists, stem, scores).draws for stem in lists)
        assert np.array_equal(near, far, equal_nan=True) and not np.array_equal(near, other, equal_nan=True)


def test_alignment_is_the_mean_squared_distance_of_targets():
    codes = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])
    lists = {"a": run_files.List(codes[0] == codes[1], *codes, np.array(["x", "y"]))}
    found = compare.draw("alignment", lists, "a", np.array([0.5, -1.0, 1.0, -1.0]))
    assert found.whole == 0.5  # of 1 and 0
    assert {round(value, 6) for value in found.draws} == {0.0, 0.5, 1.0}


@pytest.mark.parametrize("page", sorted(ROOT.glob("results/study/*/README.md")) or [None])
def test_the_committed_pages_are_those_of_the_committed_runs(page):
    if page is None:
        pytest.skip("no study is recorded in results/study")
    found = grid_file.read(ROOT / "recipes" / "study" / f"{page.parent.name}.yaml")
    results = run_files.read_results(page.parent, found)
    assert len(results) == len(list(page.parent.glob("runs/*.json"))), "runs of other options than the grid's"
    measured = tables.read_measured(page.parent, results)
    assert tables.page(page.parent, found, results, measured) == page.read_text(), "make the tables again"
    run, lists = next(iter(results)), run_files.read_lists(page.parent, results)
    for stem, scores in run_files.read_scores(page.parent, run).items():
        wanted = run_files.reports(results[run])[stem]["eer"]
        assert headline(scores, lists[stem].labels, ())["eer"] == pytest.approx(wanted)


def test_a_true_run_goes_all_the_way(tiny, tabled, tmp_path):
    """The recipe, its scores, its record, the tables, and the run's own command line."""
    options = {
        "data_folder": "$data",
        "audio_root": "$data/wav",
        "test_trials": "$data/trials.txt",
        "noise_folder": "$data/noise",
        "room_folder": "$data/rir",
        "num_workers": 0,
        "encoder_size": "small",
        "batch_size": 4,
        "crop_seconds": 0.4,
        "epochs": 2,
        "valid_every": 1,
        "watch_every": 2,
        "device": "cpu",
        "baselines": True,
    }
    [file, *_] = tabled(
        recipes=str(ROOT / "recipes" / "voxceleb"),
        threads=1,
        options=options,
        lists={},
        seeds=[0],
        drawn=["am"],
        pairs=[],
        manifests=["$data/test.csv"],
        systems={"am": {"recipe": "train_simclr_am.py", "yaml": "hparams/am.yaml"}},
    )
    assert main([file, "--data", str(tiny)]) == 0
    folder = tmp_path / "results/study/toy"
    found = json.loads((folder / "runs" / "am-0.json").read_text())
    run = grid_file.read(file).runs()[0]
    scores, labels = run_files.read_scores(folder, run)["trials"], run_files.read_lists(folder, [run])["trials"].labels
    assert headline(scores, labels, ())["eer"] == pytest.approx(found["test"]["eer"])
    assert len(found["curve"]["eer"]) == 2 and found["curve"]["crops"][-1] == found["crops"]
    assert table((folder / "README.md").read_text(), "no learning")
    assert main([file, "--data", str(tiny), "--pairs", "am"]) == 0
    wrong = (folder / "errors-am.md").read_text()
    assert table(wrong, "trials")[0][:2] == ["trials", "all"]
    assert table(wrong, "trials")[0][5] == f"{100 * found['test']['eer']:.2f}"
    assert len(table(wrong, "same speaker, low score")) == len(table(wrong, "different speakers, high score")) == 4
    assert (folder / "errors-am-trials.jpg").stat().st_size > 10000
    assert "[What am gets wrong](errors-am.md)" in (folder / "README.md").read_text()
    again = subprocess.run(
        f"{found['command']} --output_folder={tmp_path}/again --results_folder={tmp_path}/again",
        shell=True,
        env={**os.environ, "data": str(tiny), "OMP_NUM_THREADS": "2"},  # --threads comes first
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    [path] = (tmp_path / "again" / "runs").glob("*.json")
    assert json.loads(path.read_text())["test"]["eer"] == found["test"]["eer"]


def test_the_hardest_pairs_are_the_low_targets_and_the_high_non_targets():
    labels = np.array([True, False] * 6)
    judged = hard_pairs.Judged(
        "x",
        Trials("x", "", "", list("ab"), np.zeros(12, int), np.ones(12, int), labels, None),
        {},
        [np.arange(12.0), np.arange(12.0)],
    )
    assert hard_pairs.hardest(judged) == {
        "same speaker, low score": [0, 2, 4, 6],
        "different speakers, high score": [11, 9, 7, 5],
    }
    assert judged.ranks[0] == 0 and judged.ranks[-1] == 1


def test_pairs_of_a_system_that_was_not_run(toy, capsys):
    assert main([*toy(), "--pairs", "good"]) == 2
    assert "has no run of 'good' yet; the systems are good, bad" in capsys.readouterr().err
