import csv
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sv_ssl import audio
from sv_ssl.cli import extract, score
from sv_ssl.core.errors import InputError
from sv_ssl.data import sources
from sv_ssl.data.sources import Utterance
from sv_ssl.embeddings import extraction, held_file
from sv_ssl.embeddings.extraction import Options
from sv_ssl.embeddings.extractor import HELD, WAITING, Extractor
from sv_ssl.embeddings.workers import PIECE, blocks
from sv_ssl.models import folder as model
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import Embedder, FrameStatistics
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34
from sv_ssl.verification import scoring
from sv_ssl.verification.crops import crop_scores
from sv_ssl.verification.trials import read_trials

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def embedder():
    torch.manual_seed(0)
    return Embedder(LogMel(40), FastResNet34(40, "small", dim=16)).eval()


@pytest.fixture
def folder(embedder, tmp_path):
    return str(model.save(tmp_path / "model", embedder, {}))


def extracted(*arguments):
    code = extract.main([str(a) for a in arguments])
    return code, np.load(arguments[arguments.index("--out") + 1], allow_pickle=False)


@pytest.fixture
def mixed(tmp_path):
    """Recordings of other lengths, rates, channels and formats, some of one length, and one that is gone."""
    (tmp_path / "mixed").mkdir()
    rng = np.random.default_rng(0)
    kinds = [
        (0.5, 16000, 1, "wav"),
        (0.8, 8000, 2, "wav"),
        (0.5, 22050, 1, "flac"),
        (0.5, 16000, 1, "wav"),
        (0.6, 44100, 2, "ogg"),
        (0.5, 16000, 2, "flac"),
        (0.7, 16000, 1, "mp3"),
        (0.5, 48000, 1, "wav"),
    ]
    for i, (seconds, rate, channels, ending) in enumerate(kinds):
        wave = 0.1 * rng.standard_normal((round(seconds * rate), channels))
        soundfile.write(tmp_path / "mixed" / f"{i}.{ending}", wave, rate)
    found, _ = sources.find([str(tmp_path / "mixed")])
    return [*found[:3], Utterance("gone", str(tmp_path / "gone.wav")), *found[3:]]


def alone(embedder, utterance):
    wave = audio.read(utterance.wav, utterance.start, utterance.stop)
    with torch.no_grad():
        return embedder(torch.from_numpy(wave)[None])[0].numpy()


@pytest.mark.parametrize("batch, workers", [(1, 0), (2, 0), (64, 0), (1, 1), (3, 2)])
def test_neither_batch_nor_workers_change_a_number_or_the_order(embedder, mixed, batch, workers):
    found = extraction.extract(embedder, mixed, Options(batch=batch), workers=workers, progress=False)
    assert found.ids == [u.id for u in mixed if u.id != "gone"]
    assert [skipped.id for skipped in found.skipped] == ["gone"] and "no such file" in found.skipped[0].reason
    rows = np.stack([alone(embedder, u) for u in mixed if u.id != "gone"])
    assert np.abs(found.rows[:, 0] - rows).max() < 1e-5 < 1e-3 < np.abs(rows[0] - rows[1]).max()
    assert found.seconds == pytest.approx(4.6, abs=0.01)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_kind_travels_with_what_is_skipped(embedder, speech, tmp_path, workers):
    """So that nobody has to read it out of a sentence."""
    speech("a.wav")
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "short.wav", np.ones(160) / 2, 16000)
    (tmp_path / "text.wav").write_text("no audio")
    names = ("gone.wav", "silent.wav", "short.wav", "text.wav", "a.wav")
    utterances = [Utterance(name, str(tmp_path / name)) for name in names]
    found = extraction.extract(embedder, utterances, Options(longest=0.3), workers=workers, progress=False)
    assert found.ids == []
    assert [(skipped.id, skipped.kind) for skipped in found.skipped] == [
        ("gone.wav", "missing"),
        ("silent.wav", "long"),
        ("short.wav", "short"),
        ("text.wav", "unreadable"),
        ("a.wav", "long"),
    ]
    silent = extraction.extract(embedder, utterances[1:2], workers=workers, progress=False)
    assert silent.skipped[0].kind == "silent" and silent.skipped[0].reason.startswith(str(tmp_path))


