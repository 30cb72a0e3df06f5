import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sv_ssl.core.errors import InputError
from sv_ssl.data.rttm import Region, Turn
from sv_ssl.diarization import der

# The hand-drawn case of pyannote.metrics' tests.
TRUE = [Turn(0, 10, "A"), Turn(12, 20, "B"), Turn(24, 27, "A"), Turn(30, 40, "C")]
OVERLAPPED = [Turn(0, 13, "A"), *TRUE[1:]]
FOUND = [Turn(2, 13, "a"), Turn(13, 14, "d"), Turn(14, 20, "b"), Turn(22, 38, "c"), Turn(38, 40, "d")]
FOUND_OVERLAPPED = [Turn(2, 13, "a"), Turn(10, 14, "d"), Turn(14, 24, "b"), Turn(22, 38, "c"), Turn(36, 40, "d")]


def test_by_hand():
    found = der.errors(TRUE, FOUND)
    assert found == der.Errors(total=31, miss=2, false_alarm=7, confusion=7)
    assert found.rate == pytest.approx(16 / 31)
    assert der.mapping(TRUE, FOUND) == {"a": "A", "b": "B", "c": "C"}


@pytest.mark.parametrize("times", [(5, 1), (0, np.nan), (np.nan, 1), (0, np.inf), (-np.inf, 1)])
def test_times_that_are_no_part_of_a_recording_are_refused(times):
    """The errors of a turn that ends before it begins would vanish."""
    for parts in (([Turn(*times, "A")], FOUND), (TRUE, [Turn(*times, "a")]), (TRUE, FOUND, [Region(*times)])):
        for measure in (der.errors, der.mapping):
            with pytest.raises(InputError, match="wanted numbers, the start before the end"):
                measure(*parts)
    assert der.errors([Turn(3, 3, "A")], []).total == 0


def test_overlap_counts_each_speaker_or_not_at_all():
    assert der.errors(OVERLAPPED, FOUND).total == 34
    assert der.errors(OVERLAPPED, FOUND, skip_overlap=True).total == 32


def test_a_collar_is_taken_from_both_sides_of_each_end():
    assert der.errors([Turn(0, 10, "A")], [], collar=0.5).total == 9
    assert der.errors([Turn(0, 10, "A"), Turn(10, 20, "A")], [], collar=1).total == 20 - 4
    late = [Turn(0.25, 10.25, "a")]
    assert der.errors([Turn(0, 10, "A")], late).rate == pytest.approx(0.05)
    assert der.errors([Turn(0, 10, "A")], late, collar=0.25).rate == 0


def test_outside_the_uem_nothing_counts():
    found = der.errors([Turn(0, 10, "A")], [Turn(5, 20, "a")], [Region(2, 4), Region(3, 6), Region(12, 13)])
    assert found == der.Errors(total=4, miss=3, false_alarm=1, confusion=0)
    assert der.errors(TRUE, FOUND, []) == der.Errors(0, 0, 0, 0)


def test_mapping_is_the_best_within_what_counts():
    true, found = [Turn(0, 10, "A"), Turn(10, 12, "B")], [Turn(0, 12, "a")]
    assert der.mapping(true, found) == {"a": "A"} and der.mapping(true, found, [Region(9, 12)]) == {"a": "B"}


def test_mapping_is_for_the_whole_recording():
    """Piece by piece each would be right; over all of it "a" is only one of them."""
    found = der.errors([Turn(0, 6, "A"), Turn(6, 10, "B")], [Turn(0, 10, "a")])
    assert found.confusion == 4


def test_greedy_pairing_would_be_worse():
    """The longest pair, A with x, leaves nobody for B."""
    true = [Turn(0, 9, "A"), Turn(9, 13, "B")]
    found = [Turn(0, 4, "y"), Turn(4, 13, "x")]
    assert der.mapping(true, found) == {"x": "B", "y": "A"}
    assert der.errors(true, found).confusion == 5


def test_no_reference_speech():
    assert der.errors([], []).rate == 0
    found = der.errors([], [Turn(0, 5, "a")])
    assert found == der.Errors(0, 0, 5, 0) and found.rate == 1


def test_nothing_found_is_all_missed():
    assert der.errors(OVERLAPPED, []) == der.Errors(34, 34, 0, 0)


def test_a_speaker_who_overlaps_himself_talks_once():
    assert der.errors([Turn(0, 5, "A"), Turn(3, 8, "A")], [Turn(0, 8, "a"), Turn(2, 4, "a")]) == der.Errors(8, 0, 0, 0)


def test_rates_are_pooled_by_seconds():
    parts = [der.errors(TRUE, FOUND), der.errors([Turn(0, 69, "A")], [Turn(0, 69, "a")])]
    assert der.pooled(parts).rate == pytest.approx(0.16)
    assert der.pooled([]) == der.Errors(0, 0, 0, 0)


@pytest.mark.parametrize("collar", [-1, float("nan"), float("inf")])
def test_a_bad_collar(collar):
    with pytest.raises(InputError, match="the collar is .* wanted seconds of 0 or more"):
        der.errors(TRUE, FOUND, collar=collar)


# --- against brute force, second by second --------------------------------------------------------------------------

SPAN = st.tuples(st.integers(0, 30), st.integers(1, 10))


def turns_of(names):
    turn = st.tuples(SPAN, st.sampled_from(names)).map(lambda p: Turn(p[0][0], p[0][0] + p[0][1], p[1]))
    return st.lists(turn, max_size=6)


