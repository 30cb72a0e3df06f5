"""What a run shows while it trains: a bar, a line an epoch for people and one for machines, a picture of its figures,
curves, notes on files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sv_ssl.core.distributed import is_main
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write, write_table
from sv_ssl.reporting import watch_plots
from sv_ssl.training import watch
from sv_ssl.training.journal import Journal


class RunLog:
    """The log of a run in its output folder; of several processes the first one writes."""

    def __init__(self, folder: Path, title: str, epochs: int, crops: int, curves: bool):
        self.folder = folder
        self.title = title  # of the picture
        self.epochs = epochs
        self.crops = crops  # of an epoch
        self.board: Any = tensorboard(folder / "tensorboard") if curves and is_main() else None
        self.bar: tqdm | None = None

    def start(self, done: int, crops_done: int) -> None:
        """Show a bar that begins at the crops of `done` epochs and those of the present one."""
        self.bar = tqdm(
            total=self.epochs * self.crops,
            unit="crop",
            initial=done * self.crops + crops_done,
            dynamic_ncols=True,
            disable=None if is_main() else True,
        )

    def epoch_started(self, epoch: int) -> None:
        """Name the epoch on the bar."""
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch}/{self.epochs}")

    def step(self, crops: int) -> None:
        """Move the bar by the crops of a step."""
        if self.bar is not None:
            self.bar.update(crops)

    def show(self, **values: str) -> None:
        """Show values beside the bar."""
        if self.bar is not None:
            self.bar.set_postfix(**values, refresh=False)

    def epoch_ended(self, record: dict[str, Any], journal: Journal) -> None:
        """Write a line for people on the screen and in train_log.txt, one for machines in train_log.jsonl."""
        valid = f", valid EER {record['eer']:.2%}" if "eer" in record else ""
        notes = "".join(f", {journal.count(outcome)} files {outcome}" for outcome in journal.notes)
        line = (
            f"epoch {record['epoch']}/{self.epochs}: loss {record['loss']:.4f}{valid}, "
            f"lr {record['lr']:.2e}, {watch.shown(record)}, {record['crops_per_second']:.0f} crops/s, "
            f"{record['waiting']:.0%} waiting for data{notes}"
        )
        alarms = [f"collapse? {alarm}" for alarm in record.get("alarms", [])]
        tqdm.write("\n  ".join([line, *alarms]))
        self._append("train_log.txt", "; ".join([line, *alarms]), len(journal.epochs))
        self._append("train_log.jsonl", json.dumps(record), len(journal.epochs))
        self.write_notes(journal)
        if self.board is not None:
            for key, value in record.items():
                if isinstance(value, float):
                    self.board.add_scalar(key, value, record["epoch"])
        if "eer" in record:
            self._draw()

    def _append(self, name: str, line: str, epoch: int) -> None:
        """Add an epoch's line; lines of epochs that a kill made us repeat are dropped first."""
        path = self.folder / name
        kept = path.read_text().splitlines()[: epoch - 1] if path.exists() else []
        with atomic_write(path) as temporary:
            temporary.write_text("\n".join([*kept, line]) + "\n")

    def write_notes(self, journal: Journal) -> None:
        """Write files.csv: the training files that were skipped or converted, and why."""
        rows = [(outcome, *note) for outcome, files in journal.notes.items() for note in sorted(files.items())]
        more = [(outcome, f"and {count} more", "") for outcome, count in journal.more.items()]
        write_table(self.folder / "files.csv", [("outcome", "wav", "reason"), *rows, *more])

    def _draw(self) -> None:
        """Draw watch.png, the figures of train_log.jsonl by epoch."""
        path = self.folder / "train_log.jsonl"
        if path.exists():
            records = [json.loads(line) for line in path.read_text().splitlines()]
            limits = {alarm.figure: (alarm.low, alarm.high) for alarm in watch.ALARMS}
            watch_plots.watched(self.folder / "watch.png", records, limits, self.title)

    def close(self) -> None:
        """End the bar and the curves, and draw all epochs, whatever ended the run."""
        if is_main():
            self._draw()
        for shown in (self.bar, self.board):
            if shown is not None:
                shown.close()


def tensorboard(folder: Path) -> Any:
    """Return TensorBoard's writer, or say how to install it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            'TensorBoard is not installed: pip install "sv_ssl[tensorboard]", or leave tensorboard False'
        ) from error
    return SummaryWriter(str(folder))
