"""docs/architecture.md and its picture show the present rooms, files and contracts."""

import re
from xml.etree import ElementTree

import pytest
from support import pages
from support.rooms import AT_ROOT, ROOMS, ROOT

PAGE = pages.read("docs/architecture.md")
DRAWING = ROOT / "docs" / "architecture.svg"


def texts():
    """Return the texts of the picture with their class."""
    tree = ElementTree.parse(DRAWING)
    return [(node.get("class"), node.text) for node in tree.iter("{http://www.w3.org/2000/svg}text")]


def test_the_rooms_are_the_present_ones():
    table = PAGE.partition("| room |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)/` \|", table, re.MULTILINE) == ROOMS


def test_the_picture_has_the_rooms_with_their_jobs():
    rows = re.findall(r"^\| `(\w+)/` \| (.*?) \|$", PAGE.partition("| room |")[2].partition("\n\n")[0], re.MULTILINE)
    found = texts()
    named = [text.rstrip("/") for kind, text in found if kind == "name"]
    assert named == ROOMS
    assert {job for _, job in rows} <= {text for _, text in found}


def test_modules_at_the_root_are_named():
    assert all(f"{name}.py" in PAGE for name in AT_ROOT - {"__init__"})


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(?:sv_ssl/)?(\w+/\w+\.py)`", PAGE))))
def test_files_that_are_named_exist(path):
    assert (ROOT / "sv_ssl" / path).is_file() or (ROOT / path).is_file()


def test_the_contracts_have_the_fields_that_are_named():
    from sv_ssl.data.batch import Batch
    from sv_ssl.losses.rows import Rows
    from sv_ssl.methods.base import Facts, Method, Needs, Step

    for kind in (Needs, Facts, Batch, Step):
        row = re.search(rf"^\| `{kind.__name__}` \| (.*) \|$", PAGE, re.MULTILINE)[1]
        assert [name for name in re.findall(r"`(\w+)`", row) if name not in ("prepare", "forward")] == list(
            kind._fields
        )
    assert f"`Rows({', '.join(Rows._fields)})`" in PAGE
    hooks = re.findall(r"^\| (?:hooks|answers) \| (.*) \|$", PAGE, re.MULTILINE)
    named = {name for row in hooks for name in re.findall(r"`(\w+)`", row)}
    written = {name for name, value in vars(Method).items() if callable(value) and not name.startswith("_")}
    assert named == written - {"prepare", "forward"}


def test_it_is_two_pages_with_one_picture():
    assert len(PAGE.splitlines()) <= 125 and PAGE.count("](architecture.svg)") == 1
