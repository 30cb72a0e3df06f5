"""How fast the contrastive losses are and what memory they take, beside their plain forms: a matrix and autograd.

    python benchmarks/losses.py [--only symmetric,moco,...] [--out results/benchmarks/losses.json]

Forward and backward, embeddings of 512 dimensions, on one CPU thread. Seconds are of the CPU, the least of several
runs, ours and the plain ones in turn. Memory is the height of what PyTorch allocates, the inputs left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from parts import Row, run
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sv_ssl.core import command
from sv_ssl.core.seeds import seed_everything
from sv_ssl.data import Batches
from sv_ssl.losses import ACL, ADD, OPL, Focal, InfoNCE, NTXent, Rows, SoftADD, SoftLabels, blocks, contrastive
from sv_ssl.losses.margin import additive

TAU, M = 1 / 30, 0.1


def plain(z: Tensor) -> Tensor:
    """(2N, D) -> (): symmetric NT-Xent-AM, the yardstick: one product, the mask in place, a log-sum-exp."""
    rows, here = F.normalize(z), torch.arange(len(z))
    other = here.roll(len(z) // 2)
    logits = rows @ rows.T
    logits[here, other] -= M
    logits.div_(TAU).fill_diagonal_(-torch.inf)
    return (logits.logsumexp(1) - logits[here, other]).mean()


def plain_moco(q: Tensor, keys: Tensor, queue: Tensor) -> Tensor:
    """(N, D), (N, D), (K, D) -> (): MoCo-AM with a copy of the queue, which may change before the backward pass."""
    rows = F.normalize(q)
    positive = ((rows * keys).sum(1) - M) / TAU
    negative = (rows @ queue.clone().T).div_(TAU)
    return (torch.logaddexp(positive, negative.logsumexp(1)) - positive).mean()


def least(works: list[Callable[[], object]], repeats: int) -> list[float]:
    """CPU seconds of the quickest run of each, run in turn."""
    times = []
    for _ in range(repeats):
        for work in works:
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
    return [min(times[i :: len(works)]) for i in range(len(works))]


def height(work: Callable[[], object]) -> int:
    """Bytes at the height of what `work` allocates."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).max())


def steps(n: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor], Tensor]:
    """-> the gradient by our loss, by the plain one, and the embeddings that both are of."""
    z, labels = torch.randn(2 * n, 512, requires_grad=True), torch.arange(n).repeat(2)
    loss = NTXent(TAU, partial(additive, m=M))
    return (lambda: torch.autograd.grad(loss(z, labels), z)[0]), (lambda: torch.autograd.grad(plain(z), z)[0]), z


def symmetric_rows() -> list[Row]:
    """NT-Xent-AM as it is used, at the sizes of batches."""
    rows = []
    for n, repeats in ((256, 30), (512, 15), (2048, 4)):
        ours, theirs, _ = steps(n)
        seconds, memory = least([ours, theirs], repeats), [height(ours), height(theirs)]
        what = f"symmetric NT-Xent-AM, {n:,} utterances"
        rows.append(
            (
                f"{what}: time",
                f"{seconds[0] / seconds[1]:.2f} x",
                "1.05 x",
                f"the plain form: {1000 * seconds[1]:.1f} ms",
            )
        )
        rows.append(
            (
                f"{what}: memory",
                f"{memory[0] / memory[1]:.2f} x",
                "1.1 x",
                f"the plain form: {memory[1] / 2**20:.1f} MB",
            )
        )
    return rows


def chunked_rows() -> list[Row]:
    """The blockwise form against the plain one, also where it would not be used."""
    rows, dense = [], contrastive.DENSE
    try:
        contrastive.DENSE = 0
        for n, repeats in ((256, 30), (2048, 4), (6144, 1)):
            ours, theirs, _ = steps(n)
            seconds = least([ours, theirs], repeats)
            a, b = ours(), theirs()
            rows.append(
                (
                    f"in blocks, {n:,} utterances: time",
                    f"{seconds[0] / seconds[1]:.2f} x",
                    "1.3 x",
                    f"the plain form: {1000 * seconds[1]:,.0f} ms; largest difference of a gradient "
                    f"{(a - b).abs().max() / b.abs().max():.0e} of the largest, limit 1e-05",
                )
            )
    finally:
        contrastive.DENSE = dense
    return rows


def huge_rows() -> list[Row]:
    """A batch whose matrix would take 17 GB, and the plain form several of those."""
    ours, _, z = steps(32_768)
    start = time.process_time()
    memory = height(ours)
    return [
        (
            "in blocks, 32,768 utterances: memory",
            f"{memory / 1e9:.2f} GB",
            "2 GB",
            f"{time.process_time() - start:.0f} s; the matrix alone would be {4 * len(z) ** 2 / 1e9:.0f} GB; a block "
            f"{4 * blocks.ROWS * len(z) / 1e6:.0f} MB",
        )
    ]