def brute(reference, hypothesis, uem, collar, skip_overlap):
    """Half seconds, all pairings of speakers."""

    def talking(turns, t):
        return {turn.speaker for turn in turns if turn.start <= t < turn.stop}

    counted = []
    for t in np.arange(-10.25, 60, 0.5):
        near = any(abs(t - end) < collar for turn in reference for end in turn[:2])
        inside = uem is None or any(start <= t < stop for start, stop in uem)
        r, h = talking(reference, t), talking(hypothesis, t)
        if inside and not near and not (skip_overlap and len(r) > 1):
            counted.append((r, h))
    total, miss, false_alarm, either = (
        0.5 * sum(count(len(r), len(h)) for r, h in counted)
        for count in (lambda r, h: r, lambda r, h: max(0, r - h), lambda r, h: max(0, h - r), min)
    )
    found = sorted({turn.speaker for turn in hypothesis})
    targets = sorted({turn.speaker for turn in reference}) + [None] * len(found)
    best = max(
        0.5 * sum(sum(who.get(x) in r for x in h) for r, h in counted)
        for who in (dict(zip(found, p)) for p in set(itertools.permutations(targets, len(found))))
    )
    return der.Errors(total, miss, false_alarm, either - best)


@settings(max_examples=50)
@given(
    turns_of("ABC"),
    turns_of("xyz"),
    st.none() | st.lists(SPAN.map(lambda p: Region(p[0], sum(p))), max_size=3),
    st.sampled_from([0, 0.5, 1.5]),
    st.booleans(),
)
def test_equal_to_brute_force(reference, hypothesis, uem, collar, skip_overlap):
    found = der.errors(reference, hypothesis, uem, collar, skip_overlap)
    assert found == pytest.approx(brute(reference, hypothesis, uem, collar, skip_overlap), abs=1e-9)


# --- against pyannote.metrics ---------------------------------------------------------------------------------------


@pytest.fixture
def theirs():
    """theirs(reference, hypothesis, ...) -> Errors by pyannote.metrics."""
    pytest.importorskip("pyannote.metrics", reason="pyannote.metrics is not installed: pip install pyannote.metrics")
    import pyannote.core as core
    from pyannote.metrics.diarization import DiarizationErrorRate

    def annotation(turns):
        made = core.Annotation()
        for number, (start, stop, speaker) in enumerate(turns):
            made[core.Segment(start, stop), number] = speaker
        return made

    def errors(reference, hypothesis, uem=None, collar=0.0, skip_overlap=False):
        spans = [[*reference, *hypothesis], uem][uem is not None]
        timeline = core.Timeline([core.Segment(*span[:2]) for span in spans])
        metric = DiarizationErrorRate(collar=2 * collar, skip_overlap=skip_overlap)
        timeline = timeline.support() if uem is not None else core.Timeline([timeline.extent()] if spans else [])
        parts = metric(annotation(reference), annotation(hypothesis), uem=timeline, detailed=True)
        names = ("total", "missed detection", "false alarm", "confusion")
        return der.Errors(*(parts[name] for name in names)), parts["diarization error rate"]

    return errors


OPTIONS = [
    {},
    {"collar": 0.05},
    {"collar": 0.25},
    {"skip_overlap": True},
    {"collar": 0.5, "skip_overlap": True},
    {"uem": [Region(1, 12.5), Region(20, 39)]},
    {"uem": [Region(3, 33)], "collar": 1.0, "skip_overlap": True},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(
    "reference, hypothesis",
    [
        (TRUE, FOUND),
        (OVERLAPPED, FOUND),
        (OVERLAPPED, FOUND_OVERLAPPED),
        ([Turn(0, 10, "A")], []),
        ([], [Turn(0, 10, "spk")]),
        ([], []),
    ],
)
def test_equal_to_pyannote_on_its_own_cases(theirs, reference, hypothesis, options):
    wanted, rate = theirs(reference, hypothesis, **options)
    found = der.errors(reference, hypothesis, **options)
    assert found == pytest.approx(wanted, abs=1e-9) and found.rate == pytest.approx(rate, abs=1e-9)


def random_turns(rng, names):
    """Up to five people who talk whenever they like, with touching turns, none of whom overlaps himself."""
    turns = []
    for name in names[: rng.integers(0, len(names) + 1)]:
        time = rng.uniform(0, 5)
        for _ in range(rng.integers(0, 8)):
            stop = time + rng.uniform(0.1, 6)
            turns.append(Turn(time, stop, name))
            time = stop + rng.choice([0, rng.uniform(0.1, 4)])
    return turns


def test_equal_to_pyannote_on_random_turns(theirs):
    rng = np.random.default_rng(0)
    for trial in range(80):
        reference, hypothesis = random_turns(rng, "ABCDE"), random_turns(rng, "vwxyz")
        start = rng.uniform(0, 20)
        uem = [None, [Region(start, start + 8), Region(start + 9, start + 15)]][rng.integers(2)]
        options = {"uem": uem, "collar": float(rng.choice([0, 0.1, 0.5])), "skip_overlap": bool(rng.integers(2))}
        wanted, rate = theirs(reference, hypothesis, **options)
        found = der.errors(reference, hypothesis, **options)
        assert found == pytest.approx(wanted, abs=1e-6), (trial, options)
        assert found.rate == pytest.approx(rate, abs=1e-6)
