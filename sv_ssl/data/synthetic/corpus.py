"""Make the built-in corpus: seeded speakers, sessions, noises, rooms, trials and meetings, laid out as VoxCeleb is.

    corpus.json                             what it was made from
    wav/id10001/<session>/00001.wav         every session has its own room, channel and background
    train.csv valid.csv test.csv            manifests; no speaker is in two of them
    valid.txt trials.txt                    trial lists over valid.csv and test.csv
    noise/noise.csv rir/rir.csv             for augmentation; none of them was used to make a session
    meetings/*.wav *.rttm                   two speakers each, who are nowhere else

Every sound has a random stream named by what it is, so it depends neither on the other sounds nor on who computes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from sv_ssl.core.errors import InputError
from sv_ssl.core.host import cache_folder, cores
from sv_ssl.data import manifest
from sv_ssl.data.synthetic.contents import Made, Sizes, draw_trials, list_tasks

FORMAT = 3  # raise it whenever a sample changes: caches are named by it
_LEAST = Sizes(2, 2, 2, 2, 1, 2, 1, 0.2, 0, 0, 0, 5.0)  # trials need two speakers and two sessions


def corpus(
    folder: str | os.PathLike | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    **sizes: Any,
) -> Path:
    """Return the folder of the corpus of this seed and these `Sizes`, which is made if it is not there yet.

    Without a folder it is kept in the user's cache. It is the same on any machine and for any number of workers.

    >>> import tempfile
    >>> tiny = dict(n_train=2, n_valid=2, n_test=2, seconds=0.5, n_noises=3, n_rooms=2, n_meetings=0)
    >>> folder = corpus(tempfile.mkdtemp(), workers=1, progress=False, **tiny)
    >>> len(manifest.read(folder / "train.csv"))
    8
    """
    size = Sizes(**sizes)
    wanted = {"format": FORMAT, "seed": seed, **size._asdict()}
    _check(wanted)
    path = _cache(wanted) if folder is None else Path(folder).absolute()
    try:
        if not _complete(path, wanted):
            with _alone(path):
                if not _complete(path, wanted):
                    _make(path, wanted, size, workers or cores(), progress)
    except OSError as error:
        raise InputError(f"cannot make the corpus in {path}: {error.strerror or error}") from error
    return path


def _check(wanted: dict[str, Any]) -> None:
    for name, least in {"seed": 0, **_LEAST._asdict()}.items():
        if not wanted[name] >= least:
            raise InputError(f"{name} is {wanted[name]} but a synthetic corpus needs at least {least}")


def _cache(wanted: dict[str, Any]) -> Path:
    digest = hashlib.sha256(str([float(value) for value in wanted.values()]).encode()).hexdigest()[:8]
    return cache_folder() / f"synthetic-{wanted['seed']}-{digest}"


def _complete(path: Path, wanted: dict[str, Any]) -> bool:
    """Tell whether the corpus is there. A folder is renamed to its name when all is in it, so there is no half."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    description = path / "corpus.json"
    if not description.is_file():
        raise InputError(f"{path} is not a synthetic corpus: pass a new or empty folder to make one")
    there = json.loads(description.read_text())
    other = {key: there.get(key) for key in wanted if there.get(key) != wanted[key]}
    if other:
        asked = {key: wanted[key] for key in other}
        raise InputError(f"{path} holds a corpus made with {other}, not {asked}: delete it or pass another folder")
    return True


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process make a corpus while others wait; the lock ends with its process, even a killed one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f".aside-{path.name}.lock"
    with open(name, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        name.unlink(missing_ok=True)  # only after success: who waited for it finds the corpus


def _make(path: Path, wanted: dict[str, Any], sizes: Sizes, workers: int, progress: bool) -> None:
    temporary = path.parent / f".aside-{path.name}"
    shutil.rmtree(temporary, ignore_errors=True)  # left by a kill
    try:
        temporary.mkdir()
        _fill(temporary, wanted["seed"], sizes, workers, progress)
        (temporary / "corpus.json").write_text(json.dumps(wanted, indent=1) + "\n")
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(folder: Path, seed: int, sizes: Sizes, workers: int, progress: bool) -> None:
    tables: dict[str, list[dict]] = {}
    tasks = [(function, folder, seed, sizes, *what) for function, *what in list_tasks(sizes)]
    with (
        _mapped(workers) as mapped,
        tqdm(total=len(tasks), desc="making the corpus", unit="part", disable=None if progress else True) as bar,
    ):
        for name, rows in mapped(_do, tasks):
            tables.setdefault(name, []).extend(rows)
            bar.update()
    for split in ("train", "valid", "test"):
        manifest.write(pd.DataFrame(tables[split]), folder / f"{split}.csv")
    for split, name in (("valid", "valid.txt"), ("test", "trials.txt")):
        (folder / name).write_text("".join(draw_trials(tables[split], seed, split)))
    for name in ("noise", "rir"):
        _write_csv(folder / name / f"{name}.csv", tables.get(name, []))


def _do(task: tuple) -> Made:
    function, *arguments = task
    return function(*arguments)


@contextmanager
def _mapped(workers: int) -> Iterator[Any]:
    """Yield a `map`, in order, over processes, which leave the keyboard's interrupt to their parent."""
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with context.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield pool.imap


def _write_csv(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows, columns=["wav", "duration", "kind", "split"]).to_csv(path, index=False)
