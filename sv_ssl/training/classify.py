"""An experiment on labelled clips from top to bottom: train, freeze, probe, the model folder and the result."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from sv_ssl.analysis import probe, sphere
from sv_ssl.core import command, distributed
from sv_ssl.core.distributed import barrier, is_main, rank, world_size
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside
from sv_ssl.data import clips
from sv_ssl.data import views as data
from sv_ssl.data.subsets import subset
from sv_ssl.data.synthetic import sounds
from sv_ssl.losses import ADD
from sv_ssl.models import folder as model
from sv_ssl.reporting import class_plots
from sv_ssl.reporting import record as results
from sv_ssl.training import settings
from sv_ssl.training.brain import SSLBrain, fitted

# What the recipes read of every YAML.
NEEDED = {
    "name",
    "corpus",
    "seed",
    "data_folder",
    "test_fold",
    "valid_clips",
    "output_folder",
    "results_folder",
    "n_classes",
    "supervision",
    "labelled_share",
    "labelled_by",
    "init_from",
    "embedder",
    "method",
    "lr",
    "opt_class",
    "epochs",
    "batch_size",
    "n_views",
    "crop_seconds",
    "num_workers",
    "baselines",
    "max_grad_norm",
    "precision",
    "ckpt_interval_minutes",
}
AT_LEAST = {
    "epochs": 1,
    "batch_size": 2,
    "n_views": 1,
    "crop_seconds": 0.1,
    "num_workers": 0,
    "labelled_share": 0,
    "max_grad_norm": 1e-9,
    "ckpt_interval_minutes": 0,
}
CHOICES = {"precision": settings.PRECISIONS, "labelled_by": ("clip", "spk_id")}
# Settings that may differ when a run is resumed: they do not change what is learnt up to an epoch.
FREE = {"data_folder", "output_folder", "results_folder", "num_workers", "baselines", "ckpt_interval_minutes"}
# What the Brain reads beside the YAML.
WATCHED = {
    "watch_every": 20,
    "max_damaged_share": 0.1,
    "tensorboard": False,
    "grad_accumulation_factor": 1,
    "average_last": 0,
    "sync_batchnorm": True,
}
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # of the linear probe: the others take long and are never chosen
PAIRED_ROWS = 2000  # of a test part whose pairs are measured
TERMS = ("mu_p", "sigma_p", "mu_n", "sigma_n")  # what ADD's four lambdas weigh
BUILT_IN = "the built-in sound classes, which are synthetic: name your own clips with --data_folder"


class Corpus(NamedTuple):
    """The clips with their `part`, their audio, and the classes, sorted: a label's number is its place among them."""

    frame: pd.DataFrame
    waves: clips.Audio
    classes: list[str]

    def numbers(self, part: str) -> np.ndarray:
        return np.flatnonzero(self.frame.part == part)

    @property
    def codes(self) -> np.ndarray:
        return np.searchsorted(self.classes, self.frame.label)


def main(recipe_file: str, about: str, argv: Sequence[str] | None = None) -> int:
    """A recipe's command line -> its exit code."""
    return command.recipe(about, sys.argv[1:] if argv is None else argv, lambda words: run(recipe_file, words))


def run(recipe_file: str, argv: Sequence[str]) -> None:
    """The experiment that the command line asks for; given again, it goes on where it was stopped."""
    path, given = settings.arguments(argv)
    hparams = read(recipe_file, path, given)
    with settings.at_work(hparams):
        found = experiment(hparams, corpus(hparams))
        if is_main():
            tell(hparams, found, record(hparams, found))


