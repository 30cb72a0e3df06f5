"""An experiment from top to bottom: data, training, scoring, the model folder and the result."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Sequence

import numpy as np
import pandas as pd
import torch
from speechbrain.utils.run_opts import RunOptions

from sv_ssl import (audio, cli, data, distributed, embed, manifest, metrics, model, plots, results, scoring, settings,
                    shards)
from sv_ssl.brain import AtomicCheckpointer, SSLBrain
from sv_ssl.distributed import barrier, is_main, rank, world_size
from sv_ssl.encoders import Embedder, FrameStatistics
from sv_ssl.features import LogMel
from sv_ssl.files import InputError, aside
from sv_ssl.trials import Trials, read_trials, speakers, write_scores

# Settings that may differ when a run is resumed: they do not change what is learnt up to an epoch.
FREE = {"epochs", "data_folder", "train_csv", "audio_root", "valid_trials", "test_trials", "output_folder",
        "results_folder", "num_workers", "valid_every", "watch_every", "ckpt_interval_minutes", "max_damaged_share",
        "baselines", "tensorboard"}


class Corpus(NamedTuple):
    """What an experiment trains on and is judged by."""

    train: pd.DataFrame
    valid: Trials | None
    test: Trials | None
    audio_root: Path


def main(recipe_file: str, about: str, argv: Sequence[str] | None = None) -> int:
    """A recipe's command line -> its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(argv):
        print(about.strip())
        return 0
    try:
        return cli.run(lambda: run(recipe_file, argv))
    finally:
        distributed.stop()


def run(recipe_file: str, argv: Sequence[str]) -> None:
    """The experiment that the command line asks for; given again, it goes on where it was stopped."""
    hparams = settings.read(recipe_file, argv)
    found = corpus(hparams)
    prepare_output(hparams, found)
    before = baselines(hparams, found)
    brain = train(hparams, found)
    finish(hparams, found, brain, before)


# ---------------------------------------------------------------------------------------------------------- data
def corpus(hparams: dict) -> Corpus:
    """The training manifest without the speakers of the trial lists, and the lists, all checked to be there."""
    root = Path(hparams["data_folder"])
    audio_root = Path(hparams["audio_root"] or (root / "wav" if (root / "wav").is_dir() else root))
    valid = trial_list(hparams["valid_trials"], [root / "valid.txt"], audio_root)
    usual = [root / name for name in ("trials.txt", "veri_test2.txt", "veri_test.txt")]
    test = trial_list(hparams["test_trials"], usual, audio_root)
    everything = training_manifest(hparams, root)
    train = everything[~held_out(everything, [t for t in (valid, test) if t], audio_root)].reset_index(drop=True)
    if is_main():
        left_out = len(everything) - len(train)
        print(f"training: {len(train):,} utterances, {train.duration.sum() / 3600:.1f} h"
              + f" ({left_out:,} of validation or test speakers left out)" * bool(left_out))
        for option, trials in (("valid_trials", valid), ("test_trials", test)):
            print(f"{option}: " + (f"{len(trials.enroll):,} trials of {trials.name}" if trials else "none"))
    return Corpus(train, valid, test, audio_root)


def training_manifest(hparams: dict, root: Path) -> pd.DataFrame:
    """The manifest that is named, else train.csv of the data folder, else the folder itself, scanned once."""
    named = Path(hparams["train_csv"] or root / "train.csv")
    if named.is_file() or hparams["train_csv"]:
        return manifest.read(named)
    place = hashlib.sha1(os.path.realpath(root).encode()).hexdigest()[:8]      # a listing is of one folder
    scanned = Path(hparams["output_folder"]) / f"train-{place}.csv"
    if is_main() and not scanned.exists():
        found = manifest.scan(root)
        for _, reason in found.attrs["skipped"]:
            print(f"left out: {reason}")
        manifest.write(found, scanned)
    barrier()
    return manifest.read(scanned, data_root=root)


