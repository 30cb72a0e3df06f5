import csv
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.verification import conditions, metrics
from sv_ssl.verification.bootstrap import intervals
from sv_ssl.verification.conditions import evaluate_each, split, write_csv
from sv_ssl.verification.scoring import report
from sv_ssl.verification.trials import Trials

GENDER = {"a": "f", "b": "m", "c": "f", "d": "m"}


def made(pairs, labels):
    ids = list(dict.fromkeys(i for pair in pairs for i in pair))
    enroll, test = (np.array([ids.index(pair[side]) for pair in pairs], np.int32) for side in (0, 1))
    return Trials("list.txt", "", "", ids, enroll, test, None if labels is None else np.array(labels, bool), None)


def of_speakers(ids):
    """Every pair of different ids; a target where they begin alike."""
    pairs = [(one, other) for one, other in product(ids, ids) if one < other]
    return made(pairs, [one[0] == other[0] for one, other in pairs])


@pytest.fixture
def small():
    """276 trials of 4 speakers, 2 sessions each, 3 utterances a session, ids speaker/session/utterance."""
    return of_speakers([f"{s}/{x}/{u}.wav" for s in "abcd" for x in "xy" for u in "123"])


@pytest.fixture
def scores(small):
    return np.random.default_rng(0).normal(size=len(small.enroll)) + 1.5 * small.labels


def chosen(found):
    return {(by, value): np.flatnonzero(mask).tolist() for by, value, mask in found}


def pairs_of(trials):
    return [(trials.ids[e], trials.ids[t]) for e, t in zip(trials.enroll, trials.test)]


def trials_where(trials, test):
    return [i for i, (one, other) in enumerate(pairs_of(trials)) if test(one, other)]


# --- conditions


def test_a_column_gives_same_and_mixed_trials(small):
    found = split(small, ["gender"], {"gender": [GENDER[i[0]] for i in small.ids]})
    expected = {
        ("gender", value): trials_where(small, lambda a, b: {GENDER[a[0]], GENDER[b[0]]} == {value}) for value in "fm"
    }
    expected["gender", "f / m"] = trials_where(small, lambda a, b: GENDER[a[0]] != GENDER[b[0]])
    assert chosen(found) == expected
    assert [value for _, value, _ in found] == ["f", "m", "f / m"]


def test_each_trial_is_in_one_condition_of_a_column(small):
    rng = np.random.default_rng(0)
    columns = {
        "domain": rng.choice(["tv", "phone", "", "radio"], len(small.ids)).tolist(),
        "duration": rng.uniform(0, 12, len(small.ids)).astype(str).tolist(),
    }
    for by in columns:
        assert (sum(mask.astype(int) for _, _, mask in split(small, [by], columns)) == 1).all()


def test_an_empty_value_is_a_value(small):
    values = ["" if i[0] == "a" else "f" for i in small.ids]
    expected = {
        ("gender", "(none)"): trials_where(small, lambda a, b: a[0] == b[0] == "a"),
        ("gender", "f"): trials_where(small, lambda a, b: "a" not in (a[0], b[0])),
        ("gender", "(none) / f"): trials_where(small, lambda a, b: (a[0] == "a") != (b[0] == "a")),
    }
    assert chosen(split(small, ["gender"], {"gender": values})) == expected


def test_many_mixed_kinds_are_one(small):
    values = [str(i % 20) for i in range(len(small.ids))]  # 20 kinds, 190 mixed ones
    of = dict(zip(small.ids, values))
    found = chosen(split(small, ["language"], {"language": values}))
    assert found["language", "different"] == trials_where(small, lambda a, b: of[a] != of[b])
    assert set(found) == {("language", "different"), *(("language", str(i)) for i in range(4))}


def test_too_many_values_are_refused(small):
    ids = [f"{i}" for i in range(101)]
    with pytest.raises(InputError, match="101 values, wanted at most 100.*id:2,5,10"):
        split(made(list(zip(ids, ids[1:])), None), ["id"], {"id": ids})


SECONDS = [0.5, 1.999, 2, 3.9, 4, 7.99, 8, 60]


