"""A recipe's YAML: the files that it extends laid beneath it, its keys as plain values, its objects built.

A YAML may begin with `extends: am.yaml` and then holds only what differs. A value takes the place of the one below; a
mapping without a tag changes single keys of the object below (`method: {loss: {symmetric: False}}`), one with a tag
(`!new:...`) takes its place. A key of the file below that nothing reads any more is left out; one of its own that
nothing reads is refused. `demo: {epochs: 10, ...}` holds sizes for the built-in corpus.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sv_ssl.core.errors import InputError
from sv_ssl.training import yaml_text

REFUSALS = (
    *(YAMLError, yaml.YAMLError, ImportError, AttributeError),  # of the YAML, and of the names in it
    *(ValueError, TypeError, LookupError, ArithmeticError, AssertionError, RuntimeError, OSError),  # of what they build
)

DEMO = "demo"


class RecipeYaml(NamedTuple):
    """A YAML and what it extends, as one text."""

    path: Path
    text: str
    written: dict[str, Any]  # plain values by key; of an object the text that describes it
    meanings: dict[str, str]  # of the keys, from the comments beside them
    demo: dict[str, Any]  # its sizes for the built-in corpus


def read(path: Path, settings: Collection[str]) -> RecipeYaml:
    """Return a YAML with those that it extends beneath it; `settings` are keys that count as read."""
    node, files = _overlaid(path, {*settings, DEMO}, [])
    demo = _take_demo(node, path)
    if len(files) > 1:
        _refuse_unread(node, set(settings), path)
    meanings = _meanings(files)
    text = _annotated(_text(node), meanings) if len(files) > 1 or demo else yaml_text.read(path)
    yaml_text.check_references(node, path)
    written = top_level(text, path)
    used = {key: size for key, size in demo.items() if key in written or key in settings}  # of those below some are not
    return RecipeYaml(path, text, written, meanings, used)


def _take_demo(node: yaml.MappingNode, path: Path) -> dict[str, Any]:
    """Take the sizes for the built-in corpus out of a YAML, and return them."""
    taken = {}
    for place, (key, value) in enumerate(node.value):
        if key.value == DEMO:
            if not isinstance(value, yaml.MappingNode):
                raise InputError(f"{path}: {DEMO} is no mapping: wanted sizes for the built-in corpus, key: value")
            taken = {own.value: _plain(size) for own, size in node.value.pop(place)[1].value}
            break
    return taken


# ---------------------------------------------------------------------------------------------------------- extending
def _overlaid(path: Path, settings: set[str], above: list[Path]) -> tuple[yaml.MappingNode, list[Path]]:
    """Return the mapping of a YAML laid over what it extends, and the files, the lowest first."""
    if path.resolve() in [other.resolve() for other in above]:
        raise InputError(f"{above[0]} extends itself, by way of {', '.join(p.name for p in above[1:]) or path.name}")
    node = yaml_text.compose(yaml_text.read(path), path)
    keys = [key.value for key, _ in node.value]
    if "extends" not in keys:
        return node, [path]
    if keys[0] != "extends":
        raise InputError(f"{path}: extends is to be the first key, it is number {keys.index('extends') + 1}")
    named = node.value.pop(0)[1].value
    base = path.parent / str(named)
    if not isinstance(named, str):
        raise InputError(f"{path}: extends is to be the name of one YAML")
    if not base.is_file():
        raise InputError(f"{path} extends {base}, which is not there")
    below, files = _overlaid(base, settings, [*above, path])
    _lay(below, node)
    _drop_unread(below, settings | set(keys))
    return below, [*files, path]


def _lay(below: yaml.MappingNode, above: yaml.MappingNode) -> None:
    """Change the mapping below: tagged and plain values replace, mappings without a tag go on inside."""
    places = {key.value: place for place, (key, _) in enumerate(below.value)}
    for key, value in above.value:
        place = places.get(key.value)
        if place is None:
            below.value.append((key, value))
        elif isinstance(value, yaml.MappingNode) and not value.tag.startswith("!"):
            if not isinstance(below.value[place][1], yaml.MappingNode):
                raise InputError(f"{key.value} has keys in the YAML, and is a plain value in the one that it extends")
            _lay(below.value[place][1], value)
        else:
            below.value[place] = (key, value)


def _drop_unread(node: yaml.MappingNode, kept: set[str]) -> None:
    """Leave out top-level keys that are no setting and that no other value refers to."""
    while True:
        read = _referred_to(node)
        left = [(key, value) for key, value in node.value if key.value in kept | read]
        if len(left) == len(node.value):
            return
        node.value = left


def _refuse_unread(node: yaml.MappingNode, settings: set[str], path: Path) -> None:
    """Raise InputError for a top-level value that is no setting and that no other value refers to: a misspelt key."""
    read = settings | _referred_to(node)
    for key, value in node.value:
        if key.value not in read and not value.tag.startswith("!apply:"):  # a call does its work unread
            near = difflib.get_close_matches(key.value, read, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "leave it out, or refer to it"
            raise InputError(f"{path} has a key {key.value!r} that nothing reads: {hint}")


def _referred_to(node: yaml.MappingNode) -> set[str]:
    """Return the keys that values refer to, as in `<epochs>`."""
    return {name for _, value in node.value for name in re.findall(r"<(\w+)[>\[]", yaml.serialize(value))}


def _meanings(files: list[Path]) -> dict[str, str]:
    """Return the comment beside each top-level key, of the highest file that has one."""
    meanings: dict[str, str] = {}
    for path in files:
        for line in yaml_text.read(path).splitlines():
            if beside := re.match(r"(\w+):.*?\s#\s*(\S.*)", line):
                meanings[beside[1]] = beside[2].strip()
    return meanings


def _text(node: yaml.Node) -> str:
    """Write a YAML; a tag without arguments, such as `!name:torch.relu`, stays without."""
    return re.sub(r"(?m)(![\w.:]+) ''$", r"\1", yaml.serialize(node, width=1000))


def _annotated(text: str, meanings: Mapping[str, str]) -> str:
    """Put each key's meaning beside its value again."""
    lines = []
    for line in text.splitlines():
        key = re.match(r"(\w+): (?!!)", line)
        lines.append(f"{line}  # {meanings[key[1]]}" if key and key[1] in meanings else line)
    return "\n".join(lines) + "\n"


