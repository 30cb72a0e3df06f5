"""The options of sv-extract: what they are, and which need or exclude each other."""

from __future__ import annotations

import argparse
import re

from sv_ssl.core import host
from sv_ssl.core.command import Parser
from sv_ssl.core.errors import InputError

LONGEST = 1200  # seconds
LEAST = {"crops": 1, "crop_seconds": 0.1, "workers": 0, "batch": 1, "length_grid": 0, "longest": 0.1}

ABOUT = """\
Embed recordings with a model folder: each utterance whole and alone, so that no neighbour changes a number.

INPUT is one of these. An id is the path as given, relative to INPUT: what VoxCeleb's lists have for voxceleb1/wav.
  a folder           searched to its depths
  audio files        one or more
  .txt, .lst or -    a path a line, - from standard input; below --audio, else below the list's folder, else from here
  .csv               a manifest; ids are those of its column ID where a recording is used twice or not below it
  wav.scp            Kaldi's, with segments beside it, or their folder; ids are Kaldi's
  .rttm              the turns in the recordings below --audio; ids like meeting/000012.00-000013.50, in seconds
"""
MORE = """\
OUT has its form by its ending:
  .npz         `ids` (N,) and `embeddings` (N, D) float32: numpy.load(OUT)
  .npy         (N, D), the ids in OUT's .ids, one a line
  .ark, .scp   both, for Kaldi; ids without blanks
  .parquet     columns id and embedding
  .pt          {"ids": [...], "embeddings": (N, D)}: torch.load(OUT)
  /            a new folder of one .npy an id
What is damaged, silent or shorter than 0.1 s is left out, named on the screen and listed with the reason in OUT's
.skipped.csv; the exit code is then 3, or 2 where nothing could be embedded.

windows (--window)
  Ids are the utterance's, or for an .rttm the recording's, and the seconds in the recording, such as
  talk.wav/000012.00-000013.50; OUT's .windows.csv has id,recording,start,stop. Windows stand every --hop as long as
  they fit; where they do not reach the end, a last one ends there; an utterance shorter than a window is one window, as
  it is. Turns of an .rttm that touch or overlap are one utterance. Long recordings are read a window at a time.

crops (--crops)
  N crops, evenly spaced, with ids like a.wav/0 to a.wav/9; an utterance shorter than a crop is repeated up to it. The
  score of two utterances is the mean of the N x N cosines: --score writes it for a trial list, to OUT's .scores.txt.

Nothing is padded, and on a CPU each recording passes alone: --batch and shards do not change one bit. The order of sums
depends on how many threads a process has (one with --workers 1 and more), and on a GPU on --batch: an embedding then
differs by less than 1e-6 of its length. What was embedded is kept with a checksum, by content, below ~/.cache/sv_ssl
(XDG_CACHE_HOME): after a stop the same command goes on where it was. What is damaged there is told and made anew.

several processes, GPUs or machines
  Under torchrun each process embeds a shard, and the first merges them into OUT. Shards are neighbours of equal total
  duration; they meet in the folder of OUT, which machines have to share. With --device cuda each process takes the GPU
  of its number, on a CPU they divide the cores. Where this command ends with 3, torchrun says so and ends with 1.
  Without torchrun, and on machines that share nothing: the same command on each with --shard 1/4 to --shard 4/4, which
  writes OUT's .1-of-4.part and so on; then --merge with all four, which needs neither the model nor the audio.

examples
  sv-extract exp/built-in/simclr_am/0/model voxceleb1/wav --out embeddings.npz
  sv-extract MODEL test.csv --out test.npz --device cuda --precision bf16
  sv-extract MODEL meetings.rttm --audio meetings --window 1.5 --hop 0.75 --out windows.npz
  sv-extract MODEL voxceleb1/wav --crops 10 --score veri_test2.txt --out crops.npz && sv-score crops.scores.txt
  find . -name "*.flac" | sv-extract MODEL - --out embeddings.parquet
  torchrun --nproc-per-node 4 --no-python sv-extract MODEL voxceleb1/wav --device cuda --out embeddings.npz
  sv-extract MODEL voxceleb1/wav --shard 1/4 --out vox.npz       and so on; then, with all parts in one folder:
  sv-extract --merge vox.*.part --out vox.npz
"""


