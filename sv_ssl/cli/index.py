"""sv-index: keep many speakers in a searchable file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from sv_ssl.core.command import Parser, run
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import locked
from sv_ssl.core.guard import check_outputs

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(lambda: _index(_parser().parse_args(argv)), "sv-index")


def _parser() -> Parser:
    parser = Parser(prog="sv-index", description=ABOUT, epilog=MORE)
    add = parser.add_argument
    add("index", metavar="INDEX", help="file of the index; it is made if it is not there")
    add("--enrol", metavar="EMBEDDINGS", help="npz, npy, ark, scp, parquet, pt, safetensors or a folder")
    add("--speakers", metavar="FILE", help='`utterance speaker` lines; "ids": a speaker is the id up to its first /')
    add("--remove", metavar="SPEAKER", nargs="+", help="speakers to forget, before others are enrolled")
    add("--kind", choices=("flat", "ivf", "hnsw", "pq"), help="of a new index (default flat)")
    return parser


def _index(arguments: argparse.Namespace) -> None:
    from sv_ssl.embeddings import store

    read = [("--enrol", path) for path in (store.files(arguments.enrol) if arguments.enrol else ())]
    if arguments.speakers != "ids":
        read.append(("--speakers", arguments.speakers))
    if not (arguments.enrol or arguments.remove):
        _changed(arguments)
        return
    check_outputs(read, [("INDEX", arguments.index)])
    with locked(arguments.index):  # another sv-index would read what this one is about to replace
        _changed(arguments)


def _changed(arguments: argparse.Namespace) -> None:
    """Change the index as asked for, and describe it."""
    from sv_ssl.embeddings import search

    there = os.path.exists(arguments.index)
    if arguments.speakers and not arguments.enrol:
        raise InputError("--speakers needs --enrol as well")
    if not there and (arguments.remove or not arguments.enrol):
        raise InputError(f"{arguments.index} is not there: pass --enrol EMBEDDINGS to make it")
    index = search.load(arguments.index) if there else None
    if index and arguments.kind not in (None, index.kind):
        raise InputError(f"{arguments.index} is of the kind {index.kind}, not {arguments.kind}: make a new one")
    if index and arguments.remove:
        index.remove(arguments.remove)
    if arguments.enrol:
        names, rows = _enrolled(arguments)
        if index:
            index.add(names, rows)
        else:
            index = search.create(arguments.kind or "flat", names, rows)
    assert index is not None
    if not len(index):
        raise InputError(f"{arguments.index} would hold no speaker: delete the file instead, or pass --enrol as well")
    if arguments.enrol or arguments.remove:
        index.save(arguments.index)
    print(f"{arguments.index}: {len(index):,} speakers, {index.dim} dimensions, {index.kind}")
    print(f"next: sv-identify {arguments.index} EMBEDDINGS --top 3")


def _enrolled(arguments: argparse.Namespace) -> tuple[list[str], Any]:
    """Read N speakers and their rows (N, D): as they are, or the means of several."""
    from sv_ssl.embeddings import store
    from sv_ssl.verification import normalise

    ids, rows = store.read(arguments.enrol)
    if not arguments.speakers:
        return ids, rows
    known = None if arguments.speakers == "ids" else normalise.read_speakers(arguments.speakers)
    return normalise.speaker_means(ids, store.unit(rows), known)


if __name__ == "__main__":
    sys.exit(main())
