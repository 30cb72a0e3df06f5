"""What a run remembers beside its weights; it is part of every checkpoint."""

from __future__ import annotations

import numpy as np
import torch
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks

from sv_ssl.core.distributed import gather_objects
from sv_ssl.data.views import Note

NOTES_KEPT = 1000  # of a kind, in words; the rest is counted


@register_checkpoint_hooks
class Journal:
    """What a run remembers beside its weights: the epochs' records, what was watched, the files' notes, the time."""

    def __init__(self) -> None:
        self.epochs: list[dict] = []
        self.watched: list[dict[str, float]] = []  # measures of this epoch so far
        self.notes: dict[str, dict[str, str]] = {}  # outcome -> file -> reason
        self.more: dict[str, int] = {}  # outcome -> notes beyond those kept
        self.shared: dict[str, int] = {}  # the same when processes last shared them
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
        """Return how many files had this outcome."""
        return len(self.notes.get(outcome, {})) + self.more.get(outcome, 0)

    def gather(self) -> None:
        """Share the notes of all processes."""
        more = {outcome: count - self.shared.get(outcome, 0) for outcome, count in self.more.items()}
        brought = gather_objects((self.notes, more))
        self.notes, self.more = {}, dict(self.shared)
        for notes, more in brought:
            self.more |= {outcome: self.more.get(outcome, 0) + count for outcome, count in more.items()}
            self.note([Note(wav, outcome, why) for outcome, files in notes.items() for wav, why in files.items()])
        self.shared = dict(self.more)

    def means(self) -> dict[str, float]:
        """Return the mean of each measure over the steps of this epoch that were watched."""
        names = dict.fromkeys(name for measures in self.watched for name in measures)
        return {name: float(np.mean([m[name] for m in self.watched if name in m])) for name in names}

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
