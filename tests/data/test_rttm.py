from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sv_ssl.core.errors import InputError
from sv_ssl.data import rttm
from sv_ssl.data.rttm import Region, Turn

MEETINGS = Path(__file__).parents[2].parent / "shared" / "data" / "meetings"
GOOD = "SPEAKER a 1 0.5 1.25 <NA> <NA> ann <NA> <NA>"


@pytest.fixture
def read(tmp_path):
    def read_text(text, function=rttm.read):
        path = tmp_path / "a.rttm"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return function(path)

    return read_text


@pytest.mark.parametrize(
    "text",
    [
        f"{GOOD}\n",
        GOOD,
        f"\ufeff{GOOD}\r\n",
        "SPEAKER a 1 0.500 1.250 <NA> <NA> ann <NA>\n",
        "SPEAKER\ta\t1\t.5\t125e-2\t<NA>\t<NA>\tann\t0.9\t<NA>\n",
        f";; a comment\n\nSPKR-INFO a 1 <NA> <NA> <NA> unknown ann <NA>\n  {GOOD}  \n"
        "LEXEME a 1 0.5 0.1 word lex ann 0.5\n",
    ],
)
def test_forms_of_a_turn(read, text):
    assert read(text) == {"a": [Turn(0.5, 1.75, "ann")]}


def test_recordings_keep_the_order_of_the_file(read):
    lines = (("b 1 5", "x"), ("a 1 0", "y"), ("b 1 2", "z"))
    found = read("".join(f"SPEAKER {line} 1 <NA> <NA> {name} <NA>\n" for line, name in lines))
    assert list(found) == ["b", "a"] and [turn.speaker for turn in found["b"]] == ["x", "z"]


def test_an_empty_file_has_no_turns(read):
    assert read("") == {} and read("", rttm.read_uem) == {}


def test_the_end_is_the_nearest_float_to_the_exact_sum(read):
    assert 0.1 + 0.2 != 0.3
    assert read("SPEAKER a 1 0.1 0.2 <NA> <NA> x <NA>\n")["a"][0].stop == 0.3


@pytest.mark.parametrize(
    "line, reason",
    [
        ("SPEAKER a 1 0.5 1.25 <NA> <NA> ann", "wanted 9 or 10 fields, got 8"),
        (f"{GOOD} more", "wanted 9 or 10 fields, got 11"),
        (
            "speaker a 1 0.5 1.25 <NA> <NA> ann <NA>",
            "a line of RTTM begins with its type, such as SPEAKER, not with spea",
        ),
        ("a 1 0.5 1.25", "a line of RTTM begins with its type"),
        ("SPEAKER a 1 half 1.25 <NA> <NA> ann <NA>", "the start is not a number: half"),
        ("SPEAKER a 1 0,5 1.25 <NA> <NA> ann <NA>", "the start is not a number: 0,5"),
        ("SPEAKER a 1 0.5 1_0 <NA> <NA> ann <NA>", "the duration is not a number: 1_0"),
        ("SPEAKER a 1 nan 1 <NA> <NA> ann <NA>", "the start is not a number: nan"),
        ("SPEAKER a 1 0 inf <NA> <NA> ann <NA>", "the duration is not a number: inf"),
        ("SPEAKER a 1 0.5 0 <NA> <NA> ann <NA>", "the duration must be above 0"),
        ("SPEAKER a 1 0.5 -1 <NA> <NA> ann <NA>", "the duration must be above 0"),
        ("SPEAKER a 1 1e9 1e-30 <NA> <NA> ann <NA>", "the duration must be above 0"),
        ("SPEAKER a 1 -0.5 1 <NA> <NA> ann <NA>", "the start is below 0"),
        ("SPEAKER a 1 0 1e999 <NA> <NA> ann <NA>", "the time is too large"),
        ("SPEAKER a 1 0 1000000000 <NA> <NA> ann <NA>", "the time is too large, want 10,000,000 s at most"),
        ("SPEAKER a 1 1e9999999 1 <NA> <NA> ann <NA>", "the start is not a number: 1e9999999"),
        ("SPEAKER a 1 0 1e-99999999999999999999 <NA> <NA> ann <NA>", "the duration is not a number: 1e-999"),
        ("SPEAKER a 1 0.5 1 <NA> <NA> <NA> <NA>", "the speaker (field 8) is missing"),
        ("SPEAKER a 2 0.5 1 <NA> <NA> ann <NA>", "channel 2 after channel 1"),
    ],
)
def test_a_bad_line_is_named_by_number_and_text(read, tmp_path, line, reason):
    with pytest.raises(InputError) as error:
        read(f"{GOOD}\n\n{line}\n")
    assert str(error.value).startswith(f"{tmp_path / 'a.rttm'}:3: {reason}")
    assert str(error.value).endswith(line) and "\n" not in str(error.value)


