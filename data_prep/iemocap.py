"""IEMOCAP, unpacked, to a clips.csv: four emotions (angry, happy, neutral, sad), a fold a session, ten speakers.

SOURCE holds Session1 to Session5, or IEMOCAP_full_release with them. The label of a turn is the one that its annotators
agreed on. Two protocols are in use: with --excited the turns labelled excited count as happy (5,531 clips), without it
they are left out (4,490).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep import clips, command, parser
from sv_ssl.core.errors import InputError

PUBLISHED = {"ang": 1_103, "hap": 595, "neu": 1_708, "sad": 1_084}
HAPPY_OR_EXCITED = 1_636
TURN = re.compile(r"\[\d+\.\d+ - \d+\.\d+\]\t(Ses\d\d[FM]_\w+_([FM])\d+)\t(\w+)\t")


def prepare(
    source: str | os.PathLike, out: str | os.PathLike, workers: int | None = None, excited: bool = False
) -> int:
    """Write clips.csv in `out` from IEMOCAP's sessions -> exit code."""
    root = clips.root(source, "IEMOCAP", "Session1", "IEMOCAP_full_release")
    labels = {label: label for label in PUBLISHED} | ({"exc": "hap"} if excited else {})
    found = [
        {
            "path": f"Session{session}/sentences/wav/{turn.rsplit('_', 1)[0]}/{turn}.wav",
            "label": labels[label],
            "fold": session,
            "spk_id": f"{turn[:5]}{voice}",
        }
        for session, turn, voice, label in _turns(root)
        if label in labels
    ]
    published = {**PUBLISHED, "hap": HAPPY_OR_EXCITED} if excited else PUBLISHED
    return clips.write(root, out, found, published, by="label", workers=workers)


def _turns(root: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield session, turn, the speaker's letter and label."""
    files = sorted(path for path in root.glob("Session[1-5]/dialog/EmoEvaluation/*.txt") if path.name[0] != ".")
    if not files:
        raise InputError(f"{root}: no labels: want Session1/dialog/EmoEvaluation/Ses01F_impro01.txt and others")
    for path in files:
        for match in TURN.finditer(path.read_text(encoding="utf-8", errors="replace")):
            turn, voice, label = match.groups()
            yield path.parts[-4][-1], turn, voice, label


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line -> exit code."""
    options = parser("iemocap", __doc__ or "", speakers=False)
    options.add_argument("--excited", action="store_true", help="count excited as happy")
    return command(options, prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
