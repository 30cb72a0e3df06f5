"""docs/scoring.md: its commands run, its numbers are what is printed, its tables say what the code does."""

import doctest
import json
import math
import re
import shlex
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from support import pages

from sv_ssl import audio
from sv_ssl.cli import score, verify
from sv_ssl.embeddings import store
from sv_ssl.verification import columns, metrics, trials

PAGE = pages.read("docs/scoring.md")
BLOCKS = pages.blocks(PAGE)
COMMANDS = pages.command_lines(PAGE)
FORMS = {"speechbrain": "{0} {1} {3:d} {2:f}", "wespeaker": "{0} {1} {2:.5f} {4}", "other": "{0} {1} {2} {4}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the page's commands read: 8 speakers of two sessions with two recordings each, and 12 of a cohort."""
    made = tmp_path_factory.mktemp("docs")
    rng = np.random.default_rng(0)
    voices = rng.standard_normal((20, 16))
    ids = [f"id{i}/{session}/{k}.wav" for i in range(20) for session in "ab" for k in (1, 2)]
    rows = np.repeat(voices, 4, axis=0) + rng.standard_normal((80, 16))
    store.write(made / "embeddings.npz", ids[:32], rows[:32])
    store.write(made / "cohort.npz", ids[32:], rows[32:])
    pairs = [(ids[i], ids[j], i // 4 == j // 4) for i in range(32) for j in range(i + 1, 32) if j - i < 14]
    listed, dev = [[pair for pair in pairs if (int(pair[0][2]) < 4) == first] for first in (True, False)]
    for name, part in ("trials", listed), ("dev", dev):
        write(made / f"{name}.txt", "{3:d} {0} {1}", part, rng)
    for name, form in FORMS.items():
        write(made / f"{name}.txt", form, listed, rng)
    for name in ("dev_scores", "dev_other"):
        write(made / f"{name}.txt", FORMS["other"], dev, rng)
    models = {f"m{i}": ids[4 * i : 4 * i + 2] for i in range(6)}
    (made / "models.tsv").write_text("".join(f"{model}\t{' '.join(own)}\n" for model, own in models.items()))
    tests = [f"m{i} {ids[4 * j + 2]} {'target' if i == j else 'nontarget'}\n" for i in range(6) for j in range(6)]
    (made / "models.txt").write_text("".join(tests))
    people = [f"{i},{'fm'[int(i[2:].split('/')[0]) % 2]},{2 + k % 5}.5\n" for k, i in enumerate(ids[:32])]
    (made / "test.csv").write_text("id,gender,duration\n" + "".join(people))
    for name in ["a.wav", "b.wav", "c.wav", *(f"wav/{i}" for i in ids[:32])]:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(made / name, 0.1 * rng.standard_normal(4000), 16000)
    (made / "pairs.txt").write_text("1 a.wav b.wav\n1 b.wav a.wav\n0 a.wav c.wav\n0 c.wav b.wav\n")
    return made


def write(path, form, pairs, rng):
    lines = []
    for enroll, test, same in pairs:
        word = "target" if same else "nontarget"
        lines.append(form.format(enroll, test, float(rng.normal(2.0 * same)), same, word) + "\n")
    path.write_text("".join(lines))


@pytest.fixture
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for kind, name, text in BLOCKS:
        if kind == "text" and name:
            (folder / name).write_text(text)
    return folder


@pytest.fixture
def run(there, monkeypatch, capsys):
    """A command line of the page -> its exit code, what it printed."""

    def one(line):
        words = shlex.split(line)
        if "<" in words:
            monkeypatch.setattr(sys, "stdin", open(words[-1], encoding="utf-8"))
            words = words[:-2]
        code = {"sv-score": score.main, "sv-verify": verify.main}[words[0]](words[1:])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return one


def test_every_command_runs(run, there):
    """In the page's order; what one writes the next may read."""
    import torch

    from sv_ssl.models import folder as model
    from sv_ssl.models.embedder import Embedder
    from sv_ssl.models.features import LogMel
    from sv_ssl.models.resnet import FastResNet34

    torch.manual_seed(0)
    model.save("MODEL", Embedder(LogMel(40), FastResNet34(40, "small")), {})
    assert len(COMMANDS) >= 23
    found = {line: run(line) for line in COMMANDS}
    assert {line: printed for line, (code, printed) in found.items() if code} == {}
    written = ["scores.txt", "metrics.json", "conditions.csv", "plots/det.png", "report.html", "cal.json", "model.json"]
    assert [name for name in written if not (there / name).is_file()] == []


def test_the_example_prints_what_the_page_says(run):
    example = [
        (text, after)
        for (kind, _, text), (_, _, after) in zip(BLOCKS, BLOCKS[1:])
        if "six.txt" in text and kind == "sh"
    ]
    assert len(example) == 1
    command, page = example[0]
    code, printed = run(command)
    assert code == 0 and printed.startswith(page)


def test_the_python_of_the_page(there):
    examples = [text for kind, _, text in BLOCKS if kind == "python"]
    assert len(examples) == 1
    test = doctest.DocTestParser().get_doctest(examples[0], {}, "docs/scoring.md", None, 0)
    assert len(test.examples) >= 9
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_points_of_the_example_are_those_of_the_table(there):
    listed = trials.read_trials("six.txt")
    curve = metrics.operating_points(listed.scores, listed.labels)
    header, rows = re.search(r"(\| threshold \|.*?)\n\|[-|]+\n(.*?)\n\n", PAGE, re.DOTALL).groups()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()]
    assert len(cells) == 6 and header.count("|") == 7
    thresholds = [math.inf if "infty" in row[0] else float(row[0]) for row in cells]
    np.testing.assert_array_equal(thresholds, curve.threshold)
    for k, (_, refused, p_miss, accepted, p_fa, cost) in enumerate(cells):
        assert [int(s) for s in refused.split(", ") if s != "none"] == sorted(
            s for s in listed.scores[listed.labels] if s < thresholds[k]
        )
        assert sorted(int(s) for s in accepted.split(", ") if s != "none") == sorted(
            s for s in listed.scores[~listed.labels] if s >= thresholds[k]
        )
        assert (Fraction(p_miss), Fraction(p_fa)) == (
            Fraction(int(curve.misses[k]), 2),
            Fraction(int(curve.false_alarms[k]), 4),
        )
        assert float(cost) == pytest.approx(metrics.normalised_cost(*(r[k] for r in curve.rates()), (0.01, 1, 1)))


def test_every_key_that_is_named_is_in_the_json(run, there):
    run("sv-score six.txt --raw-cost --ci --against six.txt --json six.json")
    named = {
        key
        for keys in re.findall(r"^\*\*[^\n]*?\*\* \[([^\]]+)\]", PAGE, re.MULTILINE)
        for key in re.findall(r"`(\w+)`", keys)
    }
    found = json.loads((there / "six.json").read_text())
    assert len(named) >= 13 and named <= found.keys()
    measured = {key for key in found if isinstance(found[key], (float, dict))}
    assert measured <= named


def test_what_speechbrain_prints_for_the_example(there):
    torch = pytest.importorskip("torch")
    stats = pytest.importorskip("speechbrain.utils.metric_stats")
    listed = trials.read_trials("six.txt")
    kinds = [torch.tensor(listed.scores[kind]) for kind in (listed.labels, ~listed.labels)]
    row = next(line for line in PAGE.splitlines() if line.startswith("| SpeechBrain | the point"))
    eer, cost = re.search(r"\(([\d.]+) % for the six.*\(([\d.]+) for the six", row).groups()
    assert stats.EER(*kinds)[0] == pytest.approx(float(eer) / 100)
    assert stats.minDCF(*kinds)[0] == pytest.approx(float(cost), abs=1e-6)


def test_others_get_the_columns_that_they_read(run, there):
    """What the page says to cut out of a score file, in a shell."""
    run("sv-score trials.txt --scores-out scores.txt")
    lines = [line.split(" ") for line in (there / "scores.txt").read_text().splitlines()]
    assert all(len(line) == 4 and line[3] in ("target", "nontarget") for line in lines)  # WeSpeaker
    cuts = re.findall(r"`((?:cut|awk) [^`]+ scores.txt)`", PAGE)
    shown = [
        [line.split() for line in subprocess.run(["sh", "-c", cut], capture_output=True, text=True).stdout.splitlines()]
        for cut in cuts
    ]
    kaldi, eer, voxsrc = shown
    assert kaldi == [line[:3] for line in lines] and eer == [line[2:] for line in lines]
    assert voxsrc == [[line[2], *line[:2]] for line in lines]


def test_all_toolkits_files_are_read(there):
    wanted = trials.read_trials("trials.txt")
    for name in FORMS:
        listed = trials.read_trials(f"{name}.txt")
        assert listed.scores is not None and listed.labels.tolist() == wanted.labels.tolist()


def test_the_tables_name_every_form():
    endings = re.search(r"\| ending \|(.*?)\n\n", PAGE, re.DOTALL)[1]
    assert all(
        f"| `{kind}" in endings or f"`{kind}` |" in endings or f"| {kind} |" in endings for kind in store.READERS
    )
    pairs = re.search(r"^- Labels: (.*?)\.", PAGE, re.DOTALL | re.MULTILINE)[1]
    assert pairs.split(", ") == columns.PAIRS.split()
