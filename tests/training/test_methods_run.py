"""Methods beyond SimCLR and MoCo as recipes: they start from a contrastive model, and leave one that all can load."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from test_experiment import SHORT, SIMCLR, SSPS, TRAIN, options, run

import sv_ssl
from sv_ssl import audio
from sv_ssl.cli import export
from sv_ssl.data import manifest

ENCODER = ["--encoder=ECAPA", "--encoder_size=small", "--n_mels=40", "--dim=32"]
HEAD = [*SHORT, "--average_last=0"]
METHODS = {
    "dino": HEAD,
    "rdino": [*HEAD, "--diversity_epochs=1"],
    "sdpn": [*HEAD, "--clean_seconds=0.5"],
    "ssps": SSPS,
    "ssps_dino": [*HEAD, *SSPS],
    "ssps_sdpn": [*HEAD, *SSPS],
    "ssps_swav": [*SSPS, "--hidden=16", "--projection=8", "--prototypes=8", "--codes_queue=8"],
    "ssps_vicreg": [*SSPS, "--hidden=16", "--projection=8"],
    "ssps_moco": [*SSPS, "--queue_size=16"],
    "byol": ["--hidden=16", "--projection=8", "--predictor_hidden=16"],
    "deepcluster": ["--hidden=16", "--projection=8", "--clusters=4"],
    "protonce": ["--clusters=[2, 4]", "--queue_size=16"],
    "moco_c3": ["--clusters=4", "--queue_size=16"],
    "lejepa": ["--hidden=16", "--projection=8", "--directions=16"],
    "visreg": ["--directions=16"],
    "two_stage": ["--hidden=16", "--projection=8"],
    "barlow": ["--hidden=16", "--projection=8"],
    "clean_segments": ["--clean_seconds=0.5"],
}


@pytest.fixture(scope="module")
def contrastive(tiny, tmp_path_factory):
    """The model folder of a SimCLR run."""
    folder = tmp_path_factory.mktemp("contrastive")
    assert run(SIMCLR, "hparams/am.yaml", *options(tiny, folder), *ENCODER, "--epochs=1") == 0
    return folder / "out" / "model"


@pytest.mark.parametrize("name", METHODS)
def test_trains_logs_what_is_watched_and_leaves_a_model(tiny, tmp_path, name):
    more = [*ENCODER, *METHODS[name], "--epochs=4", "--valid_every=2"]
    assert run(TRAIN, f"hparams/{name}.yaml", *options(tiny, tmp_path), *more) == 0
    log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    assert len(log) == 4 and all(np.isfinite(record["loss"]) and record["rank"] > 1 for record in log)
    if "ssps" in name:
        assert "coverage" not in log[1] and log[3]["coverage"] >= 0 and "speaker_nmi" in log[3]
    if name in ("dino", "rdino", "sdpn", "ssps_swav"):
        assert log[0]["usage"] > 0 and 0 <= log[0]["entropy_share"] <= 1
    assert sv_ssl.load(tmp_path / "out" / "model").dim == 32


@pytest.mark.parametrize("name", ["dino", "sdpn", "ssps"])
def test_starts_from_a_contrastive_model_and_loads_everywhere(tiny, tmp_path, contrastive, name):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    from speechbrain.inference.classifiers import EncoderClassifier

    slow = ["--epochs=1", "--peak_lr=1e-12", f"--init_from={contrastive}"]
    assert run(TRAIN, f"hparams/{name}.yaml", *options(tiny, tmp_path), *ENCODER, *METHODS[name], *slow) == 0
    model = tmp_path / "out" / "model"
    old, new = (load_file(folder / "model.safetensors") for folder in (contrastive, model))
    weights = [key for key in old if key.endswith("weight")]
    assert weights and all(np.allclose(old[key], new[key], atol=1e-6) for key in weights)

    path = manifest.read(tiny / "train.csv").wav[0]
    ours = sv_ssl.load(model).embed(path)
    theirs = EncoderClassifier.from_hparams(source=str(model), savedir=str(tmp_path / "speechbrain"))
    wave = torch.from_numpy(audio.read(path))[None]
    np.testing.assert_allclose(theirs.encode_batch(wave).squeeze().numpy(), ours, atol=1e-4)
    assert export.main([str(model), "--onnx", str(tmp_path / "model.onnx")]) == 0
    np.testing.assert_allclose(sv_ssl.load(tmp_path / "model.onnx").embed(path), ours, atol=1e-4)
