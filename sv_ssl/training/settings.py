"""A recipe's settings: its YAML, what the command line changes in it, and the sizes of the built-in corpus's demo."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sv_ssl.core import distributed
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import alone, aside
from sv_ssl.data.synthetic import corpus
from sv_ssl.reporting import record as results

# SpeechBrain's run options that are of use here, beside those that the YAMLs name.
RUN_OPTIONS = {"device", "ckpt_interval_steps", "debug", "debug_batches", "debug_epochs", "optimizer_step_limit"}
# What the recipes read of every YAML.
NEEDED = {
    "name",
    "corpus",
    "seed",
    "data_folder",
    "train_csv",
    "valid_trials",
    "test_trials",
    "audio_root",
    "output_folder",
    "results_folder",
    "augment",
    "embedder",
    "method",
    "lr",
    "opt_class",
    "epochs",
    "batch_size",
    "n_views",
    "crop_seconds",
    "num_workers",
    "valid_every",
    "watch_every",
    "max_damaged_share",
    "baselines",
    "tensorboard",
    "max_grad_norm",
    "grad_accumulation_factor",
    "precision",
    "ckpt_interval_minutes",
}
# What a YAML may leave out; the command line may give it all the same.
OPTIONAL: dict[str, Any] = {
    "labels": "utterance",  # whose crops are alike: an utterance's, or with `speaker` a speaker's (supervision);
    # `both`: an utterance's, and a classifier learns the speakers that are known
    "label_share": 1.0,  # part of the speakers whose utterances are used; with `both`: who are known
    "per_speaker": 0,  # K utterances of a speaker in a batch; 1: never two; 0: as they come
    "speeds": [1.0],  # an utterance at another speed is another speaker (labels: speaker)
    "n_short": 0,  # further crops, compared with the long ones
    "short_seconds": 1.0,
    "spec_augment": False,  # bands and stretches of the features masked in training
    "valid_utterances": 200,  # held out of training as the validation list where none is named or found
    "init_from": None,  # a model folder to start from
    "average_last": 0,  # the model is the mean of so many last epochs, not the best epoch
    "score_crops": 0,  # test lists scored by so many crops as well as by whole utterances
    "score_crop_seconds": 3.515,
    "compiled": False,  # train the encoder through torch.compile
    "cohort": 0,  # AS-norm of the test scores by so many crops of training utterances, augmented
    "sync_batchnorm": True,  # one set of BatchNorm statistics for all GPUs
}
AT_LEAST = {
    "epochs": 1,
    "batch_size": 2,
    "n_views": 2,
    "crop_seconds": 0.1,
    "num_workers": 0,
    "valid_every": 1,
    "watch_every": 1,
    "max_damaged_share": 0,
    "grad_accumulation_factor": 1,
    "max_grad_norm": 1e-9,
    "ckpt_interval_minutes": 0,
    "label_share": 1e-9,
    "per_speaker": 0,
    "n_short": 0,
    "short_seconds": 0.1,
    "valid_utterances": 0,
    "average_last": 0,
    "cohort": 0,
    "score_crops": 0,
    "score_crop_seconds": 0.1,
}
# Of the keys that some YAMLs have.
AT_LEAST_IF_THERE = {
    "seed": 0,
    "n_mels": 1,
    "sample_rate": 1000,
    "window_seconds": 1e-3,
    "hop_seconds": 1e-3,
    "dim": 1,
    "head_dim": 1,
    "head_hidden": 1,
    "hidden_layers": 1,
    "peak_lr": 0,
    "warmup": 0,
    "momentum": 0,
    "temperature": 1e-6,
    "alpha": 0,
    "margin": 0,
    "margin_rad": 0,
    "class_margin": 0,
    "scale": 1e-6,
    "ce_weight": 0,
    "focal_gamma": 0,
    "opl_weight": 0,
    "opl_gamma": 0,
    "lambda_mu": 0,
    "lambda_sigma": 0,
    "mixup": 0,
    "smoothing": 0,
    "augment_prob": 0,
    "noise_prob": 0,
    "reverb_prob": 0,
}
AT_MOST = {
    "label_share": 1,
    "labelled_share": 1,
    "alpha": 1,
    "margin_rad": math.pi,
    "mixup": 1,
    "smoothing": 0.99,
    "augment_prob": 1,
    "noise_prob": 1,
    "reverb_prob": 1,
    "momentum": 0.9999,
    "max_damaged_share": 1,
}
WHOLE = {
    "per_speaker",
    "n_short",
    "valid_utterances",
    "average_last",
    "cohort",
    "score_crops",
    "epochs",
    "batch_size",
    "n_views",
    "num_workers",
    "valid_every",
    "watch_every",
    "grad_accumulation_factor",
    "seed",
    "n_mels",
    "sample_rate",
    "dim",
    "head_dim",
    "head_hidden",
    "hidden_layers",
}
FLAGS = {"spec_augment", "compiled", "sync_batchnorm", "baselines", "tensorboard"}
PRECISIONS = ("fp32", "bf16", "fp16")
CHOICES = {"precision": PRECISIONS, "labels": ("utterance", "speaker", "both")}
BUILT_IN = "the built-in corpus, which is synthetic: name your own speech with --data_folder"


def read(recipe_file: str, argv: Sequence[str]) -> dict[str, Any]:
    """Command line -> the YAML's objects by key; and beside them

    run_opts    SpeechBrain's run options (--device, --precision, ...) that the command line gave
    overrides   the keys of the YAML that it gave
    plain       every key with its plain value, or its tag where it is an object
    built_in    whether the run is on the built-in corpus, because no data_folder is named
    """
    path, given = arguments(argv)
    yaml_file = find_yaml(recipe_file, path)
    written = top_level(yaml_file.read_text(), yaml_file)
    known = {**OPTIONAL, **written}
    run_opts = {key: given.pop(key) for key in list(given) if key not in known and key in RUN_OPTIONS}
    refuse_unknown(given, known, yaml_file)
    built_in = given.get("data_folder", known["data_folder"]) is None
    overrides = {**(demo_sizes(recipe_file, known) if built_in else {}), **given}
    if "ckpt_interval_steps" in run_opts:
        overrides["ckpt_interval_minutes"] = 0  # SpeechBrain takes one of the two
    check({**known, **overrides}, run_opts)
    distributed.start(run_opts.get("device"))
    run_opts["device"] = distributed.device(run_opts.get("device"))
    if built_in and distributed.is_main():
        print(f"{known['name']} on {BUILT_IN}")
    overrides |= folders({**known, **overrides})
    overrides["corpus"] = {**known, **overrides}["corpus"] or corpus_name(Path(overrides["data_folder"]))
    inside = {key: value for key, value in overrides.items() if key in written}
    resolved = resolve_references(yaml_file.read_text(), inside).read()
    beside = {**OPTIONAL, **overrides}
    return {
        **beside,
        **build(yaml_file, inside),
        "run_opts": run_opts,
        "overrides": given,
        "built_in": built_in,
        "plain": {**beside, **top_level(resolved, yaml_file)},
        "yaml_file": yaml_file,
        "resolved": resolved,
    }


@contextmanager
def at_work(hparams: Mapping[str, Any]) -> Iterator[None]:
    """While a run goes on in its output folder another is refused; of several processes the first sees to it."""
    if not distributed.is_main():
        yield
        return
    with alone(hparams["output_folder"], "a run", "--output_folder"):
        yield


def claim(hparams: Mapping[str, Any], free: Collection[str], more: dict[str, Any]) -> None:
    """Make the output folder; refuse one that holds a run with other settings, which would end as neither of them.

    Settings in `free` may differ when a run is resumed; `more` is what they do not say, such as the data's hash.
    """
    folder = Path(hparams["output_folder"])
    plain = {
        **{key: value for key, value in hparams["plain"].items() if key not in free},
        "debug": bool(hparams["run_opts"].get("debug")),
        **more,
    }
    record = folder / "settings.json"
    if record.exists():
        before = {**OPTIONAL, "debug": False, **json.loads(record.read_text())}
        if changed := [key for key in plain if before.get(key) != plain[key]]:
            raise InputError(
                f"{folder} holds a run with {changed[0]} {before.get(changed[0])}, this one has "
                f"{plain[changed[0]]}: choose another --output_folder, or delete it to start afresh"
            )
    elif distributed.is_main():
        for name, text in (("hyperparams.yaml", hparams["resolved"]), (record.name, json.dumps(plain, indent=2))):
            with aside(folder / name) as temporary:
                temporary.write_text(text + "\n")
    distributed.barrier()


def facts(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """What of the settings every result tells."""
    given = {**hparams["overrides"], **({"debug": True} if hparams["run_opts"].get("debug") else {})}
    return {
        "name": hparams["name"],
        "corpus": hparams["corpus"],
        "seed": hparams["seed"],
        "yaml": hparams["yaml_file"].name,
        "yaml_sha1": hashlib.sha1(hparams["yaml_file"].read_bytes()).hexdigest(),
        "overrides": {key: results.here(value) for key, value in given.items()},
    }


def arguments(argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """`YAML --key value --key=value --flag` -> the YAML's path and the values, typed as YAML types them.

    >>> arguments(["am.yaml", "--peak_lr=1e-3", "--data_folder", "/a=b/c", "--debug"])
    ('am.yaml', {'peak_lr': 0.001, 'data_folder': '/a=b/c', 'debug': True})
    """
    paths: list[str] = []
    given: dict[str, Any] = {}
    waiting = ""
    for argument in argv:
        if argument.startswith("--"):
            key, equals, value = argument[2:].partition("=")
            waiting, given[key] = ("", typed(value)) if equals else (key, True)
        elif waiting:
            given[waiting], waiting = typed(argument), ""
        else:
            paths.append(argument)
    if len(paths) != 1:
        raise InputError(
            f"wanted one YAML file and --key value pairs, got {len(paths)} files "
            f"({' '.join(paths) or 'none'}); for instance: hparams/NAME.yaml --seed 1"
        )
    return paths[0], given


def typed(text: str) -> Any:
    """A value as YAML would read it; what is no plain value or list stays text."""
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError:
        return text
    return value if isinstance(value, (bool, int, float, list)) or value is None else text


def find_yaml(recipe_file: str, path: str) -> Path:
    """The YAML as given, else beside the recipe."""
    beside = Path(recipe_file).parent
    for candidate in (Path(path), beside / path):
        if candidate.is_file():
            return candidate
    there = sorted(str(p.relative_to(beside)) for p in beside.glob("hparams/*.yaml") if p.stem != "demo")
    raise InputError(f"there is no {path}, here or beside {Path(recipe_file).name}: choose one of {', '.join(there)}")


def top_level(text: str, yaml_file: Path, needed: Collection[str] = NEEDED) -> dict[str, Any]:
    """A YAML's keys with their plain values, nothing built: an object is the text that describes it."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{yaml_file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{yaml_file} holds no `key: value` lines")
    known = {key.value: plain_value(value) for key, value in node.value}
    if missing := sorted(set(needed) - known.keys()):
        raise InputError(f"{yaml_file} lacks the key {missing[0]}: start from a copy of one that is there")
    return known


