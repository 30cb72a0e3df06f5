import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from sv_ssl import audio, diarization
from sv_ssl.core.errors import InputError
from sv_ssl.data import rttm
from sv_ssl.data.rttm import Region, Turn
from sv_ssl.diarization import cluster, pipeline
from sv_ssl.diarization.vad import energy
from sv_ssl.models import folder
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34

RATE = 16000


def pitch_of(path, starts, stops):
    """Two voices told apart by the frequency of their zeros: embeddings that need no encoder."""
    rows = []
    for start, stop in zip(starts, stops):
        wave = audio.read(path, round(start * RATE), round(stop * RATE))
        angle = np.diff(np.signbit(wave)).mean() * np.pi
        rows.append([np.cos(angle), np.sin(angle)])
    return np.array(rows)


@pytest.fixture
def tones(tmp_path):
    """tones((start, stop, hertz), ...) writes a recording of 20 s and gives its path."""

    def write(*spans, seconds=20.0):
        wave = np.zeros(round(seconds * RATE))
        for start, stop, hertz in spans:
            here = slice(round(start * RATE), round(stop * RATE))
            wave[here] = 0.5 * np.sin(2 * np.pi * hertz * np.arange(wave[here].size) / RATE)
        path = tmp_path / "tones.wav"
        audio.write(path, wave, RATE)
        return path

    return write


def by_angle(rows):
    return cluster.agglomerative(rows, threshold=0.9)


def test_two_voices_by_turns(tones):
    path = tones((1, 6, 200), (6, 12, 4000), (14, 18, 200))
    found = pipeline.diarize(path, [Region(1, 12), Region(14, 18)], pitch_of, partial(cluster.spectral, n_speakers=2))
    assert [turn.speaker for turn in found] == ["spk1", "spk2", "spk1"]
    assert found[0].start == 1 and found[-1][:2] == (14, 18) and found[1].stop == 12
    assert found[0].stop == found[1].start == pytest.approx(6, abs=0.4)


def test_one_voice_is_one_turn_a_region(tones):
    path = tones((1, 6, 200), (8, 12, 200))
    for method in (by_angle, cluster.spectral):
        assert pipeline.diarize(path, [Region(1, 6), Region(8, 12)], pitch_of, method) == [
            Turn(1, 6, "spk1"),
            Turn(8, 12, "spk1"),
        ]


def test_turns_cover_exactly_the_regions(tones):
    path = tones((0, 20, 300))
    rng = np.random.default_rng(0)
    regions = [Region(0.0, 0.05), Region(0.3, 4.123), Region(5.5, 6.2), Region(7.0, 19.99)]

    def embed_windows(path, starts, stops):
        return np.eye(3)[rng.integers(3, size=len(starts))]

    found = pipeline.diarize(path, regions, embed_windows, lambda rows: cluster.agglomerative(rows, threshold=0.5))
    ends = {turn.start: turn.stop for turn in found}
    for start, stop in regions:
        while start != stop:
            start = ends.pop(start)
    assert not ends and len(found) > 6
    assert all(a.speaker != b.speaker for a, b in zip(found, found[1:]) if a.stop == b.start)


def test_no_speech_has_no_turns(tones):
    assert pipeline.diarize(tones(), [], pitch_of, cluster.spectral) == []


def test_windows_that_cannot_be_embedded_go_to_their_neighbours(tones):
    def embed_windows(path, starts, stops):
        rows = np.where(starts[:, None] < 5, [[1.0, 0.0]], [[0.0, 1.0]])
        rows[(starts > 1) & (starts < 3)] = np.nan
        rows[starts >= 12] = np.nan
        return rows

    found = pipeline.diarize(tones(), [Region(0, 10), Region(12, 14)], embed_windows, by_angle)
    assert [turn.speaker for turn in found] == ["spk1", "spk2"] and found[-1].stop == 10


def test_overlapping_and_unordered_regions_are_one(tones):
    found = pipeline.diarize(tones((0, 20, 200)), [Region(5, 9), Region(2, 6)], pitch_of, cluster.spectral)
    assert found == [Turn(2, 9, "spk1")]


def test_a_region_may_end_a_little_after_the_recording_but_not_much(tones):
    path = tones((0, 20, 200))
    assert pipeline.diarize(path, [Region(15, 20.3)], pitch_of, cluster.spectral) == [Turn(15, 20.0, "spk1")]
    with pytest.raises(InputError, match=r"tones.wav has 20.00 s, but a speech region lasts until 25.00 s"):
        pipeline.diarize(path, [Region(15, 25)], pitch_of, cluster.spectral)


