"""Each benchmark runs from end to end at a small size, and what it writes becomes a table. Nothing here is timed."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from sv_ssl.core import command
from sv_ssl.reporting import result_tables

HOME = Path(__file__).resolve().parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not HOME.is_dir(), reason="the benchmarks are not part of an installed package")


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(HOME))
    return importlib.import_module


@pytest.fixture
def rows(program, monkeypatch, tmp_path):
    """rows(name, *options) runs the program and gives its rows, which must be in the tables."""

    def run(name, *options):
        out = tmp_path / "benchmarks" / f"{name}.json"
        monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", *options, "--out", str(out)])
        assert command.run(program(name).main) == 0
        result_tables.write(tmp_path)
        found = json.loads(out.read_text())
        text = (tmp_path / "README.md").read_text()
        assert all(f"| {' | '.join(row)} |" in text for row in found["rows"])
        return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]

    return run


def refused(program, monkeypatch, capsys, name, *options):
    monkeypatch.setattr(sys, "argv", [name, *options])
    assert command.run(program(name).main) == 2
    return capsys.readouterr().err


def test_extract_gives_the_embeddings_of_speechbrains_loop(program, rows):
    found = rows(
        "extract", "--files", "4", "--repeats", "2", "--encoders", "small", "--cores", "1", "--only", "ours,loop,padded"
    )
    by_name = {(row["system"], row["precision"]): row for row in found}
    assert len(found) == 5 and all(float(row["utt/s"]) > 0 for row in found)
    assert [row["files"] for row in found] == ["4", "4", *2 * ["2" if program("extract").LOW == 1 else "1"], "2"]
    assert float(by_name["SpeechBrain's loop", "fp32"]["differs from ours by"]) < 1e-5
    assert float(by_name["SpeechBrain's padded 8", "fp32"]["differs from ours by"]) > 1e-4
    assert by_name["SpeechBrain's loop", "fp32"]["of SpeechBrain's loop"] == "1.00 x"


def test_extract_counts_what_two_processes_embed_once_they_are_warm(program, tmp_path):
    module = program("extract")
    folder, wavs = module.untrained(tmp_path, "small", onnx=False), module.recordings(tmp_path, 12)
    one, two = (module.work(module.OURS, cores, folder, wavs) for cores in (1, 2))
    assert abs(one.rows - two.rows).max() < 1e-5 and (one.files, two.files) == (12, 8)
    assert one.audio_seconds == pytest.approx(module.seconds_of(wavs))
    assert two.audio_seconds == pytest.approx(module.seconds_of(wavs[4:]))


def test_extract_with_onnxruntime(program, tmp_path):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    module = program("extract")
    folder, wavs = module.untrained(tmp_path, "small", onnx=True), module.recordings(tmp_path, 1)
    ours, exported = (module.work(system, 1, folder, wavs) for system in module.SYSTEMS[:2])
    assert 0 < abs(ours.rows - exported.rows).max() < 1e-4 * abs(ours.rows).max()


def test_extract_refuses_what_there_is_not(program, monkeypatch, capsys):
    assert "choose of ecapa512" in refused(program, monkeypatch, capsys, "extract", "--encoders", "ecapa")
    assert "wanted 1 to --files 2" in refused(program, monkeypatch, capsys, "extract", "--files", "2")


TINY = "--resnet34 small --ecapa small --batch 4 --seconds 0.5 --steps 1 --workers 0"


def test_a_training_step_end_to_end(rows, tiny):
    [row] = rows("train_step", "--recipes", "moco_am-resnet34", *TINY.split(), "--corpus", str(tiny))
    assert row["recipe"] == "moco_am-resnet34" and float(row["crops/s, end to end"].replace(",", "")) > 0
    one, eight, _ = row["an epoch of VoxCeleb2 on 1, 8, 64 of these"].removesuffix(" h").split(", ")
    assert float(one.replace(",", "")) == pytest.approx(8 * float(eight.replace(",", "")), rel=0.01)


def test_recipes_of_two_methods_and_encoders_make_a_step(program, tiny, monkeypatch):
    module = program("train_step")
    monkeypatch.setattr(module, "SPEAKERS", 10)
    monkeypatch.setattr(sys, "argv", ["train_step.py", *TINY.split(), "--corpus", str(tiny)])
    arguments = module.parsed()
    assert len(arguments.recipes) == 6
    for recipe in ("simclr_am-resnet34", "aam_softmax-ecapa"):
        found = module.measured(recipe, arguments)
        assert found["rate"] > 0 and found["limit"] > 0 and found["memory"] > 1e6 and 0 <= found["waiting"] <= 1


def test_the_parts_of_a_step(rows, tiny):
    found = rows("train_step", "--parts", "--recipes", "simclr_am-resnet34", *TINY.split(), "--corpus", str(tiny))
    assert [row["part"] for row in found][:5] == ["augment", "features", "encoder", "loss", "optimiser"]
    shares = sum(float(row["share"].rstrip("%")) for row in found[:5])
    assert shares == pytest.approx(100, abs=0.5) and len(found) == 13


def test_train_step_refuses_what_there_is_not(program, monkeypatch, capsys):
    assert "choose of simclr_am-resnet34" in refused(program, monkeypatch, capsys, "train_step", "--recipes", "dino")


def test_the_losses_of_angles_need_nothing_quadratic_in_classes(program, monkeypatch):
    module = program("losses")
    monkeypatch.setattr(module, "least", lambda works, repeats: [1.0 for _ in works])
    found = {what: beside for what, _, _, beside in module.angular_rows()}
    assert len(found) == 14
    for name in ("ADD, soft", "focal"):
        few, many = (
            float(found[f"{name}, {classes} classes, 512 rows: memory"].split(" MB")[0]) for classes in ("35", "5,994")
        )
        assert many - few < 12 * 512 * 5994 * 4 / 2**20 < 5994**2 * 4 / 2**20 + 10  # 137 MB would be C x C


def test_the_losses_are_written(rows):
    assert len(rows("losses", "--only", "collisions")) == 3


def test_index(rows):
    [row] = rows("index", "--speakers", "2000", "--dim", "16", "--only", "flat")
    assert row["kind"] == "flat" and row["recall at 1, at 10"] == "100.0%, 100.0%"


def test_a_leak_is_seen(program, tmp_path, monkeypatch, capsys):
    leak = "import time\nkept = []\nfor _ in range(20):\n    kept.append(b'x' * 4000000)\n    time.sleep(0.1)"
    out = tmp_path / "soak.json"
    monkeypatch.setattr(sys, "argv", ["soak.py", "--every", "0.1", "--out", str(out), "--", sys.executable, "-c", leak])
    assert command.run(program("soak").main) == 0
    *rows, last = json.loads(out.read_text())["rows"]
    assert float(last[2].split()[0]) > 1.2 and float(last[3].split()[0]) == pytest.approx(1, abs=0.2)
    assert len(rows) > 5 and "memory of the last third" in capsys.readouterr().out
    assert "exit code 3" in refused(program, monkeypatch, capsys, "soak", "--", sys.executable, "-c", "exit(3)")


def test_methods_are_measured_by_their_passes_and_positives_by_an_epoch(program, rows, monkeypatch):
    module = program("methods")
    for name, small in {
        "BATCH": 4,
        "REPEATS": 1,
        "UTTERANCES": 200,
        "PUBLISHED": 0.1,
        "LONG": 0.3,
        "SHORT": 0.2,
    }.items():
        monkeypatch.setattr(module, name, small)
    for name, small in {"CLEAN": 0.3, "WIDE_K": 2048, "WIDE_BATCH": 4}.items():
        monkeypatch.setattr(module, name, small)
    found = rows("methods")
    assert [row["what"].split(":")[0] for row in found] == ["SimCLR", "SimCLR + SSPS", "DINO", "SDPN", "SSPS", "DINO"]
    assert all(float(row["measured"].split()[0].rstrip("%")) > 0 for row in found)
