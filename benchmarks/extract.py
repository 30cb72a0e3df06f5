"""Embeddings a second: ours beside SpeechBrain's loop and its padded batches of 8, with the same weights and features.

    python benchmarks/extract.py [--files 200] [--encoders ecapa512,ecapa1024,resnet34] [--out FILE]

Recordings of 4 to 10 s, whole, from a 16-bit WAV to the embedding. One core is one thread; on two, ours are two
processes of one thread each and SpeechBrain's is one process of two threads. The files are dealt into rounds, in which
the systems take turns, and a system's best round counts: a slow minute hits all of them. Processes are started and
models loaded before the clock is; so that two processes are well under way, they get all files once and the first two
fifths are not counted. SpeechBrain has no Fast ResNet-34: there it runs ours. bf16 and padded batches, slow on many
CPUs, get the first round or a part of it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sv_ssl import audio
from sv_ssl.core import command
from sv_ssl.core.errors import InputError
from sv_ssl.core.seeds import seed_everything, stream
from sv_ssl.data.sources import Utterance
from sv_ssl.embeddings import extraction, workers
from sv_ssl.embeddings.store import unit
from sv_ssl.models import folder as model
from sv_ssl.models import onnx as export
from sv_ssl.models.ecapa import ECAPA
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import SpeechBrainFbank
from sv_ssl.models.for_speechbrain import ForSpeechBrain
from sv_ssl.models.resnet import FastResNet34
from sv_ssl.reporting import record

COLUMNS = (
    "encoder",
    "system",
    "precision",
    "cores",
    "files",
    "utt/s",
    "x real time",
    "of SpeechBrain's loop",
    "of one core",
    "differs from ours by",
)
RATE, PADDED = 16000, 8
# Encoder, its arguments, and one of how many files it is timed on.
ENCODERS: dict[str, tuple[type, dict[str, Any], int]] = {
    "ecapa512": (ECAPA, dict(n_mels=80, size=512), 1),
    "ecapa1024": (ECAPA, dict(n_mels=80, size=1024), 2),
    "resnet34": (FastResNet34, dict(n_mels=40, size="paper"), 1),
    "small": (FastResNet34, dict(n_mels=40, size="small"), 1),  # to try this program
}


class System(NamedTuple):
    """What is timed. With `every`, the first round alone and one of so many of its files."""

    name: str
    part: str  # what --only calls it
    precision: str
    every: int = 0


BASE = System("SpeechBrain's loop", "loop", "fp32")
OURS = System("ours", "ours", "fp32")


def fast_bf16() -> bool:
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


LOW = 1 if fast_bf16() else 3
SYSTEMS = (
    OURS,
    System("ours, onnxruntime", "onnx", "fp32"),
    BASE,
    System("ours", "ours", "bf16", LOW),
    System("SpeechBrain's loop", "loop", "bf16", LOW),
    System("SpeechBrain's padded 8", "padded", "fp32", 1),
)
LIMITS = {OURS: 1.0, SYSTEMS[1]: 1.5, SYSTEMS[3]: 1.5}


class Timed(NamedTuple):
    """A system's pass over some files: what was embedded while the clock ran."""

    rows: np.ndarray  # (N, dim), of all the files
    files: int
    audio_seconds: float
    seconds: float


# --- in a process of its own ----------------------------------------------------------------------------------------


def start(threads: int) -> None:
    torch.set_num_threads(threads)


def work(system: System, cores: int, folder: str, wavs: list[str]) -> Timed:
    """Embed the files by a system, the clock running once it is warm."""
    if system.part in ("loop", "padded"):
        return by_speechbrain(system, folder, wavs)
    embedder = ours(folder if system.part == "ours" else f"{folder}.onnx")
    extractor = extraction.Extractor(embedder, extraction.Options(system.precision), None)
    utterances = [Utterance(wav, wav) for wav in wavs]
    if cores == 1:
        list(extractor(utterances[:1]))
        began = time.perf_counter()
        return timed(list(extractor(utterances)), 0, began)
    # The clock starts when both processes have been at work for a while: two fifths of the files are not counted.
    warm = 2 * len(wavs) // 5
    done, began = [], time.perf_counter()
    for one in workers.in_processes(extractor, utterances, cores):
        done.append(one)
        if len(done) == warm:
            began = time.perf_counter()
    return timed(done, warm, began)


def timed(done: list[extraction.Embedded], warm: int, began: float) -> Timed:
    seconds = time.perf_counter() - began
    if faults := [one.result for one in done if isinstance(one.result, InputError)]:
        raise faults[0]
    counted, rows = done[warm:], np.concatenate([one.result for one in done])
    return Timed(rows, len(counted), sum(one.seconds for one in counted), seconds)


@cache
def ours(folder: str) -> Embedder:
    return model.load(folder)


