import multiprocessing
import sys

import faiss
import numpy as np
import pytest

from sv_ssl.cli import identify
from sv_ssl.cli import index as command
from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import search, store
from sv_ssl.verification.calibrate import Calibration
from sv_ssl.verification.calibrate import write as write_calibration

DIM = 24


def speakers(count, seed=0):
    rng = np.random.default_rng(seed)
    return [f"spk {i} é" for i in range(count)], rng.normal(size=(count, DIM)).astype(np.float32) * 5


def voices(rows, noise=0.5, seed=1):
    return rows + noise * np.random.default_rng(seed).normal(size=rows.shape).astype(np.float32)


def exact(names, rows, asked, k):
    """Brute force."""
    cosines = store.unit(asked) @ store.unit(rows).T
    order = np.argsort(-cosines, axis=1)[:, :k]
    return [[(names[i], row[i]) for i in best] for row, best in zip(cosines, order)]


def test_flat_is_exact():
    names, rows = speakers(50)
    asked = voices(rows, 5)
    for found, wanted in zip(search.create("flat", names, rows).search(asked, 7), exact(names, rows, asked, 7)):
        assert [name for name, _ in found] == [name for name, _ in wanted]
        assert [cosine for _, cosine in found] == pytest.approx([cosine for _, cosine in wanted], abs=1e-5)


@pytest.fixture(params=search.KINDS)
def many(request):
    names, rows = speakers(600)
    return search.create(request.param, names, rows), names, rows


def first(found):
    return [nearest[0][0] for nearest in found]


def test_each_kind_names_the_right_speaker(many):
    found, names, rows = many
    assert np.mean([a == b for a, b in zip(first(found.search(voices(rows))), names)]) > 0.95


def test_removed_speakers_are_not_found_and_may_come_again(many):
    found, names, rows = many
    found.remove(names[:200])
    assert len(found) == 400
    assert not set(names[:200]) & {name for nearest in found.search(rows[:200], 5) for name, _ in nearest}
    assert first(found.search(rows[300:310])) == names[300:310]
    found.add([names[7]], rows[7:8])
    assert first(found.search(rows[7:8])) == [names[7]] and len(found) == 401


def test_all_may_be_removed(many):
    found, names, rows = many
    found.remove(names)
    assert len(found) == 0 and found.search(rows[:2], 3) == [[], []]


def test_comes_back_from_its_file(many, tmp_path):
    found, names, rows = many
    found.remove(names[3:5])
    found.add(["new"], rows[3:4])
    found.save(tmp_path / "a.index")
    again = search.load(tmp_path / "a.index")
    assert (again.kind, again.dim, len(again)) == (found.kind, DIM, 599)
    assert again.search(rows[:9], 4) == found.search(rows[:9], 4)
    again.remove(["new"])
    again.add(["newer"], rows[4:5])
    assert first(again.search(rows[4:5])) == ["newer"]
    assert faiss.read_index(str(tmp_path / "a.index")).d == DIM


def test_strangers_are_unknown():
    names, rows = speakers(20)
    found = search.create("flat", names, rows)
    known, strangers = found.search(voices(rows), 3, threshold=0.85), found.search(speakers(20, seed=9)[1], 3, 0.85)
    assert all(len(nearest) == 1 for nearest in known) and strangers == [[]] * 20


def test_more_asked_for_than_there_are():
    names, rows = speakers(3)
    assert [len(nearest) for nearest in search.create("hnsw", names, rows).search(rows, 10)] == [3, 3, 3]