@pytest.mark.parametrize(
    "by, expected",
    [
        ("duration", lambda s: "<2 s" if s < 2 else "2-4 s" if s < 4 else "4-8 s" if s < 8 else ">=8 s"),
        ("duration:3", lambda s: "<3 s" if s < 3 else ">=3 s"),
        ("duration:2.5,5", lambda s: "<2.5 s" if s < 2.5 else "2.5-5 s" if s < 5 else ">=5 s"),
        ("duration:0-2-4-8", lambda s: "0-2 s" if s < 2 else "2-4 s" if s < 4 else "4-8 s" if s < 8 else ">=8 s"),
        ("duration:2.-100", lambda s: "<2 s" if s < 2 else "2-100 s"),
    ],
)
def test_bins_of_the_shorter_side(by, expected):
    ids = [f"u{i}" for i in range(len(SECONDS))]
    trials, of = of_speakers(ids), dict(zip(ids, SECONDS))
    found = split(trials, [by], {"duration": [str(s) for s in SECONDS]})
    names = [expected(min(of[one], of[other])) for one, other in pairs_of(trials)]
    assert chosen(found) == {("duration", n): [i for i, name in enumerate(names) if name == n] for n in set(names)}
    assert [value for _, value, _ in found] == sorted(set(names), key=names.index)  # from short to long


def test_bins_of_any_column_of_numbers():
    trials = made([("a", "b"), ("a", "c"), ("b", "c")], None)
    found = split(trials, ["snr:-5,0"], {"snr": ["-7", "-1", "1e1"]})
    assert chosen(found) == {("snr", "<-5"): [0, 1], ("snr", "-5-0"): [2]}


@pytest.mark.parametrize("edges", ["", "x", "5,2", "2,2", "1,nan", "inf", "1,,2"])
def test_edges_that_are_none(small, edges):
    by = f"duration:{edges}"
    with pytest.raises(InputError, match=f"cannot break down by {by}: wanted a column and rising edges"):
        split(small, [by], {"duration": ["1"] * len(small.ids)})


@pytest.mark.parametrize("value", ["", "nan", "inf", "2s"])
def test_durations_that_are_no_numbers(small, value):
    values = ["1", value, *["1"] * (len(small.ids) - 2)]
    with pytest.raises(InputError, match=f"'{value}' of the utterance {small.ids[1]} is not a number .1 such values"):
        split(small, ["duration"], {"duration": values})


def test_an_unknown_column_and_what_there_is(small):
    with pytest.raises(InputError, match='by "colour": no such column; the columns are own, gender; and session'):
        split(small, ["colour"], {"gender": ["f"] * len(small.ids)}, {"own": ["x"] * len(small.enroll)})
    with pytest.raises(InputError, match="the columns are none: a manifest would have them"):
        split(small, ["gender"], {})


def test_names_with_colons_and_numbered_sessions(small):
    numbers = [i[4] for i in small.ids]
    whole = chosen(split(small, ["a:b"], {"a:b": numbers}))
    assert {value for _, value in whole} == {"1", "2", "3", "1 / 2", "1 / 3", "2 / 3"}
    assert {value for _, value in chosen(split(small, ["session:2"], {"session": numbers}))} == {"<2", ">=2"}


def test_a_column_of_another_length(small):
    with pytest.raises(InputError, match=f'"gender" has 2 values, wanted {len(small.ids)}'):
        split(small, ["gender"], {"gender": ["f", "m"]})


def test_columns_of_the_trial_list_go_first(small):
    values = [str(i % 3) for i in range(len(small.enroll))]
    expected = {("part", str(k)): list(range(k, len(values), 3)) for k in range(3)}
    manifest = {"part": ["other"] * len(small.ids)}
    assert chosen(split(small, ["part"], manifest, {"part": values})) == expected
    assert chosen(split(small._replace(columns={"part": values}), ["part"], manifest)) == expected


def test_durations_of_trials(small):
    values = [str(i) for i in range(len(small.enroll))]
    found = chosen(split(small, ["duration"], {}, {"duration": values}))
    assert found["duration", "4-8 s"] == [4, 5, 6, 7]
    with pytest.raises(InputError, match="'x' of the trial 1 is not a number"):
        split(small, ["duration"], {}, {"duration": ["x", *values[1:]]})


def test_several_columns_in_the_order_asked_for(small):
    columns = {"gender": ["f"] * len(small.ids), "duration": ["3"] * len(small.ids)}
    found = split(small, ["session", "duration", "gender"], columns)
    assert [(by, value) for by, value, _ in found] == [
        ("session", "same"),
        ("session", "different"),
        ("duration", "2-4 s"),
        ("gender", "f"),
    ]


# --- sessions


def test_targets_by_session_with_all_non_targets(small):
    nontargets = trials_where(small, lambda a, b: a[0] != b[0])
    same = trials_where(small, lambda a, b: a[:3] == b[:3])
    different = trials_where(small, lambda a, b: a[0] == b[0] and a[2] != b[2])
    assert chosen(split(small, ["session"], {})) == {
        ("session", "same"): sorted(same + nontargets),
        ("session", "different"): sorted(different + nontargets),
    }