def test_readers_that_go_ahead_change_nothing(embedder, mixed):
    made = Extractor(embedder, Options(), None)
    made.batch = 2  # as on a GPU
    plain, ahead = ({one.index: one.result for one in made(mixed, readers)} for readers in (0, 3))
    assert plain.keys() == ahead.keys() == set(range(len(mixed)))
    assert all(np.array_equal(plain[i], ahead[i]) for i in plain if i != 3)


def test_waves_do_not_wait_for_ever_for_others_of_their_length(embedder, speech):
    utterances = [Utterance(str(i), str(speech(f"{i}.wav", 0.2 + i / 1000))) for i in range(40)]
    started = []

    class Lazy(list):
        def __iter__(self):
            for utterance in super().__iter__():
                started.append(utterance.id)
                yield utterance

    made = Extractor(embedder, Options(), None)
    made.batch = 2  # as on a GPU
    first = next(made(Lazy(utterances)))
    assert len(started) == WAITING * 2 + 1 and isinstance(first.result, np.ndarray)


def test_a_grid_cuts_lengths_so_that_more_are_equal(embedder, speech):
    long, short = Utterance("a", str(speech("a.wav", 1.3))), Utterance("b", str(speech("b.wav", 0.3)))
    found = extraction.extract(embedder, [long, short], Options(grid=0.5), progress=False)
    assert np.allclose(found.rows[0, 0], alone(embedder, long._replace(stop=16000)), atol=1e-6)
    assert np.allclose(found.rows[1, 0], alone(embedder, short), atol=1e-6)


def test_half_precision_is_near_and_kept_apart(embedder, speech):
    utterances, kept = [Utterance("a", str(speech("a.wav")))], extraction.cache_of(embedder)
    exact, half, again = (
        extraction.extract(embedder, utterances, Options(precision), kept, progress=False)
        for precision in ("fp32", "bf16", "fp32")
    )
    assert 0 < np.abs(half.rows - exact.rows).max() < 0.05 * np.abs(exact.rows).max()
    assert half.seconds == 1 and again.seconds == 0 and np.array_equal(again.rows, exact.rows)
    with pytest.raises(InputError, match="fp32 or bf16"):
        extraction.extract(embedder, utterances, Options("fp8"))


def test_crops_and_the_mean_of_their_cosines(embedder, speech, tmp_path):
    names = [str(speech(f"{i}.wav", seconds, seed=i)) for i, seconds in enumerate((2.0, 1.1, 0.3))]
    found = extraction.extract(
        embedder, [Utterance(n, n) for n in names], Options(crops=4, crop_seconds=0.5), progress=False
    )
    assert found.rows.shape == (3, 4, 16)
    crop = Utterance("a", names[0], 8000, 16000)  # 2 s: crops begin at 0, 0.5, 1 and 1.5 s
    assert np.allclose(found.rows[0, 1], alone(embedder, crop), atol=1e-6)
    assert np.array_equal(found.rows[2, 0], found.rows[2, 3])  # the whole, repeated
    (tmp_path / "t.txt").write_text(f"{names[0]} {names[1]}\n{names[1]} {names[2]}\n")
    scores = crop_scores(found, read_trials(tmp_path / "t.txt"))
    assert scores == pytest.approx([scoring.crop_score(*found.rows[:2]), scoring.crop_score(*found.rows[1:])], abs=1e-6)


def test_an_embedding_that_is_not_finite_is_skipped(speech):
    broken = Embedder(LogMel(40), FrameStatistics(40))
    broken.encoder.forward = lambda frames: torch.full((len(frames), 80), torch.nan)
    ids, rows, skipped = extraction.embed(broken, [Utterance("a", str(speech("a.wav")))])
    assert not ids and rows.shape == (0, 80) and "not finite" in skipped[0].reason


class Deadly(FrameStatistics):
    def forward(self, frames):
        os._exit(9)


def test_a_worker_that_dies_is_one_line(speech):
    with pytest.raises(InputError, match="sudden end"):
        extraction.extract(Embedder(LogMel(40), Deadly(40)), [Utterance("a", str(speech("a.wav")))], workers=1)


