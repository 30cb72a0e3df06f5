"""What holds for every command: it starts as a module too, and its help teaches."""

import configparser
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def commands():
    """{command: module} as setup.cfg has them."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options.entry_points"]["console_scripts"].split("\n")
    pairs = [line.split(" = ") for line in lines if line.strip()]
    assert all(place.endswith(":main") for _, place in pairs)
    return {name: place.removesuffix(":main") for name, place in pairs}


@pytest.mark.parametrize("name, module", commands().items())
def test_it_is_a_module_too(name, module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {name} ")


@pytest.mark.parametrize("name, module", commands().items())
def test_its_help_has_examples_of_itself(capsys, name, module):
    with pytest.raises(SystemExit, match="0"):
        import_module(module).main(["--help"])
    out = capsys.readouterr().out
    assert f"\n  {name} " in out.partition("\nexamples\n")[2]
    assert max(map(len, out.splitlines())) <= 120


TABLES = {
    "python -m sv_ssl.study": "sv_ssl.study.__main__",
    "python -m sv_ssl.results": "sv_ssl.reporting.result_tables",
}


@pytest.mark.parametrize("name, module", {**commands(), **TABLES}.items())
@pytest.mark.parametrize("started", ["-c", "lib/__main__.py"])
def test_a_wrong_option_is_one_line_by_the_name_of_the_command(capsys, monkeypatch, name, module, started):
    monkeypatch.setattr(sys, "argv", [started])
    assert import_module(module).main(["--no-such-option"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--help" in said and said.startswith(f"{name}: ")


def test_nothing_slow_is_imported_before_the_arguments_are_read():
    modules = list(commands().values())
    code = f"""if True:
        import sys
        from importlib import import_module
        for name in {modules}:
            import_module(name)
        print({{"torch", "pandas", "scipy", "pyarrow", "speechbrain", "matplotlib"}} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
