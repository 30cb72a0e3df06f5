"""sv-identify: which of many enrolled speakers is speaking, if any?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from sv_ssl.core.command import Parser, run
from sv_ssl.core.errors import InputError, printable
from sv_ssl.core.files import atomic_write, plain
from sv_ssl.core.guard import check_outputs

ABOUT = """\
Name the speaker of each embedding: a line `utterance rank speaker cosine` for each of the nearest, separated by tabs.
If not even the nearest reaches the threshold, the line is `utterance 0 unknown cosine`, with that of the nearest.
Tabs and other control characters of a name are spelt out; in FILE of --out an apostrophe stands before a name that a
spreadsheet would take for a formula.
"""
MORE = """\
A threshold is a cosine (--threshold), or follows from a calibration of cosines (--calibration, as sv-score makes it)
and the share of pairs of one speaker to be expected (--p-target). The more speakers are enrolled, the more often a
stranger resembles one of them: with N enrolled, up to N times as often as in verification at the same threshold.

examples
  sv-identify staff.index test.npz --top 3
  sv-identify staff.index test.npz --calibration cal.json --p-target 0.001 --out who.tsv
"""
P_TARGET = 0.5  # for --calibration, where it is not given
NO_THRESHOLD = -2.0  # below any cosine


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(lambda: _identify(_parser().parse_args(argv)), "sv-identify")


def _parser() -> Parser:
    parser = Parser(prog="sv-identify", description=ABOUT, epilog=MORE)
    add = parser.add_argument
    add("index", metavar="INDEX", help="file that sv-index wrote")
    add("embeddings", metavar="EMBEDDINGS", help="of the voices to name")
    add("--top", metavar="K", type=int, default=1, help="nearest speakers to show (default 1)")
    add("--threshold", metavar="COSINE", type=float, help="below it a voice is unknown")
    add("--calibration", metavar="FILE", help="JSON that sv-score --calibration-out wrote, for the threshold")
    add("--p-target", metavar="P", type=float, help=f"for --calibration (default {P_TARGET})")
    add("--out", metavar="FILE", help="write the lines there instead of on the screen")
    return parser


def _identify(arguments: argparse.Namespace) -> None:
    from sv_ssl.embeddings import search, store

    read = [("EMBEDDINGS", path) for path in store.files(arguments.embeddings)]
    read += [("INDEX", arguments.index), ("--calibration", arguments.calibration)]
    check_outputs(read, [("--out", arguments.out)])
    threshold = _threshold(arguments)
    index = search.load(arguments.index)
    ids, rows = store.read(arguments.embeddings)
    lines: list[tuple[str, int, str, str]] = []
    unknown = 0
    for name, nearest in zip(ids, index.search(rows, arguments.top)):
        known = [(rank, speaker, cosine) for rank, (speaker, cosine) in enumerate(nearest, 1) if cosine >= threshold]
        unknown += not known
        stranger = (0, "unknown", nearest[0][1] if nearest else float("nan"))
        lines += [
            (printable(name), rank, printable(speaker), f"{cosine:.4f}")
            for rank, speaker, cosine in known or [stranger]
        ]
    if arguments.out:
        with atomic_write(arguments.out) as temporary:
            temporary.write_text("".join(_line(map(plain, line)) for line in lines), encoding="utf-8")
    else:
        sys.stdout.writelines(map(_line, lines))
    _report(arguments, f"{len(ids):,} voices against {len(index):,} speakers", len(ids), unknown, threshold)


def _line(cells: Iterable[object]) -> str:
    return "\t".join(map(str, cells)) + "\n"


def _report(arguments: argparse.Namespace, about: str, count: int, unknown: int, threshold: float) -> None:
    """Say what was done beside the lines: they may go to another program."""
    limit = f" (threshold {threshold:.4f})" if threshold > NO_THRESHOLD else ""
    print(f"{about}: {count - unknown:,} named, {unknown:,} unknown{limit}", file=sys.stderr)
    if arguments.out:
        print(f"wrote {arguments.out}: utterance, rank, speaker, cosine", file=sys.stderr)
    if threshold == NO_THRESHOLD:
        print("next: --threshold COSINE or --calibration FILE tells strangers apart", file=sys.stderr)


def _threshold(arguments: argparse.Namespace) -> float:
    """Return the least cosine of a known voice; without an option every voice has a name."""
    if arguments.threshold is not None and arguments.calibration is not None:
        raise InputError("--threshold and --calibration exclude each other")
    if arguments.threshold is not None and not -1 <= arguments.threshold <= 1:
        raise InputError(f"--threshold {arguments.threshold}: a cosine is between -1 and 1")
    if arguments.p_target is not None and arguments.calibration is None:
        raise InputError("--p-target needs --calibration as well")
    if arguments.calibration is None:
        return NO_THRESHOLD if arguments.threshold is None else arguments.threshold
    from sv_ssl.verification import calibrate

    learnt = calibrate.read(arguments.calibration)
    if learnt.columns != ("score",):
        raise InputError(f"{arguments.calibration} is for {', '.join(learnt.columns)}: one of cosines alone is needed")
    if learnt.weights[0] <= 0:
        raise InputError(f"{arguments.calibration} falls as the cosine rises: it cannot give a threshold")
    threshold, notes = calibrate.cosine_threshold(
        learnt, P_TARGET if arguments.p_target is None else arguments.p_target
    )
    for note in [*calibrate.doubts(learnt), *notes]:
        print(f"note: {note}", file=sys.stderr)
    return threshold


if __name__ == "__main__":
    sys.exit(main())
