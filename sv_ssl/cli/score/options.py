"""The options of sv-score: what they are, and which need or exclude each other."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from sv_ssl.core.command import Parser
from sv_ssl.core.errors import InputError
from sv_ssl.core.guard import check_outputs

ABOUT = """\
Score a trial list with embeddings, or take the scores that its lines carry, and measure the errors.

TRIALS is recognised by its content: `1 enroll test`, `enroll test target`, `enroll test 1`, `enroll test` (scores but
no metrics), `enroll test 0.73` with or without a label; blanks, tabs or commas; a first line of names or none; gzip;
"-" is standard input. Ids must be those of the embeddings, letter for letter.
"""
MORE = """\
what the numbers are
  A trial is accepted if its score is at least the threshold. P_miss is the share of target trials (same speaker) that
  are refused, P_fa the share of non-target trials that are accepted. Tied scores move together.
  EER         the error rate at the threshold where P_miss = P_fa, interpolated between the two nearest points
  minDCF      the least of (c_miss p P_miss + c_fa (1-p) P_fa) / min(c_miss p, c_fa (1-p)) over all thresholds;
              p is the share of target trials expected in use; 1 is what refusing or accepting all would cost
  ROCCH-EER   EER on the convex hull of the curve: what mixing two thresholds can reach
  minCllr     bits lost at the best possible calibration, 0 to 1;  AUC: P(a target scores above a non-target)
  actDCF, Cllr: for log-likelihood ratios (--calibration, --calibrate, --llr); --json always holds them
  docs/scoring.md has every definition with an example.

examples
  sv-score veri_test2.txt --embeddings emb.npz --scores-out scores.txt --json metrics.json
  sv-score veri_test2.txt --model MODEL --audio voxceleb1/wav       embeds what the list names, once
  sv-score scores.txt --ci --report report.html                     a score file of any toolkit, with 95 % intervals
  sv-score scores.txt --against other.txt                           is the difference more than chance?
  sv-score scores.txt --by gender,duration:2,5 --manifest test.csv --csv conditions.csv
  sv-score veri_test2.txt --norm as --cohort train.npz --top-n 300  adaptive s-norm
  sv-score test.txt --fuse other.txt --calibrate dev.txt --calibrate other_dev.txt --calibration-out cal.json
