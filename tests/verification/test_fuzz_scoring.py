"""Damaged trial lists and score files: a result or an InputError, never anything else, and no loss without a word."""

import gzip
import json
import os
import random
import shlex
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from sv_ssl.cli import score
from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import store
from sv_ssl.verification import scoring, trials

PAIRS = [(f"id{i % 5}/s{i}/{i:02}.wav", f"id{(i + (i % 3 > 0)) % 5}/t{i}/{i:02}.wav", i % 3 == 0) for i in range(12)]
ROWS = [
    {"e": e, "t": t, "s": f"{0.37 * i % 1 - 0.2 + same:.4f}", "b": f"{same:d}", "w": "target" if same else "nontarget"}
    for i, (e, t, same) in enumerate(PAIRS)
]
FORMS = {
    "VoxCeleb": "{b} {e} {t}",
    "Kaldi": "{e} {t} {w}",
    "CN-Celeb": "{e} {t} {b}",
    "unlabelled": "{e} {t}",
    "scores": "{e} {t} {s}",
    "WeSpeaker": "{e} {t} {s} {w}",
    "SpeechBrain": "{e} {t} {b} {s}",
    "VoxSRC": "{s} {e} {t}",
    "VoxSRC 2023": "{b} {e} {t} /x/{e} /x/{t}",
    "tabs": "{b}\t{e}\t{t}",
    "blanks in ids": "my {e}\tmy {t}\t{s}\t{w}",
    "commas": "{e},{t},{b},{s}",
    "quotes": '"{e}","{t}",{w}',
}
NAMES = {
    "NIST": ("modelid\tsegmentid\tside\ttargettype", "{e}\t{t}\ta\t{w}"),
    "NIST scores": ("modelid\tsegmentid\tside\tLLR", "{e}\t{t}\ta\t{s}"),
    "CSV": ("enroll,test,label,score,place", "{e},{t},{b},{s},hall"),
    "names and blanks": ("enroll test label score", "{e} {t} {b} {b}"),
}
FILES = {form: "".join(line.format(**row) + "\n" for row in ROWS).encode() for form, line in FORMS.items()}
FILES |= {
    form: "\n".join([head, *(line.format(**row) for row in ROWS), ""]).encode() for form, (head, line) in NAMES.items()
}
FILES |= {
    "CR LF": FILES["VoxCeleb"].replace(b"\n", b"\r\n"),
    "BOM": b"\xef\xbb\xbf" + FILES["Kaldi"],
    "UTF-8": FILES["WeSpeaker"].replace(b"wav", "björk\u3000\u4f60.wav".encode()),
    "comments": b"# mine\n\n" + FILES["SpeechBrain"].replace(b"\n", b"\n\n", 3),
    "gzip": gzip.compress(FILES["VoxCeleb"], mtime=0),
    "two gzips": gzip.compress(FILES["scores"], mtime=0) + gzip.compress(FILES["scores"][:0], mtime=0),
}
ODD = [
    b"\0",
    b"\r",
    b"\n",
    b"\t",
    b",",
    b" ",
    b"  ",
    b'"',
    b"#",
    b"nan",
    b"-inf",
    b"1e999",
    b"-0.0",
    b"\xff",
    b"\x85",
    b"\xef\xbb\xbf",
    "\u00a0".encode(),
    "\u2028".encode(),
    b"\x1b[31m",
    b"1_0",
    b"0x1p3",
    b"\xed\xa0\x80",
    b"\x1f\x8b",
    b"9" * 400,
    b"x" * 70_000,
    b"1",
    b"target",
    b"\\",
    b"%s",
    b"{}",
    b"../",
]


# --- ways to damage a file: Random, bytes -> bytes ------------------------------------------------------------------


def flip_bits(rng, data):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_bytes(rng, data):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 10))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def insert(rng, data):
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(ODD) + data[at:]


def truncate(rng, data):
    return data[: rng.randrange(len(data))]


def lose_a_part(rng, data):
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[end:]


def repeat_a_part(rng, data):
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:]


def swap_columns(rng, data):
    lines = data.split(b"\n")
    for i in range(len(lines)) if rng.random() < 0.3 else [rng.randrange(len(lines))]:
        fields = lines[i].split(separator := rng.choice((b" ", b"\t", b",")))
        rng.shuffle(fields)
        lines[i] = separator.join(fields)
    return b"\n".join(lines)


def change_a_field(rng, data):
    lines = data.split(b"\n")
    i = rng.randrange(len(lines))
    fields = lines[i].split(separator := rng.choice((b" ", b"\t", b",")))
    fields[rng.randrange(len(fields))] = rng.choice((*ODD, b"", b"0", b"0.5", b"nontarget", b"id0/s0/00.wav"))
    lines[i] = separator.join(fields)
    return b"\n".join(lines)


def drop_a_field(rng, data):
    fields = data.split(separator := rng.choice((b" ", b"\t", b",")))
    del fields[rng.randrange(len(fields))]
    return separator.join(fields)


