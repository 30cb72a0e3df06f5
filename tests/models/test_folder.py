import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sv_ssl.core.errors import InputError
from sv_ssl.models import folder as model
from sv_ssl.models import registry, weights
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34, ResNet34, SelfAttentivePooling


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


def whole(folder):
    """Return which of the two models is in the folder's place."""
    return model.load(folder).dim


def killed_at(moment, monkeypatch):
    """Let the process end, without anything being tidied up, before the change of the disk of this number."""
    seen = []
    for home, name in ((Path, "rename"), (Path, "mkdir"), (shutil, "rmtree"), (weights, "save_file")):
        usual = getattr(home, name)

        def counted(*args, _usual=usual, **more):
            seen.append(_usual)
            if len(seen) > moment:
                raise KeyboardInterrupt
            return _usual(*args, **more)

        monkeypatch.setattr(home, name, counted)
    return seen


@pytest.mark.parametrize("moment", range(9))
def test_after_a_kill_at_any_moment_a_whole_model_is_there_and_the_next_save_works(folder, monkeypatch, moment):
    """All changes of the disk after the kill fail, so that nothing is tidied up, as after kill -9."""
    with monkeypatch.context() as patched:
        seen = killed_at(moment, patched)
        try:
            model.save(folder, made(FastResNet34(40, "small", dim=16)), {})
        except KeyboardInterrupt:
            pass
    assert (moment < 8) == (len(seen) > moment)
    assert whole(folder) in (16, 32)
    model.save(folder, made(FastResNet34(40, "small", dim=8)), {})
    assert whole(folder) == 8 and [p.name for p in folder.parent.iterdir()] == ["m"]


def test_what_an_older_version_left_after_a_kill_is_no_trouble(folder):
    shutil.copytree(folder, folder.with_name(".m-new-old"))
    model.save(folder, made(FastResNet34(40, "small", dim=16)), {})
    assert whole(folder) == 16 and [p.name for p in folder.parent.iterdir()] == ["m"]


def test_a_link_stays_and_a_file_is_not_replaced(folder):
    (folder.parent / "link").symlink_to(folder)
    model.save(folder.parent / "link", made(FastResNet34(40, "small", dim=16)), {})
    assert (folder.parent / "link").is_symlink() and whole(folder) == 16
    (folder.parent / "file").write_text("mine")
    with pytest.raises(InputError, match="file: a file of this name is there"):
        model.save(folder.parent / "file", made(FastResNet34(40, "small", dim=16)), {})
    assert (folder.parent / "file").read_text() == "mine"


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


# ------------------------------------------------------------------------------------------------ a stranger's folder
def part_of(folder, what, **changes):
    edited(folder, **{what: {**json.loads((folder / "config.json").read_text())[what], **changes}})


def encoder(**changes):
    return lambda folder: part_of(folder, "encoder", **changes)


def features(**changes):
    return lambda folder: part_of(folder, "features", **changes)


