"""sv-index: keep many speakers in a searchable file. sv-identify: which of them is speaking, if any?"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from sv_ssl.core.command import Parser, run
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside

ABOUT = """\
Enrol speakers in a faiss index, add some, remove some. A speaker is a row of an embeddings file, or with --speakers the
mean of several. Without --enrol and --remove the index is described.
"""
MORE = """\
kinds (of a new index)
  flat    every speaker is compared: exact, quick up to 100,000 (the usual choice)
  ivf     only those in the nearest cells; 40 speakers at least
  hnsw    a graph: the quickest search, the longest to build, twice the memory
  pq      approximate cosines in a sixteenth of the memory; 256 speakers at least

examples
  sv-index staff.index --enrol enrol.npz --speakers utt2spk
  sv-index staff.index --remove anna ben
  sv-identify staff.index test.npz --top 3 --threshold 0.45
"""
ABOUT_IDENTIFY = """\
Name the speaker of each embedding: a line `utterance rank speaker cosine` for each of the nearest, separated by tabs.
If not even the nearest reaches the threshold, the line is `utterance 0 unknown cosine`, with that of the nearest.
"""
MORE_IDENTIFY = """\
A threshold is a cosine (--threshold), or follows from a calibration of cosines (--calibration, as sv-score makes it)
and the share of pairs of one speaker to be expected (--p-target). The more speakers are enrolled, the more often a
stranger resembles one of them: with N enrolled, up to N times as often as in verification at the same threshold.

examples
  sv-identify staff.index test.npz --top 3
  sv-identify staff.index test.npz --calibration cal.json --p-target 0.001 --out who.tsv
"""


def main(argv: Sequence[str] | None = None) -> int:
    """sv-index: command line -> exit code."""
    return run(lambda: _index(_parser().parse_args(argv)))


def main_identify(argv: Sequence[str] | None = None) -> int:
    """sv-identify: command line -> exit code."""
    return run(lambda: _identify(_parser_identify().parse_args(argv)))


def _parser() -> Parser:
    parser = Parser(prog="sv-index", description=ABOUT, epilog=MORE)
    add = parser.add_argument
    add("index", metavar="INDEX", help="file of the index; it is made if it is not there")
    add("--enrol", metavar="EMBEDDINGS", help="npz, npy, ark, scp, parquet, pt, safetensors or a folder")
    add("--speakers", metavar="FILE", help='`utterance speaker` lines; "ids": a speaker is the id up to its first /')
    add("--remove", metavar="SPEAKER", nargs="+", help="speakers to forget, before others are enrolled")
    add("--kind", choices=("flat", "ivf", "hnsw", "pq"), help="of a new index (default flat)")
    return parser


def _parser_identify() -> Parser:
    parser = Parser(prog="sv-identify", description=ABOUT_IDENTIFY, epilog=MORE_IDENTIFY)
    add = parser.add_argument
    add("index", metavar="INDEX", help="file that sv-index wrote")
    add("embeddings", metavar="EMBEDDINGS", help="of the voices to name")
    add("--top", metavar="K", type=int, default=1, help="nearest speakers to show (default 1)")
    add("--threshold", metavar="COSINE", type=float, help="below it a voice is unknown")
    add("--calibration", metavar="FILE", help="JSON that sv-score --calibration-out wrote, for the threshold")
    add("--p-target", metavar="P", type=float, default=0.5, help="for --calibration (default 0.5)")
    add("--out", metavar="FILE", help="write the lines there instead of on the screen")
    return parser


def _index(arguments: argparse.Namespace) -> None:
    from sv_ssl.embeddings import search

    there = os.path.exists(arguments.index)
    if arguments.speakers and not arguments.enrol:
        raise InputError("--speakers needs --enrol as well")
    if not there and (arguments.remove or not arguments.enrol):
        raise InputError(f"{arguments.index} is not there: pass --enrol EMBEDDINGS to make it")
    found = search.load(arguments.index) if there else None
    if found and arguments.kind not in (None, found.kind):
        raise InputError(f"{arguments.index} is of the kind {found.kind}, not {arguments.kind}: make a new one")
    if found and arguments.remove:
        found.remove(arguments.remove)
    if arguments.enrol:
        names, rows = _enrolled(arguments)
        if found:
            found.add(names, rows)
        else:
            found = search.create(arguments.kind or "flat", names, rows)
    assert found is not None
    if arguments.enrol or arguments.remove:
        found.save(arguments.index)
    print(f"{arguments.index}: {len(found):,} speakers, {found.dim} dimensions, {found.kind}")
    print(f"next: sv-identify {arguments.index} EMBEDDINGS --top 3")


def _enrolled(arguments: argparse.Namespace) -> tuple[list[str], Any]:
    from sv_ssl.embeddings import store
    from sv_ssl.verification import normalise

    ids, rows = store.read(arguments.enrol)
    if not arguments.speakers:
        return ids, rows
    known = None if arguments.speakers == "ids" else normalise.read_speakers(arguments.speakers)
    return normalise.speaker_means(ids, store.unit(rows), known)


def _identify(arguments: argparse.Namespace) -> None:
    from sv_ssl.embeddings import search, store

    threshold = _threshold(arguments)
    found = search.load(arguments.index)
    ids, rows = store.read(arguments.embeddings)
    lines, unknown = [], 0
    for name, nearest in zip(ids, found.search(rows, arguments.top)):
        shown = [(rank, *one) for rank, one in enumerate(nearest, 1) if one[1] >= threshold]
        unknown += not shown
        for rank, speaker, cosine in shown or [(0, "unknown", nearest[0][1] if nearest else float("nan"))]:
            lines.append(f"{name}\t{rank}\t{speaker}\t{cosine:.4f}\n")
    if arguments.out:
        with aside(arguments.out) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
    else:
        sys.stdout.writelines(lines)
    print(
        f"{len(ids):,} voices against {len(found):,} speakers: {len(ids) - unknown:,} named, {unknown:,} unknown"
        + f" (threshold {threshold:.4f})" * (threshold > -2),
        file=sys.stderr,
    )


def _threshold(arguments: argparse.Namespace) -> float:
    """The least cosine of a known voice; without an option every voice has a name."""
    if arguments.threshold is not None and arguments.calibration is not None:
        raise InputError("--threshold and --calibration exclude each other")
    if arguments.threshold is not None and not -1 <= arguments.threshold <= 1:
        raise InputError(f"--threshold {arguments.threshold}: a cosine is between -1 and 1")
    if arguments.calibration is None:
        return -2.0 if arguments.threshold is None else arguments.threshold
    from sv_ssl.verification import calibrate

    found = calibrate.read(arguments.calibration)
    if found.columns != ("score",):
        raise InputError(f"{arguments.calibration} is for {', '.join(found.columns)}: one of cosines alone is needed")
    if found.weights[0] <= 0:
        raise InputError(f"{arguments.calibration} falls as the cosine rises: it cannot give a threshold")
    return (calibrate.threshold(arguments.p_target) - found.offset) / found.weights[0]


if __name__ == "__main__":
    raise SystemExit(main())
