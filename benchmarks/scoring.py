"""How fast the scorer is, each line beside what it is measured by: a sort, a matrix product, a peer's function.

    python benchmarks/scoring.py [--only metrics,process,...] [--out results/benchmarks/scoring.json]

Every figure is the least of several runs on an otherwise idle machine. Processes are timed from a cold start, with the
files in the page cache. VoxCeleb1-O's list is made up where it is not at hand: same counts, random embeddings.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
from parts import Row, least, run

from sv_ssl.core import command
from sv_ssl.core.host import cores
from sv_ssl.core.seeds import stream
from sv_ssl.embeddings import store
from sv_ssl.verification import bootstrap, metrics, normalise

POINTS = ((0.01, 1, 1), (0.05, 1, 1), (0.001, 1, 1))


def cosine_like(n: int) -> tuple[np.ndarray, np.ndarray]:
    """n float32 scores, n labels: an EER of about 0.75 %."""
    rng = stream(0, "scores")
    labels = rng.random(n) < 0.5
    scores = rng.normal(size=n).astype(np.float32) * np.float32(0.11)
    return scores + labels * np.float32(0.535), labels


def metrics_rows() -> list[Row]:
    """EER and minDCFs against one sort, and the memory they take."""
    rows = []
    for n, repeats in ((5_000_000, 5), (50_000_000, 2)):
        scores, labels = cosine_like(n)
        ours = least(lambda: metrics.headline(scores, labels, POINTS), repeats)
        tracemalloc.start()
        metrics.headline(scores, labels, POINTS)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        sort = least(lambda: np.sort(scores), repeats)
        rows.append(
            (
                f"EER and 3 minDCFs of {n / 1e6:.0f} million float32 trials",
                f"{ours / sort:.2f} x",
                "0.5 x" if n < 10**7 else "12 GB",
                f"np.sort: {1000 * sort:.0f} ms",
            )
        )
        rows.append(
            (
                f"its peak memory at {n / 1e6:.0f} million, beyond the scores and labels",
                f"{peak / scores.nbytes:.2f} x",
                "8 x",
                f"the scores: {scores.nbytes / 1e6:.0f} MB",
            )
        )
    return rows


def bootstrap_rows() -> list[Row]:
    """1,000 replicates of VoxCeleb1-O."""
    rng = stream(0, "speakers")
    scores, labels = cosine_like(37_611)
    enroll = rng.integers(0, 40, len(labels))
    test = np.where(labels, enroll, (enroll + rng.integers(1, 40, len(labels))) % 40)
    seconds = least(lambda: bootstrap.bootstrap(scores, labels, enroll, test), 2)
    return [("1,000 speaker-level bootstrap replicates, 37,611 trials", f"{seconds:.2f} s", "1.5 s", "")]


def norm_rows() -> list[Row]:
    """AS-norm statistics against the product alone."""
    rng = stream(0, "embeddings")
    rows, cohort = (store.unit(rng.normal(size=(n, 192)).astype(np.float32)) for n in (4708, 20_000))
    seconds = least(lambda: normalise.statistics(rows, cohort, 300), 3)
    product = least(lambda: rows @ cohort.T, 3)
    return [
        (
            "AS-norm: 4,708 against a cohort of 20,000 x 192, top 300",
            f"{seconds:.2f} s",
            "2 s",
            f"the product alone: {product:.2f} s",
        )
    ]


def peer_rows() -> list[Row]:
    """SpeechBrain's own EER and minDCF on 37,720 trials. Its minDCF takes 18 GB there, so it is run on an eighth."""
    import torch
    from speechbrain.utils.metric_stats import EER, minDCF

    scores, labels = cosine_like(37_720)
    target, other = (torch.from_numpy(scores[labels == kind]) for kind in (True, False))
    start = time.perf_counter()
    rate, _ = EER(target, other)
    theirs = time.perf_counter() - start
    ours = least(lambda: metrics.eer(scores, labels))
    gap = abs(rate - metrics.eer(scores, labels)[0])
    rows = [
        (
            "EER of 37,720 trials",
            f"{theirs / ours:,.0f} times as fast",
            "1,000",
            f"SpeechBrain: {theirs:.2f} s; difference {gap:.0e}: it takes the nearest point, in steps of "
            f"{1 / len(target):.0e}, where ours lies between two",
        )
    ]
    eighth = slice(0, 37_720 // 8)
    target, other = (torch.from_numpy(scores[eighth][labels[eighth] == kind]) for kind in (True, False))
    start = time.perf_counter()
    cost, _ = minDCF(target, other)
    theirs = 64 * (time.perf_counter() - start)
    gap = abs(cost / 0.01 - metrics.min_dcf(scores[eighth], labels[eighth], 0.01)[0])
    ours = least(lambda: metrics.min_dcf(scores, labels, 0.01))
    rows.append(
        (
            "minDCF of 37,720 trials",
            f"{theirs / ours:,.0f} times as fast",
            "5,000",
            f"SpeechBrain: {theirs:.1f} s, 64 x its time on an eighth; difference there {gap:.0e}",
        )
    )
    return rows


def process_rows() -> list[Row]:
    """The whole command on lists of growing size."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, n, utterances, limit, memory in (
            ("VoxCeleb1-O's size", 37_611, 4_708, "0.4 s", ""),
            ("VoxCeleb1-E's size", 579_818, 145_160, "2 s", "1 GB"),
            ("10 million trials", 10_000_000, 145_160, "12 s", "4 GB"),
        ):
            trials, rows_file = make_list(Path(folder), n, utterances)
            command = [sys.executable, "-m", "sv_ssl.cli.score", trials, "--embeddings", rows_file]
            runs = [timed(command) for _ in range(5 if n < 10**6 else 2)]
            seconds, peak = min(runs)[0], max(run[1] for run in runs)
            rows.append(
                (
                    f"sv-score, {name}: {n:,} trials, {utterances:,} x 192",
                    f"{seconds:.2f} s, {peak:.2f} GB",
                    limit + (f", {memory}" if memory else ""),
                    "whole process",
                )
            )
    shown = min(timed([sys.executable, "-m", "sv_ssl.cli.score", "--help"]) for _ in range(5))[0]
    rows.append(("sv-score --help", f"{shown:.2f} s", "0.3 s", "whole process"))
    return rows


def make_list(folder: Path, n: int, utterances: int) -> tuple[str, str]:
    """A list of VoxCeleb's form, grouped by enrolment, and random embeddings."""
    rng = stream(0, "trials")
    ids = [f"id{10_000 + i // 120:05d}/{hash_of(i):010x}x/{i:05d}.wav" for i in range(utterances)]
    enroll, test = np.sort(rng.integers(0, utterances, n)).tolist(), rng.integers(0, utterances, n).tolist()
    with open(folder / "trials.txt", "w", encoding="utf-8") as file:
        file.writelines(f"{(e + t) % 2} {ids[e]} {ids[t]}\n" for e, t in zip(enroll, test))
    store.write(folder / "emb.npz", ids, rng.normal(size=(utterances, 192)).astype(np.float32))
    return str(folder / "trials.txt"), str(folder / "emb.npz")


def hash_of(i: int) -> int:
    return (i // 12 * 2654435761) % (1 << 40)


def timed(command: list[str]) -> tuple[float, float]:
    """A command -> wall seconds, peak gigabytes."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e9


PARTS = {
    "process": process_rows,
    "metrics": metrics_rows,
    "bootstrap": bootstrap_rows,
    "norm": norm_rows,
    "peers": peer_rows,
}


def main() -> None:
    """Run the parts and write what they measured."""
    run("scoring", __doc__, "speed of scoring", f"CPU, {cores()} cores, numpy {np.__version__}", PARTS)


if __name__ == "__main__":
    sys.exit(command.run(main))
