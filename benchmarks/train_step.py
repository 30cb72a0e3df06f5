"""Where a SimCLR-AM training step spends its time: read, draw, augment, features, encoder, loss, optimiser.

    python benchmarks/train_step.py [--encoder ECAPA] [--size 512] [--batch 64] [--seconds 2] [--repeats 5] [--out FILE]

Each part is timed by itself on the same batch, over several repeats; the least is printed, since what slows a repeat
down is the machine. Reading and drawing are done by the loader's workers beside the step, so they are listed apart.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from typing import Callable

import torch

from sv_ssl import augment, cli, data, encoders, manifest, results, synthetic
from sv_ssl.features import LogMel
from sv_ssl.losses import NTXent
from sv_ssl.losses.margin import additive

PARTS = ("augment", "features", "encoder", "loss", "optimiser")


def least(seconds_of: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        seconds_of()
        times.append(time.perf_counter() - start)
    return min(times)


def worker_parts(views: data.Views, batch: int, repeats: int) -> dict[str, float]:
    """Seconds of one worker for a batch: the crops read, the noises and rooms drawn."""
    keys = [(1, i % len(views)) for i in range(batch)]
    both = least(lambda: [views[key] for key in keys], repeats)
    views.augment, drawer = None, views.augment
    read = least(lambda: [views[key] for key in keys], repeats)
    views.augment = drawer
    return {"read": read, "draw": both - read}


def step_parts(encoder: torch.nn.Module, batch: dict, repeats: int) -> dict[str, float]:
    """Seconds of each part of the step itself, forward and backward together."""
    flat = [batch[key].flatten(0, 1) for key in ("views", "noise", "snr_db", "rir")]
    features, loss = LogMel(encoder.config["n_mels"]), NTXent(1 / 30, partial(additive, m=0.1))
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-3)
    wave = augment.apply(*flat)
    frames, labels = features(wave), batch["labels"].repeat(len(batch["views"]))
    z = encoder(frames)
    gradient = torch.randn_like(z)
    leaf = z.detach().requires_grad_()
    return {"augment": least(lambda: augment.apply(*flat), repeats),
            "features": least(lambda: features(wave), repeats),
            "encoder": least(lambda: encoder(frames).backward(gradient), repeats),
            "loss": least(lambda: loss(leaf, labels).backward(), repeats),
            "optimiser": least(optimizer.step, repeats)}


def main() -> None:
    parser = cli.Parser(prog="train_step.py", description=__doc__)
    parser.add_argument("--encoder", default="ECAPA", choices=["ECAPA", "FastResNet34", "ResNet34"])
    parser.add_argument("--size", default="512")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    report(arguments)


def report(arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    corpus = synthetic.corpus()
    drawer = augment.Augment(augment.Noises(corpus / "noise"), augment.Rooms(corpus / "rir"))
    views = data.Views(manifest.read(corpus / "train.csv"), crop_seconds=arguments.seconds, augment=drawer)
    size = int(arguments.size) if arguments.size.isdigit() else arguments.size
    encoder = getattr(encoders, arguments.encoder)(80, size)
    batch = data.collate([views[1, i] for i in range(arguments.batch)])
    parts = step_parts(encoder, batch, arguments.repeats)
    worker = worker_parts(views, arguments.batch, arguments.repeats)
    total = sum(parts.values())
    crops = 2 * arguments.batch
    light = sum(parts[name] for name in ("augment", "features", "loss")) / total
    rows = [[name, f"{1000 * parts[name]:.1f} ms", f"{parts[name] / total:.1%}"] for name in PARTS]
    rows += [["the whole step", f"{1000 * total:.1f} ms", f"{crops / total:.1f} crops/s"],
             ["augment + features + loss", "", f"{light:.1%}"]]  # fmt: skip
    rows += [[f"a worker's {name}, an utterance", f"{1000 * seconds / arguments.batch:.2f} ms", "beside the step"]
             for name, seconds in worker.items()]  # fmt: skip
    for row in rows:
        print(f"{row[0]:<32}{row[1]:>12}  {row[2]}")
    if arguments.out:
        about = (f"`python benchmarks/train_step.py`: {arguments.encoder} {size}, {arguments.batch} x 2 crops of "
                 f"{arguments.seconds:g} s; CPU, {torch.get_num_threads()} threads, torch {torch.__version__}.")
        results.benchmark(arguments.out, "speed of a training step", about, ["part", "time", "share"], rows)


if __name__ == "__main__":
    sys.exit(cli.run(main))