def shuffle_lines(rng, data):
    lines = data.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


def replace_separators(rng, data):
    old, new = rng.choice((b" ", b"\t", b",", b"\n", b".", b"/")), rng.choice((*ODD[:9], b";", b"|", b""))
    return data.replace(old, new, rng.choice((-1, 1, 5)))


def mix_line_ends(rng, data):
    return b"".join(part + rng.choice((b"\n", b"\r\n", b"\r", b"\n\r")) for part in data.split(b"\n"))


def break_encoding(rng, data):
    return data.decode("latin-1").encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-7", "utf-8", "cp500")))


def compress(rng, data):
    packed = gzip.compress(data, mtime=0) if rng.random() < 0.7 else zlib.compress(data)
    return rng.choice((lambda rng, data: data, flip_bits, truncate, insert))(rng, packed)


WAYS = [
    flip_bits,
    set_bytes,
    insert,
    truncate,
    lose_a_part,
    repeat_a_part,
    swap_columns,
    change_a_field,
    drop_a_field,
    shuffle_lines,
    replace_separators,
    mix_line_ends,
    break_encoding,
    compress,
]
OPTIONS = [
    {},
    {},
    {},
    {"keep": ["c3", "c4", "side", "place"]},
    {"columns": ["enroll", "test", "score"]},
    {"columns": ["label", "enroll", "test"], "keep": ["c1"]},
]


def damaged(seed):
    """Seed -> a file that was whole once, and options to read it with; the same for ever."""
    rng = random.Random(seed)
    data = FILES[rng.choice(list(FILES))]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(WAYS)(rng, data) if data else data
    return data, rng.choice(OPTIONS)


# --- what may come of it --------------------------------------------------------------------------------------------


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Bytes, options -> Trials or the text of the InputError; in the way of large files or of small ones."""
    path = tmp_path / "trials.txt"

    def attempt(data, options, large):
        monkeypatch.setattr(trials, "LARGE", 0 if large else 1 << 24)
        path.write_bytes(data)
        try:
            return trials.read_trials(path, **options)
        except InputError as error:
            return str(error)

    return attempt


def check_result(listed):
    """A list that was read can be measured, or an InputError says why not; what is said of it is fit to be printed."""
    assert listed.summary().isprintable() and all(note.isprintable() for note in listed.notes)
    assert len(listed.enroll) == len(listed.test) > 0
    scores = np.linspace(-1, 1, len(listed.enroll)) if listed.scores is None else listed.scores
    try:
        report = scoring.report(listed, scores)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        json.dumps(report, allow_nan=False)
        assert listed.labels is None or 0 <= report["eer"] <= 1


def check_message(message):
    lines = message.split("\n  line ")
    assert len(lines) <= 11 and all(line.isprintable() and len(line) < 1000 for line in lines), message


def check_same(one, other):
    """Trials or messages of both ways to read -> asserted to agree in everything but the order of the ids."""
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        return
    for field in ("form", "sha1", "notes", "columns"):
        assert getattr(one, field) == getattr(other, field)
    for field in ("labels", "scores"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    for side in ("enroll", "test"):
        assert [one.ids[i] for i in getattr(one, side)] == [other.ids[i] for i in getattr(other, side)]


@pytest.mark.parametrize("part", range(10))
def test_damage_gives_a_result_or_an_error(read, part):
    """10,000 files, the first quarter of them also as large files are read, which must make no difference."""
    refused = 0
    for seed in range(1000 * part, 1000 * part + 1000):
        data, options = damaged(seed)
        try:
            found = read(data, options, large=False)
            if isinstance(found, str):
                check_message(found)
                refused += 1
            else:
                check_result(found)
            if seed % 4 == 0:
                check_same(found, read(data, options, large=True))
        except Exception as error:
            raise AssertionError(f"damaged({seed}): {data[:300]!r} {options}") from error
    assert 300 < refused < 900  # neither is the damage idle nor does all of it go to the same error


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("form", [form for form in FILES if "gzip" not in form])
def test_a_file_that_ends_within_a_line_is_refused_or_noted(read, form, large):
    data = FILES[form]
    ends = [end for end in range(len(data)) if data[end - 1 : end] not in (b"\n", b"\r")]
    for end in ends[:: 7 if large else 1]:
        found = read(data[:end], {}, large)
        assert isinstance(found, str) or any("the last line has no end" in note for note in found.notes), data[:end]


@pytest.mark.parametrize("form", [form for form in FILES if "gzip" not in form])
def test_a_gzip_file_that_lost_its_end_is_refused(read, form):
    data = gzip.compress(FILES[form])
    for end in range(len(data)):
        assert isinstance(read(data[:end], {}, large=False), str), end


def test_lines_that_are_passed_over_are_counted(read):
    """One flipped bit makes c a #, and the line a comment."""
    found = read(b"a b target\na c nontarget\n#lara d nontarget\n", {}, large=False)
    assert found.notes == ["lines that begin with # are passed over: 1"]


