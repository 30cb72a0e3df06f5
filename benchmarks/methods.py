"""What a step of the newer methods costs beside the encoder's passes in it, and what sampling positives costs an epoch.

    python benchmarks/methods.py [--only steps,sampling,memory] [--out results/benchmarks/methods.json]

A small ECAPA on one CPU thread; CPU seconds, the least of several runs, the step and its passes in turn. A pass is what
the method cannot do without: the student's crops with their gradient, the teacher's and the clean crops without.
Memory is the height of what PyTorch allocates for the prototypes' part of a step.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from losses import height, least
from parts import Row, run
from torch import Tensor

from sv_ssl.core import command
from sv_ssl.core.seeds import seed_everything
from sv_ssl.data.batch import Batch
from sv_ssl.losses import DINOLoss, NTXent, SDPNLoss
from sv_ssl.methods import DINO, SDPN, Facts, Method, Positives, SimCLR
from sv_ssl.models.embedder import Embedder, named
from sv_ssl.models.features import LogMel
from sv_ssl.models.heads import Bottleneck, Prototypes

RATE, DIM, BATCH, REPEATS = 16000, 192, 32, 5
UTTERANCES, PUBLISHED = 100_000, 25_000 / 1_092_009  # of a simulated bank; clusters an utterance, on VoxCeleb2
LONG, SHORT, CLEAN = 1.5, 1.0, 2.0  # seconds, as on the built-in corpus
WIDE_K, WIDE_BATCH = 65536, 128  # of the published DINO


def crops(n: int, batch: int, seconds: float) -> Tensor:
    """-> (n, batch, samples)"""
    return 0.1 * torch.randn(n, batch, round(seconds * RATE))


def embedder() -> Embedder:
    return Embedder(LogMel(40, hop_seconds=0.020), named("ECAPA", 40, "small", DIM))


def methods() -> dict[str, tuple[Callable[[], Method], int, int, int]]:
    """-> name: how it is made, its long, short and clean crops."""
    head = partial(Bottleneck, DIM, 256, 64)
    return {
        "SimCLR": (lambda: SimCLR(embedder(), NTXent(0.05)), 2, 0, 0),
        "SimCLR + SSPS": (lambda: SimCLR(embedder(), NTXent(0.05), positives=Positives(500)), 2, 0, 1),
        "DINO": (lambda: DINO(embedder(), head(), Prototypes(64, 512), DINOLoss(512), ema=0.99), 2, 4, 0),
        "SDPN": (lambda: SDPN(embedder(), head(), Prototypes(64, 64), SDPNLoss(), ema=0.99), 0, 4, 1),
    }


def step_and_passes(make: Callable[[], Method], n: tuple[int, int, int], batch: int) -> tuple[Callable, Callable]:
    """-> a whole step of the method; the passes of the encoder in it."""
    method = make().train()
    method.prepare(Facts(2000, None, 0, 10, 10, seed=0))
    method.on_epoch_start(1)
    optimizer = torch.optim.SGD(method.parameter_groups(), 0.01)
    long, short, clean = (crops(k, batch, s) for k, s in zip(n, (LONG, SHORT, CLEAN)))
    given = Batch(long, torch.arange(batch), short if n[1] else None, clean=clean if n[2] else None)
    network: Any = method.embedder

    def step() -> None:
        optimizer.zero_grad()
        method(given).loss.backward()
        optimizer.step()
        method.on_step_end(0.5)

    def passes() -> None:
        for part in (long, short):
            if len(part):
                network(part.flatten(0, 1)).sum().backward()
        with torch.no_grad():
            if isinstance(method, DINO):
                network(long.flatten(0, 1))
            if len(clean):
                network(clean.flatten(0, 1))

    return step, passes


def steps() -> Iterator[Row]:
    """-> rows of the time of a step, in parts of its encoder passes and of SimCLR's step."""
    simclr = 0.0
    for name, (make, *n) in methods().items():
        whole, passes = least(list(step_and_passes(make, tuple(n), BATCH)), REPEATS)
        simclr = simclr or whole
        kinds = f"{n[0]} long, {n[1]} short, {n[2]} clean crops; {whole / simclr:.2f} x SimCLR's step, {whole:.2f} s"
        limit = "1.15 x" if name in ("DINO", "SDPN") else ""
        yield f"{name}: a step, of its encoder passes", f"{whole / passes:.2f} x", limit, kinds


def sampling() -> Iterator[Row]:
    """-> the row of bank, k-means and draws of an epoch, in parts of an epoch of SimCLR's steps."""
    positives = Positives(max(2, round(UTTERANCES * PUBLISHED)))
    positives.prepare(Facts(UTTERANCES, None, 0, UTTERANCES // BATCH, 2, seed=0), DIM, DIM)
    z = torch.randn(UTTERANCES, DIM)

    def epoch(number: int) -> float:
        positives.start_epoch(number)
        begun = time.process_time()
        for rows in torch.randperm(UTTERANCES).split(BATCH):
            positives.clusters.wait(rows, z[rows])
            positives.replace(z[rows][None], rows)
            positives.push()
        positives.end_epoch(number)
        return time.process_time() - begun

    epoch(1)
    seconds = epoch(2)
    step, _ = step_and_passes(methods()["SimCLR"][0], (2, 0, 0), BATCH)
    training = least([step], REPEATS)[0] * (UTTERANCES // BATCH)
    beside = (
        f"{UTTERANCES:,} utterances, {positives.clusters.counts[0]:,} clusters: {seconds:.0f} s of {training:.0f} s"
    )
    yield "SSPS: bank, k-means and draws, of an epoch of SimCLR", f"{seconds / training:.1%}", "5 %", beside


def memory() -> Iterator[Row]:
    """-> the row of what prototypes, targets and loss of DINO allocate, in parts of the student's logits."""
    prototypes, loss = Prototypes(256, WIDE_K), DINOLoss(WIDE_K)
    z, z_of_teacher = torch.randn(6, WIDE_BATCH, 256, requires_grad=True), torch.randn(2, WIDE_BATCH, 256)
    slow = Prototypes(256, WIDE_K).requires_grad_(False)

    def work() -> None:
        with torch.no_grad():
            said = slow(z_of_teacher)
            mean = said.mean((0, 1), keepdim=True)
            targets = loss.targets(said)
            del said
        loss.compare([partial(prototypes, crop) for crop in z], targets).backward()
        loss.update(mean)

    logits = 6 * WIDE_BATCH * WIDE_K * 4
    beside = f"K {WIDE_K:,}, batch {WIDE_BATCH}, 2 long and 4 short crops: {logits / 2**20:.0f} MB of logits"
    yield "DINO: memory of the loss, of the student's logits", f"{height(work) / logits:.2f} x", "1.5 x", beside


PARTS = {"steps": steps, "sampling": sampling, "memory": memory}


def main() -> None:
    torch.set_num_threads(1)
    seed_everything(0)
    run("methods", __doc__, "Newer methods", f"a small ECAPA, batch {BATCH}, one thread, CPU seconds", PARTS)


if __name__ == "__main__":
    sys.exit(command.run(main))
