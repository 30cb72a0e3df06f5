"""Make what the built-in corpus holds: sessions of speakers, noises, rooms, meetings and trials.

Every sound has a random stream named by what it is, so it depends neither on the other sounds nor on who computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sv_ssl import audio
from sv_ssl.core.seeds import stream
from sv_ssl.data.synthetic.scene import draw_scene, music, noise, record, room
from sv_ssl.data.synthetic.voice import RATE, Speaker, draw_speaker, speak

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


def list_tasks(sizes: Sizes) -> Iterator[tuple]:
    """Yield a function and what it is to make: sessions, files for augmentation, meetings."""
    evaluation = {"valid": (sizes.n_valid, sizes.test_sessions), "test": (sizes.n_test, sizes.test_sessions)}
    for split, (speakers, days) in {"train": (sizes.n_train, sizes.sessions), **evaluation}.items():
        yield from ((_session, split, _FIRST[split] + i, day) for i in range(speakers) for day in range(1, days + 1))
    for function, count in ((_noise, sizes.n_noises), (_room, sizes.n_rooms), (_meeting, sizes.n_meetings)):
        yield from ((function, i) for i in range(count))


def _speaker(seed: int, number: int) -> Speaker:
    return draw_speaker(stream(seed, "speaker", number), high=_is_high(number))


def _session(folder: Path, seed: int, sizes: Sizes, split: str, number: int, day: int) -> Made:
    """Write what one speaker says on one day, and return the rows of the files."""
    speaker = _speaker(seed, number)
    rng = stream(seed, "session", number, day)
    name = "".join(_LETTERS[i] for i in rng.integers(len(_LETTERS), size=11))
    scene = draw_scene(rng)
    rows = []
    for utterance in range(1, 1 + (sizes.utterances if split == "train" else sizes.test_utterances)):
        rng = stream(seed, "utterance", number, day, utterance)
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
    """Tell the group of a voice; half of the voices are in either."""
    return number % 2 == 0


def _noise(folder: Path, seed: int, sizes: Sizes, index: int) -> Made:
    kind = ("noise", "music", "speech")[index % 3]
    rng = stream(seed, "noise", index)
    talk = partial(speak, _speaker(seed, _FIRST["talkers"] + index))
    makers: dict[str, Callable[..., np.ndarray]] = {"noise": noise, "music": music, "speech": talk}
    wave = makers[kind](rng=rng, seconds=round(rng.uniform(8, 10), 2))
    return "noise", [_sound(folder / "noise", f"{kind}/{index:03d}.wav", wave, kind, index / sizes.n_noises)]


def _room(folder: Path, seed: int, sizes: Sizes, index: int) -> Made:
    wave = room(stream(seed, "room", index))
    return "rir", [_sound(folder / "rir", f"{index:03d}.wav", wave, "simulated", index / sizes.n_rooms)]


def _sound(folder: Path, name: str, wave: np.ndarray, kind: str, part: float) -> dict:
    """Write a file for augmentation and return its row; the last quarter is for tests."""
    audio.write(folder / name, 0.9 * wave / abs(wave).max(), RATE)
    return {"wav": name, "duration": len(wave) / RATE, "kind": kind, "split": "train" if part < 0.75 else "test"}


def _meeting(folder: Path, seed: int, sizes: Sizes, index: int) -> Made:
    """Write a recording of two people in one room, and who spoke when; a pause within a turn belongs to the turn."""
    name, numbers = f"meeting{index + 1}", [_FIRST["meetings"] + 2 * index + i for i in range(2)]
    groups = (False, bool(index % 2))  # every other pair is of one group
    speakers = [draw_speaker(stream(seed, "speaker", number), high) for number, high in zip(numbers, groups)]
    rng = stream(seed, "meeting", index)
    wave, lines = np.zeros(round(sizes.meeting_seconds * RATE)), []
    for who, begin, seconds in _turns(rng, sizes.meeting_seconds):
        said = speak(speakers[who], rng, seconds)
        wave[round(begin * RATE) :][: len(said)] += said / np.sqrt((said**2).mean())
        lines.append(f"SPEAKER {name} 1 {begin:.3f} {seconds:.3f} <NA> <NA> id{numbers[who]} <NA> <NA>\n")
    audio.write(folder / "meetings" / f"{name}.wav", record(wave, draw_scene(rng), rng), RATE)
    (folder / "meetings" / f"{name}.rttm").write_text("".join(lines))
    return "meetings", []


def _turns(rng: np.random.Generator, seconds: float) -> list[tuple[int, float, float]]:
    """Draw who speaks, from when, how long: by turns, and one time in seven before the other has ended."""
    turns, begin, who = [], 0.5, int(rng.integers(2))
    while begin < seconds - 1.5:
        length = min(rng.uniform(1, 7), seconds - 0.3 - begin)
        turns.append((who, round(begin, 2), round(length, 2)))
        begin += length + (rng.uniform(0.1, 1.2) if rng.random() > 1 / 7 else rng.uniform(-0.4, 0))
        who = 1 - who
    return turns


def draw_trials(rows: list[dict], seed: int, split: str) -> list[str]:
    """Draw lines `1 a b` and `0 a b` by turns: 4 in 5 targets or more across sessions, half the others in a group."""
    first, second = np.triu_indices(len(rows), 1)
    shuffled = np.argsort(stream(seed, f"{split} trials").random(len(first)))
    first, second = first[shuffled], second[shuffled]
    numbers, days = np.array([int(row["spk_id"][2:]) for row in rows]), np.array([row["session"] for row in rows])
    same, across = numbers[first] == numbers[second], days[first] != days[second]
    alike = _is_high(numbers[first]) == _is_high(numbers[second])
    cross, within = np.flatnonzero(same & across), np.flatnonzero(same & ~across)
    near, far = np.flatnonzero(~same & alike), np.flatnonzero(~same & ~alike)
    targets = np.append(cross, within[: len(cross) // 4])
    half = max(len(targets) // 2, len(targets) - len(far))
    others = np.append(near[:half], far[: len(targets) - len(near[:half])])
    names = [row["wav"].removeprefix(_PREFIX) for row in rows]
    pairs = zip(np.sort(targets), np.sort(others))
    return [f"{label} {names[first[i]]} {names[second[i]]}\n" for pair in pairs for label, i in zip((1, 0), pair)]
