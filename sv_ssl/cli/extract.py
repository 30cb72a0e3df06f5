"""sv-extract: embed recordings with a model folder."""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Sequence

from sv_ssl.cli import Parser, run
from sv_ssl.files import InputError, aside

if TYPE_CHECKING:
    from sv_ssl import sources
    from sv_ssl.embed import Extracted
    from sv_ssl.trials import Trials

ABOUT = """\
Embed recordings with a model folder: each utterance whole and alone, so that no neighbour changes a number.

INPUT is one of these. An id is the path as given, relative to INPUT: what VoxCeleb's lists have for voxceleb1/wav.
  a folder           searched to its depths
  audio files        one or more
  .txt, .lst or -    a path a line, - from standard input; below --audio, else below the list's folder, else from here
  .csv               a manifest; if it uses a recording more than once, ids are those of its column ID
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
.skipped.csv; the exit code is then 3.

windows (--window)
  Ids are the utterance's, or for an .rttm the recording's, and the seconds in the recording, such as
  talk.wav/000012.00-000013.50; OUT's .windows.csv has id,recording,start,stop. Windows stand every --hop as long as
  they fit; where they do not reach the end, a last one ends there; an utterance shorter than a window is one window, as
  it is. Turns of an .rttm that touch or overlap are one utterance. Long recordings are read a window at a time.

crops (--crops)
  N crops, evenly spaced, with ids like a.wav/0 to a.wav/9; an utterance shorter than a crop is repeated up to it. The
  score of two utterances is the mean of the N x N cosines: --score writes it for a trial list, to OUT's .scores.txt.

Nothing is padded, so numbers do not depend on --workers and --batch. What was embedded is kept, by content, below
~/.cache/sv_ssl (XDG_CACHE_HOME): after a stop the same command goes on where it was.

examples
  sv-extract exp/built-in/simclr_am/0/model voxceleb1/wav --out embeddings.npz
  sv-extract MODEL test.csv --out test.npz --device cuda --precision bf16
  sv-extract MODEL meetings.rttm --audio meetings --window 1.5 --hop 0.75 --out windows.npz
  sv-extract MODEL voxceleb1/wav --crops 10 --score veri_test2.txt --out crops.npz && sv-score crops.scores.txt
  find . -name "*.flac" | sv-extract MODEL - --out embeddings.parquet
"""


def main(argv: Sequence[str] | None = None) -> int:
    """sv-extract: command line -> exit code."""
    return run(lambda: _extract(_checked(_parser().parse_args(argv))))


def _parser() -> Parser:
    parser = Parser(prog="sv-extract", description=ABOUT, epilog=MORE)
    add = parser.add_argument
    add("model", metavar="MODEL", help="model folder, as training writes it")
    add("input", metavar="INPUT", nargs="+", help="what to embed")
    add("--out", metavar="OUT", required=True, help="what to write; the ending of the name is the form")
    add("--audio", metavar="FOLDER", help="of the recordings of an .rttm or a list, if not its own")
    add("--window", metavar="SECONDS", type=float, help="embed windows of this length")
    add("--hop", metavar="SECONDS", type=float, help="from one window to the next (default: half a window)")
    add("--crops", metavar="N", type=int, help="embed N crops of each utterance")
    add("--crop-seconds", metavar="SECONDS", type=float, help="length of a crop (default 3.5)")
    add("--score", metavar="TRIALS", help="with --crops: score this list as well")
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 is faster and keeps three digits")
    add("--workers", metavar="N", type=int, help="processes on a CPU, threads that read for a GPU (default: one a "
        "core; 0: none)")  # fmt: skip
    add("--batch", metavar="N", type=int, help="waves of equal length that pass together (default 1, on a GPU 32)")
    add("--length-grid", metavar="SECONDS", type=float, default=0.0, help="cut lengths down to a multiple of this: "
        "larger batches on a GPU, other numbers (default 0: off)")  # fmt: skip
    add("--no-cache", action="store_true", help="neither use nor keep what was embedded before")
    return parser


def _checked(arguments: argparse.Namespace) -> argparse.Namespace:
    """Refuse what would do nothing, and numbers that make no sense; fill in what depends on others."""
    for option, needs in (("hop", "window"), ("crop_seconds", "crops"), ("score", "crops")):
        if getattr(arguments, option) is not None and getattr(arguments, needs) is None:
            raise InputError(f"--{option.replace('_', '-')} needs --{needs} as well")
    if arguments.window is not None and arguments.crops is not None:
        raise InputError("--window and --crops exclude each other")
    for option, least in (("crops", 1), ("crop_seconds", 0.1), ("workers", 0), ("batch", 1), ("length_grid", 0)):
        value = getattr(arguments, option)
        if value is not None and not least <= value < 1e6:
            raise InputError(f"--{option.replace('_', '-')} {value}: wanted {least} or more")
    return arguments


