import gzip
import hashlib
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sv_ssl.core.errors import InputError
from sv_ssl.verification import trials

DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(params=[trials.LARGE, 0], ids=["line by line", "as a large file"])
def read(tmp_path, monkeypatch, request):
    monkeypatch.setattr(trials, "LARGE", request.param)

    def read_text(text):
        path = tmp_path / "trials.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return trials.read_trials(path)

    return read_text


def pairs(listed):
    return [(listed.ids[e], listed.ids[t]) for e, t in zip(listed.enroll, listed.test)]


PAIRS = [("a/1.wav", "a/2.wav"), ("a/1.wav", "b/1.wav"), ("b/1.wav", "b/2.wav")]
LABELS = [True, False, True]
LABELLED = {
    "VoxCeleb": "1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n1 b/1.wav b/2.wav\n",
    "Kaldi": "a/1.wav a/2.wav target\na/1.wav b/1.wav nontarget\nb/1.wav b/2.wav target\n",
    "label last": "a/1.wav a/2.wav 1\na/1.wav b/1.wav 0\nb/1.wav b/2.wav 1\n",
    "label between": "a/1.wav tgt a/2.wav\na/1.wav imp b/1.wav\nb/1.wav tgt b/2.wav\n",
    "words": "True a/1.wav a/2.wav\nFalse a/1.wav b/1.wav\nTrue b/1.wav b/2.wav\n",
    "no last newline": "1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n1 b/1.wav b/2.wav",
    "tabs": "1\ta/1.wav\ta/2.wav\n0\ta/1.wav\tb/1.wav\n1\tb/1.wav\tb/2.wav\n",
    "commas": "1,a/1.wav,a/2.wav\n0,a/1.wav,b/1.wav\n1,b/1.wav,b/2.wav\n",
    "commas and blanks": "a/1.wav, a/2.wav, 1\na/1.wav, b/1.wav, 0\nb/1.wav, b/2.wav, 1\n",
    "quotes": '1,"a/1.wav","a/2.wav"\n0,"a/1.wav","b/1.wav"\n1,"b/1.wav","b/2.wav"\n',
    "line of names": "enroll,test,label\na/1.wav,a/2.wav,1\na/1.wav,b/1.wav,0\nb/1.wav,b/2.wav,1\n",
    "names, other order": "Label Test Enroll\n1 a/2.wav a/1.wav\n0 b/1.wav a/1.wav\n1 b/2.wav b/1.wav\n",
    "names, further columns": "modelid\tsegmentid\tside\ttargettype\na/1.wav\ta/2.wav\ta\ttarget\n"
    "a/1.wav\tb/1.wav\ta\tnontarget\nb/1.wav\tb/2.wav\ta\ttarget\n",
    "Windows": "1 a/1.wav a/2.wav\r\n0 a/1.wav b/1.wav\r\n1 b/1.wav b/2.wav\r\n",
    "old Macintosh": "1 a/1.wav a/2.wav\r0 a/1.wav b/1.wav\r1 b/1.wav b/2.wav\r",
    "BOM": "\ufeff1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n1 b/1.wav b/2.wav\n",
    "double, leading and trailing blanks": " 1  a/1.wav a/2.wav \n0 a/1.wav\t b/1.wav\n1 b/1.wav b/2.wav\t\n",
    "blank lines and comments": "# mine\n\n1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n\n1 b/1.wav b/2.wav\n\n",
}


@pytest.mark.parametrize("text", LABELLED.values(), ids=LABELLED)
def test_labelled_lists(read, text):
    listed = read(text)
    assert pairs(listed) == PAIRS
    assert listed.labels.tolist() == LABELS
    assert listed.scores is None
    assert sorted(listed.ids) == ["a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav"]


SCORED = {
    "scores": ("a/1.wav a/2.wav 0.75\na/1.wav b/1.wav -1e-3\nb/1.wav b/2.wav 1\n", False),
    "WeSpeaker": ("a/1.wav a/2.wav 0.75 target\na/1.wav b/1.wav -1e-3 nontarget\nb/1.wav b/2.wav 1.0 target\n", True),
    "SpeechBrain": ("a/1.wav a/2.wav 1 0.75\na/1.wav b/1.wav 0 -1e-3\nb/1.wav b/2.wav 1 1.0\n", True),
    "score first": ("0.75 a/1.wav a/2.wav\n-1e-3 a/1.wav b/1.wav\n1.0 b/1.wav b/2.wav\n", False),
    "names": (
        "modelid\tsegmentid\tside\tLLR\na/1.wav\ta/2.wav\ta\t0.75\na/1.wav\tb/1.wav\ta\t-0.001\n"
        "b/1.wav\tb/2.wav\ta\t1\n",
        False,
    ),
    "names, label": (
        "enroll test label score\na/1.wav a/2.wav 1 0.75\na/1.wav b/1.wav 0 -0.001\nb/1.wav b/2.wav 1 1\n",
        True,
    ),
}


