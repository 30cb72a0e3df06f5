"""Labelled corpora prepared from trees as they are distributed, made small here."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep import clips, esc50, fsdnoisy18k, iemocap, nsynth, speech_commands, words
from sv_ssl import audio
from sv_ssl.data import manifest

ROOT = Path(__file__).parents[2]
WORDS = ROOT / "../shared/data/words"
COMMANDS = {
    "esc50": esc50,
    "speech_commands": speech_commands,
    "iemocap": iemocap,
    "fsdnoisy18k": fsdnoisy18k,
    "nsynth": nsynth,
    "words": words,
}


def sound(path, samples=8000, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, 0.3 * np.sin(np.arange(samples) / 7), rate)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def made(folder):
    """clips.csv -> {ID: (label, label_id, fold)}; every file is there."""
    frame = manifest.read(folder / "clips.csv")
    assert all(Path(wav).is_file() for wav in frame["wav"])
    return {row.ID: (row.label, row.label_id, row.fold) for row in frame.itertuples()}


def told(folder):
    with open(folder / "problems.csv", newline="") as file:
        return [tuple(row.values()) for row in csv.DictReader(file)]


@pytest.fixture
def esc(tmp_path):
    root = tmp_path / "ESC-50-master"
    rows = [
        ("1-100-A-0.wav", 1, 0, "dog", "True", 100, "A"),
        ("2-200-A-36.wav", 2, 36, "vacuum_cleaner", "False", 200, "A"),
        ("5-300-B-14.wav", 5, 14, "chirping_birds", "False", 300, "B"),
    ]
    text(
        root / "meta" / "esc50.csv",
        "filename,fold,target,category,esc10,src_file,take",
        *(",".join(map(str, row)) for row in rows),
    )
    for row in rows:
        sound(root / "audio" / row[0], 22050, 44100)
    return tmp_path


@pytest.fixture
def commands(tmp_path):
    root = tmp_path / "sc"
    for path in (
        "bed/0a7c2a8d_nohash_0.wav",
        "bed/0a7c2a8d_nohash_1.wav",
        "zero/1b88bf70_nohash_0.wav",
        "cat/2c88bf70_nohash_0.wav",
        "_background_noise_/white_noise.wav",
    ):
        sound(root / path)
    text(root / "validation_list.txt", "zero/1b88bf70_nohash_0.wav", "zero/gone_nohash_0.wav")
    text(root / "testing_list.txt", "cat/2c88bf70_nohash_0.wav")
    text(root / "README.md", "Speech Commands")
    return root


@pytest.fixture
def emotions(tmp_path):
    root = tmp_path / "IEMOCAP_full_release"
    turns = {
        1: [("Ses01F_impro01_F000", "neu"), ("Ses01F_impro01_M000", "exc"), ("Ses01F_impro01_F001", "xxx")],
        2: [("Ses02M_script01_1b_M003", "hap"), ("Ses02M_script01_1b_F004", "ang")],
    }
    for session, some in turns.items():
        dialog = some[0][0].rsplit("_", 1)[0]
        lines = [
            line
            for turn, label in some
            for line in (f"[6.2901 - 8.2357]\t{turn}\t{label}\t[2.5000, 2.5000, 2.5000]", "C-E2:\tNeutral;\t()", "")
        ]
        folder = root / f"Session{session}"
        text(
            folder / "dialog" / "EmoEvaluation" / f"{dialog}.txt",
            "% [START_TIME - END_TIME] TURN_NAME EMOTION [V]",
            "",
            *lines,
        )
        text(folder / "dialog" / "EmoEvaluation" / f"._{dialog}.txt", "\x00\x05")
        text(folder / "dialog" / "EmoEvaluation" / "Categorical" / f"{dialog}_e2_cat.txt", f"{some[0][0]} :Sadness; ()")
        for turn, _ in some:
            sound(folder / "sentences" / "wav" / dialog / f"{turn}.wav")
    return tmp_path


@pytest.fixture
def freesound(tmp_path):
    root = tmp_path / "fsd"
    text(
        root / "FSDnoisy18k.meta" / "train.csv",
        "fname,label,aso_id,manually_verified,noisy_small",
        "1.wav,Wind,/m/03m9d0z,1,0",
        "2.wav,Acoustic_guitar,/m/042v_gx,0,1",
        "3.wav,Wind,/m/03m9d0z,0,0",
    )
    text(root / "FSDnoisy18k.meta" / "test.csv", "fname,label,aso_id", "4.wav,Rain,/m/06mb1")
    for path in ("train/1", "train/2", "train/3", "test/4"):
        sound(root / f"FSDnoisy18k.audio_{path}.wav", 22050, 44100)
    return root


@pytest.fixture
def notes(tmp_path):
    for fold, some in {
        "train": [("bass_synthetic_033-022-050", 22), ("guitar_acoustic_000-108-025", 108)],
        "valid": [("organ_electronic_028-077-127", 77)],
        "test": [("bass_electronic_018-022-100", 22)],
    }.items():
        about = {
            note: {
                "note_str": note,
                "instrument_str": note.split("-")[0],
                "pitch": pitch,
                "instrument_family_str": note.split("_")[0],
                "qualities": [0, 1],
            }
            for note, pitch in some
        }
        text(tmp_path / f"nsynth-{fold}" / "examples.json", json.dumps(about))
        for note in about:
            sound(tmp_path / f"nsynth-{fold}" / "audio" / f"{note}.wav")
    return tmp_path


# ---------------------------------------------------------------------------------------------------------- each corpus
def test_esc50(esc):
    assert esc50.main([str(esc), "--out", str(esc / "out")]) == 3
    assert made(esc / "out") == {
        "audio/1-100-A-0.wav": ("dog", "1", "1"),
        "audio/2-200-A-36.wav": ("vacuum_cleaner", "2", "2"),
        "audio/5-300-B-14.wav": ("chirping_birds", "0", "5"),
    }
    frame = manifest.read(esc / "out" / "clips.csv")
    assert frame["esc10"].tolist() == ["True", "False", "False"] and frame["source"].tolist() == ["100", "200", "300"]
    assert ("fold 1", "", "1 clips, published are 400") in told(esc / "out")
    assert ("fold 3", "", "0 clips, published are 400") in told(esc / "out")
    assert ("", "", "3 labels, published are 50") in told(esc / "out")


def test_speech_commands(commands, capsys):
    assert speech_commands.main([str(commands)]) == 3
    assert made(commands) == {
        "bed/0a7c2a8d_nohash_0.wav": ("bed", "0", "train"),
        "bed/0a7c2a8d_nohash_1.wav": ("bed", "0", "train"),
        "cat/2c88bf70_nohash_0.wav": ("cat", "1", "test"),
        "zero/1b88bf70_nohash_0.wav": ("zero", "2", "valid"),
    }
    assert manifest.read(commands / "clips.csv")["spk_id"].tolist() == ["0a7c2a8d"] * 2 + ["2c88bf70", "1b88bf70"]
    assert ("valid", "zero/gone_nohash_0.wav", "listed, but not there") in told(commands)
    assert "4 clips, 0.00 h, 3 labels; by fold: test 1, train 2, valid 1" in capsys.readouterr().out


def test_iemocap(emotions):
    assert iemocap.main([str(emotions), "--out", str(emotions / "out")]) == 3
    folder = "sentences/wav/Ses0"
    without = {
        f"Session1/{folder}1F_impro01/Ses01F_impro01_F000.wav": ("neu", "2", "1"),
        f"Session2/{folder}2M_script01_1b/Ses02M_script01_1b_F004.wav": ("ang", "0", "2"),
        f"Session2/{folder}2M_script01_1b/Ses02M_script01_1b_M003.wav": ("hap", "1", "2"),
    }
    assert made(emotions / "out") == without
    assert manifest.read(emotions / "out" / "clips.csv")["spk_id"].tolist() == ["Ses01F", "Ses02F", "Ses02M"]
    assert ("label hap", "", "1 clips, published are 595") in told(emotions / "out")
    iemocap.main([str(emotions / "IEMOCAP_full_release"), "--excited"])
    excited = f"Session1/{folder}1F_impro01/Ses01F_impro01_M000.wav"
    assert made(emotions / "IEMOCAP_full_release") == {**without, excited: ("hap", "1", "1")}


def test_fsdnoisy18k(freesound):
    assert fsdnoisy18k.main([str(freesound)]) == 3
    frame = manifest.read(freesound / "clips.csv").set_index("ID")
    columns = frame[["label", "label_id", "fold", "subset", "noisy_small"]]
    assert {key: tuple(row) for key, row in columns.T.items()} == {
        "FSDnoisy18k.audio_train/1.wav": ("Wind", "2", "train", "clean", "0"),
        "FSDnoisy18k.audio_train/2.wav": ("Acoustic_guitar", "0", "train", "noisy", "1"),
        "FSDnoisy18k.audio_train/3.wav": ("Wind", "2", "train", "noisy", "0"),
        "FSDnoisy18k.audio_test/4.wav": ("Rain", "1", "test", "clean", "0"),
    }


def test_nsynth_by_family_and_by_pitch(notes):
    nsynth.main([str(notes)])
    assert made(notes) == {
        "nsynth-train/audio/bass_synthetic_033-022-050.wav": ("bass", "0", "train"),
        "nsynth-train/audio/guitar_acoustic_000-108-025.wav": ("guitar", "1", "train"),
        "nsynth-valid/audio/organ_electronic_028-077-127.wav": ("organ", "2", "valid"),
        "nsynth-test/audio/bass_electronic_018-022-100.wav": ("bass", "0", "test"),
    }
    nsynth.main([str(notes), "--pitch"])
    assert sorted(made(notes).values()) == [
        ("022", "0", "test"),
        ("022", "0", "train"),
        ("077", "1", "valid"),
        ("108", "2", "train"),
    ]
    assert set(manifest.read(notes / "clips.csv")["source"]) == {
        "bass_synthetic_033",
        "guitar_acoustic_000",
        "organ_electronic_028",
        "bass_electronic_018",
    }


@pytest.mark.skipif(not WORDS.is_dir(), reason="the spoken words are not here")
def test_the_spoken_words_that_are_here(tmp_path):
    assert words.main([str(WORDS), "--out", str(tmp_path)]) == 0
    frame = manifest.read(tmp_path / "clips.csv")
    assert (
        len(frame) == 4400
        and sorted(frame["label"].unique())
        == frame.drop_duplicates("label")
        .assign(label_id=lambda f: f["label_id"].astype(int))
        .sort_values("label_id")["label"]
        .tolist()
    )
    assert frame["fold"].value_counts().to_dict() == {"train": 3000, "valid": 800, "test": 600}
    assert frame["duration"].tolist() == [1.0] * 4400 and Path(frame["wav"][0]).is_file()
    assert frame.groupby("spk_id")["fold"].nunique().max() == 1


def test_words_of_one_speaker_in_two_folds_are_told(tmp_path, capsys):
    for path in ("yes/a.wav", "no/a.wav", "yes/b.wav"):
        sound(tmp_path / path)
    text(
        tmp_path / "words.csv",
        "ID,duration,wav,start,stop,spk_id,label,fold",
        "1,0.5,yes/a.wav,0,8000,anna,yes,train",
        "2,0.5,$data_root/no/a.wav,0,8000,anna,no,test",
        "3,0.5,yes/b.wav,0,8000,ben,yes,valid",
    )
    assert words.main([str(tmp_path)]) == 3
    assert made(tmp_path) == {
        "no/a.wav": ("no", "0", "test"),
        "yes/a.wav": ("yes", "1", "train"),
        "yes/b.wav": ("yes", "1", "valid"),
    }
    assert told(tmp_path) == [("", "anna", "in several folds: the test would hear a voice of the training")]
    text(tmp_path / "words.csv", "wav,spk_id,label,fold", "yes/a.wav,anna,yes,dev")
    assert words.main([str(tmp_path)]) == 2
    assert 'the fold "dev" is none of train, valid, test' in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- all of them
def test_as_published_is_no_problem(esc, monkeypatch):
    monkeypatch.setattr(esc50, "PUBLISHED", {"1": 1, "2": 1, "5": 1})
    write = clips.write
    monkeypatch.setattr(clips, "write", lambda *given, n_labels, **more: write(*given, n_labels=3, **more))
    assert esc50.main([str(esc / "ESC-50-master")]) == 0
    assert not (esc / "ESC-50-master" / "problems.csv").exists()


def test_numbers_of_labels_do_not_depend_on_what_can_be_read(esc):
    (esc / "ESC-50-master" / "audio" / "5-300-B-14.wav").unlink()
    (esc / "ESC-50-master" / "audio" / "1-100-A-0.wav").write_bytes(b"RIFF")
    assert esc50.main([str(esc)]) == 3
    assert made(esc) == {"audio/2-200-A-36.wav": ("vacuum_cleaner", "2", "2")}
    assert [(Path(name).name, "no such file" in why) for _, name, why in told(esc) if name] == [
        ("1-100-A-0.wav", False),
        ("5-300-B-14.wav", True),
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_another_folder_is_refused_in_one_line(name, tmp_path, capsys):
    assert COMMANDS[name].main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path) in error and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "lines, fault",
    [
        (["filename,fold,category,esc10,src_file", "a.wav,1,dog,True"], 'esc50.csv:2: no "src_file"'),
        (["filename,fold,category,esc10,src_file", "a.wav,1,,True,7"], 'esc50.csv:2: no "category"'),
        (["filename,fold", "a.wav,1"], 'esc50.csv:2: no "category": want a header with filename, fold, category'),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(esc, capsys, lines, fault):
    text(esc / "ESC-50-master" / "meta" / "esc50.csv", *lines)
    assert esc50.main([str(esc)]) == 2
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize(
    "content, fault",
    [
        ("{", "cannot read"),
        ("[]", "want an object"),
        ('{"a": {"pitch": 1}}', "the note a lacks"),
        ('{"a": 1}', "the note a lacks"),
    ],
)
def test_damaged_examples_of_nsynth_are_refused(notes, capsys, content, fault):
    text(notes / "nsynth-valid" / "examples.json", content)
    assert nsynth.main([str(notes)]) == 2
    assert fault in capsys.readouterr().err


def test_sessions_without_labels_and_commands_without_a_list_are_refused(tmp_path, commands, capsys):
    sound(tmp_path / "Session1" / "sentences" / "wav" / "a.wav")
    assert iemocap.main([str(tmp_path)]) == 2
    (commands / "validation_list.txt").unlink()
    assert speech_commands.main([str(commands)]) == 2
    assert "no labels: want Session1" in (error := capsys.readouterr().err) and "validation_list.txt: no such" in error


@pytest.mark.parametrize("name", COMMANDS)
def test_each_is_a_command(name):
    script = ROOT / "data_prep" / f"{name}.py"
    page = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert page.returncode == 0 and "--out FOLDER" in page.stdout and f"python data_prep/{name}.py" in page.stdout


# --------------------------------------------------------------------------------------------------- what was published
def test_the_counts_are_those_that_were_published():
    assert esc50.PUBLISHED == {"1": 400, "2": 400, "3": 400, "4": 400, "5": 400}
    assert speech_commands.PUBLISHED == {"train": 84_843, "valid": 9_981, "test": 11_005}
    assert sum(speech_commands.PUBLISHED.values()) == 105_829
    assert fsdnoisy18k.PUBLISHED == {"train": 17_585, "test": 947} and 17_585 + 947 == 18_532
    assert nsynth.PUBLISHED == {"train": 289_205, "valid": 12_678, "test": 4_096}
    assert iemocap.PUBLISHED == {"ang": 1_103, "hap": 595, "neu": 1_708, "sad": 1_084}
    assert sum(iemocap.PUBLISHED.values()) - 595 + iemocap.HAPPY_OR_EXCITED == 5_531


def test_speakers_are_dealt_to_folds(tmp_path, capsys):
    lines = []
    for speaker in ("anna", "ben", "cleo", "dan"):
        sound(tmp_path / f"yes/{speaker}.wav")
        lines.append(f"yes/{speaker}.wav,{speaker},yes,train")
    text(tmp_path / "words.csv", "wav,spk_id,label,fold", *lines)
    assert words.main([str(tmp_path), "--folds", "3"]) == 0
    assert {name: fold for name, (_, _, fold) in made(tmp_path).items()} == {
        "yes/anna.wav": "1",
        "yes/ben.wav": "2",
        "yes/cleo.wav": "3",
        "yes/dan.wav": "1",
    }
    for folds, wanted in (("2", "want 3 to 4"), ("5", "want 3 to 4")):
        assert words.main([str(tmp_path), "--folds", folds]) == 2
        assert wanted in capsys.readouterr().err
    text(tmp_path / "words.csv", "wav,spk_id,label,fold", *lines[:2])
    assert words.main([str(tmp_path), "--folds", "3"]) == 2
    assert "2 speakers cannot be dealt to folds" in capsys.readouterr().err
    text(tmp_path / "words.csv", "wav,spk_id,label,fold,start", *(f"{line},1600" for line in lines))
    assert words.main([str(tmp_path)]) == 2 and "want a file for every word" in capsys.readouterr().err


@pytest.mark.parametrize(
    "corpus, files, wanted",
    [
        (
            "esc50",
            {"meta/esc50.csv": "filename,fold,target,category,esc10,src_file,take\n"},
            "no utterances are listed",
        ),
        ("speech_commands", {"testing_list.txt": "", "validation_list.txt": ""}, "no utterances are listed"),
        ("speech_commands", {"testing_list.txt": "\udcff", "validation_list.txt": ""}, "not UTF-8 text"),
    ],
)
def test_nothing_and_no_text_are_one_line(tmp_path, capsys, corpus, files, wanted):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    assert COMMANDS[corpus].main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert wanted in said and said.count("\n") == 1


def test_a_file_that_is_listed_twice_is_told(tmp_path, capsys):
    sound(tmp_path / "yes/a.wav")
    text(tmp_path / "words.csv", "wav,spk_id,label,fold", *["yes/a.wav,anna,yes,train"] * 2)
    assert words.main([str(tmp_path)]) == 2 and "yes/a.wav is listed 2 times" in capsys.readouterr().err