@pytest.mark.parametrize(
    "work, reason",
    [
        (lambda found: found.add(["spk 1 é"], np.ones((1, DIM))), "1 speakers are enrolled already or twice"),
        (lambda found: found.add(["x", "x"], np.ones((2, DIM))), "already or twice, such as x"),
        (lambda found: found.remove(["nobody"]), "1 of 1 speakers are not enrolled, such as nobody"),
        (lambda found: found.search(np.ones((2, 5))), r"holds 24 dimensions, the embeddings are of shape \(2, 5\)"),
        (lambda found: found.search(np.ones((2, DIM)), 0), "at least 1"),
        (lambda found: search.create("pq", *speakers(9)), "fitted to 256 speakers or more, not 9: use flat"),
        (lambda found: search.create("tree", *speakers(9)), "no kind 'tree'"),
    ],
)
def test_bad_requests_are_refused_and_change_nothing(work, reason):
    names, rows = speakers(9)
    found = search.create("flat", names, rows)
    with pytest.raises(InputError, match=reason):
        work(found)
    assert len(found) == 9 and first(found.search(rows)) == names


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: b"text" * 99,
        lambda data: data[1000:],
        lambda data: data[:600] + data[700:],
    ],
)
def test_damaged_files_are_refused(tmp_path, damage):
    search.create("flat", *speakers(40)).save(tmp_path / "a.index")
    (tmp_path / "a.index").write_bytes(damage((tmp_path / "a.index").read_bytes()))
    with pytest.raises(InputError, match="is not a whole index|is damaged"):
        search.load(tmp_path / "a.index")
    with pytest.raises(InputError, match="cannot read"):
        search.load(tmp_path / "b.index")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    found = search.create("flat", *speakers(9))
    found.save(tmp_path / "a.index")
    found.remove(["spk 1 é"])

    def full(*_):
        raise RuntimeError("write error")

    monkeypatch.setattr(faiss, "write_index", full)
    with pytest.raises(InputError, match="disk full"):
        found.save(tmp_path / "a.index")
    assert len(search.load(tmp_path / "a.index")) == 9 and len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Three speakers of four utterances each, and two voices: the first speaker's and a stranger's."""
    monkeypatch.chdir(tmp_path)
    rows = np.eye(3, DIM, dtype=np.float32)
    ids = [f"{who}/{i}" for who in ("anna", "ben", "eva") for i in range(4)]
    store.write("enrol.npz", ids, voices(np.repeat(rows, 4, axis=0), 0.01))
    store.write("test.npz", ["t 1", "t 2"], np.stack([rows[0], np.eye(DIM, dtype=np.float32)[9]]))
    return tmp_path


def test_commands_enrol_identify_and_remove(files, capsys):
    assert command.main(["a.index", "--enrol", "enrol.npz", "--speakers", "ids"]) == 0
    assert "3 speakers, 24 dimensions, flat" in capsys.readouterr().out
    assert identify.main(["a.index", "test.npz", "--top", "2", "--threshold", "0.5"]) == 0
    shown = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in shown] == [["t 1", "1", "anna"], ["t 2", "0", "unknown"]]
    assert float(shown[0][3]) > 0.99 and abs(float(shown[1][3])) < 0.1
    assert command.main(["a.index", "--remove", "anna"]) == 0
    assert identify.main(["a.index", "test.npz", "--out", "who.tsv"]) == 0
    said = capsys.readouterr().err
    assert "2 voices against 2 speakers: 2 named, 0 unknown" in said
    assert "wrote who.tsv" in said and said.splitlines()[-1].startswith("next: --threshold")
    assert "anna" not in (files / "who.tsv").read_text()
    assert command.main(["a.index"]) == 0 and "2 speakers" in capsys.readouterr().out


def test_speakers_of_a_file_and_the_threshold_of_a_calibration(files, capsys):
    ids, _ = store.read("enrol.npz")
    (files / "utt2spk").write_text("".join(f"{i} {i.split('/')[0].upper()}\n" for i in ids))
    assert command.main(["a.index", "--enrol", "enrol.npz", "--speakers", "utt2spk", "--kind", "hnsw"]) == 0
    facts = dict(ranges=((-1.0, 1.0),), n_target=5, n_nontarget=5, cllr_before=1.0, cllr_after=0.5, lists=(), notes=())
    write_calibration("cal.json", Calibration((10.0,), -4.0, 0.5, ("score",), **facts))
    assert identify.main(["a.index", "test.npz", "--calibration", "cal.json"]) == 0
    shown = capsys.readouterr()
    assert "ANNA" in shown.out and "(threshold 0.4000)" in shown.err  # 10 x 0.4 - 4 = 0, both equally expected


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["a.index"], "a.index is not there: pass --enrol"),
        (["a.index", "--speakers", "ids"], "--speakers needs --enrol"),
        (["a.index", "--remove", "anna"], "is not there"),
        (["a.index", "--enrol", "nothing.npz"], "cannot read nothing.npz"),
        (["a.index", "--enrol", "enrol.npz", "--kind", "ivf"], "fitted to 40 speakers or more, not 12"),
    ],
)
def test_commands_say_what_is_wrong(files, capsys, arguments, reason):
    assert command.main(arguments) == 2
    assert reason in capsys.readouterr().err and not (files / "a.index").exists()


def test_another_kind_is_refused(files, capsys):
    assert command.main(["a.index", "--enrol", "enrol.npz"]) == 0
    assert command.main(["a.index", "--enrol", "test.npz", "--kind", "hnsw"]) == 2
    assert "of the kind flat, not hnsw" in capsys.readouterr().err
    assert identify.main(["a.index", "test.npz", "--threshold", "0.1", "--calibration", "x"]) == 2
    assert "exclude each other" in capsys.readouterr().err
    assert identify.main(["a.index", "test.npz", "--threshold", "nan"]) == 2
    assert "between -1 and 1" in capsys.readouterr().err


def test_names_of_strangers_break_no_line_and_are_no_formula(files, capsys):
    names = ["=cmd|' /C calc'!A0", "a\tb\x1b[2J", "-x", "+4912345"]
    rows = np.eye(4, DIM, dtype=np.float32)
    store.write("odd.npz", names, rows)
    assert command.main(["odd.index", "--enrol", "odd.npz"]) == 0
    assert identify.main(["odd.index", "odd.npz", "--out", "who.tsv"]) == 0
    shown = ["'=cmd|' /C calc'!A0", r"a\tb\x1b[2J", "'-x", "+4912345"]
    lines = [line.split("\t") for line in (files / "who.tsv").read_text().splitlines()]
    assert [line[:3] for line in lines] == [[name, "1", name] for name in shown]
    capsys.readouterr()
    assert identify.main(["odd.index", "odd.npz"]) == 0  # for other programs: the names as they are
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [name.removeprefix("'") for name in shown]


def test_four_that_enrol_at_once_lose_no_speaker(files):
    fork = multiprocessing.get_context("fork")
    rows = np.eye(40, DIM, dtype=np.float32) + 1
    for number in range(20):
        store.write(f"{number}.npz", [f"spk {number}"], rows[number : number + 1])
    processes = [fork.Process(target=_enrol, args=(range(first, 20, 4),)) for first in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(search.load("a.index").numbers) == sorted(f"spk {number}" for number in range(20))


def _enrol(numbers):
    sys.exit(max(command.main(["a.index", "--enrol", f"{number}.npz"]) for number in numbers))