def test_of_many_bad_lines_the_first_ten_are_named(read):
    with pytest.raises(InputError) as error:
        read(f"{GOOD}\n" + "bad\n" * 30)
    lines = str(error.value).splitlines()
    assert "30 bad lines, nothing was read" in lines[0] and len(lines) == 11
    assert lines[1].startswith("  line 2: ") and lines[10].startswith("  line 11: ")


def test_what_is_no_text_or_not_there(read, tmp_path):
    with pytest.raises(InputError, match="not UTF-8 text"):
        read(b"SPEAKER \xff\n")
    with pytest.raises(InputError, match="cannot read .*gone.rttm: No such file"):
        rttm.read(tmp_path / "gone.rttm")


def test_a_folder_is_all_its_files(tmp_path):
    for name in "ab":
        rttm.write(tmp_path / f"{name}.rttm", {name: [Turn(0, 1, "x")]})
    assert list(rttm.read(tmp_path)) == ["a", "b"]
    rttm.write(tmp_path / "c.rttm", {"b": [Turn(0, 1, "x")]})
    with pytest.raises(InputError, match="recording b is in .*b.rttm and in .*c.rttm"):
        rttm.read(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no \\*.rttm in this folder"):
        rttm.read(tmp_path / "none")
    with pytest.raises(InputError, match="no \\*.uem in this folder"):
        rttm.read_uem(tmp_path)


def test_an_empty_file_of_a_folder_is_a_recording_without_turns(tmp_path):
    rttm.write(tmp_path / "a.rttm", {})
    assert rttm.read(tmp_path) == {"a": []}


TIME = st.floats(0, 1e6)
NAME = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=5).filter(
    lambda name: not name.startswith(";;")
)  # a comment
TURN = st.builds(lambda a, b, name: Turn(min(a, b), max(a, b), name), TIME, TIME, NAME.filter(lambda n: n != "<NA>"))


@given(st.dictionaries(NAME, st.lists(TURN.filter(lambda turn: turn.start < turn.stop), min_size=1), max_size=3))
def test_what_is_written_is_read_back_exactly(tmp_path_factory, every):
    path = tmp_path_factory.getbasetemp() / "round.rttm"
    rttm.write(path, every)
    assert rttm.read(path) == every
    regions = {name: [Region(*turn[:2]) for turn in turns] for name, turns in every.items()}
    rttm.write_uem(path, regions)
    assert rttm.read_uem(path) == regions


@pytest.mark.skipif(not MEETINGS.is_dir(), reason=f"{MEETINGS} is not there")
def test_real_files_are_the_same_text_again(tmp_path):
    paths = sorted(MEETINGS.glob("*.rttm"))
    assert len(paths) > 5
    for path in paths:
        rttm.write(tmp_path / "again.rttm", rttm.read(path))
        assert (tmp_path / "again.rttm").read_text() == path.read_text()


@pytest.mark.parametrize(
    "recording, turn, message",
    [
        ("a b", Turn(0, 1, "x"), "'a b' cannot be a name"),
        ("a", Turn(0, 1, ""), "'' cannot be a name"),
        (";;a", Turn(0, 1, "x"), "what begins with ;; is a comment"),
        ("a", Turn(1, 1, "x"), "a turn of x from 1 to 1 cannot be written"),
        ("a", Turn(0, float("nan"), "x"), "from 0 to nan cannot be written"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, recording, turn, message):
    path = tmp_path / "a.rttm"
    path.write_text("old")
    with pytest.raises(InputError, match=message):
        rttm.write(path, {recording: [turn]})
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "line, reason",
    [
        ("a 1 0", "wanted the 4 fields of a UEM"),
        ("a 1 zero 1", "the start is not a number: zero"),
        ("a 1 2 1", "stop must be after start"),
        ("a 2 0 1", "channel 2 after channel 1"),
    ],
)
def test_a_bad_line_of_a_uem(read, line, reason):
    with pytest.raises(InputError, match=rf":2: {reason}.*: {line}$"):
        read(f"a 1 0 30\n{line}\n", rttm.read_uem)


SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)).map(lambda p: Region(p[0], p[0] + p[1])), max_size=8)


def seconds(regions):
    return {t for start, stop in regions for t in range(start, stop)}


@given(SPANS, SPANS)
def test_union_and_intersection_second_by_second(one, other):
    union = rttm.merged(one)
    assert seconds(union) == seconds(one)
    assert all(a.stop < b.start for a, b in zip(union, union[1:]))
    shared = rttm.common(union, rttm.merged(other))
    assert seconds(shared) == seconds(one) & seconds(other)
    assert all(a.stop <= b.start for a, b in zip(shared, shared[1:]))
