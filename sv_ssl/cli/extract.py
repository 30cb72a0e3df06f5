"""sv-extract: embed recordings with a model folder."""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sv_ssl.core.command import Parser, run
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside
from sv_ssl.embeddings import parts

if TYPE_CHECKING:
    from sv_ssl.data import sources
    from sv_ssl.verification.trials import Trials

LONGEST = 1200  # seconds

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
.skipped.csv; the exit code is then 3.

windows (--window)
  Ids are the utterance's, or for an .rttm the recording's, and the seconds in the recording, such as
  talk.wav/000012.00-000013.50; OUT's .windows.csv has id,recording,start,stop. Windows stand every --hop as long as
  they fit; where they do not reach the end, a last one ends there; an utterance shorter than a window is one window, as
  it is. Turns of an .rttm that touch or overlap are one utterance. Long recordings are read a window at a time.

crops (--crops)
  N crops, evenly spaced, with ids like a.wav/0 to a.wav/9; an utterance shorter than a crop is repeated up to it. The
  score of two utterances is the mean of the N x N cosines: --score writes it for a trial list, to OUT's .scores.txt.

Nothing is padded, so numbers do not depend on --workers, --batch and shards. What was embedded is kept, by content,
below ~/.cache/sv_ssl (XDG_CACHE_HOME): after a stop the same command goes on where it was.

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


def main(argv: Sequence[str] | None = None) -> int:
    """sv-extract: command line -> exit code."""
    return run(lambda: _extract(_checked(_parser().parse_intermixed_args(argv))))


def _parser() -> Parser:
    parser = Parser(prog="sv-extract", description=ABOUT, epilog=MORE)
    add = parser.add_argument
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
    add("--batch", metavar="N", type=int, help="waves of equal length that pass together (default 1, on a GPU 32)")
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
    return parser


def _checked(arguments: argparse.Namespace) -> argparse.Namespace:
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
    for option, least in (
        ("crops", 1),
        ("crop_seconds", 0.1),
        ("workers", 0),
        ("batch", 1),
        ("length_grid", 0),
        ("longest", 0.1),
    ):
        value = getattr(arguments, option)
        if value is not None and not least <= value < 1e6:
            raise InputError(f"--{option.replace('_', '-')} {value}: wanted {least} or more")
    arguments.shard = arguments.shard and parts.numbers(arguments.shard)
    if parts.processes() > 1 and arguments.shard:
        raise InputError("--shard under torchrun: torchrun makes the shards, or --shard does")
    if parts.processes() > 1 and arguments.device.startswith("cuda:"):
        raise InputError(f"--device {arguments.device} under torchrun: wanted cuda, each process takes its own")
    return arguments


def _checked_merge(arguments: argparse.Namespace) -> argparse.Namespace:
    if parts.processes() > 1:
        raise InputError("--merge under torchrun: one process merges")
    plain = vars(_parser().parse_intermixed_args(["--out", arguments.out]))
    for option, value in vars(arguments).items():
        if option not in ("merge", "out", "score") and value != plain[option]:
            raise InputError(f"--merge takes --out, --score and parts alone, not {option.replace('_', '-')}")
    return arguments


def _extract(arguments: argparse.Namespace) -> int:
    from sv_ssl.embeddings import store
    from sv_ssl.verification import trials

    store.check_target(arguments.out)
    listed = trials.read_trials(arguments.score) if arguments.score else None
    started = time.perf_counter()
    if parts.processes() > 1:
        from sv_ssl.core import distributed

        return distributed.run(lambda: _together(arguments, listed))
    if arguments.merge:
        return _write(arguments.out, parts.merged(arguments.merge), listed, started)
    part = _embedded(arguments, _planned(arguments), *(arguments.shard or (1, 1)))
    return _write_part(arguments.out, part) if arguments.shard else _write(arguments.out, part, listed, started)


def _together(arguments: argparse.Namespace, listed: Trials | None) -> int:
    """One of the processes that torchrun has started: embed a shard; the first one plans before and merges after."""
    from sv_ssl.core import distributed

    started = time.perf_counter()
    distributed.start("cpu")  # they talk little, so over gloo, whatever they embed on
    plan = parts.by_first(lambda: _planned(arguments, divided=True))
    shard, shards = distributed.rank() + 1, distributed.world_size()
    paths = [parts.path_of(arguments.out, k + 1, shards) for k in range(shards)]
    parts.by_all(lambda: parts.write(paths[shard - 1], _embedded(arguments, plan, shard, shards)))
    return parts.by_first(lambda: _write_merged(arguments.out, paths, listed, started))


class Plan(NamedTuple):
    """The work, before it is divided."""

    utterances: list[sources.Utterance]
    windows: list[sources.Window]  # which the utterances are, if any
    skipped: sources.Skipped
    seconds: list[float]  # of each utterance, as far as it matters how the work is divided


def _planned(arguments: argparse.Namespace, divided: bool = False) -> Plan:
    from sv_ssl.data import sources
    from sv_ssl.embeddings import store

    utterances, skipped = sources.find(arguments.input, arguments.audio, joined=arguments.window is not None)
    sources.refuse_twins(utterance.id for utterance in utterances)
    windows: list[sources.Window] = []
    if arguments.window is not None:
        windows, more = sources.windows(utterances, arguments.window, arguments.hop or arguments.window / 2)
        utterances, skipped = [window.utterance for window in windows], skipped + more
        sources.refuse_twins(utterance.id for utterance in utterances)
    store.check_target(arguments.out, _ids([utterance.id for utterance in utterances], arguments.crops or 0))
    one = not divided and not arguments.shard
    seconds = [1.0] * len(utterances) if one or arguments.crops else sources.seconds(utterances)
    return Plan(utterances, windows, skipped, seconds)


