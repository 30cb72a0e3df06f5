import math

import numpy as np
import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.verification import score_columns
from sv_ssl.verification.calibrate import fit
from sv_ssl.verification.trials import Trials, read_trials


def trials(text, tmp_path, name="scores.txt"):
    (tmp_path / name).write_text(text)
    return read_trials(tmp_path / name)


def test_join_matches_pairs_in_any_order(tmp_path):
    rng = np.random.default_rng(0)
    pairs = [(f"u{i}", f"u{j}") for i in range(12) for j in range(12) if rng.random() < 0.5]
    systems, wanted = [], []
    for k in range(3):
        scores = rng.normal(size=len(pairs))
        order = np.arange(len(pairs)) if k == 0 else rng.permutation(len(pairs))
        text = "".join(f"{pairs[i][0]} {pairs[i][1]} {float(scores[i])!r}\n" for i in order)
        systems.append(trials(text, tmp_path, f"{k}.txt"))
        wanted.append(scores)
    assert np.array_equal(score_columns.join(systems), np.array(wanted).T)
    place = {pair: i for i, pair in enumerate(pairs)}
    third = [(systems[2].ids[e], systems[2].ids[t]) for e, t in zip(systems[2].enroll, systems[2].test)]
    by_third = np.array(wanted).T[[place[pair] for pair in third]]
    assert np.array_equal(score_columns.join(systems[:2], reference=systems[2]), by_third[:, :2])


def test_a_trial_listed_twice_with_one_score_is_one(tmp_path):
    first = trials("a b 0.5\na c 0.6\na b 0.5\n", tmp_path, "1.txt")
    second = trials("a c 6.5\na b 5.5\na c 6.5\n", tmp_path, "2.txt")
    assert score_columns.join([first, second]).tolist() == [[0.5, 5.5], [0.6, 6.5], [0.5, 5.5]]


@pytest.mark.parametrize(
    "second, message",
    [
        ("a b 0.5 target\n", r"2 of 3 trials of \S*1.txt are missing from \S*2.txt, the first: a c$"),
        (
            "a b 0.5\na c 0.5\nc b 0.5\nd a 0.5\ne a 0.5\n",
            r"2 of 5 trials of \S*2.txt are missing from \S*1.txt, .*: d a$",
        ),
        ("b a 0.5\na c 0.5\nc b 0.5\n", r"1 of 3 trials of \S*1.txt are missing from \S*2.txt, the first: a b$"),
        (
            "a b 0.5 target\na c 0.5 target\nc b 0.5 nontarget\n",
            r"1 of 3 trials of \S*1.txt have the other label .*: a c$",
        ),
        ("a b target\na c nontarget\nc b nontarget\n", r"2.txt has no scores"),
    ],
)
def test_files_that_do_not_match(tmp_path, second, message):
    first = trials("a b 0.5 target\na c 0.6 nontarget\nc b 0.7 nontarget\n", tmp_path, "1.txt")
    with pytest.raises(InputError, match=message):
        score_columns.join([first, trials(second, tmp_path, "2.txt")])


def test_a_trial_with_two_scores_is_refused(tmp_path):
    first = trials("a b 0.5\na c 0.6\na b 0.5\n", tmp_path)
    second = first._replace(name="2.txt", scores=np.array([0.5, 0.6, 0.7]))
    with pytest.raises(InputError, match="1 of 3 trials of 2.txt are listed again with another score, the first: a b"):
        score_columns.join([first, second])


# --- side information -----------------------------------------------------------------------------------------------


def test_quality_columns_do_not_depend_on_the_side():
    listed = Trials("list", "", "", list("abc"), np.array([0, 1, 2, 2]), np.array([1, 0, 0, 2]), None, None)
    columns, names = score_columns.quality_columns(listed, {"duration": [3, 1, 2], "magnitude": [10, 20, 30]})
    assert names == ["min duration", "max duration", "min magnitude", "max magnitude"]
    assert columns.tolist() == [[1, 3, 10, 20], [1, 3, 10, 20], [2, 3, 10, 30], [2, 2, 30, 30]]
    assert score_columns.quality_columns(listed, {})[0].shape == (4, 0)


@pytest.mark.parametrize(
    "values, message",
    [
        ([1, 2], r"duration: \(2,\) values for 3 utterances of list"),
        ([1, np.nan, 2], "the duration of b is nan, wanted a finite number"),
    ],
)
def test_bad_qualities(values, message):
    listed = Trials("list", "", "", list("abc"), np.array([0]), np.array([1]), None, None)
    with pytest.raises(InputError, match=message):
        score_columns.quality_columns(listed, {"duration": values})


def test_duration_helps_where_short_utterances_score_lower():
    rng = np.random.default_rng(0)
    labels, length = np.arange(20_000) % 2 == 0, rng.uniform(0, 3, 20_000)
    scores = rng.normal(size=20_000) + 2 * labels + length
    assert fit(np.column_stack([scores, length]), labels, names=["score", "length"]).cllr_after < (
        fit(scores, labels).cllr_after - 0.05
    )


def test_long_recordings_count_as_twenty_seconds():
    assert score_columns.log_durations([1, 20, 300]) == pytest.approx([0, math.log(20), math.log(20)])


def test_a_recording_without_length_is_named():
    listed = Trials("list", "", "", list("abc"), np.array([0]), np.array([1]), None, None)
    with pytest.raises(InputError, match="the duration of b is -inf, wanted a finite number"):
        score_columns.quality_columns(listed, {"duration": score_columns.log_durations([1, 0, 2])})
