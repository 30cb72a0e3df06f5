"""Diarization with reference speech: how well the embeddings of an encoder tell the speakers of a meeting apart.

    python recipes/diarization/diarize.py MODEL                                     # the built-in meetings
    python recipes/diarization/diarize.py MODEL --data_folder /data/meetings        # any audio beside its RTTM
    python recipes/diarization/diarize.py MODEL --data_folder /data/amicorpus --audio "*.Mix-Headset.wav" \\
        --rttm AMI-diarization-setup/only_words/rttms/test --uem AMI-diarization-setup/uems/test

Where there is speech is taken from the reference, so that the errors are those of embeddings and clustering, and of
overlapped speech, of which one speaker is always missed. Windows of 1.5 s every 0.75 s, spectral clustering, with the
number of speakers given and estimated. The error rate is told with everything counted, and as many papers have it, with
0.25 s on either side of a turn's ends and overlapped speech left out; and beside it that of one speaker for all.

Recordings are those of the reference: a file belongs to the one that its name is, or begins with, up to a dot. On two
CPU cores an hour of meetings takes about half a minute with a small encoder. With --results the table is recorded.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np

from sv_ssl import audio
from sv_ssl.core import command
from sv_ssl.core.errors import InputError
from sv_ssl.core.progress import watched
from sv_ssl.data import rttm
from sv_ssl.data.rttm import Region, Turn
from sv_ssl.data.synthetic import corpus as synthetic
from sv_ssl.diarization import cluster, der, pipeline
from sv_ssl.models import folder as model
from sv_ssl.reporting import record as results

COLUMNS = [
    "model",
    "number of speakers",
    "speakers found (true), mean",
    "DER %",
    "miss",
    "false alarm",
    "confusion",
    "DER %, collar 0.25 s, no overlap",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line -> exit code."""
    return command.run(lambda: experiment(parser().parse_args(argv)))


def parser() -> command.Parser:
    """The command line of the recipe."""
    made = command.Parser(prog="diarize.py", description=__doc__)
    add = made.add_argument
    add("model", metavar="MODEL", help="model folder, as training writes it")
    add("--data_folder", metavar="FOLDER", help="recordings (default: the built-in meetings)")
    add("--audio", metavar="PATTERN", default="*", help="the names of those to take, such as *.Mix-Headset.wav")
    add("--rttm", metavar="RTTM", help="the true turns: a file, or a folder of them (default: the data folder)")
    add("--uem", metavar="UEM", help="what counts: a file, or a folder of them (default: everything)")
    add("--name", help="of the model in the table (default: what it was trained as)")
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    add("--results", metavar="FOLDER", help="record the table in FOLDER/benchmarks")
    return made


def experiment(arguments: argparse.Namespace) -> None:
    """Meetings -> windows -> embeddings -> speakers, their number given and estimated -> error rates."""
    folder = Path(arguments.data_folder or built_in())
    reference = rttm.read(arguments.rttm or folder)
    uem = rttm.read_uem(arguments.uem) if arguments.uem else None
    paths = recordings(folder, arguments.audio, reference)
    embed_windows = once(pipeline.embedded_by(model.load(arguments.model, arguments.device)))
    alone = {name: [Turn(*region, "spk1") for region in speech(reference[name], uem, name)] for name in paths}
    rows = [["no model", "one for all", *measured(reference, alone, uem)]]
    for about in ("given", "estimated"):
        found = {}
        for name in watched(list(paths), f"diarizing, number {about}", "meeting"):
            n_speakers = len(speakers(reference[name])) if about == "given" else None
            method = partial(cluster.spectral, n_speakers=n_speakers)
            found[name] = pipeline.diarize(paths[name], speech(reference[name], uem, name), embed_windows, method)
        rows.append([arguments.name or trained_as(arguments.model), about, *measured(reference, found, uem)])
    print("\n".join(f"{column}: {', '.join(cells)}" for column, *cells in zip(COLUMNS, *rows)))
    if arguments.results:
        corpus = folder.name if arguments.data_folder else "built-in"
        record(Path(arguments.results), corpus, f"{len(paths)} recordings", rows)