# ------------------------------------------------------------------------------------------------- settings and clips
def read(recipe_file: str, path: str, given: dict[str, Any]) -> dict[str, Any]:
    """A YAML and what is changed in it -> its objects by key, with run_opts, overrides, plain and so on beside them."""
    yaml_file = settings.find_yaml(recipe_file, path)
    known = settings.top_level(yaml_file.read_text(), yaml_file, NEEDED)
    given = dict(given)
    run_opts = {key: given.pop(key) for key in list(given) if key not in known and key in settings.RUN_OPTIONS}
    settings.refuse_unknown(given, known, yaml_file)
    built_in = {**known, **given}["data_folder"] is None
    overrides = {**(settings.demo_sizes(recipe_file, known) if built_in else {}), **given}
    if "ckpt_interval_steps" in run_opts:
        overrides["ckpt_interval_minutes"] = 0  # SpeechBrain takes one of the two
    settings.check({**known, **overrides}, run_opts, AT_LEAST, CHOICES)
    distributed.start(run_opts.get("device"))
    run_opts["device"] = distributed.device(run_opts.get("device"))
    overrides["data_folder"] = str({**known, **overrides}["data_folder"] or sounds.corpus())
    frame = clips.split(
        clips.table(overrides["data_folder"]), *({**known, **overrides}[key] for key in ("test_fold", "valid_clips"))
    )
    classes = frame.label.nunique()
    if given.get("n_classes") not in (None, classes):
        raise InputError(f"--n_classes is {given['n_classes']} but the clips have {classes}: leave it out")
    overrides["corpus"] = {**known, **overrides}["corpus"] or (
        "built-in-sounds" if built_in else Path(overrides["data_folder"]).resolve().name
    )
    overrides["n_classes"] = classes
    resolved = settings.resolve_references(yaml_file.read_text(), overrides).read()
    return {
        **WATCHED,
        **settings.build(yaml_file, overrides),
        "run_opts": run_opts,
        "overrides": given,
        "built_in": built_in,
        "plain": settings.top_level(resolved, yaml_file, NEEDED),
        "yaml_file": yaml_file,
        "resolved": resolved,
        "frame": frame,
    }


def corpus(hparams: dict, waves: clips.Audio | None = None) -> Corpus:
    """The clips of a run, with their audio, or that of an earlier run; and what is said of them."""
    frame = hparams["frame"]
    found = Corpus(frame, waves or clips.Audio(frame, hparams["embedder"].sample_rate), sorted(set(frame.label)))
    if is_main():
        found.waves.check(
            found.numbers("train") if found.waves.kept is not None else [],
            found.numbers("valid"),
            found.numbers("test"),
        )
        counts = ", ".join(f"{(frame.part == part).sum():,} {part}" for part in clips.PARTS)
        print(
            f"{hparams['name']} on {BUILT_IN if hparams['built_in'] else hparams['corpus']}: {len(found.classes)} "
            f"classes, clips: {counts}"
        )
    barrier()
    return found


def labelled(hparams: dict, found: Corpus) -> np.ndarray:
    """-> the numbers of the training clips whose labels are used: a share by clip (of each class), or by speaker."""
    train = found.numbers("train")
    if hparams["supervision"] == "none" or not hparams["labelled_share"]:
        return train[:0]
    groups = None
    if hparams["labelled_by"] != "clip":
        if hparams["labelled_by"] not in found.frame:
            raise InputError("--labelled_by spk_id: the clips have no column spk_id; choose clip")
        groups = found.frame.spk_id.to_numpy()[train]
    return train[subset(found.frame.label.to_numpy()[train], hparams["labelled_share"], hparams["seed"], groups)]


