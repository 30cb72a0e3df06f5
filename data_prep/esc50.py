"""ESC-50, unpacked, to a clips.csv: 50 sounds, five folds; the column esc10 tells the clips of ESC-10.

SOURCE holds meta/esc50.csv and audio, or ESC-50-master with them. Clips cut from one recording (column source) are in
one fold.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from data_prep import clips, command, parser

PUBLISHED = dict.fromkeys("12345", 400)


def prepare(source: str | os.PathLike, out: str | os.PathLike, workers: int | None = None) -> int:
    """Write clips.csv in `out` from ESC-50's tree -> exit code."""
    root = clips.root(source, "ESC-50", "meta/esc50.csv", "ESC-50-master")
    rows = clips.table(root / "meta" / "esc50.csv", ("filename", "fold", "category", "esc10", "src_file"))
    found = [
        {
            "path": f"audio/{row['filename']}",
            "label": row["category"],
            "fold": row["fold"],
            "source": row["src_file"],
            "esc10": row["esc10"],
        }
        for row in rows
    ]
    return clips.write(root, out, found, PUBLISHED, n_labels=50, workers=workers)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    return command(parser("esc50", __doc__ or "", speakers=False), prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
