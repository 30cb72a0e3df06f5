"""sv-score beyond the basics: models, normalisation, calibration, breakdown, comparison, pictures."""

import csv
import json

import numpy as np
import pytest

from sv_ssl.cli import score
from sv_ssl.embeddings import store
from sv_ssl.verification import metrics
from sv_ssl.verification.trials import read_trials

SPEAKERS, EACH = 12, 4


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """24 + 12 speakers of 4 recordings in 16 dimensions; trials of all pairs of the first 12; two systems' scores."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    ids = [f"s{i:02}/u{k}" for i in range(3 * SPEAKERS) for k in range(EACH)]
    rows = np.repeat(rng.normal(size=(3 * SPEAKERS, 16)), EACH, axis=0) + rng.normal(size=(len(ids), 16))
    test = SPEAKERS * EACH
    store.write("emb.npz", ids[:test], rows[:test])
    store.write("dev.npz", ids[test : 2 * test], rows[test : 2 * test])
    store.write("cohort.npz", ids[2 * test :], rows[2 * test :])
    write_list("trials.txt", ids[:test])
    write_list("dev.txt", ids[test : 2 * test])
    sexes = "".join(f"{i},{1 + k % 5}.5,{'fm'[int(i[1:3]) % 2]}\n" for k, i in enumerate(ids))
    (tmp_path / "meta.csv").write_text("id,duration,gender\n" + sexes)
    for name, noise in (("a", 0.0), ("b", 0.3)):
        assert score.main(["trials.txt", "--embeddings", "emb.npz", "--scores-out", f"{name}.txt"]) == 0
        scored = read_trials(f"{name}.txt")
        noisy = scored.scores + noise * rng.normal(size=len(scored.scores))
        lines = zip(scored.enroll, scored.test, noisy, scored.labels)
        text = [f"{scored.ids[e]} {scored.ids[t]} {s:.6f} {'target' if y else 'nontarget'}\n" for e, t, s, y in lines]
        (tmp_path / f"{name}.txt").write_text("".join(text))
    return tmp_path


def write_list(path, ids):
    with open(path, "w") as file:
        for i, one in enumerate(ids):
            file.writelines(f"{int(one[:3] == other[:3])} {one} {other}\n" for other in ids[:i])


def measured(*arguments):
    assert score.main([*map(str, arguments), "--json", "m.json"]) == 0
    with open("m.json") as file:
        return json.load(file)


def test_missing_embeddings_can_be_left_out_and_are_told_everywhere(folder, capsys):
    with open("trials.txt", "a") as file:
        file.write("0 s00/u0 other/1\n0 s00/u1 other/2\n")
    assert score.main(["trials.txt", "--embeddings", "emb.npz"]) == 2
    assert "--allow-missing leaves such trials out" in capsys.readouterr().err
    options = "--scores-out", "s.txt", "--report", "r.html"
    found = measured("trials.txt", "--embeddings", "emb.npz", "--allow-missing", *options)
    note = "left out: 2 of 1,130 trials, 2 utterances have no embedding: other/1, other/2"
    assert found["notes"] == [note] and found["n_trials"] == 1128
    assert note in capsys.readouterr().out and note in (folder / "r.html").read_text()
    assert len((folder / "s.txt").read_text().splitlines()) == 1128


def test_models_of_several_utterances(folder):
    (folder / "models.tsv").write_text("modelid\tsegmentid\nanna\ts00/u0\nanna\ts00/u1\notto\ts01/u0\n")
    (folder / "list.txt").write_text("1 anna s00/u2\n0 anna s01/u2\n1 otto s01/u1\n0 otto s02/u0\n")
    rows = dict(zip(*store.read("emb.npz")))
    unit = {i: row / np.linalg.norm(row) for i, row in rows.items()}
    for how in ("embeddings", "scores"):
        measured("list.txt", "--embeddings", "emb.npz", "--enroll", "models.tsv", "--combine", how, "--scores", "s.txt")
        mean = (unit["s00/u0"] + unit["s00/u1"]) / 2
        mean = mean / np.linalg.norm(mean) if how == "embeddings" else mean
        expected = [mean @ unit["s00/u2"], mean @ unit["s01/u2"], unit["s01/u0"] @ unit["s01/u1"]]
        assert read_trials("s.txt").scores[:3] == pytest.approx(expected, abs=1e-6)
        assert read_trials("s.txt").ids[0] == "anna"


def test_normalised_scores(folder):
    found = measured(
        "trials.txt",
        "--embeddings",
        "emb.npz",
        "--norm",
        "as",
        "--cohort",
        "cohort.npz",
        "--top-n",
        10,
        "--scores-out",
        "s.txt",
    )
    assert found["notes"] == ["normalised (as) by 48 cohort utterances, the 10 nearest"]
    scored, rows = read_trials("s.txt"), dict(zip(*store.read("emb.npz")))
    cohort = store.read("cohort.npz")[1].astype(float)
    cohort /= np.linalg.norm(cohort, axis=1, keepdims=True)
    one, other = (rows[scored.ids[codes[7]]].astype(float) for codes in (scored.enroll, scored.test))
    one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
    tops = [np.sort(cohort @ side)[-10:] for side in (one, other)]
    expected = np.mean([(one @ other - top.mean()) / top.std() for top in tops])
    assert scored.scores[7] == pytest.approx(expected, abs=1e-4)
    found = measured(
        "trials.txt", "--embeddings", "emb.npz", "--norm", "s", "--cohort", "cohort.npz", "--cohort-speakers", "ids"
    )
    assert found["notes"] == ["normalised (s) by 48 cohort utterances, as the means of 12 speakers"]


def test_a_cohort_of_the_lists_own_speakers_is_refused(folder, capsys):
    assert score.main(["trials.txt", "--embeddings", "emb.npz", "--norm", "s", "--cohort", "emb.npz"]) == 2
    assert "nothing is left of the cohort" in capsys.readouterr().err
    both = [np.concatenate(parts) for parts in zip(store.read("emb.npz"), store.read("cohort.npz"))]
    store.write("both.npz", *both)
    found = measured("trials.txt", "--embeddings", "emb.npz", "--norm", "z", "--cohort", "both.npz")
    left = "48 left out that are the list's own or of its speakers"
    assert found["notes"] == [f"normalised (z) by 48 cohort utterances, {left}"]


def test_calibration_is_learnt_kept_and_applied(folder, capsys):
    base = ["trials.txt", "--embeddings", "all.npz"]
    both = [np.concatenate(parts) for parts in zip(store.read("emb.npz"), store.read("dev.npz"))]
    store.write("all.npz", *both)
    learnt = measured(*base, "--calibrate", "dev.txt", "--calibration-out", "cal.json", "--scores-out", "llr.txt")
    out = capsys.readouterr().out
    assert "calibration: llr = " in out and "Cllr" in out and "actDCF" in out
    assert learnt["cllr"] < learnt["min_cllr"] + 0.1 and learnt["cllr"] < measured(*base)["cllr"] - 0.1
    assert measured(*base, "--calibration", "cal.json") == learnt
    scored = read_trials("llr.txt")
    assert metrics.cllr(scored.scores, scored.labels) == learnt["cllr"]


def test_systems_are_fused(folder):
    alone = measured("a.txt")["min_cllr"]
    fused = measured("b.txt", "--fuse", "a.txt", "--calibrate", "b.txt", "--calibrate", "a.txt")
    assert fused["cllr"] <= measured("b.txt")["min_cllr"] and fused["min_cllr"] < alone + 0.02


def test_side_information(folder):
    base = ["trials.txt", "--embeddings", "all.npz", "--calibrate", "dev.txt"]
    both = [np.concatenate(parts) for parts in zip(store.read("emb.npz"), store.read("dev.npz"))]
    store.write("all.npz", *both)
    norm = ["--norm", "s", "--cohort", "cohort.npz", "--manifest", "meta.csv", "--quality", "duration,magnitude,cohort"]
    measured(*base, *norm, "--calibration-out", "cal.json")
    columns = json.loads((folder / "cal.json").read_text())["columns"]
    qualities = [f"{end} {name}" for name in ("duration", "magnitude", "cohort") for end in ("min", "max")]
    assert columns == ["score (s)", *qualities]


def test_breakdown(folder, capsys):
    found = measured("a.txt", "--by", "gender,duration:2,4", "--manifest", "meta.csv", "--csv", "by.csv", "--ci")
    assert [(row["by"], row["value"]) for row in found["conditions"]] == [
        ("gender", "f"),
        ("gender", "m"),
        ("gender", "f / m"),
        ("duration", "<2 s"),
        ("duration", "2-4 s"),
        ("duration", ">=4 s"),
    ]
    assert (
        sum(row["n_target"] for row in found["conditions"][:3])
        == found["n_target"]
        == sum(row["n_target"] for row in found["conditions"][3:])
    )
    assert "no target trials" in capsys.readouterr().out  # of mixed gender
    rows = list(csv.DictReader(open("by.csv")))
    assert rows[0]["by"] == "all"
    assert (float(rows[0]["eer"]), float(rows[0]["eer_low"])) == (found["eer"], found["ci"]["eer"][0])
    assert [row["value"] for row in rows[1:]] == [row["value"] for row in found["conditions"]]
    text = "".join(f"{line} {'xy'[i % 2]}\n" for i, line in enumerate((folder / "a.txt").read_text().splitlines()))
    (folder / "c.txt").write_text("enroll test score label channel\n" + text)
    assert [row["value"] for row in measured("c.txt", "--by", "channel")["conditions"]] == ["x", "y"]


def test_against_another_system(folder, capsys):
    shuffled = (folder / "b.txt").read_text().splitlines()[::-1]
    (folder / "b.txt").write_text("\n".join(shuffled) + "\n")
    found = measured("a.txt", "--against", "b.txt")["against"]
    assert found["eer"]["difference"] == measured("a.txt")["eer"] - measured("b.txt")["eer"]
    assert found["eer"]["p"] < 0.05 and found["eer"]["ci"][1] < 0
    assert "a.txt minus b.txt" in capsys.readouterr().out


def test_raw_costs(folder, capsys):
    found = measured("a.txt", "--raw-cost", "--p-target", "0.01,10,1")
    assert found["min_cost"]["0.01"] == found["min_dcf"]["0.01"] * 0.01
    assert found["min_cost"]["0.01,10,1"] == pytest.approx(found["min_dcf"]["0.01,10,1"] * 0.1)
    assert "raw cost" in capsys.readouterr().out


def test_pictures_and_page(folder, capsys):
    measured("a.txt", "--plot", "plots", "--report", "r.html", "--llr", "--by", "gender", "--manifest", "meta.csv")
    assert sorted(path.name for path in (folder / "plots").iterdir()) == ["calibration.png", "det.png", "scores.png"]
    page = (folder / "r.html").read_text()
    assert "sv-score a.txt --plot plots" in page and 'src="http' not in page
    assert "wrote r.html: open it in a browser" in capsys.readouterr().out


def test_columns_that_cannot_be_told(folder, capsys):
    (folder / "odd.txt").write_text("a b 1 0\nc d 0 1\n")
    assert score.main(["odd.txt"]) == 2
    assert "is column 3 or 4 the label? begin the file with a line of names" in capsys.readouterr().err
    assert measured("odd.txt", "--columns", "enroll,test,score,label")["eer"] == 1
    assert score.main(["odd.txt", "--columns", "enroll,score,label,x"]) == 2
    assert "wanted each column's name once, enroll and test among them" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("trials.txt --embeddings emb.npz --norm as", "--norm needs --cohort"),
        ("trials.txt --embeddings emb.npz --cohort cohort.npz", "--cohort needs --norm"),
        ("trials.txt --model m", "--model needs --audio"),
        ("trials.txt --model m --audio w --embeddings emb.npz", "--embeddings and --model exclude each other"),
        ("a.txt --calibration-out c.json", "--calibration-out needs --calibrate"),
        ("a.txt --fuse b.txt", "--fuse needs --calibrate"),
        ("a.txt --fuse b.txt --calibrate dev.txt", "2 systems but 1 --calibrate"),
        ("a.txt --calibrate trials.txt", "trials.txt has no scores"),
        ("a.txt --norm as --cohort cohort.npz", "a.txt has scores already, so --norm would do nothing"),
        ("a.txt --by gender", "a.txt has no such column: pass --manifest"),
        ("a.txt --by height --manifest meta.csv", 'cannot break down by "height"'),
        ("a.txt --against dev.txt", "dev.txt has no scores"),
        ("a.txt --calibration meta.csv", "wanted a calibration"),
        ("trials.txt --embeddings emb.npz --norm as --cohort cohort.npz --top-n 1", "top_n is 1"),
        (
            "trials.txt --embeddings emb.npz --calibrate a.txt --quality age",
            "--quality age: wanted duration, magnitude",
        ),
        ("trials.txt --embeddings emb.npz --calibrate a.txt --quality cohort", "the quality cohort is the mean"),
        ("trials.txt --embeddings emb.npz --enroll none.tsv", "cannot read none.tsv"),
        ("trials.txt --embeddings emb.npz --calibrate a.txt --prior 2", "the prior must lie between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_one_line_and_exit_code_2(folder, capsys, arguments, message):
    assert score.main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
