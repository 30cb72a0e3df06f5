"""sv-analyze: what it prints and writes, which labels it takes, and what it refuses."""

import csv
import json

import numpy as np
import pytest

from sv_ssl.analysis import sphere
from sv_ssl.cli import analyze as command
from sv_ssl.embeddings import store


@pytest.fixture
def made(tmp_path):
    """e.npz of 30 rows in three classes, and words.csv with their labels, in another order and with more rows."""
    rng = np.random.default_rng(0)
    labels = np.array(["yes", "no", "up"])[np.arange(30) % 3]
    rows = np.repeat(np.eye(3, 8)[None], 10, axis=0).reshape(30, 8) + 0.3 * rng.standard_normal((30, 8))
    ids = [f"w/{i}.wav" for i in range(30)]
    store.write(tmp_path / "e.npz", ids, rows)
    lines = [f"{i},1.0,$data_root/w/{i}.wav,0,16000,s{i % 5},{labels[i]}" for i in reversed(range(30))]
    (tmp_path / "words.csv").write_text(
        "\n".join(["ID,duration,wav,start,stop,spk_id,label", *lines, "99,1.0,$data_root/w/99.wav,0,16000,s1,yes"])
        + "\n"
    )
    return tmp_path, rows.astype(np.float32), labels


def run(folder, *more, out="out"):
    given = [str(folder / "e.npz"), "--labels", str(folder / "words.csv"), "--out", str(folder / out)]
    return command.main([*given, *more])


def test_numbers_table_and_pictures(made, capsys):
    folder, rows, labels = made
    assert run(folder) == 0
    found = sphere.pairs(rows, labels)
    summary = json.loads((folder / "out" / "analysis.json").read_text())
    assert summary["column"] == "label" and summary["n_classes"] == 3 and summary["n"] == 30
    assert summary["tolerance"] == pytest.approx(sphere.summary(rows, labels, found)["tolerance"])
    with open(folder / "out" / "pairs.csv", newline="") as file:
        table = {(row["class_a"], row["class_b"]): row for row in csv.DictReader(file)}
    assert len(table) == 6 and float(table["no", "yes"]["mean"]) == pytest.approx(found.mean[0, 2])
    assert all((folder / "out" / name).read_bytes().startswith(b"\x89PNG") for name in ("pairs.png", "map.png"))
    shown = capsys.readouterr().out
    assert "30 embeddings of 8 dimensions, 3 classes (label)" in shown
    assert f"uniformity {found.uniformity:.4f}" in shown and "Welch bound 0.0000" in shown


def test_a_class_is_no_formula_in_the_table(made):
    folder, *_ = made
    words = folder / "words.csv"
    words.write_text(words.read_text().replace(",up\n", ",=1+1\n"))
    assert run(folder) == 0
    with open(folder / "out" / "pairs.csv", newline="") as file:
        assert {row["class_a"] for row in csv.DictReader(file)} == {"'=1+1", "no", "yes"}
    assert "=1+1" in (folder / "out" / "analysis.json").read_text()


def test_another_column_and_tsne(made, capsys):
    folder, *_ = made
    assert run(folder, "--column", "spk_id", "--map", "tsne", "--seed", "3") == 0
    assert "5 classes (spk_id)" in capsys.readouterr().out and (folder / "out" / "map.png").exists()


def test_many_classes_have_no_table(made, monkeypatch):
    folder, *_ = made
    monkeypatch.setattr(command, "MOST_CLASSES", 2)
    assert run(folder) == 0 and not (folder / "out" / "pairs.csv").exists()


def test_a_part_of_many_embeddings_is_drawn(made, monkeypatch):
    from sv_ssl.reporting import class_plots

    folder, *_ = made
    seen = []
    monkeypatch.setattr(command, "MOST_ON_MAP", 20)
    monkeypatch.setattr(class_plots, "embedding_map", lambda path, points, labels, *more: seen.append((points, labels)))
    assert run(folder) == 0
    assert seen[0][0].shape == (20, 2) and len(seen[0][1]) == 20


@pytest.mark.parametrize(
    "change, fault",
    [
        (["--column", "gender"], 'no column "gender"; there are ID, duration'),
        (["--labels", "none.csv"], "none.csv"),
        (["--map", "umap"], "invalid choice"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(made, capsys, change, fault):
    assert run(made[0], *change) == 2
    error = capsys.readouterr().err
    assert fault in error and error.count("\n") == 1 and not (made[0] / "out").exists()


def test_missing_and_empty_labels_are_refused(made, capsys):
    folder, *_ = made
    path = folder / "words.csv"
    whole = path.read_text()
    path.write_text(whole.replace("s2,up", "s2,"))
    assert run(folder) == 2
    assert 'embeddings have no "label", such as w/2.wav' in capsys.readouterr().err
    path.write_text("\n".join(line for line in whole.split("\n") if "w/7.wav" not in line))
    assert run(folder) == 2 and "w/7.wav" in capsys.readouterr().err
    path.write_text("id,kind\n" + "".join(f"w/{i}.wav,{i % 2}\n" for i in range(30)))
    assert run(folder) == 2
    assert "no column label, spk_id, speaker: pass --column NAME; there are id, kind" in capsys.readouterr().err
    assert not (folder / "out").exists() and run(folder, "--column", "kind") == 0


def test_pairs_of_an_earlier_analysis_do_not_stay(made, monkeypatch):
    folder, _, _ = made
    assert run(folder) == 0 and (folder / "out" / "pairs.csv").is_file()
    monkeypatch.setattr(command, "MOST_CLASSES", 2)
    assert run(folder) == 0 and not (folder / "out" / "pairs.csv").exists()


@pytest.mark.parametrize("seed", ["-1", "4294967296", "x"])
def test_a_seed_that_is_none_is_refused(made, capsys, seed):
    assert run(made[0], f"--seed={seed}") == 2
    said = capsys.readouterr().err
    assert "--seed" in said and said.count("\n") == 1


def test_labels_without_rows_are_told(made, capsys):
    folder, _, _ = made
    (folder / "words.csv").write_text("ID,label\n")
    assert run(folder) == 2 and "no rows below its line of names" in capsys.readouterr().err
