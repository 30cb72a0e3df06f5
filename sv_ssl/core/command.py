"""The frame of all commands: argparse, exit codes and what is printed on errors."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sv_ssl.core.errors import InputError, printable

SPACES = "\n\t"  # what may stand in what is printed


def run(command: Callable[[], object], name: str = "") -> int:
    """Run a command and return its exit code, one of those below or what it returns; an error is one line on stderr.

    0 done; 2 bad input, or nothing could be made; 3 done, but for what was left out and listed; 130 Ctrl-C; 141 the
    reader of the output has ended. `name` begins the line; without it the file that was started, as of a recipe.

    >>> run(lambda: None)
    0
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding has not
    try:
        with _shown():
            code = command()
        if sys.stdout is not None:  # closed by the shell's >&-
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except InputError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MemoryError:
        message = "out of memory"
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
    print(f"{name or Path(sys.argv[0]).name}: {printable(message, keep=SPACES)}", file=sys.stderr)
    return 2


def start(module: str, *arguments: Any, **options: Any) -> int:
    """Import a module, call its `main` and return its exit code: Ctrl-C is one line while the imports last, too."""
    return run(lambda: importlib.import_module(module).main(*arguments, **options))


class _Terminal:
    """A terminal that shows the control characters of what is printed, and does not obey them."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        return self.stream.write(printable(text, keep=SPACES))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _shown() -> contextlib.AbstractContextManager:
    """Guard a terminal; files and pipes get what is printed as it is, for other programs."""
    if not getattr(sys.stdout, "isatty", bool)():  # of what stands in for it, too
        return contextlib.nullcontext()
    return contextlib.redirect_stdout(_Terminal(sys.stdout))  # type: ignore[type-var]


def recipe(about: str, argv: Sequence[str], command: Callable[[Sequence[str]], object]) -> int:
    """Run a recipe, which torchrun may have started several times, and return its exit code; with -h show its page."""
    from sv_ssl.core import distributed

    if {"-h", "--help"} & set(argv):
        print(about.strip())
        return 0
    return distributed.run(lambda: run(lambda: command(argv)))


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, as `run` prints it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ({self.prog} --help shows the options)")
