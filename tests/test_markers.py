"""The table of markers names tests that exist, and every marker is declared."""

import configparser
import re

import pytest
from support.markers import MARKERS, markers_of
from support.rooms import ROOT


def declared():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = parser["tool:pytest"]["markers"].split("\n")
    return {line.partition(":")[0].strip() for line in lines if line.strip()}


@pytest.mark.parametrize("beginning", [beginning for beginning, _ in MARKERS])
def test_every_row_names_a_test(beginning):
    file, _, test = beginning.partition("[")[0].partition("::")
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {re.escape(test or 'test_')}", text, re.MULTILINE), f"{file} has no test {test}"


def test_every_marker_is_declared():
    assert {name for _, names in MARKERS for name in names.split()} == declared()


def test_markers_add_up():
    assert markers_of("training/test_experiment.py::test_bf16[a]") == {"slow"}
    assert markers_of("training/test_experiment.py::test_ctrl_c_says_how_to_go_on") == {"slow", "processes"}
    assert markers_of("core/test_files.py::test_an_error") == set()
