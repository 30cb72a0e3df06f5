"""Every setting of a run, in one place: its type, default, meaning and range, and whether it may differ on resume.

A field of `Settings` is an option of every recipe and may be a key of its YAML. A YAML has further keys of its own,
which its objects refer to: their meaning is the comment beside them, and the constructors of those objects check them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import torch

from sv_ssl.core.errors import InputError, is_number, number_fault

PRECISIONS = ("fp32", "bf16", "fp16")


class Setting(NamedTuple):
    """What is known of a setting beside its name, type and default."""

    meaning: str
    at_least: float | None = None
    at_most: float | None = None
    choices: Sequence[str] = ()
    resumable: bool = False  # it may differ when a run is resumed: it does not change what is learnt up to an epoch
    machine: bool = False  # it says where things are or how fast, not what is learnt
    built: bool = False  # an object that the YAML describes: no value of the command line can stand for it
    passed: bool = False  # an option of SpeechBrain that says how to run, not what: results tell only `debug`


def setting(default: Any, meaning: str, **more: Any) -> Any:
    """Return a field of `Settings`; `MISSING` as default makes it a key that every YAML must have."""
    known = {"default_factory": lambda: list(default)} if isinstance(default, list) else {"default": default}
    return field(**known, metadata={"setting": Setting(meaning, **more)})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that all recipes have."""

    # What is run
    name: str = setting(MISSING, "of the system, in results and folders")
    corpus: str | None = setting(None, "its name in results and folders; default: the data folder's")
    seed: int = setting(0, "of all that is drawn: weights, crops, order, transforms", at_least=0, at_most=2**63 - 1)
    init_from: str | None = setting(None, "a model folder to start from")

    # Where things are
    data_folder: str | None = setting(None, "the recordings; default: a built-in corpus", resumable=True, machine=True)
    output_folder: str = setting(MISSING, "of checkpoints, logs and the model", resumable=True, machine=True)
    results_folder: str | None = setting(
        None, "a JSON about the run goes below it; default: results/ in output_folder", resumable=True, machine=True
    )
    record: bool = setting(False, "write the JSON below results/ of the present folder", resumable=True, machine=True)

    # Objects of the YAML
    transforms: Any = setting(None, "what is done to crops, in order", built=True)
    embedder: Any = setting(MISSING, "makes an embedding of a wave: features and an encoder", built=True)
    method: Any = setting(MISSING, "trains the embedder", built=True)
    lr: Any = setting(MISSING, "the learning rate: a function of the epoch", built=True)
    opt_class: Any = setting(MISSING, "makes the optimizer of parameters", built=True)

    # Training
    epochs: int = setting(
        MISSING, "how often the training data are gone through", at_least=1, at_most=100_000, resumable=True
    )
    batch_size: int = setting(MISSING, "utterances or clips, over all processes", at_least=2)
    n_views: int = setting(2, "crops of an utterance in a step", at_least=1, at_most=1000)
    crop_seconds: float = setting(2.0, "length of a crop", at_least=0.1, at_most=3600)
    max_grad_norm: float = setting(5.0, "a longer gradient is scaled down to it", at_least=1e-9)
    clip_each: bool = setting(False, "max_grad_norm is of each tensor's gradient by itself, not of all together")
    grad_accumulation_factor: int = setting(1, "batches whose gradients make a step of the optimizer", at_least=1)
    precision: str = setting("fp32", "of the training steps; fp16 needs a GPU", choices=PRECISIONS)
    average_last: int = setting(0, "the model is the mean of so many last epochs, not the best epoch", at_least=0)
    spec_augment: bool = setting(False, "mask bands and stretches of the features in training")
    compiled: bool = setting(False, "train the encoder through torch.compile")
    sync_batchnorm: bool = setting(True, "one set of BatchNorm statistics for all GPUs")

    # How it runs
    num_workers: int = setting(
        4, "processes that read the data", at_least=0, at_most=1024, resumable=True, machine=True
    )
    threads: int | None = setting(
        None,
        "of a process's computing; default: as before when resumed, else a thread for each core that it may use",
        at_least=1,
        at_most=1024,
        resumable=True,
        machine=True,
    )
    device: str | None = setting(
        None, "cpu, cuda or cuda:1; default: a GPU where there is one", resumable=True, machine=True, passed=True
    )
    debug: bool = setting(False, "a few batches only, to try whether all works", passed=True)
    debug_batches: int = setting(2, "with --debug: of an epoch", at_least=1, resumable=True, passed=True)
    debug_epochs: int = setting(2, "with --debug: of the run", at_least=1, resumable=True, passed=True)
    optimizer_step_limit: int | None = setting(
        None, "stop after so many steps of the optimizer", at_least=1, resumable=True, passed=True
    )

    # Watching and keeping
    watch_every: int = setting(
        20, "batches between two looks at spread, alignment and uniformity", at_least=1, resumable=True
    )
    ckpt_interval_minutes: float = setting(10, "between checkpoints inside an epoch", at_least=0, resumable=True)
    ckpt_interval_steps: int = setting(
        0, "the same in batches; it takes the place of the minutes", at_least=0, resumable=True, passed=True
    )
    max_damaged_share: float = setting(
        0.1, "of the training files that may be unusable", at_least=0, at_most=1, resumable=True
    )
    baselines: bool = setting(False, "judge the untrained encoder beside the trained one", resumable=True)
    tensorboard: bool = setting(False, "write curves for TensorBoard", resumable=True)


