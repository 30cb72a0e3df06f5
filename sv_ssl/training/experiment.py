"""An experiment from top to bottom: data, training, scoring, the model folder and the result."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sv_ssl.core import command
from sv_ssl.core.distributed import barrier, is_main, rank, world_size
from sv_ssl.core.errors import InputError
from sv_ssl.data import shards
from sv_ssl.data import views as data
from sv_ssl.data.sources import Utterance
from sv_ssl.embeddings import extraction, store
from sv_ssl.losses import MarginSoftmax
from sv_ssl.methods import Momentum
from sv_ssl.methods.labelled import Labelled
from sv_ssl.methods.mixup import Mixup
from sv_ssl.models import features
from sv_ssl.models import folder as model
from sv_ssl.models.encoders import Embedder, FrameStatistics
from sv_ssl.reporting import plots, record, result_tables
from sv_ssl.training import dataset, settings
from sv_ssl.training.brain import SSLBrain, augmented, fitted
from sv_ssl.training.dataset import Corpus, Listed
from sv_ssl.verification import metrics, normalise, scoring
from sv_ssl.verification.crops import crop_scores
from sv_ssl.verification.trials import write_scores

# Settings that may differ when a run is resumed: they do not change what is learnt up to an epoch.
FREE = {
    "epochs",
    "data_folder",
    "train_csv",
    "audio_root",
    "valid_trials",
    "test_trials",
    "output_folder",
    "results_folder",
    "num_workers",
    "valid_every",
    "watch_every",
    "ckpt_interval_minutes",
    "max_damaged_share",
    "baselines",
    "tensorboard",
    "cohort",
    "score_crops",
    "score_crop_seconds",
}
COHORT_SECONDS = 4.0
TOP_N = 300  # cohort scores that count


def main(recipe_file: str, about: str, argv: Sequence[str] | None = None) -> int:
    """A recipe's command line -> its exit code."""
    return command.recipe(about, sys.argv[1:] if argv is None else argv, lambda words: run(recipe_file, words))


def run(recipe_file: str, argv: Sequence[str]) -> None:
    """The experiment that the command line asks for; given again, it goes on where it was stopped."""
    hparams = settings.read(recipe_file, argv)
    with settings.at_work(hparams):
        experiment(hparams)


def experiment(hparams: dict) -> None:
    """Train and score what the settings describe."""
    prepare(hparams)
    found = dataset.read(hparams)
    read = batches_of_views(hparams, found)
    ids = hashlib.sha1("\n".join(found.train.ID).encode()).hexdigest()[:12]
    settings.claim(hparams, FREE, {"training utterances": f"{len(found.train)} ({ids})"})
    before = baselines(hparams, found)
    barrier()
    brain = fitted(hparams, *read, validator(found))
    finish(hparams, found, brain, before)


def prepare(hparams: dict) -> None:
    """Do to the encoder what the options say: masks, torch.compile, the weights of a model folder to start from."""
    embedder, folder = hparams["embedder"], hparams["init_from"]
    if hparams["spec_augment"]:
        if not isinstance(embedder.features, features.LogMel):
            raise InputError(f"--spec_augment masks LogMel's features, not {type(embedder.features).__name__}'s")
        for part in hparams["method"].modules():
            if isinstance(part, features.LogMel):  # MoCo's slow encoder has one of its own
                part.spec_augment = features.SpecAugment()
    if hparams["compiled"]:
        embedder.compile_training()
    if not folder:
        return
    model.fill(embedder, folder)
    if isinstance(hparams["method"], Momentum):
        hparams["method"].reset_key()


