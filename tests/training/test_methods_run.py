"""Methods beyond SimCLR and MoCo as recipes: they start from a contrastive model, and leave one that all can load."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from test_experiment import SHORT, SIMCLR, SSPS, TRAIN, options, run

import sv_ssl
from sv_ssl import audio
from sv_ssl.cli import export
from sv_ssl.data import manifest
from sv_ssl.models import folder
from sv_ssl.training import dataset, held_out, speaker_scores
from sv_ssl.verification import metrics

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
    if name in ("dino", "sdpn"):
        the_teacher_was_kept(tiny, tmp_path / "out", min(record["eer"] for record in log if "eer" in record))


def the_teacher_was_kept(tiny, out, best_eer):
    """The model folder is the teacher of the best epoch, and scores as it did while the run went on."""
    kept = load_file(out / "model" / "model.safetensors")
    epochs = []
    for checkpoint in out.glob("save/CKPT*"):
        state = torch.load(checkpoint / "method.ckpt", weights_only=True)
        parts = ("teacher.0.", "embedder.")
        epochs.append([all(np.array_equal(kept[key], state[part + key].numpy()) for key in kept) for part in parts])
    assert [True, False] in epochs and not any(student for _, student in epochs)
    listed = dataset.trial_list(tiny / "valid.txt", [], tiny / "wav")
    [scores] = speaker_scores.scored(folder.load(out / "model"), [listed])
    assert metrics.evaluate(scores, listed.labels)["eer"] == best_eer


@pytest.mark.parametrize("name", ["ssps", "deepcluster", "sdpn"])
def test_recordings_of_unknown_speakers_are_enough(tiny, tmp_path, name):
    """Nothing is known of them, and no list is named: halves of utterances choose the epoch, nothing is tested."""
    text = (tiny / "train.csv").read_text().replace("$data_root", str(tiny))
    known = pd.read_csv(io.StringIO(text))
    known.drop(columns=["spk_id", "session"]).to_csv(tmp_path / "unknown.csv", index=False)
    unknown = [f"--train_csv={tmp_path / 'unknown.csv'}", f"--data_folder={tiny / 'wav'}", "--corpus=unknown"]
    more = [*ENCODER, *METHODS[name], "--epochs=3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "MOST_SHARE", 0.5)
        patch.setattr(held_out, "LEAST_SECONDS", 0.5)
        assert run(TRAIN, f"hparams/{name}.yaml", *options(tiny, tmp_path), *more, *unknown) == 0
    log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(record["loss"]) and "eer" in record for record in log)
    assert not any("speaker" in figure or "recording" in figure for record in log for figure in record)
    assert name != "ssps" or "coverage" in log[2]
    assert not (tmp_path / "results").exists()


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
