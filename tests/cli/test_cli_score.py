import io
import json
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from sv_ssl.cli import score
from sv_ssl.core import command
from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import store

# Two voices along the axes, one recording between them: cosines 0.8, 0.6, 0.96, 0, 0.28.
IDS = ["a/1", "a/2", "b/1", "b/2"]
ROWS = np.array([[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8]])
TRIALS = "1 a/1 a/2\n0 a/2 b/1\n1 b/1 b/2\n0 a/1 b/1\n0 a/2 b/2\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trials.txt").write_text(TRIALS)
    store.write(tmp_path / "emb.npz", IDS, ROWS)
    return tmp_path


def test_scores_and_metrics_of_a_list(folder, capsys):
    outputs = ["--scores-out", "out/scores.txt", "--json", "out/metrics.json"]
    assert score.main(["trials.txt", "--embeddings", "emb.npz", *outputs]) == 0
    out = capsys.readouterr().out
    assert 'trials.txt: 5 trials (2 target, 3 non-target), 4 utterances; "label enroll test", separated by' in out
    assert "scores: cosine of emb.npz (4 embeddings of 2 dimensions)" in out
    assert re.search(r"EER +0.000% +threshold 0.8", out)
    assert re.search(r"minDCF +0.0000 +p_target 0.01, c_miss 1, c_fa 1, threshold 0.8", out)
    assert "wrote out/scores.txt: 5 lines" in out and "wrote out/metrics.json" in out and "next: " in out
    lines = [line.split() for line in (folder / "out" / "scores.txt").read_text().splitlines()]
    assert [line[:2] for line in lines] == [line.split()[1:] for line in TRIALS.splitlines()]
    assert [float(line[2]) for line in lines] == pytest.approx([0.8, 0.6, 0.8, 0, 0], abs=1e-6)
    found = json.loads((folder / "out" / "metrics.json").read_text())
    assert (found["n_target"], found["n_nontarget"], found["eer"]) == (2, 3, 0)
    assert found["min_dcf"] == {"0.01": 0, "0.05": 0}
    assert found["eer_threshold"] == pytest.approx(0.8)
    assert found["list"] == "trials.txt" and len(found["sha1"]) == 40


def test_rows_that_carry_scores_are_taken_as_they_are(folder, capsys):
    (folder / "embeddings.npz").write_text("not to be read")
    (folder / "scores.txt").write_text("a b 0.5 target\na c 0.6 nontarget\nd b 0.7 target\nd c 0.1 nontarget\n")
    assert score.main(["scores.txt", "--json", "m.json", "--p-target", "0.5", "--p-target", "0.01,10,1"]) == 0
    assert "scores: as the file has them" in capsys.readouterr().out
    found = json.loads((folder / "m.json").read_text())
    assert found["eer"] == 0.5
    assert list(found["min_dcf"]) == ["0.01", "0.05", "0.5", "0.01,10,1"]
    assert found["min_dcf"]["0.5"] == 0.5


def test_embeddings_are_looked_for_here_then_beside_the_list(folder, monkeypatch, capsys):
    (folder / "lists").mkdir()
    (folder / "lists" / "trials.txt").write_text(TRIALS)
    assert score.main(["lists/trials.txt"]) == 2
    wanted = "there is no embeddings.npz or lists/embeddings.npz: pass --embeddings FILE, or --model DIR --audio ROOT\n"
    assert capsys.readouterr().err.endswith("lists/trials.txt has no scores and " + wanted)
    store.write(folder / "lists" / "embeddings.npz", IDS, ROWS)
    assert score.main(["lists/trials.txt"]) == 0
    assert "cosine of lists/embeddings.npz" in capsys.readouterr().out
    store.write(folder / "embeddings.npz", IDS, ROWS)
    assert score.main(["lists/trials.txt"]) == 0
    assert "cosine of embeddings.npz" in capsys.readouterr().out


