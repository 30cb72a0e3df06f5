"""Where the scores of sv-score come from: a file's own, embeddings, a model; and how they are calibrated."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sv_ssl.cli.score.options import usual_embeddings
from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import store
from sv_ssl.models import training_list
from sv_ssl.verification import calibrate, enroll, normalise, score_columns
from sv_ssl.verification.calibrate import Calibration
from sv_ssl.verification.system import QUALITIES, Cohort, System
from sv_ssl.verification.trials import Trials, read_trials


class Scored(NamedTuple):
    """T trials with their scores."""

    trials: Trials
    scores: np.ndarray  # (T,)
    origin: str  # what the scores are, in words
    are_ratios: bool  # whether they are natural-log likelihood ratios


class Columns(NamedTuple):
    """T trials with the K columns that a calibration maps to ratios; the first is the score."""

    trials: Trials
    values: np.ndarray  # (T, K)
    names: list[str]  # K
    origin: str


def read_list(arguments: argparse.Namespace, path: str) -> Trials:
    """Read a list with the columns that --columns names and --by wants."""
    keep = [name for by in arguments.by for name in (by, by.split(":")[0])]
    return read_trials(path, arguments.columns, keep, sides_apart=_sides_apart(arguments))


def read_scores(arguments: argparse.Namespace, paths: Sequence[str], reference: Trials) -> np.ndarray:
    """Read the scores that K other systems gave to the T trials of a list: (T, K)."""
    return score_columns.join([read_trials(path, sides_apart=_sides_apart(arguments)) for path in paths], reference)


def _sides_apart(arguments: argparse.Namespace) -> bool:
    return bool(arguments.sides_apart or arguments.enroll)


def scores_of(arguments: argparse.Namespace, listed: Trials) -> Scored:
    """Score a list, and calibrate the scores if that is asked for."""
    system, origin = _system(arguments, listed)
    notes = _trained_on(arguments, listed, system)
    own = _columns(listed, system, origin)
    own = own._replace(trials=own.trials.noted(notes))
    if arguments.calibrate or arguments.calibration:
        scored = _calibrated(arguments, listed, system, own)
    else:
        scored = Scored(own.trials, own.values[:, 0], own.origin, arguments.llr)
    if not scored.are_ratios:
        return scored
    return scored._replace(trials=scored.trials.noted(calibrate.out_of_reach(scored.scores, arguments.p_target)))


def _trained_on(arguments: argparse.Namespace, listed: Trials, system: System | None) -> list[str]:
    """Return a note if the model that is known was trained on utterances of the list."""
    model = arguments.model or arguments.made_by
    if arguments.made_by and not os.path.isfile(os.path.join(model, "config.json")):
        raise InputError(f"--made-by {model} is not a model folder: it has no config.json")
    kept = training_list.read(model) if model else None
    if kept is None:
        return [f"what {model} was trained on is not known"] if arguments.made_by else []
    models = (system.models if system else None) or {}
    ids = list(dict.fromkeys(utterance for i in listed.ids for utterance in (i, *models.get(i, ()))))
    paths = [os.path.abspath(os.path.join(arguments.audio, i)) for i in ids] if arguments.audio else []
    count = int(training_list.known(kept, ids, paths).sum())
    what = f"utterances of {listed.name} have the names of utterances that {model} was trained on"
    return [f"{count:,} of {len(ids):,} {what}, so the numbers look better than they are"] if count else []


# --- calibration ----------------------------------------------------------------------------------------------------


def _calibrated(arguments: argparse.Namespace, listed: Trials, system: System | None, own: Columns) -> Scored:
    """Turn a list's columns, and those of other systems, into ratios; `listed` is the list as it was read."""
    values, names = own.values, own.names
    if arguments.fuse:
        values = np.column_stack([values, read_scores(arguments, arguments.fuse, own.trials)])
        names = [*names, *(f"score {i}" for i in range(2, 2 + len(arguments.fuse)))]
    calibration = _calibration(arguments, system, own.origin, names)
    ratios = calibrate.apply(calibration, values)
    origin = f"log-likelihood ratios from {', '.join([own.origin, *arguments.fuse])}"
    return Scored(own.trials.noted(calibrate.doubts(calibration, listed)), ratios, origin, True)


