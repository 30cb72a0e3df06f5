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

import csv
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Iterator, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from sv_ssl import audio, manifest
from sv_ssl.files import InputError
from sv_ssl.scene import draw_scene, music, noise, record, room
from sv_ssl.voice import RATE, draw_speaker, speak

FORMAT = 1  # raise it whenever a sample changes: caches are named by it
_FIRST = {"train": 10001, "valid": 20001, "test": 30001, "talkers": 40001, "meetings": 50001}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_KINDS = ("noise", "music", "speech")


class Sizes(NamedTuple):
    """How much to make. The lengths of utterances vary by a quarter to either side of `seconds`."""

    n_train: int = 400  # speakers
    n_valid: int = 20
    n_test: int = 40
    sessions: int = 2  # a speaker, in training and validation
    utterances: int = 2  # a session
    test_sessions: int = 4
    test_utterances: int = 3
    seconds: float = 4.0
    n_noises: int = 60  # files
    n_rooms: int = 60
    n_meetings: int = 4
    meeting_seconds: float = 60.0


def corpus(
    folder: str | os.PathLike | None = None, seed: int = 0, workers: int | None = None, progress: bool = True, **sizes: Any
) -> Path:
    """Folder of the corpus of this seed and these `Sizes`, which is made if it is not there yet.

    Without a folder it is kept in the user's cache. It is the same on any machine and for any number of workers.

    >>> import tempfile
    >>> tiny = dict(n_train=2, n_valid=2, n_test=2, seconds=0.5, n_noises=3, n_rooms=2, n_meetings=0)
    >>> folder = corpus(tempfile.mkdtemp(), workers=1, progress=False, **tiny)
    >>> len(manifest.read(folder / "train.csv"))
    8
    """
    wanted = {"format": FORMAT, "seed": seed, **Sizes(**sizes)._asdict()}
    digest = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:8]
    path = _cache() / f"synthetic-{seed}-{digest}" if folder is None else Path(folder).absolute()
    if not _complete(path, wanted):
        try:
            with _alone(path):
                if not _complete(path, wanted):
                    _make(path, wanted, Sizes(**sizes), workers or _cores(), progress)
        except OSError as error:
            raise InputError(f"cannot make the corpus in {path}: {error.strerror or error}") from error
    return path


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sv_ssl"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    tasks = [(folder, seed, sizes, *task) for task in _tasks(sizes)]
    bar = tqdm(total=len(tasks), desc="making the corpus", unit="session", disable=None if progress else True)
    with bar, _mapped(workers) as mapped:
        for name, rows in mapped(_do, tasks):
            tables.setdefault(name, []).extend(rows)
            bar.update()
    for split in ("train", "valid", "test"):
        manifest.write(pd.DataFrame(tables[split]), folder / f"{split}.csv")
    for split, name in (("valid", "valid.txt"), ("test", "trials.txt")):
        (folder / name).write_text("".join(_trials(tables[split], _rng(seed, _FIRST[split]))))
    for name in ("noise", "rir"):
        _write_csv(folder / name / f"{name}.csv", tables.get(name, []))


def _tasks(sizes: Sizes) -> list[tuple]:
    """Session by session, then the files for augmentation and the meetings: function and what is to be made."""
    counts = {"train": sizes.n_train, "valid": sizes.n_valid, "test": sizes.n_test}
    sessions = {"train": sizes.sessions, "valid": sizes.sessions, "test": sizes.test_sessions}
    speakers = [(split, number) for split in counts for number in range(counts[split])]
    tasks: list[tuple] = [(_session, split, i, day) for split, i in speakers for day in range(sessions[split])]
    tasks += [(_noise, _KINDS[i % 3], i, sizes.n_noises) for i in range(sizes.n_noises)]
    tasks += [(_room, i, sizes.n_rooms) for i in range(sizes.n_rooms)]
    return tasks + [(_meeting, i) for i in range(sizes.n_meetings)]


def _do(task: tuple) -> tuple[str, list[dict]]:
    folder, seed, sizes, function, *what = task
    return function(folder, seed, sizes, *what)


@contextmanager
def _mapped(workers: int) -> Iterator[Any]:
    """`map`, in order, over processes."""
    if workers == 1:
        yield map
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with multiprocessing.get_context(method).Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield pool.imap


def _rng(seed: int, speaker: int, session: int = 0, utterance: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, speaker, session, utterance])


def _session(folder, seed, sizes, split, index, day) -> tuple[str, list[dict]]:
    """The rows of the utterances of one day of one speaker, written as files."""
    number = _FIRST[split] + index
    speaker = draw_speaker(_rng(seed, number), high=number % 2 == 0)
    rng = _rng(seed, number, day + 1)
    name = "".join(_LETTERS[i] for i in rng.integers(len(_LETTERS), size=11))
    scene = draw_scene(rng)
    rows = []
    for utterance in range(1, 1 + (sizes.test_utterances if split == "test" else sizes.utterances)):
        rng = _rng(seed, number, day + 1, utterance)
        seconds = round(sizes.seconds * (0.75 + 0.5 * rng.random()), 2)
        wave = record(speak(speaker, rng, seconds, scene.mood + 0.5 * rng.standard_normal()), scene, rng)
        key = f"id{number}/{name}/{utterance:05d}"
        audio.write(folder / "wav" / f"{key}.wav", wave.astype(np.float32), RATE)
        rows.append(_row(key, len(wave), f"id{number}", name))
    return split, rows


