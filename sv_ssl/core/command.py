"""The frame of all commands: argparse, exit codes and what is printed on errors."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sv_ssl.core.errors import InputError


def run(command: Callable[[], object]) -> int:
    """Run a command and return its exit code: 0 done, 2 bad input (one line), 130 Ctrl-C, or what it returns.

    >>> run(lambda: None)
    0
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding has not
    try:
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
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    return 2


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
