"""The task of labelled clips: learn with or without their labels, freeze the encoder, judge it by probes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from sv_ssl.analysis import probe, sphere
from sv_ssl.core.distributed import barrier, is_main, rank, world_size
from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream
from sv_ssl.data import clips
from sv_ssl.data.batches import Batches
from sv_ssl.data.subsets import subset
from sv_ssl.data.synthetic import sounds
from sv_ssl.data.views import Views
from sv_ssl.losses import ADD
from sv_ssl.models import training_list
from sv_ssl.reporting import class_plots
from sv_ssl.training.brain import Validate
from sv_ssl.training.command_line import Config
from sv_ssl.training.settings import ClipSettings
from sv_ssl.training.task import Task

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # of the linear probe: the others take long and are never chosen
PAIRED_ROWS = 2000  # of a test part whose pairs are measured
TERMS = ("mu_p", "sigma_p", "mu_n", "sigma_n")  # what ADD's four lambdas weigh


class ClipTask(Task):
    """See `sv_ssl.training.task.Task`. A label's number is its place among the sorted labels of all clips."""

    settings_class: ClassVar = ClipSettings
    built_in: ClassVar[str] = "the built-in sound classes, which are synthetic: name your own clips with --data_folder"

    def __init__(self, settings: ClipSettings, config: Config):
        self.settings = settings
        self.frame = clips.split(clips.table(str(settings.data_folder)), settings.test_fold, settings.valid_clips)
        self.names = sorted(set(self.frame.label))
        if settings.n_classes not in (None, len(self.names)):
            raise InputError(f"--n_classes is {settings.n_classes} but the clips have {len(self.names)}: leave it out")
        self.waves = clips.Audio(self.frame, settings.embedder.sample_rate)
        if is_main():
            self._check()
        barrier()

    def _check(self) -> None:
        train = self.numbers("train")
        if self.waves.kept is None:  # too much audio to be read once more
            train = train[:0]
        self.waves.check(train, self.numbers("valid"), self.numbers("test"))
        counts = ", ".join(f"{len(self.numbers(part)):,} {part}" for part in clips.PARTS)
        print(f"{self.settings.name} on {self.settings.corpus}: {len(self.names)} classes, clips: {counts}")

    @staticmethod
    def sources(config: Config) -> dict[str, Any]:
        """Return the folder of clips: as named, else the built-in one, made by the first process."""
        if config.built_in:
            if is_main():
                print(f"{config.plain['name']} on {ClipTask.built_in}")
                sounds.corpus()
            barrier()
        folder = str(config.plain["data_folder"] or sounds.corpus())
        usual = "built-in-sounds" if config.built_in else Path(folder).resolve().name
        return {"data_folder": folder, "corpus": config.plain["corpus"] or usual}

    def numbers(self, part: str) -> np.ndarray:
        """Return the row numbers of a part's clips."""
        return np.flatnonzero(self.frame.part == part)

    def labels(self, part: str) -> np.ndarray:
        """Return the labels of a part's clips."""
        return self.frame.label.to_numpy()[self.numbers(part)]

    # --------------------------------------------------------------------------------------------------- training
    def identity(self) -> dict[str, str]:
        ids = "\n".join(self.frame.ID[self.numbers("train")])
        return {"training clips": hashlib.sha1(ids.encode()).hexdigest()[:12]}

    def trained_on(self) -> np.ndarray:
        train = self.frame.iloc[self.numbers("train")]
        return training_list.of(train.ID, train.wav)

    def known(self) -> np.ndarray:
        """Return the numbers of the training clips whose labels are used: a share of each class, or of speakers."""
        settings, train = self.settings, self.numbers("train")
        if settings.method.needs.labels == "none" or not settings.labelled_share:
            return train[:0]
        groups = None
        if settings.labelled_by != "clip":
            if settings.labelled_by not in self.frame:
                raise InputError("--labelled_by spk_id: the clips have no column spk_id; choose clip")
            groups = self.frame.spk_id.to_numpy()[train]
        return train[subset(self.labels("train"), settings.labelled_share, settings.seed, groups)]

    def learnt(self) -> np.ndarray:
        """Return the numbers of the clips of an epoch: all of training; with labels alone those known, as often."""
        train, known = self.numbers("train"), self.known()
        if self.settings.method.needs.labels != "all":
            return train
        if not len(known):
            raise InputError("supervision full with --labelled_share 0: there is nothing to learn from")
        return np.resize(known, len(train))  # as many steps whatever the share

    def views_and_batches(self) -> tuple[Any, Any]:
        settings = self.settings
        reader = clips.ClipReader(self.waves, self.learnt())
        views = Views(reader, settings.n_views, settings.crop_seconds, settings.transforms, settings.seed)
        size = min(settings.batch_size, len(views))
        return views, Batches(len(views), size, settings.seed, rank(), world_size())

    def classes(self) -> tuple[np.ndarray | None, int]:
        if self.settings.method.needs.labels == "none":
            return None, 0
        numbers = self.learnt()
        codes = np.searchsorted(self.names, self.frame.label)[numbers]
        return np.where(np.isin(numbers, self.known()), codes, -1), len(self.names)

    def known_of_rows(self) -> dict[str, np.ndarray | None]:
        return {}

    def validator(self) -> Validate | None:
        return None

    # ---------------------------------------------------------------------------------------------------- judging
    def baselines(self) -> dict[str, dict]:
        return self.probed(self.settings.embedder.eval())[0]

    def probed(self, embedder: nn.Module) -> tuple[dict[str, dict], np.ndarray, dict[str, np.ndarray]]:
        """Fit probes of the frozen embedder: their test accuracies, the test embeddings, and their guesses."""
        rows = {part: clips.by_length(embedder, self.waves, self.numbers(part)) for part in clips.PARTS}
        if not all(np.isfinite(part).all() for part in rows.values()):
            raise InputError(
                "the encoder puts out numbers that are not finite: training has diverged. Try a lower "
                "--peak_lr, in another --output_folder"
            )
        train, valid = ((rows[part], self.labels(part)) for part in ("train", "valid"))
        accuracy, guesses = {}, {}
        for name, fitted in (("linear", probe.linear(train, valid, STRENGTHS)), ("knn", probe.knn(train, valid))):
            guesses[name] = fitted.predict(rows["test"])
            chosen = {"chosen": fitted.chosen, "valid_accuracy": fitted.valid_accuracy}
            accuracy[name] = {**self.reported(guesses[name]), **chosen}
        return accuracy, rows["test"], guesses

    def classified(self) -> np.ndarray:
        """Return what the method's own classifier says of each test clip."""
        logits = clips.by_length(_Logits(self.settings.method), self.waves, self.numbers("test"))
        return np.array(self.names)[logits.argmax(axis=1)]

    def reported(self, guesses: np.ndarray) -> dict[str, Any]:
        """Return the test part's accuracy, with intervals over clips and, where there are several, over speakers."""
        test, truth = self.frame.iloc[self.numbers("test")], self.labels("test")
        report = probe.report(guesses, truth)
        if "spk_id" in test and test.spk_id.nunique() > 1:
            report["ci_speakers"] = probe.report(guesses, truth, test.spk_id.to_numpy())["ci"]
            report["speakers"] = test.spk_id.nunique()
        return report

    def described(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "init_from": bool(settings.init_from),
            "supervision": settings.supervision,
            "clips": {part: len(self.numbers(part)) for part in clips.PARTS},
            "n_classes": len(self.names),
            "labelled": {"clips": len(self.known()), "share": settings.labelled_share, "by": settings.labelled_by},
        }

    def judge(self, embedder: nn.Module, before: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Judge the classifier, if labels trained one, and probes of the frozen embedder; draw the confusion."""
        accuracy, rows, guesses = self.probed(embedder)
        if len(self.known()):
            guesses = {"classifier": self.classified(), **guesses}
            accuracy = {"classifier": self.reported(guesses["classifier"]), **accuracy}
        truth, first = self.labels("test"), next(iter(guesses))
        names, counts = probe.confusion(truth, guesses[first])
        class_plots.confusion_matrix(Path(self.settings.output_folder) / "confusion.png", names, counts)
        result = {
            "accuracy": accuracy,
            "speakers": self._test_speakers(),
            "untrained": before,
            "analysis": analysed(rows, truth),
            "confusion": {"of": first, "classes": names, "counts": counts.tolist()},
            "right": {name: "".join("01"[int(hit)] for hit in guess == truth) for name, guess in guesses.items()},
        }
        return result, {f"accuracy, {name}": summary(report) for name, report in accuracy.items()}

    def _test_speakers(self) -> list[int] | None:
        """Return the test clips' speakers, numbered among all of the corpus, whichever fold is tested."""
        if "spk_id" not in self.frame:
            return None
        return pd.factorize(self.frame.spk_id, sort=True)[0][self.numbers("test")].tolist()

    # --------------------------------------------------------------------------------------------- what is shown
    def figures(self, result: dict[str, Any]) -> list[str]:
        lines = []
        for name, report in result["accuracy"].items():
            before = (result["untrained"] or {}).get(name)
            untrained = f"; untrained {100 * before['accuracy']:.1f} %" if before else ""
            lines.append(f"accuracy, {name}: {summary(report)}{untrained}")
        used = f"{result['labelled']['clips']:,} of {result['clips']['train']:,} clips, by {result['labelled']['by']}"
        return [*lines, f"chance: {100 / result['n_classes']:.1f} %; labels used in training: {used}"]

    def files(self, result: dict[str, Any]) -> list[str]:
        return ["confusion.png"]

    def tables(self, folder: Path) -> str:
        return ""

    def next_steps(self) -> list[str]:
        manifest = clips.files(str(self.settings.data_folder))[-1]
        return [f"sv-extract {self.settings.output_folder}/model {manifest} --out embeddings.npz"]


class _Logits(nn.Module):
    """A method's classifier as a module of waves."""

    def __init__(self, method: Any):
        super().__init__()
        self.method = method

    def forward(self, wave: Tensor) -> Tensor:
        return self.method.logits(wave)


def analysed(rows: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return how (N, D) embeddings lie on the sphere, and ADD's four statistics; of so many clips at most."""
    chosen = np.sort(stream(0, "paired test clips").permutation(len(rows))[:PAIRED_ROWS])
    rows, labels = rows[chosen], labels[chosen]
    z = torch.from_numpy(rows).double()
    codes = torch.from_numpy(np.unique(labels, return_inverse=True)[1])
    add = {name: float(ADD(weights)(z, codes)) for name, weights in zip(TERMS, np.eye(4).tolist())}
    return {**sphere.summary(rows, labels, sphere.pairs(rows, labels)), "add": add}


def summary(report: dict[str, Any]) -> str:
    """Return a report as people read it.

    >>> summary({"accuracy": 0.5, "ci": [0.4, 0.6], "n": 100})
    '50.0 % [40.0, 60.0] of 100 test clips'
    """
    low, high = report.get("ci_speakers", report["ci"])
    by = f" by {report['speakers']} speakers" if "speakers" in report else ""
    return f"{100 * report['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {report['n']:,} test clips{by}"
