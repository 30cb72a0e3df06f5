"""What is watched while a method learns: figures of its embeddings, what is shown of them, what is a collapse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from sv_ssl.losses import geometry
from sv_ssl.methods.base import Step

COLLAPSED = 0.01  # of the spread of unit embeddings, 1 when they fill the sphere evenly: below it they are one point
# Figures of an epoch that its line shows, and how.
SHOWN = {
    "spread": "spread {:.2f}",
    "rank": "rank {:.0f}",
    "usage": "usage {:.0f}",
    "target_entropy": "target entropy {:.2f}",
    "coverage": "{:.0%} sampled positives",
    "age": "{:.0f} steps old",
    "same_speaker": "{:.0%} of them right",
    "same_recording": "{:.0%} of the same recording",
    "speaker_nmi": "clusters' NMI with speakers {:.2f}",
    "recording_nmi": "with recordings {:.2f}",
}


class Alarm(NamedTuple):
    """A figure beyond its limit, what it means, and what to change."""

    figure: str
    low: float
    high: float
    meaning: str


ALARMS = (
    Alarm(
        "spread",
        0.05,
        math.inf,
        "the embeddings are close to one point: nothing pushes recordings apart. Raise the weight of the variance "
        "(VICReg), keep stop_gradient and the predictor's BatchNorm (BYOL), or lower --peak_lr",
    ),
    Alarm(
        "variance_lack",
        -math.inf,
        0.9,
        "the dimensions have lost their variance: raise var_weight",
    ),
    Alarm(
        "rank",
        1.5,
        math.inf,
        "the embeddings lie on a line: raise the weight of the covariance or of the variance, or lower --peak_lr",
    ),
    Alarm(
        "usage_share",
        0.08,
        math.inf,
        "all recordings have the same few prototypes: centre the targets or share them out (centring: centre or "
        "sinkhorn), raise the weight of me_max, or slow the teacher down (ema nearer 1)",
    ),
    Alarm(
        "entropy_share",
        -math.inf,
        0.93,
        "the targets say nothing, all prototypes alike: lower the teacher's temperature below the student's",
    ),
    Alarm(
        "coverage",
        0.2,
        math.inf,
        "few recordings find a sampled positive: raise the queue's size, lower the number of clusters, or pass "
        "--skip_empty True",
    ),
    Alarm(
        "clustered",
        0.5,
        math.inf,
        "most recordings have no cluster, since an epoch brings too few of them, and what fills no batch is left out: "
        "lower the number of clusters, or --batch_size",
    ),
)


@torch.no_grad()
def figures(step: Step) -> dict[str, float]:
    """Return the step's own figures, and the measures of its rows.

    spread is 1 on an even sphere and 0 in one point; rank, how many directions the embeddings use, is that of the
    embeddings before a head.
    """
    z = step.z
    measured = {
        "spread": geometry.spread(z) * math.sqrt(z.shape[1]),
        "alignment": geometry.alignment(z, step.labels),
        "uniformity": geometry.uniformity(z),
        "rank": geometry.effective_rank(z if step.h is None else step.h),
    }
    own = {name: float(value) for name, value in step.log.items()}
    return {**own, **dict(zip(measured, torch.stack([value.double() for value in measured.values()]).tolist()))}


def shown(record: Mapping[str, float]) -> str:
    """Return what an epoch's line shows of its figures.

    >>> shown({"loss": 1.0, "spread": 0.5, "coverage": 0.63})
    'spread 0.50, 63% sampled positives'
    """
    return ", ".join(text.format(record[name]) for name, text in SHOWN.items() if name in record)


def alarms(record: Mapping[str, float]) -> list[str]:
    """Return what in an epoch's figures looks like a collapse, each with its likely cause and what to change.

    >>> alarms({"spread": 0.5, "usage_share": 0.9}), alarms({"entropy_share": 0.99})[0][:39]
    ([], 'entropy_share is 0.99: the targets say ')
    """
    return [
        f"{name} is {record[name]:.2g}: {meaning}"
        for name, low, high, meaning in ALARMS
        if name in record and not low <= record[name] <= high and not math.isnan(record[name])
    ]
