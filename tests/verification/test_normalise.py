import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sv_ssl.core.errors import InputError
from sv_ssl.verification import normalise
from sv_ssl.verification.normalise import apart, read_speakers, speaker_means, statistics
from sv_ssl.verification.trials import Trials

METHODS = ["z", "t", "s", "as"]


def units(count, dim=12, seed=0, about=0.3):
    rows = np.random.default_rng(seed).normal(about, 1, (count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def defined(rows, cohort, top_n=None):
    """The definition: sort all cosines in float64, take the last top_n."""
    cosines = np.sort(rows.astype(np.float64) @ cohort.astype(np.float64).T, axis=1)
    chosen = cosines[:, -top_n:] if top_n else cosines
    return chosen.mean(1), np.sqrt(((chosen - chosen.mean(1, keepdims=True)) ** 2).mean(1))


def close(found, expected, within=1e-6):
    return all(a == pytest.approx(b, abs=within) for a, b in zip(found, expected))


def listed(ids, pairs, labels=None):
    enroll, test = np.array(pairs, np.int32).T
    return Trials("list.txt", "", "", list(ids), enroll, test, None if labels is None else np.array(labels, bool), None)


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_n", [None, 2, 7, 50, 124, 125, 300, 996, 997, 5000])
@pytest.mark.parametrize("sign", [1, -1])
def test_statistics_are_the_definition(top_n, sign):
    rows, cohort = units(37, about=2), units(997, seed=1, about=2 * sign)  # all cosines are of this sign
    mean, sd = statistics(rows, cohort, top_n)
    assert mean.dtype == sd.dtype == np.float64 and mean.shape == sd.shape == (37,)
    assert close((mean, sd), defined(rows, cohort, top_n))


@pytest.mark.parametrize("top_n", [None, 5])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_leave_no_trace(top_n, block, monkeypatch):
    rows, cohort = units(50), units(300, seed=1)
    expected = statistics(rows, cohort, top_n)
    monkeypatch.setattr(normalise, "BLOCK", block)
    assert close(statistics(rows, cohort, top_n), expected)


def test_all_of_a_cohort_as_its_highest_is_all_of_it():
    rows, cohort = units(20), units(100, seed=1)
    whole = statistics(rows, cohort)
    for top_n in (100, 101):
        assert np.array_equal(statistics(rows, cohort, top_n), whole)
    for i, row in enumerate(rows):  # the same in the other way: the 100 highest of 101, the last the row's opposite
        one = statistics(row[None], np.concatenate([cohort, -row[None]]), 100)
        assert close(one, (whole[0][i : i + 1], whole[1][i : i + 1]))


@st.composite
def cohorts(draw):
    """Few distinct rows, many times over, in any order: ties everywhere."""
    kinds = draw(st.integers(1, 6))
    chosen = draw(st.lists(st.integers(0, kinds - 1), min_size=2, max_size=120))
    return units(kinds, dim=4, seed=draw(st.integers(0, 99)))[chosen]


@given(cohorts(), st.integers(2, 20), st.integers(0, 99))
@settings(max_examples=150)
def test_ties_and_order_do_not_matter(cohort, top_n, seed):
    rows = units(3, dim=4, seed=100)
    found = statistics(rows, cohort, top_n)
    assert close(found, defined(rows, cohort, top_n))
    assert close(statistics(rows, np.random.default_rng(seed).permutation(cohort), top_n), found)


@given(st.integers(0, 999), st.integers(2, 12), st.integers(30, 200))
@settings(max_examples=50)
def test_whoever_is_far_does_not_count(seed, top_n, count):
    rows, cohort = units(1, seed=seed), units(count, seed=seed + 1)
    farther = np.concatenate([np.repeat(-rows, 40, axis=0), cohort, -rows])
    assert close(statistics(rows, farther, top_n), statistics(rows, cohort, top_n))
    assert close(statistics(rows, np.tile(cohort, (2, 1)), 2 * top_n), statistics(rows, cohort, top_n))
    assert close(statistics(rows, np.tile(cohort, (2, 1))), statistics(rows, cohort))


@pytest.mark.parametrize("near", [slice(0, 90), slice(-90, None), slice(None, None, 40), slice(None, None, 41)])
def test_it_does_not_matter_where_in_the_cohort_the_near_ones_are(near):
    rows, cohort = units(5), units(2000, seed=1)
    cohort[near] = rows[0]
    cohort[near] += 0.1 * units(len(cohort[near]), seed=2)
    assert close(statistics(rows, cohort, 10), defined(rows, cohort, 10))


def test_a_row_at_right_angles_to_the_cohort_has_no_deviation():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0].astype(np.float32)
    mean, sd = statistics(basis[1:], units(1000, 1) * basis[0])
    assert np.abs(mean).max() < 1e-6
    assert np.isfinite(sd).all() and sd.max() < 1e-6


def test_memory_does_not_grow_with_the_list(monkeypatch):
    monkeypatch.setattr(normalise, "BLOCK", 50)
    rows, cohort = units(3000), units(2000, seed=1)  # 24 MB of cosines
    for top_n in (None, 20):
        tracemalloc.start()
        statistics(rows, cohort, top_n)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4e6


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("top_n", [None, 300])
def test_a_cohort_has_two_rows(count, top_n):
    with pytest.raises(InputError, match=f"at least 2 embeddings .or speakers' means. is needed, there are {count}$"):
        statistics(units(3), units(count), top_n)


@pytest.mark.parametrize("top_n", [-1, 0, 1])
def test_top_n_is_at_least_two(top_n):
    with pytest.raises(InputError, match=f"top_n is {top_n}: a standard deviation needs at least 2"):
        statistics(units(3), units(9), top_n)


def test_cohorts_of_another_model_are_refused():
    with pytest.raises(InputError, match="embeddings have 12 dimensions and those of the cohort 16: .* one model"):
        statistics(units(3), units(9, 16), 2)


# --- normalise --------------------------------------------------------------------------------------------------------


def by_hand(method, score, enroll, test, cohort, top_n):
    """A score, two float64 rows -> the normalised score, in plain Python."""
    parts = []
    for row in {"z": [enroll], "t": [test]}.get(method, [enroll, test]):
        against = sorted(float(row @ c) for c in cohort)[-top_n if method == "as" else None :]
        mean = sum(against) / len(against)
        parts.append((score - mean) / (sum((a - mean) ** 2 for a in against) / len(against)) ** 0.5)
    return sum(parts) / len(parts)


@pytest.mark.parametrize("method", METHODS)
def test_normalise_is_the_definition(method):
    rows, cohort = units(15), units(200, seed=1)
    trials = listed(map(str, range(15)), [(i, j) for i in range(15) for j in range(0, 15, 4)])
    scores = np.einsum("td,td->t", rows[trials.enroll], rows[trials.test])
    mean, sd = statistics(rows, cohort, 20 if method == "as" else None)
    found = normalise.normalise(scores, trials, mean, sd, method)
    wide, far = rows.astype(np.float64), cohort.astype(np.float64)
    pairs = zip(scores.tolist(), trials.enroll, trials.test)
    assert found == pytest.approx([by_hand(method, s, wide[e], wide[t], far, 20) for s, e, t in pairs], abs=1e-4)
    assert found.dtype == np.float32
    assert normalise.normalise(scores.astype(np.float64), trials, mean, sd, method).dtype == np.float64


@given(st.floats(0.01, 100), st.floats(-10, 10), st.sampled_from(METHODS))
@settings(max_examples=40)
def test_scale_and_shift_of_all_scores_vanish(scale, shift, method):
    rng = np.random.default_rng(0)
    trials = listed("abcd", rng.integers(0, 4, (30, 2)))
    scores, mean, sd = rng.normal(size=30), rng.normal(size=4), rng.uniform(0.1, 1, 4)
    moved = normalise.normalise(scale * scores + shift, trials, scale * mean + shift, scale * sd, method)
    assert moved == pytest.approx(normalise.normalise(scores, trials, mean, sd, method), abs=1e-7)


def test_sides():
    rng = np.random.default_rng(0)
    trials, scores = listed("abcd", rng.integers(0, 4, (30, 2))), rng.normal(size=30)
    swapped = trials._replace(enroll=trials.test, test=trials.enroll)
    moments = rng.normal(size=4), rng.uniform(0.1, 1, 4)
    found = {method: normalise.normalise(scores, trials, *moments, method) for method in METHODS}
    assert np.array_equal(found["z"], normalise.normalise(scores, swapped, *moments, "t"))
    assert found["s"] == pytest.approx((found["z"] + found["t"]) / 2)
    assert found["as"] == pytest.approx(normalise.normalise(scores, swapped, *moments, "as"))


@pytest.mark.parametrize("top_n", [None, 3, 50])
@pytest.mark.parametrize("dim", [2, 192, 1024])
def test_a_cohort_of_one_recording_is_refused_by_the_name_of_an_utterance(top_n, dim):
    rows, cohort = units(3, dim), np.repeat(units(1, dim, seed=1), 301, axis=0)
    trials = listed(["a.wav", "b.wav", "c.wav"], [(1, 0), (1, 2), (2, 1)])
    moments = statistics(rows, cohort, top_n)
    expected = r"list.txt: all cohort scores of b.wav are equal .standard deviation .*, 2 such utterances.*another"
    with pytest.raises(InputError, match=expected):
        normalise.normalise(np.zeros(3), trials, *moments, "z")


def test_statistics_that_are_not_used_may_be_flat():
    trials, mean, sd = listed("ab", [(0, 1)]), np.zeros(2), np.array([1, 1e-9])
    assert normalise.normalise(np.array([0.5]), trials, mean, sd, "z").tolist() == [0.5]
    for method in ("t", "s", "as"):
        with pytest.raises(InputError, match="cohort scores of b are equal .standard deviation 1e-09"):
            normalise.normalise(np.array([0.5]), trials, mean, sd, method)


# --- the cohort -------------------------------------------------------------------------------------------------------


def test_utterances_and_speakers_of_the_list_are_left_out():
    trials = listed(["id1/a", "id1/b", "id2/a"], [(0, 1), (0, 2)], [True, False])
    cohort = ["id1/a", "id1/c", "id10/a", "id3/a", "id2", "x/id2/a"]
    assert apart(cohort, trials).tolist() == [False, False, True, True, True, True]
    unlabelled = trials._replace(labels=None)  # the ids do not tell the speakers then
    assert apart(cohort, unlabelled).tolist() == [False, True, True, True, True, True]


def test_speakers_deeper_in_the_ids_are_told():
    trials = listed(["wav/s-1", "wav/s-2", "wav/t-1"], [(0, 1), (0, 2)], [True, False])
    assert apart(["wav/s-3", "wav/u-1", "wav/st-1", "s-3"], trials).tolist() == [False, True, True, True]


def test_a_mapping_tells_speakers_that_ids_do_not():
    trials = listed(["u1", "u2"], [(0, 1)])
    known = {"u1": "ann", "u3": "ann", "u4": "bob", "u5": "cy"}
    assert apart(["u1", "u2", "u3", "u4", "u6"], trials, known).tolist() == [False, False, False, True, True]


def test_utterances_of_models_are_of_the_list():
    trials = listed(["ann", "u1"], [(0, 1)])
    assert apart(["u2", "u3", "u4"], trials, {"u2": "a", "u3": "a", "u4": "b"}, ["u2"]).tolist() == [False, False, True]
    assert apart(["u2", "u3"], trials, enrolled=["u2"]).tolist() == [False, True]


def test_nothing_left_is_an_error():
    trials = listed(["id1/a", "id1/b", "id2/a"], [(0, 1), (0, 2)], [True, False])
    with pytest.raises(InputError) as error:
        apart(["id1/a", "id1/b", "id2/c"], trials)
    assert str(error.value) == (
        "nothing is left of the cohort: of its 3 utterances 2 are in list.txt and 1 more are of its speakers; "
        "take a cohort of other speakers"
    )


def test_speaker_means_are_means_of_length_one():
    rows = units(60)
    ids = [f"s{(7 * i) % 13}/{i}" for i in range(60)]
    names, means = speaker_means(ids, rows)
    assert names == sorted({i.split("/")[0] for i in ids}) and means.dtype == np.float32
    for name, mean in zip(names, means):
        expected = np.mean([row for i, row in zip(ids, rows) if i.startswith(name + "/")], axis=0)
        assert mean == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
    other = np.random.default_rng(0).permutation(60)
    again = speaker_means([ids[i] for i in other], rows[other])
    assert again[0] == names and again[1] == pytest.approx(means, abs=1e-6)


def test_speaker_means_by_a_mapping():
    names, means = speaker_means(["a/1", "a/2", "b"], np.eye(3, dtype=np.float32), {"a/1": "y", "a/2": "x", "b": "y"})
    assert names == ["x", "y"]
    assert means == pytest.approx(np.array([[0, 1, 0], [0.5**0.5, 0, 0.5**0.5]]))


UNKNOWN = {
    "no /": (
        ["a/1", "b1", "b2", "b3", "b4"],
        None,
        "4 of 5 cohort utterances have no known speaker (b1, b2, b3, ...): "
        "begin ids with `speaker/`, or pass a file of `utterance speaker` lines",
    ),
    "absolute": (
        ["/data/a/1.wav"],
        None,
        "1 of 1 cohort utterances have no known speaker (/data/a/1.wav): "
        "begin ids with `speaker/`, or pass a file of `utterance speaker` lines",
    ),
    "not in the file": (
        ["a/1", "a/2"],
        {"a/1": "a"},
        "1 of 2 cohort utterances have no known speaker (a/2): complete the file of `utterance speaker` lines",
    ),
}


@pytest.mark.parametrize("ids, known, message", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_speakers_are_named(ids, known, message):
    with pytest.raises(InputError) as error:
        speaker_means(ids, units(len(ids)), known)
    assert str(error.value) == message


def test_a_speaker_without_direction_is_named():
    rows = units(2)
    with pytest.raises(InputError, match="embeddings of cohort speaker b cancel out"):
        speaker_means(["a/1", "b/1", "b/2"], np.concatenate([rows, -rows[1:]]))


@pytest.mark.parametrize(
    "text",
    [
        "u1 ann\nu2 bob\n",
        "u1\tann\r\nu2  bob \r\n\r\n",
        "\ufeffu1 ann\nu2 bob",
        "u1 ann\nu2 bob\nu1 ann\n",
    ],
)
def test_speaker_files(text, tmp_path):
    (tmp_path / "utt2spk").write_bytes(text.encode())
    assert read_speakers(tmp_path / "utt2spk") == {"u1": "ann", "u2": "bob"}


BAD_FILES = {
    "spk2utt": (b"ann u1\nbob u2 u3\n", ":2: 3 columns where `utterance speaker` are expected"),
    "one column": (b"u1 ann\n\nu2\n", ":3: 1 columns where `utterance speaker` are expected"),
    "contradiction": (b"u1 ann\nu1 bob\n", ":2: u1 is of bob here, of ann above"),
    "empty": (b" \n", ": empty: wanted lines of `utterance speaker`"),
    "latin": ("u1 é\n".encode("latin-1"), ":1: not UTF-8 text: wanted lines of `utterance speaker`"),
}


@pytest.mark.parametrize("data, message", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_speaker_files(data, message, tmp_path):
    (tmp_path / "utt2spk").write_bytes(data)
    with pytest.raises(InputError) as error:
        read_speakers(tmp_path / "utt2spk")
    assert str(error.value) == f"{tmp_path}/utt2spk{message}"


def test_missing_speaker_files(tmp_path):
    for path, why in ((tmp_path / "none", "cannot read .*: No such file"), (tmp_path, "wanted an ordinary file")):
        with pytest.raises(InputError, match=why):
            read_speakers(path)


def test_numpy_is_enough():
    slow = "{'torch', 'pandas', 'scipy', 'faiss', 'sklearn'}"
    code = f"import sys, sv_ssl.verification.normalise; print({slow} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
