import json
from pathlib import Path

import numpy as np
import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.verification import scoring, trials
from sv_ssl.verification.bootstrap import intervals
from sv_ssl.verification.metrics import evaluate

CASES = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())["cases"]
CROPS = [case for case in CASES if case["function"] == "crop_score"]


def listed(tmp_path, text):
    (tmp_path / "trials.txt").write_text(text)
    return trials.read_trials(tmp_path / "trials.txt")


@pytest.fixture
def many(tmp_path):
    """5,000 trials over 60 utterances of 12 speakers -> ids, (60, 16) embeddings, Trials."""
    rng = np.random.default_rng(0)
    ids = [f"id{i // 5:02}/{i % 5}.wav" for i in range(60)]
    embeddings = (rng.normal(size=(12, 16)).repeat(5, 0) + rng.normal(size=(60, 16))).astype(np.float32)
    chosen = np.unique(rng.integers(0, 60, (5000, 2)), axis=0)
    text = "".join(f"{int(a // 5 == b // 5)} {ids[a]} {ids[b]}\n" for a, b in chosen)
    return ids, embeddings, listed(tmp_path, text)


def test_cosine_is_the_definition(many, monkeypatch):
    ids, embeddings, trial_list = many
    row = dict(zip(ids, embeddings.astype(np.float64)))
    pairs = [(row[trial_list.ids[e]], row[trial_list.ids[t]]) for e, t in zip(trial_list.enroll, trial_list.test)]
    expected = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs]
    scores = scoring.cosine((ids, embeddings), trial_list)
    assert scores.dtype == np.float32
    assert scores == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr(scoring, "BLOCK", 7)  # the blocks leave no trace
    assert np.array_equal(scores, scoring.cosine((ids, embeddings), trial_list))


def test_cosine_does_not_depend_on_scale_or_order(many):
    ids, embeddings, trial_list = many
    scores = scoring.cosine((ids, embeddings), trial_list)
    for scale in (1e-38, 1e-20, 1e30, 1e37):
        assert scoring.cosine((ids, embeddings * np.float32(scale)), trial_list) == pytest.approx(scores, abs=1e-5)
    order = np.random.default_rng(1).permutation(60)
    assert np.array_equal(scoring.cosine(([ids[i] for i in order], embeddings[order]), trial_list), scores)


def test_missing_utterances_are_fatal_listed_and_the_nearest_is_named(tmp_path):
    trial_list = listed(tmp_path, "1 id1/a/1.wav id1/b/1.wav\n0 id1/a/1.wav id2/a/1.wav\n0 id1/b/1.wav id3/a/1.wav\n")
    have = ["voxceleb1/wav/id1/a/1.wav", "voxceleb1/wav/id1/b/1.wav", "id1/b/1.wav", "id3/a/1.wav"]
    with pytest.raises(InputError) as error:
        scoring.cosine((have, np.eye(4, dtype=np.float32)), trial_list)
    assert str(error.value) == (
        f"{trial_list.name}: 2 of 4 utterances (2 of 3 trials) have no embedding: id1/a/1.wav, id2/a/1.wav; "
        "ids must be equal, the nearest to id1/a/1.wav is voxceleb1/wav/id1/a/1.wav; "
        "--allow-missing leaves such trials out"
    )


def test_many_missing_utterances_are_counted_and_ten_are_named(many):
    ids, _, trial_list = many
    stems = [i.removesuffix(".wav") for i in ids]
    with pytest.raises(InputError) as error:
        scoring.cosine((stems, np.ones((60, 2), np.float32)), trial_list)
    first = trial_list.ids[0]
    count = f"{len(trial_list.labels):,}"
    assert f": 60 of 60 utterances ({count} of {count} trials) have no embedding" in str(error.value)
    assert f"{', '.join(trial_list.ids[:10])}, ...; ids" in str(error.value)
    assert f"the nearest to {first} is {first.removesuffix('.wav')}; --allow-missing leaves" in str(error.value)