def _embedded(arguments: argparse.Namespace, plan: Plan, shard: int, shards: int) -> parts.Part:
    """The embeddings of a shard."""
    import torch

    from sv_ssl.core import distributed
    from sv_ssl.embeddings import extraction
    from sv_ssl.models import folder

    device, cores = arguments.device, parts.cores_each()
    if parts.processes() > 1:
        device = distributed.device(device)
        torch.set_num_threads(cores)
    embedder = folder.load(arguments.model, device)
    how = extraction.How(
        arguments.precision,
        arguments.batch or (1 if device == "cpu" else 32),
        arguments.length_grid,
        arguments.crops or 0,
        arguments.crop_seconds or 3.5,
        arguments.longest,
    )
    begin, end = parts.cuts(plan.seconds, shards)[shard - 1 : shard + 1]
    mine, windows = plan.utterances[begin:end], plan.windows[begin:end]
    kept = None if arguments.no_cache else extraction.cache_of(embedder)
    workers = min(cores, len(mine) // 64) if arguments.workers is None else arguments.workers
    if arguments.workers is None and workers < 2:  # it takes seconds to start them
        workers = 0
    found = extraction.extract(embedder, mine, how, kept, workers, progress=distributed.is_main())
    spans = [(utterance.id, utterance.start, utterance.stop) for utterance in plan.utterances]
    run = parts.run_of(extraction.digest(embedder), how._replace(batch=0), spans)
    return parts.Part(
        run,
        shard,
        shards,
        how.crops,
        found.ids,
        found.rows,
        found.seconds,
        plan.skipped,
        found.skipped,
        _window_rows(windows, found.ids),
    )


def _write_part(out: str, part: parts.Part) -> int:
    path = parts.path_of(out, part.shard, part.shards)
    parts.write(path, part)
    skipped = part.skipped + part.unplanned
    _show_skipped(skipped)
    print(
        f"wrote {path}: {len(part.ids):,} recordings; {len(skipped):,} skipped\n"
        f"next, with all {part.shards}: sv-extract --merge {_beside(out, '.*.part')} --out {out}"
    )
    return 3 if skipped else 0


def _write_merged(out: str, paths: list[Path], listed: Trials | None, started: float) -> int:
    if absent := [str(path) for path in paths if not path.exists()]:
        raise InputError(
            f"{absent[0]} is not here: machines without a folder in common keep their parts; copy them to "
            "one, and there: sv-extract --merge"
        )
    code = _write(out, parts.merged(paths), listed, started)
    for path in paths:
        path.unlink(missing_ok=True)
    return code


def _write(out: str, part: parts.Part, listed: Trials | None, started: float) -> int:
    from sv_ssl.embeddings import store

    if listed and not part.crops:
        raise InputError("--score wants parts of --crops")
    skipped = part.unplanned + part.skipped
    _report_skipped(_beside(out, ".skipped.csv"), skipped)
    if not part.ids:
        raise InputError(f"none of {len(skipped):,} recordings could be embedded; the first: {skipped[0][1]}")
    rows = part.rows.reshape(-1, part.rows.shape[2])
    store.write(out, _ids(part.ids, part.crops), rows)
    elapsed = time.perf_counter() - started
    pace = f"{part.seconds:,.1f} s of audio embedded in {elapsed:.1f} s, {part.seconds / elapsed:.0f} x real time"
    print(
        f"wrote {out}: {len(rows):,} embeddings of {rows.shape[1]} dimensions; "
        f"{pace if part.seconds else 'all of them were kept from before'}"
    )
    if part.windows:
        _write_csv(_beside(out, ".windows.csv"), [("id", "recording", "start", "stop"), *part.windows])
        print(f"wrote {_beside(out, '.windows.csv')}: when they start and stop")
    if listed:
        _write_scores(_beside(out, ".scores.txt"), listed, part)
    elif not part.windows and not part.crops:
        print(f"next: sv-score TRIALS --embeddings {out}")
    return 3 if skipped else 0


def _ids(ids: Iterable[str], crops: int) -> list[str]:
    """Each id, or with crops those of its crops."""
    return [f"{i}/{crop}" for i in ids for crop in range(crops)] if crops else list(ids)


def _beside(out: str, ending: str) -> Path:
    return Path(out).with_suffix(ending)


def _report_skipped(path: Path, skipped: sources.Skipped) -> None:
    path.unlink(missing_ok=True)  # of an earlier run
    _show_skipped(skipped)
    if skipped:
        print(f"skipped {len(skipped):,} recordings, listed in {path}", file=sys.stderr)
        _write_csv(path, [("id", "reason"), *skipped])


def _show_skipped(skipped: sources.Skipped) -> None:
    for _, reason in skipped[:10]:
        print(f"skipped: {reason}", file=sys.stderr)


def _write_scores(path: Path, listed: Trials, part: parts.Part) -> None:
    from sv_ssl.embeddings import extraction
    from sv_ssl.verification import scoring, trials
    from sv_ssl.verification.crops import crop_scores

    scored = scoring.leave_out(listed, part.ids)
    found = extraction.Extracted(part.ids, part.rows, part.skipped, part.seconds)
    trials.write_scores(path, scored, crop_scores(found, scored))
    for note in scored.notes:
        print(f"note: {note}")
    print(f"wrote {path}: {len(scored.enroll):,} scores\nnext: sv-score {path}")


def _window_rows(windows: list[sources.Window], ids: Sequence[str]) -> list[parts.Row]:
    embedded = set(ids)
    return [
        (window.utterance.id, window.recording, f"{window.start:.6f}", f"{window.stop:.6f}")
        for window in windows
        if window.utterance.id in embedded
    ]


def _write_csv(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    with (
        aside(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
