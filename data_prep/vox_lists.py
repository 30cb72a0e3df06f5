"""Tell VoxCeleb's trial lists apart by their content, and read the files that name all utterances."""

from __future__ import annotations

import os
import shutil
from collections.abc import Container, Sequence
from pathlib import Path

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.core.text_file import lines
from sv_ssl.verification.trials import Trials, read_trials

USUAL = {
    "VoxCeleb1-O, original": "veri_test.txt",
    "VoxCeleb1-O, cleaned": "veri_test2.txt",
    "VoxCeleb1-E, original": "list_test_all.txt",
    "VoxCeleb1-E, cleaned": "list_test_all2.txt",
    "VoxCeleb1-H, original": "list_test_hard.txt",
    "VoxCeleb1-H, cleaned": "list_test_hard2.txt",
}
E_CLEANED = 579_818  # trials: what is published of it
SHA1 = {
    "veri_test.txt": "aa1a2055fc2c836e1777ab2d2decf513d2d93b0d",
    "veri_test2.txt": "d1cc7d810a2d106864eedc722dde3de9b1f639cc",
}


def known_as(trials: Trials) -> str | None:
    """Tell which of the published lists this is, by its numbers of trials."""
    return trials.known_as() or ("VoxCeleb1-E, cleaned" if len(trials.enroll) == E_CLEANED else None)


def read_lists(paths: Sequence[str], out: Path) -> dict[str, tuple[str, Trials]]:
    """Read lists -> {file name that a list should have: (path, trials)}, the published name or else its own."""
    lists: dict[str, tuple[str, Trials]] = {}
    for path in sorted(paths, key=lambda path: (not path.startswith(f"{out}/"), path)):
        trials = read_trials(path)
        known = known_as(trials)
        target = USUAL[known] if known else os.path.basename(path)
        first, other = lists.setdefault(target, (path, trials))
        if other.sha1 != trials.sha1 and (known is None or known != known_as(other)):
            raise InputError(f"{first} and {path} are different lists of one name, {target}: rename or remove one")
    return lists


def copied(lists: dict[str, tuple[str, Trials]], ids: Container[str], out: Path) -> list[str]:
    """Copy the lists whose recordings are all there -> a line on each list."""
    lines = []
    for target, (path, trials) in lists.items():
        absent = sum(name not in ids for name in trials.ids)
        outcome = f"{absent:,} of its {len(trials.ids):,} recordings are not here, so it cannot be used yet"
        if not absent:
            outcome = f"all recordings are here: {out / target}"
            if os.path.realpath(path) != os.path.realpath(out / target):
                with atomic_write(out / target) as temporary:
                    shutil.copyfile(path, temporary)
        published = ""
        if target in SHA1:
            published = " (as published)" if trials.sha1 == SHA1[target] else " (not that of the published file)"
        lines.append(f"{trials.summary()}; sha1 {trials.sha1}{published}; {outcome}")
    return lines


def names_in(path: str) -> list[str]:
    """Read the utterances in the last column of iden_split.txt or train_list.txt."""
    return [line.split()[-1] for line in lines(path) if line.strip()]