def plain_value(node: yaml.Node) -> Any:
    """A value, or a list of them; of an object the text that describes it."""
    if isinstance(node, yaml.SequenceNode) and not any(map(is_object, node.value)):
        return [typed(item.value) for item in node.value]
    return yaml.serialize(node).strip() if is_object(node) else typed(node.value)


def is_object(value: yaml.Node) -> bool:
    return not isinstance(value, yaml.ScalarNode) or value.tag.startswith("!")


def refuse_unknown(given: dict, known: dict, yaml_file: Path) -> None:
    """An option that nobody reads is a slip of the finger: name its neighbours. Objects are changed in the YAML.

    A value is of the kind of the YAML's own, if that has one.
    """
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, [*known, *RUN_OPTIONS], n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(near)}?" if near else f"its keys are {', '.join(known)}"
            raise InputError(f"{yaml_file.name} has no key {key!r}: {hint}")
        if str(known[key]).startswith("!new") or str(known[key]).startswith("!name"):
            raise InputError(
                f"--{key} is an object of {yaml_file.name}, no plain value: "
                "give the keys that it refers to, or change it in a copy of the file"
            )
        if wanted := other_kind(known[key], value):
            raise InputError(f"--{key} is {value!r}: {wanted}")


def other_kind(usual: Any, value: Any) -> str:
    """What kind of value is wanted in place of this one; nothing where it is of the usual kind.

    >>> other_kind(0.3, "abc"), other_kind([1, 2], 1), other_kind(None, "abc"), other_kind(1, 0.5)
    ('wanted a number such as 0.3', 'wanted a list such as [1,2]', '', '')
    """
    if isinstance(usual, bool):
        return "" if isinstance(value, bool) else "choose True or False"
    if isinstance(usual, (int, float)):
        return "" if number(value) else f"wanted a number such as {usual}"
    if isinstance(usual, list):
        alike = isinstance(value, list) and all(number(one) for one in value if usual and number(usual[0]))
        return "" if alike else f"wanted a list such as [{','.join(map(str, usual))}]"
    return "wanted a value" if isinstance(usual, str) and value in (None, "") else ""


