"""MUSAN, RIRS_NOISES, LibriSpeech, Kaldi folders and any others prepared; and what the commands share."""

import csv
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import data_prep
from data_prep import folder, kaldi, librispeech, musan, rirs
from sv_ssl import audio
from sv_ssl.audio.noise import Noise, Noises, Rooms
from sv_ssl.data import manifest

ROOT = Path(__file__).parents[2]
COMMANDS = ["voxceleb", "musan", "rirs", "librispeech", "folder", "kaldi"]


def voice(path, samples=8000, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, 0.3 * np.sin(np.arange(samples) / 7), rate)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def told(out):
    return {row["name"]: row["problem"] for row in rows(out / "problems.csv")}


# --------------------------------------------------------------------------------------------------------- commands
@pytest.mark.parametrize("name", COMMANDS)
def test_each_is_a_command(name, tmp_path):
    def run(*arguments):
        script = ROOT / "data_prep" / f"{name}.py"
        return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)

    page = run("--help")
    assert page.returncode == 0 and "--out FOLDER" in page.stdout and f"python data_prep/{name}.py" in page.stdout
    assert "problems.csv; the exit code is then 3" in " ".join(page.stdout.split())
    refused = run(tmp_path / "nowhere")
    assert refused.returncode == 2 and refused.stderr.startswith(f"{name}.py: ") and refused.stderr.count("\n") == 1
    assert "nowhere" in refused.stderr


# ------------------------------------------------------------------------------------------------- what they share
def test_each_keeps_order_and_stays_few_ahead():
    begun = []

    def work(some):
        begun.extend(some)
        time.sleep(0.001 * (some[0] % 3))
        return [item * item for item in some]

    results = data_prep.each(work, range(1000), "squaring", workers=3, size=2)
    assert next(results) == (0, 0) and len(begun) <= 3 * 4 * 2
    assert list(results) == [(i, i * i) for i in range(1, 1000)]


def test_each_works_at_once():
    barrier = threading.Barrier(4, timeout=10)  # breaks unless four are at work
    assert len(list(data_prep.each(lambda some: [barrier.wait()], range(8), "waiting", workers=4, size=1))) == 8


def test_each_stops_at_an_error():
    done = []

    def work(some):
        done.extend(some)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        list(data_prep.each(work, range(10000), "failing", workers=2, size=1))
    assert len(done) <= 8


def test_problems_of_an_earlier_run_go_away(tmp_path, capsys):
    assert data_prep.finish(tmp_path, [], [data_prep.Problem("dev", "a,b", 'x "y"')], "rest") == 3
    assert rows(tmp_path / "problems.csv") == [{"part": "dev", "name": "a,b", "problem": 'x "y"'}]
    assert "problems: 1, listed in" in capsys.readouterr().out
    assert data_prep.finish(tmp_path, [], [], "rest") == 0 and not (tmp_path / "problems.csv").exists()


# ------------------------------------------------------------------------------------------------- MUSAN and rooms
@pytest.fixture
def noises(tmp_path):
    """MUSAN's tree with two files a kind."""
    for file in (
        "music/fma/music-fma-0000",
        "music/jamendo/music-jamendo-0001",
        "speech/us-gov/speech-us-gov-0001",
        "noise/free-sound/noise-free-sound-0000",
        "noise/sound-bible/noise-sound-bible-0001",
        "speech/librivox/speech-librivox-0000",
    ):
        voice(tmp_path / "musan" / f"{file}.wav")
    (tmp_path / "musan" / "README").write_text("MUSAN\n")
    return tmp_path


@pytest.mark.parametrize("source, out", [("musan", None), (".", None), ("musan", "elsewhere")])
def test_musan_is_what_a_recipe_draws_from(noises, source, out):
    out = noises / (out or source)
    assert musan.main([str(noises / source), *(["--out", str(out)] if out != noises / source else [])]) == 3
    paths = Noises(out).paths
    assert {kind: len(files) for kind, files in paths.items()} == {"noise": 2, "music": 2, "speech": 2}
    assert all(audio.info(path).frames == 8000 for files in paths.values() for path in files)
    assert {row["duration"] for row in rows(out / "noise.csv")} == {"0.500"}
    assert {row["problem"] for row in rows(out / "problems.csv")} == {
        "2 files, published are 660",
        "2 files, published are 930",
        "2 files, published are 426",
    }


def test_a_damaged_noise_is_listed(noises):
    (noises / "musan" / "noise" / "free-sound" / "noise-free-sound-0000.wav").write_bytes(b"")
    musan.main([str(noises)])
    assert len(Noises(noises).paths["noise"]) == 1
    assert "is empty" in told(noises)["noise/free-sound/noise-free-sound-0000.wav"]


