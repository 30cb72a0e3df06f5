import numpy as np
import pytest
import torch

from sv_ssl import audio, embed, model
from sv_ssl.cli import extract, score
from sv_ssl.encoders import Embedder, FastResNet34
from sv_ssl.features import LogMel
from sv_ssl.files import InputError
from sv_ssl.trials import read_trials


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


def test_an_embedding_is_that_of_the_file_alone(embedder, speech):
    files = [speech(f"{i}.wav", seconds, seed=i) for i, seconds in enumerate((0.5, 1.3, 0.9))]
    ids, rows, skipped = embed.embed(embedder, [embed.Utterance(str(f), str(f)) for f in files])
    assert ids == [str(f) for f in files] and not skipped and rows.dtype == np.float32
    for row, file in zip(rows, files):
        with torch.no_grad():
            assert np.allclose(row, embedder(torch.from_numpy(audio.read(file))[None])[0].numpy(), atol=1e-6)
    again = embed.embed(embedder, [embed.Utterance(str(f), str(f)) for f in reversed(files)])[1]
    assert np.array_equal(again[::-1], rows)


def test_a_training_embedder_is_put_back_as_it_was(embedder, speech):
    embedder.train()
    before = {k: v.clone() for k, v in embedder.state_dict().items()}
    embed.embed(embedder, [embed.Utterance("a", str(speech("a.wav")))])
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
    row = {i: e for i, e in zip(from_folder["ids"], from_folder["embeddings"])}
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
    (tmp_path / "data" / "bad.wav").write_text("text")
    code, out = extracted(folder, tmp_path / "data", "--out", tmp_path / "e.npz")
    assert code == 3 and list(out["ids"]) == ["good.wav"]
    assert "bad.wav,".encode() in (tmp_path / "e.skipped.csv").read_bytes()
    assert "skipped 1 recordings" in capsys.readouterr().err


def test_extract_then_score(folder, tiny, tmp_path, capsys):
    assert extract.main([folder, str(tiny / "wav"), "--out", str(tmp_path / "e.npz")]) == 0
    assert score.main([str(tiny / "trials.txt"), "--embeddings", str(tmp_path / "e.npz")]) == 0
    assert "EER" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, words", [
    (["{m}", "nothing", "--out", "e.npz"], "nothing is not there"),
    (["{m}", "README.md", "--out", "e.npz"], "is not"),
    (["{m}", "empty", "--out", "e.npz"], "holds no audio files"),
    (["nomodel", "{w}", "--out", "e.npz"], "is not a model folder"),
    (["{m}", "{w}", "--out", "e.txt"], "ends in .npz"),
    (["{m}", "{w}"], "--out"),
    (["{m}", "{w}", "--out", "e.npz", "--device", "abacus"], "cannot be used"),
    (["{m}", "gone.wav", "--out", "e.npz"], "none of 1 recordings could be embedded"),
])
def test_bad_input_gets_one_line(folder, speech, tmp_path, monkeypatch, capsys, arguments, words):
    wav = str(speech("w.wav"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert extract.main([a.format(m=folder, w=wav) for a in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and "Traceback" not in error
    assert not (tmp_path / "e.npz").exists()


def test_trials_with_an_unusable_recording_are_refused(embedder, speech, tmp_path):
    speech("a.wav")
    with pytest.raises(InputError, match="1 of 2 recordings of the trial list cannot be used.*b.wav: no such file"):
        embed.embed_trials(embedder, ["a.wav", "b.wav"], tmp_path)