# --- crops and reports ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CROPS, ids=lambda case: case["name"])
def test_golden_crop_score(case):
    found = scoring.crop_score(*(np.array(case["inputs"][side]) for side in "et"))
    assert found == pytest.approx(case["expected"], abs=1e-9)


def test_crop_score_is_the_mean_of_all_pairs():
    rng = np.random.default_rng(0)
    enroll, test = rng.normal(size=(10, 8)), rng.normal(size=(7, 8))
    pairs = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in enroll for b in test]
    assert scoring.crop_score(enroll, 100 * test) == pytest.approx(np.mean(pairs), abs=1e-12)
    with pytest.raises(InputError, match="zero or not finite"):
        scoring.crop_score(enroll, np.zeros((1, 8)))


def test_a_report_holds_the_list_and_the_metrics(many):
    ids, embeddings, trial_list = many
    scores = scoring.cosine((ids, embeddings), trial_list)
    report = scoring.report(trial_list, scores, ci=True)
    assert report["list"] == trial_list.name and report["sha1"] == trial_list.sha1
    assert (report["n_trials"], report["n_utterances"]) == (len(scores), 60)
    expected = evaluate(scores, trial_list.labels)
    assert [report[key] for key in ("eer", "min_dcf", "auc")] == [expected[key] for key in ("eer", "min_dcf", "auc")]
    speaker = np.array([i[:4] for i in trial_list.ids])
    ends = intervals(scores, trial_list.labels, speaker[trial_list.enroll], speaker[trial_list.test])["eer"]
    assert report["ci"]["eer"] == pytest.approx(ends)
    assert (report["ci"]["resampled"], report["ci"]["clusters"]) == ("speakers", 12)
    json.dumps(report, allow_nan=False)


def test_a_report_without_labels_or_speakers(tmp_path):
    unlabelled = scoring.report(listed(tmp_path, "a b\n"), np.array([0.5]))
    assert "eer" not in unlabelled and unlabelled["n_trials"] == 1
    inverted = scoring.report(listed(tmp_path, "1 a1 a2\n0 b1 b2\n1 a1 a3\n0 b1 b3\n"), np.array([0, 1, 0, 1]), ci=True)
    assert inverted["ci"]["resampled"] == "utterances"
    assert inverted["min_dcf_threshold"]["0.01"] == "inf"


# --- what flatters ------------------------------------------------------------------------------------------------


def test_two_names_of_one_recording_are_noted(many):
    ids, embeddings, trial_list = many
    scores = scoring.cosine((ids, embeddings), trial_list)
    assert scoring.same_recordings((ids, embeddings), trial_list, scores) == []  # pairs of an id with itself aside
    near = embeddings.copy()
    near[3] = embeddings[2] + np.float32(1e-6)  # almost the same is not the same
    assert scoring.same_recordings((ids, near), trial_list, scoring.cosine((ids, near), trial_list)) == []
    copied = embeddings.copy()
    copied[3] = copied[17] = embeddings[2]
    pairs = [(trial_list.ids[e], trial_list.ids[t]) for e, t in zip(trial_list.enroll, trial_list.test)]
    same = [pair for pair in pairs if pair[0] != pair[1] and set(pair) <= {ids[2], ids[3], ids[17]}]
    (note,) = scoring.same_recordings((ids, copied), trial_list, scoring.cosine((ids, copied), trial_list))
    assert note.startswith(f"{len(same)} trials compare two ids of one embedding, so of one recording")
    assert note.endswith(f"the first: {same[0][0]} {same[0][1]}")


def test_what_the_numbers_make_suspicious_is_in_the_report(tmp_path):
    swapped = listed(tmp_path, "1 a1 a2\n0 b1 b2\n1 a1 a3\n0 b1 b3\n")
    report = scoring.report(swapped, np.array([0, 1, 0, 1]), ci=True)
    assert [note.split(":")[0] for note in report["notes"]] == [
        "the ids do not tell the speakers, so the intervals are too narrow",
        "targets score lower than non-targets",
        "50.0% of the scores are repeated ones",
    ]
    assert scoring.report(swapped._replace(labels=None), np.array([0, 1, 0, 1]))["notes"] == []
