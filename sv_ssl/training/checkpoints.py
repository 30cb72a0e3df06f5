"""Checkpoints that appear and vanish whole, and what a run has to remember beside its weights."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

import torch
from speechbrain.utils.checkpoints import (
    Checkpointer,
    ckpt_recency,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)

from sv_ssl.core.distributed import barrier, gather_objects, is_loss, is_main
from sv_ssl.core.errors import InputError
from sv_ssl.data.views import Note

NOTES_KEPT = 1000  # of a kind, in words; the rest is counted
SUMS = "sums.json"  # a checkpoint's files and their checksums


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's checkpointer: a checkpoint is written aside and renamed, so a kill leaves it whole or not at all.

    What a kill leaves of one that is being deleted is no trouble: it is older than the last, and never the best. What a
    failing disk leaves is found by its checksums when a run starts, and the one before takes its place.
    """

    def save_checkpoint(self, *args, **kwargs):
        home = self.checkpoints_dir
        for thing in self.recoverables.values():
            if isinstance(thing, Journal):
                thing.gather()  # a checkpoint is of all processes, however many go on from it
        self.checkpoints_dir = home / ".partial"
        try:
            if is_main():
                shutil.rmtree(self.checkpoints_dir, ignore_errors=True)
                self.checkpoints_dir.mkdir(parents=True)
            checkpoint = super().save_checkpoint(*args, **kwargs)
            if checkpoint is not None:
                seal(checkpoint.path)
        except (OSError, RuntimeError) as error:  # torch.save says RuntimeError when the disk is full
            if is_loss(error):
                raise
            shutil.rmtree(self.checkpoints_dir, ignore_errors=True)
            raise InputError(
                f"cannot write a checkpoint to {home}: {str(error).splitlines()[0]}; "
                "the one before it stands: free space, and give the same command again"
            ) from error
        finally:
            self.checkpoints_dir = home
        if checkpoint is not None:
            path = checkpoint.path.rename(self._new_checkpoint_dirpath())
            files = {name: path / file.name for name, file in checkpoint.paramfiles.items()}
            checkpoint = checkpoint._replace(path=path, paramfiles=files)
        barrier()  # other processes list the folder next, and must see the same
        return checkpoint

    def save_and_keep_only(
        self, num_to_keep=1, min_keys=(), importance_keys=(ckpt_recency,), ckpt_predicate=None, **kwargs
    ):
        """Delete, then save: beside the new checkpoint the one before it stands, in case the new one gets damaged."""
        self.delete_checkpoints(
            num_to_keep=num_to_keep, min_keys=min_keys, importance_keys=importance_keys, ckpt_predicate=ckpt_predicate
        )
        self.save_checkpoint(**kwargs)

    def recover_if_possible(self, *args, **kwargs):
        """Load the last checkpoint that is whole; damaged ones are told of and put out of the way."""
        if is_main():
            for folder in sorted(self.checkpoints_dir.glob("CKPT*")):
                if fault := damage(folder):
                    aside = folder.rename(self.checkpoints_dir / f"damaged-{folder.name}")
                    print(f"{folder} is damaged ({fault}): it is now {aside.name}, and the one before takes its place")
        barrier()
        return super().recover_if_possible(*args, **kwargs)


def seal(folder: Path) -> None:
    """Write the checksums of a finished checkpoint, and wait until all of it has reached the disk."""
    sums = {file.name: zlib.crc32(file.read_bytes()) for file in folder.iterdir()}
    (folder / SUMS).write_text(json.dumps(sums))
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, if anything is; one without checksums is taken as it is."""
    try:
        sums = json.loads((folder / SUMS).read_text())
        bad = [name for name, crc in sums.items() if zlib.crc32((folder / name).read_bytes()) != crc]
    except FileNotFoundError as error:
        return None if str(error.filename).endswith(SUMS) else f"{error.filename} is missing"
    except (OSError, ValueError) as error:
        return str(error)
    return f"{bad[0]} is not what was written" if bad else None


@register_checkpoint_hooks
class Journal:
    """What a run remembers beside its weights: the epochs' records, what was watched, the files' notes, the time."""

    def __init__(self) -> None:
        self.epochs: list[dict] = []
        self.watched: list[list[float]] = []  # measures of this epoch so far
        self.notes: dict[str, dict[str, str]] = {}  # outcome -> file -> reason
        self.more: dict[str, int] = {}  # outcome -> notes beyond those kept
        self.told: dict[str, int] = {}  # the same when they were last shared
        self.seconds = 0.0

    def note(self, notes: list[Note]) -> None:
        """Keep the first note on each file, and count those that there is no room for."""
        for note in notes:
            kept = self.notes.setdefault(note.outcome, {})
            if note.wav not in kept and len(kept) >= NOTES_KEPT:
                self.more[note.outcome] = self.more.get(note.outcome, 0) + 1
            else:
                kept[note.wav] = note.reason

    def count(self, outcome: str) -> int:
        """How many files had this outcome."""
        return len(self.notes.get(outcome, {})) + self.more.get(outcome, 0)

    def gather(self) -> None:
        """Share the notes of all processes."""
        more = {outcome: count - self.told.get(outcome, 0) for outcome, count in self.more.items()}
        brought = gather_objects((self.notes, more))
        self.notes, self.more = {}, dict(self.told)
        for notes, more in brought:
            self.more |= {outcome: self.more.get(outcome, 0) + count for outcome, count in more.items()}
            self.note([Note(wav, outcome, why) for outcome, files in notes.items() for wav, why in files.items()])
        self.told = dict(self.more)

    @mark_as_saver
    def _save(self, path) -> None:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        torch.save({**vars(self), "rng": torch.get_rng_state(), "cuda": cuda}, path)

    @mark_as_loader
    def _load(self, path, end_of_epoch) -> None:
        state = torch.load(path, weights_only=True)
        cuda = state.pop("cuda")
        torch.set_rng_state(state.pop("rng"))
        if len(cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(cuda)
        vars(self).update(state)
