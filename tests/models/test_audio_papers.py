"""The audio papers' encoders and features: shapes, known sizes, and their way through a model folder."""

import json

import numpy as np
import pytest
import torch
import torchaudio
from speechbrain.lobes.models import beats

from sv_ssl.core.errors import InputError
from sv_ssl.models import audio_papers, registry
from sv_ssl.models import folder as model
from sv_ssl.models.audio_papers import AST, BEATs, Pretrained, RawResNet18, ResNet18, ThreeSpectra, Waveform
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34

MADE = {
    "raw": lambda: Embedder(Waveform(), RawResNet18("small")),
    "spectra": lambda: Embedder(ThreeSpectra(32), ResNet18(32, 3, "small")),
    "log-mel": lambda: Embedder(LogMel(40), ResNet18(40, size="small")),
    "ast": lambda: Embedder(LogMel(40), AST(40, "small")),
}


def waves(rows=3, n_samples=8000, seed=0):
    return 0.1 * torch.randn(rows, n_samples, generator=torch.Generator().manual_seed(seed))


def n_parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", MADE)
@torch.no_grad()
def test_a_row_alone_is_as_among_neighbours(name):
    embedder = MADE[name]().eval()
    together = embedder(waves())
    assert together.shape == (3, embedder.dim) and together.isfinite().all()
    assert torch.allclose(together, torch.cat([embedder(row[None]) for row in waves()]), atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", MADE)
def test_comes_back_from_a_model_folder(name, tmp_path):
    torch.manual_seed(0)
    embedder = MADE[name]()
    embedder.train()(waves())
    again = model.load(model.save(tmp_path / "m", embedder.eval(), {}))
    assert type(again.features) is type(embedder.features) and again.sample_rate == 16000
    assert again.encoder.config == embedder.encoder.config
    assert torch.equal(again(waves()), embedder(waves()))


@pytest.mark.parametrize("name", MADE)
def test_a_tenth_of_a_second_is_enough_and_gradients_are_finite(name):
    embedder = MADE[name]().train()
    for wave in (torch.zeros(2, 1600), waves(2, 1600)):
        embedder.zero_grad()
        embedder(wave).square().sum().backward()
        assert all(p.grad.isfinite().all() for p in embedder.parameters())


def test_those_are_all():
    made = {type(make().encoder).__name__ for make in MADE.values()} | {"BEATs", "Pretrained"}
    ours = [name for name, kind in registry.ENCODERS.items() if kind.__module__ == audio_papers.__name__]
    assert sorted(ours) == sorted(made)


def test_an_encoder_of_transformers_that_is_not_there_is_one_line(tmp_path):
    for folder in (None, str(tmp_path)):
        with pytest.raises(InputError, match="encoder_folder is .* not downloaded"):
            Pretrained(folder)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="transformers") as caught:
        Pretrained(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_ast_is_read_from_a_folder_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra `audio` is not installed")
    config = transformers.ASTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_mel_bins=32, max_length=64
    )
    theirs = transformers.ASTModel(config).eval()
    theirs.save_pretrained(tmp_path / "ast")
    extract = transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=64, mean=-4.0, std=4.0)
    extract.save_pretrained(tmp_path / "ast")
    wave, embedder = waves(2, 8000), Embedder(Waveform(), Pretrained(str(tmp_path / "ast"))).eval()
    made = extract(list(wave.numpy()), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(embedder(wave), theirs(made["input_values"]).last_hidden_state.mean(dim=1))
        again = model.load(model.save(tmp_path / "m", embedder, {}))
        assert embedder.dim == 32 and torch.equal(again(wave), embedder(wave))
    embedder(wave).sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in embedder.parameters())


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """BEATs' own format, with few and narrow layers and the classifier of a fine-tuned model."""
    cfg = {
        "encoder_layers": 1,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 64,
        "encoder_attention_heads": 2,
        "embed_dim": 16,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "relative_position_embedding": True,
        "gru_rel_pos": True,
        "deep_norm": True,
        "finetuned_model": True,
        "predictor_class": 5,
    }
    path = tmp_path / "beats.pt"
    torch.save({"cfg": cfg, "model": {}}, path)
    with monkeypatch.context() as patch:
        patch.setattr(beats.BEATs, "load_state_dict", lambda self, weights: None)
        weights = beats.BEATs(str(path)).state_dict()
    torch.save({"cfg": cfg, "model": weights}, path)
    return path


def test_beats_is_read_from_its_checkpoint(checkpoint, tmp_path):
    wave, embedder = waves(2, 8000), Embedder(Waveform(), BEATs(str(checkpoint))).eval()
    theirs = beats.BEATs(str(checkpoint), freeze=False).eval()
    with torch.no_grad():
        assert torch.equal(embedder(wave), theirs.extract_features(wave, torch.ones(2))[0].mean(dim=1))
        assert torch.allclose(embedder(wave)[1:], embedder(wave[1:]), atol=1e-6)
        again = model.load(model.save(tmp_path / "m", embedder, {}))
        assert embedder.dim == 32 and torch.equal(again(wave), embedder(wave))
    embedder(wave).sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in embedder.parameters())


