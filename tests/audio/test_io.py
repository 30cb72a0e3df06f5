"""Reading any part of any file, and what becomes of damaged ones."""

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sv_ssl import audio
from sv_ssl.audio import AudioError, decoder
from sv_ssl.core.errors import InputError

RATE = 16000


def speechlike(seconds, rate=RATE, seed=0):
    """Smoothed noise with a slow envelope: something that lossy codecs keep."""
    rng = np.random.default_rng(seed)
    wave = np.convolve(rng.standard_normal(round(seconds * rate)), np.hanning(16), mode="same")
    return (0.1 * wave / wave.std() * (1.1 + np.sin(np.arange(len(wave)) / rate * 9))).astype(np.float32).clip(-1, 1)


def save(path, wave, rate=RATE, **how):
    """Write with soundfile itself, in short blocks as its Vorbis encoder needs."""
    wave = np.asarray(wave, dtype=np.float32)
    with soundfile.SoundFile(path, "w", rate, channels=1 if wave.ndim == 1 else wave.shape[1], **how) as sound:
        for begin in range(0, len(wave), 16000):
            sound.write(wave[begin : begin + 16000])
    return str(path)


def kind_of(path, *where):
    """The kind of error on reading; its text is one line that begins with the path."""
    with pytest.raises(AudioError) as caught:
        audio.read(path, *where)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return caught.value.kind


@pytest.mark.parametrize("ending", [".wav", ".flac"])
def test_lossless_round_trip_is_within_half_a_step(tmp_path, ending):
    wave = speechlike(1.0)
    audio.write(tmp_path / f"a{ending}", wave, RATE)
    assert audio.info(tmp_path / f"a{ending}") == (RATE, len(wave), 1)
    assert np.abs(audio.read(tmp_path / f"a{ending}") - wave).max() <= 0.5 * 2**-15 + 1e-7


def test_write_clips_what_is_too_loud(tmp_path):
    audio.write(tmp_path / "a.wav", np.array([0.5, 3.0, -3.0] * 1000), RATE)
    assert audio.read(tmp_path / "a.wav")[:3].tolist() == [0.5, 1 - 2**-15, -1.0]


def test_write_takes_long_vorbis_files(tmp_path):
    audio.write(tmp_path / "a.ogg", speechlike(60.0), RATE)
    assert audio.info(tmp_path / "a.ogg").frames == 60 * RATE


@pytest.mark.parametrize(
    "name, wave",
    [("a.mp3", np.ones(9)), ("a.wav", np.ones((9, 2))), ("a.wav", np.zeros(0)), ("a.wav", np.array([np.nan]))],
)
def test_write_refuses_in_one_line_and_leaves_nothing(tmp_path, name, wave):
    with pytest.raises(InputError, match="^[^\n]*want[^\n]*$"):
        audio.write(tmp_path / name, wave, RATE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "how",
    [
        dict(subtype="PCM_16"),
        dict(subtype="PCM_24"),
        dict(subtype="PCM_U8"),
        dict(subtype="FLOAT"),
        dict(subtype="DOUBLE"),
    ],
)
def test_every_sample_type_reads_as_libsndfile_reads_it(tmp_path, how):
    path = save(tmp_path / "a.wav", speechlike(0.5), **how)
    wave = audio.read(path)
    assert wave.dtype == np.float32
    np.testing.assert_array_equal(wave, soundfile.read(path, dtype="float32")[0])


# The tolerances that the module promises. Vorbis is the trap: libsndfile seeks wrongly on the second seek.
@pytest.mark.parametrize(
    "name, how, tolerance",
    [
        ("a.wav", {}, 0),
        ("a.flac", {}, 0),
        ("a.ogg", dict(subtype="VORBIS"), 0),
        ("a.mp3", {}, 1e-5),
        ("a.opus", dict(format="OGG", subtype="OPUS"), 0.01),
    ],
)
@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_crops_are_the_samples_of_a_whole_read(tmp_path, name, how, tolerance, seconds):
    path, rng = save(tmp_path / name, speechlike(8.0), **how), np.random.default_rng(1)
    whole, need = audio.read(path), round(seconds * RATE)
    assert len(whole) == 8 * RATE
    for _ in range(15):
        fractions = rng.random(3)
        views, _ = audio.crops(path, 1000, 8 * RATE, fractions, need)
        begins = [1000 + round(fraction * (8 * RATE - 1000 - need)) for fraction in fractions]
        assert np.abs(views - [whole[begin : begin + need] for begin in begins]).max() <= tolerance


