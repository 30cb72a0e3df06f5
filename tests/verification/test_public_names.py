"""The names that rooms offer are there, and a room is imported without what they need."""

import subprocess
import sys
from importlib import import_module

import pytest


@pytest.mark.parametrize("room", ["verification", "reporting", "analysis"])
def test_public_names_are_there(room):
    package = import_module(f"sv_ssl.{room}")
    assert len(package.__all__) > 5 and all(callable(getattr(package, name)) for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'none'"):
        package.none


def test_rooms_are_imported_at_once():
    code = "import sys, sv_ssl.verification, sv_ssl.reporting, sv_ssl.analysis; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
