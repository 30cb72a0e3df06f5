import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sv_ssl.core import seeds
from sv_ssl.core.errors import InputError
from sv_ssl.reporting import record, result_tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"


def run(name="am", seed=0, eer=0.08, **more):
    test = {
        "list": "/data/voxceleb1/trials.txt",
        "sha1": "0123456789abcdef",
        "n_target": 1000,
        "n_nontarget": 3000,
        "eer": eer,
        "min_dcf": {"0.01": 8 * eer, "0.05": 4 * eer},
        "ci": {"eer": [eer - 0.01, eer + 0.01], "min_dcf": {"0.01": [0.5, 0.75], "0.05": [0.25, 0.5]}},
    }
    known = {"name": name, "corpus": "built-in", "seed": seed, "test": test, "minutes": 4.0, "device": "CPU, 2 threads"}
    return {**known, "overrides": {"seed": seed, "output_folder": "/tmp/x"}, **more}


def regenerate(folder):
    return subprocess.run([sys.executable, "-m", "sv_ssl.results", folder], capture_output=True, text=True)


def cells(folder, beginning):
    lines = (folder / "README.md").read_text().splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith(f"| {beginning}")]


def test_a_run_is_recorded_with_versions_and_commit(tmp_path):
    path = record.record(tmp_path, run(baselines={"untrained": 0.4}))
    assert path == tmp_path / "runs" / "am-built-in-trials-seed0.json"
    found = json.loads(path.read_text())
    assert found["test"]["list"] == "trials.txt"  # folders of this machine are nobody's business
    assert {"python", "numpy", "torch"} <= set(found["versions"]) and found["streams"] == seeds.VERSION
    if (ROOT / ".git").exists():  # of the checkout, not of an installed package
        head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        assert found["commit"].removesuffix("-dirty") == head
    assert found["baselines"] == {"untrained": 0.4} and found["seed"] == 0


def test_a_run_on_several_lists_is_in_the_table_of_each(tmp_path):
    known = run(baselines={"untrained": 0.4})
    hard = {**known["test"], "list": "/data/hard.txt", "eer": 0.2, "sha1": "fedcba9876543210"}
    record.record(
        tmp_path,
        {**known, "lists": {"trials": known["test"], "hard": hard}, "baseline_lists": {"hard": {"untrained": 0.45}}},
    )
    result_tables.write(tmp_path)
    assert [row[2][:5] for row in cells(tmp_path, "am")] == ["20.00", "8.00 "]
    text = (tmp_path / "README.md").read_text()
    assert "### built-in, hard.txt" in text and "45.00" in text
    [path] = (tmp_path / "runs").glob("*.json")
    assert "/data" not in path.read_text() and "/tmp" not in path.read_text()


def test_the_same_run_replaces_its_record_and_another_does_not(tmp_path):
    for again in (
        run(),
        run(eer=0.07),
        run(seed=1),
        run(overrides={"epochs": 3}),
        run(overrides={"epochs": 4}),
        run(corpus="voxceleb 1/O"),
    ):
        record.record(tmp_path, again)
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(names) == 5
    assert "am-voxceleb_1_O-trials-seed0.json" in names
    assert json.loads((tmp_path / "runs" / "am-built-in-trials-seed0.json").read_text())["test"]["eer"] == 0.07


def test_a_result_on_clips_goes_to_a_folder_of_its_own(tmp_path):
    known = {"name": "clar", "corpus": "sounds 1", "seed": 3, "threads": 2, "accuracy": {"linear": {"accuracy": 0.5}}}
    path = record.record(tmp_path, {**known, "overrides": {"epochs": 2, "data_folder": "/data/clips"}})
    assert path.parent == tmp_path / "audio" and re.fullmatch(r"clar-sounds_1-seed3-[0-9a-f]{6}\.json", path.name)
    assert record.record(tmp_path, known).name == "clar-sounds_1-seed3.json"
    assert path.read_text().count("\n") == 1 and "/data" not in path.read_text()
    found = record.read(path)
    assert found["accuracy"] == known["accuracy"] and (found["threads"], found["streams"]) == (2, seeds.VERSION)
    result_tables.write(tmp_path)
    assert "clar" not in (tmp_path / "summary.csv").read_text()


def test_runs_of_older_random_streams_are_marked(tmp_path):
    for seed, streams in enumerate((1, 1, seeds.VERSION)):
        record.record(tmp_path, run(seed=seed, streams=streams))
    result_tables.write(tmp_path)
    note = "2 of 3 runs were made with the random streams of version 1, until they are made again."
    assert note in (tmp_path / "README.md").read_text().splitlines()
    for path in list((tmp_path / "runs").iterdir())[:]:
        record.record(tmp_path, run(seed=record.read(path)["seed"]))
    result_tables.write(tmp_path)
    assert "random streams" not in (tmp_path / "README.md").read_text()


def test_an_incomplete_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="this one has no seed, test"):
        record.record(tmp_path, {"name": "am", "corpus": "built-in"})
    assert not list(tmp_path.iterdir())


