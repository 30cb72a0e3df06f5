"""A recipe's settings: its YAML, what the command line changes in it, and the sizes of the built-in corpus's demo."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import Any, Sequence

import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from speechbrain.utils.run_opts import RunOptions

from sv_ssl import distributed, synthetic
from sv_ssl.files import InputError

RUN_OPTIONS = {field.name for field in dataclasses.fields(RunOptions)} - {"param_file", "overridden_args"}


def read(recipe_file: str, argv: Sequence[str]) -> dict[str, Any]:
    """Command line -> the YAML's objects by key; and beside them

    run_opts    SpeechBrain's run options (--device, --precision, ...) that the command line gave
    overrides   the keys of the YAML that it gave
    plain       every key with its plain value, or its tag where it is an object
    built_in    whether the run is on the built-in corpus, because no data_folder is named
    """
    path, given = arguments(argv)
    yaml_file = find_yaml(recipe_file, path)
    known = top_level(yaml_file)
    run_opts = {key: given.pop(key) for key in list(given) if key not in known and key in RUN_OPTIONS}
    refuse_unknown(given, known, yaml_file)
    built_in = given.get("data_folder", known["data_folder"]) is None
    overrides = {**(demo_sizes(yaml_file, known) if built_in else {}), **given}
    distributed.start(run_opts.get("device"))
    if distributed.backend():
        run_opts["distributed_backend"] = distributed.backend()
    overrides |= folders({**known, **overrides})
    overrides["corpus"] = {**known, **overrides}["corpus"] or corpus_name(Path(overrides["data_folder"]))
    hparams = build(yaml_file, overrides)
    return {**hparams, "run_opts": run_opts, "overrides": given, "plain": {**known, **overrides}, "built_in": built_in,
            "yaml_file": yaml_file, "resolved": resolve_references(yaml_file.read_text(), overrides).read()}


def arguments(argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """`YAML --key value --key=value --flag` -> the YAML's path and the values, typed as YAML types them.

    >>> arguments(["am.yaml", "--lr=1e-3", "--data_folder", "/a=b/c", "--debug"])
    ('am.yaml', {'lr': 0.001, 'data_folder': '/a=b/c', 'debug': True})
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
        raise InputError(f"wanted one YAML file and --key value pairs, got {len(paths)} files "
                         f"({' '.join(paths) or 'none'}); for instance: hparams/am.yaml --seed 1")
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


def top_level(yaml_file: Path) -> dict[str, Any]:
    """The YAML's keys with their plain values, nothing built."""
    try:
        node = yaml.compose(yaml_file.read_text(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{yaml_file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{yaml_file} holds no `key: value` lines")
    return {key.value: typed(value.value) if isinstance(value, yaml.ScalarNode) and not value.tag.startswith("!")
            else f"{value.tag} {value.value if isinstance(value, yaml.ScalarNode) else ''}".strip()
            for key, value in node.value}


def refuse_unknown(given: dict, known: dict, yaml_file: Path) -> None:
    """An option that neither the YAML nor SpeechBrain knows is a slip of the finger: name its neighbours."""
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, [*known, *RUN_OPTIONS], n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(near)}?" if near else f"its keys are {', '.join(known)}"
            raise InputError(f"{yaml_file.name} has no key {key!r}: {hint}")


def demo_sizes(yaml_file: Path, known: dict) -> dict[str, Any]:
    """What demo.yaml, beside the YAML, says of the keys that this YAML has."""
    sizes = YAML(typ="safe").load((yaml_file.parent / "demo.yaml").read_text())
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
            synthetic.corpus()
        distributed.barrier()
        built_in = synthetic.corpus()
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
