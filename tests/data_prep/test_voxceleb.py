"""VoxCeleb prepared: trees, archives, what is damaged, missing or there twice, and the published counts."""

import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import soundfile

from data_prep import archives, decode, vox_lists, vox_sources, voxceleb
from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.data import manifest
from sv_ssl.training import dataset, experiment
from sv_ssl.training.settings import SpeakerSettings

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "voxceleb1"
RECIPE = ROOT / "recipes" / "voxceleb" / "train_simclr_am.py"

# A fake ffmpeg: its m4a files hold a number of samples in letters, or "bad".
FFMPEG = f"""#!{sys.executable}
import sys
import numpy, soundfile
words = sys.argv[1:]
inputs = [words[i + 1].removeprefix("file:") for i, word in enumerate(words) if word == "-i"]
outputs = [word for word in words if word.endswith(".flac") or word.endswith(".wav")]
assert len(inputs) == len(outputs)
for source, made in zip(inputs, outputs):
    content = open(source).read().strip()
    if content == "bad":
        print(f"{{source}}: Invalid data found when processing input", file=sys.stderr)
        sys.exit(1)
    soundfile.write(made, numpy.sin(numpy.arange(int(content)) / 9) / 2, 16000)
with open({{log!r}}, "a") as log:
    log.write(f"{{len(inputs)}}\\n")
"""


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """A fake ffmpeg, alone on the PATH; gives the file in which it notes how many files it was given each time."""
    tool, log = tmp_path / "bin" / "ffmpeg", tmp_path / "ffmpeg.log"
    tool.parent.mkdir()
    tool.write_text(FFMPEG.replace("{log!r}", repr(str(log))))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    return log


def voice(path, samples=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, 0.3 * np.sin(np.arange(samples) / 7), 16000)


def coded(path, samples=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(samples))


def wav_bytes(samples):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(np.arange(samples) / 5) / 3, 16000, format="WAV")
    return buffer.getvalue()


