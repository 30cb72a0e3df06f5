import json
from pathlib import Path

import numpy as np
import pytest

from sv_ssl import scoring, trials
from sv_ssl.files import InputError
from sv_ssl.metrics import evaluate, interval

CASES = json.loads((Path(__file__).parent / "golden" / "losses.json").read_text())["cases"]
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
        "ids must be equal, the nearest to id1/a/1.wav is voxceleb1/wav/id1/a/1.wav"
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
    assert str(error.value).endswith(f"the nearest to {first} is {first.removesuffix('.wav')}")


# --- embedding files --------------------------------------------------------------------------------------------------


def test_embeddings_read_back_exactly(many, tmp_path):
    ids, embeddings, _ = many
    scoring.write_embeddings(tmp_path / "out" / "emb.npz", ids, embeddings.astype(np.float64))
    again = scoring.read_embeddings(tmp_path / "out" / "emb.npz")
    assert again[0] == ids
    assert again[1].dtype == np.float32 and np.array_equal(again[1], embeddings)
    with np.load(tmp_path / "out" / "emb.npz") as file:  # the form that is promised to others
        assert file["ids"].shape == (60,) and file["embeddings"].shape == (60, 16)


def test_ids_may_be_bytes_and_embeddings_of_any_number(tmp_path):
    np.savez(tmp_path / "a.npz", ids=np.array([b"x", "é".encode()]), embeddings=np.float16([[1, 2], [3, 4]]))
    assert scoring.read_embeddings(tmp_path / "a.npz")[0] == ["x", "é"]
    np.savez(tmp_path / "b.npz", ids=["x", "y"], embeddings=[[1, 2], [3, 4]])
    assert scoring.read_embeddings(tmp_path / "b.npz")[1].tolist() == [[1, 2], [3, 4]]


BAD_ROWS = {
    "zero": (["a", "b", "c"], [[1, 2], [0, 0], [0, 0]], r"the embedding of b is zero.*\(2 such rows\)"),
    "NaN": (["a", "b", "c"], [[1, 2], [1, 1], [np.nan, 0]], "the embedding of c holds NaN or infinity"),
    "infinite": (["a", "b", "c"], [[1, -np.inf], [1, 1], [2, 0]], "the embedding of a holds NaN or infinity"),
    "beyond float32": (["a", "b", "c"], [[1, 1], [1e300, 1], [2, 0]], "the embedding of b holds NaN or infinity"),
    "twice": (["a", "b", "a"], [[1, 2], [1, 1], [2, 0]], "the id a has more than one embedding"),
    "fewer ids": (["a", "b"], [[1, 2], [1, 1], [2, 0]], r"2 ids and embeddings of shape \(3, 2\)"),
    "flat": (["a", "b"], [1, 2], r"2 ids and embeddings of shape \(2,\)"),
    "no rows": ([], np.zeros((0, 4)), r"0 ids and embeddings of shape \(0, 4\)"),
}


@pytest.mark.parametrize("ids, rows, message", BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows_are_named_in_reading_and_in_writing(tmp_path, ids, rows, message):
    np.savez(tmp_path / "emb.npz", ids=np.array(ids, dtype=str), embeddings=rows)
    with pytest.raises(InputError, match=f"emb.npz: {message}"):
        scoring.read_embeddings(tmp_path / "emb.npz")
    with pytest.raises(InputError, match=f"out.npz: {message}"):
        scoring.write_embeddings(tmp_path / "out.npz", ids, np.array(rows))
    assert not (tmp_path / "out.npz").exists()


def test_foreign_and_damaged_files_are_refused(tmp_path):
    good = tmp_path / "good.npz"
    scoring.write_embeddings(good, ["a", "b"], np.eye(2))
    files = {
        "text.npz": b"a 1 2 3\n", "empty.npz": b"", "cut.npz": good.read_bytes()[:200],
        "other.npz": None, "array.npz": None, "objects.npz": None, "text_rows.npz": None, "numbers.npz": None,
    }  # fmt: skip
    np.savez(tmp_path / "other.npz", x=1)
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.eye(2))
    np.savez(tmp_path / "objects.npz", ids=np.array(["a", "b"], dtype=object), embeddings=np.eye(2))
    np.savez(tmp_path / "text_rows.npz", ids=["a", "b"], embeddings=[["1", "2"], ["3", "4"]])
    np.savez(tmp_path / "numbers.npz", ids=[1, 2], embeddings=np.eye(2))
    for name, content in files.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.*wanted an npz with text `ids`"):
            scoring.read_embeddings(tmp_path / name)
    with pytest.raises(InputError, match="cannot read .*none.npz: No such file"):
        scoring.read_embeddings(tmp_path / "none.npz")


def test_no_flipped_byte_gives_a_traceback(tmp_path):
    rng = np.random.default_rng(0)
    scoring.write_embeddings(tmp_path / "good.npz", ["a", "b", "c"], rng.normal(size=(3, 4)))
    good = np.fromfile(tmp_path / "good.npz", np.uint8)
    refused = 0
    for _ in range(200):
        bad = good.copy()
        bad[rng.integers(0, len(bad), 2)] ^= rng.integers(1, 256, 2, dtype=np.uint8)
        bad.tofile(tmp_path / "bad.npz")
        try:
            scoring.read_embeddings(tmp_path / "bad.npz")
        except InputError:
            refused += 1
    assert refused > 100


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
    ends = interval(scores, trial_list.labels, speaker[trial_list.enroll], speaker[trial_list.test])
    assert report["ci"]["eer"] == pytest.approx(ends)
    assert (report["ci"]["resampled"], report["ci"]["clusters"]) == ("speakers", 12)
    json.dumps(report, allow_nan=False)


def test_a_report_without_labels_or_speakers(tmp_path):
    unlabelled = scoring.report(listed(tmp_path, "a b\n"), np.array([0.5]))
    assert "eer" not in unlabelled and unlabelled["n_trials"] == 1
    inverted = scoring.report(listed(tmp_path, "1 a1 a2\n0 b1 b2\n1 a1 a3\n0 b1 b3\n"), np.array([0, 1, 0, 1]), ci=True)
    assert inverted["ci"]["resampled"] == "utterances"
    assert inverted["min_dcf_threshold"]["0.01"] == "inf"
