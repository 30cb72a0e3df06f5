"""The built-in corpus: seeded speakers, sessions, noises, rooms, trials and meetings, laid out as VoxCeleb is.

    corpus.json                             what it was made from
    wav/id10001/<session>/00001.wav         every session has its own room, channel and background
    train.csv valid.csv test.csv            manifests; no speaker is in two of them
    valid.txt trials.txt                    trial lists over valid.csv and test.csv
    noise/noise.csv rir/rir.csv             for augmentation; none of them was used to make a session
    meetings/*.wav *.rttm                   two speakers each, who are nowhere else

Every sound has a generator seeded by what it is, so it depends neither on the other sounds nor on who computes it.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.core.host import cache_folder, cores
from sv_ssl.data import manifest
from sv_ssl.data.synthetic.scene import draw_scene, music, noise, record, room
from sv_ssl.data.synthetic.voice import RATE, draw_speaker, speak

FORMAT = 2  # raise it whenever a sample changes: caches are named by it
_FIRST = {"train": 10001, "valid": 20001, "test": 30001, "talkers": 40001, "meetings": 50001}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_PREFIX = "$data_root/wav/"
Made = tuple[str, list[dict]]  # the name of a table, and rows for it


class Sizes(NamedTuple):
    """How much to make."""

    n_train: int = 400  # speakers
    n_valid: int = 20
    n_test: int = 40
    sessions: int = 2  # a training speaker
    utterances: int = 2  # a session of training
    test_sessions: int = 4  # a speaker of validation and test
    test_utterances: int = 3
    seconds: float = 4.0  # an utterance, and a quarter more or less
    n_noises: int = 60  # files
    n_rooms: int = 60
    n_meetings: int = 4
    meeting_seconds: float = 60.0


_LEAST = Sizes(2, 2, 2, 2, 1, 2, 1, 0.2, 0, 0, 0, 5.0)  # trials need two speakers and two sessions


def corpus(
    folder: str | os.PathLike | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    **sizes: Any,
) -> Path:
    """Folder of the corpus of this seed and these `Sizes`, which is made if it is not there yet.

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
    """Whether it is there. A folder is renamed to its name when all is in it, so there is no half."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    description = path / "corpus.json"
    if not description.is_file():
        raise InputError(f"{path} is not a synthetic corpus: pass a new or empty folder to make one")
    found = json.loads(description.read_text())
    other = {key: found.get(key) for key in wanted if found.get(key) != wanted[key]}
    if other:
        asked = {key: wanted[key] for key in other}
        raise InputError(f"{path} holds a corpus made with {other}, not {asked}: delete it or pass another folder")
    return True


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process makes a corpus, those that come meanwhile wait. The lock ends with its process, even a killed one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f".aside-{path.name}.lock"
    with open(name, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        name.unlink(missing_ok=True)  # only after success: who waited for it finds the corpus


def _make(path: Path, wanted: dict[str, Any], sizes: Sizes, workers: int, progress: bool) -> None:
    aside = path.parent / f".aside-{path.name}"
    shutil.rmtree(aside, ignore_errors=True)  # left by a kill
    try:
        aside.mkdir()
        _fill(aside, wanted["seed"], sizes, workers, progress)
        (aside / "corpus.json").write_text(json.dumps(wanted, indent=1) + "\n")
        os.rename(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fill(folder: Path, seed: int, sizes: Sizes, workers: int, progress: bool) -> None:
    tables: dict[str, list[dict]] = {}
    tasks = [(function, folder, seed, sizes, *what) for function, *what in _tasks(sizes)]
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
        (folder / name).write_text("".join(_trials(tables[split], _rng(seed, _FIRST[split]))))
    for name in ("noise", "rir"):
        _write_csv(folder / name / f"{name}.csv", tables.get(name, []))


def _tasks(sizes: Sizes) -> Iterator[tuple]:
    """Function and what it is to make: sessions, files for augmentation, meetings."""
    evaluation = {"valid": (sizes.n_valid, sizes.test_sessions), "test": (sizes.n_test, sizes.test_sessions)}
    for split, (speakers, days) in {"train": (sizes.n_train, sizes.sessions), **evaluation}.items():
        yield from ((_session, split, _FIRST[split] + i, day) for i in range(speakers) for day in range(1, days + 1))
    for function, count in ((_noise, sizes.n_noises), (_room, sizes.n_rooms), (_meeting, sizes.n_meetings)):
        yield from ((function, i) for i in range(count))


def _do(task: tuple) -> Made:
    function, *arguments = task
    return function(*arguments)


@contextmanager
def _mapped(workers: int) -> Iterator[Any]:
    """`map`, in order, over processes, which leave the keyboard's interrupt to their parent."""
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with context.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield pool.imap


def _rng(seed: int, speaker: int, session: int = 0, utterance: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, speaker, session, utterance])


def _session(folder: Path, seed: int, sizes: Sizes, split: str, number: int, day: int) -> Made:
    """What one speaker says on one day, as files, and their rows."""
    speaker = draw_speaker(_rng(seed, number), high=_is_high(number))
    rng = _rng(seed, number, day)
    name = "".join(_LETTERS[i] for i in rng.integers(len(_LETTERS), size=11))
    scene = draw_scene(rng)
    rows = []
    for utterance in range(1, 1 + (sizes.utterances if split == "train" else sizes.test_utterances)):
        rng = _rng(seed, number, day, utterance)
        seconds = round(sizes.seconds * rng.uniform(0.75, 1.25), 2)
        wave = record(speak(speaker, rng, seconds, scene.mood + 0.5 * rng.standard_normal()), scene, rng)
        key = f"id{number}/{name}/{utterance:05d}"
        audio.write(folder / "wav" / f"{key}.wav", wave, RATE)
        rows.append(_row(key, len(wave)))
    return split, rows