def built_in() -> Path:
    """The meetings of the built-in corpus, which depend on nothing else in it."""
    return synthetic.corpus(n_train=2, n_valid=2, n_test=2, seconds=0.5, n_noises=0, n_rooms=0) / "meetings"


def recordings(folder: Path, pattern: str, reference: dict[str, list[Turn]]) -> dict[str, str]:
    """The path of each recording of the reference."""
    found: dict[str, str] = {}
    for path in audio.find(folder):
        name = Path(path).name
        named = next((n for n in (Path(name).stem, name.split(".")[0]) if n in reference), None)
        if named is None or not fnmatch(name, pattern):
            continue
        if named in found:
            raise InputError(
                f"{found[named]} and {folder / path} are both {named}: choose one kind by --audio "
                f"PATTERN, such as '*{name.removeprefix(named)}'"
            )
        found[named] = str(folder / path)
    if absent := [name for name in reference if name not in found]:
        raise InputError(
            f"{folder} has no audio named {pattern} for {absent[0]} of the reference ({len(absent)} of "
            f"{len(reference)} are missing)"
        )
    return found


def speech(turns: Sequence[Turn], uem: dict[str, list[Region]] | None, name: str) -> list[Region]:
    """Where somebody talks, within the UEM."""
    talk = rttm.merged(turns)
    return talk if uem is None else rttm.common(talk, rttm.merged(uem.get(name, [])))


def once(embed_windows: pipeline.EmbedWindows) -> pipeline.EmbedWindows:
    """The same, which remembers a recording's embeddings."""
    known: dict[str, np.ndarray] = {}

    def remembered(path: str, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        if path not in known:
            known[path] = embed_windows(path, starts, stops)
        return known[path]

    return remembered


def measured(
    reference: dict[str, list[Turn]],
    found: dict[str, list[Turn]],
    uem: dict[str, list[Region]] | None,
) -> list[str]:
    """-> the cells of a row from the third on."""

    def pooled(collar: float, skip_overlap: bool) -> der.Errors:
        return der.pooled(
            der.errors(reference[name], turns, None if uem is None else uem.get(name, []), collar, skip_overlap)
            for name, turns in found.items()
        )

    every, lenient = pooled(0.0, False), pooled(0.25, True)
    counts = [np.mean([len(speakers(turns[name])) for name in found]) for turns in (found, reference)]
    parts = [every.rate, *(every.share(part) for part in every[1:]), lenient.rate]
    return [f"{counts[0]:.2f} ({counts[1]:.2f})", *(f"{100 * part:.2f}" for part in parts)]


def speakers(turns: Sequence[Turn]) -> set[str]:
    """Who talks."""
    return {turn.speaker for turn in turns}


def trained_as(folder: str) -> str:
    """The name and the seed that a model folder has of its training."""
    training = model.describe(folder)["training"]
    return training.get("name", folder) + (f", seed {training['seed']}" if "seed" in training else "")


def record(folder: Path, corpus: str, about: str, rows: list[list[str]]) -> None:
    """Put a model's rows into the table of the corpus, in the place of its old ones."""
    path = folder / "benchmarks" / f"diarization_{corpus}.json"
    old = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    kept = [row for row in old if row[0] not in {row[0] for row in rows}]
    about = (
        f"{about}, speech from the reference, spectral clustering of windows of 1.5 s. Error rates in percent of "
        "the reference's speech: everything counted; and 0.25 s at the ends of turns and overlap left out."
    )
    results.write_benchmark(path, f"diarization, {corpus}", about, COLUMNS, [rows[0], *kept, *rows[1:]])


if __name__ == "__main__":
    sys.exit(main())
