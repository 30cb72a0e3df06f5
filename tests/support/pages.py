"""README.md, CONTRIBUTING.md and docs/*.md as tests read them: blocks of code, command lines, tables, links."""

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A fenced block: its language, the word behind that (the name of a file), and its content."""

    language: str
    name: str
    text: str


def read(page):
    """Return the text of a page, by its path from the repository's root."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text, *languages):
    """Return the fenced blocks of a page, of some languages or of all."""
    found = [Block(*match) for match in re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)]
    return [block for block in found if not languages or block.language in languages]


def command_lines(text):
    """Return the lines of a page's shell blocks, in their order."""
    return [line for block in blocks(text, "sh", "bash") for line in block.text.splitlines() if line.strip()]


def command_cells(text):
    """Return the commands in the first column of a page's tables, such as `python recipes/...`."""
    return re.findall(r"^\| `(python [^`]+)` \|", text, re.MULTILINE)


def setup():
    """Return setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def console_scripts():
    """Return {command: (module, function)} of setup.cfg."""
    lines = setup()["options.entry_points"]["console_scripts"].strip().splitlines()
    pairs = [line.split(" = ") for line in lines]
    return {name: tuple(target.split(":")) for name, target in pairs}


def arguments_of(line, folder, small=()):
    """Return the words that run a page's line with /data/ in `folder`; `small` is added to those of a recipe."""
    words = [word.replace("/data/", f"{folder}/data/") for word in shlex.split(line)]
    if words[:2] == ["python", "-m"]:
        return [sys.executable, *words[1:]]
    if words[0] == "python":
        words = [sys.executable, str(ROOT / words[1]), *words[2:]]
        return [*words, *small] if "recipes" in words[1] else words
    module, function = console_scripts()[words[0]]
    return [sys.executable, "-c", f"import sys; from {module} import {function}; sys.exit({function}())", *words[1:]]


def run(line, folder, small=(), **environment):
    """Run a page's line in `folder` in a process of its own and return what `subprocess.run` returns."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    arguments = arguments_of(line, folder, small)
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
