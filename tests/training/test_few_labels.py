"""Runs on few labels: fine-tuned, behind a frozen encoder, and what is held out whatever the labels are."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from test_experiment import SIMCLR, TRAIN, options, run

from sv_ssl import audio
from sv_ssl.data import manifest
from sv_ssl.models import folder as model_folder
from sv_ssl.training import held_out

SUPERVISED = SIMCLR.parent / "train_supervised.py"
ENCODER = ["--encoder=ECAPA", "--n_mels=40", "--dim=16"]


@pytest.fixture(scope="module")
def start(tiny, tmp_path_factory):
    """The model folder of a run without labels."""
    folder = tmp_path_factory.mktemp("start")
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, folder), *ENCODER, "--epochs=1") == 0
    return folder / "out" / "model"


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("yaml, more", [("label_efficient", ["--label_share=0.5"]), ("label_efficient_pairs", [])])
def test_a_linear_layer_behind_a_frozen_encoder(tiny, tmp_path, capsys, start, yaml, more):
    arguments = [*options(tiny, tmp_path), *ENCODER, f"--init_from={start}", "--freeze_encoder=True", *more]
    assert run(SUPERVISED, f"hparams/{yaml}.yaml", *arguments, "--peak_lr=0.01", "--epochs=1") == 0
    assert f"training: {12 if more else 24} utterances" in capsys.readouterr().out
    model = tmp_path / "out" / "model"
    before, after = weights(start), weights(model)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"encoder.tdnn.fc.conv.weight", "encoder.tdnn.fc.conv.bias"}

    state = torch.load(next((tmp_path / "out" / "save").glob("*/method.ckpt")), weights_only=True)
    path = manifest.read(tiny / "train.csv").wav[0]
    old, new = (model_folder.load(folder)(torch.from_numpy(audio.read(path))[None]) for folder in (start, model))
    layer = state["embedder.linear.weight"], state["embedder.linear.bias"]
    np.testing.assert_allclose(new.detach(), torch.nn.functional.linear(old, *layer).detach(), atol=1e-4)


def test_all_of_it_learns_from_a_few_utterances(tiny, tmp_path, capsys, start):
    arguments = [*options(tiny, tmp_path), *ENCODER, f"--init_from={start}", "--label_share=1.0"]
    few = [*arguments, "--label_share_of=speakers", "--per_speaker_labels=2", "--epochs=1"]
    assert run(SUPERVISED, "hparams/label_efficient.yaml", *few) == 0
    assert "training: 12 utterances" in capsys.readouterr().out
    before, after = weights(start), weights(tmp_path / "out" / "model")
    assert not any(np.array_equal(before[name], after[name]) for name in before if name.endswith("conv.weight"))


def test_it_is_resumed_as_if_it_had_not_stopped(tiny, tmp_path, start):
    arguments = [
        *options(tiny, tmp_path),
        *ENCODER,
        f"--init_from={start}",
        "--freeze_encoder=True",
        "--label_share=0.5",
    ]
    for folder, epochs in (("once", [2]), ("twice", [1, 2])):
        for number in epochs:
            more = [f"--epochs={number}", f"--output_folder={tmp_path / folder}"]
            assert run(SUPERVISED, "hparams/label_efficient.yaml", *arguments, *more) == 0
    once, twice = weights(tmp_path / "once" / "model"), weights(tmp_path / "twice" / "model")
    assert all(np.array_equal(once[name], twice[name]) for name in once)


@pytest.mark.parametrize(
    "script, yaml, more, text",
    [
        (SUPERVISED, "label_efficient", [], "name its model folder with --init_from"),
        (SUPERVISED, "label_efficient", ["--spec_augment=True", "START"], "leave out --freeze_encoder"),
        (SIMCLR, "am", ["START"], "for learning with speaker labels and one encoder"),
        (TRAIN, "moco", ["START", "--labels=speaker", "--queue_size=16"], "with speaker labels and one encoder"),
    ],
)
def test_what_a_frozen_encoder_is_not_for(tiny, tmp_path, capsys, start, script, yaml, more, text):
    more = [f"--init_from={start}" if word == "START" else word for word in more]
    arguments = [*options(tiny, tmp_path), *ENCODER, "--freeze_encoder=True", *more]
    assert run(script, f"hparams/{yaml}.yaml", *arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and text in said
    assert not (tmp_path / "out" / "settings.json").exists()


def test_the_same_is_held_out_whatever_the_share(tiny, tmp_path, capsys, monkeypatch):
    """A larger share then holds the smaller ones, and all are validated by one list."""
    chosen_of = []

    def choose(train, n, seed):
        chosen_of.append(len(train))
        return np.arange(len(train)) < 4

    monkeypatch.setattr(held_out, "choose", choose)
    (tmp_path / "data").mkdir()
    for path in tiny.iterdir():
        if path.name != "valid.txt":
            (tmp_path / "data" / path.name).symlink_to(path)
    for share in ("0.5", "1.0"):
        more = [f"--label_share={share}", f"--output_folder={tmp_path / share}", "--epochs=1"]
        arguments = [
            a.replace(f"--data_folder={tiny}", f"--data_folder={tmp_path / 'data'}") for a in options(tiny, tmp_path)
        ]
        assert run(SUPERVISED, "hparams/label_efficient.yaml", *arguments, *ENCODER, *more) == 0
    assert chosen_of[0] == chosen_of[1]
    half, full = (sorted((tmp_path / share).glob("valid-*")) for share in ("0.5", "1.0"))
    assert [folder.name for folder in half] == [folder.name for folder in full]