# ------------------------------------------------------------------------------------------------------------ training
def experiment(hparams: dict, found: Corpus) -> dict[str, Any]:
    """Train, or go on; freeze; probe -> what the result is to say. Writes into the output folder."""
    folder, method = Path(hparams["output_folder"]), hparams["method"]
    ids = hashlib.sha1("\n".join(found.frame.ID[found.numbers("train")]).encode()).hexdigest()[:12]
    if hparams["init_from"]:
        model.fill(method.embedder, hparams["init_from"])
    settings.claim(hparams, FREE, {"training clips": ids})
    embedder = method.embedder
    before = judged(embedder.eval(), found)[0] if hparams["baselines"] and is_main() else None
    barrier()
    method.train()
    brain = train(hparams, found)
    if not is_main():
        return {}
    method.eval()
    accuracy, rows, guesses = judged(embedder, found)
    if hparams["supervision"] != "none" and hparams["labelled_share"]:
        guesses = {"classifier": classified(method, found), **guesses}
        accuracy = {"classifier": reported(guesses["classifier"], found), **accuracy}
    truth = found.frame.label.to_numpy()[found.numbers("test")]
    run = about(hparams, found, brain)
    first = next(iter(guesses))
    model.save(folder / "model", embedder, run, {f"accuracy, {name}": summary(a) for name, a in accuracy.items()})
    names, counts = probe.confusion(truth, guesses[first])
    class_plots.confusion_matrix(folder / "confusion.png", names, counts)
    right = {name: "".join("01"[int(hit)] for hit in guess == truth) for name, guess in guesses.items()}
    speakers = (
        pd.factorize(found.frame.spk_id, sort=True)[0][found.numbers("test")].tolist()
        if "spk_id" in found.frame
        else None
    )  # numbered among all of the corpus, whichever fold is tested
    return {
        **run,
        "accuracy": accuracy,
        "speakers": speakers,
        "untrained": before,
        "analysis": analysed(rows, truth),
        "confusion": {"of": first, "classes": names, "counts": counts.tolist()},
        "right": right,
    }


def train(hparams: dict, found: Corpus) -> SSLBrain:
    """Fit the method on the training clips, resuming what is there; the last weights are loaded."""
    method, everything, some = hparams["method"], found.numbers("train"), labelled(hparams, found)
    codes = found.codes
    if hparams["supervision"] == "full":
        if not len(some):
            raise InputError("supervision full with --labelled_share 0: there is nothing to learn from")
        numbers = np.resize(some, len(everything))  # as many steps whatever the share
        labels = codes[numbers]
    else:
        numbers, labels = everything, np.arange(len(everything))
        known = np.isin(everything, some)
        method.targets = torch.from_numpy(np.where(known, codes[everything], -1)).to(hparams["run_opts"]["device"])
    views = clips.ClipViews(found.waves, numbers, labels, hparams["n_views"], hparams["crop_seconds"], hparams["seed"])
    batches = data.Batches(len(views), min(hparams["batch_size"], len(views)), hparams["seed"], rank(), world_size())
    return fitted(hparams, views, batches)


# ------------------------------------------------------------------------------------------------------------- judging
def judged(embedder: Any, found: Corpus) -> tuple[dict[str, dict], np.ndarray, dict[str, np.ndarray]]:
    """Probes of the frozen embedder -> their test accuracies, the test embeddings, and what they say of each clip."""
    labels = found.frame.label.to_numpy()
    train, valid, test = (
        (clips.outputs(embedder, found.waves, numbers), labels[numbers]) for numbers in map(found.numbers, clips.PARTS)
    )
    if not all(np.isfinite(rows).all() for rows, _ in (train, valid, test)):
        raise InputError(
            "the encoder puts out numbers that are not finite: training has diverged. Try a lower "
            "--peak_lr, in another --output_folder"
        )
    accuracy, guesses = {}, {}
    for name, one in (("linear", probe.linear(train, valid, STRENGTHS)), ("knn", probe.knn(train, valid))):
        guesses[name] = one.predict(test[0])
        accuracy[name] = {**reported(guesses[name], found), "chosen": one.chosen, "valid_accuracy": one.valid_accuracy}
    return accuracy, test[0], guesses


def classified(method: Any, found: Corpus) -> np.ndarray:
    """-> what the method's own classifier says of each test clip."""
    logits = clips.outputs(_Logits(method), found.waves, found.numbers("test"))
    return np.array(found.classes)[logits.argmax(axis=1)]


class _Logits(torch.nn.Module):
    def __init__(self, method: Any):
        super().__init__()
        self.method = method

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return self.method.logits(wave)


