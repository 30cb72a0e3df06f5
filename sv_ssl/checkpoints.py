"""Checkpoints that appear and vanish whole, and what a run has to remember beside its weights."""

from __future__ import annotations

import os
import shutil

import torch
from speechbrain.utils.checkpoints import Checkpointer, mark_as_loader, mark_as_saver, register_checkpoint_hooks

from sv_ssl.data import Note
from sv_ssl.distributed import barrier, gather_objects, is_main
from sv_ssl.files import InputError

NOTES_KEPT = 1000    # of a kind, in words; the rest is counted


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's checkpointer: a checkpoint is written aside and renamed, so a kill leaves it whole or not at all.

    What a kill leaves of one that is being deleted is no trouble: it is older than the last, and never the best.
    """

    def save_checkpoint(self, *args, **kwargs):
        home = self.checkpoints_dir
        self.checkpoints_dir = home / ".partial"
        try:
            if is_main():
                shutil.rmtree(self.checkpoints_dir, ignore_errors=True)
                self.checkpoints_dir.mkdir(parents=True)
            checkpoint = super().save_checkpoint(*args, **kwargs)
        except (OSError, RuntimeError) as error:     # torch.save says RuntimeError when the disk is full
            shutil.rmtree(self.checkpoints_dir, ignore_errors=True)
            raise InputError(f"cannot write a checkpoint to {home}: {str(error).splitlines()[0]}; "
                             "the one before it stands: free space, and give the same command again") from error
        finally:
            self.checkpoints_dir = home
        if checkpoint is not None:
            path = self._new_checkpoint_dirpath()
            os.rename(checkpoint.path, path)
            checkpoint.path.parent.rmdir()
            files = {name: path / file.name for name, file in checkpoint.paramfiles.items()}
            checkpoint = checkpoint._replace(path=path, paramfiles=files)
        barrier()     # other processes list the folder next, and must see the same
        return checkpoint

    def save_and_keep_only(self, *args, **kwargs):
        # SpeechBrain's default for the keys is a list that it appends to at every call.
        return super().save_and_keep_only(*args, importance_keys=[], **kwargs)


@register_checkpoint_hooks
class Journal:
    """What a run remembers beside its weights: the epochs' records, what was watched, the files' notes, the time."""

    def __init__(self) -> None:
        self.epochs: list[dict] = []
        self.watched: list[list[float]] = []           # measures of this epoch so far
        self.notes: dict[str, dict[str, str]] = {}     # outcome -> file -> reason
        self.more: dict[str, int] = {}                 # outcome -> notes beyond those kept
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
        for notes in gather_objects(self.notes):
            self.note([Note(wav, outcome, why) for outcome, files in notes.items() for wav, why in files.items()])

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