def trial_list(named: str | None, usual: list[Path], audio_root: Path) -> Trials | None:
    """The list that is named or lies at a usual place, with every recording checked to be there."""
    path = named or next((p for p in usual if p.is_file()), None)
    if path is None:
        return None
    trials = read_trials(path)
    if trials.labels is None:
        raise InputError(f"{path} has no labels: an error rate needs lines such as `1 enroll test`")
    faults = [fault for name in trials.ids if (fault := unusable(audio_root / name))]
    if faults:
        raise InputError(f"{path}: {len(faults):,} of its {len(trials.ids):,} recordings below {audio_root} "
                         f"cannot be used (is --audio_root right?); the first: {faults[0]}")
    return trials


def unusable(path: Path) -> str | None:
    """What is wrong with a recording, as far as its header tells."""
    try:
        audio.info(path)
    except audio.AudioError as error:
        return str(error)
    return None


def held_out(train: pd.DataFrame, lists: list[Trials], audio_root: Path) -> np.ndarray:
    """(N,) bool: utterances that a trial list names, and all others of their speakers where those are known."""
    folder = lru_cache(None)(os.path.realpath)
    judged = {os.path.realpath(audio_root / name) for trials in lists for name in trials.ids}
    real = train.wav.map(lambda wav: os.path.join(folder(os.path.dirname(wav)), os.path.basename(wav)))
    named = real.isin(judged).to_numpy()
    if "spk_id" not in train:
        return named
    tested = {name.rstrip("/_-") for trials in lists for name in speakers(trials) or []}
    return named | train.spk_id.isin(set(train.spk_id[named]) | tested).to_numpy()


def prepare_output(hparams: dict, found: Corpus) -> None:
    """Make the output folder; refuse one that holds a run with other settings, which would end as neither of them."""
    folder = Path(hparams["output_folder"])
    ids = hashlib.sha1("\n".join(found.train.ID).encode()).hexdigest()[:12]
    plain = {**{k: v for k, v in hparams["plain"].items() if k not in FREE},
             "training utterances": f"{len(found.train)} ({ids})"}
    record = folder / "settings.json"
    if record.exists():
        before = json.loads(record.read_text())
        if changed := [key for key in plain if before.get(key) != plain[key]]:
            raise InputError(f"{folder} holds a run with {changed[0]} {before.get(changed[0])}, this one has "
                             f"{plain[changed[0]]}: choose another --output_folder, or delete it to start afresh")
    elif is_main():
        with aside(folder / "hyperparams.yaml") as temporary:
            temporary.write_text(hparams["resolved"])
        with aside(record) as temporary:
            temporary.write_text(json.dumps(plain, indent=2) + "\n")
    barrier()


# ------------------------------------------------------------------------------------------------------ training
def train(hparams: dict, found: Corpus) -> SSLBrain:
    """Fit the method on the corpus, resuming what is there; the Brain comes back with its best weights loaded."""
    how = (hparams["n_views"], hparams["crop_seconds"], hparams["augment"], hparams["seed"],
           hparams["embedder"].sample_rate)
    which = (hparams["batch_size"], hparams["seed"], rank(), world_size())
    views: data.Views
    batches: data.Batches
    if "shard" in found.train:
        views, batches = shards.ShardViews(found.train, *how), shards.ShardBatches(found.train, *which)
    else:
        views = data.Views(found.train, *how)
        batches = data.Batches(len(views), *which)
    on_gpu = hparams["run_opts"]["device"] != "cpu"
    brain = SSLBrain(hparams["method"], hparams["opt_class"], hparams, RunOptions.from_dictionary(hparams["run_opts"]),
                     data.loader(views, batches, hparams["num_workers"], pin_memory=on_gpu),
                     validator(found), AtomicCheckpointer(Path(hparams["output_folder"]) / "save"))
    try:
        brain.fit_all()
    except KeyboardInterrupt:
        print(f"\nstopped in epoch {brain.epoch}: the same command goes on from the last checkpoint")
        raise
    return brain


def validator(found: Corpus):
    """embedder -> metrics on the validation list, or None without a list."""
    return (lambda embedder: measured(embedder, found.valid, found.audio_root)) if found.valid else None


def measured(embedder: Embedder, trials: Trials, audio_root: Path) -> dict[str, Any]:
    """Embed the recordings of a list, score its trials by cosine, measure."""
    assert trials.labels is not None      # `trial_list` saw to it
    return metrics.evaluate(scored(embedder, trials, audio_root), trials.labels)