# ------------------------------------------------------------------------------------------------------ training
def batches_of_views(hparams: dict, found: Corpus) -> tuple[data.Views, data.Batches]:
    """What the loader reads, and in which order."""
    labels = data.speaker_labels(found.train) if hparams["labels"] == "speaker" or hparams["per_speaker"] else None
    taught = labels if hparams["labels"] == "speaker" else None
    targets = dataset.known_speakers(found.train, hparams) if hparams["labels"] == "both" else None
    check_classes(hparams, taught if targets is None else targets)
    if targets is not None:
        hparams["method"].targets = torch.from_numpy(targets)
    how = {
        "n_views": hparams["n_views"],
        "crop_seconds": hparams["crop_seconds"],
        "augment": hparams["augment"],
        "seed": hparams["seed"],
        "sample_rate": hparams["embedder"].sample_rate,
        "labels": taught,
        "n_short": hparams["n_short"],
        "short_seconds": hparams["short_seconds"],
        "speeds": hparams["speeds"],
    }
    which = {"batch_size": hparams["batch_size"], "seed": hparams["seed"], "rank": rank(), "world_size": world_size()}
    if hparams["per_speaker"]:
        which.update(labels=labels, per_speaker=hparams["per_speaker"])
    if "shard" in found.train:
        return shards.ShardViews(found.train, **how), shards.ShardBatches(found.train, **which)
    return data.Views(found.train, **how), data.Batches(len(found.train), **which)


def check_classes(hparams: dict, labels: np.ndarray | None) -> None:
    """Give a classifier a row for every speaker; at other speeds a speaker is another one."""
    semi = getattr(hparams["method"], "supervision", "") == "semi"
    if semi != (hparams["labels"] == "both"):
        raise InputError(
            f"--labels {hparams['labels']}: a method of supervision semi, as in hparams/clar_semi.yaml, "
            "takes both, and no other does"
        )
    if hparams["speeds"] != [1.0] and hparams["labels"] != "speaker":
        raise InputError("speeds make further speakers of an utterance: they need --labels speaker")
    if labels is None:
        if "n_speakers" in hparams:
            raise InputError("a classifier learns speakers: --labels speaker")
        return
    n, given = data.n_classes(labels, hparams["speeds"]), hparams.get("n_speakers")
    if given not in (None, n):
        raise InputError(
            f"n_speakers is {given} but there are {n} in training (those of the trial lists left out, "
            f"times {len(hparams['speeds'])} speeds): pass --n_speakers {n}, or leave it out"
        )
    for part in hparams["method"].modules():
        if isinstance(part, (MarginSoftmax, Labelled, Mixup)):
            part.resize(n)


def validator(found: Corpus):
    """embedder -> metrics on the validation list, or None without a list."""
    if found.valid is None:
        return None
    valid = found.valid
    return lambda embedder: metrics.evaluate(scored(embedder, [valid])[0], valid.labels)


def scored(embedder: Embedder, lists: Sequence[Listed]) -> list[np.ndarray]:
    """Trial lists -> the cosines of each list's recordings."""
    return cosines(embedded(embedder, lists), lists)


def embedded(
    embedder: Embedder, lists: Sequence[Listed], how: extraction.How = extraction.How()
) -> extraction.Extracted:
    """The recordings of trial lists, all of them."""
    utterances = {
        (one.audio_root, name): Utterance(name, str(one.audio_root / name)) for one in lists for name in one.trials.ids
    }
    extracted = extraction.extract(embedder, list(utterances.values()), how)
    if extracted.skipped:
        raise InputError(
            f"{len(extracted.skipped)} of {len(utterances)} recordings of the trial lists cannot be used; "
            f"the first: {extracted.skipped[0][1]}"
        )
    return extracted


def cosines(found: extraction.Extracted, lists: Sequence[Listed]) -> list[np.ndarray]:
    return [scoring.cosine((found.ids, found.rows[:, 0]), one.trials) for one in lists]


def normalised(
    found: extraction.Extracted, lists: Sequence[Listed], scores: Sequence[np.ndarray], others: np.ndarray
) -> list[np.ndarray]:
    """The cosines of each list, normalised by the embeddings of others (AS-norm)."""
    place = {name: i for i, name in enumerate(found.ids)}
    mean, sd = normalise.statistics(store.unit(found.rows[:, 0]), store.unit(others), TOP_N)
    chosen = [[place[name] for name in one.trials.ids] for one in lists]
    return [
        normalise.normalise(cosine, one.trials, mean[some], sd[some], "as")
        for cosine, one, some in zip(scores, lists, chosen)
    ]


