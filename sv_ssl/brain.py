"""The SpeechBrain Brain that trains any method: it knows nothing of losses, the method says everything."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Callable

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.checkpoints import Checkpointer, mark_as_loader, mark_as_saver, register_checkpoint_hooks
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from sv_ssl import augment, geometry
from sv_ssl.data import Note, TimedLoader
from sv_ssl.distributed import gather_objects, is_main
from sv_ssl.encoders import Embedder
from sv_ssl.files import InputError, aside

# Spread of unit embeddings, 1 when they fill the sphere evenly: below this they are all one point.
COLLAPSED = 0.01


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's checkpointer, whose checkpoints appear and vanish whole, whenever the process is killed."""

    def save_checkpoint(self, *args, **kwargs):
        home = self.checkpoints_dir
        self.checkpoints_dir = home / ".partial"
        try:
            if is_main():
                shutil.rmtree(self.checkpoints_dir, ignore_errors=True)
                self.checkpoints_dir.mkdir(parents=True)
            checkpoint = super().save_checkpoint(*args, **kwargs)
        except (OSError, RuntimeError) as error:     # torch.save says RuntimeError when the disk is full
            raise InputError(f"cannot write a checkpoint to {home}: {error}; the one before it stands, so free "
                             "space and give the same command again to resume") from error
        finally:
            self.checkpoints_dir = home
        if checkpoint is None:
            return None
        path = self._new_checkpoint_dirpath()
        os.rename(checkpoint.path, path)
        checkpoint.path.parent.rmdir()
        files = {name: path / file.name for name, file in checkpoint.paramfiles.items()}
        return checkpoint._replace(path=path, paramfiles=files)

    @staticmethod
    def _delete_checkpoint(checkpoint, *args, **kwargs):
        doomed = checkpoint.path.with_name(".deleted")
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(checkpoint.path, doomed)
        shutil.rmtree(doomed)


@register_checkpoint_hooks
class Journal:
    """What a run has to remember beside its weights: the epochs' records, the files' notes, the random state."""

    def __init__(self) -> None:
        self.epochs: list[dict] = []
        self.watched: list[list[float]] = []      # measures of this epoch so far
        self.notes: dict[int, Note] = {}

    @mark_as_saver
    def _save(self, path) -> None:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        torch.save({"epochs": self.epochs, "watched": self.watched, "notes": [tuple(n) for n in self.notes.values()],
                    "rng": torch.get_rng_state(), "cuda": cuda}, path)

    @mark_as_loader
    def _load(self, path, end_of_epoch) -> None:
        state = torch.load(path, weights_only=True)
        self.epochs, self.watched = state["epochs"], state["watched"]
        self.notes = {note[0]: Note(*note) for note in state["notes"]}
        torch.set_rng_state(state["rng"])
        if len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])


