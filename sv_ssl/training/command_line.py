"""A recipe's command line: `YAML --key value ...`, checked, with nothing built and nothing begun."""

from __future__ import annotations

import difflib
import hashlib
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sv_ssl.core.errors import InputError, is_number
from sv_ssl.reporting import record
from sv_ssl.training import recipe_yaml, settings
from sv_ssl.training.recipe_yaml import RecipeYaml, describes_object, typed
from sv_ssl.training.settings import Setting, Settings

PRINT = "print_config"


@dataclass(frozen=True)
class Config:
    """What a run is asked to do: a YAML and what the command line changes in it."""

    kind: type[Settings]
    yaml: RecipeYaml
    given: dict[str, Any]  # by the command line
    demo: dict[str, Any]  # sizes of demo.yaml, where no data_folder is named
    print_only: bool = False

    @property
    def plain(self) -> dict[str, Any]:
        """Return every setting and every key of the YAML with its plain value; of an object its text."""
        return {**settings.defaults(self.kind), **self.yaml.written, **self.demo, **self.given}

    @property
    def built_in(self) -> bool:
        """Return whether the run is on the built-in corpus, because no data_folder is named."""
        return self.plain["data_folder"] is None

    def inside(self, sources: Mapping[str, Any]) -> dict[str, Any]:
        """Return what replaces values of the YAML itself."""
        return {key: value for key, value in {**self.demo, **self.given, **sources}.items() if key in self.yaml.written}

    def resolved(self, sources: Mapping[str, Any] | None = None) -> str:
        """Return the whole YAML with its references resolved, as it is run."""
        changed = {**self.demo, **self.given, **(sources or {})}
        beside = {key: value for key, value in changed.items() if key not in self.yaml.written}
        text = recipe_yaml.resolved(self.yaml.path, self.yaml.text, self.inside(sources or {}))
        return text.rstrip() + "\n" + "".join(f"{key}: {recipe_yaml.shown(value)}\n" for key, value in beside.items())

    def final(self, sources: Mapping[str, Any]) -> dict[str, Any]:
        """Return `plain` with references resolved, and with what the data told of the settings."""
        return {**self.plain, **sources, **recipe_yaml.top_level(self.resolved(sources), self.yaml.path)}

    def build(self, sources: Mapping[str, Any]) -> Settings:
        """Return the settings with their objects built; `sources` is what `Task.sources` returned."""
        built = recipe_yaml.build(self.yaml.path, self.yaml.text, self.inside(sources))
        values = {**self.plain, **sources, **built}
        return self.kind(**{key: value for key, value in values.items() if key in settings.known(self.kind)})

    def facts(self) -> dict[str, Any]:
        """Return what every result tells of the command."""
        about = settings.known(self.kind)
        kept = {key: value for key, value in self.given.items() if key not in about or not about[key].passed}
        debug = {"debug": True} if self.plain["debug"] else {}
        return {
            "yaml": self.yaml.path.name,
            "yaml_sha1": hashlib.sha1(self.yaml.text.encode()).hexdigest(),
            "overrides": {key: record.here(value) for key, value in {**kept, **debug}.items()},
        }


def read(kind: type[Settings], recipe_file: str, argv: Sequence[str]) -> Config:
    """Return what a command line asks for, checked."""
    name, given = arguments(argv)
    print_only = given.pop(PRINT, False) is True
    recipe = recipe_yaml.read(recipe_yaml.find(recipe_file, name), settings.known(kind))
    usual = {**settings.defaults(kind), **recipe.written}
    if missing := sorted(settings.known(kind).keys() - usual.keys()):
        raise InputError(f"{recipe.path} lacks the key {missing[0]}: start from a copy of one that is there")
    refuse_unknown(given, usual, recipe.path.name, settings.known(kind))
    on_built_in = given.get("data_folder", usual["data_folder"]) is None
    demo = {**recipe_yaml.demo_sizes(recipe_file, usual), **recipe.demo} if on_built_in else {}
    config = Config(kind, recipe, given, demo, print_only)
    settings.check(kind, config.plain)
    return config


