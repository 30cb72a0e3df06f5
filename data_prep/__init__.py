"""Make corpora, as they are distributed, into the folders that the recipes take; here is what the commands share."""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
from tqdm import tqdm

from sv_ssl import audio
from sv_ssl.core.command import Parser, run
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write, write_table
from sv_ssl.core.host import cores
from sv_ssl.data import manifest

TRAIN = "python recipes/voxceleb/train_simclr_am.py hparams/am.yaml --data_folder"
PROBLEMS = """\
What is missing, damaged or left out is listed in FOLDER/problems.csv; the exit code is then 3. It is 0 where all is as
published, and 2 where nothing could be made."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class Problem(NamedTuple):
    """Something that was expected or found and is not in the manifests, and why."""

    part: str  # of the corpus
    name: str  # the file, utterance or speaker; "" for the part as a whole
    problem: str


def parser(name: str, about: str, speakers: bool = True, many: bool = False) -> Parser:
    """Return the parser of a command: where from, where to, how many files at once."""
    made = Parser(prog=f"python data_prep/{name}.py", description=about.strip(), epilog=PROBLEMS)
    add: Any = made.add_argument
    add("source", metavar="SOURCE", nargs="+" if many else None, help="folder to read, searched to its depths")
    add(
        "--out",
        metavar="FOLDER",
        help="folder to write, for --data_folder (default: the first SOURCE)"
        if speakers
        else "folder to write (default: SOURCE)",
    )
    if speakers:
        add("--speakers", action="store_true", help="add the column spk_id, which self-supervision does without")
    add("--workers", metavar="N", type=positive, help="files at work at once (default: one a core)")
    return made


def command(options: Parser, prepare: Callable[..., int], argv: Sequence[str] | None) -> int:
    """Read a command line and prepare what it names -> exit code: 0, 2 bad input, 3 done with problems."""

    def prepared() -> int:
        given = vars(options.parse_args(argv))
        source, out = given.pop("source"), given.pop("out")
        return prepare(source, out or (source if isinstance(source, str) else source[0]), **given)

    return run(prepared)


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def each(
    work: Callable[[list[Item]], list[Result]],
    items: Sequence[Item],
    what: str,
    workers: int | None = None,
    size: int = 16,
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, its result) in order: `size` items at a time in each thread, with a bar on a terminal.

    >>> list(each(lambda block: [n * n for n in block], [1, 2, 3], "squaring", size=2))
    [(1, 1), (2, 4), (3, 9)]
    """
    workers = workers or cores()
    running: deque[tuple[Sequence[Item], Future]] = deque()
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(items), desc=what, unit="file", leave=False, disable=not sys.stderr.isatty()) as bar,
    ):

        def finished() -> Iterator[tuple[Item, Result]]:
            block, future = running.popleft()
            results = future.result()
            bar.update(len(block))
            return zip(block, results)

        try:
            for begin in range(0, len(items), size):
                block = items[begin : begin + size]
                running.append((block, pool.submit(work, list(block))))
                if len(running) == 4 * workers:  # a million at once would fill the memory
                    yield from finished()
            while running:
                yield from finished()
        finally:
            for _, future in running:
                future.cancel()


def write_list(
    path: Path, root: Path, kinds: Mapping[str, str], workers: int | None
) -> tuple[list[str], list[Problem], dict[str, int]]:
    """Write {file below `root`: kind} as a CSV `wav,kind,duration` -> lines on it, what is unusable, files a kind."""
    below = os.path.relpath(root, path.parent)
    base = root if below.startswith("..") else Path(below)
    rows, problems, hours = [], [], dict.fromkeys(kinds.values(), 0.0)
    lengths = each(lambda files: [_seconds(root / file) for file in files], list(kinds), "measuring", workers, 256)
    for file, length in lengths:
        if isinstance(length, str):
            problems.append(Problem(kinds[file], file, length))
        else:
            rows.append((base / file, kinds[file], f"{length:.3f}"))
            hours[kinds[file]] += length / 3600
    counts = Counter(row[1] for row in rows)
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as table:
        csv.writer(table, lineterminator="\n").writerows([("wav", "kind", "duration"), *rows])
    shown = ", ".join(f"{count:,} {kind} ({hours[kind]:,.2f} h)" for kind, count in counts.items())
    return [f"wrote {path}: {shown or 'no files'}"], problems, counts


def _seconds(path: Path) -> float | str:
    if fault := manifest.name_fault(str(path)):
        return f"its name {fault}: rename it"
    try:
        about = audio.info(path)
    except audio.AudioError as error:
        return str(error)
    return about.frames / about.rate


def link(path: str, target: str) -> None:
    """Make `target` a link to `path`, unless it is that file already; a file that is no link is never replaced."""
    if os.path.exists(target) and os.path.samefile(path, target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(target):
        os.unlink(target)
    os.symlink(path, target)


def rerooted(frame: pd.DataFrame, out: str | os.PathLike) -> pd.DataFrame:
    """Return a scanned manifest, whose `wav` is below its `data_root`, as it is to be for a CSV in `out`."""
    root = frame.attrs["data_root"]
    below = os.path.relpath(root, out)
    base = root if below.startswith("..") else os.path.join("$data_root", "" if below == "." else below).rstrip("/")
    return frame.assign(wav=[wav.replace("$data_root", base, 1) for wav in frame["wav"]])


def save(frame: pd.DataFrame, path: Path, speakers: bool) -> str:
    """Write a manifest, without what tells speakers unless that is asked for -> a line on it."""
    if speakers and "spk_id" not in frame:
        raise InputError(f"{path}: --speakers, but nothing in the source tells the speakers")
    shown = frame if speakers else frame.drop(columns=["spk_id", "session"], errors="ignore")
    manifest.write(shown, path)
    return f"wrote {path}: {len(frame):,} utterances, {frame['duration'].sum() / 3600:.1f} h"


def finish(out: Path, lines: Sequence[str], problems: Sequence[Problem], following: str) -> int:
    """Say what was written and what comes next, list the problems -> exit code: 0, or 3 with problems."""
    path = out / "problems.csv"
    path.unlink(missing_ok=True)
    for line in lines:
        print(line)
    if problems:
        write_table(path, [Problem._fields, *problems])
        print(f"problems: {len(problems):,}, listed in {path}; the first: {': '.join(filter(None, problems[0]))}")
    print(f"next: {following}")
    return 3 if problems else 0