def cohort(hparams: dict, found: Corpus, embedder: Embedder) -> tuple[list[str], np.ndarray]:
    """IDs of training utterances, (C, D): a crop of each with its own noise and room, as test recordings may have."""
    if "shard" in found.train:
        raise InputError("--cohort is cut from files, and the training utterances are in shards: pass --cohort 0")
    chosen = np.random.default_rng((hparams["seed"], 6)).permutation(len(found.train))[: hparams["cohort"]]
    some = found.train.iloc[np.sort(chosen)].reset_index(drop=True)
    views = data.Views(some, 1, COHORT_SECONDS, hparams["augment"], hparams["seed"], embedder.sample_rate)
    device, rows = next(embedder.parameters()).device, []
    with torch.inference_mode():
        for start in range(0, len(views), 32):
            batch = data.collate([views[0, i] for i in range(start, min(start + 32, len(views)))])
            moved = {key: value.to(device) for key, value in batch.items() if isinstance(value, torch.Tensor)}
            rows.append(embedder(augmented(moved, "views").flatten(0, 1)).float().cpu())
    return some.ID.tolist(), torch.cat(rows).numpy()


# ---------------------------------------------------------------------------------------------------- the result
def baselines(hparams: dict, found: Corpus) -> dict[str, dict[str, float]]:
    """{list: test EERs without learning}: frame statistics, and the encoder as it is now. Call it before `train`."""
    if not (hparams["baselines"] and found.tests and is_main()):
        return {}
    plain = features.LogMel(40, hparams["embedder"].sample_rate, sentence_mean=False)
    systems = {
        "no_learning": Embedder(plain, FrameStatistics(40)),
        "start" if hparams["init_from"] else "untrained": hparams["embedder"],
    }
    scores = {name: scored(embedder, found.tests) for name, embedder in systems.items()}
    return {
        one.stem: {name: metrics.evaluate(scores[name][number], one.labels)["eer"] for name in systems}
        for number, one in enumerate(found.tests)
    }


def finish(hparams: dict, found: Corpus, brain: SSLBrain, before: dict[str, dict[str, float]]) -> None:
    """Score the test lists once, with the best weights; write scores, plots, the model folder and the result."""
    if not is_main():
        return
    folder, embedder = Path(hparams["output_folder"]), brain.method.embedder.eval()
    run = described(hparams, found, brain)
    model.save(folder / "model", embedder, run)  # before the test: whatever the lists hold, the model is kept
    reports, by_cosine = judge(hparams, found, embedder, folder)
    main_list = next(iter(reports), None)
    report, usual = (reports[main_list], before.get(main_list, {})) if main_list else ({}, {})
    result = None
    if report:
        model.save(folder / "model", embedder, run, summary(report, hparams["cohort"]))
        further: dict[str, Any] = {"lists": reports, "baseline_lists": before} if len(found.tests) > 1 else {}
        if hparams["cohort"]:
            further["by_cosine"] = by_cosine
        if hparams["score_crops"]:
            further["by_crops"] = judge_crops(hparams, found, embedder)
        result = record.record(hparams["results_folder"], {**run, "test": report, "baselines": usual, **further})
        result_tables.write(hparams["results_folder"])
    tell(hparams, found, report, usual, folder, result)


def described(hparams: dict, found: Corpus, brain: SSLBrain) -> dict[str, Any]:
    """How a run was made and what it took."""
    lines = (Path(hparams["output_folder"]) / "train_log.jsonl").read_text().splitlines()
    on_gpu = "cuda" in str(brain.device)
    peak = torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        **settings.facts(hparams),
        "cohort": hparams["cohort"],
        "training_utterances": len(found.train),
        "training_hours": round(found.train.duration.sum() / 3600, 2),
        "epochs": hparams["epochs"],
        "best_epoch": brain.best_epoch,
        "valid_eer": brain.best_eer,
        "crops": brain.crops * hparams["epochs"],
        "parameters": sum(p.numel() for p in brain.method.embedder.parameters()),
        "device": device_name(brain.device),
        "minutes": round(brain.journal.seconds / 60, 1),
        "cpu_minutes": round(sum(json.loads(line)["cpu_seconds"] for line in lines) / 60, 1),
        "peak_gb": round(peak / 1e9, 2),
    }