def packed(path, members):
    """Write a zip of {name: content}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def split(path, count):
    """A zip -> its parts, as `split -b` makes them: all as long as the first, but the last."""
    data = path.read_bytes()
    size = -(-len(data) // count)
    path.unlink()
    parts = [path.with_name(f"{path.stem}_parta{chr(ord('a') + i)}") for i in range(count)]
    for i, part in enumerate(parts):
        part.write_bytes(data[i * size : (i + 1) * size])
    return parts


def prepare(*arguments):
    return voxceleb.main([str(argument) for argument in arguments])


def problems(out):
    with open(out / "problems.csv", newline="") as file:
        return [(row["part"], row["name"], row["problem"]) for row in csv.DictReader(file)]


def ids(out, name="train.csv"):
    return sorted(manifest.read(out / name)["ID"])


VOX1_DEV, VOX1_TEST = ["id10001/a/00001", "id10001/b/00001", "id11251/a/00002"], ["id10270/x/00001", "id10309/y/00003"]
VOX2_DEV, VOX2_TEST = ["id00012/s/00001", "id00012/t/00001", "id09272/s/00001"], ["id00017/s/00001"]
TRIALS = "1 id10270/x/00001.wav id10270/x/00001.wav\n0 id10270/x/00001.wav id10309/y/00003.wav\n"
HARD = "1 id10001/a/00001.wav id10001/b/00001.wav\n0 id10001/a/00001.wav id11251/a/00002.wav\n"


@pytest.fixture
def downloads(tmp_path):
    """Unpacked trees as they come: VoxCeleb1's wav/ twice, VoxCeleb2's dev/aac and aac; lists; metadata."""
    root = tmp_path / "downloads"
    for name in VOX1_DEV:
        voice(root / "voxceleb1" / "vox1_dev_wav" / "wav" / f"{name}.wav", 8000)
    for name in VOX1_TEST:
        voice(root / "voxceleb1" / "vox1_test_wav" / "wav" / f"{name}.wav", 9000)
    for name in VOX2_DEV:
        coded(root / "voxceleb2" / "dev" / "aac" / f"{name}.m4a", 10000)
    for name in VOX2_TEST:
        coded(root / "voxceleb2" / "aac" / f"{name}.m4a", 11000)
    (root / "veri_test2.txt").write_text(TRIALS)
    (root / "list_test_hard.txt").write_text(HARD)
    (root / "voxceleb2" / "dev" / "txt" / "id00012" / "s").mkdir(parents=True)
    (root / "voxceleb2" / "dev" / "txt" / "id00012" / "s" / "00001.txt").write_text("face tracks\n")
    return root


# ------------------------------------------------------------------------------------------------------ whole trees
def test_trees_become_the_folder_that_a_recipe_takes(downloads, tmp_path, ffmpeg, capsys):
    out = tmp_path / "vox"
    assert prepare(downloads, "--out", out) == 3  # of the published utterances most are not here
    train = manifest.read(out / "train.csv")
    assert list(train.columns) == ["ID", "duration", "wav", "start", "stop"]
    assert train["ID"].tolist() == [f"{name}.flac" for name in VOX2_DEV] and set(train["duration"]) == {0.625}
    assert len(audio.read(train["wav"][0])) == 10000
    assert ids(out, "vox1_dev.csv") == [f"{name}.wav" for name in VOX1_DEV]
    assert ids(out, "vox1_test.csv") == [f"{name}.wav" for name in VOX1_TEST]
    assert ids(out, "vox2_test.csv") == [f"{name}.flac" for name in VOX2_TEST]
    said = capsys.readouterr().out
    assert "VoxCeleb2 dev: 3 utterances of 1,092,009, 2 speakers of 5,994" in said
    assert f"next: python recipes/voxceleb/train_simclr_am.py hparams/am.yaml --data_folder {out}" in said
    objects = dict.fromkeys(("embedder", "method", "lr", "opt_class"))
    folders = {"data_folder": str(out), "output_folder": str(tmp_path / "run")}
    found = dataset.read(SpeakerSettings(name="a", epochs=1, batch_size=2, **folders, **objects))
    [test] = found.tests
    assert len(found.train) == 3 and len(test.trials.enroll) == 2 and test.audio_root == out / "wav"


def test_speakers_come_when_they_are_asked_for(downloads, tmp_path, ffmpeg):
    prepare(downloads, "--out", tmp_path / "vox", "--speakers", "--train", "both")
    train = manifest.read(tmp_path / "vox" / "train.csv")
    assert train["spk_id"].tolist() == [name[:7] for name in VOX1_DEV + VOX2_DEV]
    assert train["session"].tolist() == [name.split("/")[1] for name in VOX1_DEV + VOX2_DEV]


def test_nothing_changes_in_the_source(downloads, tmp_path, ffmpeg):
    before = {path: path.stat().st_mtime_ns for path in downloads.rglob("*")}
    prepare(downloads, "--out", tmp_path / "vox")
    assert {path: path.stat().st_mtime_ns for path in downloads.rglob("*")} == before


def test_a_tree_in_its_place_is_taken_as_it_is(tmp_path):
    for name in VOX1_DEV + VOX1_TEST + VOX2_DEV:
        voice(tmp_path / "vox" / "wav" / f"{name}.wav")
    prepare(tmp_path / "vox")
    assert ids(tmp_path / "vox") == [f"{name}.wav" for name in VOX2_DEV]
    assert ids(tmp_path / "vox", "vox1_test.csv") == [f"{name}.wav" for name in VOX1_TEST]
    assert not any(path.is_symlink() for path in (tmp_path / "vox").rglob("*"))
    assert not any("$data_root" not in line for line in (tmp_path / "vox" / "train.csv").read_text().splitlines()[1:])


def test_voxceleb1_alone_is_what_is_trained_on(downloads, tmp_path):
    prepare(downloads / "voxceleb1", "--out", tmp_path / "vox")
    assert ids(tmp_path / "vox") == [f"{name}.wav" for name in VOX1_DEV]


def test_the_test_part_alone_makes_no_train_csv(downloads, tmp_path, capsys):
    prepare(downloads / "voxceleb1" / "vox1_test_wav", "--out", tmp_path / "vox")
    assert not (tmp_path / "vox" / "train.csv").exists() and "next: sv-extract" in capsys.readouterr().out


def test_again_decodes_what_is_new_alone(downloads, tmp_path, ffmpeg):
    out = tmp_path / "vox"
    prepare(downloads, "--out", out)
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    table = (out / "train.csv").read_text()
    assert ffmpeg.read_text().split() == ["4"] and len(first) == 4
    prepare(downloads, "--out", out)
    assert ffmpeg.read_text().split() == ["4"] and (out / "train.csv").read_text() == table
    coded(downloads / "voxceleb2" / "dev" / "aac" / "id00012" / "u" / "00001.m4a")
    prepare(downloads, "--out", out)
    assert ffmpeg.read_text().split() == ["4", "1"] and len(ids(out)) == 4
    assert all(path.stat().st_mtime_ns == then for path, then in first.items())


def test_the_folder_outlives_its_sources(downloads, tmp_path, ffmpeg):
    out = tmp_path / "vox"
    prepare(downloads, "--out", out)
    shutil.rmtree(downloads / "voxceleb2")
    table = (out / "train.csv").read_text(), (out / "vox2_test.csv").read_text()
    prepare(out)
    assert ((out / "train.csv").read_text(), (out / "vox2_test.csv").read_text()) == table


def test_files_in_the_making_do_not_count(downloads, tmp_path, ffmpeg):
    out = tmp_path / "vox"
    prepare(downloads, "--out", out)
    assert not list(out.rglob(".*"))  # none are left
    voice(out / ".decoding-killed" / "id00012" / "z" / "00001.flac")
    prepare(downloads, "--out", out)
    assert len(ids(out)) == 3


# -------------------------------------------------------------------------------------------------------- dev and test
def parts(downloads, *more):
    with ExitStack() as stack:
        found = vox_sources.look([downloads, *more], downloads.parent / "none", stack)
        return voxceleb.divide(found, voxceleb.published_parts(found.metas)), found


@pytest.mark.parametrize(
    "folders, want",
    [
        ({"dev/aac": "id00012", "aac": "id00017"}, {"id00012": "vox2_dev", "id00017": "vox2_test"}),
        (
            {"voxceleb2_dev/x": "id00012", "voxceleb2_test/x": "id00017"},
            {"id00012": "vox2_dev", "id00017": "vox2_test"},
        ),
        ({"aac": "id00012"}, {"id00012": "vox2_dev"}),
        ({"dev": "id10270", "test": "id10001"}, {"id10270": "vox1_test", "id10001": "vox1_dev"}),
        ({"test/dev": "id00012"}, {"id00012": "vox2_dev"}),
        ({"latest": "id00012", "develop": "id00017"}, {"id00012": "vox2_dev", "id00017": "vox2_dev"}),
    ],
)
def test_dev_and_test_are_told(tmp_path, folders, want):
    for folder, speaker in folders.items():
        coded(tmp_path / "in" / folder / speaker / "s" / "00001.m4a")
    assert parts(tmp_path / "in")[0] == want


def test_metadata_decides(tmp_path):
    for speaker in ("id00012", "id00017", "id10001"):
        coded(tmp_path / "in" / "dev" / speaker / "s" / "00001.m4a")
    (tmp_path / "in" / "vox2_meta.csv").write_text(
        "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set\nid00012 ,n000012 ,m ,dev \nid00017 ,n000017 ,m ,test\n"
    )
    (tmp_path / "in" / "vox1_meta.csv").write_text(
        "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid10001\tA.J._Buckley\tm\tIreland\ttest\n"
    )
    assert parts(tmp_path / "in")[0] == {"id00012": "vox2_dev", "id00017": "vox2_test", "id10001": "vox1_test"}


def test_a_bad_line_of_the_metadata_is_named(tmp_path, capsys):
    coded(tmp_path / "in" / "id00012" / "s" / "00001.m4a")
    (tmp_path / "in" / "vox2_meta.csv").write_text("VoxCeleb2 ID ,Set\nid00012 ,dev\nid00017 ,train\n")
    assert prepare(tmp_path / "in") == 2
    assert "vox2_meta.csv:3: want a speaker such as id00012 first, dev or test last" in capsys.readouterr().err


# --------------------------------------------------------------------------------- what is there twice, or not at all
def test_a_name_in_dev_and_in_test_is_taken_once_and_told(tmp_path, ffmpeg):
    source, out = tmp_path / "in", tmp_path / "vox"
    coded(source / "dev" / "aac" / "id00012" / "s" / "00001.m4a", 8000)
    coded(source / "test" / "aac" / "id00012" / "s" / "00001.m4a", 16000)
    coded(source / "dev" / "aac" / "id00015" / "s" / "00001.m4a", 8000)
    prepare(source, "--out", out)
    assert ids(out) == ["id00015/s/00001.flac"] and ids(out, "vox2_test.csv") == ["id00012/s/00001.flac"]
    assert manifest.read(out / "vox2_test.csv")["stop"].tolist() == [16000]  # the longer one
    told = {name: problem for _, name, problem in problems(out) if name}
    assert told == {
        "id00012": "in dev and in test, taken for test: vox2_meta.csv would tell",
        f"{source}/dev/aac/id00012/s/00001.m4a": (
            f"of another size than {source}/test/aac/id00012/s/00001.m4a, which was taken"
        ),
    }


def test_copies_of_one_size_are_counted(tmp_path, capsys):
    for folder in ("dev", "more"):
        voice(tmp_path / "in" / folder / "id10001" / "s" / "00001.wav")
    prepare(tmp_path / "in", "--out", tmp_path / "vox")
    assert "1 files were there twice, in one size" in capsys.readouterr().out
    assert ids(tmp_path / "vox") == ["id10001/s/00001.wav"]


def test_what_is_decoded_already_is_not_decoded(tmp_path):
    voice(tmp_path / "in" / "wav" / "id00012" / "s" / "00001.wav")
    coded(tmp_path / "in" / "dev" / "aac" / "id00012" / "s" / "00001.m4a")
    prepare(tmp_path / "in", "--out", tmp_path / "vox")  # without ffmpeg
    assert ids(tmp_path / "vox") == ["id00012/s/00001.wav"]


def test_a_file_in_its_place_is_never_replaced(tmp_path):
    voice(tmp_path / "vox" / "wav" / "id10001" / "s" / "00001.wav", 4000)
    voice(tmp_path / "in" / "id10001" / "s" / "00001.wav", 8000)
    prepare(tmp_path / "in", "--out", tmp_path / "vox")
    assert audio.info(tmp_path / "vox" / "wav" / "id10001" / "s" / "00001.wav").frames == 4000
    assert any("of another size" in problem for _, _, problem in problems(tmp_path / "vox"))


def test_a_folder_under_two_names_is_one(tmp_path):
    voice(tmp_path / "vox" / "wav" / "id10001" / "s" / "00001.wav")
    (tmp_path / "alias").symlink_to(tmp_path / "vox")
    (tmp_path / "vox" / "loop").symlink_to(tmp_path / "vox")
    prepare(tmp_path / "alias", tmp_path / "vox" / "wav", "--out", tmp_path / "vox")
    assert not (tmp_path / "vox" / "wav" / "id10001" / "s" / "00001.wav").is_symlink()
    assert ids(tmp_path / "vox") == ["id10001/s/00001.wav"]


def test_damaged_and_strange_files_are_listed(downloads, tmp_path, ffmpeg):
    out, dev = tmp_path / "vox", downloads / "voxceleb2" / "dev" / "aac"
    (dev / "id00012" / "s" / "00002.m4a").write_text("bad")
    (downloads / "voxceleb1" / "vox1_test_wav" / "wav" / "id10270" / "x" / "00002.wav").write_bytes(b"")
    (downloads / "voxceleb1" / "vox1_test_wav" / "wav" / "id10270" / "x" / "00003.wav").symlink_to("/nowhere")
    voice(downloads / "greeting.wav")
    prepare(downloads, "--out", out)
    told = {name: problem for _, name, problem in problems(out) if "/" in name}
    assert "Invalid data" in told[str(dev / "id00012" / "s" / "00002.m4a")] and len(ids(out)) == 3
    assert "is empty" in told["wav/id10270/x/00002.wav"]
    assert told[f"{downloads}/voxceleb1/vox1_test_wav/wav/id10270/x/00003.wav"] == "a link to nothing"
    assert told[str(downloads / "greeting.wav")] == "not named id00000/session/utterance"
    assert len(told) == 4


def test_missing_speakers_and_utterances_are_named(downloads, tmp_path, ffmpeg):
    (downloads / "train_list.txt").write_text("id00012 id00012/s/00001.wav\nid00099 id00099/q/00001.wav\n")
    (downloads / "iden_split.txt").write_text("1 id10001/a/00001.wav\n2 id10001/a/00009.wav\n")
    (downloads / "veri_test2.txt").write_text(TRIALS + "0 id10270/x/00001.wav id10300/z/00001.wav\n")
    prepare(downloads, "--out", tmp_path / "vox")
    told = problems(tmp_path / "vox")
    assert ("VoxCeleb2 dev", "", "3 utterances, published are 1,092,009") in told
    assert ("VoxCeleb1 dev", "id10002", "nothing of this speaker") in told
    assert ("VoxCeleb1 test", "id10271", "nothing of this speaker") in told
    assert [(part, name) for part, name, problem in told if problem.startswith("not here, but in")] == [
        ("VoxCeleb2 dev", "id00099/q/00001.wav"),
        ("VoxCeleb1 dev", "id10001/a/00009.wav"),
        ("VoxCeleb1 test", "id10300/z/00001.wav"),
    ]


def test_a_part_that_is_not_there_is_no_problem(downloads, tmp_path):
    shutil.rmtree(downloads / "voxceleb2")
    shutil.rmtree(downloads / "voxceleb1" / "vox1_dev_wav")
    prepare(downloads, "--out", tmp_path / "vox")
    assert {part for part, _, _ in problems(tmp_path / "vox")} == {"VoxCeleb1 test"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "nowhere: no such folder"),
        (["empty"], "neither VoxCeleb's archives nor files such as"),
        (["in", "--train", "vox2"], "--train vox2: nothing of VoxCeleb2 dev was found"),
        (["in", "--workers", "0"], "--workers: invalid positive value"),
        ([], "required: SOURCE"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    voice(tmp_path / "in" / "id10001" / "s" / "00001.wav")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert prepare(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.csv"))


# ------------------------------------------------------------------------------------------------------------ ffmpeg
def test_without_ffmpeg_there_is_one_message_before_any_work(downloads, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert prepare(downloads, "--out", tmp_path / "vox") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "ffmpeg is not on the PATH, and 4 m4a files can only be decoded with it" in said
    assert not (tmp_path / "vox").exists()


def test_a_bad_file_costs_its_neighbours_nothing(tmp_path, ffmpeg):
    for i, content in enumerate(["5000", "bad", "6000"]):
        (tmp_path / f"{i}.m4a").write_text(content)
    pairs = [(str(tmp_path / f"{i}.m4a"), str(tmp_path / "made" / f"{i}.flac")) for i in range(3)]
    faults = decode.decode(pairs, tmp_path)
    assert [bool(fault) for fault in faults] == [False, True, False]
    assert [path.name for path in sorted((tmp_path / "made").iterdir())] == ["0.flac", "2.flac"]


def test_a_full_disk_ends_the_work(tmp_path, ffmpeg):
    (tmp_path / "bin" / "ffmpeg").write_text("#!/bin/sh\necho 'x.flac: No space left on device' >&2\nexit 1\n")
    coded(tmp_path / "a.m4a")
    with pytest.raises(InputError, match="No space left on device: make room"):
        decode.decode([(str(tmp_path / "a.m4a"), str(tmp_path / "a.flac"))], tmp_path)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_real_m4a(tmp_path):
    source = tmp_path / "in" / "dev" / "aac" / "id00012" / "s"
    voice(tmp_path / "a.wav", 32000)
    source.mkdir(parents=True)
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-c:a", "aac", source / "00001.m4a"], check=True)
    whole = (source / "00001.m4a").read_bytes()
    (source / "00002.m4a").write_bytes(whole[: len(whole) // 2])
    packed(tmp_path / "in" / "vox2_dev_aac.zip", {"dev/aac/id00012/t/00001.m4a": whole})
    assert prepare(tmp_path / "in", "--out", tmp_path / "vox") == 3
    train = manifest.read(tmp_path / "vox" / "train.csv")
    assert train["ID"].tolist() == ["id00012/s/00001.flac", "id00012/t/00001.flac"]
    wave, heard = audio.read(tmp_path / "a.wav"), audio.read(train["wav"][0])
    assert np.corrcoef(wave[4000:28000], heard[4000:28000])[0, 1] > 0.99  # in step, too
    assert any("00002.m4a" in name and "ffmpeg: " in problem for _, name, problem in problems(tmp_path / "vox"))


# ----------------------------------------------------------------------------------------------------------- archives
@pytest.fixture
def archived(tmp_path):
    """Archives as distributed, VoxCeleb1 dev and VoxCeleb2 dev in parts."""
    root = tmp_path / "zips"
    dev = {f"wav/{name}.wav": wav_bytes(8000 + i) for i, name in enumerate(VOX1_DEV)}
    split(packed(root / "vox1_dev_wav.zip", dev), 4)
    packed(root / "vox1_test_wav.zip", {"wav/": "", **{f"wav/{name}.wav": wav_bytes(9000) for name in VOX1_TEST}})
    split(packed(root / "vox2_dev_aac.zip", {f"dev/aac/{name}.m4a": "10000" for name in VOX2_DEV}), 3)
    packed(root / "vox2_test_aac.zip", {f"aac/{name}.m4a": "11000" for name in VOX2_TEST})
    return root


def test_archives_are_read_in_place(archived, tmp_path, ffmpeg):
    out = tmp_path / "vox"
    prepare(archived, "--out", out)
    for part, names, ending in (
        ("vox1_dev", VOX1_DEV, "wav"),
        ("vox1_test", VOX1_TEST, "wav"),
        ("vox2_dev", VOX2_DEV, "flac"),
        ("vox2_test", VOX2_TEST, "flac"),
    ):
        assert ids(out, f"{part}.csv") == [f"{name}.{ending}" for name in names]
    assert (out / "wav" / f"{VOX1_DEV[1]}.wav").read_bytes() == wav_bytes(8001)
    assert not list(out.rglob("*.m4a")) and not list(out.rglob(".*"))
    made = {path: path.stat().st_mtime_ns for path in out.rglob("id*/*/*")}
    prepare(archived, "--out", out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("id*/*/*")} == made and len(made) == 9


def test_archives_fill_the_gaps_of_a_tree(archived, tmp_path, ffmpeg):
    voice(tmp_path / "zips" / "tree" / f"{VOX1_DEV[0]}.wav", 8000)  # as long as the archived one
    prepare(archived, "--out", tmp_path / "vox")
    wavs = tmp_path / "vox" / "wav"
    assert (wavs / f"{VOX1_DEV[0]}.wav").is_symlink() and not (wavs / f"{VOX1_DEV[1]}.wav").is_symlink()
    assert ids(tmp_path / "vox", "vox1_dev.csv") == [f"{name}.wav" for name in VOX1_DEV]


@pytest.mark.parametrize("at", range(4))
def test_a_part_cut_short_is_named(tmp_path, capsys, at):
    names = [f"wav/id10001/s/{i:05d}.wav" for i in range(40)]
    parts = split(packed(tmp_path / "zips" / "vox1_dev_wav.zip", {name: wav_bytes(500) for name in names}), 4)
    parts[at].write_bytes(parts[at].read_bytes()[:-700])
    assert prepare(tmp_path / "zips", "--out", tmp_path / "vox") == 2
    said = capsys.readouterr().err
    assert f"{parts[at]}: " in said and "cut short" in said and said.count("\n") == 1
    assert not (tmp_path / "vox").exists()


def test_a_first_part_cut_short_is_told_from_the_second_by_its_members(tmp_path):
    names = [f"wav/id10001/s/{i:05d}.wav" for i in range(40)]
    whole = packed(tmp_path / "vox1_dev_wav.zip", {name: wav_bytes(500) for name in names}).read_bytes()
    paths = [str(tmp_path / f"vox1_dev_wav_parta{letter}") for letter in "ab"]
    for path, content in zip(paths, (whole[: 30000 - 700], whole[30000:])):  # the second is no longer than the first
        Path(path).write_bytes(content)
    with pytest.raises(InputError, match=f"^{paths[0]}: cut short by 700 bytes"):
        archives.Archive(paths)


@pytest.mark.parametrize("at, named", [(0, "aa"), (1, "ab"), (3, "ad")])
def test_a_missing_part_is_named(archived, tmp_path, capsys, at, named):
    (archived / f"vox1_dev_wav_parta{chr(ord('a') + at)}").unlink()
    assert prepare(archived, "--out", tmp_path / "vox") == 2
    said = capsys.readouterr().err
    assert f"vox1_dev_wav_part{named}" in said and "is missing" in said and said.count("\n") == 1


def test_a_web_page_in_place_of_a_zip_is_named(tmp_path, capsys):
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips" / "vox1_test_wav.zip").write_text("<html>log in</html>")
    assert prepare(tmp_path / "zips") == 2
    assert "vox1_test_wav.zip: the zip has no end" in capsys.readouterr().err


def test_an_archive_that_becomes_far_more_than_it_is_is_refused_unread(tmp_path, capsys):
    for name, member in (("vox1_test_wav.zip", "wav/id10270/s/1.wav"), ("vox1_dev_wav.zip", "notes.txt")):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, bytes(80_000_000))
        assert prepare(tmp_path, "--out", tmp_path / "out") == 2
        said = capsys.readouterr().err
        assert f"{name}: claims to hold 80,000,000 bytes in" in said and said.count("\n") == 1
        (tmp_path / name).unlink()


def test_a_member_that_becomes_far_more_than_it_is_is_listed(tmp_path):
    path = tmp_path / "vox1_dev_wav.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("wav/id10001/s/1.wav", bytes(80_000_000))
        archive.writestr("wav/id10001/s/2.wav", np.random.default_rng(0).bytes(1_000_000))
    archive = archives.Archive([str(path)])
    with pytest.raises(InputError, match="claims to hold 80,000,000 bytes in"):
        archive.read(archive.members[0])
    assert len(archive.read(archive.members[1])) == 1_000_000


def test_members_stay_below_the_folder_of_their_speaker(tmp_path):
    for name in ("../../../evil", "id10001/../1", "id10001/./1", "/id10001/../../1"):
        packed(tmp_path / "vox1_dev_wav.zip", {f"{name}.wav": wav_bytes(500), "wav/id10001/s/1.wav": wav_bytes(500)})
        _, found = parts(tmp_path)
        assert list(found.utterances) == ["id10001/s/1"] and len(found.problems) == 1


def test_pipes_are_not_waited_for(tmp_path, ffmpeg, capsys):
    os.mkfifo(tmp_path / "a.m4a")
    [fault] = decode.decode([(str(tmp_path / "a.m4a"), str(tmp_path / "a.flac"))], tmp_path)
    assert "this is a FIFO" in fault
    os.mkfifo(tmp_path / "vox1_dev_wav.zip")
    assert prepare(tmp_path, "--out", tmp_path / "out") == 2
    assert "vox1_dev_wav.zip: wanted an ordinary file, this is a FIFO" in capsys.readouterr().err


def test_a_damaged_member_is_listed_with_its_part(archived, tmp_path, ffmpeg):
    part = archived / "vox1_dev_wav_partaa"
    data = bytearray(part.read_bytes())
    data[2000:2010] = bytes(10)
    part.write_bytes(data)
    prepare(archived, "--out", tmp_path / "vox")
    assert ids(tmp_path / "vox", "vox1_dev.csv") == [f"{name}.wav" for name in VOX1_DEV[1:]]
    [(name, problem)] = [(name, problem) for _, name, problem in problems(tmp_path / "vox") if "damaged" in problem]
    assert name == f"{part}: wav/{VOX1_DEV[0]}.wav" and str(part) in problem


def test_parts_are_read_as_one_file(tmp_path):
    content = np.random.default_rng(0).bytes(1000)
    paths = [tmp_path / str(i) for i in range(4)]
    for path, (begin, end) in zip(paths, [(0, 300), (300, 300), (300, 301), (301, 1000)]):
        path.write_bytes(content[begin:end])
    joined = io.BufferedReader(archives.Joined([str(path) for path in paths]), 64)
    assert joined.read() == content
    for begin, count in ((0, 5), (299, 3), (298, 600), (990, 50), (1000, 1)):
        joined.seek(begin)
        assert joined.read(count) == content[begin : begin + count]
    assert joined.seek(-10, os.SEEK_END) == 990


# ---------------------------------------------------------------------------------------------------------- trial lists
def test_lists_are_copied_when_all_their_recordings_are_there(downloads, tmp_path, ffmpeg, capsys):
    (downloads / "list_test_all.txt").write_text(
        "1 id10001/a/00001.wav id10001/zzz/00001.wav\n0 id10001/a/00001.wav id10270/x/00001.wav\n"
    )
    out = tmp_path / "vox"
    prepare(downloads, "--out", out)
    said = capsys.readouterr().out
    assert (out / "veri_test2.txt").read_text() == TRIALS and (out / "list_test_hard.txt").read_text() == HARD
    assert not (out / "list_test_all.txt").exists()
    assert "1 of its 3 recordings are not here, so it cannot be used yet" in said
    assert f"sha1 {hashlib.sha1(TRIALS.encode()).hexdigest()} (not that of the published file)" in said


def test_two_lists_of_one_name_are_refused(downloads, tmp_path, ffmpeg, capsys):
    (downloads / "more").mkdir()
    (downloads / "more" / "veri_test2.txt").write_text(TRIALS)
    assert prepare(downloads, "--out", tmp_path / "vox") == 3  # the same list
    (downloads / "more" / "veri_test2.txt").write_text(HARD)
    assert prepare(downloads, "--out", tmp_path / "vox2") == 2
    assert "are different lists of one name, veri_test2.txt" in capsys.readouterr().err
    assert not (tmp_path / "vox2").exists()


@pytest.mark.skipif(not DATA.is_dir(), reason="the published lists are not at hand")
def test_published_lists_are_told_by_content(tmp_path):
    shutil.copy(DATA / "veri_test2.txt", tmp_path / "veri_test.txt")  # the cleaned list under the other's name
    shutil.copy(DATA / "veri_test.txt", tmp_path / "veri_test_original.txt")
    lists = vox_lists.read_lists([str(path) for path in tmp_path.glob("*.txt")], tmp_path)
    assert {target: Path(path).name for target, (path, _) in lists.items()} == {
        "veri_test.txt": "veri_test_original.txt",
        "veri_test2.txt": "veri_test.txt",
    }
    names = {name for _, trials in lists.values() for name in trials.ids}
    assert all("(as published)" in line for line in vox_lists.copied(lists, names, tmp_path / "out"))
    assert (tmp_path / "out" / "veri_test2.txt").read_bytes() == (DATA / "veri_test2.txt").read_bytes()


# ------------------------------------------------------------------------------------------------- the published counts
class Listed(NamedTuple):
    """An entry of a walk through files that are not there."""

    path: str
    name: str

    def is_symlink(self):
        return False


def test_a_full_tree_has_the_published_counts(tmp_path, monkeypatch):
    """All 1,281,762 names, which nobody wants on a disk."""
    kinds = {
        "vox1_dev": ("voxceleb1/dev/wav", ".wav", [n for n in range(10001, 11252) if not 10270 <= n <= 10309]),
        "vox1_test": ("voxceleb1/test/wav", ".wav", range(10270, 10310)),
        "vox2_dev": ("voxceleb2/dev/aac", ".m4a", range(12, 12 + 5994)),
        "vox2_test": ("voxceleb2/test/aac", ".m4a", range(8000, 8118)),
    }

    def walk(root):
        for part, (folder, suffix, numbers) in kinds.items():
            utterances, speakers = voxceleb.PUBLISHED[part]
            least, more = divmod(utterances, speakers)
            for i, number in enumerate(numbers):
                for name in (f"{k:05d}{suffix}" for k in range(least + (i < more))):
                    yield Listed(f"{root}/{folder}/id{number:05d}/session/{name}", name)

    monkeypatch.setattr(vox_sources, "walk", walk)
    divided, found = parts(tmp_path / "in")
    counts = voxceleb.tally(found.utterances, divided)
    assert counts == voxceleb.PUBLISHED
    assert voxceleb.unlike_published(counts) == [] == found.problems
    del found.utterances["id00012/session/00000"]
    [problem] = voxceleb.unlike_published(voxceleb.tally(found.utterances, divided))
    assert problem.problem == "1,092,008 utterances, published are 1,092,009"


# ---------------------------------------------------------------------------------------------------------- end to end
def test_a_prepared_voxceleb_is_trained_on_and_scored(tmp_path, ffmpeg):
    """Two epochs on VoxCeleb2 without labels, scored on O-, E- and H-form lists of VoxCeleb1."""
    source, out = tmp_path / "in", tmp_path / "vox"
    rng = np.random.default_rng(0)
    for name in VOX1_DEV + VOX1_TEST:
        path = source / "wav" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, 0.1 * rng.standard_normal(12000), 16000)
    for i in range(8):
        coded(source / "dev" / "aac" / f"id{i:05d}" / "s" / "00001.m4a", 12000)
    for name, text in (("veri_test.txt", TRIALS), ("list_test_all.txt", TRIALS + HARD), ("list_test_hard.txt", HARD)):
        (source / name).write_text(text)
    prepare(source, "--out", out)
    small = [
        "--encoder_size=small",
        "--batch_size=4",
        "--crop_seconds=0.4",
        "--epochs=2",
        "--valid_every=2",
        "--num_workers=0",
        "--device=cpu",
        "--threads=1",
        "--noise_prob=0",
        "--reverb_prob=0",
        f"--data_folder={out}",
        f"--results_folder={tmp_path / 'results'}",
    ]
    for name, trials in (("veri_test.txt", 2), ("list_test_all.txt", 4), ("list_test_hard.txt", 2)):
        run = tmp_path / "runs" / name
        options = [*small, f"--test_trials={out / name}", f"--output_folder={run}"]
        assert experiment.main(str(RECIPE), "", ["hparams/am.yaml", *options]) == 0
        assert len((run / "scores.txt").read_text().splitlines()) == trials


def test_manifests_have_no_row_twice(downloads, tmp_path, ffmpeg):
    out = tmp_path / "vox"
    prepare(downloads, "--out", out)
    tables = [pd.read_csv(out / f"{part}.csv") for part in voxceleb.PUBLISHED]
    assert pd.concat(tables)["wav"].is_unique