def test_intervals(folder, capsys):
    rng = np.random.default_rng(0)
    rows = [(i, j) for i in range(20) for j in range(20)]
    rows = [(i, j, k, int(i == j)) for i, j in rows for k in range(2)]
    text = "".join(f"s{i}/{k} s{j}/x {rng.normal() + 2 * same:.3f} {same}\n" for i, j, k, same in rows)
    (folder / "scores.txt").write_text(text)
    assert score.main(["scores.txt", "--ci", "--json", "m.json"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"EER +\d+\.\d{3}% +\[\d+\.\d+, \d+\.\d+\]", out)
    assert "[ ]: 95 % interval, 1,000 resamplings of 20 speakers" in out
    assert "of the scores are repeated ones" in out
    found = json.loads((folder / "m.json").read_text())
    assert found["ci"]["eer"][0] < found["eer"] < found["ci"]["eer"][1]
    assert found["ci"]["min_dcf"]["0.05"][0] <= found["min_dcf"]["0.05"] <= found["ci"]["min_dcf"]["0.05"][1]
    (folder / "scores.txt").write_text(re.sub(r"s(\d+)/", r"\1", text))
    assert score.main(["scores.txt", "--ci"]) == 0
    assert "the ids do not tell the speakers" in capsys.readouterr().out


def test_distances_are_pointed_out(folder, capsys):
    (folder / "scores.txt").write_text("a b 0.1 target\na c 0.6 nontarget\nd b 0.2 target\nd c 0.7 nontarget\n")
    assert score.main(["scores.txt"]) == 0
    assert "note: targets score lower than non-targets" in capsys.readouterr().out


def test_a_list_without_labels_gives_scores_only(folder, capsys):
    (folder / "trials.txt").write_text("a/1 a/2\na/1 b/1\n")
    assert score.main(["trials.txt", "--embeddings", "emb.npz"]) == 2
    err = capsys.readouterr().err
    assert "trials.txt has no labels, so nothing can be measured: keep the scores with --scores-out" in err
    assert score.main(["trials.txt", "--embeddings", "emb.npz", "--scores", "s.txt", "--json", "m.json"]) == 0
    assert "no labels, so no metrics" in capsys.readouterr().out
    assert len((folder / "s.txt").read_text().splitlines()) == 2
    assert "eer" not in json.loads((folder / "m.json").read_text())


def test_standard_input(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(TRIALS.encode())))
    assert score.main(["-", "--embeddings", "emb.npz"]) == 0
    assert "standard input: 5 trials" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "required: TRIALS"),
        (["trials.txt", "--wrong"], "unrecognized arguments: --wrong"),
        (["none.txt"], "cannot read none.txt: No such file"),
        (["trials.txt", "--embeddings", "none.npz"], "cannot read none.npz: No such file"),
        (["trials.txt", "--embeddings", "trials.txt"], "trials.txt: wanted embeddings as .npz"),
        (["bad.txt", "--embeddings", "emb.npz"], "bad.txt:2: label '7' is neither 1 nor 0: '7 a/1 b/1'"),
        (["one.txt", "--embeddings", "emb.npz"], "no non-target trial"),
        (["more.txt", "--embeddings", "emb.npz"], "1 of 5 utterances (1 of 6 trials) have no embedding: c/1"),
        (["trials.txt", "--embeddings", "emb.npz", "--p-target", "1"], "p_target must lie between 0 and 1"),
        (["trials.txt", "--embeddings", "emb.npz", "--p-target", "0.1,2"], "wanted P or P,C_MISS,C_FA, not 0.1,2"),
        (["trials.txt", "--embeddings", "emb.npz", "--p-target", "x"], "invalid"),
        (["trials.txt", "--embeddings", "emb.npz", "--json", "trials.txt/m.json"], "cannot write trials.txt/m.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, capsys, arguments, message):
    (folder / "bad.txt").write_text("1 a/1 a/2\n7 a/1 b/1\n0 a/1 b/2\n")
    (folder / "one.txt").write_text("1 a/1 a/2\n1 b/1 b/2\n")
    (folder / "more.txt").write_text(TRIALS + "0 a/1 c/1\n")
    assert score.main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_run_maps_errors_to_exit_codes(capsys):
    def fail(error):
        raise error

    assert command.run(lambda: None) == 0
    assert command.run(lambda: fail(InputError("wrong"))) == 2
    assert capsys.readouterr().err.endswith(": wrong\n")
    assert command.run(lambda: fail(OSError(28, "No space left on device", "out.txt"))) == 2
    assert capsys.readouterr().err.endswith(": out.txt: No space left on device\n")
    assert command.run(lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "\nstopped\n"
    with pytest.raises(ZeroDivisionError):  # our own faults keep their traceback
        command.run(lambda: 1 / 0)


def test_help_tells_definitions_and_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        score.main(["--help"])
    out = capsys.readouterr().out
    for word in ("EER ", "minDCF", "P_miss", "examples", "sv-score veri_test2.txt --embeddings emb.npz"):
        assert word in out


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options)


def test_nothing_slow_is_imported(folder):
    code = "import sys; from sv_ssl.cli import score; score.main({}); print(sorted(sys.modules), file=sys.stderr)"
    done = python(code.format(["trials.txt", "--embeddings", "emb.npz", "--scores-out", "s.txt", "--json", "m.json"]))
    assert "EER" in done.stdout
    for package in ("torch", "scipy", "pandas", "sklearn", "matplotlib", "speechbrain"):
        assert f"'{package}'" not in done.stderr
    done = python("import sys; from sv_ssl.cli import score; print(sorted(sys.modules))")
    assert "'numpy'" not in done.stdout


def test_a_closed_pipe_and_an_interrupt_leave_no_traceback(folder):
    code = "import sys; from sv_ssl.cli import score; sys.exit(score.main(['trials.txt', '--embeddings', 'emb.npz']))"
    piped = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{code}" | true; exit ${{PIPESTATUS[0]}}'], capture_output=True, text=True
    )
    assert piped.stderr == "" and piped.returncode in (0, 141)  # 0 if all was written before the reader left
    waiting = "import sys; from sv_ssl.cli import score; print('up', flush=True); sys.exit(score.main(['-']))"
    with subprocess.Popen(
        [sys.executable, "-c", waiting],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        time.sleep(1)  # it is on its way to the command
        process.send_signal(signal.SIGINT)
        assert (process.wait(30), process.stderr.read()) == (130, "\nstopped\n")
