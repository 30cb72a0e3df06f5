"""flake8 and mypy, with the settings of setup.cfg."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", [["flake8", "sv_ssl", "recipes", "data_prep", "tests", "benchmarks"], ["mypy"]],
                         ids=lambda c: c[0])
def test_clean(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
