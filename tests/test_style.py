"""ruff, as ruff.toml has it, and mypy, as setup.cfg has it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "command", [["ruff", "check", "--quiet"], ["ruff", "format", "--check", "--quiet"], ["mypy"]], ids=" ".join
)
def test_clean(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
