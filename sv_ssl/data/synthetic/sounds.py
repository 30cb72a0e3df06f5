"""Make the built-in sound classes: eight kinds of synthetic sounds, a labelled corpus that needs no download.

    sounds.json                what it was made from
    clips.csv                  a manifest with `label`, `label_id` and `fold`, as data_prep writes them
    wav/<label>/<number>.wav   a second each

A kind is a way to make a sound; pitch, length, place in the clip, level, and the colour and level of the noise behind
are drawn for each clip. Every clip has a random stream named by what it is, so it depends on no other.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.core.host import cache_folder
from sv_ssl.core.seeds import stream
from sv_ssl.data import manifest

FORMAT = 2  # raise it whenever a sample changes: caches are named by it
RATE = 16000
SHARES = {"train": 4, "valid": 1, "test": 1}  # of six clips
Maker = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _pitch(rng: np.random.Generator, low: float = 150.0, high: float = 2500.0) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _turns(hertz: np.ndarray | float, time: np.ndarray) -> np.ndarray:
    """Return the sine of the phase, (T,) Hz at each sample -> (T,)."""
    return np.sin(2 * np.pi * np.cumsum(np.broadcast_to(hertz, time.shape)) / RATE)


def _tone(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _turns(_pitch(rng), time)


def _chirp(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Glide from one pitch to another, an octave away at least."""
    start, octaves = _pitch(rng, 300, 1500), rng.choice([-1, 1]) * rng.uniform(1, 2)
    return _turns(start * 2 ** (octaves * time / time[-1]), time)


def _warble(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move the pitch up and down a few times a second."""
    swing = rng.uniform(0.05, 0.3) * np.sin(2 * np.pi * rng.uniform(4, 12) * time)
    return _turns(_pitch(rng, 300) * (1 + swing), time)


def _tremolo(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move the loudness up and down a few times a second."""
    return _turns(_pitch(rng), time) * (1 - rng.uniform(0.6, 1) * np.sin(np.pi * rng.uniform(4, 12) * time) ** 2)


def _stack(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add up many harmonics of a low pitch."""
    low, fall = _pitch(rng, 80, 400), rng.uniform(0.3, 1.2)
    numbers = range(1, int(0.45 * RATE / low))
    return np.sum([_turns(k * low, time) / k**fall for k in numbers], axis=0)


def _bell(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add up a few unrelated pitches that die away."""
    parts = [_turns(_pitch(rng, 300, 5000), time) * np.exp(-time * rng.uniform(4, 15)) for _ in range(5)]
    return np.sum(parts, axis=0)


def _hiss(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make noise of one band."""
    middle, width = _pitch(rng, 400, 5000), rng.uniform(0.3, 1.0)
    spectrum = np.fft.rfft(rng.standard_normal(len(time)))
    place = np.log2(np.maximum(np.fft.rfftfreq(len(time), 1 / RATE), 1) / middle)
    return np.fft.irfft(spectrum * np.exp(-0.5 * (place / width) ** 2), len(time))


def _clicks(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Knock at uneven times, with one resonance."""
    train = np.zeros(len(time))
    train[np.cumsum(rng.uniform(0.03, 0.15, 20) * RATE).astype(int) % len(time)] = rng.uniform(0.4, 1, 20)
    ring = np.arange(400) / RATE
    return np.convolve(train, np.sin(2 * np.pi * _pitch(rng, 500, 4000) * ring) * np.exp(-ring * 300))[: len(time)]


MAKERS: dict[str, Maker] = {
    "bell": _bell,
    "chirp": _chirp,
    "clicks": _clicks,
    "hiss": _hiss,
    "stack": _stack,
    "tone": _tone,
    "tremolo": _tremolo,
    "warble": _warble,
}


def make(label: str, rng: np.random.Generator, seconds: float = 1.0) -> np.ndarray:
    """Make a sound of the kind, somewhere in the clip, before a noise 0 to 15 dB below, (T,) float32.

    >>> make("bell", np.random.default_rng(0)).shape
    (16000,)
    """
    n_samples = round(seconds * RATE)
    length = int(rng.uniform(0.5, 1) * n_samples)
    sound = MAKERS[label](np.arange(length) / RATE, rng) * np.minimum(1, np.linspace(0, 20, length))
    sound *= np.minimum(1, np.linspace(10, 0, length))
    start = rng.integers(0, n_samples - length + 1)
    clip = _background(n_samples, rng) * np.sqrt(np.mean(sound**2)) * 10 ** (-rng.uniform(0, 15) / 20)
    clip[start : start + length] += sound
    return (clip / np.abs(clip).max() * rng.uniform(0.1, 0.9)).astype(np.float32)


def _background(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Make noise between white and brown, of RMS 1, (T,)."""
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    noise = np.fft.irfft(spectrum * np.maximum(np.arange(len(spectrum)), 30) ** -rng.uniform(0, 1), n_samples)
    return noise / np.sqrt(np.mean(noise**2))


def corpus(folder: str | os.PathLike | None = None, seed: int = 0, per_class: int = 60, seconds: float = 1.0) -> Path:
    """Return the folder of the corpus of this seed and size; it is made if it is not there yet.

    Without a folder it is kept in the user's cache.

    >>> import tempfile
    >>> folder = corpus(Path(tempfile.mkdtemp()) / "sounds", per_class=6, seconds=0.1)
    >>> len(manifest.read(folder / "clips.csv"))
    48
    """
    wanted = {"format": FORMAT, "seed": seed, "per_class": per_class, "seconds": seconds}
    if per_class < 6 or seconds < 0.1:
        raise InputError(
            f"{per_class} clips of a kind, of {seconds:g} s: want 6 at least (4 to train, 1 to choose by, "
            "1 to test), of 0.1 s"
        )
    name = "-".join(f"{value:g}" for value in wanted.values())
    path = Path(folder).absolute() if folder else cache_folder() / f"sounds-{name}"
    if not _complete(path, wanted):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".aside-", dir=path.parent))
        try:
            _fill(new, wanted)
            new.chmod(0o755)
            new.rename(path)
        except OSError as error:  # unless another process was quicker
            if not _complete(path, wanted):
                raise InputError(f"cannot make the sounds in {path}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return path


def _complete(path: Path, wanted: dict) -> bool:
    """Tell whether the corpus is there: a folder gets its name when all is in it."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    about = path / "sounds.json"
    there = json.loads(about.read_text()) if about.is_file() else None
    if there != wanted:
        raise InputError(f"{path} holds {there or 'no sounds'}, not {wanted}: delete it or pass another folder")
    return True


def _fill(folder: Path, wanted: dict) -> None:
    rows = []
    folds = [fold for fold, number in SHARES.items() for _ in range(number)]
    for label_id, label in enumerate(sorted(MAKERS)):
        (folder / "wav" / label).mkdir(parents=True)
        for i in range(wanted["per_class"]):
            name = f"{label}/{i:03d}"
            wave = make(label, stream(wanted["seed"], f"sound {label}", i), wanted["seconds"])
            audio.write(folder / "wav" / f"{name}.wav", wave, RATE)
            rows.append(
                {
                    "ID": name,
                    "duration": len(wave) / RATE,
                    "wav": f"$data_root/wav/{name}.wav",
                    "start": 0,
                    "stop": len(wave),
                    "label": label,
                    "label_id": label_id,
                    "fold": folds[i % len(folds)],
                }
            )
    manifest.write(pd.DataFrame(rows), folder / "clips.csv")
    (folder / "sounds.json").write_text(json.dumps(wanted) + "\n")