def test_seeds_of_one_system_are_averaged_and_the_best_comes_first(tmp_path):
    for seed, eer in enumerate((0.08, 0.10, 0.12)):
        record.record(tmp_path, run(seed=seed, eer=eer, baselines={"untrained": 0.40 + eer, "no_learning": 0.30}))
    record.record(tmp_path, run("ntxent", eer=0.09, overrides={"margin": 0, "seed": 0}))
    result_tables.write(tmp_path)
    assert cells(tmp_path, "am") == [
        ["am", "0, 1, 2", "10.00 ± 2.00", "0.800 ± 0.160", "0.400 ± 0.080", "50.00", "30.00", "4.0", "CPU, 2 threads"]
    ]
    assert cells(tmp_path, "ntxent")[0][:4] == ["ntxent (margin 0)", "0", "9.00 [8.00, 10.00]", "0.720 [0.500, 0.750]"]
    text = (tmp_path / "README.md").read_text()
    assert text.index("| ntxent") < text.index("| am")
    assert "### built-in, trials.txt" in text and "1,000 target and 3,000 non-target trials" in text
    assert "Reported elsewhere" not in text


def test_the_summary_has_a_line_a_run(tmp_path):
    for seed in (1, 0):
        record.record(tmp_path, run(seed=seed))
    result_tables.write(tmp_path)
    with open(tmp_path / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert rows[0]["eer"] == "0.08" and rows[0]["min_dcf_0.01"] == "0.64" and rows[0]["list"] == "trials.txt"


def test_corpora_and_lists_have_tables_of_their_own(tmp_path):
    record.record(tmp_path, run())
    record.record(tmp_path, run(corpus="voxceleb"))
    result_tables.write(tmp_path)
    assert (tmp_path / "README.md").read_text().count("### ") == 2


def test_reported_figures_stay_apart(tmp_path):
    record.record(tmp_path, run())
    header = ",".join(result_tables.REPORTED)
    (tmp_path / "reported.csv").write_text(f"{header}\nSimCLR,Fast ResNet-34,A,B,0.0785,0.6168,a paper\n")
    result_tables.write(tmp_path)
    ours, theirs = (tmp_path / "README.md").read_text().split("## Reported elsewhere")
    assert "SimCLR" not in ours
    assert "| SimCLR | Fast ResNet-34 | A | B | 7.85 | 0.6168 | a paper |" in theirs
    assert "SimCLR" not in (tmp_path / "summary.csv").read_text()


@pytest.mark.parametrize(
    "text, message",
    [
        ("system,eer\nx,0.1\n", "the first line must be system,encoder"),
        ("system,encoder,train,test,eer,min_dcf,source\nx,,,,7.85,,\n", "reported.csv:2: eer must be a fraction"),
        ("system,encoder,train,test,eer,min_dcf,source\nx,,,,,,\n", "reported.csv:2: eer must be a fraction"),
    ],
)
def test_bad_reported_figures_are_named(tmp_path, text, message):
    (tmp_path / "reported.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        result_tables.write(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"name": "am", "corpus": "x", "seed": 0, "test": {}}'])
def test_a_bad_record_is_named(tmp_path, text):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "bad.json").write_text(text)
    with pytest.raises(InputError, match="bad.json is not the record of a run"):
        result_tables.write(tmp_path)


def test_the_committed_tables_are_those_of_the_committed_runs(tmp_path):
    shutil.copytree(RESULTS, tmp_path / "results")
    done = regenerate(tmp_path / "results")
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("summary.csv", "README.md"):
        assert (tmp_path / "results" / name).read_text() == (RESULTS / name).read_text(), f"{name} is out of date"


def test_the_command_names_what_is_wrong(tmp_path):
    (tmp_path / "reported.csv").write_text("x\n")
    done = regenerate(tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "reported.csv: the first line must be" in done.stderr


def test_the_command_has_help_and_refuses_a_folder_that_is_not_there(tmp_path):
    for arguments, code, text in (
        (["--help"], 0, "usage: python -m sv_ssl.results [-h] [FOLDER]"),
        (["none"], 2, "there is no folder none"),
        (["--wrong"], 2, "unrecognized arguments: --wrong"),
    ):
        command = [sys.executable, "-m", "sv_ssl.results", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code and text in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def test_benchmarks_have_tables_of_their_own(tmp_path):
    cells = ["what", "time"], [("all", "1 ms")]
    record.write_benchmark(tmp_path / "benchmarks" / "b.json", "speed of sorting", "On a CPU.", *cells)
    result_tables.write(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "## Speed of sorting\n\nOn a CPU.\n\n| what | time |\n| --- | --- |\n| all | 1 ms |" in text
    (tmp_path / "benchmarks" / "c.json").write_text("{}")
    with pytest.raises(InputError, match="c.json is not the record of a benchmark"):
        result_tables.write(tmp_path)


def test_studies_are_led_to(tmp_path):
    page = tmp_path / "study" / "toy" / "README.md"
    page.parent.mkdir(parents=True)
    page.write_text("# Study: toy\n\nWhat a toy learns.\n\nMore.\n")
    result_tables.write(tmp_path)
    text = (tmp_path / "README.md").read_text()
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "words.md").write_text("# Words\n\nGenerated by a program.\n\nWhat words teach.\n")
    result_tables.write(tmp_path)
    assert "[Words](audio/words.md): What words teach.\n" in (tmp_path / "README.md").read_text()
    assert "## Studies\n\n[Study: toy](study/toy/README.md): What a toy learns.\n" in text and "More" not in text
