"""sv-extract: embed recordings with a model folder."""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Sequence

from sv_ssl.cli import Parser, run
from sv_ssl.files import InputError, aside

ABOUT = """\
Embed recordings with a model folder: each utterance whole and alone, so that no neighbour changes a number.

INPUT is a manifest .csv, a folder (searched to its depths), a Kaldi wav.scp (with segments beside it), or audio files.
An id is the path as given, relative to the input: what VoxCeleb's lists have if INPUT is voxceleb1/wav.
"""
MORE = """\
OUT has its form by its ending:
  .npz         `ids` (N,) and `embeddings` (N, D) float32: numpy.load(OUT)
  .npy         (N, D), the ids in OUT's .ids, one a line
  .ark, .scp   both, for Kaldi; ids without blanks
  .parquet     columns id and embedding
  .pt          {"ids": [...], "embeddings": (N, D)}: torch.load(OUT)
  /            a new folder of one .npy an id
What cannot be read is left out, named on the screen and listed with its reason in OUT's .skipped.csv; the exit code is
then 3.

examples
  sv-extract exp/built-in/simclr_am/0/model voxceleb1/wav --out embeddings.npz
  sv-extract MODEL test.csv --out test.npz --device cuda
  sv-score veri_test2.txt --embeddings embeddings.npz
"""


def main(argv: Sequence[str] | None = None) -> int:
    """sv-extract: command line -> exit code."""
    return run(lambda: _extract(_parser().parse_args(argv)))


def _parser() -> Parser:
    parser = Parser(prog="sv-extract", description=ABOUT, epilog=MORE)
    add = parser.add_argument
    add("model", metavar="MODEL", help="model folder, as training writes it")
    add("input", metavar="INPUT", nargs="+", help="manifest, folder, wav.scp or audio files")
    add("--out", metavar="OUT", required=True, help="what to write; the ending of the name is the form")
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    return parser


def _extract(arguments: argparse.Namespace) -> int:
    from sv_ssl import embeddings

    embeddings.check_target(arguments.out)
    from sv_ssl import embed, model

    utterances = embed.inputs(arguments.input)
    embeddings.check_target(arguments.out, [utterance.id for utterance in utterances])
    embedder = model.load(arguments.model, arguments.device)
    started = time.perf_counter()
    ids, rows, skipped = embed.embed(embedder, utterances)
    seconds = time.perf_counter() - started
    if skipped:
        _report_skipped(Path(arguments.out).with_suffix(".skipped.csv"), skipped)
    if not ids:
        raise InputError(f"none of {len(utterances):,} recordings could be embedded; the first: {skipped[0][1]}")
    embeddings.write(arguments.out, ids, rows)
    print(f"wrote {arguments.out}: {len(ids):,} embeddings of {rows.shape[1]} dimensions in {seconds:.1f} s")
    print(f"next: sv-score TRIALS --embeddings {arguments.out}")
    return 3 if skipped else 0


def _report_skipped(path: Path, skipped: list[tuple[str, str]]) -> None:
    for _, reason in skipped[:10]:
        print(f"skipped: {reason}", file=sys.stderr)
    print(f"skipped {len(skipped):,} recordings, listed in {path}", file=sys.stderr)
    with aside(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "reason"), *skipped])
