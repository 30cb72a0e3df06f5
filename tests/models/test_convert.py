"""Imported encoders give the embeddings of the toolkits that they come from, computed here from the same tensors."""

import os
import pickle
import zipfile

import pytest
import torch
import torch.nn.functional as F
import torchaudio
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization
from speechbrain.utils.checkpoints import Checkpointer

from sv_ssl.cli import import_model
from sv_ssl.core.errors import InputError
from sv_ssl.models import convert, folder


def waves():
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(1, samples, generator=generator) for samples in (9000, 16000, 23456)]


def ecapa(n_mels=80, dim=192):
    """SpeechBrain's, small, with BatchNorm statistics that are not those of the start."""
    torch.manual_seed(0)
    theirs = ECAPA_TDNN(n_mels, lin_neurons=dim, channels=[128] * 4 + [384], attention_channels=64, se_channels=64)
    theirs.train()(torch.randn(4, 120, n_mels))
    return theirs.eval()


class Weights(dict):
    """Tensors that are drawn when they are first asked for."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, name, *shape):
        if name not in self:
            self[name] = torch.randn(shape, generator=self.generator) / max(1, torch.Size(shape[1:]).numel()) ** 0.5
            if name.endswith("running_var"):
                self[name] = self[name].abs() + 0.5
        return self[name]

    def norm(self, x, name):
        parts = [self(f"{name}.{part}", x.shape[1]) for part in ("running_mean", "running_var", "weight", "bias")]
        self[f"{name}.num_batches_tracked"] = torch.tensor(7)
        return F.batch_norm(x, *parts)

    def conv(self, x, name, out, size, stride=1, padding=0):
        return F.conv2d(x, self(f"{name}.weight", out, x.shape[1], size, size), None, stride, padding)

    def linear(self, x, name, out):
        return F.linear(x, self(f"{name}.weight", out, x.shape[-1]), self(f"{name}.bias", out))


def fast_resnet(w, frames):
    """sslsv's Fast ResNet-34 from its description: (B, F, T) -> (B, 32); names below `encoder.`"""
    x = F.relu(w.norm(w.conv(frames[:, None], "encoder.conv", 8, 7, (2, 1), 3), "encoder.bn"))
    for stage, (depth, stride) in enumerate(zip((3, 4, 6, 3), (1, 2, 2, 1)), 1):
        for block in range(depth):
            name, out, step = f"encoder.block{stage}.{block}", 4 << stage, stride if block == 0 else 1
            y = w.norm(F.relu(w.conv(x, f"{name}.conv1", out, 3, step, 1)), f"{name}.bn1")
            y = w.norm(w.conv(y, f"{name}.conv2", out, 3, 1, 1), f"{name}.bn2")
            gate = w.linear(F.relu(w.linear(y.mean((2, 3)), f"{name}.se.fc.0", out // 8)), f"{name}.se.fc.2", out)
            if step != 1 or x.shape[1] != out:
                x = w.norm(w.conv(x, f"{name}.downsample.0", out, 1, step), f"{name}.downsample.1")
            x = F.relu(y * gate.sigmoid()[:, :, None, None] + x)
    x = x.mean(2).transpose(1, 2)
    asked = w.linear(x, "encoder.pooling.sap_linear", 64).tanh() @ w("encoder.pooling.attention", 64, 1)
    return w.linear((x * asked.softmax(1)).sum(1), "encoder.fc", 32)


def resnet(w, frames, floor):
    """WeSpeaker's ResNet-34 from its description: (B, T, F) -> (B, 24)"""
    x = F.relu(w.norm(w.conv(frames.transpose(1, 2)[:, None], "conv1", 8, 3, 1, 1), "bn1"))
    for stage, (depth, stride) in enumerate(zip((3, 4, 6, 3), (1, 2, 2, 2)), 1):
        for block in range(depth):
            name, out, step = f"layer{stage}.{block}", 4 << stage, stride if block == 0 else 1
            y = F.relu(w.norm(w.conv(x, f"{name}.conv1", out, 3, step, 1), f"{name}.bn1"))
            y = w.norm(w.conv(y, f"{name}.conv2", out, 3, 1, 1), f"{name}.bn2")
            if step != 1 or x.shape[1] != out:
                x = w.norm(w.conv(x, f"{name}.shortcut.0", out, 1, step), f"{name}.shortcut.1")
            x = F.relu(y + x)
    statistics = torch.cat([x.mean(-1).flatten(1), (x.var(-1) + floor).sqrt().flatten(1)], 1)
    return w.linear(statistics, "seg_1", 24)


def kaldi(wave, window="povey", scale=1):
    frames = torchaudio.compliance.kaldi.fbank(scale * wave, num_mel_bins=80, dither=0, window_type=window)
    return (frames - frames.mean(0))[None]


def sslsv_mel(window=torch.hamming_window):
    return torchaudio.transforms.MelSpectrogram(
        16000, n_fft=512, win_length=400, hop_length=160, window_fn=window, n_mels=40
    )


def sslsv_frames(wave, window=torch.hamming_window):
    return torch.nn.InstanceNorm1d(40)((sslsv_mel(window)(wave) + 1e-6).log())


def sslsv_file(path, weights, window=torch.hamming_window):
    """A checkpoint as its trainer writes it: with the front end's constants, and what is no part of the encoder."""
    constants = {f"encoder.features_extractor.0.{name}": x for name, x in sslsv_mel(window).state_dict().items()}
    others = {name: torch.ones(3) for name in ("queue", "projector.0.weight", "encoder_momentum.bn.bias")}
    torch.save(
        {
            "epoch": 3,
            "best_metric": 0.1,
            "model": {**constants, **others, **weights},
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        },
        path,
    )
    return path


def through_a_folder(tmp_path, path, kind):
    """Imported, saved and loaded again."""
    found = convert.read(path, kind)
    return folder.load(folder.save(tmp_path / "folder", found.embedder, {})), found


@torch.no_grad()
def difference(embedder, theirs):
    return max(float((embedder(wave) - theirs(wave)).abs().max()) for wave in waves())


def test_speechbrains_ecapa_gives_speechbrains_embeddings(tmp_path):
    theirs = ecapa()
    saved = Checkpointer(tmp_path / "save", {"embedding_model": theirs}).save_checkpoint()
    embedder, found = through_a_folder(tmp_path, saved.path / "embedding_model.ckpt", "speechbrain")
    fbank, norm = Fbank(n_mels=80), InputNormalization(norm_type="sentence", std_norm=False)
    assert difference(embedder, lambda wave: theirs(norm(fbank(wave), torch.ones(1)), torch.ones(1))[:, 0]) < 1e-5
    assert {theirs for theirs, _, _ in found.matched} == theirs.state_dict().keys()
    assert ("fc.conv.bias", "tdnn.fc.conv.bias", (192,)) in found.matched


def test_3dspeakers_ecapa(tmp_path):
    theirs = ecapa(dim=64)
    torch.save(theirs.state_dict(), tmp_path / "a.pt")
    embedder, _ = through_a_folder(tmp_path, tmp_path / "a.pt", "3dspeaker")
    assert difference(embedder, lambda wave: theirs(kaldi(wave))[:, 0]) < 1e-5


@pytest.mark.parametrize(
    "kind, window, scale, floor", [("wespeaker", "hamming", 1 << 15, 1e-7), ("3dspeaker", "povey", 1, 1e-8)]
)
def test_wespeakers_resnet(tmp_path, kind, window, scale, floor):
    weights = Weights()
    resnet(weights, torch.randn(1, 30, 80), floor)
    torch.save({**weights, "projection.weight": torch.zeros(5, 24)}, tmp_path / "avg_model.pt")
    embedder, found = through_a_folder(tmp_path, tmp_path / "avg_model.pt", kind)
    assert difference(embedder, lambda wave: resnet(weights, kaldi(wave, window, scale), floor)) < 1e-5
    assert found.left_out == {"projection": 1}
    classifier = EncoderClassifier.from_hparams(source=str(tmp_path / "folder"), savedir=str(tmp_path / "speechbrain"))
    assert difference(embedder, lambda wave: classifier.encode_batch(wave)[:, 0]) < 1e-6


@pytest.mark.parametrize("window", [torch.hamming_window, torch.hann_window])
def test_sslsvs_fast_resnet_with_its_window(tmp_path, window):
    weights = Weights()
    fast_resnet(weights, torch.randn(1, 40, 30))
    embedder, found = through_a_folder(tmp_path, sslsv_file(tmp_path / "a.pt", weights, window), "sslsv")
    assert difference(embedder, lambda wave: fast_resnet(weights, sslsv_frames(wave, window))) < 1e-5
    assert found.left_out == {"queue": 1, "projector": 1, "encoder_momentum": 1}


def test_sslsvs_ecapa(tmp_path):
    theirs = ecapa(40, 48)
    names = {
        name: f"encoder.{name}".replace("norm.norm", "norm").replace("asp_bn.norm", "asp_bn")
        for name in theirs.state_dict()
    }
    weights = {names[name]: value for name, value in theirs.state_dict().items()}
    embedder, _ = through_a_folder(tmp_path, sslsv_file(tmp_path / "a.pt", weights), "sslsv")
    assert difference(embedder, lambda wave: theirs(sslsv_frames(wave).transpose(1, 2))[:, 0]) < 1e-5


def test_counters_of_batches_may_be_absent(tmp_path):
    weights = {name: value for name, value in ecapa().state_dict().items() if "num_batches" not in name}
    torch.save({f"module.{name}": value for name, value in weights.items()}, tmp_path / "a.pt")
    assert len(convert.read(tmp_path / "a.pt", "speechbrain").matched) == len(weights)


class Evil:
    def __reduce__(self):
        return print, ("this code was run",)


def without(weights, part):
    return {name: value for name, value in weights.items() if part not in name}


@pytest.mark.parametrize(
    "change, kind, reason",
    [
        (lambda w: without(w, "asp_bn.norm.bias"), "speechbrain", "1 of our tensors have no counterpart .tdnn.asp_bn"),
        (lambda w: {**w, "fc2.weight": torch.ones(3)}, "speechbrain", r"1 of theirs have no place \(fc2.weight\)"),
        (lambda w: {**w, "mfa.conv.conv.bias": torch.ones(3)}, "speechbrain", r"conv.bias is \(3,\), ours .* \(384,"),
        (lambda w: {**w, "mfa.conv.conv.bias": torch.full((384,), torch.nan)}, "speechbrain", "not finite"),
        (lambda w: {**w, "asp.tdnn.conv.conv.weight": torch.ones(99, 1152, 1)}, "speechbrain", "99} is not among"),
        (lambda w: w, "sslsv", "has no `encoder.`: .* it has blocks, mfa"),
        (lambda w: {f"encoder.{name}": value for name, value in w.items()}, "sslsv", "holds no mel spectrogram"),
        (
            lambda w: {
                **w,
                "encoder.features_extractor.0.spectrogram.window": torch.ones(400),
                "encoder.features_extractor.0.mel_scale.fb": torch.ones(257, 40),
            },
            "sslsv",
            "front end cannot be made",
        ),
        (lambda w: {"layer2.se_res2block.0.conv.weight": torch.ones(2)}, "wespeaker", "not ours: .* pad with zeros"),
        (lambda w: {"seg_1.weight": torch.ones(2), "pool.linear1.weight": torch.ones(2)}, "wespeaker", "by attention"),
        (lambda w: {"seg_1.weight": torch.ones(2), "seg_2.weight": torch.ones(2)}, "3dspeaker", "second layer"),
        (lambda w: w, "wespeaker", "has no tensor conv1.weight, by which this layout is known"),
        (lambda w: {"seg_1.weight": torch.ones(2)}, "speechbrain", "has no tensor blocks.0.conv.conv.weight"),
        (lambda w: {}, "speechbrain", "wanted a dictionary of tensors by name"),
        (lambda w: [1, 2], "speechbrain", "it holds a list"),
        (lambda w: {"a": Evil()}, "speechbrain", "no code is run to read it"),
        (lambda w: w, "espnet", "no kind 'espnet'"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, capsys, change, kind, reason):
    torch.save(change(ecapa().state_dict()), tmp_path / "a.pt")
    with pytest.raises(InputError, match=reason) as caught:
        convert.read(tmp_path / "a.pt", kind)
    assert "\n" not in str(caught.value) and "code was run" not in capsys.readouterr().out


FC, CONV, COUNT = "fc.conv.weight", "blocks.0.conv.conv.weight", "asp_bn.norm.num_batches_tracked"
WINDOW, BANDS = "encoder.features_extractor.0.spectrogram.window", "encoder.features_extractor.0.mel_scale.fb"


@pytest.mark.parametrize(
    "changes, kind, reason",
    [
        ({CONV: torch.ones(128)}, "speechbrain", r"conv.weight is \(128,\): wanted 3 dimensions"),
        ({CONV: torch.tensor(1.0)}, "speechbrain", r"conv.weight is \(\): wanted 3 dimensions"),
        ({FC: torch.ones(0, 768, 1)}, "speechbrain", r"is \(0, 768, 1\): .* none of them 0"),
        ({CONV: torch.ones(128, 4000, 5)}, "speechbrain", "n_mels is 4000: wanted 2048 at most"),
        ({"conv1.weight": torch.ones(8), "seg_1.weight": torch.ones(3)}, "wespeaker", r"conv1.weight is \(8,\)"),
        (
            {"conv1.weight": torch.ones(8, 1, 3, 3), "seg_1.weight": torch.ones(3)},
            "wespeaker",
            r"seg_1.weight is \(3,\)",
        ),
        ({WINDOW: torch.tensor(1.0), BANDS: torch.tensor(1.0)}, "sslsv", r"a window of shape \(\) and bands of shape"),
        ({WINDOW: torch.ones(400), BANDS: torch.ones(257, 9000)}, "sslsv", "n_mels is 9000: wanted 2048 at most"),
        ({FC: torch.ones(192, 768, 1, dtype=torch.complex64)}, "speechbrain", "is torch.complex64 of shape"),
        ({FC: torch.ones(192, 768, 1, dtype=torch.int64)}, "speechbrain", "is torch.int64 of shape"),
        ({FC: torch.full((192, 768, 1), 1e300, dtype=torch.float64)}, "speechbrain", "not finite"),
        ({FC: torch.eye(3).to_sparse()}, "speechbrain", "'fc.conv.weight' is no plain tensor .torch.sparse_coo"),
        ({FC: torch.empty(2**40, 768, 1, device="meta")}, "speechbrain", "is no plain tensor .*meta"),
        ({FC: torch.ones(1).expand(10**9, 768, 1)}, "speechbrain", "which is more than the file holds"),
        ({"a\nb": torch.ones(1)}, "speechbrain", "'a.nb' is no name of a tensor"),
        ({f"module.{FC}": torch.ones(1)}, "speechbrain", "tensors of one name, with and without `module.`"),
    ],
)
def test_a_tensor_that_cannot_be_is_one_line(tmp_path, changes, kind, reason):
    torch.save({**ecapa().state_dict(), **changes}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=reason) as caught:
        convert.read(tmp_path / "a.pt", kind)
    assert str(caught.value).startswith(str(tmp_path / "a.pt")) and "\n" not in str(caught.value)


def test_a_counter_may_be_the_mean_of_several(tmp_path):
    torch.save({**ecapa().state_dict(), COUNT: torch.tensor(2.5)}, tmp_path / "a.pt")
    assert convert.read(tmp_path / "a.pt", "speechbrain").embedder.dim == 192


def test_a_packed_archive_is_one_line(tmp_path):
    torch.save(ecapa().state_dict(), tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as stored,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in stored.infolist():
            packed.writestr(entry.filename, stored.read(entry))
    with pytest.raises(InputError, match="b.pt is a compressed archive"):
        convert.read(tmp_path / "b.pt", "speechbrain")


def test_a_fifo_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(InputError, match="this is a FIFO"):
        convert.read(tmp_path / "a.pt", "speechbrain")


@pytest.mark.parametrize("variable", ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"])
def test_no_code_is_run_whatever_the_environment_says(tmp_path, monkeypatch, capsys, variable):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setenv(variable, "1")
    torch.save({"a": Evil()}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="no code is run to read it"):
        convert.read(tmp_path / "a.pt", "speechbrain")
    assert "code was run" not in capsys.readouterr().out
    torch.save(ecapa().state_dict(), tmp_path / "b.pt")
    assert convert.read(tmp_path / "b.pt", "speechbrain").embedder.dim == 192


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"a": 1}), b"\x80\x04nonsense"])
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(InputError):
        convert.read(tmp_path / "a.pt", "speechbrain")
    with pytest.raises(InputError, match="cannot read .*No such file"):
        convert.read(tmp_path / "b.pt", "speechbrain")


def test_the_command_reports_and_writes(tmp_path, capsys):
    torch.save(ecapa().state_dict(), tmp_path / "a.ckpt")
    arguments = [str(tmp_path / "a.ckpt"), "--kind", "speechbrain", "--out", str(tmp_path / "m")]
    assert import_model.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "fc.conv.weight" in printed and "(192, 768, 1)" in printed and "front end: SpeechBrain's Fbank" in printed
    described = folder.describe(tmp_path / "m")
    assert described["features"] == {"name": "SpeechBrainFbank", "n_mels": 80, "sample_rate": 16000}
    assert "its VoxCeleb recipes" in described["training"]["front_end"]
    assert import_model.main(arguments) == 2 and "is there already" in capsys.readouterr().err
    assert import_model.main([*arguments[:-1], str(tmp_path / "n"), "--kind", "wespeaker"]) == 2
    assert "conv1.weight" in capsys.readouterr().err and not (tmp_path / "n").exists()