@pytest.mark.parametrize("text, labelled", SCORED.values(), ids=SCORED)
def test_score_files(read, text, labelled):
    listed = read(text)
    assert pairs(listed) == PAIRS
    assert listed.scores.tolist() == [0.75, -0.001, 1]
    assert (listed.labels.tolist() if labelled else listed.labels) == (LABELS if labelled else None)


def test_unlabelled_lists(read):
    text = "\n".join(map(" ".join, PAIRS))
    for listed in (read(text), read("enroll test\n" + text)):
        assert pairs(listed) == PAIRS
        assert listed.labels is None and listed.scores is None


def test_ids_are_kept_letter_for_letter(read):
    odd = ["Zoë/été.1.wav", "中文/二.flac", "non\u00a0breaking", "a,b", "x'y", "0.5", "17"]
    listed = read("\n".join(f"{i % 2} {one} id{i}" for i, one in enumerate(odd)))
    assert [enroll for enroll, _ in pairs(listed)] == odd
    spaced = read("1\tmy voice.wav\tyour voice.wav\n0\tmy voice.wav\ta.wav\n")
    assert pairs(spaced) == [("my voice.wav", "your voice.wav"), ("my voice.wav", "a.wav")]
    commas = read("my voice.wav,your voice.wav\nb.wav,a.wav\n")
    assert pairs(commas) == [("my voice.wav", "your voice.wav"), ("b.wav", "a.wav")]


def test_numbers_as_ids(read):
    listed = read("17 18 1\n17 19 0\n20 18 0\n")
    assert (pairs(listed), listed.labels.tolist()) == ([("17", "18"), ("17", "19"), ("20", "18")], [True, False, False])
    assert read("17 18 0.5\n17 19 0.25\n").scores.tolist() == [0.5, 0.25]


def test_what_is_said_of_a_list(read):
    text = LABELLED["VoxCeleb"]
    listed = read(text)
    assert listed.sha1 == hashlib.sha1(text.encode()).hexdigest()
    assert listed.summary() == (
        f'{listed.name}: 3 trials (2 target, 1 non-target), 4 utterances; "label enroll test", separated by blanks'
    )
    windows = LABELLED["Windows"]
    assert read(windows).sha1 == hashlib.sha1(windows.encode()).hexdigest()  # of the file as it lies there
    assert "no labels" in read("a b\nc d\n").summary()
    assert (
        '"enroll test (side) label", separated by tabs, with a line of names'
        in read(LABELLED["names, further columns"]).summary()
    )


def test_gzip_and_standard_input(tmp_path, monkeypatch):
    text = LABELLED["Kaldi"].encode()
    (tmp_path / "trials.gz").write_bytes(gzip.compress(text))
    packed = trials.read_trials(tmp_path / "trials.gz")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    piped = trials.read_trials("-")
    assert pairs(packed) == pairs(piped) == PAIRS
    assert packed.sha1 == piped.sha1 == hashlib.sha1(text).hexdigest()
    assert piped.name == "standard input"


def test_further_columns_are_read_on_demand(tmp_path, monkeypatch, read):
    text = "1 a b f 0.5\n0 a c f 0.25\n0 b d m 2\n"
    path = tmp_path / "list.txt"
    path.write_text(text)
    listed = trials.read_trials(path, columns=["label", "enroll", "test", "gender", "score"], keep=["gender"])
    assert listed.columns == {"gender": ["f", "f", "m"]}
    assert (listed.labels.tolist(), listed.scores.tolist()) == ([True, False, False], [0.5, 0.25, 2])
    path.write_text("label enroll test gender score\n" + text)
    assert trials.read_trials(path, keep=["gender"]).columns == {"gender": ["f", "f", "m"]}
    assert trials.read_trials(path).columns == {}
    with pytest.raises(InputError, match="wanted 3 columns: enroll test label"):
        path.write_text(text)
        trials.read_trials(path, columns=["enroll", "test", "label"])


def test_a_list_with_paths_after_the_keys(read):  # VoxSRC 2023
    listed = read("1 k1 k2 x/a.wav x/b.wav\n0 k1 k3 x/a.wav x/c.wav\n")
    assert pairs(listed) == [("k1", "k2"), ("k1", "k3")]