"""
NEEDS = (  # an option, and one of the others that it needs
    ("norm", "cohort"),
    ("cohort", "norm"),
    ("model", "audio"),
    ("audio", "model"),
    ("device", "model"),
    ("combine", "enroll"),
    ("cohort_speakers", "cohort"),
    ("top_n", "norm"),
    ("calibration_out", "calibrate"),
    ("prior", "calibrate"),
    ("quality", "calibrate", "calibration"),
    ("fuse", "calibrate", "calibration"),
    ("manifest", "by", "quality"),
)
DEFAULTS = {"device": "cpu", "combine": "embeddings", "top_n": 300, "prior": 0.5}
READ = (
    "trials",
    "embeddings",
    "model",
    "made_by",
    "enroll",
    "cohort",
    "cohort_speakers",
    "fuse",
    "calibrate",
    "calibration",
    "manifest",
    "against",
)
MEASURES = ("csv", "plot", "report", "by", "against", "ci", "llr", "raw_cost", "p_target")
USUAL = "embeddings.npz"  # looked for where no file is named
PICTURES = ("det.png", "scores.png", "calibration.png")
WRITTEN = ("calibration_out", "scores_out", "json", "csv", "report")


def parser() -> Parser:
    """Return the command line of sv-score."""
    root = Parser(prog="sv-score", description=ABOUT, epilog=MORE)
    root.add_argument("trials", metavar="TRIALS", help="trial list or score file")
    root.add_argument(
        "--columns",
        metavar="NAMES",
        type=lambda text: text.split(","),
        help="its columns, where they cannot be told: enroll,test,label,score or others",
    )
    root.add_argument(
        "--sides-apart",
        action="store_true",
        help="of scores: an id means one thing as enrolment, another as test, as models may (--enroll implies it)",
    )
    add = root.add_argument_group("where scores come from").add_argument
    add(
        "--embeddings",
        metavar="FILE",
        help="npz, npy, ark, scp, parquet, pt, safetensors or a folder; if absent, the "
        "lines' own scores, else embeddings.npz in this folder or beside TRIALS",
    )
    add("--model", metavar="DIR", help="model folder: embeds the recordings that TRIALS names, below --audio")
    add("--audio", metavar="ROOT", help="folder of the recordings")
    add("--made-by", metavar="DIR", help="model folder that made --embeddings: was it trained on what TRIALS names?")
    add("--device", help="for --model: cpu (default), cuda, cuda:1")
    add("--allow-missing", action="store_true", help="leave out trials without an embedding, and say so")
    add("--enroll", metavar="MODELS", help="utterances of each enrolment model: lines of `model utt ...`")
    add("--combine", choices=("embeddings", "scores"), help="what is averaged over them (default embeddings)")
    add = root.add_argument_group("normalisation").add_argument
    add(
        "--norm",
        choices=("z", "t", "s", "as"),
        help="by a cohort's scores: of the enrolment, of the test, of both, of the nearest to each",
    )
    add("--cohort", metavar="FILE", help="embeddings of other speakers; who is in TRIALS is left out")
    add("--top-n", metavar="N", type=int, help="cohort scores that count for as (default 300)")
    add(
        "--cohort-speakers",
        metavar="FILE",
        help="`utterance speaker` lines; the cohort becomes one mean a speaker; "
        '"ids": a speaker is what ids begin with, up to /',
    )
    add = root.add_argument_group("calibration").add_argument
    add("--fuse", metavar="SCORES", action="append", default=[], help="another system's scores for TRIALS; repeatable")
    add(
        "--calibrate",
        metavar="DEV",
        action="append",
        default=[],
        help="labelled list or score file to learn log-likelihood ratios from; one for each system, in order",
    )
    add("--calibration-out", metavar="FILE", help="keep what --calibrate learnt, as JSON")
    add("--calibration", metavar="FILE", help="apply what was learnt before")
    add("--prior", metavar="P", type=float, help="share of targets to calibrate for (default 0.5)")
    add(
        "--quality",
        metavar="NAMES",
        type=lambda text: text.split(","),
        default=[],
        help="side information for the calibration: duration, magnitude, cohort",
    )
    add("--llr", action="store_true", help="the scores are natural-log likelihood ratios: show actDCF and Cllr")
    add = root.add_argument_group("what is measured").add_argument
    add("--ci", action="store_true", help="95 %% intervals, by resampling the speakers 1,000 times")
    add(
        "--p-target",
        metavar="P[,C_MISS,C_FA]",
        type=point,
        action="append",
        default=[],
        help="a further operating point for minDCF, beside p 0.01 and 0.05; may be repeated",
    )
    add("--raw-cost", action="store_true", help="the least costs also as they are, not normalised")
    add(
        "--by",
        metavar="NAMES",
        type=_names,
        default=[],
        help="break down by columns of the manifest or of TRIALS, by "
        "duration (duration:2,5 for other bins) and by session",
    )
    add("--manifest", metavar="FILE", help="CSV with the columns of --by: ID,duration,wav,..., or id,...")
    add("--against", metavar="SCORES", help="another system's scores for the same trials: a paired test")
    add = root.add_argument_group("what is written").add_argument
    add("--scores-out", "--scores", metavar="OUT", help="write `enroll test score [target|nontarget]` lines")
    add("--json", metavar="FILE", help="write the metrics, eer as a fraction")
    add("--csv", metavar="FILE", help="write a row a condition, the first for all trials")
    add("--plot", metavar="DIR", help="write det.png, scores.png and, for likelihood ratios, calibration.png")
    add("--report", metavar="FILE", help="write an HTML page: metrics, pictures, breakdown, hardest errors")
    return root


def point(text: str) -> tuple[float, ...]:
    """Return the three numbers of `P` or `P,C_MISS,C_FA`."""
    numbers = [float(part) for part in text.split(",")]
    if len(numbers) not in (1, 3):
        raise argparse.ArgumentTypeError(f"wanted P or P,C_MISS,C_FA, not {text}")
    p, c_miss, c_fa = (*numbers, 1.0, 1.0)[:3]
    miss, fa = c_miss * p, c_fa * (1 - p)
    if not (0 < p < 1 and 1e-12 * fa < miss < 1e12 * fa):
        wanted = "p_target must lie between 0 and 1, costs above 0 and within a factor of 1e12"
        raise argparse.ArgumentTypeError(f"{wanted}, not {text}")
    return p, c_miss, c_fa


def _names(text: str) -> list[str]:
    """Return the parts of `gender,duration:2,5,session`; numbers belong to the name before them."""
    names: list[str] = []
    for part in text.split(","):
        if names and ":" in names[-1] and part.replace(".", "", 1).isdigit():
            names[-1] += f",{part}"
        else:
            names.append(part)
    return names


def check(arguments: argparse.Namespace) -> None:
    """Refuse options that contradict each other or would do nothing; then fill in the defaults."""
    for name, value in vars(arguments).items():
        if "" in (value if isinstance(value, list) else [value]):
            raise InputError(f"{_option(name)} is empty: leave it out, or name something")
    _refuse_idle(arguments)
    _refuse_targets(arguments)
    for name, value in DEFAULTS.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def _refuse_idle(arguments: argparse.Namespace) -> None:
    """Refuse an option that would do nothing: the numbers would not be what was asked for."""
    for name, *needs in NEEDS:
        given = getattr(arguments, name)
        if given not in (None, []) and not any(getattr(arguments, need) for need in needs):
            raise InputError(f"{_option(name)} needs {' or '.join(map(_option, needs))} as well")
    if arguments.top_n is not None and arguments.norm != "as":
        raise InputError(f"--top-n is for --norm as: {arguments.norm} takes all cohort scores")
    for first, second in (("embeddings", "model"), ("calibrate", "calibration"), ("model", "made_by")):
        if getattr(arguments, first) and getattr(arguments, second):
            raise InputError(f"{_option(first)} and {_option(second)} exclude each other")
    systems, lists = 1 + len(arguments.fuse), len(arguments.calibrate)
    if lists and lists != systems:
        raise InputError(f"{systems} systems but {lists} --calibrate: pass one for each")


def refuse_measures(arguments: argparse.Namespace, name: str) -> None:
    """Refuse to measure a list without labels."""
    measured = [option for option in MEASURES if getattr(arguments, option)]
    if measured or not (arguments.scores_out or arguments.json):
        needs = f"{_option(measured[0])} needs them" if measured else "keep the scores with --scores-out"
        raise InputError(f"{name} has no labels, so nothing can be measured: {needs}")


def _refuse_targets(arguments: argparse.Namespace) -> None:
    """Refuse to write over what is read, twice into one file, or into what is no file, such as /dev/null."""

    def named(options: Sequence[str]) -> Iterator[tuple[str, str]]:
        for name in options:
            given = getattr(arguments, name)
            for path in given if isinstance(given, list) else [given] if given else []:
                yield _option(name), path

    read, written = list(named(READ)), list(named(WRITTEN))
    if not (arguments.embeddings or arguments.model):
        read += [("sv-score by itself", str(path)) for path in usual_embeddings(arguments.trials) if path.is_file()]
    if arguments.plot:
        written += [("--plot", str(Path(arguments.plot) / name)) for name in PICTURES]
    check_outputs(read, written)


def usual_embeddings(trials: str) -> list[Path]:
    """Return where embeddings are looked for if none are named: here, and beside the list."""
    return [Path(USUAL), Path(trials).parent / USUAL]


def _option(name: str) -> str:
    return "TRIALS" if name == "trials" else f"--{name.replace('_', '-')}"
