"""The other processes of a run: signs of life through the store at which they met, and the end if one is missed."""

from __future__ import annotations

import itertools
import math
import os
import socket
import sys
import threading
import time
from typing import NoReturn

import torch.distributed as dist


def patience() -> float:
    """Return SV_SSL_PATIENCE, or NaN for what is no number, which `distributed.start` refuses."""
    try:
        return float(os.environ.get("SV_SSL_PATIENCE", 20))
    except ValueError:
        return math.nan


PATIENCE = patience()  # seconds without a sign of life; torchrun's own 30 follow
RESUME = "all processes end, and the same command goes on from the last checkpoint"


class Peers:
    """The processes, each known by a record in the store that its thread renews."""

    def __init__(self, store: dist.Store, rank: int, world_size: int):
        self.store = store
        self.rank = rank
        self.world_size = world_size
        self.meetings = itertools.count()
        self.signs = itertools.count()
        self.heard: dict[str, float] = {}  # record -> when it was first seen
        self.looked = time.monotonic()
        self.left = threading.Event()
        self.ending = threading.Lock()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.sign()

    def sign(self) -> None:
        """Show that this process lives."""
        name = f"process {self.rank} of {self.world_size} (pid {os.getpid()} on {socket.gethostname()})"
        self.store.set(f"life/{self.rank}", f"{name}\n{next(self.signs)}")

    def meet(self) -> None:
        """Wait for all, without a limit: the thread sees to it that there is somebody to wait for."""
        place = f"meeting/{next(self.meetings)}"
        self.store.add(place, 1)
        while self.store.add(place, 0) < self.world_size:
            time.sleep(0.02)

    def missing(self, now: float) -> list[str]:
        """Return the processes whose record has not changed for PATIENCE seconds."""
        records = [r.decode() for r in self.store.multi_get([f"life/{rank}" for rank in range(self.world_size)])]
        if now - self.looked > PATIENCE / 2:
            self.heard = {}  # it was this process that was away, stopped and continued
        self.looked = now
        self.heard = {record: self.heard.get(record, now) for record in records if record != "left"}
        return [record.splitlines()[0] for record, since in self.heard.items() if now - since > PATIENCE]

    def watch(self) -> None:
        """Sign and look for missing processes until this one leaves: what the thread does."""
        try:
            while not self.left.wait(PATIENCE / 20):
                self.sign()
                if missing := self.missing(time.monotonic()):
                    self.end(f"{', '.join(missing)} gave no sign of life for {PATIENCE:g} s")
        except RuntimeError as error:  # the store is gone, and with it the machine that kept it
            if not self.left.is_set():
                self.end(f"the first machine does not answer ({str(error).splitlines()[0]})")

    def leave(self, failed: bool) -> None:
        """Be missed no more; or, after a failure that was reported here, let the others end without a word."""
        self.left.set()
        if self.thread.is_alive():
            self.thread.join(PATIENCE)  # or it might give one more sign
        if failed:
            self.first_to_report()
        else:
            self.store.set(f"life/{self.rank}", "left")

    def first_to_report(self) -> bool:
        """Return whether no other process has reported the end of the run yet."""
        try:
            return self.store.add("reported", 1) == 1
        except RuntimeError:
            return os.environ.get("LOCAL_RANK") == "0"

    def end(self, why: str) -> NoReturn:
        """Say why, once for all processes, and end this one, whatever it waits for."""
        while not self.ending.acquire(blocking=False):
            time.sleep(1)  # the other thread is at it
        if self.first_to_report():
            print(f"\n{os.path.basename(sys.argv[0])}: {why}: {RESUME}", file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(1)