@register_checkpoint_hooks
class SSLBrain(sb.Brain):
    """Trains `method`; every so many epochs asks `validate(embedder)` for metrics and keeps the best and the last.

    Reads from hparams: epochs, lr (a schedule of the epoch), valid_every, watch_every, max_damaged_share,
    output_folder, tensorboard.
    """

    def __init__(self, method: torch.nn.Module, opt_class, hparams: dict, run_opts, train: TimedLoader,
                 validate: Callable[[Embedder], dict] | None, checkpointer: Checkpointer):
        # SpeechBrain defaults to NCCL, which a CPU does not have.
        if hparams.get("device", (run_opts or {}).get("device")) == "cpu" or not torch.cuda.is_available():
            hparams = {**hparams, "distributed_backend": "gloo"}
        self.method, self.train_loader, self.validate = method, train, validate
        self.journal = Journal()
        checkpointer.add_recoverables({"method": method, "journal": self.journal})
        super().__init__({"method": method}, opt_class, hparams, run_opts, checkpointer)
        self.epoch, self.seen = 1, 0
        self.board = None

    # ---------------------------------------------------------------------------------------------- one step
    def compute_forward(self, batch: dict, stage) -> dict[str, Tensor]:
        moved = {k: v.to(self.device, non_blocking=True) for k, v in batch.items() if isinstance(v, Tensor)}
        views = moved["views"]
        if "rir" in moved:
            flat = [moved[k].flatten(0, 1) for k in ("views", "noise", "snr_db", "rir")]
            views = augment.apply(*flat).view_as(views)
        return self.modules.method(views, moved["labels"])

    def compute_objectives(self, predictions: dict, batch: dict, stage) -> Tensor:
        return predictions["loss"]

    @property
    def progress(self) -> float:
        """Epochs done, with the part of the present one."""
        return self.epoch - 1 + self.step / len(self.train_loader)

    def on_fit_batch_start(self, batch: dict, should_step: bool) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.hparams.lr(self.progress)

    def on_fit_batch_end(self, batch: dict, outputs: dict, loss: Tensor, should_step: bool) -> None:
        if should_step:
            self.method.after_step(self.progress)
        self._note(batch["notes"], len(batch["labels"]))
        if self.step % self.hparams.watch_every == 0 or self.step == len(self.train_loader):
            self.journal.watched.append(measures(outputs["z"], batch["labels"].to(outputs["z"].device)))
            if self.bar is not None:
                self.bar.set_postfix(loss=f"{float(loss.detach()):.3f}", waiting=f"{self._waiting():.0%}", refresh=False)
        if self.bar is not None:
            self.bar.update(batch["views"].shape[0] * self.train_loader.batch_sampler.batch_size)

    def check_loss_isfinite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise InputError(f"the loss is {float(loss.detach())} at epoch {self.epoch}, batch {self.step}: training has diverged. "
                             f"{self._last_good()} Lower the learning rate (--peak_lr) or raise the temperature")

    def _note(self, notes: list[Note], n_seen: int) -> None:
        self.journal.notes.update((note.index, note) for note in notes)
        self.seen += n_seen
        skipped = sum(note.outcome == "skipped" for note in self.journal.notes.values())
        allowed = self.hparams.max_damaged_share
        # A run's first files are too few to judge a share by.
        if notes and skipped > max(10, allowed * min(self.seen, len(self.train_loader.dataset))):
            self._write_notes()
            raise InputError(f"{skipped} of the first {self.seen} training files cannot be used, more than "
                             f"max_damaged_share {allowed:g} allows: {notes[-1].reason}; all are in "
                             f"{self.hparams.output_folder}/files.csv")

    # -------------------------------------------------------------------------------------------- one epoch
    def on_stage_start(self, stage, epoch=None) -> None:
        self.epoch = epoch
        sampler = self.train_loader.batch_sampler
        sampler.epoch, sampler.done = epoch, self.step
        self.started, self.first_step, self.train_loader.waited = time.perf_counter(), self.step, 0.0
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch}/{self.hparams.epochs}")

    def on_stage_end(self, stage, stage_loss, epoch=None) -> None:
        seconds = time.perf_counter() - self.started
        per_step = self.method_views * self.train_loader.batch_sampler.batch_size
        spread, align, uniform = np.mean(self.journal.watched, axis=0).tolist()
        record = {"epoch": epoch, "loss": float(stage_loss), "lr": self.optimizer.param_groups[0]["lr"],
                  "spread": spread, "alignment": align, "uniformity": uniform}
        timing = {"crops_per_second": (self.step - self.first_step) * per_step / max(seconds, 1e-9),
                  "waiting": self._waiting(), "seconds": seconds}
        for notes in gather_objects(list(self.journal.notes.values())):
            self.journal.notes.update((note.index, note) for note in notes)
        if spread < COLLAPSED:
            raise InputError(f"the embeddings have collapsed to one point (spread {spread:.1e} of 1) in epoch {epoch}. "
                             f"{self._last_good()} Lower the learning rate (--peak_lr) or the margin")
        if self._is_due(epoch):
            record.update(self._validated())
        self.journal.epochs.append(record)
        self.journal.watched = []
        if is_main():
            self._log({**record, **timing})
        # The last is kept, and of those that were validated the best.
        meta = {"epoch": epoch, **({"eer": record["eer"]} if "eer" in record else {})}
        self.checkpointer.save_and_keep_only(meta=meta, min_keys=["eer"])

    def _is_due(self, epoch: int) -> bool:
        return self.validate is not None and (epoch % self.hparams.valid_every == 0 or epoch == self.hparams.epochs)

    def _validated(self) -> dict:
        assert self.validate is not None
        found = self.validate(self.method.embedder) if is_main() else None
        self.modules.train()
        metrics = next(found for found in gather_objects(found) if found)
        return {"eer": metrics["eer"], "min_dcf": metrics["min_dcf"]}

    def _waiting(self) -> float:
        return self.train_loader.waited / max(time.perf_counter() - self.started, 1e-9)

    def _last_good(self) -> str:
        found = self.checkpointer.find_checkpoint()
        return f"The last good checkpoint is {found.path}." if found else "No checkpoint was written yet."

    # --------------------------------------------------------------------------------------- files and lines
    def _log(self, record: dict) -> None:
        """A line for people on the screen and in train_log.txt, one for machines in train_log.jsonl."""
        found = f", valid EER {record['eer']:.2%}" if "eer" in record else ""
        line = (f"epoch {record['epoch']}/{self.hparams.epochs}: loss {record['loss']:.4f}{found}, lr {record['lr']:.2e}, "
                f"spread {record['spread']:.2f}, {record['crops_per_second']:.0f} crops/s, "
                f"{record['waiting']:.0%} waiting for data, {len(self.journal.notes)} files noted")
        tqdm.write(line)
        self._append("train_log.txt", line)
        self._append("train_log.jsonl", json.dumps(record))
        self._write_notes()
        if self.board is not None:
            for key, value in record.items():
                if isinstance(value, float):
                    self.board.add_scalar(key, value, record["epoch"])

    def _append(self, name: str, line: str) -> None:
        """Add an epoch's line; lines of epochs that a kill made us repeat are dropped first."""
        path = Path(self.hparams.output_folder) / name
        kept = path.read_text().splitlines()[:len(self.journal.epochs) - 1] if path.exists() else []
        with aside(path) as temporary:
            temporary.write_text("\n".join([*kept, line]) + "\n")

    def _write_notes(self) -> None:
        """files.csv: every training file that was skipped or converted, and why."""
        with aside(Path(self.hparams.output_folder) / "files.csv") as temporary:
            rows = [f'{n.outcome},"{n.reason}"' for _, n in sorted(self.journal.notes.items())]
            temporary.write_text("\n".join(["outcome,reason", *rows]) + "\n")

    # ------------------------------------------------------------------------------------------ the whole run
    def fit_all(self) -> None:
        """Train to the last epoch, from the last checkpoint if there is one."""
        self.bar = None
        counter = sb.utils.epoch_loop.EpochCounter(self.hparams.epochs)
        self.checkpointer.add_recoverable("counter", counter)
        if self.hparams.tensorboard and is_main():
            self.board = tensorboard(Path(self.hparams.output_folder) / "tensorboard")
        self.fit(counter, self.train_loader, progressbar=False)
        if self.bar is not None:
            self.bar.close()
        self._load_best()

    def _load_best(self) -> None:
        """The method's weights of the epoch with the lowest validation EER; without validation, the last ones."""
        best = self.checkpointer.find_checkpoint(min_key="eer") or self.checkpointer.find_checkpoint()
        self.best_epoch = best.meta["epoch"]
        self.method.load_state_dict(torch.load(best.paramfiles["method"], map_location=self.device, weights_only=True))

    def on_fit_start(self) -> None:
        super().on_fit_start()
        found = self.checkpointer.find_checkpoint()
        if found and is_main():
            print(f"resuming from {found.path}: epoch {len(self.journal.epochs) + 1}, after batch {self.step}")
        self.method_views = self.train_loader.dataset.n_views
        crops = self.method_views * self.train_loader.batch_sampler.batch_size
        steps = len(self.train_loader)
        self.bar = tqdm(total=self.hparams.epochs * steps * crops, unit="crop", dynamic_ncols=True,
                        initial=(len(self.journal.epochs) * steps + self.step) * crops,
                        disable=None if is_main() else True)

    def _wrap_distributed(self) -> None:
        """Wrap the method, once; SyncBatchNorm only where it exists, and no broadcast of queues every step."""
        if not self.distributed_launch:
            return
        method = self.modules.method
        if self.device_type == "cuda":
            method = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)
        devices = [torch.device(self.device)] if self.device_type == "cuda" else None
        self.modules["method"] = DistributedDataParallel(method, device_ids=devices, broadcast_buffers=False)

    @mark_as_loader
    def _recover(self, path, end_of_epoch) -> None:
        super()._recover(path, end_of_epoch)
        if end_of_epoch:                       # SpeechBrain counts on from the epoch before otherwise
            self.step, self.avg_train_loss = 0, 0.0


@torch.no_grad()
def measures(z: Tensor, labels: Tensor) -> list[float]:
    """(V*B, D), (B,) -> spread (1 on an even sphere, 0 collapsed), alignment, uniformity."""
    repeated = labels.repeat(len(z) // len(labels))
    spread = geometry.spread(z) * math.sqrt(z.shape[1])
    return torch.stack([spread, geometry.alignment(z, repeated), geometry.uniformity(z)]).tolist()


def tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError('TensorBoard is not installed: pip install "sv_ssl[tensorboard]", or leave tensorboard '
                         "False") from error
    return SummaryWriter(str(folder))