def test_windows_of_a_long_recording_are_those_cut_by_hand(embedder, tmp_path):
    wave = 0.1 * np.random.default_rng(0).standard_normal(round(4.2 * 22050))
    wave[22050 : 2 * 22050] = 0
    soundfile.write(tmp_path / "long.flac", wave, 22050)
    windows, _ = sources.windows([Utterance("long", str(tmp_path / "long.flac"))], 0.5, 0.25)
    assert [w.start for w in windows] == pytest.approx([*np.arange(15) * 0.25, 3.7], abs=1e-4)
    found = extraction.extract(embedder, [w.utterance for w in windows], progress=False)
    assert [skipped.id for skipped in found.skipped] == [
        f"long/00000{s:.2f}-00000{s + 0.5:.2f}" for s in (1, 1.25, 1.5)
    ]
    for (utterance, _, start, _), row in zip((w for w in windows if w.utterance.id in found.ids), found.rows[:, 0]):
        piece = wave[round(start * 22050) :][:11025]
        audio.write(tmp_path / "piece.wav", piece, 22050)
        assert np.abs(row - alone(embedder, Utterance("", str(tmp_path / "piece.wav")))).max() < 1e-5, utterance.id


def test_windows_of_a_long_recording_take_little_memory(tmp_path):
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8000, 1) as sound:
        for _ in range(20):
            sound.write(0.1 * np.random.default_rng(0).standard_normal(60 * 8000))
    windows, _ = sources.windows([Utterance("long", str(tmp_path / "long.wav"))], 10, 10)
    statistics = Embedder(LogMel(40), FrameStatistics(40))
    tracemalloc.start()
    found = extraction.extract(
        statistics, [w.utterance for w in windows], kept=extraction.cache_of(statistics), progress=False
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.ids) == 120 and peak < 8e6  # the whole is 77 MB


def test_an_embedding_is_that_of_the_file_alone(embedder, speech):
    files = [speech(f"{i}.wav", seconds, seed=i) for i, seconds in enumerate((0.5, 1.3, 0.9))]
    ids, rows, skipped = extraction.embed(embedder, [extraction.Utterance(str(f), str(f)) for f in files])
    assert ids == [str(f) for f in files] and not skipped and rows.dtype == np.float32
    for row, file in zip(rows, files):
        with torch.no_grad():
            assert np.allclose(row, embedder(torch.from_numpy(audio.read(file))[None])[0].numpy(), atol=1e-6)
    again = extraction.embed(embedder, [extraction.Utterance(str(f), str(f)) for f in reversed(files)])[1]
    assert np.array_equal(again[::-1], rows)


def test_a_training_embedder_is_put_back_as_it_was(embedder, speech):
    embedder.train()
    before = {k: v.clone() for k, v in embedder.state_dict().items()}
    extraction.embed(embedder, [extraction.Utterance("a", str(speech("a.wav")))])
    assert embedder.training and all(torch.equal(v, before[k]) for k, v in embedder.state_dict().items())
    embedder.eval()


def test_ids_of_a_folder_a_csv_a_scp_and_files(folder, tiny, tmp_path, monkeypatch):
    names = read_trials(tiny / "trials.txt").ids
    _, from_folder = extracted(folder, tiny / "wav", "--out", tmp_path / "a.npz")
    assert set(names) <= set(from_folder["ids"])
    _, from_csv = extracted(folder, tiny / "test.csv", "--out", tmp_path / "b.npz")
    assert set(from_csv["ids"]) == {f"wav/{name}" for name in names}
    monkeypatch.chdir(tiny / "wav")
    _, from_files = extracted(folder, *names[:2], "--out", tmp_path / "c.npz")
    assert list(from_files["ids"]) == names[:2]
    (tmp_path / "kaldi").mkdir()
    lines = "".join(f"utt{i} {tiny / 'wav' / n}\n" for i, n in enumerate(names[:2]))
    (tmp_path / "kaldi" / "wav.scp").write_text(lines)
    with open(tmp_path / "kaldi" / "wav.scp", "a") as file:
        file.write("utt9 /gone.wav\n")
    code, from_scp = extracted(folder, tmp_path / "kaldi" / "wav.scp", "--out", tmp_path / "d.npz")
    assert set(from_scp["ids"]) == {"utt0", "utt1"} and code == 3
    row = dict(zip(from_folder["ids"], from_folder["embeddings"]))
    named = {"utt0": names[0], "utt1": names[1], names[0]: names[0], names[1]: names[1]}
    for other in (from_files, from_scp):
        assert all(np.array_equal(row[named[i]], e) for i, e in zip(other["ids"], other["embeddings"]))


