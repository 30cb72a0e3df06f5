"""README.md is short and whole, and every page's links lead somewhere."""

import os
import re

import pytest
from support import pages
from support.pages import ROOT

README = pages.read("README.md")
LINKING = [*pages.PAGES, "CHANGELOG.md"]


def headings(text):
    """Return the anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_ci_runs_the_readmes_test_command():
    assert 'pip install -e ".[test]" && pytest' in README
    assert "README.md" in (ROOT / ".ci" / "run").read_text() and os.access(ROOT / ".ci" / "run", os.X_OK)
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "tests.yml").read_text()


def test_it_is_short_with_two_commands_and_one_table():
    assert len(README.splitlines()) < 80
    assert len(pages.command_lines(README)) == 2
    assert len(re.findall(r"^\|[-|]+\|$", README, re.MULTILINE)) == 1


def test_it_leads_to_every_page():
    assert [page for page in pages.PAGES[1:] if f"({page})" not in README] == []


@pytest.mark.parametrize("page", LINKING)
def test_links_lead_somewhere(page):
    text = pages.read(page)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        if not path.startswith("http"):
            there = (ROOT / page).parent / path if path else ROOT / page
            assert there.exists(), target
            assert not anchor or anchor in headings(there.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", LINKING)
def test_no_number_is_missing(page):
    """Numbers that are filled in after a run stand as @NAME@ until then."""
    assert re.findall(r"@[A-Z_]+@", pages.read(page)) == []


def test_the_version_is_the_same_everywhere():
    version = pages.setup()["metadata"]["version"]
    assert re.search(r"^## (\S+)", pages.read("CHANGELOG.md"), re.MULTILINE)[1] == version
    assert re.search(r"^version: (\S+)", pages.read("CITATION.cff"), re.MULTILINE)[1] == version


def test_the_versions_of_python_are_the_same_everywhere():
    setup = pages.setup()
    named = re.findall(r"Python :: 3\.(\d+)", setup["metadata"]["classifiers"])
    first, last = re.search(r">=3\.(\d+),<3\.(\d+)", setup["options"]["python_requires"]).groups()
    assert named == [str(minor) for minor in range(int(first), int(last))]
    assert f"Python 3.{named[0]} to 3.{named[-1]}" in README
