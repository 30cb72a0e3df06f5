"""The commands: argparse, exit codes and what is printed. Nothing slow is imported before the arguments are read."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Sequence

from sv_ssl.files import InputError, aside

if TYPE_CHECKING:
    import numpy as np

    from sv_ssl.trials import Trials


def run(command: Callable[[], object]) -> int:
    """Run a command -> its exit code: 0 done, 2 bad input (one clear message), 130 stopped by Ctrl-C; or what it returns.

    >>> run(lambda: None)
    0
    """
    try:
        code = command()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except InputError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    return 2


class Parser(argparse.ArgumentParser):
    """argparse with one line of error, as `run` prints it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ({self.prog} --help shows the options)")


# --- sv-score -------------------------------------------------------------------------------------------------------

SCORE_ABOUT = """\
Score a trial list with embeddings, or take the scores that its lines carry, and measure the errors.

TRIALS is recognised by its content: `1 enroll test`, `enroll test target`, `enroll test 1`, `enroll test` (scores but
no metrics), `enroll test 0.73` with or without a label; blanks, tabs or commas; a first line of names or none; gzip;
"-" is standard input. Ids must be those of the embeddings, letter for letter.
"""
SCORE_MORE = """\
what the numbers are
  A trial is accepted if its score is at least the threshold. P_miss is the share of target trials (same speaker) that
  are refused, P_fa the share of non-target trials that are accepted. Tied scores move together.
  EER         the error rate at the threshold where P_miss = P_fa, interpolated between the two nearest points
  minDCF      the least of (c_miss p P_miss + c_fa (1-p) P_fa) / min(c_miss p, c_fa (1-p)) over all thresholds;
              p is the share of target trials expected in use; 1 is what refusing or accepting all would cost
  ROCCH-EER   EER on the convex hull of the curve: what mixing two thresholds can reach
  minCllr     bits lost at the best possible calibration, 0 to 1;  AUC: P(a target scores above a non-target)
  --json holds these and actDCF and Cllr, which have a meaning for log-likelihood ratios only

examples
  sv-score veri_test2.txt --embeddings emb.npz --scores-out scores.txt --json metrics.json
  sv-score scores.txt --ci                       a score file of any toolkit, with 95 % intervals
  sv-score veri_test2.txt --p-target 0.001       a third operating point; --p-target 0.01,10,1 sets the costs too
  sv-extract MODEL voxceleb1/wav --out emb.npz   makes the embeddings
"""


def score(argv: Sequence[str] | None = None) -> int:
    """sv-score: command line -> exit code."""
    return run(lambda: _score(_score_parser().parse_args(argv)))


def _score_parser() -> Parser:
    parser = Parser(prog="sv-score", description=SCORE_ABOUT, epilog=SCORE_MORE)
    add = parser.add_argument
    add("trials", metavar="TRIALS", help="trial list or score file")
    add("--embeddings", metavar="FILE", help="npz with `ids` and `embeddings`; if absent, the lines' own scores, else "
        "embeddings.npz in this folder or beside TRIALS")  # fmt: skip
    add("--scores-out", "--scores", metavar="OUT", help="write `enroll test score [target|nontarget]` lines")
    add("--json", metavar="FILE", help="write the metrics, eer as a fraction")
    add("--ci", action="store_true", help="95 %% intervals, by resampling the speakers 1,000 times")
    add("--p-target", metavar="P[,C_MISS,C_FA]", type=_point, action="append", default=[],
        help="a further operating point for minDCF, beside p 0.01 and 0.05; may be repeated")  # fmt: skip
    return parser


def _point(text: str) -> tuple[float, ...]:
    numbers = [float(part) for part in text.split(",")]
    if len(numbers) not in (1, 3):
        raise argparse.ArgumentTypeError(f"wanted P or P,C_MISS,C_FA, not {text}")
    return (*numbers, 1.0, 1.0)[:3]


def _score(arguments: argparse.Namespace) -> None:
    from sv_ssl import metrics, scoring, trials

    listed = trials.read_trials(arguments.trials)
    print(listed.summary())
    scores, used = _scores(listed, arguments.embeddings)
    print(f"scores: {used}")
    if listed.labels is None and not arguments.scores_out:
        raise InputError(f"{listed.name} has no labels, so nothing can be measured: keep the scores with --scores-out")
    points = dict.fromkeys([*metrics.POINTS, *arguments.p_target])
    report = {**scoring.report(listed, scores, list(points), arguments.ci), "scores": used}
    if listed.labels is not None:
        print(_table(report, {metrics.point_name(point): point for point in points}))
    _write(arguments, listed, scores, report)


def _scores(listed: Trials, named: str | None) -> tuple[np.ndarray, str]:
    """The list's own scores, or cosines of embeddings -> (N,) scores, what they are."""
    from sv_ssl import scoring

    if listed.scores is not None and not named:
        return listed.scores, "as the file has them"
    usual = [Path("embeddings.npz"), Path(listed.name).parent / "embeddings.npz"]
    path = named or next((path for path in usual if path.is_file()), None)
    if path is None:
        places = " or ".join(str(path) for path in dict.fromkeys(usual))
        raise InputError(f"{listed.name} has no scores and there is no {places}: pass --embeddings FILE")
    embeddings = scoring.read_embeddings(path)
    count, dim = embeddings[1].shape
    return scoring.cosine(embeddings, listed), f"cosine of {path} ({count:,} embeddings of {dim} dimensions)"


