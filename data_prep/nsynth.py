"""NSynth (the json/wav archives), unpacked, to a clips.csv: notes labelled by the family of their instrument (11).

SOURCE holds nsynth-train, nsynth-valid and nsynth-test, each with audio and examples.json. With --pitch the label is
the note's pitch, 000 to 127. No instrument (column source) of the training part is in the two others.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import clips, command, parser
from sv_ssl.core.errors import InputError

PUBLISHED = {"train": 289_205, "valid": 12_678, "test": 4_096}


def prepare(source: str | os.PathLike, out: str | os.PathLike, workers: int | None = None, pitch: bool = False) -> int:
    """Write clips.csv in `out` from NSynth's parts -> exit code."""
    parts = {fold: Path(source) / f"nsynth-{fold}" / "examples.json" for fold in PUBLISHED}
    found = []
    for fold, path in parts.items():
        for note, about in _examples(path).items() if path.exists() else ():
            try:
                family, number = str(about["instrument_family_str"]), f"{int(about['pitch']):03d}"
                label = number if pitch else family
                found.append(
                    {
                        "path": f"nsynth-{fold}/audio/{note}.wav",
                        "label": label,
                        "fold": fold,
                        "source": str(about["instrument_str"]),
                        "family": family,
                        "pitch": number,
                    }
                )
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{path}: the note {note} lacks instrument_str, instrument_family_str or a whole "
                    f"number as pitch: {error}"
                ) from None
    if not found:
        wanted = ", ".join(f"nsynth-{fold}/examples.json" for fold in PUBLISHED)
        raise InputError(f"{source}: not NSynth: want {wanted}")
    return clips.write(Path(source).absolute(), out, found, PUBLISHED, n_labels=None if pitch else 11, workers=workers)


def _examples(path: Path) -> dict[str, dict]:
    try:
        examples = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if not isinstance(examples, dict):
        raise InputError(f"{path}: want an object with a note a name, got a {type(examples).__name__}")
    return examples


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    options = parser("nsynth", __doc__ or "", speakers=False)
    options.add_argument("--pitch", action="store_true", help="label by pitch instead of by family")
    return command(options, prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
