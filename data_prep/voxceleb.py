"""VoxCeleb1 and VoxCeleb2, as downloaded or unpacked, to a folder that the recipes take as --data_folder.

SOURCE holds any of these, at any depth:
  vox1_dev_wav_parta*, vox1_test_wav.zip, vox2_dev_aac_parta*, vox2_test_aac.zip    as they are distributed
  .../id10001/session/00001.wav, .../id00012/session/00001.m4a (or .wav, .flac)     unpacked
  vox1_meta.csv, vox2_meta.csv               who is in dev and who in test
  veri_test.txt, veri_test2.txt, list_test_all.txt, list_test_hard2.txt, ...        trial lists
  iden_split.txt, train_list.txt             names of all utterances, by which missing ones are named

Archives are read in place; m4a is decoded to FLAC by ffmpeg; nothing in SOURCE is changed, and files are linked, not
copied. The same command again goes on where it was stopped. FOLDER then holds:
  wav/                                       VoxCeleb1, named as in the trial lists
  voxceleb2/                                 what was decoded of VoxCeleb2
  train.csv                                  VoxCeleb2 dev, or VoxCeleb1 dev where there is no VoxCeleb2
  vox1_dev.csv, vox1_test.csv, vox2_dev.csv, vox2_test.csv      each part
  veri_test.txt, veri_test2.txt, ...         the lists whose recordings are all there
  problems.csv                               what is missing, damaged or there twice
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from data_prep import TRAIN, Problem, command, each, finish, link, parser, save
from data_prep.decode import BATCH, decode, require_ffmpeg
from data_prep.vox_lists import copied, names_in, read_lists
from data_prep.vox_sources import FIRST, Found, Sources, look, title
from sv_ssl.core.errors import InputError
from sv_ssl.core.text_file import lines
from sv_ssl.data import scan

TITLES = {
    "vox1_dev": "VoxCeleb1 dev",
    "vox1_test": "VoxCeleb1 test",
    "vox2_dev": "VoxCeleb2 dev",
    "vox2_test": "VoxCeleb2 test",
}
PUBLISHED = {
    "vox1_dev": (148_642, 1_211),
    "vox1_test": (4_874, 40),
    "vox2_dev": (1_092_009, 5_994),
    "vox2_test": (36_237, 118),
}  # utterances, speakers
SPEAKERS = range(FIRST, 11_252)  # of VoxCeleb1
TESTED = range(10_270, 10_310)  # of those, the speakers of its test


# ------------------------------------------------------------------------------------------- dev, test and their sizes
def published_parts(metas: Iterable[str]) -> dict[str, str]:
    """Return {speaker: part} as published: of VoxCeleb1 always, of VoxCeleb2 by its vox2_meta.csv.

    >>> parts = published_parts([])
    >>> parts["id10269"], parts["id10270"], "id00012" in parts
    ('vox1_dev', 'vox1_test', False)
    """
    parts = {f"id{n}": "vox1_test" if n in TESTED else "vox1_dev" for n in SPEAKERS}
    for path in metas:
        parts.update(read_meta(path))
    return parts


def read_meta(path: str) -> dict[str, str]:
    """Read vox1_meta.csv (tabs) or vox2_meta.csv (commas and blanks) -> {speaker: part}."""
    parts = {}
    for number, line in enumerate(lines(path), 1):
        fields = [field.strip() for field in re.split("[\t,]", line)]
        if re.fullmatch(r"id\d{5}", fields[0]) and fields[-1] in ("dev", "test"):
            parts[fields[0]] = f"vox{title(fields[0])[-1]}_{fields[-1]}"
        elif line.strip() and number > 1:
            got = line.strip()[:90]
            raise InputError(f'{path}:{number}: want a speaker such as id00012 first, dev or test last, got "{got}"')
    return parts


def divide(found: Sources, published: dict[str, str]) -> dict[str, str]:
    """Return {speaker: part} of those that are there: as published, else by folders and archives named dev and test.

    The archives of VoxCeleb2 unpack to dev/aac and, for test, aac: beside a dev the nameless one is test.
    """
    dev_named = any("dev" in hints for speaker, hints in found.hints.items() if title(speaker) == "VoxCeleb2")
    parts = {}
    for speaker, hints in found.hints.items():
        tested = "test" in hints or (hints == {""} and dev_named)
        parts[speaker] = published.get(speaker) or f"vox{title(speaker)[-1]}_{'test' if tested else 'dev'}"
        if speaker not in published and {"dev", "test"} <= hints:
            problem = "in dev and in test, taken for test: vox2_meta.csv would tell"
            found.problems.append(Problem(title(speaker), speaker, problem))
    return parts


def tally(names: Iterable[str], parts: dict[str, str]) -> dict[str, tuple[int, int]]:
    """Count names of utterances -> {part: (utterances, speakers)}, for the parts that are there."""
    counts: Counter = Counter()
    many: Counter = Counter()
    for speaker, count in Counter(name[:7] for name in names).items():
        counts[parts[speaker]] += count
        many[parts[speaker]] += 1
    return {part: (counts[part], many[part]) for part in PUBLISHED if part in counts}


def unlike_published(counts: dict[str, tuple[int, int]]) -> list[Problem]:
    """Return a problem for each count that is not the published one.

    >>> [problem.problem for problem in unlike_published({"vox1_test": (4874, 39)})]
    ['39 speakers, published are 40']
    """
    return [
        Problem(TITLES[part], "", f"{count:,} {what}, published are {wanted:,}")
        for part, pair in counts.items()
        for count, wanted, what in zip(pair, PUBLISHED[part], ("utterances", "speakers"))
        if count != wanted
    ]


def absent(found: Sources, parts: dict[str, str], published: dict[str, str], named: dict[str, str]) -> list[Problem]:
    """List speakers and {utterance: list} that are not there, in those parts of which there is something."""
    present = set(parts.values())
    speakers = [
        Problem(TITLES[part], speaker, "nothing of this speaker")
        for speaker, part in sorted(published.items())
        if part in present and speaker not in parts
    ]
    known = {**published, **parts}
    names = [
        Problem(TITLES[part], name, f"not here, but in {path}")
        for name, path in named.items()
        if os.path.splitext(name)[0] not in found.utterances and (part := known.get(name[:7], "vox2_dev")) in present
    ]
    return speakers + names


# ------------------------------------------------------------------------------------------------- unpack and decode
def bring(found: Sources, parts: dict[str, str], workers: int | None) -> dict[str, str]:
    """Link, unpack and decode what is not in its place -> {name: path}; what fails is among the problems."""
    targets = {name: _target(found.out, item, parts[name[:7]]) for name, item in found.utterances.items()}
    undone = [item for name, item in found.utterances.items() if item.archive or item.path != targets[name]]
    ways: dict[str, list[Found]] = {"linking": [], "unpacking": [], "decoding": []}
    for item in undone:
        ways["decoding" if item.coded() else "unpacking" if item.archive else "linking"].append(item)
    if ways["decoding"]:
        require_ffmpeg(f"{len(ways['decoding']):,} m4a files")
    found.out.mkdir(parents=True, exist_ok=True)
    for (what, items), work in zip(ways.items(), (_link, _unpack, _decode)):
        if not items:
            continue
        print(f"{what} {len(items):,} files", flush=True)
        for item, fault in each(lambda block: work(block, targets, found.out), items, what, workers, BATCH):
            if fault:
                found.problems.append(Problem(TITLES[parts[item.name[:7]]], item.place(), fault))
                del targets[item.name]
    return targets


def _target(out: Path, item: Found, part: str) -> str:
    """Return where an utterance is read from in the end: VoxCeleb1 as the lists name it, VoxCeleb2 where it lies."""
    if part.startswith("vox1"):
        return f"{out}/wav/{item.name}.wav"
    suffix = ".flac" if item.coded() else os.path.splitext(item.path)[1].lower()
    if item.coded() or item.archive:
        return f"{out}/voxceleb2/{part[5:]}/{item.name}{suffix}"
    return item.path


def _link(items: list[Found], targets: dict[str, str], out: Path) -> list[str]:
    for item in items:
        link(item.path, targets[item.name])
    return [""] * len(items)


def _unpack(items: list[Found], targets: dict[str, str], out: Path) -> list[str]:
    faults = []
    with TemporaryDirectory(prefix=".unpacking-", dir=out) as scratch:
        for item in items:
            try:
                Path(scratch, "whole").write_bytes(_content(item))
                os.makedirs(os.path.dirname(targets[item.name]), exist_ok=True)
                os.replace(Path(scratch, "whole"), targets[item.name])
                faults.append("")
            except InputError as error:
                faults.append(str(error))
    return faults


def _decode(items: list[Found], targets: dict[str, str], out: Path) -> list[str]:
    faults, pairs = {}, {}
    for item in items:
        try:
            pairs[item.name] = _content(item) if item.archive else item.path, targets[item.name]
        except InputError as error:
            faults[item.name] = str(error)
    faults.update(zip(pairs, decode(list(pairs.values()), out)))
    return [faults[item.name] for item in items]


def _content(item: Found) -> bytes:
    assert item.archive and item.member
    return item.archive.read(item.member)


# --------------------------------------------------------------------------------------------------------- the result
def measured(
    found: Sources, places: dict[str, str], parts: dict[str, str], workers: int | None
) -> dict[str, pd.DataFrame]:
    """Return {part: manifest}, by the headers of the files; those that cannot be used are among the problems."""
    entries: dict[str, list[scan.Entry]] = {part: [] for part in PUBLISHED}
    for name, path in places.items():
        speaker, session, _ = name.split("/")
        below = path[len(str(found.out)) + 1 :] if path.startswith(f"{found.out}/") else path
        suffix = os.path.splitext(path)[1]
        entries[parts[speaker]].append(scan.Entry(name + suffix, below, None, speaker, session))
    frames = {part: scan.measure(found.out, rows, [], workers=workers) for part, rows in entries.items() if rows}
    for part, frame in frames.items():
        found.problems += [Problem(TITLES[part], path, reason) for path, _, reason in frame.attrs["skipped"]]
    return frames


def prepare(
    sources: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    train: str | None = None,
    speakers: bool = False,
    workers: int | None = None,
) -> int:
    """Make `out` from the sources -> exit code; `train` is vox1, vox2 or both, by default vox2 if it is there."""
    out = Path(os.path.abspath(out))
    with ExitStack() as stack:
        found = look([*sources, *([out] if out.is_dir() else [])], out, stack)
        published = published_parts(found.metas)
        parts = divide(found, published)
        chosen = training_parts(set(parts.values()), train)
        lists = read_lists(found.lists, out)
        places = bring(found, parts, workers)
    frames = measured(found, places, parts, workers)
    ids = {name for frame in frames.values() for name in frame["ID"]}
    counts = tally(ids, parts)
    named = {name: path for path in found.inventories for name in names_in(path)}
    named |= {name: path for path, trials in lists.values() for name in trials.ids}
    problems = [*unlike_published(counts), *absent(found, parts, published, named), *found.problems]
    lines = [_counted(part, counts, frames) for part in PUBLISHED] + copied(lists, ids, out)
    lines += [f"{found.copies:,} files were there twice, in one size: one of each was taken"] * (found.copies > 0)
    lines += [save(frame, out / f"{part}.csv", speakers) for part, frame in frames.items()]
    lines += [save(pd.concat([frames[part] for part in chosen]), out / "train.csv", speakers)] if chosen else []
    following = f"{TRAIN} {out}" if chosen else f"sv-extract MODEL {out}/wav --out test.npz"
    return finish(out, lines, problems, following)


def training_parts(there: set[str], train: str | None) -> list[str]:
    """Return the parts that make train.csv.

    >>> training_parts({"vox1_dev", "vox1_test"}, None), training_parts({"vox1_dev", "vox2_dev"}, "both")
    (['vox1_dev'], ['vox1_dev', 'vox2_dev'])
    """
    usual = sorted({"vox1_dev", "vox2_dev"} & there)
    chosen = usual[-1:] if train is None else ["vox1_dev", "vox2_dev"] if train == "both" else [f"{train}_dev"]
    if lacking := [TITLES[part] for part in chosen if part not in there]:
        raise InputError(f"--train {train}: nothing of {' and '.join(lacking)} was found")
    return chosen


def _counted(part: str, counts: dict[str, tuple[int, int]], frames: dict[str, pd.DataFrame]) -> str:
    if part not in counts:
        return f"{TITLES[part]}: none"
    (utterances, speakers), published, hours = counts[part], PUBLISHED[part], frames[part]["duration"].sum() / 3600
    return (
        f"{TITLES[part]}: {utterances:,} utterances of {published[0]:,}, {speakers:,} speakers of "
        f"{published[1]:,}, {hours:,.1f} h"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    options = parser("voxceleb", __doc__ or "", many=True)
    options.add_argument(
        "--train", choices=["vox1", "vox2", "both"], help="what train.csv holds (default: vox2, else vox1)"
    )
    return command(options, prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