def moco_rows() -> list[Row]:
    """Two directions, each with its own queue."""
    rows = []
    for n in (64, 256, 512):
        q = torch.randn(2, n, 512, requires_grad=True)
        keys, queues = (F.normalize(torch.randn(2, size, 512), dim=2) for size in (n, 32_768))
        loss = InfoNCE(TAU, partial(additive, m=M))
        works = [
            lambda form=form: torch.autograd.grad(sum(map(form, q, keys, queues)), q)[0] for form in (loss, plain_moco)
        ]
        seconds, memory = least(works, 6), [height(work) for work in works]
        apart = (works[0]() - works[1]()).abs().max()
        rows.append(
            (
                f"MoCo-AM, {n} queries, two queues of 32,768, two directions: time",
                f"{seconds[0] / seconds[1]:.2f} x",
                "0.9 x",
                f"two plain passes with a clone: {1000 * seconds[1]:.0f} ms, {memory[1] / 2**20:.0f} MB; "
                f"ours: {memory[0] / 2**20:.0f} MB; gradients within {apart:.0e}",
            )
        )
    return rows


def collisions_rows() -> list[Row]:
    """Negatives that are of the anchor's own speaker, in the batches that training draws."""
    rows = []
    for name, n, speakers, size in (
        ("VoxCeleb2", 1_092_009, 5_994, 200),
        ("VoxCeleb2", 1_092_009, 5_994, 256),
        ("VoxCeleb1", 148_642, 1_211, 256),
    ):
        batches = Batches(n, size, seed=0)
        order = (np.arange(n) * speakers // n)[batches.order()][: len(batches) * size].reshape(-1, size)
        order.sort(axis=1)
        same = order[:, 1:] == order[:, :-1]
        met = np.pad(same, ((0, 0), (1, 0))) | np.pad(same, ((0, 0), (0, 1)))
        rows.append(
            (
                f"anchors that meet their own speaker: batch {size} of {name}'s size, {speakers:,} speakers",
                f"{met.mean():.2%}",
                f"{1 - (1 - 1 / speakers) ** (size - 1):.2%}",
                "even speakers; the limit is 1 - (1 - 1/S)^(N - 1)",
            )
        )
    return rows


def soft(n: int, classes: int) -> SoftLabels:
    """-> labels of n rows, of two classes each, as mixup makes them."""
    first = torch.arange(n) % classes
    return SoftLabels(torch.stack([first, first.flip(0)], dim=1), torch.tensor([0.6, 0.4]).repeat(n, 1))


def angular_rows() -> list[Row]:
    """The losses of angles beside the plain NT-Xent, and focal beside cross-entropy, on a batch of 512 rows."""
    z, views, labels = torch.randn(512, 512, requires_grad=True), torch.arange(256).repeat(2), torch.arange(512) % 35
    forms: dict[str, Callable[[], Tensor]] = {
        "ACL": partial(ACL(alpha=0.5), Rows(z, views)),
        "ADD, hard": partial(ADD(), z, labels),
        "OPL": partial(OPL(), z, labels),
    }
    for classes in (35, 5_994):
        forms[f"ADD, soft, {classes:,} classes"] = partial(SoftADD(), z, soft(512, classes))
    rows = beside("plain NT-Xent-AM", partial(plain, z), forms, z)
    for classes in (35, 5_994):
        classifier = partial(of_cosines, z, torch.randn(classes, 512), labels)
        rows += beside(
            "cross-entropy",
            partial(classifier, F.cross_entropy),
            {f"focal, {classes:,} classes": partial(classifier, Focal())},
            z,
        )
    return rows


def beside(peer: str, other: Callable[[], Tensor], forms: dict[str, Callable[[], Tensor]], z: Tensor) -> list[Row]:
    """Time and memory, forward and backward, of losses of z as multiples of another's."""
    works = [partial(gradient, form, z) for form in (other, *forms.values())]
    seconds, memory = least(works, 8), [height(work) for work in works]
    rows = []
    for name, time_, peak in zip(forms, seconds[1:], memory[1:]):
        rows.append(
            (f"{name}, 512 rows: time", f"{time_ / seconds[0]:.2f} x", "3 x", f"{peer}: {1000 * seconds[0]:.1f} ms")
        )
        rows.append(
            (
                f"{name}, 512 rows: memory",
                f"{peak / memory[0]:.2f} x",
                "",
                f"{peak / 2**20:.1f} MB; {peer}: {memory[0] / 2**20:.1f} MB",
            )
        )
    return rows


def of_cosines(z: Tensor, weight: Tensor, labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Of cosines times 30, as a classifier of speakers gives them."""
    return criterion(30 * F.normalize(z) @ F.normalize(weight).T, labels)


def gradient(form: Callable[[], Tensor], z: Tensor) -> Tensor:
    return torch.autograd.grad(form(), z)[0]


PARTS = {
    "symmetric": symmetric_rows,
    "chunked": chunked_rows,
    "huge": huge_rows,
    "moco": moco_rows,
    "angular": angular_rows,
    "collisions": collisions_rows,
}


def main() -> None:
    """Run the parts and write what they measured."""
    torch.set_num_threads(1)
    seed_everything(0)
    run("losses", __doc__, "speed of the losses", f"CPU, one thread, D = 512, torch {torch.__version__}", PARTS)


if __name__ == "__main__":
    sys.exit(command.run(main))
