import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sv_ssl.verification import learnt_trials
from sv_ssl.verification.trials import Trials


def listed(pairs, name="list"):
    """Trials of pairs of ids."""
    ids = list(dict.fromkeys(i for pair in pairs for i in pair))
    sides = np.array([[ids.index(i) for i in pair] for pair in pairs], np.int32).reshape(-1, 2).T
    return Trials(name, "", "", ids, *sides, None, None)


pairs = st.lists(st.tuples(*[st.sampled_from("abcdefgh")] * 2), max_size=20)


@given(pairs, pairs)
def test_the_share_is_that_of_the_pairs_either_way_round(before, now):
    known = [set(pair) for pair in before]
    share = learnt_trials.share(learnt_trials.sample(listed(before)), listed(now))
    assert share == pytest.approx(np.mean([set(pair) in known for pair in now]) if now else 0)


def test_of_a_long_list_the_share_is_estimated_from_a_text_of_8_kb():
    every = [(f"id{i}/{i}.wav", f"id{i + k}/x.wav") for i in range(200) for k in range(100)]
    text = learnt_trials.sample(listed(every[:10_000]))
    assert len(text) == 16 * learnt_trials.KEPT and learnt_trials.is_sample(text)
    assert learnt_trials.share(text, listed(every[:10_000][::-1])) == 1
    assert learnt_trials.share(text, listed(every[5000:15_000])) == pytest.approx(0.5, abs=0.1)
    assert learnt_trials.share(text, listed(every[10_000:])) == 0
    assert learnt_trials.share("", listed(every[:10])) == 0


@pytest.mark.parametrize("text", ["x", "12", "0" * 15, "00" * 8 * 513])
def test_what_is_no_sample(text):
    assert not learnt_trials.is_sample(text)
