"""Each kind of sv-index on many made-up speakers: time to enrol, to search, to change, its file, its recall.

    python benchmarks/index.py [--speakers 1000000] [--dim 192] [--only flat,ivf] [--out results/benchmarks/index.json]

Speakers and voices are drawn from normal distributions whose variance falls with the dimension, so that 192 are worth
about 120; a voice's cosine with its speaker is about 0.7. Real speakers lie in clusters, which is easier. Recall is
measured against flat, which is exact: the share of voices whose nearest speaker is found (at 1), and of the ten nearest
(at 10).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import faiss
import numpy as np

from sv_ssl.core import command
from sv_ssl.core.seeds import stream
from sv_ssl.embeddings import search as index
from sv_ssl.reporting import record

COLUMNS = (
    "kind",
    "enrol all",
    "a voice alone",
    "1,000 voices, each",
    "recall at 1, at 10",
    "right speaker",
    "add and remove 100",
    "file",
)
VOICES = 1000


def draw(speakers: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw speakers (N, D) and voices (VOICES, D) of the first of them."""
    rng = stream(0, "speakers and voices")
    scale = ((1 + np.arange(dim)) ** -0.25).astype(np.float32)
    rows = rng.standard_normal((speakers, dim), dtype=np.float32) * scale
    return rows, rows[:VOICES] + rng.standard_normal((VOICES, dim), dtype=np.float32) * scale


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def rows(kinds: list[str], speakers: int, dim: int) -> Iterator[tuple[str, ...]]:
    """Yield the figures of each kind of index."""
    enrolled, voices = draw(speakers, dim)
    names = [f"speaker {i}" for i in range(speakers)]
    exact = index.create("flat", names, enrolled).search(voices, 10)
    truth = [[name for name, _ in one] for one in exact]
    for kind in kinds:
        enrol, found = timed(lambda: index.create(kind, names, enrolled))
        search, nearest = timed(lambda: found.search(voices, 10))
        got = [[name for name, _ in one] for one in nearest]
        alone, _ = timed(lambda: [found.search(voices[i : i + 1], 10) for i in range(50)])
        at = [np.mean([len({*a[:k]} & {*b[:k]}) / k for a, b in zip(got, truth)]) for k in (1, 10)]
        right = np.mean([one[0] == name for one, name in zip(got, names)])
        new = [f"new {i}" for i in range(100)]
        change = timed(lambda: found.add(new, voices[:100]))[0] + timed(lambda: found.remove(new))[0]
        with tempfile.TemporaryDirectory() as folder:
            found.save(f"{folder}/a.index")
            size = os.path.getsize(f"{folder}/a.index")
        yield (
            kind,
            f"{enrol:.1f} s",
            f"{1000 * alone / 50:.1f} ms",
            f"{1000 * search / VOICES:.2f} ms",
            f"{at[0]:.1%}, {at[1]:.1%}",
            f"{right:.1%}",
            f"{1000 * change:.0f} ms",
            f"{size / 1e6:,.0f} MB",
        )


def main() -> None:
    """Print each line as it is there, write all."""
    parser = command.Parser(prog="index.py", description=__doc__)
    add = parser.add_argument
    add("--speakers", type=int, default=1_000_000, metavar="N", help="how many are enrolled (default 1,000,000)")
    add("--dim", type=int, default=192, metavar="D", help="of an embedding (default 192)")
    add("--only", type=lambda text: text.split(","), default=index.KINDS, metavar="KINDS", help="some kinds alone")
    add("--out", metavar="FILE", help="JSON for `python -m sv_ssl.results`")
    arguments = parser.parse_args()
    lines = []
    for line in rows(arguments.only, arguments.speakers, arguments.dim):
        print("  |  ".join(line), flush=True)
        lines.append(line)
    if arguments.out:
        about = (
            f"`python benchmarks/index.py --speakers {arguments.speakers} --dim {arguments.dim} "
            f"--only {','.join(arguments.only)}`; CPU, "
            f"{faiss.omp_get_max_threads()} threads, faiss {faiss.__version__}."
        )
        record.write_benchmark(arguments.out, "speakers in an index", about, COLUMNS, lines)


if __name__ == "__main__":
    sys.exit(command.run(main))
