"""Schedules: the ends, the middle, and that they never leave their range."""

from functools import partial

import pytest

from sv_ssl.training.schedules import constant, cosine, stepped, warmup_cosine


def test_constant():
    assert {constant(step, 0.5) for step in (0, 1, 1000)} == {0.5}


def test_stepped_is_the_learning_rate_of_the_paper():
    rate = partial(stepped, start=1e-3, factor=0.95, every=5)
    assert [rate(epoch) for epoch in (0, 4)] == [1e-3, 1e-3]
    assert rate(5) == pytest.approx(0.95e-3) == rate(9)
    assert rate(149) == pytest.approx(1e-3 * 0.95**29)


@pytest.mark.parametrize("every", [0, -1])
def test_steps_are_some_epochs_apart(every):
    with pytest.raises(ValueError, match=f"every is {every}, wanted a number above 0"):
        stepped(1, start=1e-3, factor=0.95, every=every)


def test_cosine_ends_where_it_should():
    momentum = partial(cosine, total=100, start=0.99, end=1.0)
    assert [momentum(0), momentum(50), momentum(100), momentum(500)] == pytest.approx([0.99, 0.995, 1.0, 1.0])
    values = [momentum(step) for step in range(101)]
    assert values == sorted(values) and max(values) <= 1.0
    assert momentum(25) == pytest.approx(0.99 + 0.01 * (1 - 2**-0.5) / 2)


def test_nothing_to_do_is_the_end():
    assert cosine(0, 0, 1.0, 0.25) == 0.25


def test_warmup_rises_once_and_falls_to_the_end():
    rate = partial(warmup_cosine, total=100, peak=2.0, warmup=9, final=0.5)
    values = [rate(step) for step in range(120)]
    assert values[0] == 0 and rate(4.5) == pytest.approx(1.0)
    assert values[9] == max(values) == 2.0 and values.count(2.0) == 1
    assert values[:10] == sorted(values[:10]) and values[9:] == sorted(values[9:], reverse=True)
    assert values[100:] == pytest.approx([0.5] * 20)


@pytest.mark.parametrize("warmup, expected", [(0, 1.0), (1, 0.0)])
def test_short_warmups(warmup, expected):
    assert warmup_cosine(0, total=10, peak=1.0, warmup=warmup) == expected
