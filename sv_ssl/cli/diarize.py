"""sv-diarize: who spoke when."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sv_ssl.core.command import Parser, run
from sv_ssl.core.errors import InputError, Skipped
from sv_ssl.core.files import write_table
from sv_ssl.core.guard import check_outputs

if TYPE_CHECKING:
    from sv_ssl.data.rttm import Region, Turn
    from sv_ssl.diarization.der import Errors
    from sv_ssl.diarization.pipeline import Cluster

ABOUT = """\
Find who spoke when: windows of 1.5 s every 0.75 s over the speech of a recording are embedded and clustered.

A recording is known by its file's name without folder and ending; blanks in it become "_".
"""
MORE = """\
where there is speech
  By default where the level stands out of the background (--vad energy): any loud sound is taken for speech. --rttm-in
  takes the turns of an RTTM, whoever speaks; --vad none takes everything. --uem keeps to the regions of a UEM.

how many speakers
  spectral  by the largest gap between the eigenvalues of the graph of nearest windows, at most 10; or --speakers
  ahc       average linkage until no two clusters have a mean cosine of --threshold or more; or --speakers
  Where two people talk at once, one of them gets the turn.

A recording gets OUT/<name>.rttm, an empty one if there is no speech. What cannot be read is named on the screen and
listed with its reason in OUT/skipped.csv; the exit code is then 3, or 2 where none could be read. With --reference the
error rate is measured: missed speech, false alarms and confused speakers as parts of the speech in the reference.