def reported(guesses: np.ndarray, found: Corpus) -> dict:
    """Accuracy on the test part, with an interval over clips, and over speakers where there are several."""
    test = found.frame.iloc[found.numbers("test")]
    report = probe.report(guesses, test.label.to_numpy())
    if "spk_id" in test and test.spk_id.nunique() > 1:
        report["ci_speakers"] = probe.report(guesses, test.label.to_numpy(), test.spk_id.to_numpy())["ci"]
        report["speakers"] = test.spk_id.nunique()
    return report


def analysed(rows: np.ndarray, labels: np.ndarray) -> dict:
    """(N, D), (N,) -> how the embeddings lie on the sphere, and ADD's four statistics; of so many clips at most."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:PAIRED_ROWS])
    rows, labels = rows[chosen], labels[chosen]
    z, code = torch.from_numpy(rows).double(), torch.from_numpy(np.unique(labels, return_inverse=True)[1])
    add = {name: float(ADD(weights)(z, code)) for name, weights in zip(TERMS, np.eye(4).tolist())}
    return {**sphere.summary(rows, labels, sphere.pairs(rows, labels)), "add": add}


# ---------------------------------------------------------------------------------------------------------- the result
def about(hparams: dict, found: Corpus, brain: SSLBrain) -> dict[str, Any]:
    """What was run, for the model card and the result."""
    some = labelled(hparams, found)
    return {
        **settings.facts(hparams),
        "init_from": bool(hparams["init_from"]),
        "supervision": hparams["supervision"],
        "clips": {part: len(found.numbers(part)) for part in clips.PARTS},
        "n_classes": len(found.classes),
        "labelled": {"clips": len(some), "share": hparams["labelled_share"], "by": hparams["labelled_by"]},
        "epochs": hparams["epochs"],
        "device": str(brain.device),
        "minutes": round(brain.journal.seconds / 60, 2),
        "parameters": sum(p.numel() for p in hparams["embedder"].parameters()),
    }


def record(hparams: dict, found: dict[str, Any]) -> Path:
    """A result -> its JSON below results_folder/audio; the same run done again replaces its file."""
    changed = results.changed(found)
    parts = [found["name"], found["corpus"], f"seed{found['seed']}"]
    parts += [hashlib.sha1(changed.encode()).hexdigest()[:6]] if changed else []
    path = Path(hparams["results_folder"]) / "audio" / (re.sub(r"[^\w.-]+", "_", "-".join(parts)) + ".json")
    write(path, found)
    return path


def write(path: Path, found: dict[str, Any]) -> None:
    """A result to its file, with the commit and the versions of the packages."""
    text = json.dumps({**found, "commit": results.commit(), "versions": results.versions()})
    with aside(path) as temporary:
        temporary.write_text(text + "\n")


def summary(report: dict) -> str:
    """A report as people read it.

    >>> summary({"accuracy": 0.5, "ci": [0.4, 0.6], "n": 100})
    '50.0 % [40.0, 60.0] of 100 test clips'
    """
    low, high = report.get("ci_speakers", report["ci"])
    of = f" by {report['speakers']} speakers" if "speakers" in report else ""
    return f"{100 * report['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {report['n']:,} test clips{of}"


def tell(hparams: dict, found: dict, result: Path) -> None:
    """The last lines on the screen: the figures, what was written, what to do next."""
    folder = hparams["output_folder"]
    print()
    for name, report in found["accuracy"].items():
        before = (
            f"; untrained {100 * found['untrained'][name]['accuracy']:.1f} %"
            if found["untrained"] and name in found["untrained"]
            else ""
        )
        print(f"accuracy, {name}: {summary(report)}{before}")
    print(
        f"chance: {100 / found['n_classes']:.1f} %; labels used in training: {found['labelled']['clips']:,} of "
        f"{found['clips']['train']:,} clips, by {found['labelled']['by']}"
    )
    print(f"\nwrote {folder}/model, confusion.png\nresult: {result}")
    print(f"next: sv-extract {folder}/model {clips.files(hparams['data_folder'])[-1]} --out embeddings.npz")
    if hparams["built_in"]:
        print(f"this was {BUILT_IN}")
