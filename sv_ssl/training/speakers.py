"""The task of speakers: learn from utterances, choose the epoch by trials, judge by trial lists."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from sv_ssl.core.distributed import barrier, is_main, rank, world_size
from sv_ssl.core.errors import InputError
from sv_ssl.data.batches import Batches
from sv_ssl.data.labels import n_classes, numbered, speaker_labels
from sv_ssl.data.readers import FileReader
from sv_ssl.data.shards import ShardBatches, ShardReader
from sv_ssl.data.synthetic import corpus
from sv_ssl.data.views import Views
from sv_ssl.embeddings import store
from sv_ssl.models import training_list
from sv_ssl.models.embedder import Embedder, FrameStatistics
from sv_ssl.models.features import LogMel
from sv_ssl.reporting import plots, result_tables
from sv_ssl.training import dataset, speaker_scores
from sv_ssl.training.brain import Validate
from sv_ssl.training.command_line import Config
from sv_ssl.training.settings import SpeakerSettings
from sv_ssl.training.task import Task
from sv_ssl.verification import metrics, scoring
from sv_ssl.verification.trials import write_scores

FOLDERS = {
    "data_folder": "",
    "noise_folder": "noise",
    "room_folder": "rir",
}  # and where they are in the built-in corpus
SYSTEMS = {
    "no_learning": "no learning (mean and deviation of log-mel frames)",
    "untrained": "the same encoder, untrained",
    "start": "the model that it started from",
}


class SpeakerTask(Task):
    """See `sv_ssl.training.task.Task`."""

    settings_class: ClassVar = SpeakerSettings
    built_in: ClassVar[str] = "the built-in corpus, which is synthetic: name your own speech with --data_folder"

    def __init__(self, settings: SpeakerSettings, config: Config):
        self.settings = settings
        self.with_classifier = "n_speakers" in config.yaml.written
        self.data = dataset.read(settings)

    @staticmethod
    def sources(config: Config) -> dict[str, Any]:
        """Return the folders of audio, noises and rooms: as named, else those of the built-in corpus."""
        if config.built_in and is_main():
            print(f"{config.plain['name']} on {SpeakerTask.built_in}")
        read = {key for key in FOLDERS if key in config.yaml.written} | {"data_folder"}
        named = {key: config.plain[key] for key in FOLDERS if key in read}
        for key, value in named.items():
            if value is not None and not Path(str(value)).exists():
                raise InputError(f"{key} {value} does not exist: check --{key}")
        if None in named.values():
            sizes = {"n_train": config.plain["built_in_speakers"], "sessions": config.plain["built_in_sessions"]}
            if is_main():
                corpus.corpus(**sizes)
            barrier()
            named = {key: value or corpus.corpus(**sizes) / FOLDERS[key] for key, value in named.items()}
        name = config.plain["corpus"] or corpus_name(Path(named["data_folder"]))
        return {**{key: str(value) for key, value in named.items()}, "corpus": name}

    # --------------------------------------------------------------------------------------------------- training
    def identity(self) -> dict[str, str]:
        ids = hashlib.sha1("\n".join(self.data.train.ID).encode()).hexdigest()[:12]
        return {"training utterances": f"{len(self.data.train)} ({ids})"}

    def trained_on(self) -> np.ndarray:
        return training_list.of(self.data.train.ID, self.data.train.wav)

    def views_and_batches(self) -> tuple[Any, Any]:
        settings, train = self.settings, self.data.train
        rate = settings.embedder.sample_rate
        reader = ShardReader(train, rate) if "shard" in train else FileReader(train, rate)
        views = Views(
            reader,
            settings.n_views,
            settings.crop_seconds,
            settings.transforms,
            settings.seed,
            settings.n_short,
            settings.short_seconds,
            settings.speeds,
            settings.n_clean,
            settings.clean_seconds,
        )
        by: dict[str, Any] = {
            "batch_size": settings.batch_size,
            "seed": settings.seed,
            "rank": rank(),
            "world_size": world_size(),
        }
        if settings.per_speaker:
            by |= {"labels": speaker_labels(train), "per_speaker": settings.per_speaker}
        return views, ShardBatches(train, **by) if "shard" in train else Batches(len(train), **by)

    def classes(self) -> tuple[np.ndarray | None, int]:
        """Return the speakers as far as the method needs them; at other speeds a speaker is another one."""
        settings, wanted = self.settings, self.settings.method.needs.labels
        if settings.speeds != [1.0] and wanted != "all":
            raise InputError("speeds make further speakers of an utterance: they need --labels speaker")
        if wanted == "none":
            if self.with_classifier:
                raise InputError("a classifier learns speakers: --labels speaker")
            return None, 0
        train = self.data.train
        labels = speaker_labels(train) if wanted == "all" else dataset.known_speakers(train, settings)
        n = n_classes(labels, settings.speeds)
        if settings.n_speakers not in (None, n):
            raise InputError(
                f"n_speakers is {settings.n_speakers} but there are {n} in training (those of the trial lists "
                f"left out, times {len(settings.speeds)} speeds): pass --n_speakers {n}, or leave it out"
            )
        return labels, n

    def known_of_rows(self) -> dict[str, np.ndarray | None]:
        return {"speakers": numbered(self.data.train, "spk_id"), "recordings": numbered(self.data.train, "session")}

    def validator(self) -> Validate | None:
        valid = self.data.valid
        if valid is None:
            return None
        return lambda embedder: metrics.evaluate(speaker_scores.scored(embedder, [valid])[0], valid.labels)

    # ---------------------------------------------------------------------------------------------------- judging
    def baselines(self) -> dict[str, dict[str, float]]:
        """Return {list: test EERs} of frame statistics, and of the encoder as it is now."""
        tests = self.data.tests
        if not tests:
            return {}
        plain = LogMel(40, self.settings.embedder.sample_rate, sentence_mean=False)
        systems = {
            "no_learning": Embedder(plain, FrameStatistics(40)),
            "start" if self.settings.init_from else "untrained": self.settings.embedder,
        }
        scores = {name: speaker_scores.scored(embedder, tests) for name, embedder in systems.items()}
        return {
            listed.stem: {name: metrics.evaluate(scores[name][place], listed.labels)["eer"] for name in systems}
            for place, listed in enumerate(tests)
        }

    def described(self) -> dict[str, Any]:
        return {
            "cohort": self.settings.cohort,
            "training_utterances": len(self.data.train),
            "training_hours": round(self.data.train.duration.sum() / 3600, 2),
        }

    def judge(self, embedder: nn.Module, before: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Score the test lists once; scores of all, plots of the first, which is the one that a run is known by."""
        settings, tests = self.settings, self.data.tests
        if not tests:
            return {}, {}
        reports, by_cosine = self._reports(embedder)
        first = tests[0].stem
        lists = before or {}
        result: dict[str, Any] = {"test": reports[first], "baselines": lists.get(first, {})}
        if len(tests) > 1:
            result |= {"lists": reports, "baseline_lists": lists}
        if settings.cohort:
            result["by_cosine"] = by_cosine
        if settings.score_crops:
            result["by_crops"] = speaker_scores.by_crops(
                embedder, tests, settings.score_crops, settings.score_crop_seconds
            )
        return result, card(reports[first], settings.cohort)

    def _reports(self, embedder: nn.Module) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """Return {list: report}, and with a cohort, which is kept, {list: EER and minDCF} of the cosines beneath."""
        settings, tests = self.settings, self.data.tests
        folder = Path(settings.output_folder)
        rows = speaker_scores.embedded(embedder, tests)
        scores = speaker_scores.cosines(rows, tests)
        by_cosine: dict[str, dict[str, Any]] = {}
        if settings.cohort:
            by_cosine = speaker_scores.errors(tests, scores)
            ids, others = speaker_scores.cohort(settings, self.data.train, embedder)
            store.write(folder / "cohort.npz", ids, others)
            scores = speaker_scores.normalised(rows, tests, scores, others)
        reports = {listed.stem: scoring.report(listed.trials, s, ci=True) for listed, s in zip(tests, scores)}
        for place, (listed, list_scores) in enumerate(zip(tests, scores)):
            name = f"scores-{listed.stem}.txt" if place else "scores.txt"
            write_scores(folder / name, listed.trials, list_scores)
        threshold = reports[tests[0].stem]["eer_threshold"]
        plots.det_curve(folder / "det.png", {settings.name: (scores[0], tests[0].labels)})
        plots.score_histogram(folder / "scores.png", scores[0], tests[0].labels, threshold)
        return reports, by_cosine

    # --------------------------------------------------------------------------------------------- what is shown
    def figures(self, result: dict[str, Any]) -> list[str]:
        if not result:
            return []
        lines = [f"{name}: {value}" for name, value in card(result["test"], self.settings.cohort).items()]
        for key, value in result["baselines"].items():
            part = f"; the trained one has {result['test']['eer'] / value:.2f} of it" if value else ""
            lines.append(f"EER of {SYSTEMS[key]}: {value:.2%}{part}")
        return lines

    def files(self, result: dict[str, Any]) -> list[str]:
        return ["det.png", "scores.png", "scores.txt"] if result else []

    def tables(self, folder: Path) -> str:
        result_tables.write(folder)
        return f"; tables: {folder}/README.md"

    def next_steps(self) -> list[str]:
        folder, tests = self.settings.output_folder, self.data.tests
        audio_root = tests[0].audio_root if tests else self.settings.data_folder
        steps = [f"sv-extract {folder}/model {audio_root} --out embeddings.npz"]
        if tests:
            norm = f" --norm as --cohort {folder}/cohort.npz" if self.settings.cohort else ""
            steps.append(f"sv-score {tests[0].trials.name} --embeddings embeddings.npz{norm}")
        return steps


def corpus_name(folder: Path) -> str:
    """Return a folder's name; `built-in` wherever the built-in corpus was made."""
    return "built-in" if (folder / "corpus.json").is_file() else folder.resolve().name


def card(report: dict[str, Any], cohort: int = 0) -> dict[str, str]:
    """Return what of a report goes to the model card."""
    low, high = report["ci"]["eer"]
    costs = {f"minDCF({p})": f"{value:.3f}" for p, value in report["min_dcf"].items()}
    return {
        "list": f"{Path(report['list']).name}, {report['n_trials']:,} trials",
        **({"scores": f"AS-norm by {cohort:,} crops of training utterances"} if cohort else {}),
        "EER": f"{report['eer']:.2%} [{low:.2%}, {high:.2%}]",
        **costs,
        "threshold at the EER": f"{report['eer_threshold']:.3f}",
    }
