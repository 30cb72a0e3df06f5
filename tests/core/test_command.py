"""What commands print: names that strangers chose do nothing to a terminal."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sv_ssl.core import command
from sv_ssl.core.errors import InputError, printable

ROOT = Path(__file__).parents[2]
EVIL = "a\x1b]0;title\x07\x1b[2J\x9b1A\u202eb\r"
SHOWN = r"a\x1b]0;title\x07\x1b[2J\x9b1A\u202eb\r"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("error", [InputError(EVIL), FileNotFoundError(2, "No such file", EVIL), OSError(EVIL)])
def test_the_line_of_an_error_has_no_control_characters(capsys, error):
    def fails():
        raise error

    assert command.run(fails) == 2
    err = capsys.readouterr().err
    assert SHOWN in err and err.count("\n") == 1 and not set("\x1b\x07\x9b\u202e\r") & set(err)


def test_reasons_that_are_kept_have_none_either():
    assert str(InputError(f"{EVIL}\n  line 2")) == f"{SHOWN}\n  line 2"


def test_a_terminal_shows_what_a_pipe_gets_as_it_is(monkeypatch):
    for stream, wanted in ((Terminal(), f"1\t{SHOWN}\n{SHOWN}\n"), (io.StringIO(newline=""), f"1\t{EVIL}\n{EVIL}\n")):
        monkeypatch.setattr(sys, "stdout", stream)

        def prints():
            print(f"1\t{EVIL}")
            sys.stdout.writelines([EVIL, "\n"])

        assert command.run(prints) == 0 and sys.stdout is stream
        assert stream.getvalue() == wanted


def test_a_terminal_is_given_back_after_an_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Terminal())
    terminal = sys.stdout

    def fails():
        raise InputError("no")

    assert command.run(fails) == 2 and sys.stdout is terminal


def test_letters_of_all_scripts_stay():
    assert printable("Zoë 中文 \U0001f600 \\n") == "Zoë 中文 \U0001f600 \\n"


@pytest.mark.parametrize("line", [["recipes/voxceleb/train.py", "hparams/dino.yaml"], ["-m", "sv_ssl.results", "none"]])
def test_ctrl_c_while_modules_are_imported_is_one_line(line, tmp_path):
    """A module that takes the place of torch and numpy interrupts its own import, as Ctrl-C would."""
    for name in ("torch", "numpy"):
        (tmp_path / f"{name}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = f"{tmp_path}:{ROOT}"
    done = subprocess.run(
        [sys.executable, *line],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stderr.strip()) == (130, "stopped"), done.stderr