@pytest.mark.parametrize(
    "damage, reason",
    [
        (encoder(dim=20_000_000), r"encoder.project.weight is \(32, 64\), wanted \(20000000, 64\)"),
        (encoder(dim=10**30), "does not describe an embedder"),
        (encoder(dim=-1), "does not describe an embedder"),
        (encoder(dim=True), "does not describe an embedder"),
        (encoder(dim=[32]), "wanted plain values by name"),
        (encoder(size="paper"), r"encoder.stem.0.weight is \(8, .*, wanted \(16, "),
        (encoder(size=[1]), "wanted plain values by name"),
        (encoder(size=1e400), "has no size inf"),
        (encoder(name=["FastResNet34"]), "wanted plain values by name"),
        (encoder(name="x" * 5000), "wanted plain values by name"),
        (features(n_mels=0), "n_mels is 0: wanted a whole number of at least 1"),
        (features(n_mels=10**9), "n_mels is 1000000000: wanted 2048 at most"),
        (features(n_mels="40"), "n_mels is '40': wanted a whole number"),
        (features(n_mels=float("nan")), "n_mels is nan"),
        (features(sample_rate=0), "sample_rate is 0: wanted a whole number of at least 1000"),
        (features(sample_rate=10**12), "sample_rate is 1000000000000: wanted 384000 at most"),
        (features(hop_seconds=0), "hop_seconds is 0"),
        (features(hop_seconds=1e400), "hop_seconds is inf"),
        (features(window_seconds=1e6), "window_seconds is 1000000.0: wanted 1 at most"),
        (features(window_seconds=1, n_mels=2048), "n_mels is 2048: wanted 262 at most for windows of 1 s at 16000 Hz"),
        (features(floor=float("nan")), "floor is nan"),
        (features(sentence_mean="no"), "sentence_mean is 'no': choose True or False"),
        (features(spec_augment="stripes"), "features of a model folder have no 'spec_augment'"),
        (features(window=7), "does not describe an embedder"),
        (lambda f: part_of(f, "features", name="KaldiFbank", window_seconds=1), "does not describe an embedder"),
        (
            lambda f: edited(f, features={"name": "SpeechBrainFbank", "n_mels": 40, "sample_rate": 48000}),
            "16000 at most",
        ),
        (lambda f: edited(f, features={"name": "KaldiFbank", "n_mels": 40, "sample_rate": 1}), "sample_rate is 1"),
        (lambda f: edited(f, features={"name": "KaldiFbank", "n_mels": 3}), "n_mels is 3"),
        (lambda f: edited(f, features={"name": "KaldiFbank", "n_mels": 40, "scale": "1"}), "scale is '1'"),
        (lambda f: edited(f, features={"name": "SslsvMel", "n_mels": 40, "hop_seconds": 0}), "hop_seconds is 0"),
        (lambda f: edited(f, features=None), "does not describe its features"),
        (lambda f: edited(f, encoder="ECAPA"), "does not describe its encoder"),
        (lambda f: edited(f, encoder={"name": "WeSpeakerResNet34", "floor": -1}), "floor is -1"),
        (lambda f: edited(f, dim=7), "dim is 7, its parts give 32"),
        (lambda f: edited(f, sample_rate=8000), "sample_rate is 8000, its parts give 16000"),
        (lambda f: edited(f, training=[1]), "training is no object"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "more than 64 brackets"),
        (lambda f: (f / "config.json").write_text(" " * 2**21), "more than 1,048,576 bytes: wanted JSON"),
    ],
)
def test_a_config_that_cannot_be_is_one_line_and_takes_no_memory(folder, damage, reason):
    damage(folder)
    with pytest.raises(InputError, match=reason) as caught:
        model.load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def with_header(header, data=b"", length=None):
    """Return what writes a safetensors file of this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = (len(text) if length is None else length).to_bytes(8, "little") + text + data
    return lambda folder: (folder / "model.safetensors").write_bytes(content)


def tensor(**changes):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    "damage, reason",
    [
        (with_header({"a": tensor(data_offsets=[0, 80])}, bytes(8)), "cannot be read"),
        (with_header({"a": tensor(), "b": tensor()}, bytes(8)), "cannot be read"),
        (with_header({"a": tensor(shape=[2**40, 2**40])}, bytes(8)), "cannot be read"),
        (with_header(b'{"a": ' + b"[" * 100_000), "cannot be read"),
        (with_header(b"", length=2**63), "its header is 9,223,372,036,854,775,808 bytes long"),
        (with_header(b" " * 2**23), "its header is 8,388,608 bytes long, wanted 4,194,304"),
        (
            with_header({"encoder.a\nb": tensor()}, bytes(8)),
            r"tensors are missing or not wanted, such as 'encoder.a\\nb'",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"abc"), "cannot be read"),
    ],
)
def test_a_header_that_lies_is_one_line(folder, damage, reason):
    damage(folder)
    with pytest.raises(InputError, match=reason) as caught:
        model.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "dtype, value, reason",
    [
        (torch.float64, 1e300, "holds values that are not finite"),
        (torch.complex64, 1, "is torch.complex64 of shape .*, wanted torch.float32 of shape"),
        (torch.int64, 1, "is torch.int64 of shape .*, wanted torch.float32"),
        (torch.bool, True, "is torch.bool of shape .*, wanted torch.float32"),
    ],
)
def test_weights_of_another_type_are_one_line(folder, dtype, value, reason):
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.project.weight"] = torch.full((32, 64), value, dtype=dtype)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=f"encoder.project.weight {reason}"):
        model.load(folder)


def test_weights_in_half_precision_are_taken(folder):
    before = model.load(folder)
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in load_file(folder / "model.safetensors").items()
    }
    save_file(halves, folder / "model.safetensors")
    weight = model.load(folder).encoder.project.weight
    assert weight.dtype == torch.float32 and torch.allclose(weight, before.encoder.project.weight, atol=1e-3)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md"])
def test_a_fifo_in_a_folder_is_one_line(folder, tmp_path, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=f"{name}: wanted an ordinary file, this is a FIFO"):
        model.renew(folder, tmp_path / "new")


def test_building_for_a_check_leaves_no_tensor_on_meta(folder):
    embedder = model.load(model.save(folder.parent / "e", made(ECAPA(40, "small")), {}))
    assert {value.device.type for value in [*embedder.parameters(), *embedder.buffers()]} == {"cpu"}


def test_the_start_of_the_question_is_xaviers():
    torch.manual_seed(3)
    question = SelfAttentivePooling(64).question
    torch.manual_seed(3)
    torch.nn.Linear(64, 64)  # drawn before it
    assert torch.equal(question, torch.nn.init.xavier_normal_(torch.empty(64, 1)))