def test_opus_seeking_is_right_on_speech():
    files = sorted(Path(__file__).parents[2].glob("../shared/data/speech/read_en/**/*.opus"))[:60:3]
    if not files:
        pytest.skip("no recordings in ../shared/data")
    rng, error = np.random.default_rng(0), []
    for path in files:
        whole = audio.read(path)
        start = int(rng.integers(len(whole) - 8000))
        difference = audio.read(path, start, start + 8000, strict=False) - whole[start : start + 8000]
        assert np.abs(difference).max() <= 0.01
        error.append(10 * np.log10(np.mean(difference**2) / np.mean(whole**2) + 1e-12))
    assert max(error) < -40


def test_read_takes_a_part_and_crops_return_their_info(tmp_path):
    wave = np.arange(20000) * 2.0**-15
    path = save(tmp_path / "a.wav", wave)
    np.testing.assert_array_equal(audio.read(path, 5000, 9000), wave[5000:9000].astype(np.float32))
    views, about = audio.crops(path, 2000, 12000, [0, 1, 0.25], 2000)
    assert (views[:, 0] * 2**15).tolist() == [2000, 10000, 4000]
    assert about == audio.info(path) == (RATE, 20000, 1)


def test_crops_that_overlap_are_those_read_apart(tmp_path):
    path = save(tmp_path / "a.wav", speechlike(4.0))
    together = audio.crops(path, 0, 64000, [0.2, 0.7], 32000)[0]
    apart = [audio.crops(path, 0, 64000, [fraction], 32000)[0][0] for fraction in (0.2, 0.7)]
    np.testing.assert_array_equal(together, apart)


def test_a_crop_reads_no_more_than_it_needs(tmp_path, monkeypatch):
    path, asked = save(tmp_path / "a.wav", speechlike(30.0)), []
    original = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, n, **how: asked.append(n) or original(self, n, **how))
    audio.crops(path, 0, 30 * RATE, [0.1, 0.9], 2 * RATE)
    assert asked == [2 * RATE, 2 * RATE]