def test_sessions_of_a_manifest(small):
    from_ids = chosen(split(small, ["session"], {}))
    renamed = small._replace(ids=[i.replace("/", "-") for i in small.ids])
    column = [i[2] for i in small.ids]  # "x" of one speaker is not "x" of another, but targets have one speaker
    assert chosen(split(renamed, ["session"], {"session": column})) == from_ids


def test_unknown_sessions_are_apart(small):
    column = ["" if i[:3] == "a/x" else i[2] for i in small.ids]
    found = chosen(split(small, ["session"], {"session": column}))
    nontargets = trials_where(small, lambda a, b: a[0] != b[0])
    unknown = trials_where(small, lambda a, b: a[0] == b[0] and "a/x" in (a[:3], b[:3]))
    assert found["session", "(none)"] == sorted(unknown + nontargets)
    assert found["session", "same"] == sorted(
        trials_where(small, lambda a, b: a[:3] == b[:3] and a[:3] != "a/x") + nontargets
    )


def test_ids_below_further_folders(small):
    below = small._replace(ids=["voxceleb1/wav/" + i for i in small.ids])
    assert chosen(split(below, ["session"], {})) == chosen(split(small, ["session"], {}))


@pytest.mark.parametrize("form", ["wav/{}/{}-{}", "{}-{}-{}", "{}/{}-{}"])
def test_ids_that_do_not_tell_sessions(small, form):
    """wav/speaker/utterance has three parts too, but then all trials would be of one speaker."""
    other = small._replace(ids=[form.format(*i.split("/")) for i in small.ids])
    with pytest.raises(InputError, match='are not speaker/session/utterance .* a column "session" would tell'):
        split(other, ["session"], {})


def test_sessions_need_labels(small):
    with pytest.raises(InputError, match="has no labels"):
        split(small._replace(labels=None), ["session"], {})


# --- metrics


def test_metrics_of_each_condition_are_those_of_its_trials_alone(small, scores):
    rng = np.random.default_rng(1)
    columns = {"domain": rng.choice(["tv", "phone"], len(small.ids)).tolist()}
    points = [(0.01, 1, 1), (0.1, 10, 1)]
    of = dict(zip(small.ids, columns["domain"]))
    for row in evaluate_each(small, scores, split(small, ["domain"], columns), points):
        mine = trials_where(small, lambda a, b: " / ".join(sorted({of[a], of[b]})) == row["value"])
        expected = metrics.evaluate(scores[mine], small.labels[mine], points)
        assert row["by"] == "domain"
        for name in ("n_target", "n_nontarget", "eer", "min_dcf"):
            assert row[name] == expected[name]
        assert "ci" not in row


def test_the_order_of_the_trials_changes_nothing(small, scores):
    columns = {"gender": [GENDER[i[0]] for i in small.ids]}
    order = np.random.default_rng(2).permutation(len(scores))
    shuffled = small._replace(**{name: getattr(small, name)[order] for name in ("enroll", "test", "labels")})
    rows, others = (
        evaluate_each(t, s, split(t, ["gender", "session"], columns), ci=True)
        for t, s in ((small, scores), (shuffled, scores[order]))
    )
    assert rows == others


def test_one_kind_of_trials_only_is_noted(small, scores):
    columns = {"speaker": [i[0] for i in small.ids]}
    rows = evaluate_each(small, scores, split(small, ["speaker"], columns), ci=True)
    assert [(row["value"], row["note"]) for row in rows if row["eer"] is None][:5] == [
        ("a", "no non-target trials"),
        ("b", "no non-target trials"),
        ("c", "no non-target trials"),
        ("d", "no non-target trials"),
        ("a / b", "no target trials"),
    ]
    assert rows[0]["min_dcf"] == {"0.01": None, "0.05": None}
    assert (rows[0]["n_target"], rows[0]["n_nontarget"], "ci" in rows[0]) == (15, 0, False)


@pytest.mark.parametrize("errors, few", [(29, True), (30, False)])
def test_few_errors_are_noted(errors, few):
    scores = np.concatenate([np.zeros(errors), np.ones(300 - errors), np.ones(2 * errors), np.zeros(600 - 2 * errors)])
    labels = np.arange(900) < 300
    trials = made([(f"a{i}", f"b{i}") for i in range(900)], labels)
    (row,) = evaluate_each(trials, scores + np.linspace(0, 1e-6, 900), [("all", "", np.ones(900, bool))])
    assert row["eer"] == pytest.approx(errors / 300)
    note = f"few errors: {errors} misses and {2 * errors} false alarms at the EER, wanted 30 of each"
    assert row["note"] == note * few