@pytest.mark.parametrize(
    "region, seconds, wanted",
    [
        (Region(0, 1.5), 9, [(0, 1.5)]),
        (Region(1, 3.25), 9, [(1, 2.5), (1.75, 3.25)]),
        (Region(1, 3.3), 9, [(1, 2.5), (1.75, 3.25), (1.8, 3.3)]),
        (Region(1, 1.6), 9, [(1, 1.6)]),
        (Region(4, 4.1), 9, [(3.8, 4.3)]),
        (Region(0, 0.1), 9, [(0, 0.5)]),
        (Region(8.9, 9), 9, [(8.5, 9)]),
        (Region(0.1, 0.2), 0.3, [(0, 0.3)]),
    ],
)
def test_windows_of_a_region(region, seconds, wanted):
    starts, stops, home = pipeline.windows([region], seconds)
    assert np.stack([starts, stops], axis=1) == pytest.approx(np.array(wanted)) and set(home) == {0}


@pytest.mark.parametrize("window, hop", [(0.4, 0.1), (1.5, 0), (1.5, 2), (float("nan"), 1)])
def test_windows_that_make_no_sense(window, hop):
    with pytest.raises(InputError, match="wanted windows of 0.5 s or more"):
        pipeline.windows([Region(0, 3)], 9, window, hop)


def test_detection_by_blocks_is_as_in_one(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    wave = 0.001 * rng.standard_normal(12 * 8000)
    for start, stop in ((1, 2.5), (3.5, 5), (7, 8.2), (9, 11)):
        wave[round(start * 8000) : round(stop * 8000)] += 0.1 * rng.standard_normal(round((stop - start) * 8000))
    audio.write(tmp_path / "a.wav", wave, 8000)
    whole = pipeline.detect(tmp_path / "a.wav", energy)
    monkeypatch.setattr(pipeline, "BLOCK", 5)
    parts = pipeline.detect(tmp_path / "a.wav", energy)
    assert len(whole) == 4 and np.array(parts) == pytest.approx(np.array(whole), abs=0.1)


def test_speech_across_a_block_is_one_region(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "BLOCK", 2)
    audio.write(tmp_path / "a.wav", np.zeros(5 * RATE), RATE)
    heard = []

    def detector(wave, rate):
        heard.append((len(wave) / rate, rate))
        return [Region(0.0, len(wave) / rate)]

    assert pipeline.detect(tmp_path / "a.wav", detector) == [Region(0.0, 5.0)]
    assert len(heard) == 3 and sum(seconds for seconds, _ in heard) == pytest.approx(5) and heard[0][1] == 16000


def test_silence_has_no_speech(tmp_path):
    audio.write(tmp_path / "a.wav", np.zeros(3 * RATE), RATE)
    assert pipeline.detect(tmp_path / "a.wav", energy) == []


def test_an_embedder_gives_the_rows_of_each_window_alone(tones):
    torch.manual_seed(0)
    embedder = Embedder(LogMel(40), FastResNet34(40, "small", dim=16)).eval()
    path = str(tones((0, 3, 200), (5, 8, 3000), seconds=8))
    starts, stops = np.array([0.0, 0.75, 3.2, 5.0, 7.5]), np.array([1.5, 2.25, 4.7, 6.5, 8.0004])
    rows = pipeline.embedded_by(embedder)(path, starts, stops)
    assert np.isnan(rows[2]).all() and rows.shape == (5, 16)
    for number in (0, 1, 3, 4):
        wave = audio.read(path, round(starts[number] * RATE), min(round(stops[number] * RATE), 8 * RATE))
        alone = embedder(torch.from_numpy(wave)[None])[0].detach().numpy()
        assert rows[number] == pytest.approx(alone, abs=1e-5)


def test_a_damaged_recording_is_named(tmp_path):
    embed_windows = pipeline.embedded_by(Embedder(LogMel(40), FastResNet34(40, "small", dim=16)).eval())
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(audio.AudioError, match="a.wav: is empty"):
        embed_windows(str(tmp_path / "a.wav"), np.array([0.0]), np.array([1.0]))


def test_the_python_of_the_room_is_true(tmp_path, monkeypatch, capsys):
    """The lines in the docstring of sv_ssl.diarization, on the golden meeting of two speakers."""
    golden = Path(__file__).parents[1] / "golden" / "v1"
    for path, name in (
        (golden / "meeting.wav", "meeting.wav"),
        (golden / "reference" / "meeting.rttm", "meeting.rttm"),
    ):
        shutil.copy(path, tmp_path / name)
    folder.save(tmp_path / "FOLDER", Embedder(LogMel(40), FastResNet34(40, "small", 16)), {})
    monkeypatch.chdir(tmp_path)
    lines = [line[4:] for line in diarization.__doc__.splitlines() if line.startswith("    ")]
    names = {}
    exec("\n".join(lines), names)
    who = names["diarization"].mapping(names["reference"], names["turns"])
    assert capsys.readouterr().out.splitlines()[0].startswith("DER ") and set(who) <= {"spk1", "spk2", "spk3"}
    assert rttm.read("found.rttm")["meeting"] == names["turns"] and rttm.read_uem("speech.uem")["meeting"]
