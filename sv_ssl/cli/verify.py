"""sv-verify: are two recordings of one speaker?"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sv_ssl.core.command import Parser, run
from sv_ssl.core.errors import InputError

if TYPE_CHECKING:
    from sv_ssl.verification.calibrate import Calibration

ABOUT = """\
Compare two recordings: the cosine of their embeddings, and with a calibration the log-likelihood ratio and a decision.

A cosine has no threshold of its own. A calibration turns it into a likelihood ratio: how many times likelier it is if
one speaker made both recordings than if two did. The decision then follows from P, the share of pairs of one speaker
that is to be expected in use.
"""
MORE = """\
A calibration belongs to the model, and to recordings like those it was made from. To make one, score a list of pairs
whose speakers you know, `1 a.wav b.wav` or `0 a.wav c.wav` a line, and calibrate on it:

  sv-score pairs.txt --model MODEL --audio FOLDER --calibrate pairs.txt --calibration-out cal.json

examples
  sv-verify MODEL a.wav b.wav                                          the cosine alone
  sv-verify MODEL a.wav b.wav --calibration cal.json                   and a decision, both answers equally expected
  sv-verify MODEL a.wav b.wav --calibration cal.json --p-target 0.01   one pair in a hundred is of one speaker

The exit code is 0 whatever the decision.
"""
COSINES = "sv-verify needs a calibration of cosines alone: sv-score without --fuse, --quality and --norm makes one"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(lambda: _verify(_parser().parse_args(argv)), "sv-verify")


def _parser() -> Parser:
    parser = Parser(prog="sv-verify", description=ABOUT, epilog=MORE)
    add = parser.add_argument
    add("model", metavar="MODEL", help="model folder, as training writes it")
    add("recordings", metavar="WAV", nargs=2, help="two audio files")
    add("--calibration", metavar="FILE", help="JSON that sv-score --calibration-out wrote")
    add("--p-target", metavar="P", type=float, help="share of pairs of one speaker in use (default 0.5)")
    return parser


def _verify(arguments: argparse.Namespace) -> None:
    if arguments.p_target is not None and not arguments.calibration:
        raise InputError("--p-target: a decision needs --calibration FILE as well (--help shows how to make one)")
    from sv_ssl.verification import calibrate

    p_target = 0.5 if arguments.p_target is None else arguments.p_target
    threshold = calibrate.threshold(p_target)
    calibration = _calibration(arguments.calibration) if arguments.calibration else None
    score = _cosine(arguments.model, arguments.recordings)
    print(f"score (cosine)        {score:8.4f}")
    if calibration is None:
        print("no decision: a cosine has no threshold of its own, it takes a calibration")
        print(
            "next: sv-score PAIRS --model MODEL --audio FOLDER --calibrate PAIRS --calibration-out cal.json, then "
            "--calibration cal.json here (--help says more)"
        )
        return
    ratio = float(calibrate.apply(calibration, [score])[0])
    print(f"log-likelihood ratio  {ratio:8.4f}  {_in_words(ratio)}")
    print(
        f"decision: {'same speaker' if ratio >= threshold else 'different speakers'}  "
        f"(threshold {threshold:.4f}: {p_target:.6g} of all pairs expected to be of one speaker)"
    )
    for note in _doubts(calibration, p_target):
        print(f"note: {note}")
    print("next: --p-target P decides for another share of pairs of one speaker")


def _calibration(path: str) -> Calibration:
    """Read a calibration of cosines; one of anything else is refused."""
    from sv_ssl.verification import calibrate

    learnt = calibrate.read(path)
    if learnt.columns != ("score",):
        raise InputError(f"{path} is for the columns {', '.join(learnt.columns)}: {COSINES}")
    ((low, high),) = learnt.ranges
    if low < -1.00001 or high > 1.00001:
        raise InputError(f"{path} was made from scores from {low:.4g} to {high:.4g}, which are no cosines: {COSINES}")
    return learnt


def _doubts(calibration: Calibration, p_target: float) -> list[str]:
    """Return what to know of the calibration, and of its threshold for this share of pairs of one speaker."""
    from sv_ssl.verification import calibrate

    rising = calibration.weights[0] > 0
    return [*calibrate.doubts(calibration), *(calibrate.cosine_threshold(calibration, p_target)[1] if rising else [])]


def _cosine(model_folder: str, recordings: Sequence[str]) -> float:
    from sv_ssl.embeddings import extraction
    from sv_ssl.models import folder
    from sv_ssl.verification import scoring

    embedder = folder.load(model_folder)
    _, rows, skipped = extraction.embed(embedder, [extraction.Utterance(path, path) for path in recordings])
    if skipped:
        raise InputError(skipped[0].reason)
    return scoring.crop_score(rows[:1], rows[1:])


def _in_words(ratio: float) -> str:
    kind = "one speaker" if ratio >= 0 else "two speakers"
    return f"{math.exp(min(abs(ratio), 700)):.3g} times likelier from {kind}"


if __name__ == "__main__":
    sys.exit(main())
