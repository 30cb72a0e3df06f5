"""Read and write RTTM and UEM, who spoke when and what of it counts. Times are seconds, exact as written.

    SPEAKER meeting 1 1.440 11.872 <NA> <NA> MEE009 <NA> <NA>      RTTM: recording, channel, start, duration, speaker
    meeting 1 0.000 30.000                                         UEM: recording, channel, start, stop

A line of RTTM has 9 or 10 fields (the last of ten is not used). Lines of its other types, such as SPKR-INFO or LEXEME,
say nothing of who spoke when and are passed over, as are blank lines and those that begin with `;;`. Any other line is
an error, named by its number and text. An empty file is one without turns.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Context, Decimal
from pathlib import Path
from typing import NamedTuple

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write
from sv_ssl.core.text_file import lines

OTHER = frozenset(
    ["SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER"]
    + ["EDIT", "IP", "SU", "CB", "A/P", "SPKR-INFO"]
)
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
LATEST = 1e7  # seconds, four months: what is later is no recording's
EXACT = Context(prec=700)  # digits enough for the sum of any two floats
SHOWN = 10  # bad lines named in one message


class Region(NamedTuple):
    """A part of a recording."""

    start: float  # seconds
    stop: float


class Turn(NamedTuple):
    """What one speaker says in one go."""

    start: float  # seconds
    stop: float
    speaker: str


def read(path: str | os.PathLike) -> dict[str, list[Turn]]:
    """Read an RTTM, or a folder of `*.rttm` -> the turns of each recording, in the order of the file.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/a.rttm"
    >>> write(path, {"a": [Turn(0.1, 0.3, "ann"), Turn(0.25, 7.5, "bob")]})
    >>> print(Path(path).read_text(), end="")
    SPEAKER a 1 0.100 0.200 <NA> <NA> ann <NA> <NA>
    SPEAKER a 1 0.250 7.250 <NA> <NA> bob <NA> <NA>
    >>> read(path)["a"][0]
    Turn(start=0.1, stop=0.3, speaker='ann')
    """
    return _read(path, _turn, "rttm")


def read_uem(path: str | os.PathLike) -> dict[str, list[Region]]:
    """Read a UEM, or a folder of `*.uem` -> the regions of each recording."""
    return _read(path, _region, "uem")


def write(path: str | os.PathLike, turns: Mapping[str, Sequence[Turn]]) -> None:
    """Write the turns of each recording as RTTM; `read` gives the same floats again."""
    lines = [
        f"SPEAKER {_name(recording)} 1 {_span(turn)} <NA> <NA> {_name(turn.speaker)} <NA> <NA>\n"
        for recording, every in turns.items()
        for turn in every
    ]
    _write(path, lines)


def write_uem(path: str | os.PathLike, regions: Mapping[str, Sequence[Region]]) -> None:
    """Write the regions of each recording as UEM."""
    _write(
        path,
        [
            f"{_name(recording)} 1 {_text(_decimal(start))} {_text(_decimal(stop))}\n"
            for recording, every in regions.items()
            for start, stop in every
        ],
    )


# --- a line ---------------------------------------------------------------------------------------------------------

Line = tuple[str, str, "Turn | Region"]  # recording, channel, what it says


Parse = Callable[[list[str]], "Line | None"]


def _read(path: str | os.PathLike, parse: Parse, ending: str) -> dict[str, list]:
    """Read a file, or all in a folder; there an empty one stands for the recording of its name."""
    if not Path(path).is_dir():
        return _read_file(path, parse)
    files = sorted(Path(path).glob(f"*.{ending}"))
    if not files:
        raise InputError(f"{path}: no *.{ending} in this folder")
    home: dict[str, Path] = {}
    every: dict[str, list] = {}
    for file in files:
        for recording, items in (_read_file(file, parse) or {file.stem: []}).items():
            if recording in home:
                raise InputError(f"recording {recording} is in {home[recording]} and in {file}: remove one of them")
            home[recording], every[recording] = file, items
    return every


def _read_file(path: str | os.PathLike, parse: Parse) -> dict[str, list]:
    items: dict[str, list] = {}
    channels: dict[str, str] = {}
    bad = []
    for number, line in enumerate(map(str.rstrip, lines(path)), 1):
        if not line or line.startswith(";;"):
            continue
        try:
            parsed = parse(line.split())
            if parsed:
                recording, channel, item = parsed
                if channels.setdefault(recording, channel) != channel:
                    raise ValueError(
                        f"channel {channel} after channel {channels[recording]}: give each channel a "
                        "recording of its own"
                    )
                items.setdefault(recording, []).append(item)
        except ValueError as error:
            bad.append(f"{number}: {_short(str(error))}: {_short(line)}")
    if len(bad) == 1:
        raise InputError(f"{path}:{bad[0]}")
    if bad:
        raise InputError("\n  line ".join([f"{path}: {len(bad):,} bad lines, nothing was read", *bad[:SHOWN]]))
    return items


def _short(text: str) -> str:
    return text if len(text) < 90 else f"{text[:90]}..."


def _turn(fields: list[str]) -> Line | None:
    if fields[0] in OTHER:
        return None
    if fields[0] != "SPEAKER":
        raise ValueError(f"a line of RTTM begins with its type, such as SPEAKER, not with {fields[0]}")
    if len(fields) not in (9, 10):
        raise ValueError(f"wanted 9 or 10 fields, got {len(fields)}")
    start = _number("start", fields[3])
    stop = EXACT.add(start, _number("duration", fields[4]))
    if fields[7] == "<NA>":
        raise ValueError("the speaker (field 8) is missing")
    return fields[1], fields[2], Turn(*_checked(start, stop, "the duration must be above 0"), fields[7])


def _region(fields: list[str]) -> Line:
    if len(fields) != 4:
        raise ValueError(f"wanted the 4 fields of a UEM (recording, channel, start, stop), got {len(fields)}")
    start, stop = _number("start", fields[2]), _number("stop", fields[3])
    return fields[0], fields[1], Region(*_checked(start, stop, "stop must be after start"))


def _number(what: str, text: str) -> Decimal:
    if not NUMBER.fullmatch(text):
        raise ValueError(f"the {what} is not a number: {text}")
    return Decimal(text)


def _checked(start: Decimal, stop: Decimal, otherwise: str) -> tuple[float, float]:
    begin, end = float(start), float(stop)
    if begin < 0:
        raise ValueError("the start is below 0")
    if not begin < end <= LATEST:
        raise ValueError(otherwise if end <= begin else f"the time is too large, want {LATEST:,.0f} s at most")
    return begin, end


def _name(name: str) -> str:
    if name.split() != [name]:
        raise InputError(f"{name!r} cannot be a name in RTTM or UEM: it is empty or has blanks")
    if name.startswith(";;"):
        raise InputError(f"{name!r} cannot be a name in RTTM or UEM: what begins with ;; is a comment")
    return name


def _span(turn: Turn) -> str:
    start, stop = _decimal(turn.start), _decimal(turn.stop)
    if not 0 <= turn.start < turn.stop < math.inf:
        raise InputError(f"a turn of {turn.speaker} from {turn.start} to {turn.stop} cannot be written")
    return f"{_text(start)} {_text(EXACT.subtract(stop, start))}"


def _decimal(seconds: float) -> Decimal:
    """Return the shortest decimal that is read as this float."""
    return Decimal(repr(float(seconds)))


def _text(seconds: Decimal) -> str:
    """Write a number with three decimals at least, and as many as it takes."""
    whole, _, part = f"{seconds:f}".partition(".")
    return f"{whole}.{part:0<3}"


def _write(path: str | os.PathLike, lines: Iterable[str]) -> None:
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)


# --- regions --------------------------------------------------------------------------------------------------------


def merged(parts: Iterable[Turn | Region]) -> list[Region]:
    """Return the union of turns or regions in any order: disjoint regions in order.

    >>> merged([Turn(2, 4, "a"), Turn(0, 1, "a"), Turn(3, 5, "b"), Turn(5, 6, "b")])
    [Region(start=0, stop=1), Region(start=2, stop=6)]
    """
    union: list[Region] = []
    for start, stop in sorted(part[:2] for part in parts):
        if union and start <= union[-1].stop:
            union[-1] = Region(union[-1].start, max(stop, union[-1].stop))
        else:
            union.append(Region(start, stop))
    return union


def common(first: Sequence[Region], second: Sequence[Region]) -> list[Region]:
    """Return what is in both of two lists of regions as `merged` gives them.

    >>> common([Region(0, 4), Region(5, 9)], [Region(3, 6)])
    [Region(start=3, stop=4), Region(start=5, stop=6)]
    """
    shared, i, j = [], 0, 0
    while i < len(first) and j < len(second):
        start, stop = max(first[i].start, second[j].start), min(first[i].stop, second[j].stop)
        if start < stop:
            shared.append(Region(start, stop))
        if first[i].stop < second[j].stop:
            i += 1
        else:
            j += 1
    return shared