def test_the_published_counts_are_no_problem(tmp_path, monkeypatch):
    voice(tmp_path / "one.wav")
    for kind, count in musan.PUBLISHED.items():
        (tmp_path / "musan" / kind).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "musan" / kind / f"{i}.wav").symlink_to(tmp_path / "one.wav")
    assert musan.main([str(tmp_path / "musan")]) == 0


def test_of_a_long_noise_only_what_is_drawn_is_read(noises, monkeypatch):
    soundfile.write(noises / "musan" / "noise" / "free-sound" / "long.wav", np.ones(16000 * 300) / 2, 16000)
    musan.main([str(noises)])
    read, taken = soundfile.SoundFile.read, []
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, frames=-1, **more: taken.append(frames) or read(self, frames, **more)
    )
    raw = np.fromfile
    monkeypatch.setattr(
        np, "fromfile", lambda path, kind, count, **more: taken.append(count) or raw(path, kind, count, **more)
    )
    draw = Noise(Noises(noises), talkers=(1, 1))
    for seed in range(20):
        draw.draw(np.random.default_rng(seed), 3200)
    assert len(taken) >= 20 and set(taken) == {3200}


@pytest.fixture
def rooms(tmp_path):
    """RIRS_NOISES' tree, small."""
    root = tmp_path / "RIRS_NOISES"
    for size in ("small", "medium", "large"):
        voice(root / "simulated_rirs" / f"{size}room" / "Room001" / "Room001-00001.wav", 4000)
        (root / "simulated_rirs" / f"{size}room" / "rir_list").write_text("--rir-id ...\n")
    real = root / "real_rirs_isotropic_noises"
    for file in ("RVB2014_type1_rir_largeroom1_far_angla", "RVB2014_type1_noise_largeroom1_1", "air_type1_air_phone"):
        voice(real / f"{file}.wav", 4000)
    voice(root / "pointsource_noises" / "noise-free-sound-0000.wav")
    return tmp_path


def test_rooms_are_what_a_recipe_draws_from(rooms):
    assert rirs.main([str(rooms), "--out", str(rooms / "out")]) == 3
    assert [Path(path).parts[-3] for path in Rooms(rooms / "out").paths] == ["smallroom", "mediumroom", "largeroom"]
    assert [row["kind"] for row in rows(rooms / "out" / "rir.csv")] == ["smallroom", "mediumroom", "largeroom"]
    assert [Path(path).stem for path in Rooms(rooms / "out" / "real_rir.csv").paths] == [
        "RVB2014_type1_rir_largeroom1_far_angla",
        "air_type1_air_phone",
    ]
    assert [Path(path).stem for path in Noises(rooms / "out").paths["noise"]] == [
        "noise-free-sound-0000",
        "RVB2014_type1_noise_largeroom1_1",
    ]
    assert "1 files, published are 843" in {row["problem"] for row in rows(rooms / "out" / "problems.csv")}


def test_noise_list_tells_noises_from_rooms(rooms):
    real = rooms / "RIRS_NOISES" / "real_rirs_isotropic_noises"
    (real / "noise_list").write_text("--noise-id 1 RIRS_NOISES/real_rirs_isotropic_noises/air_type1_air_phone.wav\n")
    rirs.main([str(rooms)])
    assert [Path(path).stem for path in Noises(rooms).paths["noise"]] == [
        "noise-free-sound-0000",
        "air_type1_air_phone",
    ]


# ----------------------------------------------------------------------------------------- LibriSpeech, Kaldi, others
@pytest.fixture
def books(tmp_path):
    for file in (
        "train-clean-100/19/198/19-198-0000",
        "train-clean-100/19/227/19-227-0000",
        "train-other-500/20/1/20-1-0000",
        "test-clean/61/70968/61-70968-0000",
    ):
        voice(tmp_path / "LibriSpeech" / f"{file}.flac")
    (tmp_path / "LibriSpeech" / "SPEAKERS.TXT").write_text("; readers\n")
    return tmp_path


def test_librispeech(books, capsys):
    assert librispeech.main([str(books)]) == 3
    train = manifest.read(books / "train.csv")
    assert train["ID"].tolist() == ["19/198/19-198-0000.flac", "19/227/19-227-0000.flac", "20/1/20-1-0000.flac"]
    assert "spk_id" not in train and all(Path(wav).is_file() for wav in train["wav"])
    assert len(manifest.read(books / "test-clean.csv")) == 1
    assert "2 utterances, published are 28,539" in {row["problem"] for row in rows(books / "problems.csv")}
    assert f"--data_folder {books}" in capsys.readouterr().out


