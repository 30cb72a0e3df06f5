import numpy as np
import pytest

from sv_ssl import audio
from sv_ssl.data.rttm import Region, common, merged, read
from sv_ssl.data.synthetic import corpus
from sv_ssl.diarization.vad import energy

RATE = 16000


def noise(seconds, level, rate=RATE, seed=0):
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def with_bursts(*spans, seconds=10, rate=RATE, background=0.001):
    wave = noise(seconds, background, rate)
    for start, stop in spans:
        wave[round(start * rate) : round(stop * rate)] += noise(stop - start, 0.1, rate, 1)
    return wave


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_bursts_are_found_to_a_tenth_of_a_second(rate):
    found = energy(with_bursts((1, 3), (4.5, 8), rate=rate), rate)
    assert np.array(found) == pytest.approx(np.array([(1, 3), (4.5, 8)]), abs=0.1)


def test_loudness_does_not_matter():
    wave = with_bursts((1, 3), (4.5, 8))
    assert energy(wave, RATE) == energy(wave * np.float32(2**-6), RATE)


def test_short_pauses_are_closed_and_long_ones_are_not():
    assert len(energy(with_bursts((1, 3), (3.5, 5)), RATE)) == 1
    assert len(energy(with_bursts((1, 3), (3.75, 5)), RATE)) == 2


def test_clicks_are_dropped():
    assert len(energy(with_bursts((1, 3), (6, 6.03)), RATE)) == 1


@pytest.mark.parametrize(
    "wave",
    [np.zeros(0), np.zeros(100), np.zeros(RATE), np.full(RATE, 0.5), noise(3, 0.1), noise(3, 1e-4)],
    ids=["empty", "short", "silence", "constant", "loud noise", "quiet"],
)
def test_where_nothing_stands_out_there_is_no_speech(wave):
    assert energy(wave.astype(np.float32), RATE) == []


def test_speech_after_digital_silence_is_found():
    wave = np.concatenate([np.zeros(5 * RATE, np.float32), with_bursts((1, 3), seconds=5)])
    found = energy(wave, RATE)
    assert np.array(found) == pytest.approx(np.array([(6, 8)]), abs=0.1)


def test_regions_stay_in_the_recording():
    found = energy(with_bursts((0, 2), (8, 10)), RATE)
    assert found[0].start == 0 and found[-1].stop == 10


def test_built_in_meetings(tmp_path):
    """At least three quarters of all time are judged as the reference has it."""
    tiny = dict(n_train=2, n_valid=2, n_test=2, seconds=0.5, n_noises=0, n_rooms=0)
    folder = corpus.corpus(tmp_path / "c", workers=1, progress=False, n_meetings=2, meeting_seconds=30.0, **tiny)
    for path in sorted(folder.glob("meetings/*.wav")):
        true = merged(read(path.with_suffix(".rttm"))[path.stem])
        found = energy(audio.read(path), RATE)
        both, one, other = (sum(stop - start for start, stop in part) for part in (common(true, found), true, found))
        assert one + other - 2 * both < 0.25 * 30
        assert found == sorted(found) and all(isinstance(region, Region) for region in found)