def parser() -> Parser:
    made = Parser(prog="sv-extract", description=ABOUT, epilog=MORE)
    add = made.add_argument
    add("model", metavar="MODEL", nargs="?", help="model folder, as training writes it")
    add("input", metavar="INPUT", nargs="*", help="what to embed")
    add("--out", metavar="OUT", required=True, help="what to write; the ending of the name is the form")
    add("--audio", metavar="FOLDER", help="of the recordings of an .rttm or a list, if not its own")
    add("--window", metavar="SECONDS", type=float, help="embed windows of this length")
    add("--hop", metavar="SECONDS", type=float, help="from one window to the next (default: half a window)")
    add("--crops", metavar="N", type=int, help="embed N crops of each utterance")
    add("--crop-seconds", metavar="SECONDS", type=float, help="length of a crop (default 3.5)")
    add("--score", metavar="TRIALS", help="with --crops: score this list as well")
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 is faster and keeps three digits")
    add(
        "--workers",
        metavar="N",
        type=int,
        help="processes on a CPU, threads that read for a GPU (default: one a core; 0: none)",
    )
    add("--batch", metavar="N", type=int, help="waves of equal length that pass together on a GPU (default 32)")
    add(
        "--length-grid",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="cut lengths down to a multiple of this: larger batches on a GPU, other numbers (default 0: off)",
    )
    add(
        "--longest",
        metavar="SECONDS",
        type=float,
        default=LONGEST,
        help="leave out whole utterances above this, "
        "which take 0.5 to 10 MB a second (default %(default)s); use --window for them",
    )
    add("--shard", metavar="K/N", help="embed the K-th of N equal parts, and write it for --merge")
    add("--merge", metavar="PART", nargs="+", help="write OUT from all the parts that --shard wrote")
    add("--no-cache", action="store_true", help="neither use nor keep what was embedded before")
    return made


def check(arguments: argparse.Namespace) -> argparse.Namespace:
    """Refuse what would do nothing, and numbers that make no sense; fill in what depends on others."""
    if arguments.merge:
        return _checked_merge(arguments)
    if not arguments.input:
        raise InputError("wanted MODEL and INPUT (sv-extract --help shows what they are)")
    for option, needs in (("hop", "window"), ("crop_seconds", "crops"), ("score", "crops")):
        if getattr(arguments, option) is not None and getattr(arguments, needs) is None:
            raise InputError(f"--{option.replace('_', '-')} needs --{needs} as well")
    if arguments.window is not None and arguments.crops is not None:
        raise InputError("--window and --crops exclude each other")
    if arguments.shard and arguments.score:
        raise InputError("--score goes with --merge, not with --shard")
    for option, least in LEAST.items():
        value = getattr(arguments, option)
        if value is not None and not least <= value < 1e6:
            raise InputError(f"--{option.replace('_', '-')} {value}: wanted {least} or more")
    arguments.shard = arguments.shard and _numbers(arguments.shard)
    if host.processes() > 1 and arguments.shard:
        raise InputError("--shard under torchrun: torchrun makes the shards, or --shard does")
    if host.processes() > 1 and arguments.device.startswith("cuda:"):
        raise InputError(f"--device {arguments.device} under torchrun: wanted cuda, each process takes its own")
    return arguments


def _checked_merge(arguments: argparse.Namespace) -> argparse.Namespace:
    if host.processes() > 1:
        raise InputError("--merge under torchrun: one process merges")
    plain = vars(parser().parse_intermixed_args(["--out", arguments.out]))
    for option, value in vars(arguments).items():
        if option not in ("merge", "out", "score") and value != plain[option]:
            raise InputError(f"--merge takes --out, --score and parts alone, not {option.replace('_', '-')}")
    return arguments


def _numbers(text: str) -> tuple[int, int]:
    """Return the number of the part and of all parts that --shard K/N names.

    >>> _numbers("2/4")
    (2, 4)
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard {text}: wanted K/N with K from 1 to N, such as 1/4")
    return int(match[1]), int(match[2])
