"""Every command of README, CONTRIBUTING and docs/ exists and knows the options that it is given there."""

import io
import re
import runpy
import shlex
import sys
from functools import cache
from importlib import import_module

import pytest
from support import pages
from support.pages import ROOT

TEXTS = {page: pages.read(page) for page in pages.PAGES}
LINES = [line for text in TEXTS.values() for line in pages.command_lines(text) + pages.command_cells(text)]
COMMANDS = list(dict.fromkeys(part.strip() for line in LINES for part in line.split(" && ")))
TOOLS = {"git", "mypy", "pre-commit", "ruff"}


@cache
def help_of(*words):
    """Return what a program prints for --help: `recipes/.../train.py YAML`, `-m MODULE` or the name of a command."""
    before = sys.argv, sys.stdout, sys.path
    sys.stdout = out = io.StringIO()
    try:
        call(*words)
    except SystemExit as stop:
        assert not stop.code, words
    finally:
        sys.argv, sys.stdout, sys.path = before
    return out.getvalue()


def call(first, *rest):
    """Run a program in this process with --help."""
    if first == "-m":
        sys.argv = [rest[0], *rest[1:], "--help"]
        runpy.run_module(rest[0], run_name="__main__")
    elif first.endswith(".py"):
        sys.argv = [str(ROOT / first), *rest, "--help"]
        sys.path = [str((ROOT / first).parent), *sys.path]
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        module, function = pages.console_scripts()[first]
        getattr(import_module(module), function)(["--help"])


def options(words):
    return {word[2:].partition("=")[0] for word in words if word.startswith("--")}


def unknown(given, text):
    """Return the options that a help text does not name."""
    return {option for option in given if not re.search(rf"(?<![\w-])(?:--)?{re.escape(option)}(?![\w-])", text)}


def test_enough_commands_were_found():
    assert len(COMMANDS) >= 60 and {"README.md", "CONTRIBUTING.md", "docs/training.md"} <= TEXTS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists(command):
    name, *words = shlex.split(command.partition("<")[0])
    if name in TOOLS:
        return
    if name == "pip":
        check_pip(words)
    elif name == "pytest":
        check_pytest(words)
    elif words[:1] == ["-m"]:
        check_module(words)
    elif name in ("python", "torchrun"):
        check_script(words[1:] if name == "torchrun" else words)
    else:
        assert not unknown(options(words), help_of(name))


def check_pip(words):
    """An editable install with extras that setup.cfg has, or a tool by its name."""
    assert words[0] == "install"
    extras = re.findall(r"\[([\w,]+)\]", " ".join(words))
    assert all(extra in pages.setup()["options.extras_require"] for text in extras for extra in text.split(","))


def check_pytest(words):
    """Markers that are declared, and paths that are there."""
    declared = pages.setup()["tool:pytest"]["markers"]
    chosen = words[words.index("-m") + 1].split() if "-m" in words else []
    assert all(f"{name}:" in declared for name in chosen if name not in ("not", "and", "or"))
    assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))


def check_module(words):
    module, *rest = words[1:]
    assert not unknown(options(rest), help_of("-m", module))
    assert all((ROOT / word).exists() for word in rest if word.startswith("recipes/"))


def check_script(words):
    """A program of the repository; a recipe's options are those of the YAML that it is given."""
    script, *rest = words
    assert (ROOT / script).is_file()
    if script.startswith("recipes/") and rest and rest[0].endswith(".yaml"):
        assert (ROOT / script).parent.joinpath(rest[0]).is_file(), rest[0]
        assert not unknown(options(rest) - {"print_config", "help"}, help_of(script, rest[0]))
    elif options(rest):
        assert not unknown(options(rest), help_of(script))


def test_the_table_of_recipes_names_what_is_there():
    """Every row of docs/training.md is a YAML; a YAML without a row says itself what it is and how it is run."""
    rows = {cell.split()[-1] for cell in pages.command_cells(TEXTS["docs/training.md"])}
    paths = (ROOT / "recipes" / "voxceleb" / "hparams").glob("*.yaml")
    there = {f"hparams/{path.name}": path for path in paths if path.stem != "demo"}
    assert len(rows) > 15 and rows <= there.keys()
    for name, path in there.items():
        assert re.search(rf"^#   python recipes/voxceleb/train\w*\.py {name} ", path.read_text(), re.MULTILINE), name


def test_every_option_of_the_table_is_read():
    text = TEXTS["docs/training.md"].partition("## Options")[2].partition("\n## ")[0]
    table = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    found = set(re.findall(r"`--(\w+)", table))
    simclr = help_of("recipes/voxceleb/train_simclr_am.py", "hparams/am.yaml")
    supervised = help_of("recipes/voxceleb/train_supervised.py", "hparams/aam_softmax.yaml")
    assert len(found) >= 12 and not unknown(found, simclr + supervised)


def test_every_command_of_setup_cfg_is_explained():
    table = TEXTS["docs/embeddings.md"].partition("## Commands")[2].partition("\n## ")[0]
    assert set(pages.console_scripts()) == set(
        re.findall(r"`(sv-\w+)`", "".join(re.findall(r"^\| .*? \|", table, re.M)))
    )


def test_every_preparation_is_named():
    text = TEXTS["docs/training.md"] + TEXTS["docs/voxceleb.md"]
    for path in (ROOT / "data_prep").glob("*.py"):
        if "__main__" in path.read_text(encoding="utf-8"):
            assert f"{path.name}`" in text or f"data_prep/{path.name} " in text, path.name