def test_repeated_trials_are_noted_and_must_agree(read):
    assert read("1 a b\n0 a c\n1 a b\n1 b a\n").notes == ["1 trials are listed more than once, and count as often"]
    assert read("1 a b\n0 a c\n").notes == []
    with pytest.raises(InputError, match=":3: the pair has another score on line 1: 'a b 0.25'"):
        read("a b 0.5\na c 0.5\na b 0.25\n")


def test_a_file_without_an_end_is_noted(read):
    assert "cut" in read("1 a b\n0 a c").notes[0]


BLANKS = st.sampled_from([" ", "  ", "\t", " \t"])
WORDS = st.text(st.sampled_from('ab/.-é#0"'), min_size=1, max_size=3)


@given(st.lists(st.tuples(st.sampled_from("01"), WORDS, WORDS, BLANKS), min_size=1, max_size=8))
def test_large_files_are_read_as_small_ones_are(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "list.txt"
    path.write_text("".join(f"{label}{blank}{one} {other}\n" for label, one, other, blank in rows))
    found = []
    for large in (10**9, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trials, "LARGE", large)
            try:
                listed = trials.read_trials(path)
                found.append((pairs(listed), listed.ids, None if listed.labels is None else listed.labels.tolist()))
            except InputError as error:
                found.append(str(error))
    assert found[0] == found[1]


# --- bad input --------------------------------------------------------------------------------------------------------

BAD_LINES = {
    "too few columns": ("0 a", "2: 2 columns where 3 are expected: '0 a'"),
    "too many columns": ("0 a b c", "2: 4 columns where 3 are expected: '0 a b c'"),
    "label two": ("2 a b", "2: label '2' is neither 1 nor 0: '2 a b'"),
    "label minus one": ("-1 a b", "2: label '-1' is neither 1 nor 0: '-1 a b'"),
    "other vocabulary": ("target a b", "2: label 'target' is neither 1 nor 0: 'target a b'"),
    "control characters": ("\x1b[2J a b", r"2: label '\x1b[2J' is neither 1 nor 0: '\x1b[2J a b'"),
    "contradiction": ("1 b a\n0 b a", "3: the pair has the other label on line 2: '0 b a'"),
}


@pytest.mark.parametrize("line, message", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named(read, tmp_path, line, message):
    with pytest.raises(InputError) as error:
        read(f"1 a b\n{line}\n0 c d\n1 c e\n")
    assert str(error.value) == f"{tmp_path}/trials.txt:{message}"


@pytest.mark.parametrize("score", ["nan", "abc", "0,5", "--1"])
def test_a_bad_score_is_named(read, tmp_path, score):
    with pytest.raises(InputError) as error:
        read(f"a b 0.5 target\nc d {score} nontarget\na d 0.25 nontarget\n")
    assert str(error.value) == f"{tmp_path}/trials.txt:2: score '{score}' is not a number: 'c d {score} nontarget'"


def test_infinite_scores_are_values(read):
    assert read("a b inf\nc d -inf\na d 0.5\n").scores.tolist() == [np.inf, -np.inf, 0.5]


def test_an_empty_id_is_named(read):
    with pytest.raises(InputError, match=":2: the test id is empty: '0,a,'"):
        read("1,a,b\n0,a,\n1,c,d\n")


def test_ten_bad_lines_are_shown_and_all_are_counted(read):
    text = "# list\n" + "".join(f"{i % 2} a{i} b{i}\n" for i in range(100)) + "".join(f"7 x{i} y\n" for i in range(30))
    with pytest.raises(InputError) as error:
        read(text)
    first, *shown = str(error.value).split("\n")
    assert "30 bad lines of 130, nothing was scored" in first
    assert shown == [f"  line {102 + i}: label '7' is neither 1 nor 0: '7 x{i} y'" for i in range(10)]


def test_a_bad_line_far_down_is_named(read):
    with pytest.raises(InputError, match=":5001: 2 columns where 3 are expected: '0 a'"):
        read("".join(f"{i % 2} a{i} b{i}\n" for i in range(5000)) + "0 a\n")


def test_a_bad_label_is_named_in_the_shortest_list(read):
    with pytest.raises(InputError, match=":2: label '2' is neither 1 nor 0: '2 a c'"):
        read("1 a b\n2 a c\n")
    assert read("1 a b\n0.5 a c\n").scores.tolist() == [1, 0.5]


def test_long_lines_are_cut_in_messages(read):
    with pytest.raises(InputError) as error:
        read("1 a b\n1 a " + "x" * 10**5 + " c\n0 c d\n")
    assert len(str(error.value)) < 300


NOT_LISTS = {
    "empty": (b"", "no trials, the file is empty"),
    "only blank lines": (b"\n \n# nothing\n", "no trials, the file is empty"),
    "only names": (b"enroll test label\n", "no trials, only a line of names"),
    "prose": (b"Once upon a time there was\na list\n", ":1: not a trial list: 'Once upon a time there was'"),
    "one column": (b"a.wav\nb.wav\n", ":1: not a trial list: 'a.wav'"),
    "three ids": (b"a b c\nd e f\n", ":1: not a trial list"),
    "binary": (b"PK\x03\x04\0\0\0\0", "a binary file"),
    "latin": ("1 a b\n0 é c\n".encode("latin-1"), ":2: not UTF-8 text"),
    "utf-16": ("1 a b\n".encode("utf-16"), ":1: not UTF-8 text"),
    "cut gzip": (gzip.compress(b"1 a b\n0 c d\n" * 1000)[:30], "a damaged gzip file"),
    "spoilt gzip": (gzip.compress(b"1 a b\n0 c d\n")[:-8] + b"12345678", "a damaged gzip file"),
    "two labels": (b"1 0 1\n0 1 1\n", "is column 1 or 2 or 3 the label[?] begin the file with a line of names"),
    "labels or scores": (b"a b 1 0\nc d 0 1\n", "is column 3 or 4 the label[?]"),
    "two scores": (b"a b 0.5 0.25 target\n", "is column 3 or 4 the score[?]"),
}


@pytest.mark.parametrize("data, message", NOT_LISTS.values(), ids=NOT_LISTS)
def test_what_is_no_list_is_refused(read, data, message):
    with pytest.raises(InputError, match=message):
        read(data)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match="cannot read .*none.txt: No such file"):
        trials.read_trials(tmp_path / "none.txt")
    with pytest.raises(InputError, match="wanted an ordinary file, this is a folder"):
        trials.read_trials(tmp_path)


# --- writing, speakers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", ["VoxCeleb", "unlabelled", "blanks in ids"])
def test_written_scores_read_back_exactly(read, tmp_path, dtype, form):
    others = {"unlabelled": "a b\nc d\ne f\n", "blanks in ids": "1\ta b\tc\n0\ta b\td\n1\td\te\n"}
    listed = read(others.get(form, LABELLED["VoxCeleb"]))
    scores = np.array([1 / 3, 1, -1e-20], dtype)
    trials.write_scores(tmp_path / "scores.txt", listed, scores)
    again = trials.read_trials(tmp_path / "scores.txt")
    assert pairs(again) == pairs(listed)
    assert np.array_equal(again.scores.astype(dtype), scores)
    assert (again.labels is None) if listed.labels is None else np.array_equal(again.labels, listed.labels)


def test_the_score_file_has_the_form_of_wespeaker(read, tmp_path):
    trials.write_scores(tmp_path / "scores.txt", read(LABELLED["VoxCeleb"]), np.float32([0.75, 0, 1]))
    assert (tmp_path / "scores.txt").read_text().splitlines() == [
        "a/1.wav a/2.wav 0.750000000 target",
        "a/1.wav b/1.wav 0.00000000 nontarget",
        "b/1.wav b/2.wav 1.00000000 target",
    ]


def test_hard_decisions_are_not_read_back_as_labels(read, tmp_path):
    for dtype in (np.float32, np.float64):
        trials.write_scores(tmp_path / "scores.txt", read("a b\nc d\n"), np.array([0, 1], dtype))
        assert trials.read_trials(tmp_path / "scores.txt").scores.tolist() == [0, 1]


def test_speakers_are_what_the_labels_agree_with(read):
    assert trials.speakers(read(LABELLED["VoxCeleb"])) == ["a/", "b/", "a/", "b/"]
    domain = read("1 en/s-1/x.wav en/s-1/y.wav\n0 en/s-1/x.wav en/s-2/x.wav\n0 en/s-2/z.wav fr/s-1/x.wav\n")
    assert set(trials.speakers(domain)) == {"en/s-1/", "en/s-2/", "fr/s-1/"}
    assert trials.speakers(read("1 a1 a2\n0 a1 b1\n")) is None
    assert trials.speakers(read("a/1 a/2\nb/1 c/1\n")) is None


@pytest.mark.skipif(not DATA.exists(), reason="the development recordings are not here")
def test_public_lists():
    cleaned = trials.read_trials(DATA / "voxceleb1" / "veri_test2.txt")
    assert (len(cleaned.enroll), cleaned.labels.sum(), len(cleaned.ids)) == (37611, 18802, 4708)
    assert cleaned.known_as() == "VoxCeleb1-O, cleaned"
    assert trials.read_trials(DATA / "voxceleb1" / "veri_test.txt").known_as() == "VoxCeleb1-O, original"
    assert len(set(trials.speakers(cleaned))) == 40
    for path in (DATA / "speech").glob("trials_*.txt"):
        assert trials.speakers(trials.read_trials(path)), path
