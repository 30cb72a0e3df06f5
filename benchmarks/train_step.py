"""Training as the recipes do it: crops a second end to end beside the encoder alone, and where a step's time goes.

    python benchmarks/train_step.py [--recipes simclr_am-ecapa,...] [--out results/benchmarks/training.json]
    python benchmarks/train_step.py --device cuda --precision bf16 --ecapa 1024 --batch 256 --steps 50 --workers 15
    python benchmarks/train_step.py --parts [--recipes simclr_am-ecapa] [--out results/benchmarks/train_step.json]

End to end is the loader with its workers, augmentation, features, the method, its backward pass and the optimiser. The
limit is the encoder's forward and backward pass on frames that lie there already; MoCo's includes the forward pass of
its key encoder. Each recipe runs in a process of its own, on the built-in corpus; memory is the most that PyTorch
allocated on a GPU, and on a CPU the most that the process took. With --parts each part of a step is timed by itself on
one batch, and the least of several repeats is shown; reading and drawing are done by workers beside the step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from parts import least
from torch import nn

from sv_ssl import audio
from sv_ssl.audio.noise import Noise, Noises, Reverberation, Rooms
from sv_ssl.audio.transform import Pipeline
from sv_ssl.core import command
from sv_ssl.core.errors import InputError
from sv_ssl.core.host import cores
from sv_ssl.core.seeds import seed_everything, stream
from sv_ssl.data import Batch, Batches, FileReader, Views, collate, manifest, to_batch
from sv_ssl.data.loader import TimedLoader, loader
from sv_ssl.data.synthetic import corpus as synthetic
from sv_ssl.losses import InfoNCE, MarginSoftmax, NTXent
from sv_ssl.losses.margin import additive, angular
from sv_ssl.methods import MoCo, SimCLR
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34
from sv_ssl.reporting import record

PARTS = ("augment", "features", "encoder", "loss", "optimiser")
COLUMNS = (
    "recipe",
    "crops/s, end to end",
    "crops/s, the encoder alone",
    "ratio",
    "waiting for data",
    "peak memory",
    "an epoch of VoxCeleb2 on 1, 8, 64 of these",
)
VOXCELEB2, SPEAKERS, WARM = 1_092_009, 5_994, 2
RATE = 16000
# What the YAMLs of recipes/voxceleb say.
METHODS: dict[str, Callable[[Embedder], Any]] = {
    "simclr_am": lambda embedder: SimCLR(embedder, NTXent(1 / 30, partial(additive, m=0.1))),
    "moco_am": lambda embedder: MoCo(embedder, InfoNCE(0.03, partial(additive, m=0.1))),
    "aam_softmax": lambda embedder: SimCLR(
        embedder, MarginSoftmax(embedder.dim, SPEAKERS, partial(angular, m=0.2), scale=30.0)
    ),
}
RECIPES = [f"{method}-{encoder}" for encoder in ("resnet34", "ecapa") for method in METHODS]


def embedder_of(recipe: str, arguments: argparse.Namespace) -> Embedder:
    if recipe.endswith("ecapa"):
        return Embedder(LogMel(80), ECAPA(80, int(arguments.ecapa) if arguments.ecapa.isdigit() else arguments.ecapa))
    return Embedder(LogMel(40), FastResNet34(40, arguments.resnet34))


def folder_of(arguments: argparse.Namespace) -> Path:
    return Path(arguments.corpus) if arguments.corpus else synthetic.corpus()


def views_of(arguments: argparse.Namespace) -> Views:
    """The built-in corpus, often enough for the steps to be of one epoch."""
    corpus = folder_of(arguments)
    transforms = Pipeline([Reverberation(Rooms(corpus / "rir")), Noise(Noises(corpus / "noise"))])
    frame = manifest.read(corpus / "train.csv")
    times = -(-arguments.batch * (arguments.steps + WARM + 1) // len(frame))
    reader = FileReader(pd.concat([frame] * times, ignore_index=True), RATE)
    return Views(reader, crop_seconds=arguments.seconds, transforms=transforms)


# --- end to end -----------------------------------------------------------------------------------------------------


def measured(recipe: str, arguments: argparse.Namespace) -> dict[str, float]:
    """A recipe -> crops a second end to end and of the encoder alone, share of waiting, bytes at the height."""
    seed_everything(0)
    on_gpu = "cuda" in arguments.device
    method = METHODS[recipe.partition("-")[0]](embedder_of(recipe, arguments)).to(arguments.device).train()
    if arguments.compile:
        method.embedder.encoder.compile()
    views = views_of(arguments)
    batches = Batches(len(views), arguments.batch, seed=0)
    train = loader(views, batches, arguments.workers, pin_memory=on_gpu)
    seconds = steps(method, train, views.transforms, arguments)
    waiting = train.waited / seconds
    limit = encoder_seconds(method, arguments)
    height = torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rate": 2 * arguments.batch * arguments.steps / seconds,
        "limit": 2 * arguments.batch / limit,
        "waiting": waiting,
        "memory": height,
    }


def steps(method: Any, train: TimedLoader, transforms: Pipeline | None, arguments: argparse.Namespace) -> float:
    """Seconds of the steps after the first ones, which warm up."""
    optimizer = torch.optim.Adam(method.parameters(), 1e-3)
    began = 0.0
    for number, raw in enumerate(train):
        if number == WARM:
            synchronise(arguments)
            began, train.waited = time.perf_counter(), 0.0
        elif number == WARM + arguments.steps:
            break
        batch = to_batch(raw, transforms, arguments.device)
        rows = batch.rows % SPEAKERS  # utterances stand for speakers, of which a classifier has enough
        with low_precision(arguments):
            loss = method(Batch(batch.views, rows)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(method.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.on_step_end(0.0)
    synchronise(arguments)
    return time.perf_counter() - began


def encoder_seconds(method: Any, arguments: argparse.Namespace) -> float:
    """Of a step's encoder alone, on frames that lie on the device."""
    waves = torch.randn(2 * arguments.batch, round(arguments.seconds * RATE), device=arguments.device)
    frames = method.embedder.features(waves)

    def step() -> None:
        with low_precision(arguments):
            made = method.embedder.encoder(frames)
            if isinstance(method, MoCo):
                with torch.no_grad():
                    method.key[0].encoder(frames)
        made.backward(torch.ones_like(made))
        synchronise(arguments)

    least(step, WARM)
    return least(step, max(2, arguments.steps // 2))


def low_precision(arguments: argparse.Namespace) -> AbstractContextManager:
    return torch.autocast(torch.device(arguments.device).type, torch.bfloat16, enabled=arguments.precision == "bf16")


def synchronise(arguments: argparse.Namespace) -> None:
    if "cuda" in arguments.device:
        torch.cuda.synchronize()


def end_to_end(arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """A line a recipe."""
    folder_of(arguments)  # it is made before the clocks run
    for recipe in arguments.recipes:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(measured, recipe, arguments).result()
        hours = 2 * VOXCELEB2 / found["rate"] / 3600
        yield (
            recipe,
            f"{found['rate']:,.1f}",
            f"{found['limit']:,.1f}",
            f"{found['rate'] / found['limit']:.2f}",
            f"{found['waiting']:.1%}",
            f"{found['memory'] / 1e9:.2f} GB",
            ", ".join(f"{hours / devices:,.2f}" for devices in (1, 8, 64)) + " h",
        )


# --- part by part ---------------------------------------------------------------------------------------------------


def part_by_part(recipe: str, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """A line a part of a step of SimCLR-AM with the recipe's encoder, on a CPU."""
    seed_everything(0)
    views, embedder = views_of(arguments), embedder_of(recipe, arguments)
    raw = collate([views[1, i] for i in range(arguments.batch)])
    parts = step_parts(embedder, views.transforms, raw, arguments.steps)
    worker = worker_parts(views, arguments.batch, arguments.steps)
    total = sum(parts.values())
    light = sum(parts[name] for name in ("augment", "features", "loss")) / total
    for name in PARTS:
        yield name, f"{1000 * parts[name]:.1f} ms", f"{parts[name] / total:.1%}"
    yield "the whole step", f"{1000 * total:.1f} ms", f"{2 * arguments.batch / total:.1f} crops/s"
    yield "augment + features + loss", "", f"{light:.1%}"
    for name, seconds in worker.items():
        yield f"a worker's {name}, an utterance", f"{1000 * seconds / arguments.batch:.2f} ms", "beside the step"
    for name, seconds in worker_formats(views, arguments.steps):
        yield f"a worker's utterance from {name}", f"{1000 * seconds:.2f} ms", "limit 0.6 ms"


def worker_parts(views: Views, batch: int, repeats: int) -> dict[str, float]:
    """Seconds of one worker for a batch: the crops read, the noises and rooms drawn."""
    keys = [(1, i % len(views)) for i in range(batch)]
    both = least(lambda: [views[key] for key in keys], repeats)
    views.transforms, transforms = None, views.transforms
    read = least(lambda: [views[key] for key in keys], repeats)
    views.transforms = transforms
    return {"read": read, "draw": both - read}


def worker_formats(views: Views, repeats: int, n: int = 16) -> Iterator[tuple[str, float]]:
    """Seconds of one worker for an utterance of a kind and length: read, cropped, its noise and room drawn."""
    rng = stream(0, "recordings")
    for ending, seconds in (("wav", 8), ("flac", 8), ("wav", 120), ("flac", 120)):
        with tempfile.TemporaryDirectory() as folder:
            samples = RATE * seconds
            wavs = [str(Path(folder) / f"{i}.{ending}") for i in range(n)]
            for wav in wavs:  # as loud and as hard to pack as speech: noise of a low pass
                noise = np.convolve(rng.standard_normal(samples), np.hanning(16), "same")
                audio.write(wav, 0.02 * noise, RATE)
            frame = pd.DataFrame({"ID": wavs, "wav": wavs, "start": 0, "stop": samples, "duration": float(seconds)})
            made = Views(FileReader(frame, RATE), crop_seconds=views.n_samples / RATE, transforms=views.transforms)
            yield f"{ending.upper()} of {seconds} s", least(lambda: [made[1, i] for i in range(n)], repeats) / n


def step_parts(embedder: Embedder, transforms: Pipeline | None, raw: dict, repeats: int) -> dict[str, float]:
    """Seconds of each part of the step itself, forward and backward together."""
    encoder, loss = embedder.encoder, NTXent(1 / 30, partial(additive, m=0.1))
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-3)
    batch = to_batch(raw, transforms, "cpu")
    wave = batch.views.flatten(0, 1)
    frames, labels = embedder.features(wave), batch.rows.repeat(len(batch.views))
    z = encoder(frames)
    gradient = torch.randn_like(z)
    leaf = z.detach().requires_grad_()
    return {
        "augment": least(lambda: to_batch(raw, transforms, "cpu"), repeats),
        "features": least(lambda: embedder.features(wave), repeats),
        "encoder": least(lambda: encoder(frames).backward(gradient), repeats),
        "loss": least(lambda: loss(leaf, labels).backward(), repeats),
        "optimiser": least(optimizer.step, repeats),
    }


# --- the run --------------------------------------------------------------------------------------------------------


def parsed() -> argparse.Namespace:
    parser = command.Parser(prog="train_step.py", description=__doc__)
    add = parser.add_argument
    add("--recipes", type=lambda text: text.split(","), metavar="NAMES", help=f"of {', '.join(RECIPES)} (default: all)")
    add("--parts", action="store_true", help="where the time of a SimCLR-AM step goes, by default with ECAPA")
    add("--device", default="cpu")
    add("--precision", choices=("fp32", "bf16"), default="fp32")
    add("--compile", action="store_true", help="the encoder by torch.compile")
    add("--resnet34", default="paper", metavar="SIZE", help="of Fast ResNet-34: paper (default) or small")
    add("--ecapa", default="512", metavar="SIZE", help="of ECAPA-TDNN: 512 (default), 1024 or small")
    add("--batch", type=int, default=8, metavar="N", help="utterances, of two crops each (default 8)")
    add("--seconds", type=float, default=2.0, help="of a crop (default 2)")
    add("--steps", type=int, default=4, metavar="N", help="that are timed (default 4)")
    add("--workers", type=int, default=1, metavar="N", help="of the loader (default 1)")
    add("--corpus", metavar="FOLDER", help="train.csv, noise and rir, in place of the built-in corpus")
    add("--out", metavar="FILE", help="JSON for `python -m sv_ssl.results`")
    arguments = parser.parse_args()
    arguments.recipes = arguments.recipes or (["simclr_am-ecapa"] if arguments.parts else RECIPES)
    if unknown := [recipe for recipe in arguments.recipes if recipe not in RECIPES]:
        raise InputError(f"--recipes {unknown[0]!r}: choose of {', '.join(RECIPES)}")
    if "cuda" in arguments.device and not torch.cuda.is_available():
        raise InputError(f"--device {arguments.device}: there is no GPU here that PyTorch can use")
    if arguments.parts and (arguments.device != "cpu" or len(arguments.recipes) > 1):
        raise InputError("--parts is of one recipe on a CPU")
    return arguments


def main() -> None:
    """Print each line as it is there, write all."""
    arguments = parsed()
    lines = []
    for line in part_by_part(arguments.recipes[0], arguments) if arguments.parts else end_to_end(arguments):
        print("  |  ".join(line), flush=True)
        lines.append(line)
    if not arguments.out:
        return
    cuda = "cuda" in arguments.device
    device = (
        f"{torch.cuda.get_device_name(arguments.device)}, {cores()} cores"
        if cuda
        else f"CPU, {torch.get_num_threads()} threads"
    )
    about = (
        f"`python {' '.join(['benchmarks/train_step.py', *sys.argv[1:]])}`: {arguments.batch} x 2 crops of "
        f"{arguments.seconds:g} s, {arguments.precision}, ECAPA-{arguments.ecapa}, Fast ResNet-34 "
        f"{arguments.resnet34}; {device}, torch {torch.__version__}."
    )
    if arguments.parts:
        record.write_benchmark(arguments.out, "speed of a training step", about, ("part", "time", "share"), lines)
    else:
        about += (
            f" VoxCeleb2: {VOXCELEB2:,} utterances x 2 crops; several devices as if nothing were lost between "
            "them. The limit of the ratio is 0.85, on an H200 in bf16 with 16 cores."
        )
        record.write_benchmark(arguments.out, "speed of training", about, COLUMNS, lines)


if __name__ == "__main__":
    sys.exit(command.run(main))
