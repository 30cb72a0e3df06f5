"""FSDnoisy18k, unpacked, to a clips.csv: 20 sounds; training labels are clean (verified by ear) or noisy.

SOURCE holds FSDnoisy18k.audio_train, FSDnoisy18k.audio_test and FSDnoisy18k.meta, or FSDnoisy18k with them. The column
subset is clean or noisy; noisy_small is 1 for noisy clips that are as long together as the clean ones.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from data_prep import clips, command, parser

PUBLISHED = {"train": 17_585, "test": 947}


def prepare(source: str | os.PathLike, out: str | os.PathLike, workers: int | None = None) -> int:
    """Write clips.csv in `out` from the tree of FSDnoisy18k -> exit code."""
    root = clips.root(source, "FSDnoisy18k", "FSDnoisy18k.meta/train.csv", "FSDnoisy18k")
    train = clips.table(root / "FSDnoisy18k.meta" / "train.csv", ("fname", "label", "manually_verified", "noisy_small"))
    test = clips.table(root / "FSDnoisy18k.meta" / "test.csv", ("fname", "label"))
    found = [
        {
            "path": f"FSDnoisy18k.audio_{fold}/{row['fname']}",
            "label": row["label"],
            "fold": fold,
            "subset": "clean" if row.get("manually_verified", "1") == "1" else "noisy",
            "noisy_small": row.get("noisy_small", "0"),
        }
        for fold, rows in (("train", train), ("test", test))
        for row in rows
    ]
    return clips.write(root, out, found, PUBLISHED, n_labels=20, workers=workers)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    return command(parser("fsdnoisy18k", __doc__ or "", speakers=False), prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