def test_what_is_no_checkpoint_of_beats_is_one_line(tmp_path):
    for name, write in (
        ("noise", lambda path: path.write_bytes(b"noise")),
        ("empty", lambda path: path.write_bytes(b"")),
        ("list", lambda path: torch.save([1], path)),
        ("other", lambda path: torch.save({}, path)),
        ("code", lambda path: torch.save({"cfg": print}, path)),
        ("narrow", lambda path: torch.save({"cfg": {"embed_dim": 8}, "model": {}}, path)),
    ):
        write(tmp_path / name)
        with pytest.raises(InputError, match="is no checkpoint of BEATs") as caught:
            BEATs(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_sizes_are_those_of_the_papers():
    """torchvision's ResNet-18 without its last layer; a ViT-Base without class token: 12 layers, patches, positions."""
    width = 768
    layer = 4 * width * (width + 1) + 2 * 4 * width * width + 5 * width + 4 * width
    assert n_parameters(ResNet18(128, 3)) == 11_689_512 - 1000 * 513
    assert n_parameters(AST(128)) == 12 * layer + 257 * width + 13 * width + 2 * width
    assert (RawResNet18().dim, ResNet18().dim, AST().dim) == (512, 512, 768)
    kernels = [m.weight.shape[2] for m in RawResNet18().modules() if isinstance(m, torch.nn.Conv1d)]
    assert kernels.count(9) == 17 and kernels.count(1) == 3


def test_speechbrain_loads_a_raw_encoder(tmp_path):
    from speechbrain.inference.classifiers import EncoderClassifier

    embedder = MADE["raw"]().eval()
    folder = model.save(tmp_path / "m", embedder, {})
    theirs = EncoderClassifier.from_hparams(source=str(folder), savedir=str(tmp_path / "speechbrain"))
    with torch.no_grad():
        assert torch.allclose(theirs.encode_batch(waves()), embedder(waves())[:, None], atol=1e-6)


# ------------------------------------------------------------------------------------------------------- the features
def test_waveform_is_the_waveform():
    assert torch.equal(Waveform()(waves().double())[:, :, 0], waves())


def spectra(wave, n_mels=128):
    """-> log-magnitude, phase and log-mel, each (frames, n_mels)."""
    return ThreeSpectra(n_mels)(wave[None])[0].chunk(3, dim=1)


@pytest.mark.parametrize("band", [40, 64, 103])
def test_the_bands_lie_evenly_on_a_logarithmic_axis(band):
    hertz = 40 * 200 ** (band / 127)
    magnitude, _, _ = spectra(torch.sin(2 * torch.pi * hertz * torch.arange(16000) / 16000))
    assert magnitude[60].argmax() == band


def test_magnitude_and_phase_are_those_of_the_fourier_sum():
    wave = waves(1, 16000)[0]
    magnitude, phase, _ = spectra(wave)
    frame, begin = 70, 70 * 128 - 1024
    piece = wave[begin : begin + 2048].double().numpy() * np.hanning(2049)[:-1]
    levels = []
    for band in (0, 31, 100):
        hertz = 40 * 200 ** (band / 127)
        value = (piece * np.exp(-2j * np.pi * hertz * np.arange(2048) / 16000)).sum()
        assert phase[frame, band].item() == pytest.approx(np.angle(value) / np.pi, abs=1e-3)
        levels.append(np.log(np.abs(value)) - magnitude[frame, band].item())
    assert np.ptp(levels) < 2e-3  # the clip's mean was taken away everywhere


def test_the_mel_bands_are_torchaudios():
    wave = waves(1, 16000)[0]
    theirs = torchaudio.transforms.MelSpectrogram(
        16000, 2048, hop_length=128, f_min=40.0, f_max=8000.0, n_mels=64, pad_mode="constant"
    )(wave).T
    expected = (theirs + 1e-6).log()
    torch.testing.assert_close(spectra(wave, 64)[2], expected - expected.mean(), atol=1e-3, rtol=1e-3)


def test_the_level_of_a_clip_does_not_matter():
    assert torch.allclose(*(ThreeSpectra(32)(level * waves()) for level in (1.0, 7.0)), atol=1e-2)


# ------------------------------------------------------------------------------------------------ what does not fit
@pytest.mark.parametrize(
    "features, encoder, text",
    [
        (LogMel(40), RawResNet18("small"), "wants 1 mel bands but the features have 40"),
        (Waveform(), FastResNet34(40, "small"), "wants 40 mel bands but the features have 1"),
        (LogMel(32), ResNet18(32, 3, "small"), "wants 3 channels but the features have 1"),
        (ThreeSpectra(32), ResNet18(32, 1, "small"), "wants 1 channels but the features have 3"),
        (ThreeSpectra(40), AST(40, "small"), "wants 1 channels but the features have 3"),
    ],
)
def test_features_that_do_not_fit_are_refused(features, encoder, text):
    with pytest.raises(InputError, match=text):
        Embedder(features, encoder)


def test_foreign_features_are_refused_and_nameless_ones_are_log_mel(tmp_path):
    folder = model.save(tmp_path / "m", MADE["log-mel"](), {})
    path = folder / "config.json"
    config = json.loads(path.read_text())
    name = config["features"].pop("name")
    path.write_text(json.dumps(config))
    assert name == "LogMel" and isinstance(model.load(folder).features, LogMel)
    path.write_text(json.dumps({**config, "features": {"name": "Linear", "in_features": 3}}))
    with pytest.raises(InputError, match="the features 'Linear' is not one of LogMel, Waveform, ThreeSpectra"):
        model.load(folder)


@torch.no_grad()
def test_ast_knows_where_a_patch_lies():
    encoder, frames = AST(40, "small").eval(), waves(1, 96 * 40).view(1, 96, 40)
    assert not torch.allclose(
        encoder(frames), encoder(frames.flip(1).unflatten(1, (6, 16)).flip(2).flatten(1, 2)), atol=1e-4
    )  # patches in another order
    assert torch.allclose(encoder(frames[:, :90]), encoder(torch.cat([frames[:, :90], torch.zeros(1, 6, 40)], 1)))
    assert encoder(torch.randn(1, 3000, 40)).isfinite().all()  # half a minute
