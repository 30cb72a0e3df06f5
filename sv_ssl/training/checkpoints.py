"""Checkpoints that appear and vanish whole, and the weights that they hold."""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from speechbrain.utils.checkpoints import Checkpoint, Checkpointer, ckpt_recency
from torch import Tensor

from sv_ssl.core.distributed import barrier, is_loss, is_main
from sv_ssl.core.errors import InputError
from sv_ssl.core.json_file import read_object
from sv_ssl.models.weights import load_torch, tensors_only
from sv_ssl.training.journal import Journal

SUMS = "sums.json"  # a checkpoint's files and their checksums


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's checkpointer: a checkpoint is written aside and renamed, so a kill leaves it whole or not at all.

    What a kill leaves of one that is being deleted is no trouble: it is older than the last, and never the best. What a
    failing disk leaves is found by its checksums when a run starts, and the one before takes its place.
    """

    def save_checkpoint(self, meta=None, **kwargs):
        home = self.checkpoints_dir
        meta = {"unixtime": self._next_time(), **(meta or {})}
        for thing in self.recoverables.values():
            if isinstance(thing, Journal):
                thing.gather()  # a checkpoint is of all processes, however many go on from it
        self.checkpoints_dir = home / ".partial"
        try:
            if is_main():
                shutil.rmtree(self.checkpoints_dir, ignore_errors=True)
                self.checkpoints_dir.mkdir(parents=True)
            checkpoint = super().save_checkpoint(meta=meta, **kwargs)
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

    def _next_time(self) -> float:
        """Return the time, by which SpeechBrain orders checkpoints, and more than that of any that is there.

        So the order is that in which they were saved, also where the clock was put back meanwhile.
        """
        return max([time.time(), *(checkpoint.meta["unixtime"] + 1 for checkpoint in self.list_checkpoints())])

    def save_and_keep_only(
        self, num_to_keep=1, min_keys=(), importance_keys=(ckpt_recency,), ckpt_predicate=None, **kwargs
    ):
        """Delete, then save: beside the new checkpoint the one before it stands, in case the new one gets damaged."""
        self.delete_checkpoints(
            num_to_keep=num_to_keep, min_keys=min_keys, importance_keys=importance_keys, ckpt_predicate=ckpt_predicate
        )
        self.save_checkpoint(**kwargs)

    def load_checkpoint(self, checkpoint):
        """Load tensors and plain values; what would run code is refused."""
        try:
            with tensors_only():
                super().load_checkpoint(checkpoint)
        except UnpicklingError as error:
            raise InputError(
                f"{checkpoint.path} holds more than tensors and is not loaded: delete it, and the one before is taken"
            ) from error

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
    if not (folder / SUMS).exists():
        return None
    try:
        sums = read_object(folder / SUMS)
        bad = [name for name, crc in sums.items() if zlib.crc32((folder / name).read_bytes()) != crc]
    except FileNotFoundError as error:
        return f"{error.filename} is missing"
    except (OSError, ValueError) as error:
        return str(error)
    return f"{bad[0]} is not what was written" if bad else None


# ------------------------------------------------------------------------------------------------- what they hold
def best(checkpointer: Checkpointer) -> Checkpoint:
    """Return the checkpoint with the lowest validation EER; where nothing was validated, the last."""
    checkpoint = checkpointer.find_checkpoint(min_key="eer") or checkpointer.find_checkpoint()
    if checkpoint is None:
        raise InputError(f"nothing was trained and {checkpointer.checkpoints_dir} holds no checkpoint")
    return checkpoint


def of_epochs(checkpointer: Checkpointer) -> list[Checkpoint]:
    """Return the checkpoints at the ends of epochs, in their order."""
    ended = [checkpoint for checkpoint in checkpointer.list_checkpoints() if "epoch" in checkpoint.meta]
    if not ended:
        raise InputError(f"nothing was trained and {checkpointer.checkpoints_dir} holds no checkpoint")
    return sorted(ended, key=lambda checkpoint: checkpoint.meta["epoch"])


def weights(checkpoint: Checkpoint, device: str) -> dict[str, Any]:
    """Return the state dict of a checkpoint's method."""
    return load_torch(checkpoint.paramfiles["method"], device)


def mean(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of what is a fraction in state dicts; counters are the last one's.

    >>> mean([{"w": torch.zeros(2), "n": torch.tensor(1)}, {"w": torch.ones(2), "n": torch.tensor(2)}])
    {'w': tensor([0.5000, 0.5000]), 'n': tensor(2)}
    """

    def of(name: str, last: Any) -> Any:
        if not (isinstance(last, Tensor) and last.is_floating_point()):
            return last
        return torch.stack([state[name].double() for state in states]).mean(dim=0).to(last.dtype)

    return {name: of(name, last) for name, last in states[-1].items()}
