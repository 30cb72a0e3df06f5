"""What is watched of a step, what an epoch's line shows of it, and which figures raise the alarm."""

import math

import pytest
import torch

from sv_ssl.methods.base import Step
from sv_ssl.training import watch


def step(z, h=None, **log):
    logged = {name: torch.tensor(value) for name, value in log.items()}
    return Step(torch.tensor(1.0), z, torch.arange(len(z) // 2).repeat(2), logged, h)


def rows(n=64, dim=8):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


def test_rows_that_fill_the_sphere_raise_no_alarm():
    found = watch.figures(step(rows(), usage_share=0.9, entropy_share=0.3, coverage=0.6, variance_lack=0.1))
    assert (
        found["spread"] == pytest.approx(1.0, abs=0.05)
        and found["rank"] > 7
        and found["coverage"] == pytest.approx(0.6)
    )
    assert watch.alarms(found) == []


@pytest.mark.parametrize("make", [torch.ones, lambda n, dim: torch.ones(n, dim) + 1e-3 * rows(n, dim)])
def test_rows_in_one_point_raise_the_alarm(make):
    said = watch.alarms(watch.figures(step(make(64, 8))))
    assert any("close to one point" in alarm for alarm in said)


def test_the_rank_is_that_of_the_embeddings_before_the_head():
    line = rows(64, 1) @ rows(1, 8)
    assert watch.figures(step(rows(), line))["rank"] == pytest.approx(1.0, abs=1e-3)
    assert any("on a line" in alarm for alarm in watch.alarms(watch.figures(step(rows(), line))))
    assert watch.figures(step(line, rows()))["rank"] > 7


@pytest.mark.parametrize("alarm", watch.ALARMS, ids=lambda alarm: alarm.figure)
def test_a_figure_beyond_its_limit_is_named_with_what_to_change(alarm):
    limit, beyond = (alarm.low, alarm.low - 0.01) if math.isinf(alarm.high) else (alarm.high, alarm.high + 0.01)
    assert watch.alarms({alarm.figure: limit}) == [] == watch.alarms({alarm.figure: math.nan})
    [text] = watch.alarms({alarm.figure: beyond, "loss": 1e9})
    assert text.startswith(f"{alarm.figure} is ") and alarm.meaning in text


def test_a_line_shows_what_there_is():
    line = watch.shown({"coverage": 0.5, "age": 12.4, "same_speaker": 0.71, "spread": 0.256, "kl": 1.0, "rank": 7.6})
    assert line == "spread 0.26, rank 8, 50% sampled positives, 12 steps old, 71% of them right"