def _row(key: str, n_samples: int, speaker: str, session: str) -> dict:
    where = f"$data_root/wav/{key}.wav"
    return dict(
        ID=key.replace("/", "-"), duration=n_samples / RATE, wav=where, start=0, stop=n_samples, spk_id=speaker, session=session
    )


def _noise(folder, seed, sizes, kind, index, count) -> tuple[str, list[dict]]:
    """One file for augmentation; the last quarter of each kind is for tests."""
    number = _FIRST["talkers"] + index
    rng = _rng(seed, number, 1)
    seconds = round(rng.uniform(8, 10), 2)
    make = {"noise": noise, "music": music, "speech": partial(speak, draw_speaker(_rng(seed, number), high=index % 2 == 0))}
    wave = make[kind](rng=rng, seconds=seconds)
    return "noise", [_write_sound(folder / "noise", f"{kind}/{index:03d}.wav", wave, kind, index, count)]


def _room(folder, seed, sizes, index, count) -> tuple[str, list[dict]]:
    wave = room(_rng(seed, _FIRST["talkers"] + index, 2))
    return "rir", [_write_sound(folder / "rir", f"{index:03d}.wav", wave, "simulated", index, count)]


def _write_sound(folder: Path, name: str, wave: np.ndarray, kind: str, index: int, count: int) -> dict:
    audio.write(folder / name, 0.9 * wave / abs(wave).max(), RATE)
    split = "test" if index >= 0.75 * count else "train"
    return dict(wav=name, duration=len(wave) / RATE, kind=kind, split=split)


def _meeting(folder, seed, sizes, index) -> tuple[str, list[dict]]:
    """Two people in one room take turns; sometimes one begins before the other has ended."""
    numbers = [_FIRST["meetings"] + 2 * index + i for i in range(2)]
    speakers = [draw_speaker(_rng(seed, number), high=bool((index + i) % 2)) for i, number in enumerate(numbers)]
    rng = _rng(seed, numbers[0], 1)
    wave, turns, now = np.zeros(round(sizes.meeting_seconds * RATE)), [], 0.5
    while now < sizes.meeting_seconds - 2.0:
        who = int(rng.integers(2)) if not turns else 1 - turns[-1][0]
        seconds = round(min(rng.uniform(1.0, 7.0), sizes.meeting_seconds - 0.2 - now), 2)
        begin = round(now * RATE)
        said = speak(speakers[who], rng, seconds)
        wave[begin : begin + len(said)] += said / np.sqrt((said**2).mean())
        turns.append((who, now, seconds))
        now = round(max(now + seconds + (rng.uniform(0.1, 1.2) if rng.random() < 0.85 else rng.uniform(-0.6, 0)), now + .3), 2)
    name = f"meeting{index + 1}"
    audio.write(folder / "meetings" / f"{name}.wav", record(wave, draw_scene(rng), rng), RATE)
    lines = [f"SPEAKER {name} 1 {b:.3f} {s:.3f} <NA> <NA> id{numbers[w]} <NA> <NA>\n" for w, b, s in turns]
    (folder / "meetings" / f"{name}.rttm").write_text("".join(lines))
    return "meetings", []


def _write_csv(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["wav", "duration", "kind", "split"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _trials(rows: list[dict], rng: np.random.Generator) -> list[str]:
    """Lines `1 a b` and `0 a b` by turns: targets mostly across sessions, non-targets half within a group of voices."""
    speaker, session = (np.unique([row[key] for row in rows], return_inverse=True)[1] for key in ("spk_id", "session"))
    group = np.array([int(row["spk_id"][2:]) % 2 for row in rows])
    one, two = np.triu_indices(len(rows), 1)
    pairs = np.argsort(rng.random(len(one)))
    one, two = one[pairs], two[pairs]
    same, across, alike = speaker[one] == speaker[two], session[one] != session[two], group[one] == group[two]
    cross, within = np.flatnonzero(same & across), np.flatnonzero(same & ~across)
    targets = np.concatenate([cross, within[: len(cross) // 4 or None]])
    near, far = np.flatnonzero(~same & alike), np.flatnonzero(~same & ~alike)
    n = min(len(targets), len(near) + len(far))
    near = near[: max(n // 2, n - len(far))]
    others = np.concatenate([near, far[: n - len(near)]])
    names = [row["wav"].removeprefix("$data_root/wav/") for row in rows]
    return [f"{label} {names[one[i]]} {names[two[i]]}\n" for pair in zip(np.sort(targets), np.sort(others)) for label, i in zip((1, 0), pair)]