def test_intervals_draw_the_speakers_of_the_condition(small, scores):
    columns = {"gender": [GENDER[i[0]] for i in small.ids]}
    (row,) = evaluate_each(small, scores, split(small, ["gender"], columns)[:1], [(0.05, 1, 1)], ci=True)
    mine = trials_where(small, lambda a, b: GENDER[a[0]] == GENDER[b[0]] == "f")
    sides = [[pairs_of(small)[i][side][0] for i in mine] for side in (0, 1)]
    assert row["ci"]["eer"] == intervals(scores[mine], small.labels[mine], *sides)["eer"]
    assert row["ci"]["min_dcf"] == intervals(scores[mine], small.labels[mine], *sides, [(0.05, 1, 1)])["min_dcf"]
    assert (row["ci"]["resampled"], row["ci"]["clusters"]) == ("speakers", 2)


def test_intervals_draw_utterances_where_speakers_are_unknown(small, scores):
    unknown = small._replace(ids=[f"u{i:03}" for i in range(len(small.ids))])
    (row,) = evaluate_each(unknown, scores, [("all", "", np.ones(len(scores), bool))], ci=True)
    assert (row["ci"]["resampled"], row["ci"]["clusters"]) == ("utterances", 24)


def test_scores_that_cannot_be(small, scores):
    found = split(small, ["session"], {})
    scores[7] = np.nan
    with pytest.raises(InputError, match="the score of trial 8 is NaN"):
        evaluate_each(small, scores, found)
    with pytest.raises(InputError, match="has no labels"):
        evaluate_each(small._replace(labels=None), scores, found)


def test_csv_reads_back_to_the_last_digit(small, scores, tmp_path):
    columns = {"gender": [GENDER[i[0]] for i in small.ids]}
    rows = evaluate_each(small, scores, split(small, ["gender", "session"], columns), [(0.01, 10, 1)], ci=True)
    write_csv(tmp_path / "rows.csv", rows)
    with open(tmp_path / "rows.csv", newline="", encoding="utf-8") as written:
        read = list(csv.DictReader(written))
    name = "min_dcf_0.01,10,1"
    assert list(read[0]) == [
        "by",
        "value",
        "n_target",
        "n_nontarget",
        "eer",
        name,
        "eer_low",
        "eer_high",
        f"{name}_low",
        f"{name}_high",
        "note",
    ]
    assert len(read) == len(rows) == 5
    for line, row in zip(read, rows):
        assert [line["by"], line["value"], line["note"]] == [row["by"], row["value"], row["note"]]
        assert [int(line["n_target"]), int(line["n_nontarget"])] == [row["n_target"], row["n_nontarget"]]
        if row["eer"] is None:
            assert {line["eer"], line[name], line["eer_low"], line[f"{name}_high"]} == {""}
        else:
            assert [float(line["eer"]), float(line[name])] == [row["eer"], row["min_dcf"]["0.01,10,1"]]
            assert [float(line["eer_low"]), float(line["eer_high"])] == row["ci"]["eer"]
            assert [float(line[f"{name}_low"]), float(line[f"{name}_high"])] == row["ci"]["min_dcf"]["0.01,10,1"]


def test_csv_of_a_whole_list_beside_its_conditions(small, scores, tmp_path):
    whole = {"by": "all", "value": "", **report(small, scores)}
    rows = [whole, *evaluate_each(small, scores, split(small, ["session"], {}))]
    write_csv(tmp_path / "rows.csv", rows)
    header, *lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert header == "by,value,n_target,n_nontarget,eer,min_dcf_0.01,min_dcf_0.05,note"
    assert lines[0] == f"all,,60,216,{rows[0]['eer']!r},{rows[0]['min_dcf']['0.01']!r},{rows[0]['min_dcf']['0.05']!r},"
    assert [line.split(",")[:3] for line in lines[1:]] == [["session", "same", "24"], ["session", "different", "36"]]


def test_a_value_is_no_formula_in_the_csv(small, scores, tmp_path):
    whole = report(small, scores)
    write_csv(tmp_path / "rows.csv", [{"by": "accent", "value": value, **whole} for value in ("=1+1", "-0.5", "-")])
    _, *lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines] == ["'=1+1", "-0.5", "-"]


def test_numpy_alone_is_imported():
    code = f"import sys, {conditions.__name__}; print(*{{'pandas', 'scipy', 'torch'}}.intersection(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