def test_librispeech_keeps_readers_and_chapters_when_asked(books):
    librispeech.main([str(books / "LibriSpeech"), "--out", str(books / "out"), "--speakers"])
    train = manifest.read(books / "out" / "train.csv")
    assert train["spk_id"].tolist() == ["19", "19", "20"] and train["session"].tolist() == ["19/198", "19/227", "20/1"]


def test_one_part_of_librispeech_is_enough(books, capsys):
    librispeech.main([str(books / "LibriSpeech" / "test-clean"), "--out", str(books / "out")])
    assert (books / "out" / "test-clean.csv").is_file() and not (books / "out" / "train.csv").exists()
    assert "no train.csv" in capsys.readouterr().out


def test_a_kaldi_folder(tmp_path, capsys):
    voice(tmp_path / "audio" / "a.wav", 32000)
    data = tmp_path / "data"
    data.mkdir()
    (data / "wav.scp").write_text(f"rec1 {tmp_path}/audio/a.wav\nrec2 {tmp_path}/audio/none.wav\n")
    (data / "segments").write_text("u1 rec1 0.0 0.5\nu2 rec1 0.5 2.0\nu3 rec2 0 1\n")
    (data / "utt2spk").write_text("u1 anna\nu2 ben\nu3 anna\n")
    assert kaldi.main([str(data), "--out", str(tmp_path / "out")]) == 3
    train = manifest.read(tmp_path / "out" / "train.csv")
    assert train["ID"].tolist() == ["u1", "u2"] and train["stop"].tolist() == [8000, 32000] and "spk_id" not in train
    assert "no such file" in told(tmp_path / "out")["u3"]
    kaldi.main([str(data), "--speakers"])
    assert manifest.read(data / "train.csv")["spk_id"].tolist() == ["anna", "ben"]


def test_any_folder(tmp_path):
    for file in ("anna/1.wav", "ben/2.flac"):
        voice(tmp_path / "speech" / file)
    assert folder.main([str(tmp_path / "speech")]) == 0
    train = manifest.read(tmp_path / "speech" / "train.csv")
    assert train["wav"].tolist() == [f"{tmp_path}/speech/{file}" for file in ("anna/1.wav", "ben/2.flac")]
    assert "spk_id" not in train
    shutil.move(tmp_path / "speech", tmp_path / "moved")  # the manifest goes along
    assert all(Path(wav).is_file() for wav in manifest.read(tmp_path / "moved" / "train.csv")["wav"])
    assert folder.main([str(tmp_path / "moved"), "--out", str(tmp_path / "out"), "--speakers"]) == 0
    train = manifest.read(tmp_path / "out" / "train.csv")
    assert train["spk_id"].tolist() == ["anna", "ben"] and all(Path(wav).is_file() for wav in train["wav"])


def test_speakers_that_nothing_tells_are_refused(tmp_path, capsys):
    voice(tmp_path / "1.wav")
    assert folder.main([str(tmp_path), "--speakers"]) == 2
    assert "--speakers, but nothing in the source tells the speakers" in capsys.readouterr().err


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """An ffmpeg that writes half a second, or fails for files named bad."""
    tool = tmp_path / "bin" / "ffmpeg"
    tool.parent.mkdir()
    tool.write_text(
        f"#!{sys.executable}\nimport sys, numpy, soundfile\nwords = ' '.join(sys.argv)\n"
        "if 'bad' in words:\n    print('broken', file=sys.stderr)\n    sys.exit(1)\n"
        "for word in sys.argv:\n    if word.endswith('.flac'):\n"
        "        soundfile.write(word, numpy.ones(8000) / 3, 16000)\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))


@pytest.mark.parametrize("out", ["speech", "out"])
def test_other_formats_of_a_folder_are_decoded(tmp_path, ffmpeg, out):
    speech, out = tmp_path / "speech", tmp_path / out
    voice(speech / "anna" / "1.wav")
    for file in ("anna/1.m4a", "ben/2.MP4", "ben/bad.wma"):
        (speech / file).parent.mkdir(exist_ok=True)
        (speech / file).write_text("coded")
    for _ in range(2):
        assert folder.main([str(speech), "--out", str(out), "--speakers"]) == 3
        train = manifest.read(out / "train.csv")
        assert train["ID"].tolist() == ["anna/1.m4a.flac", "anna/1.wav", "ben/2.MP4.flac"]
        assert train["spk_id"].tolist() == ["anna", "anna", "ben"]
        assert told(out) == {f"{speech}/ben/bad.wma": "ffmpeg: broken"}


def test_other_formats_without_ffmpeg_are_one_message(tmp_path, monkeypatch, capsys):
    voice(tmp_path / "1.wav")
    (tmp_path / "2.m4a").write_text("coded")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert folder.main([str(tmp_path)]) == 2
    assert "ffmpeg is not on the PATH, and 1 files such as" in capsys.readouterr().err