def number(value: Any) -> bool:
    """Whether it is a number, and a finite one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check(
    plain: dict,
    run_opts: dict,
    at_least: Mapping[str, float] = AT_LEAST,
    choices: Mapping[str, Sequence[str]] = CHOICES,
) -> None:
    """Numbers and words that no run can have are refused before anything is built."""
    there = {key: least for key, least in AT_LEAST_IF_THERE.items() if key in plain}
    for key, least in {**there, **at_least}.items():
        value, kinds = plain[key], int if key in WHOLE else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not value >= least:
            kind = "a whole number" if key in WHOLE else "a number"
            raise InputError(f"--{key} is {value!r}: wanted {kind} of at least {least:g}")
    for key, most in AT_MOST.items():
        if key in plain and plain[key] > most:
            raise InputError(f"--{key} is {plain[key]!r}: wanted {most:g} at most")
    for key in FLAGS & plain.keys():
        if not isinstance(plain[key], bool):
            raise InputError(f"--{key} is {plain[key]!r}: choose True or False")
    speeds = plain.get("speeds", [1.0])
    if not (isinstance(speeds, list) and all(isinstance(one, (int, float)) for one in speeds)):
        raise InputError(f"--speeds is {speeds!r}: wanted a list such as [1.0,0.9,1.1]")
    for key, words in choices.items():
        if plain[key] not in words:
            raise InputError(f"--{key} is {plain[key]!r}: choose {', '.join(words[:-1])} or {words[-1]}")
    on_gpu = torch.cuda.is_available() and run_opts.get("device") != "cpu"
    if plain["precision"] == "fp16" and not on_gpu:
        raise InputError("--precision fp16 needs a GPU: choose fp32 or bf16")


def demo_sizes(recipe_file: str, known: dict) -> dict[str, Any]:
    """What the recipe's demo.yaml says of the keys that this YAML has, to all recipes and to this one by its name."""
    sizes = YAML(typ="safe").load((Path(recipe_file).parent / "hparams" / "demo.yaml").read_text())
    sizes |= sizes.get(Path(recipe_file).stem, {})
    return {key: value for key, value in sizes.items() if key in known}


def folders(plain: dict) -> dict[str, str]:
    """Where the audio, the noises and the rooms are: as named, else those of the built-in corpus."""
    keys = {"data_folder": "", "noise_folder": "noise", "room_folder": "rir"}
    named = {key: plain[key] for key in keys if key in plain}
    for key, value in named.items():
        if value is not None and not Path(str(value)).exists():
            raise InputError(f"{key} {value} does not exist: check --{key}")
    if None in named.values():
        if distributed.is_main():
            corpus.corpus()
        distributed.barrier()
        built_in = corpus.corpus()
        named = {key: value or built_in / keys[key] for key, value in named.items()}
    return {key: str(value) for key, value in named.items()}


def corpus_name(folder: Path) -> str:
    """A folder's name; `built-in` wherever the built-in corpus was made."""
    return "built-in" if (folder / "corpus.json").is_file() else folder.resolve().name


def build(yaml_file: Path, overrides: dict) -> dict[str, Any]:
    """Let HyperPyYAML build the objects; what their constructors refuse is told in one line."""
    try:
        return load_hyperpyyaml(yaml_file.read_text(), overrides)
    except InputError:
        raise
    except (YAMLError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise InputError(f"{yaml_file} cannot be built: {' '.join(str(error).split())}") from error