def _calibration(arguments: argparse.Namespace, system: System | None, origin: str, names: list[str]) -> Calibration:
    """Read or learn the calibration of these columns, print it, and keep it if that is asked for."""
    known = arguments.calibration
    calibration = calibrate.read(known) if known else _learn(arguments, system, origin, names)
    if list(calibration.columns) != names:
        raise InputError(f"{known or 'DEV'} is for {', '.join(calibration.columns)}; here are {', '.join(names)}")
    print(f"calibration: {calibration.summary()}")
    if arguments.calibration_out:
        calibrate.write(arguments.calibration_out, calibration)
        print(f"wrote {arguments.calibration_out}")
    return calibration


def _learn(arguments: argparse.Namespace, system: System | None, origin: str, names: list[str]) -> Calibration:
    """Learn a calibration from the lists of --calibrate."""
    lists = [read_list(arguments, path) for path in arguments.calibrate]
    first = _columns(lists[0], system, origin)
    if first.trials.labels is None:
        raise InputError(f"{first.trials.name} has no labels: nothing can be learnt from it")
    values = first.values
    if lists[1:]:
        values = np.column_stack([values, score_columns.join(lists[1:], first.trials)])
    return calibrate.fit(values, first.trials.labels, arguments.prior, names, lists)


# --- scores ---------------------------------------------------------------------------------------------------------


def _columns(listed: Trials, system: System | None, origin: str) -> Columns:
    """Return a list's own scores, or what the system gives it."""
    if system is not None:
        return Columns(*system.score(listed), origin)
    if listed.scores is None:
        raise InputError(f"{listed.name} has no scores: pass --embeddings or --model")
    return Columns(listed, listed.scores[:, None], ["score"], "as the file has them")


def _system(arguments: argparse.Namespace, listed: Trials) -> tuple[System | None, str]:
    """Return the system that the arguments name and its scores in words; None where the list's own scores are taken."""
    if listed.scores is not None and not (arguments.embeddings or arguments.model):
        for option in ("norm", "enroll", "allow_missing", "quality"):
            if getattr(arguments, option):
                name = option.replace("_", "-")
                raise InputError(f"{listed.name} has scores already, so --{name} would do nothing: pass --embeddings")
        return None, ""
    if arguments.sides_apart and not arguments.enroll:
        raise InputError(
            "--sides-apart: an embedding is found by its id, which is one on both sides: pass --enroll too"
        )
    source, origin = _model(arguments) if arguments.model else _file(arguments, listed)
    cohort = _cohort(arguments) if arguments.norm else None
    if unknown := [name for name in arguments.quality if name not in QUALITIES]:
        raise InputError(f"--quality {unknown[0]}: wanted {', '.join(QUALITIES)}")
    system = System(
        source,
        models=enroll.read_models(arguments.enroll) if arguments.enroll else None,
        combine=arguments.combine,
        cohort=cohort,
        allow_missing=arguments.allow_missing,
        qualities=arguments.quality,
        manifest=arguments.manifest,
    )
    return system, origin


def _cohort(arguments: argparse.Namespace) -> Cohort:
    """Read the cohort, and the speakers that make means of it."""
    speakers = arguments.cohort_speakers
    known = normalise.read_speakers(speakers) if speakers and speakers != "ids" else None
    return Cohort(store.read(arguments.cohort), arguments.norm, arguments.top_n, known, means=bool(speakers))


def _file(arguments: argparse.Namespace, listed: Trials) -> tuple[Callable, str]:
    """Return a source that reads --embeddings, or the usual file here or beside the list, and its scores in words."""
    usual = usual_embeddings(listed.name)
    path = arguments.embeddings or next((path for path in usual if path.is_file()), None)
    if path is None:
        places = " or ".join(str(path) for path in dict.fromkeys(usual))
        wanted = "pass --embeddings FILE, or --model DIR --audio ROOT"
        raise InputError(f"{listed.name} has no scores and there is no {places}: {wanted}")
    embedded = store.read(path)
    count, dim = embedded[1].shape
    return lambda ids: embedded, f"cosine of {path} ({count:,} embeddings of {dim} dimensions)"


def _model(arguments: argparse.Namespace) -> tuple[Callable, str]:
    """Return a source that embeds what it is asked for with --model, and its scores in words."""
    from sv_ssl.embeddings import extraction
    from sv_ssl.models import folder

    embedder = folder.load(arguments.model, arguments.device)
    kept = extraction.cache_of(embedder)

    def source(ids: Sequence[str]) -> Any:
        names = list(dict.fromkeys(ids))
        return extraction.embed_trials(embedder, names, arguments.audio, skip=arguments.allow_missing, kept=kept)

    return source, f"cosine of embeddings by {arguments.model}"