examples
  sv-diarize MODEL meeting.wav --out rttm/
  sv-diarize MODEL meetings/*.flac --out rttm/ --rttm-in meetings/ --reference meetings/ --speakers 4
  sv-diarize MODEL call.wav --out rttm/ --method ahc --threshold 0.5
"""

SKIPPED = "skipped.csv"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(lambda: _diarize(_parser().parse_args(argv)), "sv-diarize")


def _parser() -> Parser:
    parser = Parser(prog="sv-diarize", description=ABOUT, epilog=MORE)
    add = parser.add_argument
    add("model", metavar="MODEL", help="model folder, as training writes it")
    add("audio", metavar="WAV", nargs="+", help="recordings")
    add("--out", metavar="FOLDER", required=True, help="where to write an RTTM a recording")
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    add = parser.add_argument_group("speech").add_argument
    add("--rttm-in", metavar="RTTM", help="take the speech from this RTTM, or from a folder of them")
    add("--vad", choices=("energy", "none"), help="detect it (default), or take everything for speech")
    add(
        "--uem",
        metavar="UEM",
        help="keep to the regions of this UEM, or of a folder of them, in the search and the error rate",
    )
    add = parser.add_argument_group("speakers").add_argument
    add("--method", choices=("spectral", "ahc"), default="spectral", help="how to cluster (default spectral)")
    add("--speakers", metavar="N", type=int, help="their number; estimated if absent")
    add("--threshold", metavar="T", type=float, help="for ahc without --speakers: the least mean cosine in a speaker")
    add = parser.add_argument_group("error rate").add_argument
    add("--reference", metavar="RTTM", help="the true turns: an RTTM, or a folder of them")
    add("--collar", metavar="S", type=float, help="seconds on either side of a true turn's ends not to count (0)")
    add("--skip-overlap", action="store_true", help="do not count where several speakers truly talk at once")
    return parser


def _diarize(arguments: argparse.Namespace) -> int:
    _check(arguments)
    from sv_ssl.data import rttm

    paths = _names(arguments.audio)
    read = [("--reference", arguments.reference), ("--rttm-in", arguments.rttm_in), ("--uem", arguments.uem)]
    read += [("WAV", path) for path in arguments.audio]
    names = [f"{name}.rttm" for name in paths]
    check_outputs(read, [("--out", Path(arguments.out) / name) for name in (*names, SKIPPED)])
    given = rttm.read(arguments.rttm_in) if arguments.rttm_in else None
    uem = rttm.read_uem(arguments.uem) if arguments.uem else None
    reference = rttm.read(arguments.reference) if arguments.reference else None
    for option, known in (("--rttm-in", given), ("--uem", uem), ("--reference", reference)):
        if known is not None and (absent := [name for name in paths if name not in known]):
            path = getattr(arguments, option[2:].replace("-", "_"))
            others = f" and {len(absent) - 1} others" if absent[1:] else ""
            raise InputError(f"{path} ({option}) does not have the recording {absent[0]}{others}")
    return _run(arguments, paths, given, uem, reference)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that contradict or do nothing."""
    if arguments.rttm_in and arguments.vad:
        raise InputError("--rttm-in says where there is speech: leave --vad out")
    if arguments.speakers is not None and arguments.speakers < 1:
        raise InputError(f"--speakers {arguments.speakers}: wanted 1 or more")
    if arguments.method == "ahc" and (arguments.threshold is None) == (arguments.speakers is None):
        raise InputError("--method ahc needs either --threshold T or --speakers N")
    if arguments.method == "spectral" and arguments.threshold is not None:
        raise InputError("--threshold is for --method ahc")
    if arguments.threshold is not None and not -1 <= arguments.threshold <= 1:
        raise InputError(f"--threshold {arguments.threshold}: wanted a cosine, from -1 to 1")
    if arguments.collar is not None and not 0 <= arguments.collar < float("inf"):
        raise InputError(f"--collar {arguments.collar}: wanted seconds, 0 or more")
    if not arguments.reference and (arguments.collar is not None or arguments.skip_overlap):
        raise InputError("--collar and --skip-overlap need --reference RTTM")


def _names(paths: Sequence[str]) -> dict[str, str]:
    """Return the path of each recording by its name."""
    named: dict[str, str] = {}
    for path in paths:
        name = "_".join(Path(path).stem.split())
        if name in named:
            raise InputError(f"{named[name]} and {path} would both be written to {name}.rttm: rename one of them")
        named[name] = path
    return named


def _run(
    arguments: argparse.Namespace,
    paths: Mapping[str, str],
    given: Mapping[str, list[Turn]] | None,
    uem: Mapping[str, list[Region]] | None,
    reference: Mapping[str, list[Turn]] | None,
) -> int:
    """Diarize each recording and write its RTTM; return the exit code."""
    from sv_ssl.audio import AudioError
    from sv_ssl.core.progress import watched
    from sv_ssl.data import rttm
    from sv_ssl.diarization import der, pipeline
    from sv_ssl.models import folder

    embed_windows = pipeline.embedded_by(folder.load(arguments.model, arguments.device), progress=len(paths) == 1)
    cluster = _cluster(arguments)
    out = Path(arguments.out)
    skipped: list[Skipped] = []
    scored: list[Errors] = []
    for name in watched(list(paths), "diarizing", "recording"):
        limits = uem[name] if uem else None
        try:
            speech = _speech(paths[name], given[name] if given else None, limits, arguments.vad)
            turns = pipeline.diarize(paths[name], speech, embed_windows, cluster)
        except AudioError as error:
            print(f"skipped: {error}", file=sys.stderr)
            skipped.append(Skipped(name, error.kind, str(error)))
            continue
        rttm.write(out / f"{name}.rttm", {name: turns})
        line = f"{out / name}.rttm: {_summary(turns)}"
        if reference:
            scored.append(der.errors(reference[name], turns, limits, arguments.collar or 0.0, arguments.skip_overlap))
            line += f"; {scored[-1].text()}"
        print(line, flush=True)
    return _finish(arguments, len(paths), skipped, scored)


def _cluster(arguments: argparse.Namespace) -> Cluster:
    from sv_ssl.diarization import cluster

    if arguments.method == "ahc":
        return partial(cluster.agglomerative, n_speakers=arguments.speakers, threshold=arguments.threshold)
    return partial(cluster.spectral, n_speakers=arguments.speakers)


def _speech(path: str, given: list[Turn] | None, limits: list[Region] | None, vad: str | None) -> list[Region]:
    """Return where there is speech in a recording, as the options say it is found."""
    from sv_ssl import audio
    from sv_ssl.data import rttm
    from sv_ssl.diarization import pipeline
    from sv_ssl.diarization.vad import energy

    if given is not None:
        speech = rttm.merged(given)
    elif vad == "none":
        about = audio.info(path)
        speech = [rttm.Region(0.0, about.frames / about.rate)]
    else:
        speech = pipeline.detect(path, energy)
    return speech if limits is None else rttm.common(speech, rttm.merged(limits))


def _summary(turns: Sequence[Turn]) -> str:
    if not turns:
        return "no speech found"
    speakers = len({turn.speaker for turn in turns})
    seconds = sum(turn.stop - turn.start for turn in turns)
    return f"{speakers} speaker{'s' if speakers > 1 else ''}, {len(turns):,} turns, {seconds:.1f} s of speech"


def _finish(arguments: argparse.Namespace, count: int, skipped: list[Skipped], scored: Sequence[Errors]) -> int:
    """Say what was measured, what was left out and what could be next; return the exit code."""
    from sv_ssl.diarization import der

    out = Path(arguments.out)
    if len(scored) > 1:
        print(f"all {len(scored)} recordings: {der.pooled(scored).text()}")
    if skipped:
        path = out / SKIPPED
        write_table(path, [("recording", "reason"), *((one.id, one.reason) for one in skipped)])
        print(f"skipped {len(skipped):,} of {count:,} recordings, listed in {path}", file=sys.stderr)
    if len(skipped) == count:
        raise InputError(f"none of {count:,} recordings could be diarized; the first: {skipped[0].reason}")
    print(_next(arguments, count - len(skipped)), file=sys.stderr)  # beside the lines: other programs read those
    return 3 if skipped else 0


def _next(arguments: argparse.Namespace, count: int) -> str:
    """Return what was written, and options that were not used."""
    hints = {
        "--speakers N, where their number is known": arguments.speakers,
        "--rttm-in RTTM, where it is known when there is speech": arguments.rttm_in,
        "--reference RTTM for the error rate": arguments.reference,
    }
    more = [hint for hint, given in hints.items() if not given]
    return f"wrote {arguments.out}: {count:,} RTTM; next: {', '.join(more) or 'any program that reads RTTM'}"


if __name__ == "__main__":
    sys.exit(main())
