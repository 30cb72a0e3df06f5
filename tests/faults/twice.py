"""Two commands that write to the same place at once: in the end it holds one of the two, or what both have added."""

from __future__ import annotations

from pathlib import Path

from tests.faults.cases import Case, files
from tests.fuzz.formats import fault_of

TIMES = 3  # each pair is run: moments differ
# What two commands add to an index, and who is in it then.
INDEX = {
    "index": ("sv-index s.index --enrol in/b.npz", {"s0", "s1", "s2", "t0/0.wav", "t0/1.wav", "t1/0.wav", "t1/1.wav"}),
    "index, add": (
        "sv-index s.index --remove s1/1.wav",
        {f"{speaker}/{number}.wav" for speaker in ("s0", "s1", "s2", "t0", "t1") for number in range(2)} - {"s1/1.wav"},
    ),
}


def twice(case: Case) -> list[str]:
    """Run a command and what was there before it, or itself, at once; return what is wrong with what they leave."""
    return [f"two at once, {case.name}: {fault}" for _ in range(TIMES) for fault in _once(case)]


def _once(case: Case) -> list[str]:
    other = INDEX[case.name][0] if case.name in INDEX else case.command.before or case.command.words
    with case.copy() as folder:
        both = case.server.together(folder, [case.command.words, other])
        faults = [f"exit code {ran.code}: {ran.err[-300:]}" for ran in both if ran.code not in (0, 2)]
        refused = [ran.err.removesuffix("\n") for ran in both if ran.code == 2]
        faults += [f"its message has {wrong}: {text[:300]}" for text in refused if (wrong := fault_of(text))]
        if len(refused) == len(both):
            faults.append(f"both were refused: {refused}")
        if case.name in INDEX:
            faults += _enrolled(folder / "s.index", INDEX[case.name][1])
        else:
            states, more = case.states(folder)
            faults += more + [f"{name} is {state}" for name, state in states.items() if state not in ("old", "new")]
        return faults + [f"left {path}" for path in sorted(files(folder) - case.left - case.found)]


def _enrolled(path: Path, wanted: set[str]) -> list[str]:
    from sv_ssl.embeddings import search

    names = set(search.load(path).numbers)
    return [] if names == wanted else [f"{names ^ wanted} are in one and not in the other"]