def scored(embedder: Embedder, trials: Trials, audio_root: Path) -> np.ndarray:
    return scoring.cosine(embed.embed_trials(embedder, trials.ids, audio_root), trials)


# ---------------------------------------------------------------------------------------------------- the result
def baselines(hparams: dict, found: Corpus) -> dict[str, float]:
    """Test EERs without learning: frame statistics, and the encoder as it is now. Call it before `train`."""
    if not (hparams["baselines"] and found.test and is_main()):
        return {}
    statistics = Embedder(LogMel(40, hparams["embedder"].sample_rate, sentence_mean=False), FrameStatistics(40))
    return {name: measured(embedder, found.test, found.audio_root)["eer"]
            for name, embedder in (("no_learning", statistics), ("untrained", hparams["embedder"]))}


def finish(hparams: dict, found: Corpus, brain: SSLBrain, before: dict[str, float]) -> None:
    """Score the test list once, with the best weights; write scores, plots, the model folder and the result."""
    if not is_main():
        return
    folder, embedder = Path(hparams["output_folder"]), brain.method.embedder.eval()
    run = {"name": hparams["name"], "corpus": hparams["corpus"], "seed": hparams["seed"],
           "yaml": hparams["yaml_file"].name, "yaml_sha1": hashlib.sha1(hparams["yaml_file"].read_bytes()).hexdigest(),
           "overrides": hparams["overrides"], "training_utterances": len(found.train),
           "training_hours": round(found.train.duration.sum() / 3600, 2), "epochs": hparams["epochs"],
           "best_epoch": brain.best_epoch, "parameters": sum(p.numel() for p in embedder.parameters()),
           "device": device_name(brain.device), "minutes": round(brain.journal.seconds / 60, 1)}
    model.save(folder / "model", embedder, run)      # before the test: whatever that list holds, the model is kept
    report: dict[str, Any] = {}
    if found.test:
        assert found.test.labels is not None
        scores = scored(embedder, found.test, found.audio_root)
        report = scoring.report(found.test, scores, ci=True)
        write_scores(folder / "scores.txt", found.test, scores)
        plots.det_curve(folder / "det.png", {hparams["name"]: (scores, found.test.labels)})
        plots.score_histogram(folder / "scores.png", scores, found.test.labels, report["eer_threshold"])
        model.save(folder / "model", embedder, run, summary(report))
    result = None
    if report:
        result = results.record(hparams["results_folder"], {**run, "test": report, "baselines": before})
        results.table(hparams["results_folder"])
    tell(hparams, found, report, before, folder, result)


def summary(report: dict) -> dict[str, Any]:
    """What of the metrics goes to the model card."""
    if not report:
        return {}
    low, high = report["ci"]["eer"]
    costs = {f"minDCF({p})": f"{value:.3f}" for p, value in report["min_dcf"].items()}
    return {"list": f"{Path(report['list']).name}, {report['n_trials']:,} trials",
            "EER": f"{report['eer']:.2%} [{low:.2%}, {high:.2%}]", **costs,
            "threshold at the EER": f"{report['eer_threshold']:.3f}"}


def tell(hparams: dict, found: Corpus, report: dict, before: dict, folder: Path, result: Path | None) -> None:
    """The last lines on the screen: the figures, what was written, what to do next."""
    print()
    for name, value in summary(report).items():
        print(f"{name}: {value}")
    names = {"no_learning": "no learning (mean and deviation of log-mel frames)",
             "untrained": "the same encoder, untrained"}
    for key, value in before.items():
        part = f"; the trained one has {report['eer'] / value:.2f} of it" if value else ""
        print(f"EER of {names[key]}: {value:.2%}{part}")
    print(f"\nwrote {folder}/model, det.png, scores.png, scores.txt" if report else f"\nwrote {folder}/model")
    if result:
        print(f"result: {result}; tables: {hparams['results_folder']}/README.md")
    print(f"next: sv-extract {folder}/model {found.audio_root} --out embeddings.npz")
    if found.test:
        print(f"      sv-score {found.test.name} --embeddings embeddings.npz")
    if hparams["built_in"]:
        print(f"this was {settings.BUILT_IN}")


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if "cuda" in str(device) else f"CPU, {torch.get_num_threads()} threads"
