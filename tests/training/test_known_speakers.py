"""Whose speaker is known: shares of speakers and of utterances, some of each speaker, each within the larger."""

import numpy as np
import pandas as pd
import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.training.dataset import known_speakers
from sv_ssl.training.settings import SpeakerSettings

OBJECTS = dict.fromkeys(("embedder", "method", "lr", "opt_class"))
FRAME = pd.DataFrame({"spk_id": [f"s{n:03d}" for n in np.random.default_rng(0).integers(0, 50, 1000)]})


def known(frame=FRAME, **more):
    settings = SpeakerSettings(name="a", output_folder="b", epochs=1, batch_size=2, **more, **OBJECTS)
    return known_speakers(frame, settings)


WAYS = {
    "utterances": [{"label_share": share, "label_share_of": "utterances"} for share in (0.01, 0.1, 0.5, 1.0)],
    "speakers": [{"label_share": share} for share in (0.04, 0.1, 0.5, 1.0)],
    "of each": [{"per_speaker_labels": n} for n in (1, 2, 10, 0)],
    "of each of a share": [{"label_share": share, "per_speaker_labels": 2} for share in (0.04, 0.1, 1.0)],
}


@pytest.mark.parametrize("way", WAYS)
def test_more_labels_hold_the_fewer(way):
    found = [known(**options) >= 0 for options in WAYS[way]]
    assert all((few <= more).all() and few.sum() < more.sum() for few, more in zip(found, found[1:]))
    again, other = known(**WAYS[way][0]), known(**WAYS[way][0], seed=1)
    assert np.array_equal(again >= 0, found[0]) and not np.array_equal(again, other)


def test_how_many_they_are():
    assert [(known(**options) >= 0).sum() for options in WAYS["utterances"]] == [10, 100, 500, 1000]
    for each, options in zip((1, 2, 10), WAYS["of each"]):
        counts = FRAME.spk_id[known(**options) >= 0].value_counts()
        assert len(counts) == 50 and (counts == np.minimum(each, FRAME.spk_id.value_counts()[counts.index])).all()
    assert (
        np.bincount(
            known(label_share=0.1, per_speaker_labels=3)[known(label_share=0.1, per_speaker_labels=3) >= 0]
        ).tolist()
        == [3] * 5
    )


@pytest.mark.parametrize("way", WAYS)
def test_speakers_are_numbered_by_their_names(way):
    for options in WAYS[way]:
        numbers = known(**options)
        names = sorted(set(FRAME.spk_id[numbers >= 0]))
        assert [names[n] for n in numbers[numbers >= 0]] == FRAME.spk_id[numbers >= 0].tolist()


def test_an_empty_name_is_never_known():
    frame = FRAME.assign(spk_id=FRAME.spk_id.where(FRAME.index % 3 > 0, ""))
    for options in ({}, *(options for way in WAYS.values() for options in way)):
        assert (known(frame, **options)[::3] == -1).all()


@pytest.mark.parametrize(
    "frame, options, text",
    [
        (FRAME.drop(columns="spk_id"), {"per_speaker_labels": 2}, "--per_speaker_labels 2 .* no column spk_id"),
        (FRAME.drop(columns="spk_id"), {"label_share": 0.5}, "--label_share 0.5 .* no column spk_id"),
        (FRAME, {"label_share": 0.001, "label_share_of": "utterances"}, "leaves 1 utterances of 1 speakers"),
        (FRAME.assign(spk_id=""), {"per_speaker_labels": 2}, "leaves 0 utterances of 0 speakers"),
        (
            FRAME,
            {"label_share": 0.5, "label_share_of": "utterances", "per_speaker_labels": 2},
            "both choose utterances: leave one of them out",
        ),
    ],
)
def test_what_is_refused(frame, options, text):
    with pytest.raises(InputError, match=text):
        known(frame, **options)
