import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sv_ssl.core.errors import InputError
from sv_ssl.verification import enroll
from sv_ssl.verification.enroll import combine, read_models
from sv_ssl.verification.scoring import cosine, leave_out
from sv_ssl.verification.trials import Trials


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        path = tmp_path / "models.tsv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_models(path)

    return read_text


# --- files


MODELS = {"m1": ["a/1.wav", "a/2.wav"], "m2": ["b/1.wav"]}
FORMS = {
    "NIST": "modelid\tsegmentid\tside\nm1\ta/1.wav\ta\nm1\ta/2.wav\tb\nm2\tb/1.wav\ta\n",
    "NIST with blanks": "modelid segmentid side\nm1 a/1.wav a\nm1 a/2.wav b\nm2 b/1.wav a\n",
    "names in another order": "side,utterance,Model\na,a/1.wav,m1\na,a/2.wav,m1\nb,b/1.wav,m2\n",
    "spk2utt": "m1 a/1.wav a/2.wav\nm2 b/1.wav\n",
    "spk2utt with a tab": "m1\ta/1.wav a/2.wav\nm2\tb/1.wav\n",
    "two columns": "m1 a/1.wav\nm1 a/2.wav\nm2 b/1.wav\n",
    "models between others": "m1 a/1.wav\nm2 b/1.wav\nm1 a/2.wav\n",
    "commas": "m1,a/1.wav\nm1,a/2.wav\nm2, b/1.wav\n",
    "a line a model with commas": "m1,a/1.wav,a/2.wav\nm2,b/1.wav\n",
    "Windows, BOM, blanks, comments": "\ufeff# mine\r\n\r\nm1  a/1.wav\t a/2.wav \r\nm2 b/1.wav",
    "old Macintosh": "m1 a/1.wav a/2.wav\rm2 b/1.wav\r",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_forms(read, text):
    assert read(text) == MODELS


def test_ids_are_kept_letter_for_letter(read):
    assert read("m,1 a,1.wav é.wav\n0.5 1\n") == {"m,1": ["a,1.wav", "é.wav"], "0.5": ["1"]}
    assert read("modelid\tsegmentid\nmy model\tmy voice.wav\n") == {"my model": ["my voice.wav"]}


def test_an_utterance_may_be_in_several_models(read):
    assert read("m1 a b\nm2 b\n") == {"m1": ["a", "b"], "m2": ["b"]}


FAULTS = {
    "m1 a\nm2\n": "2: a model without utterances: 'm2'",
    "m1,a\nm1,b\nm2,\n": "3: a name is empty: 'm2,'",
    "m1,a\nm1,b\nm2 c\n": "3: a model without utterances: 'm2 c'",
    "# x\n\nm1 a b a\n": "3: 'a' is in the model already: 'm1 a b a'",
    "m1 a\nm2 a\nm1 a\n": "3: 'a' is in the model already: 'm1 a'",
    "m1 a b\nm2 c\nm1 d\n": "3: the model is on line 1 already: 'm1 d'",
    "m1 a\nm2 c\nm1 d e\n": "3: the model is on line 1 already: 'm1 d e'",
    "modelid\tsegmentid\tside\nm1\ta\ta\nm1\tb\n": "3: 2 columns where 3 are expected: 'm1\\tb'",
    "modelid\tsegmentid\tside\nm1\t\ta\n": "2: a name is empty: 'm1\\t\\ta'",
    b"m1 a\nm2 \x00\n": " a binary file: wanted lines `model utterance`",
    b"m1 a\nm2 \xff\n": "2: not UTF-8 text: wanted lines `model utterance`",
}


@pytest.mark.parametrize("text, message", FAULTS.items(), ids=range(len(FAULTS)))
def test_a_bad_line_is_named_by_number_and_text(read, tmp_path, text, message):
    with pytest.raises(InputError) as error:
        read(text)
    assert str(error.value).startswith(f"{tmp_path / 'models.tsv'}:{message}")
    assert "\n" not in str(error.value)


def test_many_bad_lines_are_counted_and_ten_shown(read, tmp_path):
    with pytest.raises(InputError) as error:
        read("m a\n" * 13)
    head, *shown = str(error.value).split("\n")
    assert head == f"{tmp_path / 'models.tsv'}: 12 bad lines of 13, nothing was scored"
    assert shown == [f"  line {i}: 'a' is in the model already: 'm a'" for i in range(2, 12)]


def test_a_trial_list_is_no_file_of_models(read):
    with pytest.raises(InputError, match="9 bad lines of 10"):
        read("".join(f"1 a{i} b{i}\n" for i in range(10)))


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing\n", "modelid\tsegmentid\tside\n"])
def test_files_without_models(read, text):
    with pytest.raises(InputError, match="no models"):
        read(text)


def test_a_file_that_is_not_there(tmp_path):
    for path, why in ((tmp_path / "none", "cannot read"), (tmp_path, "wanted an ordinary file, this is a folder")):
        with pytest.raises(InputError, match=why):
            read_models(path)


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.text('ab, \t\n\r"#\0', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    path.write_bytes(data)
    try:
        models = read_models(path)
    except InputError:
        return
    assert all(model and utterances and all(utterances) for model, utterances in models.items())


# --- embeddings


def made(pairs):
    ids = list(dict.fromkeys(i for pair in pairs for i in pair))
    codes = (np.array([ids.index(pair[side]) for pair in pairs], np.int32) for side in (0, 1))
    return Trials("list.txt", "", "", ids, *codes, None, None)


@pytest.fixture
def many():
    """40 utterances u0..., 10 models of 1 to 6 of them, some called as utterances are; 400 trials."""
    rng = np.random.default_rng(0)
    ids = [f"u{i}" for i in range(40)]
    rows = (rng.normal(size=(40, 8)) * 10.0 ** rng.integers(-3, 4, (40, 1))).astype(np.float32)
    names = ["m0", "m1", "m2", "u0", "u1", "u2", "u3 (model)", "u3", "m8", "m9"]
    models = {name: rng.choice(ids, rng.integers(1, 7), replace=False).tolist() for name in names}
    return (ids, rows), made([(m, u) for u in ids for m in names]), models


def scored(embeddings, trials, models, how):
    rows, listed, factor = combine(embeddings, trials, models, how)
    return cosine(rows, listed) * factor[listed.enroll]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def expected(embeddings, trials, models, how):
    """A trial at a time, in float64, from the definition."""
    of = {i: row.astype(np.float64) for i, row in zip(*embeddings)}
    scores = []
    for e, t in zip(trials.enroll, trials.test):
        cosines = unit(np.stack([of[u] for u in models[trials.ids[e]]]))
        test = unit(of[trials.ids[t]])
        scores.append(unit(cosines.mean(0)) @ test if how == "embeddings" else np.mean(cosines @ test))
    return scores


@pytest.mark.parametrize("how", ["embeddings", "scores"])
def test_scores_are_the_definition(many, how):
    scores = scored(*many, how)
    assert scores.dtype == np.float32
    assert scores == pytest.approx(expected(*many, how), abs=1e-6)


def test_embeddings_are_the_default(many):
    assert np.array_equal(combine(*many)[2], combine(*many, "embeddings")[2])


@pytest.mark.parametrize("how", ["embeddings", "scores"])
def test_a_model_of_one_utterance_is_that_utterance(many, how):
    (ids, rows), _, _ = many
    trials = made([(f"m{i}", j) for i in ids for j in ids])
    alone = cosine((ids, rows), made([(i, j) for i in ids for j in ids]))
    assert scored((ids, rows), trials, {f"m{i}": [i] for i in ids}, how) == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("how", ["embeddings", "scores"])
def test_order_and_scale_of_the_utterances_change_nothing(many, how):
    (ids, rows), trials, models = many
    scale = (10.0 ** np.random.default_rng(1).integers(-20, 20, (len(ids), 1))).astype(np.float32)
    turned = {model: utterances[::-1] for model, utterances in reversed(models.items())}
    scores = scored((ids, rows * scale), trials, turned, how)
    assert scores == pytest.approx(scored(*many, how), abs=1e-6)


def test_a_model_called_as_an_utterance_is_another_thing():
    embeddings = ["a", "b", "c"], np.eye(3, dtype=np.float32)
    trials = made([("a", "a"), ("a", "b"), ("a (model)", "b"), ("b", "a")])
    models = {"a": ["b"], "a (model)": ["c"], "b": ["a"]}
    rows, listed, factor = combine(embeddings, trials, models)
    assert (cosine(rows, listed) * factor[listed.enroll]).tolist() == [0, 1, 0, 1]
    assert len(set(listed.ids)) == len(listed.ids) == 5


def test_trials_come_back_as_they_were_but_for_the_names(many):
    _, trials, _ = many
    rows, listed, factor = combine(*many)
    assert len(rows[0]) == len(rows[1]) == len(listed.ids) == len(factor)
    assert [listed.ids[t] for t in listed.test] == [trials.ids[t] for t in trials.test]
    assert all(listed.ids[new].startswith(trials.ids[old]) for new, old in zip(listed.enroll, trials.enroll))
    assert (listed.enroll.dtype, listed.test.dtype, listed.name) == (np.int32, np.int32, trials.name)


def test_only_the_models_of_the_list_need_embeddings():
    embeddings = ["a", "b"], np.eye(2, dtype=np.float32)
    assert scored(embeddings, made([("m", "b")]), {"m": ["b"], "other": ["nowhere"]}, "scores").tolist() == [1]


@pytest.mark.parametrize("models", [{"m1": ["a"]}, {"m1": ["a"], "m2": []}])
def test_models_of_the_list_that_the_file_has_not(models):
    with pytest.raises(InputError, match="list.txt: 1 of 2 models have no enrolment utterances: m2; .* such as m1"):
        combine((["a"], np.ones((1, 2), np.float32)), made([("m1", "a"), ("m2", "a")]), models)


def test_enrolment_utterances_without_embeddings():
    models = {"m1": ["a", "x"], "m2": ["x", "y"], "m3": ["a"]}
    trials = made([(m, "a") for m in models])
    with pytest.raises(InputError, match="2 enrolment utterances, .*: x, y; .* such as a; --allow-missing"):
        combine((["a"], np.ones((1, 2), np.float32)), trials, models)


def test_test_utterances_without_embeddings_are_named_when_scored():
    with pytest.raises(InputError, match="1 of 3 utterances .1 of 2 trials. have no embedding: x;"):
        scored((["a"], np.ones((1, 2), np.float32)), made([("m", "x"), ("m", "a")]), {"m": ["a"]}, "scores")


def test_models_that_lack_utterances_can_be_left_out():
    embeddings = ["a", "b"], np.array([[1, 0], [3, 4]], np.float32)
    models = {"m1": ["b", "x"], "a": ["a", "b"], "m3": ["y"]}
    trials = made([("m1", "a"), ("a", "a"), ("a", "b"), ("m3", "b")])
    rows, listed, factor = combine(embeddings, trials, models, "scores", allow_missing=True)
    kept = leave_out(listed, rows[0])
    assert [kept.ids[e] for e in kept.enroll] == ["a (model)"] * 2
    factors = dict(zip(listed.ids, factor))
    scores = cosine(rows, kept) * [factors[kept.ids[e]] for e in kept.enroll]
    assert scores == pytest.approx(expected(embeddings, made([("a", "a"), ("a", "b")]), models, "scores"))
    with pytest.raises(InputError, match="2 enrolment utterances, of 2 models, .*: x, y; .* such as a$"):
        combine(embeddings, made([("m1", "a"), ("m3", "b")]), models, allow_missing=True)


def test_a_model_without_direction():
    embeddings = ["a", "b"], np.array([[0.1, 0.7], [-0.3, -2.1]], np.float32)
    with pytest.raises(InputError, match="the embeddings of the model m cancel"):
        combine(embeddings, made([("m", "a")]), {"m": ["a", "b"]})


def test_another_way_to_combine(many):
    with pytest.raises(InputError, match='as "embeddings" or "scores", not "max"'):
        combine(*many, "max")


def test_a_test_of_a_model_with_its_own_utterance_is_noted(many):
    embeddings, trials, models = many
    own = sum(trials.ids[t] in models[trials.ids[e]] for e, t in zip(trials.enroll, trials.test))
    assert combine(*many)[1].notes == [f"{own} trials test a model with an utterance that it is made of"]
    assert trials.notes == []
    apart = {model: ["u39"] for model in models}
    kept = np.flatnonzero(np.array(trials.ids)[trials.test] != "u39")
    fewer = trials._replace(enroll=trials.enroll[kept], test=trials.test[kept])
    assert combine(embeddings, fewer, apart)[1].notes == []


def test_numpy_alone_is_imported():
    code = f"import sys, {enroll.__name__}; print(*{{'pandas', 'scipy', 'torch'}}.intersection(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