def _table(report: dict, points: dict[str, tuple]) -> str:
    """Metrics -> aligned lines: name, value, interval, conventions; then what is suspicious."""
    ci = report.get("ci", {"min_dcf": {}})
    rows = [("EER", f"{report['eer']:.3%}", _interval(ci.get("eer"), 100, "{:.3f}"),
             f"threshold {float(report['eer_threshold']):.6g}")]  # fmt: skip
    for name, (p, c_miss, c_fa) in points.items():
        threshold = float(report["min_dcf_threshold"][name])
        about = f"p_target {p:g}, c_miss {c_miss:g}, c_fa {c_fa:g}, "
        about += "reject all" if math.isinf(threshold) else f"threshold {threshold:.6g}"
        ends = _interval(ci["min_dcf"].get(name), 1, "{:.4f}")
        rows.append(("minDCF", f"{report['min_dcf'][name]:.4f}", ends, about))
    rows += [("ROCCH-EER", f"{report['eer_rocch']:.3%}", "", ""), ("minCllr", f"{report['min_cllr']:.4f}", "", "bits"),
             ("AUC", f"{report['auc']:.5f}", "", "")]  # fmt: skip
    width = max(len(row[2]) for row in rows)
    lines = [f"  {name:<10}{value:>9}  {ends:<{width}}  {about}".rstrip() for name, value, ends, about in rows]
    return "\n".join(["", *lines, "", *_notes(report)])


def _interval(ends: Sequence[float] | None, factor: float, form: str) -> str:
    return "" if ends is None else f"[{form.format(factor * ends[0])}, {form.format(factor * ends[1])}]"


def _notes(report: dict) -> list[str]:
    notes = []
    if "ci" in report:
        notes.append("[ ]: 95 % interval, {n:,} resamplings of {clusters:,} {resampled}".format(**report["ci"]))
        if report["ci"]["resampled"] == "utterances":
            notes.append("note: the ids do not tell the speakers, so the intervals are too narrow")
    if report["eer"] > 0.55:
        notes.append("note: targets score lower than non-targets: are the scores distances, or the labels swapped?")
    if report["tied"] > 0.01:
        notes.append(f"note: {report['tied']:.1%} of the scores are repeated ones: were they rounded?")
    return notes


def _write(arguments: argparse.Namespace, listed: Trials, scores: np.ndarray, report: dict) -> None:
    """Write what was asked for, and say so; then say what could be next."""
    from sv_ssl.trials import write_scores

    if arguments.scores_out:
        write_scores(arguments.scores_out, listed, scores)
        print(f"wrote {arguments.scores_out}: {len(scores):,} lines")
    if arguments.json:
        with aside(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        print(f"wrote {arguments.json}")
    if listed.labels is None:
        print("no labels, so no metrics")
        return
    hints = {
        "--scores-out FILE keeps the scores": arguments.scores_out,
        "--json FILE keeps the metrics": arguments.json,
        "--ci adds 95 % intervals": arguments.ci,
    }
    if more := [hint for hint, given in hints.items() if not given]:
        print(f"next: {', '.join(more)}")


# --- sv-extract -----------------------------------------------------------------------------------------------------

EXTRACT_ABOUT = """\
Embed recordings with a model folder: each utterance whole and alone, so that no neighbour changes a number.

INPUT is a manifest .csv, a folder (searched to its depths), a Kaldi wav.scp (with segments beside it), or audio files.
An id is the path as given, relative to the input: what VoxCeleb's lists have if INPUT is voxceleb1/wav.
"""
EXTRACT_MORE = """\
OUT holds `ids` (N,) and `embeddings` (N, D) float32: numpy.load(OUT). What cannot be read is left out, named on the
screen and listed with its reason in OUT's .skipped.csv; the exit code is then 3.

examples
  sv-extract exp/built-in/simclr_am/0/model voxceleb1/wav --out embeddings.npz
  sv-extract MODEL test.csv --out test.npz --device cuda
  sv-score veri_test2.txt --embeddings embeddings.npz
"""


def extract(argv: Sequence[str] | None = None) -> int:
    """sv-extract: command line -> exit code."""
    return run(lambda: _extract(_extract_parser().parse_args(argv)))


def _extract_parser() -> Parser:
    parser = Parser(prog="sv-extract", description=EXTRACT_ABOUT, epilog=EXTRACT_MORE)
    add = parser.add_argument
    add("model", metavar="MODEL", help="model folder, as training writes it")
    add("input", metavar="INPUT", nargs="+", help="manifest, folder, wav.scp or audio files")
    add("--out", metavar="OUT", required=True, help="npz file to write")
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    return parser


def _extract(arguments: argparse.Namespace) -> int:
    if not arguments.out.endswith(".npz"):
        raise InputError(f"--out {arguments.out}: wanted a name that ends in .npz")
    from sv_ssl import embed, model, scoring

    utterances = embed.inputs(arguments.input)
    embedder = model.load(arguments.model, arguments.device)
    started = time.perf_counter()
    ids, rows, skipped = embed.embed(embedder, utterances)
    seconds = time.perf_counter() - started
    if skipped:
        _report_skipped(Path(arguments.out).with_suffix(".skipped.csv"), skipped)
    if not ids:
        raise InputError(f"none of {len(utterances):,} recordings could be embedded; the first: {skipped[0][1]}")
    scoring.write_embeddings(arguments.out, ids, rows)
    print(f"wrote {arguments.out}: {len(ids):,} embeddings of {rows.shape[1]} dimensions in {seconds:.1f} s")
    print(f"next: sv-score TRIALS --embeddings {arguments.out}")
    return 3 if skipped else 0


def _report_skipped(path: Path, skipped: list[tuple[str, str]]) -> None:
    for _, reason in skipped[:10]:
        print(f"skipped: {reason}", file=sys.stderr)
    print(f"skipped {len(skipped):,} recordings, listed in {path}", file=sys.stderr)
    with aside(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "reason"), *skipped])