@dataclass(frozen=True, kw_only=True)
class SpeakerSettings(Settings):
    """The settings of recipes that learn speakers and are judged by trial lists."""

    n_views: int = setting(2, "crops of an utterance in a step", at_least=0, at_most=1000)
    train_csv: str | None = setting(
        None, "the training manifest; default: train.csv in data_folder, else data_folder scanned", resumable=True
    )
    valid_trials: str | None = setting(
        None, "default: valid.txt in data_folder, else halves of held-out utterances", resumable=True, machine=True
    )
    test_trials: str | list[str] | None = setting(
        None,
        "or several, [O.txt, E.txt]; default: trials.txt, veri_test2.txt or veri_test.txt in data_folder",
        resumable=True,
        machine=True,
    )
    audio_root: str | None = setting(
        None,
        "the lists' paths are below it; default: wav/ in data_folder, else data_folder",
        resumable=True,
        machine=True,
    )
    noise_folder: str | None = setting(
        None, "noise.csv or a folder of audio; default: the built-in noises", machine=True
    )
    room_folder: str | None = setting(
        None, "rir.csv or a folder of impulse responses; default: the built-in rooms", machine=True
    )
    built_in_speakers: int = setting(400, "training speakers of the built-in corpus, where that is used", at_least=2)
    built_in_sessions: int = setting(2, "sessions of each of them, with two utterances each", at_least=2)
    label_share: float = setting(
        1.0,
        "part of the labels whose utterances are used; where a method takes all: whose speaker is known",
        at_least=1e-9,
        at_most=1,
    )
    label_share_of: str = setting(
        "speakers", "it is one of the speakers or of the utterances", choices=("speakers", "utterances")
    )
    per_speaker_labels: int = setting(0, "labelled utterances of a speaker that are used; 0: all", at_least=0)
    freeze_encoder: bool = setting(
        False, "keep the encoder of init_from as it is, and learn a linear layer on its embeddings"
    )
    n_speakers: int | None = setting(None, "of a classifier; default: those in training, times the speeds", at_least=1)
    per_speaker: int = setting(0, "utterances of a speaker in a batch; 1: never two; 0: as they come", at_least=0)
    speeds: list[float] = setting([1.0], "an utterance at another speed is another speaker's: [1.0, 0.9, 1.1]")
    n_short: int = setting(0, "short crops of an utterance, compared with the long ones", at_least=0)
    short_seconds: float = setting(1.0, "length of a short crop", at_least=0.1)
    n_clean: int = setting(0, "crops of an utterance without noises and rooms", at_least=0, at_most=1000)
    clean_seconds: float = setting(4.0, "length of such a crop", at_least=0.1, at_most=3600)
    valid_every: int = setting(5, "epochs between two validations", at_least=1, resumable=True)
    valid_utterances: int = setting(
        200, "held out of training as the validation list where none is named or found", at_least=0
    )
    cohort: int = setting(
        0, "AS-norm of the test scores by so many crops of training utterances", at_least=0, resumable=True
    )
    score_crops: int = setting(
        0, "score the test lists by so many crops too, as the papers do", at_least=0, resumable=True
    )
    score_crop_seconds: float = setting(3.515, "length of such a crop", at_least=0.1, resumable=True)