def test_segments_of_one_recording_are_known_by_their_id(folder, speech, tmp_path):
    speech("a.wav", 2.0)
    (tmp_path / "m.csv").write_text("ID,duration,wav,start,stop\nx,1,a.wav,0,16000\ny,1,a.wav,16000,32000\n")
    _, out = extracted(folder, tmp_path / "m.csv", "--out", tmp_path / "e.npz")
    assert list(out["ids"]) == ["x", "y"] and not np.array_equal(*out["embeddings"])


def test_what_cannot_be_read_is_listed(folder, speech, tmp_path, capsys):
    speech("data/good.wav")
    for name in ("bad.wav", "=1+1.wav"):
        (tmp_path / "data" / name).write_text("text")
    code, out = extracted(folder, tmp_path / "data", "--out", tmp_path / "e.npz")
    assert code == 3 and list(out["ids"]) == ["good.wav"]
    table = (tmp_path / "e.skipped.csv").read_text()
    assert "\nbad.wav," in table and "\n'=1+1.wav," in table  # no formula for a spreadsheet
    assert "skipped 2 recordings" in capsys.readouterr().err


def test_windows_are_written_with_their_times(folder, speech, tmp_path):
    speech("wav/talk.wav", 3.0)
    (tmp_path / "talk.rttm").write_text("SPEAKER talk 1 0.5 1.75 <NA> <NA> ann <NA> <NA>\n")
    _, out = extracted(
        folder, tmp_path / "talk.rttm", "--audio", tmp_path / "wav", "--window", 1.0, "--out", tmp_path / "e.npz"
    )
    with open(tmp_path / "e.windows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == out["ids"].tolist() and {row["recording"] for row in rows} == {"talk"}
    times = [(float(row["start"]), float(row["stop"])) for row in rows]
    assert times == [(0.5, 1.5), (1.0, 2.0), (1.25, 2.25)]


def test_crops_are_written_and_scored(folder, tiny, tmp_path):
    names = read_trials(tiny / "trials.txt").ids
    _, out = extracted(
        folder,
        tiny / "wav",
        "--crops",
        2,
        "--crop-seconds",
        1,
        "--score",
        tiny / "trials.txt",
        "--out",
        tmp_path / "e.npz",
    )
    assert {f"{names[0]}/0", f"{names[0]}/1"} <= set(out["ids"])
    assert len(read_trials(tmp_path / "e.scores.txt").scores) == len(read_trials(tiny / "trials.txt").labels)


def test_trials_of_a_skipped_recording_are_left_out_of_the_scores(folder, speech, tmp_path, monkeypatch, capsys):
    speech("a.wav"), speech("b.wav"), (tmp_path / "c.wav").write_text("text")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("1 a.wav b.wav\n0 a.wav c.wav\n")
    code, _ = extracted(folder, "a.wav", "b.wav", "c.wav", "--crops", 2, "--score", "t.txt", "--out", "e.npz")
    assert code == 3 and len(read_trials("e.scores.txt").scores) == 1
    assert "left out: 1 of 2 trials" in capsys.readouterr().out


@pytest.mark.parametrize("encoder", [FastResNet34(40, "small", dim=16), ECAPA(40, "small", 16)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_cpu_a_batch_does_not_change_one_bit(encoder, precision, speech):
    """Of recordings of one length, which a batch could hold."""
    utterances = [Utterance(str(i), str(speech(f"{i}.wav", 0.6001, seed=i))) for i in range(9)]
    made = Embedder(LogMel(40), encoder).eval()
    one, *others = (
        extraction.extract(made, utterances, Options(precision, batch), progress=False).rows for batch in (1, 2, 8)
    )
    assert all(np.array_equal(one, other) for other in others)


@pytest.mark.parametrize("seconds, grid", [(0.5, 0), (0.95, 0), (0.95, 0.5)])
def test_what_was_kept_of_a_recording_that_is_too_long_is_left_out(folder, speech, tmp_path, capsys, seconds, grid):
    """As it would be without a cache, and not one sample earlier."""
    wav, out = speech("a.wav", 1.0), tmp_path / "e.npz"
    more = ["--length-grid", grid]
    assert extracted(folder, wav, "--out", out, *more)[0] == 0
    assert extract.main([folder, str(wav), "--out", str(out), "--longest", str(seconds), *map(str, more)]) == 2
    assert f"1 s is too long, want at most {seconds} s: use --window" in capsys.readouterr().err
    assert extracted(folder, wav, "--out", out, "--longest", 1.0, *more)[0] == 0
    assert "kept from before" in capsys.readouterr().out


def test_what_was_kept_of_crops_is_of_recordings_of_any_length(folder, speech, tmp_path, capsys):
    wav, out = speech("a.wav", 1.0), tmp_path / "e.npz"
    for _ in range(2):
        assert extracted(folder, wav, "--out", out, "--crops", 2, "--crop-seconds", 0.9, "--longest", 0.5)[0] == 0
    assert "kept from before" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_rows_are_told_once_and_made_anew(folder, speech, tmp_path, capsys, workers):
    for i in range(5):
        speech(f"many/{i}.wav", 0.3, seed=i)
    out = tmp_path / "e.npz"
    rows = []
    for damaged in (0, 3, 0):
        with database(tmp_path) as kept:
            for (key,) in kept.execute("SELECT key FROM rows LIMIT ?", (damaged,)).fetchall():
                kept.execute("UPDATE rows SET row = zeroblob(length(row)) WHERE key = ?", (key,))
        capsys.readouterr()
        _, found = extracted(folder, tmp_path / "many", "--out", out, "--workers", workers)
        rows.append(found["embeddings"])
        told = f"note: {damaged} embeddings kept from before were damaged: they are made anew\n" if damaged else ""
        assert capsys.readouterr().err == told
    assert all(np.array_equal(rows[0], other) for other in rows)


@contextmanager
def database(tmp_path):
    """The file of the cache; an empty one where there is none yet."""
    paths = list((tmp_path / "cache" / "sv_ssl" / "embeddings").glob("*.sqlite"))
    kept = sqlite3.connect(paths[0] if paths else ":memory:")
    with kept:
        if not paths:
            kept.execute("CREATE TABLE rows (key, row)")
        yield kept
    kept.close()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("in_memory", [False, True])
def test_what_is_kept_under_a_content_was_decoded_of_it(embedder, speech, tmp_path, monkeypatch, in_place, in_memory):
    """A file that is exchanged, or written over, between hash and decoder."""
    paths = [speech(f"{i}.wav", 0.5, seed=i) for i in range(2)]
    waves = {hashlib.sha1(path.read_bytes()).hexdigest(): audio.read(path) for path in paths}
    there = tmp_path / "there.wav"
    shutil.copy(paths[0], there)
    os.utime(there, (1, 1))
    if not in_memory:
        monkeypatch.setattr(held_file, "AT_ONCE", 100)
    parts = audio.parts

    def exchanged(*arguments, **more):
        shutil.copy(paths[1], there if in_place else tmp_path / "new.wav")
        if not in_place:
            os.replace(tmp_path / "new.wav", there)
        return parts(*arguments, **more)

    monkeypatch.setattr(audio, "parts", exchanged)
    utterances, kept = [Utterance("there", str(there))], extraction.cache_of(embedder)
    (found,) = extraction.extract(embedder, utterances, kept=kept, progress=False).rows[:, 0]
    own = {content: extraction.embed_wave(embedder, wave) for content, wave in waves.items()}
    rows = {content: kept.get(f"{content} (0, None) {Options().key()}") for content in waves}
    there_are = {content: row for content, row in rows.items() if row is not None}
    assert all(np.array_equal(row, own[content]) for content, row in there_are.items())
    assert len(there_are) == in_memory  # of a large file that changed, nothing is kept
    assert any(np.array_equal(found, row) for row in own.values())


def test_a_second_run_embeds_nothing(folder, speech, tmp_path, capsys):
    wav, out = speech("a.wav"), tmp_path / "e.npz"
    lines = []
    for more in ([], [], ["--no-cache"]):
        _, found = extracted(folder, wav, "--out", out, *more)
        lines.append((capsys.readouterr().out, found["embeddings"].tobytes()))
    assert ["1.0 s of audio embedded" in line for line, _ in lines] == [True, False, True]
    assert len({row for _, row in lines}) == 1


def started(folder, speech, tmp_path, seconds):
    """sv-extract with two workers on 16 recordings, once it has embedded some of them."""
    for i in range(16):
        speech(f"many/{i:02}.wav", seconds, seed=i)
    code = "import sys; from sv_ssl.cli.extract import main; sys.exit(main(sys.argv[1:]))"
    command = [
        sys.executable,
        "-c",
        code,
        folder,
        str(tmp_path / "many"),
        "--out",
        str(tmp_path / "e.npz"),
        "--workers",
        "2",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True, text=True)
    deadline = time.monotonic() + 300
    while not rows_kept(tmp_path) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, process.stderr.read()
    return process


def rows_kept(tmp_path):
    try:
        (path,) = (tmp_path / "cache" / "sv_ssl" / "embeddings").glob("*.sqlite")
        return sqlite3.connect(path).execute("SELECT count(*) FROM rows").fetchone()[0]
    except (ValueError, sqlite3.Error):
        return 0


def all_end(group):
    """Whether no process of a group is left after a while."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not subprocess.run(["ps", "-o", "pid=", "-g", str(group)], capture_output=True, text=True).stdout.split():
            return True
        time.sleep(0.1)
    return False


def test_after_a_kill_the_rest_is_embedded_and_no_process_is_left(embedder, folder, speech, tmp_path):
    process = started(folder, speech, tmp_path, 30.0)
    process.kill()
    process.wait()
    assert all_end(process.pid)
    kept = rows_kept(tmp_path)
    assert 0 < kept < 16 and not (tmp_path / "e.npz").exists()
    utterances, _ = sources.find([str(tmp_path / "many")])
    found = extraction.extract(embedder, utterances, kept=extraction.cache_of(embedder), progress=False)
    assert found.seconds == 30.0 * (16 - kept)
    assert np.abs(found.rows[0, 0] - alone(embedder, utterances[0])).max() < 1e-5


def test_ctrl_c_stops_quietly(folder, speech, tmp_path):
    process = started(folder, speech, tmp_path, 30.0)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(120) == 130
    assert process.stderr.read().strip() == "stopped" and all_end(process.pid)


def test_extract_then_score(folder, tiny, tmp_path, capsys):
    assert extract.main([folder, str(tiny / "wav"), "--out", str(tmp_path / "e.npz")]) == 0
    assert score.main([str(tiny / "trials.txt"), "--embeddings", str(tmp_path / "e.npz")]) == 0
    assert "EER" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["{m}", "nothing", "--out", "e.npz"], "nothing is not there"),
        (["{m}", "README.md", "--out", "e.npz"], "is not"),
        (["{m}", "empty", "--out", "e.npz"], "holds no audio files"),
        (["nomodel", "{w}", "--out", "e.npz"], "is not a model folder"),
        (["{m}", "{w}", "--out", "e.txt"], "ends in .npz"),
        (["{m}", "{w}"], "--out"),
        (["{m}", "{w}", "--out", "e.npz", "--device", "abacus"], "cannot be used"),
        (["{m}", "gone.wav", "--out", "e.npz"], "none of 1 recordings could be embedded"),
        (["{m}", "{w}", "{w}", "--out", "e.npz"], "w.wav comes twice"),
        (["{m}", "{w}", "--out", "e.npz", "--hop", "1"], "--hop needs --window"),
        (["{m}", "{w}", "--out", "e.npz", "--crop-seconds", "1"], "--crop-seconds needs --crops"),
        (["{m}", "{w}", "--out", "e.npz", "--score", "list"], "--score needs --crops"),
        (["{m}", "{w}", "--out", "e.npz", "--crops", "2", "--window", "1"], "exclude each other"),
        (["{m}", "{w}", "--out", "e.npz", "--crops", "0"], "--crops 0: wanted 1 or more"),
        (["{m}", "{w}", "--out", "e.npz", "--window", "0"], "wanted windows"),
        (["{m}", "{w}", "--out", "e.npz", "--window", "nan"], "wanted windows"),
        (["{m}", "{w}", "--out", "e.npz", "--length-grid", "nan"], "--length-grid nan"),
        (["{m}", "{w}", "--out", "e.npz", "--workers", "-1"], "--workers -1"),
        (["{m}", "--out", "e.npz"], "wanted MODEL and INPUT"),
        (["{m}", "{w}", "--out", "e.npz", "--device", "cuda:77"], "'cuda:77' cannot be used"),
        (["{m}", "{w}", "--out", "e.npz", "--shard", "5/4"], "--shard 5/4: wanted K/N"),
        (
            ["{m}", "{w}", "--out", "e.npz", "--shard", "1/2", "--crops", "2", "--score", "l"],
            "--score goes with --merge",
        ),
        (["--merge", "gone.part", "--out", "e.npz"], "cannot read gone.part"),
        (["--merge", "{w}", "--out", "e.npz"], "wanted a part that sv-extract --shard wrote"),
        (["{m}", "--merge", "gone.part", "--out", "e.npz"], "--merge takes --out, --score and parts alone"),
        (["{m}", "{w}", "--out", "e.npz", "--longest", "0.5"], "1 s is too long, want at most 0.5 s: use --window"),
    ],
)
def test_bad_input_gets_one_line(folder, speech, tmp_path, monkeypatch, capsys, arguments, words):
    wav = str(speech("w.wav"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert extract.main([a.format(m=folder, w=wav) for a in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and "Traceback" not in error
    assert not (tmp_path / "e.npz").exists()


def test_windows_come_from_pieces_of_their_recording(speech):
    listed = [Utterance(str(i), "a.wav") for i in range(5000)] + [Utterance(str(i), f"{i}.wav") for i in range(9)]
    shares = blocks(listed, 2)
    assert [i for share in shares for i in share] == list(range(len(listed)))
    assert {len(share) for share in shares[:9]} == {PIECE} and [len(share) for share in shares[10:]] == [4, 4, 1]
    assert {len(share) for share in blocks(listed[:400], 2)} == {50}


def test_windows_of_one_recording_are_read_by_threads_in_pieces(embedder, tmp_path):
    soundfile.write(tmp_path / "a.mp3", 0.1 * np.random.default_rng(0).standard_normal(16000 * 8), 16000)
    windows, _ = sources.windows([Utterance("a", str(tmp_path / "a.mp3"))], 0.2, 0.1)
    utterances = [window.utterance for window in windows]
    assert len(utterances) > HELD
    plain, ahead = (
        {one.index: one.result for one in Extractor(embedder, Options(), None)(utterances, readers)}
        for readers in (0, 2)
    )
    assert plain.keys() == ahead.keys() == set(range(len(utterances)))
    assert max(np.abs(plain[i] - ahead[i]).max() for i in plain) < 1e-5


def test_parts_of_other_runs_or_too_few_are_refused(folder, speech, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        speech(f"w/{i}.wav", seed=i)
    for name, more in (("a", []), ("b", ["--crops", "2"])):
        for shard in ("1/2", "2/2"):
            assert extract.main([folder, "w", "--out", f"{name}.npz", "--shard", shard, *more]) == 0
    capsys.readouterr()
    for merged, words in (
        (["a.1-of-2.part", "b.2-of-2.part"], "of different runs"),
        (["a.1-of-2.part"], "not there: 2"),
        (["a.1-of-2.part", "a.2-of-2.part", "a.1-of-2.part"], "one comes twice"),
    ):
        assert extract.main(["--merge", *merged, "--out", "c.npz"]) == 2
        assert words in capsys.readouterr().err and not Path("c.npz").exists()


def test_windows_and_scored_crops_in_parts(folder, tiny, tmp_path):
    trials = str(tiny / "trials.txt")
    for name, options, more in (("w", ["--window", "0.5"], []), ("c", ["--crops", "2"], ["--score", trials])):
        one, out = tmp_path / f"{name}1.npz", tmp_path / f"{name}.npz"
        extract.main([folder, str(tiny / "wav"), "--out", str(one), *options, *more])
        for shard in ("1/3", "2/3", "3/3"):
            extract.main([folder, str(tiny / "wav"), "--out", str(out), "--shard", shard, *options])
        merged = sorted(map(str, tmp_path.glob(f"{name}.*.part")))
        assert extract.main(["--merge", *merged, "--out", str(out), *more]) == 0
        assert one.read_bytes() == out.read_bytes()
        ending = ".windows.csv" if name == "w" else ".scores.txt"
        assert one.with_suffix(ending).read_bytes() == out.with_suffix(ending).read_bytes()


def test_a_name_that_is_not_utf8_is_embedded(folder, speech, tmp_path):
    (tmp_path / "odd").mkdir()
    os.rename(speech("a.wav"), os.fsencode(tmp_path / "odd") + b"/caf\xe9.wav")
    code, out = extracted(folder, tmp_path / "odd", "--out", tmp_path / "e.npz")
    assert code == 0 and out["ids"].tolist() == ["caf\udce9.wav"]
    assert extract.main([folder, str(tmp_path / "odd"), "--out", str(tmp_path / "e.parquet")]) == 2


def test_trials_with_an_unusable_recording_are_refused(embedder, speech, tmp_path):
    speech("a.wav")
    with pytest.raises(InputError, match="1 of 2 recordings of the trial list cannot be used.*b.wav: no such file"):
        extraction.embed_trials(embedder, ["a.wav", "b.wav"], tmp_path)
