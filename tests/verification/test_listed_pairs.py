"""What a list says twice, and of one utterance: contradictions are refused, what flatters is noted."""

import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.verification import trials

LIST = "1 a/1 a/2\n0 a/1 b/1\n1 b/1 b/2\n0 a/2 b/2\n"
ITSELF = "1 trials compare an utterance with itself, which says nothing of speakers: leave them out"


@pytest.fixture(params=[10**9, 0], ids=["small", "large"])
def read(tmp_path, monkeypatch, request):
    """A text -> Trials, in the way of small files and in that of large ones."""
    monkeypatch.setattr(trials, "LARGE", request.param)

    def reader(text, **options):
        (tmp_path / "trials.txt").write_text(text)
        return trials.read_trials(tmp_path / "trials.txt", **options)

    return reader


def test_a_trial_of_an_utterance_with_itself_is_noted(read):
    assert read(LIST).notes == []
    assert read(LIST + "1 a/1 a/1\n").notes == [ITSELF]
    odd = read(LIST + "1 a/1 a/1\n0 b/1 b/1\n0 b/2 b/2\n").notes
    assert len(odd) == 1 and odd[0].startswith("3 trials compare an utterance with itself (2 of them as a non-target)")
    assert read("a a 0.5\na b 0.25\n").notes == [ITSELF]  # without labels too


def test_a_pair_with_the_other_label_the_other_way_round_is_refused(read):
    with pytest.raises(InputError) as error:
        read("# mine\n" + LIST + "0 c/1 c/2\n1 b/1 a/1\n")
    reason = "the other way round (see --sides-apart) the pair has the other label on line 3"
    assert str(error.value).endswith(f"trials.txt:7: {reason}: '1 b/1 a/1'")


def test_the_same_way_round_goes_before_the_other(read):
    with pytest.raises(InputError, match=":6: the pair has the other label on line 5: '1 c/1 b/1'"):
        read(LIST + "0 c/1 b/1\n1 c/1 b/1\n0 b/1 c/1\n")


def test_pairs_both_ways_round_that_agree_are_as_before(read):
    """VoxCeleb1-O has some hundreds; scores of the two ways may differ."""
    assert read(LIST + "0 b/1 a/1\n1 b/2 b/1\n").notes == []
    assert read("a b 0.5 target\nb a 0.25 target\na c 0.1 nontarget\n").notes == []
    assert read(LIST + "0 b/1 a/1\n0 a/1 b/1\n").notes == ["1 trials are listed more than once, and count as often"]


def test_where_the_sides_are_of_different_things_their_ids_are_too(read):
    """Models that are called 1, 2, 3, as the utterances are."""
    numbered = read("1 1 1\n0 1 2\n1 2 1\n0 2 3\n", columns=["label", "enroll", "test"], sides_apart=True)
    assert numbered.notes == []
    with pytest.raises(InputError, match="the pair has the other label on line 2"):
        read("1 1 1\n0 1 2\n1 1 2\n", columns=["label", "enroll", "test"], sides_apart=True)


def test_of_many_clashes_each_names_the_line_before_it(read):
    with pytest.raises(InputError) as error:
        read(LIST + "0 a/2 a/1\n1 b/2 a/2\n1 a/1 a/2\n")
    _, *shown = str(error.value).split("\n  line ")
    assert [line.split(": '")[0] for line in shown] == [
        "5: the other way round (see --sides-apart) the pair has the other label on line 1",
        "6: the other way round (see --sides-apart) the pair has the other label on line 4",
        "7: the other way round (see --sides-apart) the pair has the other label on line 5",
    ]
