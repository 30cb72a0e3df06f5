"""The SpeechBrain Brain that trains any method: it knows `Method`, `Batch` and `Step`, and nothing of losses."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.checkpoints import ckpt_recency, mark_as_loader, register_checkpoint_hooks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sv_ssl.core.distributed import gather_objects, is_main
from sv_ssl.core.errors import InputError
from sv_ssl.data.batch import to_batch
from sv_ssl.data.loader import TimedLoader
from sv_ssl.data.views import Note
from sv_ssl.methods.base import Step
from sv_ssl.training import checkpoints, optimizer, watch
from sv_ssl.training.checkpoints import AtomicCheckpointer
from sv_ssl.training.journal import Journal
from sv_ssl.training.run_log import RunLog
from sv_ssl.training.settings import Settings

FEW = 10  # fewer unusable files than this say nothing about a corpus

Validate = Callable[[nn.Module], dict[str, Any]]  # embedder -> metrics


@register_checkpoint_hooks
class SSLBrain(sb.Brain):
    """Trains a method; every so many epochs asks `validate` for metrics, and keeps the best epoch and the last."""

    modules: Any
    avg_train_loss: float
    best_epoch: int
    best_eer: float | None

    def __init__(self, settings: Settings, device: str, train: TimedLoader, validate: Validate | None):
        self.settings = settings
        self.method = settings.method
        self.train_loader = train
        self.validate = validate
        self.journal = Journal()
        checkpointer = AtomicCheckpointer(Path(settings.output_folder) / "save")
        checkpointer.add_recoverables({"method": self.method, "journal": self.journal})
        options = vars(settings)
        if settings.ckpt_interval_steps:
            options = {**options, "ckpt_interval_minutes": 0}  # SpeechBrain takes one of the two
        super().__init__({"method": self.method}, settings.opt_class, options, {"device": device}, checkpointer)
        self.epoch = 1
        # All crops of an epoch, short and clean ones included.
        self.crops = len(train) * train.batch_sampler.batch_size * train.dataset.n_crops
        title = f"{settings.name}, seed {settings.seed}"
        self.log = RunLog(Path(settings.output_folder), title, settings.epochs, self.crops, settings.tensorboard)

    # ---------------------------------------------------------------------------------------------- one step
    def compute_forward(self, batch: dict, stage: Any) -> Step:
        return self.modules.method(to_batch(batch, self.settings.transforms, self.device))

    def compute_objectives(self, predictions: Step, batch: dict, stage: Any) -> Tensor:
        return predictions.loss

    def init_optimizers(self) -> None:
        """Make the optimizer of the method's groups of parameters."""
        self.optimizer = optimizer.make(self.opt_class, self.method.parameter_groups(), self.device_type)
        self.optimizers_dict = {"opt_class": self.optimizer}
        self.checkpointer.add_recoverable("optimizer", self.optimizer)

    @property
    def progress(self) -> float:
        """Epochs done, to the middle of the present batch: no batch lies on the border of two epochs."""
        return self.epoch - 1 + (self.step - 0.5) / len(self.train_loader)

    def optimizers_step(self) -> None:
        """Make a step with the gradients of all groups clipped; SpeechBrain's own clips those of the first alone."""
        self.scaler.unscale_(self.optimizer)
        optimizer.clip(self.optimizer, self.settings.max_grad_norm, self.settings.clip_each)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1

    def on_fit_batch_start(self, batch: dict, should_step: bool) -> None:
        optimizer.set_rate(self.optimizer, self.settings.lr(self.progress))
        self.method.on_step_start(self.progress)

    def on_fit_batch_end(self, batch: dict, outputs: Step, loss: Tensor, should_step: bool) -> None:
        if should_step:
            self.method.on_step_end(self.progress)
        if batch["notes"]:
            self._note(batch["notes"])
        if self.step % self.settings.watch_every == 0 or self.step == len(self.train_loader):
            self._watch(outputs)
        self.log.step(self.crops // len(self.train_loader))

    def _watch(self, step: Step) -> None:
        watched = watch.figures(step)
        self.journal.watched.append(watched)
        if watched["spread"] < watch.COLLAPSED:
            raise InputError(
                f"the embeddings have collapsed to one point (spread {watched['spread']:.1e} of 1) "
                f"at epoch {self.epoch}, batch {self.step}. {self._last_good()}"
            )
        self.log.show(loss=f"{float(step.loss.detach()):.3f}", waiting=f"{self._waiting():.0%}")

    def check_loss_isfinite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is {float(loss.detach())} at epoch {self.epoch}, batch {self.step}: "
                f"training has diverged. {self._last_good()}"
            )

    def _last_good(self) -> str:
        """Say which checkpoint at an epoch's end is the last (one inside the epoch may be as sick), and what to do."""
        last = self.checkpointer.find_checkpoint(ckpt_predicate=lambda c: "epoch" in c.meta)
        stands = f"The last good checkpoint is {last.path}" if last else "No epoch was finished before"
        return (
            f"{stands}. Try a lower --peak_lr in another --output_folder, or a milder loss (a smaller margin, a "
            "higher temperature)"
        )

    def _note(self, notes: list[Note]) -> None:
        self.journal.note(notes)
        skipped = self.journal.count("skipped")
        steps = (self.epoch - 1) * len(self.train_loader) + self.step
        seen = min(steps * self.train_loader.batch_sampler.batch_size, len(self.train_loader.dataset))
        if skipped > max(FEW, self.settings.max_damaged_share * seen):
            self.log.write_notes(self.journal)
            raise InputError(
                f"{skipped} of the first {seen} training files cannot be used, more than "
                f"max_damaged_share {self.settings.max_damaged_share:g} allows: {notes[-1].reason}; "
                f"all are in {self.settings.output_folder}/files.csv"
            )

    def _should_save_intra_epoch_ckpt(self, *args: Any) -> bool:
        """Not between two halves of an accumulated batch: neither gradients nor fresh keys are in a checkpoint."""
        return self.step % self.grad_accumulation_factor == 0 and super()._should_save_intra_epoch_ckpt(*args)

    # -------------------------------------------------------------------------------------------- one epoch
    def on_stage_start(self, stage: Any, epoch: int | None = None) -> None:
        self.epoch = epoch or 1
        sampler = self.train_loader.batch_sampler
        sampler.epoch = self.epoch
        sampler.done = self.first_step = self.step
        self.train_loader.waited = 0.0
        self.started = time.perf_counter()
        self.cpu_started = time.process_time()
        self.log.epoch_started(self.epoch)
        self.method.on_epoch_start(self.epoch)

    def on_stage_end(self, stage: Any, stage_loss: float, epoch: int | None = None) -> None:
        """End an epoch: log it, validate it where that is due, and keep it even if the validation fails."""
        seconds = time.perf_counter() - self.started
        cpu_seconds = time.process_time() - self.cpu_started
        timing = {
            "crops_per_second": self.crops
            * (self.step - self.first_step)
            / len(self.train_loader)
            / max(seconds, 1e-9),
            "waiting": self._waiting(),
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
        }
        self._share_loss()
        record = {
            **dict.fromkeys(("spread", "alignment", "uniformity"), math.nan),
            **self.journal.means(),
            "epoch": self.epoch,
            "crops": self.crops * self.epoch,
            "loss": self.avg_train_loss,
            "lr": self.settings.lr(self.progress),
        }
        record.update(self.method.on_epoch_end(self.epoch) or {})
        if alarms := watch.alarms(record):
            record["alarms"] = alarms
        self.journal.gather()
        self.journal.watched = []
        self.journal.seconds += seconds
        fault = None
        try:
            if self._is_due():
                record.update(self._validated())
        except InputError as error:
            fault = error  # raised once the epoch is kept
        self.journal.epochs.append(record)
        if is_main():
            self.log.epoch_ended({**record, **timing}, self.journal)
        self._keep({"epoch": self.epoch, **({"eer": record["eer"]} if "eer" in record else {})})
        if fault:
            raise fault

    def _keep(self, meta: dict) -> None:
        """Keep the last epoch, of those that were validated the best, and those that the mean will be of."""
        if self.settings.average_last:
            self.checkpointer.save_and_keep_only(
                meta=meta,
                importance_keys=[ckpt_recency],
                num_to_keep=self.settings.average_last,
                ckpt_predicate=lambda checkpoint: "epoch" in checkpoint.meta,
            )
        else:
            self.checkpointer.save_and_keep_only(meta=meta, min_keys=["eer"])

    def _share_loss(self) -> None:
        """Take the mean over all processes: a checkpoint is of no one process."""
        losses = gather_objects(float(self.avg_train_loss))
        self.avg_train_loss = sum(losses) / len(losses)

    def _save_intra_epoch_ckpt(self) -> None:
        self._share_loss()
        super()._save_intra_epoch_ckpt()

    def _is_due(self) -> bool:
        if self.validate is None:
            return False
        every = getattr(self.settings, "valid_every", 1)
        return self.epoch % every == 0 or self.epoch == self.settings.epochs

    def _validated(self) -> dict[str, Any]:
        """Return metrics of the validation list, the same on every process; one of them does the work."""
        assert self.validate is not None
        answer: Any = None
        if is_main():
            try:
                answer = self.validate(self.method.embedder_to_keep())
            except InputError as error:  # sent to the others, who wait for an answer
                answer = error
        [metrics, *_] = gather_objects(answer)
        if isinstance(metrics, InputError):
            raise metrics
        return {"eer": metrics["eer"], "min_dcf": metrics["min_dcf"]}

    def _waiting(self) -> float:
        return self.train_loader.waited / max(time.perf_counter() - self.started, 1e-9)

    # ------------------------------------------------------------------------------------------ the whole run
    def fit_all(self) -> None:
        """Train to the last epoch, from the last checkpoint if there is one, and load the best weights."""
        counter = sb.utils.epoch_loop.EpochCounter(self.settings.epochs)
        self.checkpointer.add_recoverable("counter", counter)
        try:
            self.fit(counter, self.train_loader, progressbar=False)
        finally:
            self.log.close()
        if self.settings.average_last:
            self._load_mean()
        else:
            self._load_best()

    def on_fit_start(self) -> None:
        super().on_fit_start()
        steps, done = len(self.train_loader), len(self.journal.epochs)
        last = self.checkpointer.find_checkpoint()
        if last and is_main():
            within = f" and {self.step} of {steps} batches" if self.step else ""
            print(f"resuming from {last.path}: {done} of {self.settings.epochs} epochs done{within}")
        self.log.start(done, self.step * self.crops // steps)

    def _load_best(self) -> None:
        """Load the weights of the epoch with the lowest validation EER; without validation, the last ones."""
        best = checkpoints.best(self.checkpointer)
        self.best_epoch = best.meta.get("epoch", self.epoch)
        self.best_eer = best.meta.get("eer")
        self.method.load_state_dict(checkpoints.weights(best, self.device))

    def _load_mean(self) -> None:
        """Load the mean of the last epochs' weights and statistics."""
        last = checkpoints.of_epochs(self.checkpointer)[-self.settings.average_last :]
        self.best_epoch = last[-1].meta["epoch"]
        self.method.load_state_dict(
            checkpoints.mean([checkpoints.weights(checkpoint, self.device) for checkpoint in last])
        )
        self.best_eer = self._validated()["eer"] if self.validate is not None else None

    def _wrap_distributed(self) -> None:
        """Wrap the method, once; SyncBatchNorm only where it exists, and no broadcast of queues every step."""
        if not self.distributed_launch:
            return
        method = self.modules.method
        if self.device_type == "cuda" and self.settings.sync_batchnorm:
            method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
        devices = [torch.device(self.device)] if self.device_type == "cuda" else None
        self.modules["method"] = DistributedDataParallel(method, device_ids=devices, broadcast_buffers=False)

    @mark_as_loader
    def _recover(self, path: Any, end_of_epoch: bool) -> None:
        super()._recover(path, end_of_epoch)
        if end_of_epoch:  # SpeechBrain counts on from the epoch before otherwise
            self.step = 0
            self.avg_train_loss = 0.0