def by_speechbrain(system: System, folder: str, wavs: list[str]) -> Timed:
    """SpeechBrain's reading, batching and calls; a batch is padded to its longest, of the next in length."""
    from speechbrain.dataio.batch import PaddedBatch
    from speechbrain.dataio.dataio import read_audio

    def embeddings(paths: Sequence[str]) -> list[np.ndarray]:
        if system.part == "loop":
            return [classifier.encode_batch(read_audio(wav))[:, 0].float().numpy() for wav in paths]
        ordered = sorted(paths, key=os.path.getsize)
        groups = [ordered[i : i + PADDED] for i in range(0, len(ordered), PADDED)]
        batches = (PaddedBatch([{"wave": read_audio(wav)} for wav in group]) for group in groups)
        made = np.concatenate([classifier.encode_batch(*batch.wave)[:, 0].numpy() for batch in batches])
        return [made[np.argsort(np.argsort([os.path.getsize(wav) for wav in paths], kind="stable"))]]

    classifier = peer(folder)
    low = torch.autocast("cpu", torch.bfloat16) if system.precision == "bf16" else nullcontext()
    with torch.no_grad(), low:
        embeddings(wavs[:1])
        began = time.perf_counter()
        rows = np.concatenate(embeddings(wavs))
    return Timed(rows, len(wavs), seconds_of(wavs), time.perf_counter() - began)


@cache
def peer(folder: str) -> Any:
    """SpeechBrain's EncoderClassifier of its own modules, with the folder's weights."""
    from speechbrain.inference.classifiers import EncoderClassifier
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.processing.features import InputNormalization

    encoder = ours(folder).encoder
    plain: torch.nn.Module = ForSpeechBrain(encoder)
    if isinstance(encoder, ECAPA):
        width = ECAPA.SIZES[encoder.config["size"]]
        plain = ECAPA_TDNN(
            encoder.config["n_mels"], lin_neurons=encoder.dim, channels=[width["width"]] * 4 + [width["last"]]
        )
        plain.load_state_dict(encoder.tdnn.state_dict())
    modules = {
        "compute_features": Fbank(n_mels=encoder.config["n_mels"]),
        "embedding_model": plain,
        "mean_var_norm": InputNormalization(norm_type="sentence", std_norm=False),
        "classifier": torch.nn.Identity(),
    }
    return EncoderClassifier(modules=modules, hparams={}, run_opts={"device": "cpu"})


def seconds_of(wavs: Sequence[str]) -> float:
    return sum(audio.info(wav).frames for wav in wavs) / RATE


# --- the run --------------------------------------------------------------------------------------------------------


class Pools(ExitStack):
    """A process for each system and number of cores, with the number of threads that fits, kept to the end."""

    def __init__(self) -> None:
        super().__init__()
        self.pools: dict[tuple[str, int], ProcessPoolExecutor] = {}

    def run(self, system: System, cores: int, folder: str, wavs: list[str]) -> Timed:
        key = "speechbrain" if system.part == "padded" else system.part.replace("loop", "speechbrain"), cores
        if key not in self.pools:
            threads = cores if key[0] == "speechbrain" else 1
            os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
            context = multiprocessing.get_context("spawn")
            self.pools[key] = self.enter_context(ProcessPoolExecutor(1, context, start, (threads,)))
        return self.pools[key].submit(work, system, cores, folder, wavs).result()


def recordings(folder: Path, n: int) -> list[str]:
    """n files of noise, whose lengths are even from 4 to 10 s in any part of the list."""
    rng = stream(0, "recordings")
    wavs = []
    for i in range(n):
        samples = round((4 + 6 * (i * 0.6180339887 % 1)) * RATE)
        wavs.append(str(folder / f"{i:04d}.wav"))
        audio.write(wavs[-1], 0.1 * rng.standard_normal(samples), RATE)
    return wavs


def untrained(folder: Path, name: str, onnx: bool) -> str:
    """A model folder of random weights whose BatchNorms have seen some noise; .onnx beside it."""
    seed_everything(0)
    kind, arguments, _ = ENCODERS[name]
    embedder = Embedder(SpeechBrainFbank(arguments["n_mels"]), kind(**arguments))
    with torch.no_grad():
        for _ in range(3):
            embedder.train()(0.1 * torch.randn(4, RATE))
    model.save(folder / name, embedder.eval(), {"name": name})
    if onnx:
        export.to_onnx(embedder, folder / f"{name}.onnx")
    return str(folder / name)


