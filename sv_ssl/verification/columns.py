"""The layout of a trial list or score file, recognised by its first lines, and what is wrong with a line of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

from sv_ssl.core.errors import InputError

WANTED = (
    "wanted lines such as `1 enroll test`, `enroll test target`, `enroll test` or `enroll test 0.73 target`, "
    "or a first line of names such as `enroll test label score`"
)
ADVICE = "begin the file with a line of names, such as `enroll test label score`, or give them with --columns"
ROLES = {
    **dict.fromkeys(("enroll", "enrol", "enrollment", "enroll_id", "model", "modelid"), "enroll"),
    **dict.fromkeys(("test", "test_id", "segment", "segmentid"), "test"),
    **dict.fromkeys(("label", "target", "targettype"), "label"),
    **dict.fromkeys(("score", "llr"), "score"),
}
PAIRS = "1/0 target/nontarget tgt/imp genuine/impostor same/different true/false True/False p/n"
VOCABULARIES = [{yes: True, no: False} for yes, no in (pair.split(b"/") for pair in PAIRS.encode().split())]


class Layout(NamedTuple):
    """How the lines of a file are parted and what their columns are."""

    separator: bytes | None  # None: runs of blanks
    names: list[str]  # of the columns: enroll, test, label, score, and others by their own names
    header: bool
    vocabulary: dict[bytes, bool]

    def form(self) -> str:
        """Say in words what the layout is."""
        separator = {None: "blanks", b"\t": "tabs", b",": "commas"}[self.separator]
        names = " ".join(name if name in ROLES.values() else f"({quoted(name.encode())[1:-1]})" for name in self.names)
        return f'"{names}", separated by {separator}' + (", with a line of names" if self.header else "")


def split(line: bytes, separator: bytes | None) -> list[bytes]:
    """Split a line into its fields."""
    if separator is None:
        return line.split()  # of bytes: ASCII blanks only, other spaces belong to the id
    return [field.strip().strip(b'"') for field in line.split(separator)]


def recognise(where: str, texts: list[bytes], columns: Sequence[str] | None = None) -> Layout:
    """Recognise the layout of a file by its first lines: by its line of names or `columns`, else the first that fits.

    Where fields are parted by tabs or commas ids may hold blanks; that is tried last, but for files full of tabs.

    >>> recognise("a.txt:1", [b"1 a.wav b.wav", b"0 a.wav c.wav"]).names
    ['label', 'enroll', 'test']
    """
    for separator in (b",", b"\t", None):
        first = _named([field.decode().lower() for field in split(texts[0], separator)])
        if "enroll" in first and "test" in first:
            if twice := [role for role in ROLES.values() if first.count(role) > 1]:
                raise InputError(f"{where}: two columns are called {twice[0]}: {quoted(texts[0])}")
            return _with_vocabulary(separator, first, True, [split(text, separator) for text in texts[1:]])
    tabs = b"\t" if min(map(len, (text.split(b"\t") for text in texts))) > 2 else b","  # two may be blanks by accident
    for separator, blanks in ((b",", False), (tabs, tabs == b"\t"), (None, False), (b"\t", True), (b",", True)):
        rows = [split(text, separator) for text in texts]
        width, count = Counter(map(len, rows)).most_common(1)[0]
        usual = [row for row in rows if len(row) == width]
        if columns and width == len(columns):
            return _with_vocabulary(separator, _named(columns), False, usual)
        if not columns and width > 1 and 2 * count >= len(rows) and (blanks or b" " not in b"".join(chain(*usual))):
            names = _names(where.rsplit(":", 1)[0], list(zip(*usual)))
            if names:
                return _with_vocabulary(separator, names, False, usual)
    wanted = f"wanted {len(columns)} columns: {' '.join(columns)}" if columns else WANTED
    raise InputError(f"{where}: not a trial list: {quoted(texts[0])}; {wanted}")


def check_columns(names: Sequence[str]) -> list[str]:
    """Return the names of columns that a user gave, or raise InputError if a trial list cannot have them."""
    named = _named([name.lower() for name in names])
    if not ("enroll" in named and "test" in named) or len(set(named)) < len(named):
        raise InputError(f"--columns {','.join(names)}: wanted each column's name once, enroll and test among them")
    return named


def _named(fields: Sequence[str]) -> list[str]:
    """Return the roles of columns by their names, each given to the first that claims it; others keep their names."""
    names: list[str] = []
    for field in fields:
        role = ROLES.get(field, field)
        names.append(role if role not in names else field)
    return names


def _with_vocabulary(separator: bytes | None, names: list[str], header: bool, rows: list[list[bytes]]) -> Layout:
    """Return the layout with the pair of labels that most rows use."""
    at = names.index("label") if "label" in names else len(names)
    labels = [row[at] for row in rows if len(row) > at]
    return Layout(separator, names, header, max(VOCABULARIES, key=lambda words: sum(map(words.__contains__, labels))))


def _names(name: str, columns: list[tuple[bytes, ...]]) -> list[str]:
    """Return the names of the columns of a file without a line of names; [] if they fit no form."""
    names = [""] * len(columns)
    if len(columns) > 2:
        _give(name, names, "label", [_like_labels(column) - _share(column, _is_decimal) for column in columns])
    if names.count("") > 2:
        _give(name, names, "score", [_share(c, is_number) + _share(c, _is_decimal) for c in columns])
    if names.count("") < 2 or names.count("") == len(names) > 2:
        return []
    sides = iter(("enroll", "test"))
    return [given or next(sides, f"c{i}") for i, given in enumerate(names, 1)]


def _give(name: str, names: list[str], what: str, looks: list[float]) -> None:
    """Give the name `what` to the unnamed column that looks most like it, if at least half of its values do."""
    looks = [0 if taken else look for taken, look in zip(names, looks)]
    if looks.count(max(looks)) == 1 and max(looks) >= 0.5:
        names[looks.index(max(looks))] = what
    elif max(looks) >= 0.5:
        columns = " or ".join(str(i + 1) for i, look in enumerate(looks) if look == max(looks))
        raise InputError(f"{name}: is column {columns} the {what}? {ADVICE}")


def _like_labels(column: Sequence[bytes]) -> float:
    return max(_share(column, words.__contains__) for words in VOCABULARIES)


def _share(column: Sequence[bytes], fits: Callable[[bytes], bool]) -> float:
    return sum(map(fits, column)) / len(column)


def is_number(field: bytes) -> bool:
    """Return whether a field is a number, infinity included."""
    try:
        return float(field) == float(field)
    except ValueError:
        return False


def _is_decimal(field: bytes) -> bool:
    return is_number(field) and not field.lstrip(b"+-").isdigit()


def fault(text: bytes, layout: Layout) -> str:
    """Say what is wrong with a line; "" if nothing is."""
    row = split(text, layout.separator)
    if len(row) != len(layout.names):
        return f"{len(row)} columns where {len(layout.names)} are expected"
    for name, field in zip(layout.names, row):
        if name in ("enroll", "test") and not field:
            return f"the {name} id is empty"
        if name == "label" and field not in layout.vocabulary:
            return f"label {quoted(field)} is neither {' nor '.join(word.decode() for word in layout.vocabulary)}"
        if name == "score" and not is_number(field):
            return f"score {quoted(field)} is not a number"
    return ""


def quoted(text: bytes) -> str:
    """Return what a message may show of a file: the beginning, without control characters."""
    whole = text.decode()
    return repr(whole if len(whole) <= 80 else whole[:80] + "...")