# Reading on gives what seeking gives, to what the module promises of seeking.
@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize(
    "name, how, tolerance",
    [
        ("a.wav", {}, 0),
        ("a.flac", {}, 0),
        ("a.ogg", dict(subtype="VORBIS"), 0),
        ("a.mp3", {}, 1e-5),
        ("a.opus", dict(format="OGG", subtype="OPUS"), 0.01),
    ],
)
def test_parts_are_those_read_alone(tmp_path, name, how, tolerance, rate):
    if name == "a.opus" and rate == 44100:
        pytest.skip("Opus has no such rate")
    wave = np.stack([speechlike(8.0, rate), speechlike(8.0, rate, seed=1)], axis=1)
    path = save(tmp_path / name, wave, rate, **how)
    windows = [(begin, begin + rate // 2) for begin in range(0, 7 * rate, rate // 5)]
    odd = [
        (0, rate),
        (0, rate),
        (rate // 2, rate),
        (3 * rate, 4 * rate),
        (6 * rate, 7 * rate),
        (rate, 2 * rate),
        (2 * rate, 3 * rate),
        (7 * rate, None),
    ]  # again, within, over gaps, back, side by side, to the end
    for spans in (windows, odd):
        for span, part in zip(spans, audio.parts(path, spans), strict=True):
            expected = audio.read(path, *span)
            assert part.shape == expected.shape and np.abs(part - expected).max() <= tolerance


def test_parts_in_order_are_read_on_and_held_one_at_a_time(tmp_path, monkeypatch):
    path, asked, take = save(tmp_path / "a.wav", speechlike(30.0)), [], decoder.read_samples
    monkeypatch.setattr(
        decoder, "read_samples", lambda *a, seek=True: asked.append((a[3], seek)) or take(*a, seek=seek)
    )
    with decoder.Track(path) as track:
        for begin in range(0, 28 * RATE, RATE):
            track.take(begin, begin + 2 * RATE, True, np.inf)
            assert len(track.kept) == 2 * RATE
    assert asked == [(2 * RATE, True), *[(RATE, False)] * 27]


def test_parts_go_on_after_one_that_cannot_be_used(tmp_path):
    wave = speechlike(4.0)
    wave[RATE : 2 * RATE] = 0
    path, memory = save(tmp_path / "a.wav", wave), io.BytesIO((tmp_path / "a.wav").read_bytes())
    spans = [(0, RATE), (RATE, 2 * RATE), (5, 2), (2 * RATE, 2 * RATE + 9), (0, 9 * RATE), (3 * RATE, None), (0, None)]
    for source in (path, memory):
        found = list(audio.parts(source, spans, longest=3))
        assert [getattr(part, "kind", len(part) if isinstance(part, np.ndarray) else "") for part in found] == [
            RATE,
            "silent",
            "empty",
            "short",
            "truncated",
            RATE,
            "long",
        ]
    content = Path(save(tmp_path / "b.flac", speechlike(8.0))).read_bytes()
    (tmp_path / "b.flac").write_bytes(content[: len(content) // 2])
    spans = [(0, RATE), (7 * RATE, None), (0, 9999)]
    assert [getattr(part, "kind", "") for part in audio.parts(tmp_path / "b.flac", spans)] == ["", "truncated", ""]


def test_a_name_that_is_not_utf8(tmp_path):
    save(tmp_path / "a.wav", speechlike(1.0))
    os.rename(tmp_path / "a.wav", os.fsencode(tmp_path) + b"/caf\xe9.wav")
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    assert audio.info(path).frames == len(audio.read(path)) == RATE
    assert audio.crops(path, 0, None, [0.5], 800)[0].shape == (1, 800)
    audio.write(os.fsdecode(os.fsencode(tmp_path) + b"/\xe8.wav"), np.ones(9) / 2, RATE)
    assert b"\xe8.wav" in os.listdir(os.fsencode(tmp_path))
    assert kind_of(os.fsdecode(b"gone\xe9.wav")) == kind_of("\ud800.wav") == "missing"


def test_a_short_segment_is_repeated(tmp_path):
    wave = (np.arange(2000) + 100) * 2.0**-15
    views, _ = audio.crops(save(tmp_path / "a.wav", wave), 0, 2000, [0.0, 0.9], 5000)
    np.testing.assert_array_equal(views[1], np.tile(wave, 3)[:5000].astype(np.float32))


@pytest.mark.parametrize("rate, channels", [(8000, 2), (44100, 1), (48000, 1), (22050, 2)])
def test_other_rates_and_channels_become_16_khz_mono(tmp_path, rate, channels):
    tone = 0.4 * np.sin(2 * np.pi * 1000 * np.arange(3 * rate) / rate)
    wave = tone if channels == 1 else np.stack([tone * 1.5, tone * 0.5], axis=1)
    path = save(tmp_path / "a.wav", wave, rate)
    expected = 0.4 * np.sin(2 * np.pi * 1000 * np.arange(3 * RATE) / RATE)
    whole = audio.read(path)
    assert whole.dtype == np.float32 and len(whole) == 3 * RATE
    assert np.abs(whole - expected)[200:-200].max() < 0.004  # 40 dB below the tone
    views, about = audio.crops(path, rate, 3 * rate, [0.0, 0.5], RATE)
    assert views.shape == (2, RATE) and about == (rate, 3 * rate, channels)
    assert np.abs(views[0] - expected[RATE : 2 * RATE])[200:-200].max() < 0.004


def test_what_is_above_the_new_band_is_removed(tmp_path):
    path = save(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 12000 * np.arange(44100) / 44100), 44100)
    assert np.abs(audio.read(path)[200:-200]).max() < 0.5e-2


def test_missing_unreadable_and_empty_files(tmp_path):
    (tmp_path / "text.wav").write_text("no audio at all\n" * 50)
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "no_bytes.wav").touch()
    (tmp_path / "header.wav").write_bytes(Path(save(tmp_path / "a.wav", np.ones(9))).read_bytes()[:40])
    os.symlink("nowhere", tmp_path / "dangling.wav")
    save(tmp_path / "no_samples.wav", np.zeros(0))
    kinds = {
        name: kind_of(tmp_path / f"{name}.wav")
        for name in ("absent", "dangling", "text", "folder", "header", "no_bytes", "no_samples")
    }
    assert kinds == {
        "absent": "missing",
        "dangling": "missing",
        "text": "unreadable",
        "folder": "unreadable",
        "header": "unreadable",
        "no_bytes": "empty",
        "no_samples": "empty",
    }


def test_a_truncated_wav_is_named_by_its_header_or_by_stop(tmp_path):
    content = Path(save(tmp_path / "a.wav", speechlike(4.0))).read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[:70000])
    with pytest.raises(AudioError, match="promises 128000 bytes of samples, the file has 69956"):
        audio.info(tmp_path / "cut.wav")
    assert kind_of(tmp_path / "cut.wav") == kind_of(tmp_path / "cut.wav", 0, 64000) == "truncated"
    with pytest.raises(AudioError, match="has 34978 samples, but stop is 64000"):
        audio.crops(tmp_path / "cut.wav", 0, 64000, [0.0], 16000)
    assert len(audio.read(tmp_path / "cut.wav", 0, 16000)) == 16000


def patched(path, at, new):
    """Overwrite bytes of a file."""
    content = bytearray(Path(path).read_bytes())
    content[at : at + len(new)] = new
    Path(path).write_bytes(content)
    return path


@pytest.mark.parametrize("rate", [0, 1, 999, 384_001, 4_999_999, 2**31, 2**32 - 1])
def test_a_rate_that_no_recording_has_is_refused_before_it_is_resampled(tmp_path, rate):
    path = patched(save(tmp_path / "a.wav", speechlike(1.0)), 24, struct.pack("<I", rate))
    assert kind_of(path) == "unreadable"
    with pytest.raises(AudioError, match="its header gives a (sample )?rate of"):
        audio.info(path)
    with pytest.raises(AudioError, match="its header gives a (sample )?rate of"):
        audio.crops(io.BytesIO(Path(path).read_bytes()), 0, 16000, [0.5], 800)


@pytest.mark.parametrize("rate", [1000, 384_000])
def test_the_ends_of_the_rates_are_read(tmp_path, rate):
    assert len(audio.read(save(tmp_path / "a.wav", speechlike(0.5, rate), rate))) == 8000


@pytest.mark.parametrize("channels", [0, 257, 1025, 65_535])
def test_more_channels_than_any_microphones_have_are_refused(tmp_path, channels):
    path = patched(
        save(tmp_path / "a.wav", speechlike(1.0)), 22, struct.pack("<HIIH", channels, RATE, 0, 2 * channels % 2**16)
    )
    assert kind_of(path) == "unreadable"


@pytest.mark.parametrize("bits", [0, 64, 65_535])
def test_sample_sizes_that_are_none_are_refused(tmp_path, bits):
    assert kind_of(patched(save(tmp_path / "a.wav", speechlike(1.0)), 34, struct.pack("<H", bits))) == "unreadable"


def test_a_flac_that_promises_more_than_its_bytes_can_hold_is_refused_unread(tmp_path, monkeypatch):
    path = save(tmp_path / "a.flac", speechlike(1.0))
    content = bytearray(Path(path).read_bytes())
    content[21:26] = bytes([content[21] | 0xF, 0xFF, 0xFF, 0xFF, 0xFF])  # 2^36 - 1 samples
    Path(path).write_bytes(content)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("memory was taken for 2^36 samples"))
    for source in (path, io.BytesIO(content)):
        for stop in (None, 2**36 - 1):
            (part,) = audio.parts(source, [(0, stop)])
            assert part.kind == "truncated" and "promises 68,719,476,735 samples" in str(part)


def test_an_ogg_whose_last_page_is_moved_far_away_is_refused(tmp_path):
    path = save(tmp_path / "a.ogg", speechlike(1.0))
    content = bytearray(Path(path).read_bytes())
    page = content.rindex(b"OggS")
    content[page + 6 : page + 14] = struct.pack("<Q", 2**45)
    content[page + 22 : page + 26] = struct.pack(
        "<I", ogg_checksum(content[page : page + 22] + bytes(4) + content[page + 26 :])
    )
    Path(path).write_bytes(content)
    assert kind_of(path) == "truncated"


def ogg_checksum(page):
    """CRC-32 of polynomial 0x04C11DB7, from 0 and not reflected."""
    total = 0
    for byte in page:
        total ^= byte << 24
        for _ in range(8):
            total = (total << 1 ^ (0x04C11DB7 if total >> 31 else 0)) & 0xFFFFFFFF
    return total


def test_an_hour_of_silence_in_few_bytes_is_no_false_promise(tmp_path):
    with soundfile.SoundFile(tmp_path / "a.flac", "w", RATE, 1) as sound:
        for _ in range(3600):
            sound.write(np.zeros(RATE, np.int16))
    assert audio.info(tmp_path / "a.flac").frames == 3600 * RATE


def test_samples_for_which_there_is_no_memory_are_one_bad_file(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    assert kind_of(save(tmp_path / "a.wav", speechlike(1.0))) == "long"


def test_what_is_no_ordinary_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    os.symlink("/dev/zero", tmp_path / "b.wav")
    assert kind_of(tmp_path / "a.wav") == kind_of(tmp_path / "b.wav") == "unreadable"


@pytest.mark.parametrize("promise", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_written_into_a_pipe_promises_nothing(tmp_path, promise):
    content = Path(save(tmp_path / "a.wav", speechlike(1.0))).read_bytes()
    (tmp_path / "a.wav").write_bytes(content[:40] + struct.pack("<I", promise) + content[44:])
    assert audio.info(tmp_path / "a.wav").frames == len(audio.read(tmp_path / "a.wav")) == RATE


@pytest.mark.parametrize("ending", [".flac", ".mp3"])
def test_truncated_flac_and_mp3_are_found_where_the_read_reaches_the_damage(tmp_path, ending):
    content = Path(save(tmp_path / f"a{ending}", speechlike(8.0))).read_bytes()
    (tmp_path / f"cut{ending}").write_bytes(content[: len(content) // 2])
    path = tmp_path / f"cut{ending}"
    assert kind_of(path) == kind_of(path, 0, 8 * RATE) == "truncated"
    with pytest.raises(AudioError) as caught:
        audio.crops(path, 0, 8 * RATE, [1.0, 0.0], RATE)
    assert caught.value.kind == "truncated"
    whole = audio.read(tmp_path / f"a{ending}")
    np.testing.assert_allclose(audio.read(path, 0, RATE), whole[:RATE], atol=1e-5)


def test_a_truncated_ogg_is_found_by_stop(tmp_path):
    content = Path(save(tmp_path / "a.ogg", speechlike(8.0))).read_bytes()
    (tmp_path / "cut.ogg").write_bytes(content[: len(content) // 2])
    assert 0 < audio.info(tmp_path / "cut.ogg").frames < 8 * RATE
    assert kind_of(tmp_path / "cut.ogg", 0, 8 * RATE) == "truncated"


def test_a_flac_without_length_is_unreadable(tmp_path):
    content = bytearray(Path(save(tmp_path / "a.flac", speechlike(1.0))).read_bytes())
    content[21] &= 0xF0  # STREAMINFO: the low 36 bits of these five bytes count the samples
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    assert kind_of(tmp_path / "a.flac") == "unreadable"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_where_they_are_read(tmp_path, value):
    wave = speechlike(2.0)
    wave[20000] = value
    path = save(tmp_path / "a.wav", wave, subtype="FLOAT")
    assert kind_of(path) == "nan"
    assert len(audio.read(path, 0, 16000)) == 16000
    with pytest.raises(AudioError):
        audio.crops(path, 0, 32000, [0.0, 1.0], 16000, strict=False)


def test_silence_is_one_step_or_less(tmp_path):
    step = 2.0**-15
    assert kind_of(save(tmp_path / "zeros.wav", np.zeros(16000))) == "silent"
    assert kind_of(save(tmp_path / "one.wav", np.full(16000, -step))) == "silent"
    assert audio.read(save(tmp_path / "two.wav", np.full(16000, -2 * step))).max() == -2 * step
    assert not audio.read(tmp_path / "zeros.wav", strict=False).any()


def test_a_silent_crop_is_refused_beside_a_sounding_one(tmp_path):
    path = save(tmp_path / "a.wav", np.concatenate([np.zeros(32000), speechlike(2.0)]))
    with pytest.raises(AudioError, match="silent"):
        audio.crops(path, 0, 64000, [0.0, 1.0], 16000)


def test_short_is_below_a_tenth_of_a_second(tmp_path):
    path = save(tmp_path / "a.wav", speechlike(0.05))
    assert kind_of(path) == "short"
    assert len(audio.read(path, strict=False)) == 800
    assert len(audio.read(save(tmp_path / "b.wav", speechlike(0.1)))) == 1600
    with pytest.raises(AudioError, match="0.050 s is too short, want at least 0.1 s"):
        audio.crops(path, 0, 800, [0.0], 32000)


@pytest.mark.parametrize("where", [(500, 500), (900, 100), (-5, 100), (99999, None)])
def test_a_part_without_samples_is_empty(tmp_path, where):
    assert kind_of(save(tmp_path / "a.wav", speechlike(1.0)), *where) == "empty"


def test_an_error_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(AudioError("a.wav: silent", "silent")))
    assert (str(error), error.kind) == ("a.wav: silent", "silent")


def test_find_is_sorted_and_leaves_out_hidden_and_other_files(tmp_path):
    for name in ("b/2.WAV", "b/10.opus", "a.flac", ".hidden/x.wav", "b/._2.wav", "b/notes.txt", "b/3.m4a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert audio.find(tmp_path) == ["a.flac", "b/10.opus", "b/2.WAV"]