def rows(
    systems: Sequence[System], names: Sequence[str], n: int, rounds: int, all_cores: Sequence[int]
) -> Iterator[tuple[str, ...]]:
    """A line an encoder, system, precision and number of cores."""
    with tempfile.TemporaryDirectory() as temporary, Pools() as pools:
        wavs = recordings(Path(temporary), n)
        for name in names:
            folder = untrained(Path(temporary), name, any(system.part == "onnx" for system in systems))
            wanted = [(system, cores) for cores in all_cores for system in systems]
            found: dict[tuple[System, int], list[Timed]] = {key: [] for key in wanted}
            for number in range(rounds):
                some = wavs[number::rounds][:: ENCODERS[name][2]]
                for system, cores in wanted:
                    if several(system, cores):
                        if number == 0:
                            found[system, cores].append(pools.run(system, cores, folder, wavs[:: ENCODERS[name][2]]))
                    elif number == 0 or not system.every:
                        found[system, cores].append(pools.run(system, cores, folder, some[:: system.every or 1]))
            for key in wanted:
                yield line(name, key, found, rounds)


def several(system: System, cores: int) -> bool:
    """Whether these are processes, not threads of one."""
    return cores > 1 and system.part in ("ours", "onnx")


def line(
    name: str, key: tuple[System, int], found: dict[tuple[System, int], list[Timed]], rounds: int
) -> tuple[str, ...]:
    """The cells of a system; ratios are of audio embedded in a second."""
    (system, cores), first = key, found[key][0]
    best = max(found[key], key=lambda timed: timed.audio_seconds / timed.seconds)
    speed = {other: max(timed.audio_seconds / timed.seconds for timed in made) for other, made in found.items()}
    against, limit = speed.get((BASE, cores)), LIMITS.get(system)
    ratio = f"{speed[key] / against:.2f} x" + (f" (limit {limit:g})" if limit else "") if against else ""
    scaling = f"{speed[key] / speed[system, 1]:.2f} x" if cores > 1 and (system, 1) in speed else ""
    same = found.get((OURS, 1))
    rows = first.rows[::rounds] if several(*key) else first.rows
    every = 1 if several(*key) else system.every or 1
    apart = "" if not same else f"{abs(unit(rows) - unit(same[0].rows[::every])).max():.0e}"
    return (
        name,
        system.name,
        system.precision,
        str(cores),
        str(sum(len(timed.rows) for timed in found[key])),
        f"{best.files / best.seconds:.2f}",
        f"{speed[key]:.1f}",
        ratio,
        scaling,
        apart,
    )


def main() -> None:
    """Print each line as it is there, write all."""
    arguments = parsed()
    systems = [system for system in SYSTEMS if system.part in arguments.only]
    if "onnx" in arguments.only and not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
        print("without onnxruntime: pip install 'sv_ssl[onnx]'")
        systems = [system for system in systems if system.part != "onnx"]
    cores = [count for count in (1, 2) if count <= arguments.cores]
    lines = []
    for cells in rows(systems, arguments.encoders, arguments.files, arguments.repeats, cores):
        print("  |  ".join(cells), flush=True)
        lines.append(cells)
    if arguments.out:
        native = torch.backends.cpu.get_cpu_capability() + ("" if fast_bf16() else ", no bf16 instructions")
        about = (
            f"`python benchmarks/extract.py --files {arguments.files} --repeats {arguments.repeats}`: files of 4 "
            f"to 10 s, whole; CPU ({native}), torch {torch.__version__}. The same weights (random) and features "
            "(SpeechBrain's Fbank) in all. On two cores the limit is close to 2 x of one core."
        )
        record.write_benchmark(arguments.out, "speed of extraction", about, COLUMNS, lines)


def parsed() -> Any:
    parser = command.Parser(prog="extract.py", description=__doc__)
    parts = list(dict.fromkeys(system.part for system in SYSTEMS))
    usual = [name for name in ENCODERS if name != "small"]
    add = parser.add_argument
    add("--files", type=int, default=200, metavar="N", help="recordings (default 200); ecapa1024 takes every second")
    add(
        "--encoders",
        type=lambda text: text.split(","),
        default=usual,
        metavar="NAMES",
        help=f"of {', '.join(ENCODERS)}",
    )
    add("--only", type=lambda text: text.split(","), default=parts, metavar="SYSTEMS", help=f"of {', '.join(parts)}")
    add("--repeats", type=int, default=3, metavar="N", help="rounds that the files are dealt into (default 3)")
    add("--cores", type=int, default=2, metavar="N", help="1: without the lines of two cores")
    add("--out", metavar="FILE", help="JSON for `python -m sv_ssl.results`")
    arguments = parser.parse_args()
    for option, known in (("encoders", ENCODERS), ("only", parts)):
        if unknown := [name for name in getattr(arguments, option) if name not in known]:
            raise InputError(f"--{option} {unknown[0]!r}: choose of {', '.join(known)}")
    if not 1 <= arguments.repeats <= arguments.files:
        raise InputError(f"--repeats {arguments.repeats}: wanted 1 to --files {arguments.files}")
    return arguments


if __name__ == "__main__":
    sys.exit(command.run(main))