# -------------------------------------------------------------------------------------------------------- plain values
def top_level(text: str, path: Path) -> dict[str, Any]:
    """Return a YAML's keys with their plain values, nothing built: of an object the text that describes it."""
    return {key.value: _plain(value) for key, value in yaml_text.compose(text, path).value}


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode) and not any(map(_is_object, node.value)):
        return [typed(item.value) for item in node.value]
    return yaml.serialize(node).strip() if _is_object(node) else typed(node.value)


def _is_object(node: yaml.Node) -> bool:
    return not isinstance(node, yaml.ScalarNode) or node.tag.startswith("!")


def describes_object(value: Any) -> bool:
    """Return whether a plain value is the text of an object, or of a list or mapping that holds one.

    >>> describes_object("!new:torch.nn.ReLU"), describes_object("- !new:torch.nn.ReLU"), describes_object("am.yaml")
    (True, True, False)
    """
    return isinstance(value, str) and (value.startswith(("!", "- !")) or ": !" in value or "\n" in value)


def typed(text: str) -> Any:
    """Return a value as YAML reads it; what is no plain value or list stays text.

    >>> typed("1e-3"), typed("[3, 7]"), typed("a: b")
    (0.001, [3, 7], 'a: b')
    """
    try:
        value = YAML(typ="safe").load(text)
    except (YAMLError, ValueError, RecursionError):  # ValueError: of a date that is none, a number of 5,000 digits
        return text
    return value if isinstance(value, (bool, int, float, list)) or value is None else text


def shown(value: Any) -> str:
    """Return a plain value as YAML writes it.

    >>> shown(["a.txt", 1]), shown(None), shown(True)
    ('[a.txt, 1]', 'null', 'True')
    """
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return "null" if value is None else str(value)


# ------------------------------------------------------------------------------------------------------------ building
def resolved(path: Path, text: str, overrides: Mapping[str, Any]) -> str:
    """Return a YAML's text with its references resolved and other values in place of some."""
    with _refusing(path):
        return resolve_references(text, dict(overrides)).read()


def build(path: Path, text: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Let HyperPyYAML build the objects; what their constructors refuse is an InputError of one line."""
    try:
        with _refusing(path):
            return load_hyperpyyaml(text, dict(overrides))
    except InputError as error:
        option = str(error).partition(" is ")[0]  # a constructor names its argument as the YAML names the key
        if option in top_level(text, path):
            raise InputError(f"--{error}") from error
        raise


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what HyperPyYAML, or a class or function that the YAML names, says of its values into one line."""
    try:
        yield
    except InputError:
        raise
    except REFUSALS as error:
        # HyperPyYAML puts the name of the class before what the class says.
        parts = error.args if all(isinstance(part, str) for part in error.args) else [str(error)]
        raise InputError(f"{path} cannot be built: {' '.join(': '.join(parts).split())}") from error


def find(recipe_file: str, name: str) -> Path:
    """Return the path of a YAML as given, else beside the recipe."""
    beside = Path(recipe_file).parent
    for candidate in (Path(name), beside / name):
        if candidate.is_file():
            return candidate
    raise InputError(
        f"there is no {name}, here or beside {Path(recipe_file).name}: choose one of {', '.join(beside_recipe(beside))}"
    )


def beside_recipe(folder: Path) -> list[str]:
    """Return the YAMLs of a recipe's folder, without the sizes of its demo."""
    return sorted(str(path.relative_to(folder)) for path in folder.glob("hparams/*.yaml") if path.stem != "demo")


def demo_sizes(recipe_file: str, keys: Collection[str]) -> dict[str, Any]:
    """Return what the recipe's demo.yaml says of these keys, to all recipes and to this one by its name."""
    sizes = YAML(typ="safe").load((Path(recipe_file).parent / "hparams" / "demo.yaml").read_text())
    sizes |= sizes.get(Path(recipe_file).stem, {})
    return {key: value for key, value in sizes.items() if key in keys}
