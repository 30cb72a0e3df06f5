"""A YAML's text to its nodes, nothing built: of a size, a depth and keys that a recipe may have, else one line.

A recipe is its user's own code: its tags may name and run anything. What is refused here is what hangs, fills the
memory, or means something else than it says: a value that grows by aliases, a key twice, a reference to nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import read_text

LARGEST = 2**16  # bytes; the largest of recipes/ has 5,000
DEEPEST = 50  # values within each other
MOST = 10_000  # values, those behind an alias counted at each place


def read(path: Path) -> str:
    """Return the text of a YAML."""
    return read_text(path, "a YAML", LARGEST)


def compose(text: str, path: Path) -> yaml.MappingNode:
    """Return the mapping that a YAML is, checked."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise InputError(f"{path} has more than {DEEPEST} values within each other") from error
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{path} holds no `key: value` lines")
    _measure(node, path, {}, 0)
    for key, _ in node.value:
        if key.tag != "tag:yaml.org,2002:str":
            raise InputError(f"{path}, {_line(key)}: the key {key.value!r} is no name but another kind of value")
    return node


def _measure(node: yaml.Node, path: Path, sizes: dict[int, int], depth: int) -> int:
    """Return how many values a node has, aliases followed; each node is looked at once."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise InputError(f"{path}, {_line(node)}: the value holds itself, by an alias")
        return sizes[id(node)]
    if depth > DEEPEST:
        raise InputError(f"{path}, {_line(node)}: more than {DEEPEST} values within each other")
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, path)
    sizes[id(node)] = 0  # until all of it is counted
    size = 1 + sum(_measure(child, path, sizes, depth + 1) for child in children(node))
    if size > MOST:
        raise InputError(f"{path}, {_line(node)}: more than {MOST:,} values, aliases counted at each place")
    sizes[id(node)] = size
    return size


def _check_keys(node: yaml.MappingNode, path: Path) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{path}, {_line(key)}: a key is a list or a mapping: wanted a name")
        if (key.tag, key.value) in seen:
            raise InputError(f"{path}, {_line(key)}: the key {key.value!r} is there twice: leave one out")
        seen.add((key.tag, key.value))


def children(node: yaml.Node) -> list[yaml.Node]:
    """Return the nodes that a node holds."""
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


# ---------------------------------------------------------------------------------------------------------- references
def check_references(node: yaml.MappingNode, path: Path) -> None:
    """Raise InputError for a `!ref <key>` or `!copy <key>` whose key is not there, or that leads back to itself."""
    leads = {key.value: list(_references(value)) for key, value in node.value}
    for key, names in leads.items():
        for name in names:
            if name not in leads:
                near = difflib.get_close_matches(name, leads, n=3)
                hint = f"did you mean {' or '.join(near)}?" if near else f"its keys are {', '.join(leads)}"
                raise InputError(f"{path}: {key} refers to <{name}>, which is no key of it: {hint}")
    _check_circles(leads, path)


def _check_circles(leads: dict[str, list[str]], path: Path) -> None:
    """Raise InputError for a key whose references lead back to it."""
    done: set[str] = set()

    def follow(key: str, way: list[str]) -> None:
        if key in way:
            raise InputError(f"{path}: {key} refers to itself ({' -> '.join([*way[way.index(key) :], key])})")
        if key not in done:
            for name in leads[key]:
                follow(name, [*way, key])
            done.add(key)

    for key in leads:
        follow(key, [])


def _references(node: yaml.Node) -> Iterator[str]:
    """Yield the keys that a value refers to."""
    if isinstance(node, yaml.ScalarNode) and node.tag in ("!ref", "!copy"):
        yield from re.findall(r"<(\w+)", node.value)
    for child in children(node):
        yield from _references(child)