def judge(hparams: dict, found: Corpus, embedder: Embedder, folder: Path) -> tuple[dict[str, dict[str, Any]], dict]:
    """{list: report}, with the scores on disk and, of the first list, the plots; and with a cohort, which is kept,
    {list: EER and minDCF} of the cosines that it normalises."""
    reports: dict[str, dict[str, Any]] = {}
    rows = embedded(embedder, found.tests)
    of_lists, by_cosine = cosines(rows, found.tests), {}
    if hparams["cohort"] and found.tests:
        by_cosine = errors(found, of_lists)
        ids, others = cohort(hparams, found, embedder)
        store.write(folder / "cohort.npz", ids, others)
        of_lists = normalised(rows, found.tests, of_lists, others)
    for one, scores in zip(found.tests, of_lists):
        main_list = not reports
        reports[one.stem] = scoring.report(one.trials, scores, ci=True)
        write_scores(folder / ("scores.txt" if main_list else f"scores-{one.stem}.txt"), one.trials, scores)
        if main_list:
            plots.det_curve(folder / "det.png", {hparams["name"]: (scores, one.labels)})
            plots.score_histogram(folder / "scores.png", scores, one.labels, reports[one.stem]["eer_threshold"])
    return reports, by_cosine


def errors(found: Corpus, of_lists: Sequence[np.ndarray]) -> dict[str, dict[str, Any]]:
    """The test lists' scores -> {list: EER and minDCF}."""
    measured = {one.stem: metrics.evaluate(scores, one.labels) for one, scores in zip(found.tests, of_lists)}
    return {stem: {key: values[key] for key in ("eer", "min_dcf")} for stem, values in measured.items()}


def judge_crops(hparams: dict, found: Corpus, embedder: Embedder) -> dict[str, Any]:
    """{list: EER and minDCF} by the papers' protocol: the mean cosine over all pairs of crops."""
    n, seconds = hparams["score_crops"], hparams["score_crop_seconds"]
    try:
        rows = embedded(embedder, found.tests, extraction.How(crops=n, crop_seconds=seconds))
        scores = [crop_scores(rows, one.trials) for one in found.tests]
    except InputError as error:  # a silent crop, say, of a recording that is none
        print(f"not scored by crops: {error}")
        return {}
    measured = errors(found, scores)
    for stem, values in measured.items():
        print(f"EER on {stem} by {n} crops of {seconds:g} s: {values['eer']:.2%}")
    return {"n": n, "seconds": seconds, "lists": measured}


def summary(report: dict, cohort: int = 0) -> dict[str, Any]:
    """What of the metrics goes to the model card."""
    if not report:
        return {}
    low, high = report["ci"]["eer"]
    costs = {f"minDCF({p})": f"{value:.3f}" for p, value in report["min_dcf"].items()}
    return {
        "list": f"{Path(report['list']).name}, {report['n_trials']:,} trials",
        **({"scores": f"AS-norm by {cohort:,} crops of training utterances"} if cohort else {}),
        "EER": f"{report['eer']:.2%} [{low:.2%}, {high:.2%}]",
        **costs,
        "threshold at the EER": f"{report['eer_threshold']:.3f}",
    }


def tell(hparams: dict, found: Corpus, report: dict, before: dict, folder: Path, result: Path | None) -> None:
    """The last lines on the screen: the figures, what was written, what to do next."""
    print()
    for name, value in summary(report, hparams["cohort"]).items():
        print(f"{name}: {value}")
    names = {
        "no_learning": "no learning (mean and deviation of log-mel frames)",
        "untrained": "the same encoder, untrained",
        "start": "the model that it started from",
    }
    for key, value in before.items():
        part = f"; the trained one has {report['eer'] / value:.2f} of it" if value else ""
        print(f"EER of {names[key]}: {value:.2%}{part}")
    print(f"\nwrote {folder}/model, det.png, scores.png, scores.txt" if report else f"\nwrote {folder}/model")
    if result:
        print(f"result: {result}; tables: {hparams['results_folder']}/README.md")
    audio_root = found.tests[0].audio_root if found.tests else hparams["data_folder"]
    print(f"next: sv-extract {folder}/model {audio_root} --out embeddings.npz")
    if found.tests:
        how = f" --norm as --cohort {folder}/cohort.npz" if hparams["cohort"] else ""
        print(f"      sv-score {found.tests[0].trials.name} --embeddings embeddings.npz{how}")
    if hparams["built_in"]:
        print(f"this was {settings.BUILT_IN}")


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if "cuda" in str(device) else f"CPU, {torch.get_num_threads()} threads"
