"""The SpeechBrain Brain that trains any method: it knows nothing of losses, the method says everything."""

from __future__ import annotations

import csv
import inspect
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.checkpoints import ckpt_recency, mark_as_loader, register_checkpoint_hooks
from speechbrain.utils.run_opts import RunOptions
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from sv_ssl.audio import noise
from sv_ssl.core.distributed import gather_objects, is_main
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside
from sv_ssl.data import views as data
from sv_ssl.data.views import Note
from sv_ssl.losses import geometry
from sv_ssl.losses.contrastive import Scheduled
from sv_ssl.models.encoders import Embedder
from sv_ssl.training.checkpoints import AtomicCheckpointer, Journal

# Spread of unit embeddings, 1 when they fill the sphere evenly: below this they are all one point.
COLLAPSED = 0.01
# Fewer unusable files than this say nothing about a corpus.
FEW = 10


def fitted(
    hparams: dict, views: Any, batches: data.Batches, validate: Callable[[Embedder], dict] | None = None
) -> SSLBrain:
    """Fit a run's method, resuming what is there; the Brain comes back with its best weights loaded, or the last."""
    on_gpu = hparams["run_opts"]["device"] != "cpu"
    optimizer = fused(hparams["opt_class"]) if on_gpu else hparams["opt_class"]
    brain = SSLBrain(
        hparams["method"],
        optimizer,
        hparams,
        RunOptions.from_dictionary(hparams["run_opts"]),
        data.loader(views, batches, hparams["num_workers"], pin_memory=on_gpu),
        validate,
        AtomicCheckpointer(Path(hparams["output_folder"]) / "save"),
    )
    try:
        brain.fit_all()
    except KeyboardInterrupt:
        if is_main():
            print(f"\nstopped in epoch {brain.epoch}: the same command goes on from the last checkpoint")
        raise
    except torch._dynamo.exc.TorchDynamoException as error:
        raise InputError(
            f"torch.compile cannot compile the encoder here ({str(error).strip().splitlines()[0]}): leave "
            "--compiled out"
        ) from error
    return brain


def fused(opt_class: Callable) -> Callable:
    """An optimizer's class -> the same, with one kernel for all parameters where it has such a one.

    >>> fused(torch.optim.Adam).keywords
    {'fused': True}
    """
    return partial(opt_class, fused=True) if "fused" in inspect.signature(opt_class).parameters else opt_class


