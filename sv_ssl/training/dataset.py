"""What an experiment trains on and is judged by: the training manifest and the trial lists, all checked to be there."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sv_ssl import audio
from sv_ssl.core.distributed import barrier, is_main
from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import stream
from sv_ssl.data import manifest, scan
from sv_ssl.data.subsets import some_of_each, subset
from sv_ssl.training import held_out
from sv_ssl.training.settings import SpeakerSettings
from sv_ssl.verification.trials import Trials, read_trials, speakers

USUAL = ("trials.txt", "veri_test2.txt", "veri_test.txt")  # test lists that are found without being named


class Listed(NamedTuple):
    """A trial list and the folder below which its recordings lie."""

    trials: Trials
    audio_root: Path

    @property
    def stem(self) -> str:
        return Path(self.trials.name).stem

    @property
    def labels(self) -> np.ndarray:
        assert self.trials.labels is not None  # `trial_list` saw to it
        return self.trials.labels


class Dataset(NamedTuple):
    """What a run takes."""

    train: pd.DataFrame
    valid: Listed | None
    tests: list[Listed]  # the first is the one that a run is known by


def read(settings: SpeakerSettings) -> Dataset:
    """Return the training manifest without the speakers of the trial lists, and the lists."""
    root = Path(str(settings.data_folder))
    audio_root = Path(settings.audio_root or (root / "wav" if (root / "wav").is_dir() else root))
    valid = trial_list(settings.valid_trials, [root / "valid.txt"], audio_root)
    tests = test_lists(settings.test_trials, root, audio_root)
    everything = training_manifest(settings, root)
    lists = [valid, *tests] if valid else tests
    train = everything[~judged(everything, [listed.trials for listed in lists], audio_root)].reset_index(drop=True)
    left_out = len(everything) - len(train)
    if valid is None:
        train, valid = hold_out(train, settings)  # the same utterances whatever the share of labels
    train = labelled_part(train, settings)
    if is_main():
        show(train, left_out, {"valid_trials": [valid] if valid else [], "test_trials": tests})
    return Dataset(train, valid, tests)


def show(train: pd.DataFrame, left_out: int, lists: dict[str, list[Listed]]) -> None:
    """Print what was found."""
    speakers_out = f" ({left_out:,} of validation or test speakers left out)" if left_out else ""
    print(f"training: {len(train):,} utterances, {train.duration.sum() / 3600:.1f} h{speakers_out}")
    for option, named in lists.items():
        trials = [f"{len(listed.trials.enroll):,} trials of {listed.trials.name}" for listed in named]
        print(f"{option}: {'; '.join(trials) or 'none'}")


def test_lists(named: str | list[str] | None, root: Path, audio_root: Path) -> list[Listed]:
    """Return the lists that are named, else one at a usual place; their scores need different names."""
    if isinstance(named, list):
        lists = [trial_list(name, [], audio_root) for name in named]
    else:
        lists = [trial_list(named, [root / name for name in USUAL], audio_root)]
    tests = [listed for listed in lists if listed]
    stems = [listed.stem for listed in tests]
    if twice := [stem for stem in stems if stems.count(stem) > 1]:
        raise InputError(f"two of the test lists are called {twice[0]}: their scores need different names")
    return tests


def training_manifest(settings: SpeakerSettings, root: Path) -> pd.DataFrame:
    """Return the manifest that is named, else train.csv of the data folder, else the folder itself, scanned once."""
    named = Path(settings.train_csv or root / "train.csv")
    if named.is_file() or settings.train_csv:
        return manifest.read(named)
    place = hashlib.sha1(os.path.realpath(root).encode()).hexdigest()[:8]  # a listing is of one folder
    scanned = Path(settings.output_folder) / f"train-{place}.csv"
    if is_main() and not scanned.exists():
        listing = scan.scan(root)
        for left_out in listing.attrs["skipped"]:
            print(f"left out: {left_out.reason}")
        manifest.write(listing, scanned)
    barrier()
    return manifest.read(scanned, data_root=root)


def trial_list(named: str | None, usual: list[Path], audio_root: Path) -> Listed | None:
    """Return the list that is named or lies at a usual place, with every recording checked to be there."""
    path = named or next((p for p in usual if p.is_file()), None)
    if path is None:
        return None
    trials = read_trials(path)
    if trials.labels is None:
        raise InputError(f"{path} has no labels: an error rate needs lines such as `1 enroll test`")
    faults = [fault for name in trials.ids if (fault := unusable(audio_root / name))]
    if faults:
        raise InputError(
            f"{path}: {len(faults):,} of its {len(trials.ids):,} recordings below {audio_root} "
            f"cannot be used (is --audio_root right?); the first: {faults[0]}"
        )
    return Listed(trials, audio_root)


def unusable(path: Path) -> str | None:
    """Return what is wrong with a recording, as far as its header tells."""
    try:
        audio.info(path)
    except audio.AudioError as error:
        return str(error)
    return None


def judged(train: pd.DataFrame, lists: list[Trials], audio_root: Path) -> np.ndarray:
    """Return an (N,) mask of utterances that a trial list names, and all others of their speakers where known."""
    folder = lru_cache(None)(os.path.realpath)
    heard = {os.path.realpath(audio_root / name) for trials in lists for name in trials.ids}
    real = train.wav.map(lambda wav: os.path.join(folder(os.path.dirname(wav)), os.path.basename(wav)))
    named = real.isin(heard).to_numpy()
    if "spk_id" not in train:
        return named
    tested = {name.rstrip("/_-") for trials in lists for name in speakers(trials) or []}
    return named | train.spk_id.isin(set(train.spk_id[named]) | tested).to_numpy()


def labelled_part(train: pd.DataFrame, settings: SpeakerSettings) -> pd.DataFrame:
    """Return the utterances that are learnt from: all, or those whose speaker is known."""
    everything = settings.label_share >= 1 and not settings.per_speaker_labels
    if everything or settings.method.needs.labels == "some":
        return train
    return train[known_speakers(train, settings) >= 0].reset_index(drop=True)


def known_speakers(train: pd.DataFrame, settings: SpeakerSettings) -> np.ndarray:
    """Return the (N,) int64 numbers of the speakers that the settings make known, -1 where there is none.

    It is those of a share of the speakers or of the utterances, or of so many utterances of each speaker. With the same
    seed more labels hold the fewer.
    """
    share, share_of, each = settings.label_share, settings.label_share_of, settings.per_speaker_labels
    chosen = f"--per_speaker_labels {each}" if each and share >= 1 else f"--label_share {share}"
    if "spk_id" not in train:
        raise InputError(
            f"{chosen} chooses speakers or their utterances, and the training manifest has no column spk_id: add it, "
            "or leave the option out"
        )
    if share < 1 and each and share_of == "utterances":
        raise InputError(
            f"{chosen} of the utterances and --per_speaker_labels {each} both choose utterances: leave one of them out"
        )
    names = train.spk_id.fillna("").astype(str).to_numpy()
    kept = named = names != ""
    if share_of == "speakers":
        order = stream(settings.seed, "label share").permutation(np.unique(names[named]))
        kept = np.isin(names, order[: max(2, round(share * len(order)))])
    elif share < 1:
        kept = _among(named, subset(names[named], share, settings.seed))
    if each:
        kept = kept & _among(named, some_of_each(names[named], each, settings.seed))
    speakers = np.unique(names[kept])
    if len(speakers) < 2:
        raise InputError(f"{chosen} leaves {kept.sum()} utterances of {len(speakers)} speakers: want two speakers")
    return np.where(kept, np.searchsorted(speakers, names), -1)


def _among(rows: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return as an (N,) mask which of the M chosen rows are kept: (N,), (M,)."""
    return np.isin(np.arange(len(rows)), np.flatnonzero(rows)[kept])


def hold_out(train: pd.DataFrame, settings: SpeakerSettings) -> tuple[pd.DataFrame, Listed | None]:
    """Hold utterances out and make a validation list of them, as far as there are enough."""
    if "shard" in train:
        return train, None  # their audio is in no file of its own
    held = held_out.choose(train, settings.valid_utterances, settings.seed)
    if not held.any():
        return train, None
    made_of = hashlib.sha1("\n".join([*train.ID[held], str(settings.seed)]).encode()).hexdigest()[:8]
    folder = Path(settings.output_folder) / f"valid-{made_of}"
    if is_main():
        held_out.write(train[held], folder, settings.transforms, settings.seed, settings.embedder.sample_rate)
        print(f"validation: halves of {held.sum()} training utterances, held out (no list was named)")
    barrier()
    return train[~held].reset_index(drop=True), Listed(read_trials(folder / "valid.txt"), folder)
