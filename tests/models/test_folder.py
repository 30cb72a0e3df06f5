import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sv_ssl.core.errors import InputError
from sv_ssl.models import folder as model
from sv_ssl.models import registry, weights
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34, ResNet34


def made(encoder):
    torch.manual_seed(0)
    embedder = Embedder(LogMel(40), encoder)
    embedder.train()(torch.randn(4, 8000))  # BatchNorm statistics that are not those of the start
    return embedder.eval()


@pytest.fixture
def folder(tmp_path):
    embedder = made(FastResNet34(40, "small", dim=32))
    return model.save(tmp_path / "m", embedder, {"name": "test", "seed": 3}, {"EER": "5 %"})


@pytest.mark.parametrize("kind", [FastResNet34, ResNet34, ECAPA])
def test_comes_back_as_it_went(tmp_path, kind):
    embedder = made(kind(40, "small"))
    again = model.load(model.save(tmp_path / "m", embedder, {}))
    wave = torch.randn(1, 16000)
    assert not again.training
    assert torch.equal(again(wave), embedder(wave))


@pytest.mark.parametrize("kind", [FastResNet34, ECAPA])
def test_speechbrain_loads_the_same_folder(tmp_path, kind):
    from speechbrain.inference.classifiers import EncoderClassifier

    embedder = made(kind(40, "small"))
    folder = model.save(tmp_path / "m", embedder, {})
    theirs = EncoderClassifier.from_hparams(source=str(folder), savedir=str(tmp_path / "speechbrain"))
    wave = torch.randn(2, 16000)
    with torch.no_grad():
        assert torch.allclose(theirs.encode_batch(wave), embedder(wave)[:, None], atol=1e-6)
        assert theirs.encode_batch(wave).shape == (2, 1, embedder.dim)
        with pytest.raises(ValueError, match="padded"):
            theirs.encode_batch(wave, torch.tensor([1.0, 0.5]))


def test_the_card_says_how_and_how_well(folder):
    card = (folder / "README.md").read_text()
    assert "# test" in card and "| seed | 3 |" in card and "| EER | 5 % |" in card
    assert model.describe(folder)["dim"] == 32


def test_all_files_have_the_same_rights(folder):
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_speechbrain_finds_each_class_by_its_frozen_name():
    from sv_ssl import speechbrain

    for name, kind in {**registry.FEATURES, **registry.ENCODERS}.items():
        assert getattr(speechbrain, name) is kind
    assert set(speechbrain.__all__) - registry.FEATURES.keys() - registry.ENCODERS.keys() == {
        "ForSpeechBrain",
        "Unpadded",
        "load_for_speechbrain",
    }


def test_hyperparams_name_the_facade_alone(folder):
    text = (folder / "hyperparams.yaml").read_text()
    assert "sv_ssl.speechbrain." in text and "sv_ssl." not in text.replace("sv_ssl.speechbrain.", "")


def test_a_frozen_name_outlives_its_class(folder, monkeypatch):
    """A class that is renamed or moved keeps its name in config.json and in hyperparams.yaml."""

    class Renamed(FastResNet34):
        pass

    wave = torch.randn(1, 8000)
    before = model.load(folder)(wave)
    monkeypatch.setitem(registry.ENCODERS, "FastResNet34", Renamed)
    monkeypatch.setitem(registry.NAMES, Renamed, "FastResNet34")
    again = model.load(folder)
    assert type(again.encoder) is Renamed and torch.equal(again(wave), before)
    assert registry.describe_part(again.encoder)["name"] == "FastResNet34"


def test_saving_again_replaces_the_whole(folder):
    (folder / "stray").write_text("old")
    model.save(folder, made(FastResNet34(40, "small", dim=16)), {})
    assert model.describe(folder)["dim"] == 16 and not (folder / "stray").exists()
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


def edited(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def drop_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.popitem()
    save_file(tensors, folder / "model.safetensors")


def spoil_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    next(tensor for tensor in tensors.values() if tensor.is_floating_point()).fill_(float("nan"))
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda f: (f / "config.json").unlink(), "is not a model folder: it has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is damaged"),
        (lambda f: edited(f, format="other 1"), "made by another program or version"),
        (lambda f: edited(f, encoder={"name": "Embedder"}), "the encoder 'Embedder' is not one of"),
        (lambda f: edited(f, encoder={"name": "ECAPA", "channels": 7}), "does not describe an embedder"),
        (lambda f: edited(f, encoder={"name": "FastResNet34", "n_mels": 40, "size": "small", "dim": 31}), r"\(31,"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot be read"),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000]),
            "cannot be read",
        ),
        (drop_tensor, "1 tensors are missing"),
        (spoil_tensor, "not finite"),
    ],
)
def test_damaged_and_foreign_folders_are_refused(folder, damage, reason):
    damage(folder)
    with pytest.raises(InputError, match=reason) as caught:
        model.load(folder)
    assert "\n" not in str(caught.value)


def test_nothing_in_the_folder_is_run(folder, tmp_path):
    (folder / "hyperparams.yaml").write_text(f"x: !apply:os.mkdir [{tmp_path / 'ran'}]\n")
    (folder / "embedding_model.ckpt").write_bytes(b"a pickle could stand here")
    model.load(folder)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_leaves_the_old_model(folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(InputError, match="No space left on device"):
        model.save(folder, made(FastResNet34(40, "small", dim=16)), {})
    assert model.load(folder).dim == 32
    assert [p.name for p in folder.parent.iterdir()] == ["m"]