@pytest.mark.parametrize("form", FILES)
def test_undamaged_files_are_read_both_ways_alike(read, form):
    found = read(FILES[form], {}, large=False)
    assert len(found.enroll) == len(ROWS)
    check_same(found, read(FILES[form], {}, large=True))


UNEVEN = {
    "a blank too many before a column that nobody reads": b"0 a b x y\n1 a c  x\n",
    "a comment where nobody reads the first column": b"side,enroll,test,label\nx,a,b,1\n#x,a,c,0\n",
    "blanks round a kept column": b"enroll,test,label,place\na,b,1, hall\na,c,0,hall \n",
    "names in a line that cannot be printed": b"enroll,test,\xc2\x85place,label\na,b,x,1\na,c,y,0\n",
    "two columns of one name": b"enroll test label label\na b 1 0\na c 0 1\n",
}


@pytest.mark.parametrize("data", UNEVEN.values(), ids=UNEVEN)
def test_unlike_lines_are_read_both_ways_alike(read, data):
    """What the damage above has found once."""
    found = read(data, {"keep": ["place"]}, large=False)
    check_same(found, read(data, {"keep": ["place"]}, large=True))
    assert isinstance(found, str) or found.summary().isprintable()


def test_two_columns_of_one_name_are_refused(read):
    assert "two columns are called label" in read(UNEVEN["two columns of one name"], {}, large=False)


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Arguments of sv-score in a folder with a list, scores and embeddings -> exit code, output, error."""
    monkeypatch.chdir(tmp_path)
    for name, form in ("trials.txt", "VoxCeleb"), ("scores.txt", "WeSpeaker"), ("pairs.txt", "unlabelled"):
        (tmp_path / name).write_bytes(FILES[form])
    (tmp_path / "infinite.txt").write_text("a b inf target\na c -inf nontarget\n")
    (tmp_path / "folder").mkdir()
    ids = sorted({i for e, t, _ in PAIRS for i in (e, t)})
    store.write(tmp_path / "emb.npz", ids, np.random.default_rng(0).standard_normal((len(ids), 8)))
    return lambda line: (score.main(shlex.split(line)), *capsys.readouterr())


CONFUSED = {
    'scores.txt --json ""': "--json is empty: leave it out",
    'scores.txt --calibrate ""': "--calibrate is empty",
    '""': "TRIALS is empty",
    "scores.txt --json /dev/null": "--json /dev/null: wanted the name of a file, this is no ordinary file",
    "scores.txt --csv folder": "--csv folder: wanted the name of a file, this is a folder",
    "scores.txt --scores-out -": "--scores-out -: wanted the name of a file",
    "scores.txt --scores-out scores.txt": "--scores-out scores.txt would overwrite what TRIALS reads",
    "trials.txt --embeddings emb.npz --json folder/../emb.npz": "would overwrite what --embeddings reads",
    "scores.txt --json one --csv one": "--csv one would overwrite what --json writes",
    "scores.txt --prior 0.1": "--prior needs --calibrate",
    "scores.txt --device cpu": "--device needs --model",
    "scores.txt --manifest m.csv": "--manifest needs --by or --quality",
    "trials.txt --embeddings emb.npz --combine scores": "--combine needs --enroll",
    "trials.txt --embeddings emb.npz --norm z --cohort emb.npz --top-n 3": "--top-n is for --norm as",
    "pairs.txt --embeddings emb.npz --scores-out s --ci": "has no labels, so nothing can be measured: --ci needs them",
    "scores.txt --p-target 1e-320": "p_target must lie between 0 and 1",
    "scores.txt --p-target 0.01,1e300,1e-300": "p_target must lie between 0 and 1",
    "scores.txt --by label": "--by label: scores.txt has no such column",
    "infinite.txt --plot p --scores-out s": "infinite.txt: all scores are infinite: leave out --plot",
}


@pytest.mark.parametrize("line, message", CONFUSED.items(), ids=list(CONFUSED))
def test_confused_commands_are_refused_before_anything_is_written(command, tmp_path, line, message):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, _, error = command(line)
    assert code == 2 and message in error and error.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    "arguments, environment, code, message",
    [
        ("scores.txt > /dev/full", None, 2, "No space left on device"),
        ("scores.txt >&-", None, 0, ""),
        ("- <&-", None, 2, "standard input is closed"),
        ("scores.txt --json 名.json", {"PYTHONIOENCODING": "ascii"}, 0, ""),
    ],
)
def test_odd_surroundings_leave_no_traceback(command, arguments, environment, code, message):
    line = f"{shlex.quote(sys.executable)} -m sv_ssl.cli.score {arguments}"
    surroundings = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **(environment or {})}
    done = subprocess.run(["sh", "-c", line], env=surroundings, capture_output=True, text=True)
    assert done.returncode == code and message in done.stderr and done.stderr.count("\n") == bool(message)