def _row(key: str, n_samples: int) -> dict:
    speaker, session, _ = key.split("/")
    return {
        "ID": key.replace("/", "-"),
        "duration": n_samples / RATE,
        "wav": f"{_PREFIX}{key}.wav",
        "start": 0,
        "stop": n_samples,
        "spk_id": speaker,
        "session": session,
    }


def _is_high(number: Any) -> Any:
    """Half of the voices are in either group."""
    return number % 2 == 0


def _noise(folder: Path, seed: int, sizes: Sizes, index: int) -> Made:
    number, kind = _FIRST["talkers"] + index, ("noise", "music", "speech")[index % 3]
    rng = _rng(seed, number, 1)
    talk = partial(speak, draw_speaker(_rng(seed, number), high=_is_high(number)))
    makers: dict[str, Callable[..., np.ndarray]] = {"noise": noise, "music": music, "speech": talk}
    wave = makers[kind](rng=rng, seconds=round(rng.uniform(8, 10), 2))
    return "noise", [_sound(folder / "noise", f"{kind}/{index:03d}.wav", wave, kind, index / sizes.n_noises)]


def _room(folder: Path, seed: int, sizes: Sizes, index: int) -> Made:
    wave = room(_rng(seed, _FIRST["talkers"] + index, 2))
    return "rir", [_sound(folder / "rir", f"{index:03d}.wav", wave, "simulated", index / sizes.n_rooms)]


def _sound(folder: Path, name: str, wave: np.ndarray, kind: str, part: float) -> dict:
    """Row of a file for augmentation, written; the last quarter is for tests."""
    audio.write(folder / name, 0.9 * wave / abs(wave).max(), RATE)
    return {"wav": name, "duration": len(wave) / RATE, "kind": kind, "split": "train" if part < 0.75 else "test"}


def _meeting(folder: Path, seed: int, sizes: Sizes, index: int) -> Made:
    """A recording of two people in one room, and who spoke when; a pause within a turn belongs to the turn."""
    name, numbers = f"meeting{index + 1}", [_FIRST["meetings"] + 2 * index + i for i in range(2)]
    groups = (False, bool(index % 2))  # every other pair is of one group
    speakers = [draw_speaker(_rng(seed, number), high) for number, high in zip(numbers, groups)]
    rng = _rng(seed, numbers[0], 1)
    wave, lines = np.zeros(round(sizes.meeting_seconds * RATE)), []
    for who, begin, seconds in _turns(rng, sizes.meeting_seconds):
        said = speak(speakers[who], rng, seconds)
        wave[round(begin * RATE) :][: len(said)] += said / np.sqrt((said**2).mean())
        lines.append(f"SPEAKER {name} 1 {begin:.3f} {seconds:.3f} <NA> <NA> id{numbers[who]} <NA> <NA>\n")
    audio.write(folder / "meetings" / f"{name}.wav", record(wave, draw_scene(rng), rng), RATE)
    (folder / "meetings" / f"{name}.rttm").write_text("".join(lines))
    return "meetings", []


def _turns(rng: np.random.Generator, seconds: float) -> list[tuple[int, float, float]]:
    """Who, from when, how long: by turns, and one time in seven before the other has ended."""
    turns, begin, who = [], 0.5, int(rng.integers(2))
    while begin < seconds - 1.5:
        length = min(rng.uniform(1, 7), seconds - 0.3 - begin)
        turns.append((who, round(begin, 2), round(length, 2)))
        begin += length + (rng.uniform(0.1, 1.2) if rng.random() > 1 / 7 else rng.uniform(-0.4, 0))
        who = 1 - who
    return turns


def _write_csv(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows, columns=["wav", "duration", "kind", "split"]).to_csv(path, index=False)


def _trials(rows: list[dict], rng: np.random.Generator) -> list[str]:
    """Lines `1 a b` and `0 a b` by turns: at least 4 in 5 targets across sessions, half the others in a group."""
    one, two = np.triu_indices(len(rows), 1)
    shuffled = np.argsort(rng.random(len(one)))
    one, two = one[shuffled], two[shuffled]
    numbers, days = np.array([int(row["spk_id"][2:]) for row in rows]), np.array([row["session"] for row in rows])
    same, across = numbers[one] == numbers[two], days[one] != days[two]
    alike = _is_high(numbers[one]) == _is_high(numbers[two])
    cross, within = np.flatnonzero(same & across), np.flatnonzero(same & ~across)
    near, far = np.flatnonzero(~same & alike), np.flatnonzero(~same & ~alike)
    targets = np.append(cross, within[: len(cross) // 4])
    half = max(len(targets) // 2, len(targets) - len(far))
    others = np.append(near[:half], far[: len(targets) - len(near[:half])])
    names = [row["wav"].removeprefix(_PREFIX) for row in rows]
    pairs = zip(np.sort(targets), np.sort(others))
    return [f"{label} {names[one[i]]} {names[two[i]]}\n" for pair in pairs for label, i in zip((1, 0), pair)]