@dataclass(frozen=True, kw_only=True)
class ClipSettings(Settings):
    """The settings of recipes that learn from labelled clips and are judged by probes."""

    n_views: int = setting(2, "crops of a clip in a step", at_least=1, at_most=1000)
    test_fold: int | str | None = setting(
        None, "of folds that are not called train, valid, test; the fold after it is for validation"
    )
    valid_clips: str | None = setting(None, "column=value: training clips that are for validation")
    n_classes: int | None = setting(None, "as many as the clips have; a number that is given is checked", at_least=2)
    supervision: str = setting(
        MISSING,
        "none: without labels; semi: with those that are known; full: with labels alone",
        choices=("none", "semi", "full"),
    )
    labelled_share: float = setting(1.0, "of the training labels that are known", at_least=0, at_most=1)
    labelled_by: str = setting("clip", "the share is one of clips or of speakers", choices=("clip", "spk_id"))


# ------------------------------------------------------------------------------------------------ reading the fields
def known(kind: type[Settings]) -> dict[str, Setting]:
    """Return the settings of a kind of recipe by name."""
    return {field_.name: field_.metadata["setting"] for field_ in dataclasses.fields(kind)}


def types(kind: type[Settings]) -> dict[str, tuple[Any, ...]]:
    """Return the types that each setting may have.

    >>> types(SpeakerSettings)["threads"]
    (<class 'int'>, <class 'NoneType'>)
    """
    hints = get_type_hints(kind).items()
    return {name: get_args(hint) if get_origin(hint) is UnionType else (hint,) for name, hint in hints}


def defaults(kind: type[Settings]) -> dict[str, Any]:
    """Return the default of each setting that has one."""
    values = {}
    for field_ in dataclasses.fields(kind):
        if field_.default_factory is not MISSING:
            values[field_.name] = field_.default_factory()
        elif field_.default is not MISSING:
            values[field_.name] = field_.default
    return values


def check(kind: type[Settings], plain: Mapping[str, Any]) -> None:
    """Raise InputError for a value that no run can have; objects are checked by their constructors."""
    for name, about in known(kind).items():
        if not about.built and (wanted := fault(plain[name], types(kind)[name], about)):
            raise InputError(f"--{name} is {plain[name]!r}: {wanted}")
    on_gpu = torch.cuda.is_available() and plain["device"] != "cpu"
    if plain["precision"] == "fp16" and not on_gpu:
        raise InputError("--precision fp16 needs a GPU: choose fp32 or bf16")


def fault(value: Any, kinds: tuple[Any, ...], about: Setting) -> str:
    """Return what is wanted in place of a value; nothing where it can be used.

    >>> fault(0, (int,), Setting("", at_least=1)), fault("x", (str,), Setting("", choices=("a", "b")))
    ('wanted a whole number of at least 1', 'choose a or b')
    """
    if value is None and type(None) in kinds:
        return ""
    if about.choices:
        return "" if value in about.choices else f"choose {', '.join(about.choices[:-1])} or {about.choices[-1]}"
    if bool in kinds:
        return "" if isinstance(value, bool) else "choose True or False"
    if isinstance(value, list):
        return _list_fault(value, kinds)
    if str in kinds:
        return "wanted a value" if value in (None, "") else ""
    return (
        "wanted a list such as [1.0, 0.9]"
        if list[float] in kinds
        else number_fault(value, about.at_least, about.at_most, int in kinds)
    )


def _list_fault(value: list, kinds: tuple[Any, ...]) -> str:
    if list[float] in kinds:
        return "" if value and all(map(is_number, value)) else "wanted a list of numbers such as [1.0, 0.9]"
    return "" if list[str] in kinds else "wanted one value, not a list"