@register_checkpoint_hooks
class SSLBrain(sb.Brain):
    """Trains `method`; every so many epochs asks `validate(embedder)` for metrics and keeps the best and the last.

    Reads from hparams: epochs, lr (a schedule of the epoch), valid_every, watch_every, average_last, sync_batchnorm,
    max_damaged_share, output_folder, tensorboard.
    """

    modules: Any
    avg_train_loss: float

    def __init__(
        self,
        method: Any,
        opt_class,
        hparams: dict,
        run_opts,
        train: Any,
        validate: Callable[[Embedder], dict] | None,
        checkpointer: AtomicCheckpointer,
    ):
        self.method, self.train_loader, self.validate = method, train, validate
        self.journal = Journal()
        checkpointer.add_recoverables({"method": method, "journal": self.journal})
        super().__init__({"method": method}, opt_class, hparams, run_opts, checkpointer)
        self.epoch = 1
        self.scheduled = [part for part in method.modules() if isinstance(part, Scheduled)]
        # All crops of an epoch, short ones included.
        self.crops = len(train) * train.batch_sampler.batch_size * (train.dataset.n_views + train.dataset.n_short)
        self.bar: tqdm | None = None
        self.board: Any = None

    # ---------------------------------------------------------------------------------------------- one step
    def compute_forward(self, batch: dict, stage) -> dict[str, Tensor]:
        moved = {k: v.to(self.device, non_blocking=True) for k, v in batch.items() if isinstance(v, Tensor)}
        short = [augmented(moved, "short", "short_")] if "short" in moved else []
        return self.modules.method(augmented(moved, "views"), moved["labels"], *short)

    def compute_objectives(self, predictions: dict, batch: dict, stage) -> Tensor:
        return predictions["loss"]

    @property
    def progress(self) -> float:
        """Epochs done, to the middle of the present batch: no batch lies on the border of two epochs."""
        return self.epoch - 1 + (self.step - 0.5) / len(self.train_loader)

    def on_fit_batch_start(self, batch: dict, should_step: bool) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.hparams.lr(self.progress)
        for part in self.scheduled:
            part.set_progress(self.progress)

    def on_fit_batch_end(self, batch: dict, outputs: dict, loss: Tensor, should_step: bool) -> None:
        if should_step:
            self.method.on_step_end(self.progress)
        if batch["notes"]:
            self._note(batch["notes"])
        if self.step % self.hparams.watch_every == 0 or self.step == len(self.train_loader):
            self._watch(outputs["z"], batch["labels"], loss)
        if self.bar is not None:
            self.bar.update(self.crops // len(self.train_loader))

    def _watch(self, z: Tensor, labels: Tensor, loss: Tensor) -> None:
        self.journal.watched.append(measures(z, labels.to(z.device)))
        spread = self.journal.watched[-1][0]
        if spread < COLLAPSED:
            raise InputError(
                f"the embeddings have collapsed to one point (spread {spread:.1e} of 1) "
                f"at epoch {self.epoch}, batch {self.step}. {self._last_good()}"
            )
        if self.bar is not None:
            self.bar.set_postfix(loss=f"{float(loss.detach()):.3f}", waiting=f"{self._waiting():.0%}", refresh=False)

    def check_loss_isfinite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is {float(loss.detach())} at epoch {self.epoch}, batch {self.step}: "
                f"training has diverged. {self._last_good()}"
            )

    def _last_good(self) -> str:
        """The last checkpoint at an epoch's end (one inside the epoch may be as sick), and what to do."""
        found = self.checkpointer.find_checkpoint(ckpt_predicate=lambda c: "epoch" in c.meta)
        stands = f"The last good checkpoint is {found.path}" if found else "No epoch was finished before"
        return (
            f"{stands}. Try a lower --peak_lr in another --output_folder, or a milder loss (a smaller margin, a "
            "higher temperature)"
        )

    def _note(self, notes: list[Note]) -> None:
        self.journal.note(notes)
        skipped = self.journal.count("skipped")
        seen = min(
            ((self.epoch - 1) * len(self.train_loader) + self.step) * self.train_loader.batch_sampler.batch_size,
            len(self.train_loader.dataset),
        )
        if skipped > max(FEW, self.hparams.max_damaged_share * seen):
            self._write_notes()
            raise InputError(
                f"{skipped} of the first {seen} training files cannot be used, more than "
                f"max_damaged_share {self.hparams.max_damaged_share:g} allows: {notes[-1].reason}; "
                f"all are in {self.hparams.output_folder}/files.csv"
            )

    def _should_save_intra_epoch_ckpt(self, *args) -> bool:
        """Not between two halves of an accumulated batch: neither gradients nor fresh keys are in a checkpoint."""
        return self.step % self.grad_accumulation_factor == 0 and super()._should_save_intra_epoch_ckpt(*args)

    # -------------------------------------------------------------------------------------------- one epoch
    def on_stage_start(self, stage, epoch=None) -> None:
        self.epoch = epoch
        sampler = self.train_loader.batch_sampler
        sampler.epoch, sampler.done = epoch, self.step
        self.started, self.first_step, self.train_loader.waited = time.perf_counter(), self.step, 0.0
        self.cpu_started = time.process_time()
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch}/{self.hparams.epochs}")

    def on_stage_end(self, stage, stage_loss, epoch=None) -> None:
        seconds = time.perf_counter() - self.started
        crops = self.crops * (self.step - self.first_step) / len(self.train_loader)
        spread, align, uniform = np.mean(self.journal.watched or [[math.nan] * 3], axis=0).tolist()
        self._share_loss()
        record = {
            "epoch": epoch,
            "crops": self.crops * epoch,
            "loss": self.avg_train_loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "spread": spread,
            "alignment": align,
            "uniformity": uniform,
        }
        timing = {
            "crops_per_second": crops / max(seconds, 1e-9),
            "waiting": self._waiting(),
            "seconds": seconds,
            "cpu_seconds": time.process_time() - self.cpu_started,
        }
        self.method.on_epoch_end(epoch)
        self.journal.gather()
        self.journal.watched = []
        self.journal.seconds += seconds
        fault = None
        try:
            if self._is_due(epoch):
                record.update(self._validated())
        except InputError as error:
            fault = error  # raised once the epoch is kept
        self.journal.epochs.append(record)
        if is_main():
            self._log({**record, **timing})
        self._keep({"epoch": epoch, **({"eer": record["eer"]} if "eer" in record else {})})
        if fault:
            raise fault

    def _keep(self, meta: dict) -> None:
        """The last is kept, of those that were validated the best, and those that the mean will be of."""
        if self.hparams.average_last:
            self.checkpointer.save_and_keep_only(
                meta=meta,
                importance_keys=[ckpt_recency],
                num_to_keep=self.hparams.average_last,
                ckpt_predicate=lambda checkpoint: "epoch" in checkpoint.meta,
            )
        else:
            self.checkpointer.save_and_keep_only(meta=meta, min_keys=["eer"])

    def _share_loss(self) -> None:
        """Take the mean over all processes: a checkpoint is of no one process."""
        self.avg_train_loss = float(np.mean(gather_objects(float(self.avg_train_loss))))

    def _save_intra_epoch_ckpt(self) -> None:
        self._share_loss()
        super()._save_intra_epoch_ckpt()

    def _is_due(self, epoch: int) -> bool:
        return self.validate is not None and (epoch % self.hparams.valid_every == 0 or epoch == self.hparams.epochs)

    def _validated(self) -> dict:
        """Metrics of the validation list, the same on every process; one of them does the work."""
        assert self.validate is not None
        found: Any = None
        if is_main():
            try:
                found = self.validate(self.method.embedder)
            except InputError as error:  # told to the others, who wait for an answer
                found = error
        [metrics, *_] = gather_objects(found)
        if isinstance(metrics, InputError):
            raise metrics
        return {"eer": metrics["eer"], "min_dcf": metrics["min_dcf"]}

    def _waiting(self) -> float:
        return self.train_loader.waited / max(time.perf_counter() - self.started, 1e-9)

    # --------------------------------------------------------------------------------------- files and lines
    def _log(self, record: dict) -> None:
        """A line for people on the screen and in train_log.txt, one for machines in train_log.jsonl."""
        found = f", valid EER {record['eer']:.2%}" if "eer" in record else ""
        line = (
            f"epoch {record['epoch']}/{self.hparams.epochs}: loss {record['loss']:.4f}{found}, "
            f"lr {record['lr']:.2e}, spread {record['spread']:.2f}, {record['crops_per_second']:.0f} crops/s, "
            f"{record['waiting']:.0%} waiting for data"
            + "".join(f", {self.journal.count(outcome)} files {outcome}" for outcome in self.journal.notes)
        )
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
        kept = path.read_text().splitlines()[: len(self.journal.epochs) - 1] if path.exists() else []
        with aside(path) as temporary:
            temporary.write_text("\n".join([*kept, line]) + "\n")

    def _write_notes(self) -> None:
        """files.csv: the training files that were skipped or converted, and why."""
        rows = [(outcome, *note) for outcome, files in self.journal.notes.items() for note in sorted(files.items())]
        more = [(outcome, f"and {count} more", "") for outcome, count in self.journal.more.items()]
        with aside(f"{self.hparams.output_folder}/files.csv") as temporary, open(temporary, "w", newline="") as file:
            csv.writer(file).writerows([("outcome", "wav", "reason"), *rows, *more])

    # ------------------------------------------------------------------------------------------ the whole run
    def fit_all(self) -> None:
        """Train to the last epoch, from the last checkpoint if there is one, and load the best weights."""
        counter = sb.utils.epoch_loop.EpochCounter(self.hparams.epochs)
        self.checkpointer.add_recoverable("counter", counter)
        if self.hparams.tensorboard and is_main():
            self.board = tensorboard(Path(self.hparams.output_folder) / "tensorboard")
        try:
            self.fit(counter, self.train_loader, progressbar=False)
        finally:
            for shown in (self.bar, self.board):
                if shown is not None:
                    shown.close()
        self._load_mean() if self.hparams.average_last else self._load_best()

    def on_fit_start(self) -> None:
        super().on_fit_start()
        steps, done = len(self.train_loader), len(self.journal.epochs)
        found = self.checkpointer.find_checkpoint()
        if found and is_main():
            print(
                f"resuming from {found.path}: {done} of {self.hparams.epochs} epochs done"
                + f" and {self.step} of {steps} batches" * bool(self.step)
            )
        self.bar = tqdm(
            total=self.hparams.epochs * self.crops,
            unit="crop",
            initial=done * self.crops + self.step * self.crops // steps,
            dynamic_ncols=True,
            disable=None if is_main() else True,
        )

    def _load_best(self) -> None:
        """The method's weights of the epoch with the lowest validation EER; without validation, the last ones."""
        best = self.checkpointer.find_checkpoint(min_key="eer") or self.checkpointer.find_checkpoint()
        if best is None:
            raise InputError(f"nothing was trained and {self.hparams.output_folder} holds no checkpoint")
        self.best_epoch, self.best_eer = best.meta.get("epoch", self.epoch), best.meta.get("eer")
        self.method.load_state_dict(self._weights(best))

    def _load_mean(self) -> None:
        """The mean of the last epochs' weights and statistics."""
        found = sorted(
            (c for c in self.checkpointer.list_checkpoints() if "epoch" in c.meta),
            key=lambda checkpoint: checkpoint.meta["epoch"],
        )
        if not found:
            raise InputError(f"nothing was trained and {self.hparams.output_folder} holds no checkpoint")
        self.best_epoch, self.best_eer = found[-1].meta["epoch"], None
        self.method.load_state_dict(mean([self._weights(c) for c in found[-self.hparams.average_last :]]))
        if self.validate is not None:
            self.best_eer = self._validated()["eer"]

    def _weights(self, checkpoint) -> dict[str, Any]:
        return torch.load(checkpoint.paramfiles["method"], map_location=self.device, weights_only=True)

    def _wrap_distributed(self) -> None:
        """Wrap the method, once; SyncBatchNorm only where it exists, and no broadcast of queues every step."""
        if not self.distributed_launch:
            return
        method = self.modules.method
        if self.device_type == "cuda" and self.hparams.sync_batchnorm:
            method = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)
        devices = [torch.device(self.device)] if self.device_type == "cuda" else None
        self.modules["method"] = DistributedDataParallel(method, device_ids=devices, broadcast_buffers=False)

    @mark_as_loader
    def _recover(self, path, end_of_epoch) -> None:
        super()._recover(path, end_of_epoch)
        if end_of_epoch:  # SpeechBrain counts on from the epoch before otherwise
            self.step, self.avg_train_loss = 0, 0.0


def augmented(batch: dict[str, Tensor], name: str, prefix: str = "") -> Tensor:
    """The batch's (V, B, T) crops of this name, with the rooms and noises that were drawn for them."""
    crops = batch[name]
    if prefix + "rir" not in batch:
        return crops
    drawn = [batch[prefix + key].flatten(0, 1) for key in ("noise", "snr_db", "rir")]
    return noise.apply(crops.flatten(0, 1), *drawn).view_as(crops)


def mean(states: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of what is a fraction in state dicts; counters are the last one's.

    >>> mean([{"w": torch.zeros(2), "n": torch.tensor(1)}, {"w": torch.ones(2), "n": torch.tensor(2)}])
    {'w': tensor([0.5000, 0.5000]), 'n': tensor(2)}
    """

    def of(name: str, last: Any) -> Any:
        if not (isinstance(last, Tensor) and last.is_floating_point()):
            return last
        return torch.stack([state[name].double() for state in states]).mean(dim=0).to(last.dtype)

    return {name: of(name, last) for name, last in states[-1].items()}


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
        raise InputError(
            'TensorBoard is not installed: pip install "sv_ssl[tensorboard]", or leave tensorboard False'
        ) from error
    return SummaryWriter(str(folder))
