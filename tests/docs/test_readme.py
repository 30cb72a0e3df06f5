"""The README is true: its commands exist with their options, its tree is the present one, its tables are generated."""

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_layers import ROOMS

from sv_ssl.training import settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
CELLS = re.findall(r"^\| `(python [^`]+)` \|", README, re.MULTILINE)
COMMANDS = [c.strip() for line in BLOCKS.splitlines() + CELLS if line.strip() for c in line.split("&&")]


def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_enough_commands_were_found():
    assert len(COMMANDS) >= 16, COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists(command):
    words = shlex.split(command)
    if words[0] == "pip":
        assert words[:3] == ["pip", "install", "-e"]
        extras = re.findall(r"\[(\w+)\]", words[3])
        assert all(extra in setup()["options.extras_require"] for extra in extras)
    elif words[:2] == ["python", "-m"]:
        done = subprocess.run([sys.executable, "-m", words[2], "--help"], capture_output=True, text=True, cwd=ROOT)
        assert all(word in done.stdout for word in words if word.startswith("--")) and (ROOT / words[3]).is_file()
    elif words[0] in ("python", "torchrun"):
        script, yaml_file = words[1 + (words[0] == "torchrun") :][:2]
        path = settings.find_yaml(str(ROOT / script), yaml_file)
        assert (ROOT / script).is_file()
        known = {*settings.top_level(path.read_text(), path), *settings.RUN_OPTIONS, *settings.OPTIONAL}
        given = settings.arguments(words[words.index(yaml_file) :])[1]
        assert given.keys() <= known
    elif words[0].startswith("sv-"):
        scripts = setup()["options.entry_points"]["console_scripts"]
        module, function = re.search(rf"{words[0]} = ([\w.]+):(\w+)", scripts).groups()
        page = subprocess.run(
            [sys.executable, "-c", f"import sys, {module} as m; sys.exit(m.{function}(['--help']))"],
            capture_output=True,
            text=True,
            cwd=ROOT,
        ).stdout
        assert all(word in page for word in words if word.startswith("--"))
    else:
        assert words == ["pytest"]


def test_every_option_of_the_table_is_read():
    table = README[README.index("| option |") : README.index("Under `torchrun`")]
    options = set(re.findall(r"`--(\w+)", table)) | set(re.findall(r" --(\w+)", table))
    assert len(options) >= 8 and options <= {*settings.OPTIONAL, *settings.NEEDED}


def test_the_rooms_are_the_present_ones():
    drawn = re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE)
    assert drawn == ROOMS


def test_ci_runs_the_readmes_test_command():
    assert 'pip install -e ".[test]" && pytest' in README
    assert "README.md" in (ROOT / ".ci" / "run").read_text() and os.access(ROOT / ".ci" / "run", os.X_OK)


def test_python_example(tiny, tmp_path, monkeypatch):
    """The README's Python, run as it stands on a model folder and a recording put where it names them."""
    import shutil

    import torch

    from sv_ssl.models import folder
    from sv_ssl.models.embedder import Embedder
    from sv_ssl.models.features import LogMel
    from sv_ssl.models.resnet import FastResNet34

    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    folder.save("exp/built-in/simclr_am/0/model", Embedder(LogMel(40), FastResNet34(40, "small")), {})
    shutil.copy(next(tiny.rglob("00001.wav")), "a.wav")
    found = {}
    exec(re.search(r"```python\n(.*?)```", README, re.DOTALL)[1], found)
    assert found["vector"].shape == (512,)