def _extract(arguments: argparse.Namespace) -> int:
    from sv_ssl import embeddings

    embeddings.check_target(arguments.out)
    from sv_ssl import embed, model, trials

    listed = trials.read_trials(arguments.score) if arguments.score else None
    utterances, windows, skipped = _planned(arguments)
    crops = arguments.crops or 0
    embeddings.check_target(arguments.out, _ids([utterance.id for utterance in utterances], crops))
    embedder = model.load(arguments.model, arguments.device)
    how = embed.How(arguments.precision, arguments.batch or (1 if arguments.device == "cpu" else 32),
                    arguments.length_grid, crops, arguments.crop_seconds or 3.5)  # fmt: skip
    kept = None if arguments.no_cache else embed.cache_of(embedder)
    started = time.perf_counter()
    found = embed.extract(embedder, utterances, how, kept, _workers(arguments, len(utterances)))
    elapsed = time.perf_counter() - started
    skipped += found.skipped
    _report_skipped(_beside(arguments.out, ".skipped.csv"), skipped)
    if not found.ids:
        raise InputError(f"none of {len(skipped):,} recordings could be embedded; the first: {skipped[0][1]}")
    rows = found.rows.reshape(-1, found.rows.shape[2])
    embeddings.write(arguments.out, _ids(found.ids, crops), rows)
    pace = f"{found.seconds:,.1f} s of audio embedded in {elapsed:.1f} s, {found.seconds / elapsed:.0f} x real time"
    print(f"wrote {arguments.out}: {len(rows):,} embeddings of {rows.shape[1]} dimensions; "
          f"{pace if found.seconds else 'all of them were kept from before'}")  # fmt: skip
    if windows:
        _write_windows(_beside(arguments.out, ".windows.csv"), windows, found.ids)
    if listed:
        _write_scores(_beside(arguments.out, ".scores.txt"), listed, found)
    elif not windows and not crops:
        print(f"next: sv-score TRIALS --embeddings {arguments.out}")
    return 3 if skipped else 0


def _planned(arguments: argparse.Namespace) -> tuple[list[sources.Utterance], list[sources.Window], sources.Skipped]:
    from sv_ssl import sources

    utterances, skipped = sources.find(arguments.input, arguments.audio, joined=arguments.window is not None)
    sources.refuse_twins(utterance.id for utterance in utterances)
    if arguments.window is None:
        return utterances, [], skipped
    windows, more = sources.windows(utterances, arguments.window, arguments.hop or arguments.window / 2)
    sources.refuse_twins(window.utterance.id for window in windows)
    return [window.utterance for window in windows], windows, skipped + more


def _ids(ids: Iterable[str], crops: int) -> list[str]:
    """Each id, or with crops those of its crops."""
    return [f"{i}/{crop}" for i in ids for crop in range(crops)] if crops else list(ids)


def _workers(arguments: argparse.Namespace, n: int) -> int:
    """One a core, but none for some dozens of recordings: it takes seconds to start them."""
    if arguments.workers is not None:
        return arguments.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, n // 64)
    return workers if workers > 1 else 0


def _beside(out: str, ending: str) -> Path:
    return Path(out).with_suffix(ending)


def _report_skipped(path: Path, skipped: sources.Skipped) -> None:
    path.unlink(missing_ok=True)  # of an earlier run
    if not skipped:
        return
    for _, reason in skipped[:10]:
        print(f"skipped: {reason}", file=sys.stderr)
    print(f"skipped {len(skipped):,} recordings, listed in {path}", file=sys.stderr)
    _write_csv(path, [("id", "reason"), *skipped])


def _write_scores(path: Path, listed: Trials, found: Extracted) -> None:
    from sv_ssl import embed, scoring, trials

    scored = scoring.leave_out(listed, found.ids)
    trials.write_scores(path, scored, embed.crop_scores(found, scored))
    for note in scored.notes:
        print(f"note: {note}")
    print(f"wrote {path}: {len(scored.enroll):,} scores\nnext: sv-score {path}")


def _write_windows(path: Path, windows: list[sources.Window], ids: Sequence[str]) -> None:
    embedded = set(ids)
    rows = [(window.utterance.id, window.recording, f"{window.start:.6f}", f"{window.stop:.6f}") for window in windows]
    _write_csv(path, [("id", "recording", "start", "stop"), *(row for row in rows if row[0] in embedded)])
    print(f"wrote {path}: when they start and stop")


def _write_csv(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    with aside(path) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            csv.writer(file).writerows(rows)