def arguments(argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the YAML's path and the values of `YAML --key value --key=value --flag`, typed as YAML types them.

    >>> arguments(["am.yaml", "--peak_lr=1e-3", "--data_folder", "/a=b/c", "--debug"])
    ('am.yaml', {'peak_lr': 0.001, 'data_folder': '/a=b/c', 'debug': True})
    """
    paths: list[str] = []
    given: dict[str, Any] = {}
    waiting = ""
    for argument in argv:
        if argument.startswith("--"):
            key, equals, value = argument[2:].partition("=")
            waiting = "" if equals else key
            given[key] = typed(value) if equals else True
        elif waiting:
            given[waiting] = typed(argument)
            waiting = ""
        else:
            paths.append(argument)
    if len(paths) != 1:
        raise InputError(
            f"wanted one YAML file and --key value pairs, got {len(paths)} files "
            f"({' '.join(paths) or 'none'}); for instance: hparams/NAME.yaml --seed 1"
        )
    return paths[0], given


def refuse_unknown(
    given: Mapping[str, Any], usual: Mapping[str, Any], yaml_name: str, known: Mapping[str, Setting]
) -> None:
    """Raise InputError for an unknown key, an object, or a value of another kind than the YAML's own."""
    for key, value in given.items():
        if key not in usual:
            near = difflib.get_close_matches(key, usual, n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(near)}?" if near else f"its keys are {', '.join(usual)}"
            raise InputError(f"{yaml_name} has no key {key!r}: {hint}")
        if str(usual[key]).startswith(("!new", "!name", "!apply")) or (key in known and known[key].built):
            raise InputError(
                f"--{key} is an object of {yaml_name}, no plain value: "
                "give the keys that it refers to, or change it in a copy of the file"
            )
        if key not in known and (wanted := other_kind(usual[key], value)):
            raise InputError(f"--{key} is {value!r}: {wanted}")


def other_kind(usual: Any, value: Any) -> str:
    """Return what kind of value is wanted in place of this one; nothing where it is of the usual kind.

    >>> other_kind(0.3, "abc"), other_kind([1, 2], 1), other_kind(None, "abc"), other_kind(1, 0.5)
    ('wanted a number such as 0.3', 'wanted a list such as [1,2]', '', '')
    """
    if isinstance(usual, bool):
        return "" if isinstance(value, bool) else "choose True or False"
    if isinstance(usual, (int, float)):
        return "" if is_number(value) else f"wanted a number such as {usual}"
    if isinstance(usual, list):
        numbers = bool(usual) and all(map(is_number, usual))
        alike = isinstance(value, list) and (not numbers or all(map(is_number, value)))
        return "" if alike else f"wanted a list such as [{','.join(map(str, usual))}]"
    return "wanted a value" if isinstance(usual, str) and value in (None, "") else ""


# ---------------------------------------------------------------------------------------------------------------- help
def help_page(kind: type[Settings], recipe_file: str, argv: Sequence[str]) -> str:
    """Return every setting, and every key of the YAML that is named, with its default, meaning and range."""
    names = [word for word in argv if word.endswith(".yaml")]
    known, usual = settings.known(kind), settings.defaults(kind)
    own: dict[str, str] = {}
    title = f"Options, --key value, of every YAML ({', '.join(recipe_yaml.beside_recipe(Path(recipe_file).parent))})"
    if names:
        recipe = recipe_yaml.read(recipe_yaml.find(recipe_file, names[0]), known)
        usual |= recipe.written
        own = {key: recipe.meanings.get(key, "") for key in recipe.written if key not in known}
        title = f"Options of {names[0]}, --key value, with its values"
    lines = [_entry(key, usual, about.meaning, span(about)) for key, about in known.items() if not about.built]
    lines += [_entry(PRINT, {PRINT: False}, "print the whole YAML as it would be run, and do nothing", "")]
    mine = [_entry(key, usual, meaning, "") for key, meaning in own.items() if not describes_object(usual[key])]
    shown = [f"\n\nIts own keys:\n{chr(10).join(mine)}"] if mine else []
    return f"{title}:\n" + "\n".join(lines) + "".join(shown)


def span(about: Setting) -> str:
    """Return a setting's range or choices in words.

    >>> span(Setting("", at_least=0, at_most=1, resumable=True))
    'from 0 to 1; may differ when resumed'
    """
    words = []
    if about.choices:
        words = [" or ".join(about.choices)]
    elif about.at_least is not None and about.at_least > 1e-9:
        words = [f"at least {about.at_least:g}"] if about.at_most is None else []
    if about.at_most is not None:
        words = [f"from {about.at_least or 0:g} to {about.at_most:g}"]
    return "; ".join([*words, *(["may differ when resumed"] if about.resumable else [])])


def _entry(key: str, usual: Mapping[str, Any], meaning: str, limits: str) -> str:
    value = recipe_yaml.shown(usual[key]) if key in usual else "(the YAML says it)"
    text = f"{meaning} ({limits})" if limits else meaning
    return f"  --{key} {value}\n" + textwrap.fill(text, 118, initial_indent=" " * 6, subsequent_indent=" " * 6)
