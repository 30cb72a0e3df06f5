"""Write clips.csv, the manifest of a labelled corpus, with the columns `label`, `label_id`, `fold` and others.

The number of a label is its place among all labels of the corpus, sorted: stored once, so that no part of the corpus
can be numbered otherwise.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from data_prep import Problem, finish, rerooted
from sv_ssl.core.errors import InputError
from sv_ssl.core.text_file import csv_rows
from sv_ssl.data import manifest, scan


def root(source: str | os.PathLike, corpus: str, wanted: str, below: str) -> Path:
    """Return the folder that holds `wanted`: `source`, or `below` in it."""
    for folder in (Path(source), Path(source) / below):
        if (folder / wanted).exists():
            return folder.absolute()
    raise InputError(f"{source}: not {corpus}: want {wanted} in it, or {below} with it")


def table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a CSV, each with a value in every one of `columns`."""
    rows = csv_rows(path)
    _, header = next(rows, (0, []))
    read = []
    for number, fields in rows:
        row = dict(zip(header, fields))
        if missing := [column for column in columns if not row.get(column)]:
            raise InputError(
                f'{path}:{number}: no "{missing[0]}": want a header with {", ".join(columns)}, and values '
                "for all of them on every line"
            )
        read.append(row)
    return read


def write(
    folder: Path,
    out: str | os.PathLike,
    clips: Sequence[Mapping[str, str]],
    published: Mapping[str, int],
    by: str = "fold",
    n_labels: int | None = None,
    problems: Sequence[Problem] = (),
    workers: int | None = None,
) -> int:
    """Write clips.csv in `out` -> exit code.

    A clip has its `path` below `folder`, `label`, `fold`, and other columns. `published` are numbers of clips by the
    values of the column `by`; what is not as published, or not readable, is a problem.
    """
    out = Path(os.path.abspath(out))
    numbers = {label: str(number) for number, label in enumerate(sorted({clip["label"] for clip in clips}))}
    entries = [scan.Entry(clip["path"], clip["path"]) for clip in clips]
    found = scan.measure(folder, entries, [], workers=workers)
    about = pd.DataFrame(clips).set_index("path").loc[found["ID"]].reset_index(drop=True)
    about.insert(1, "label_id", about["label"].map(numbers))
    frame = rerooted(found, out).join(about)
    manifest.write(frame, out / "clips.csv")
    skipped = [Problem("", path, reason) for path, _, reason in found.attrs["skipped"]]
    counts, wanted = Counter(frame[by]), {**dict.fromkeys(frame[by], 0), **published} if published else {}
    other = [
        Problem(f"{by} {value}", "", f"{counts[value]:,} clips, published are {number:,}")
        for value, number in wanted.items()
        if counts[value] != number
    ]
    if n_labels not in (None, len(numbers)):
        other.append(Problem("", "", f"{len(numbers)} labels, published are {n_labels}"))
    folds = ", ".join(f"{fold} {number:,}" for fold, number in sorted(Counter(frame["fold"]).items()))
    line = (
        f"wrote {out / 'clips.csv'}: {len(frame):,} clips, {frame['duration'].sum() / 3600:.2f} h, "
        f"{len(numbers)} labels; by fold: {folds}"
    )
    return finish(
        out,
        [line],
        [*problems, *skipped, *other],
        f"python recipes/audio_probes/train_clar.py hparams/clar.yaml --data_folder {out}",
    )
