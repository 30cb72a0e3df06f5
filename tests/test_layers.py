"""The rooms of the house: their order, their size, and the arrows of imports between them."""

import ast
from collections import Counter

from support.rooms import AT_ROOT, ROOMS, ROOT, modules, room

MOST_ARROWS = 80
MOST_LINES = 300


def imports(path):
    """Yield the rooms that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sv_ssl":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("sv_ssl.")]
        for name in names:
            yield name.split(".")[1]


def arrows():
    """Count, for each pair of rooms, the files of the first that import from the second."""
    return Counter(
        (room(path), name)
        for path in modules()
        for name in set(imports(path))
        if room(path) in ROOMS and name != room(path)
    )


def test_every_file_lies_in_a_room():
    assert {room(path) for path in modules()} == {*ROOMS, *AT_ROOT}


def test_imports_point_down():
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules()
        for name in imports(path)
        if room(path) in ROOMS
        and name != room(path)
        and (name not in ROOMS or ROOMS.index(name) < ROOMS.index(room(path)))
    ]
    assert not upward


def test_arrows_between_rooms():
    found = arrows()
    print(f"{len(found)} arrows between rooms, drawn by {sum(found.values())} imports of files")
    assert len(found) <= MOST_ARROWS


def test_no_module_name_twice():
    names = Counter(path.stem for path in modules() if not path.stem.startswith("__"))
    assert [name for name, n in names.items() if n > 1] == []


def test_files_are_short():
    long = {
        str(path.relative_to(ROOT)): n for path in modules() if (n := len(path.read_text().splitlines())) > MOST_LINES
    }
    assert not long


def test_one_place_for_each_of_these():
    """soundfile is read in audio/io.py alone; argparse in the commands and their frame."""
    for package, homes in (("soundfile", {"audio"}), ("argparse", {"cli", "core", "embeddings"})):
        users = {room(p) for p in modules() if f"import {package}" in p.read_text()}
        assert users <= homes, (package, users)


def test_preparation_stands_on_the_lower_rooms():
    """data_prep waits for no torch, and has no argparse and no soundfile of its own."""
    paths = list((ROOT / "data_prep").glob("*.py"))
    assert len(paths) > 6
    assert {name for path in paths for name in imports(path)} <= {"audio", "core", "data", "verification"}
    texts = [path.read_text() for path in paths]
    assert not any(f"import {package}" in text for text in texts for package in ("soundfile", "argparse", "torch"))
