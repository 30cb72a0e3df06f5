"""Noise and rooms: what is drawn, from where, and that applying it gives the level and the SNR that were asked for."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import soundfile
import torch

from sv_ssl import audio
from sv_ssl.audio.noise import Noise, Noises, Reverberation, Rooms, _read_crop, reverberate
from sv_ssl.audio.transform import Pipeline
from sv_ssl.core.errors import InputError

RATE = 16000
DATA = Path(__file__).parents[2] / "../shared/data"


def generator(seed=0):
    return np.random.default_rng(seed)


def tone(hertz, seconds=2.0, rate=RATE, level=0.1):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def level_db(wave):
    return 10 * torch.log10(wave.double().square().mean(dim=-1))


@pytest.fixture
def musan(tmp_path):
    """noise/, music/ and speech/ with tones of 200, 1000 and 3000, 3100, ... Hz."""
    audio.write(tmp_path / "musan" / "noise" / "free" / "n.wav", tone(200), RATE)
    audio.write(tmp_path / "musan" / "music" / "m.wav", tone(1000), RATE)
    for i in range(8):
        audio.write(tmp_path / "musan" / "speech" / f"{i}.wav", tone(3000 + 100 * i, level=0.02 * (i + 1)), RATE)
    return tmp_path / "musan"


def apply(wave, noise, snr_db, rir):
    """Rooms, then noise, as a pipeline of both applies them."""
    both = Pipeline([Reverberation(Rooms("unused")), Noise(Noises("unused"))])
    return both.apply(wave, {"0.rir": rir, "1.noise": noise, "1.snr_db": snr_db})


@pytest.fixture
def batch():
    torch.manual_seed(0)
    decay = torch.exp(-torch.arange(800) / 100)
    return (
        0.1 * torch.randn(5, 4000),
        0.03 * torch.randn(5, 4000),
        torch.tensor([0.0, 5.0, 10.0, 15.0, 20.0]),
        torch.randn(5, 800) * decay,
    )


# ------------------------------------------------------------------------------------------------------- drawing
def test_nothing_is_drawn_with_probability_zero(musan):
    noise = Noise(Noises(musan), prob=0.0).draw(generator(), 100)
    assert not noise["noise"].any() and np.isinf(noise["snr_db"])
    room = Reverberation(Rooms(musan), prob=0.0).draw(generator(), 100)
    assert room["rir"][0] == 1 and not room["rir"][1:].any()


def test_a_draw_has_fixed_shapes_and_depends_on_the_generator_alone(musan):
    everything = Pipeline([Reverberation(Rooms(musan), seconds=0.25), Noise(Noises(musan))])
    first, again = (everything.draw(generator(3), 32000) for _ in range(2))
    assert {key: (value.shape, value.dtype) for key, value in first.items()} == {
        "0.rir": ((4000,), np.float32),
        "1.noise": ((32000,), np.float32),
        "1.snr_db": ((), np.float32),
    }
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    assert not np.array_equal(first["1.noise"], everything.draw(generator(4), 32000)["1.noise"])


def test_a_probability_is_that_of_each_crop(musan):
    noise, room = Noise(Noises(musan), prob=0.3), Reverberation(Rooms(musan), prob=0.3)
    rng = generator()
    assert 60 < sum(np.isfinite(noise.draw(rng, 100)["snr_db"]) for _ in range(300)) < 120
    assert 60 < sum(room.draw(rng, 100)["rir"][1:].any() for _ in range(300)) < 120


def pitch(wave):
    """The frequency of the strongest component, in Hz."""
    return np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave)


def test_kinds_are_drawn_evenly_each_with_its_own_snr(musan):
    source, rng, seen = Noise(Noises(musan)), generator(), []
    for _ in range(150):
        drawn = source.draw(rng, 3200)
        kind = {200: "noise", 1000: "music"}.get(round(pitch(drawn["noise"]) / 100) * 100, "speech")
        seen.append((kind, float(drawn["snr_db"])))
    for kind, (low, high) in {"noise": (0, 15), "music": (5, 15), "speech": (13, 20)}.items():
        snr_db = [value for k, value in seen if k == kind]
        assert 30 < len(snr_db) < 70
        assert low <= min(snr_db) < low + 2 and high - 2 < max(snr_db) <= high


def test_speech_is_babble_of_three_to_seven_talkers_at_one_level(musan):
    source, rng, counts = Noise(Noises(musan), snr_db={"speech": (13, 20)}), generator(), Counter()
    source.noises.paths = {"speech": source.noises.paths["speech"]}
    for _ in range(60):
        spectrum = np.abs(np.fft.rfft(source.draw(rng, 3200)["noise"])) / 1600
        talkers = spectrum[600:750:20]  # 3000, 3100, ... Hz in steps of 5 Hz
        heard = talkers > 0.1
        assert talkers[heard] == pytest.approx(np.sqrt(2), rel=0.01)
        counts[int(heard.sum())] += 1
    assert set(counts) == {3, 4, 5, 6, 7}


def test_babble_of_few_files_takes_some_twice(tmp_path):
    audio.write(tmp_path / "speech" / "only.wav", tone(1000), RATE)
    assert Noise(Noises(tmp_path)).draw(generator(), 1600)["noise"].any()


def test_only_the_needed_part_of_a_noise_is_read(tmp_path, monkeypatch):
    audio.write(tmp_path / "long.flac", np.arange(30 * RATE) % 30000 / 30000, RATE)
    asked, original = [], soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, n, **how: asked.append(n) or original(self, n, **how))
    source, rng = Noise(Noises(tmp_path)), generator()
    starts = {float(source.draw(rng, 8000)["noise"][0]) for _ in range(20)}
    assert asked == [8000] * 20 and len(starts) == 20


@pytest.mark.parametrize("name, rate", [("a.wav", RATE), ("a.flac", RATE), ("a.wav", 8000)])
@pytest.mark.parametrize("n_samples", [500, 2000, 2001, 9000])
def test_noises_are_the_crops_that_audio_reads(tmp_path, name, rate, n_samples):
    path = str(tmp_path / name)
    audio.write(path, generator().uniform(-1, 1, 2000), rate)
    for fraction in (0.0, 0.123, 0.5, 1.0):
        expected, _ = audio.crops(path, 0, None, [fraction], n_samples, RATE, strict=False)
        np.testing.assert_array_equal(_read_crop(path, fraction, n_samples, RATE), expected[0])


def test_a_wav_is_opened_as_audio_unless_it_is_plain(tmp_path, monkeypatch):
    """24-bit, stereo, with a chunk before and behind the samples, cut short, promising 2 GB as pipes do."""
    tones, asked, original = tone(200, 0.5), [], audio.crops
    monkeypatch.setattr(audio, "crops", lambda path, *rest, **how: asked.append(path) or original(path, *rest, **how))
    soundfile.write(tmp_path / "deep.wav", tones, RATE, subtype="PCM_24")
    soundfile.write(tmp_path / "stereo.wav", np.stack([tones, tones], 1), RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "plain.wav", tones, RATE, subtype="PCM_16")
    plain = (tmp_path / "plain.wav").read_bytes()
    chunk = b"LIST" + (4).to_bytes(4, "little") + b"INFO"
    (tmp_path / "chunks.wav").write_bytes(plain[:36] + chunk + plain[36:] + chunk)
    (tmp_path / "cut.wav").write_bytes(plain[:-1000])
    (tmp_path / "streamed.wav").write_bytes(plain[:40] + b"\xff\xff\xff\x7f" + plain[44:])
    read = {
        path.name: _read_crop(str(path), 0.7, 1000, RATE)
        for path in sorted(tmp_path.iterdir())
        if path.name != "cut.wav"
    }
    assert [Path(path).name for path in asked] == ["deep.wav", "stereo.wav", "streamed.wav"]
    for name, piece in read.items():
        np.testing.assert_array_equal(piece, original(tmp_path / name, 0, None, [0.7], 1000, RATE, strict=False)[0][0])
    with pytest.raises(audio.AudioError, match="cut.wav: truncated"):
        _read_crop(str(tmp_path / "cut.wav"), 0.0, 1000, RATE)


def test_a_noise_that_is_lost_meanwhile_is_named(tmp_path):
    path = tmp_path / "a.wav"
    audio.write(path, tone(200, 0.5), RATE)
    assert len(_read_crop(str(path), 1.0, 1000, RATE)) == 1000
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(audio.AudioError, match="a.wav: truncated"):
        _read_crop(str(path), 1.0, 1000, RATE)
    path.unlink()
    with pytest.raises(audio.AudioError, match="a.wav: no such file"):
        _read_crop(str(path), 1.0, 1000, RATE)


def test_a_short_noise_is_tiled_and_a_silent_one_is_no_error(tmp_path):
    audio.write(tmp_path / "a" / "short.wav", np.arange(1, 501) / 32768, RATE)
    noise = Noise(Noises(tmp_path / "a")).draw(generator(), 1200)["noise"] * 32768
    assert noise.tolist() == [1 + i % 500 for i in range(1200)]
    audio.write(tmp_path / "b" / "silent.wav", np.zeros(5000), RATE)
    assert not Noise(Noises(tmp_path / "b")).draw(generator(), 1200)["noise"].any()


def test_noise_and_rooms_of_another_rate_are_resampled(tmp_path):
    audio.write(tmp_path / "noise.flac", tone(1000, rate=44100), 44100)
    assert pitch(Noise(Noises(tmp_path)).draw(generator(), 16000)["noise"]) == pytest.approx(1000, abs=1)
    impulses = np.zeros(24000)
    impulses[[3000, 6000]] = 0.8, 0.4  # 62.5 ms apart
    audio.write(tmp_path / "rooms" / "room.wav", impulses, 48000)
    rir = Reverberation(Rooms(tmp_path / "rooms")).draw(generator(), 1)["rir"]
    assert rir[0] == 1 and rir[1000] == pytest.approx(0.5, abs=0.01)


def test_a_room_starts_at_its_direct_path_and_has_a_fixed_length(tmp_path):
    wave = np.zeros(9000)
    wave[[10, 500, 700, 8999]] = 0.2, -0.8, 0.4, 0.1
    audio.write(tmp_path / "room.wav", wave, RATE)
    longer, shorter = (Reverberation(Rooms(tmp_path), seconds=s).draw(generator(), 1)["rir"] for s in (1.0, 0.1))
    assert len(longer) == 16000 and np.flatnonzero(longer).tolist() == [0, 200, 8499]
    assert longer[[0, 200, 8499]] == pytest.approx([1, -0.5, -0.125], abs=1e-3)
    assert len(shorter) == 1600 and np.flatnonzero(shorter).tolist() == [0, 200]


def test_a_drawn_room_can_be_changed_without_changing_the_next(tmp_path):
    audio.write(tmp_path / "room.wav", np.array([0.5, 0.25]), RATE)
    source = Reverberation(Rooms(tmp_path))
    source.draw(generator(), 1)["rir"][:] = 7
    assert source.draw(generator(), 1)["rir"][:2].tolist() == [1, 0.5]


# --------------------------------------------------------------------------------------------------- where from
def test_a_list_gives_its_split_with_kinds_below_its_own_folder(tmp_path):
    (tmp_path / "noise.csv").write_text(
        "wav,duration,kind,licence,split\na.wav,1,music,x,train\nb.wav,1,babble,x,test\n/c.wav,1,noise,x,train\n"
    )
    assert Noises(tmp_path / "noise.csv").paths == {"noise": ["/c.wav"], "music": [f"{tmp_path}/a.wav"]}
    assert Noises(tmp_path, split="test").paths == {"babble": [f"{tmp_path}/b.wav"]}
    (tmp_path / "rir.csv").write_text("wav\nd.wav\n")
    assert Rooms(tmp_path).paths == Rooms(tmp_path / "rir.csv").paths == [f"{tmp_path}/d.wav"]


def test_a_plain_folder_gives_kinds_by_its_first_subfolders(musan):
    audio.write(musan / "other" / "x.wav", tone(200), RATE)
    paths = Noises(musan).paths
    assert paths["noise"] == [f"{musan}/noise/free/n.wav", f"{musan}/other/x.wav"]
    assert len(paths["speech"]) == 8 and len(paths["music"]) == 1


def test_nothing_is_opened_before_it_is_used():
    Noise(Noises(None), prob=0.0).draw(generator(), 100)
    source = Reverberation(Rooms("/nowhere"))
    with pytest.raises(InputError, match="^/nowhere: no such file: want a list like rir.csv or a folder"):
        source.draw(generator(), 100)


@pytest.mark.parametrize(
    "text, fault",
    [
        ("wav,kind,split\na.wav,noise,test\n", 'no audio files listed for split "train"'),
        ("wav,kind\na.wav,applause\n", 'a.wav is of kind "applause", want one of noise, music, speech, babble'),
        ("path,kind\na.wav,noise\n", 'noise.csv:2: want a "wav"'),
        ("wav,kind\na.wav,noise\nb.wav\n", 'noise.csv:3: want a "wav" and as many fields'),
        ("wav,kind\n\na.wav,noise,more\n", 'noise.csv:3: want a "wav" and as many fields'),
    ],
)
def test_a_bad_list_is_refused_in_one_line(tmp_path, text, fault):
    (tmp_path / "noise.csv").write_text(text)
    with pytest.raises(InputError, match=f"^[^\n]*{fault}[^\n]*$"):
        Noises(tmp_path / "noise.csv").paths


def test_an_empty_folder_and_a_kind_without_snr_are_refused(tmp_path, musan):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no audio files in it or below"):
        Noises(tmp_path / "empty").paths
    with pytest.raises(InputError, match='snr_db has no range for the kind "noise"'):
        Noise(Noises(musan / "noise"), snr_db={"music": (5, 15)}).draw(generator(), 100)


def test_a_damaged_file_is_named_when_it_is_drawn(tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    for source in (Noise(Noises(tmp_path)), Reverberation(Rooms(tmp_path))):
        with pytest.raises(InputError, match="bad.wav: not readable"):
            source.draw(generator(), 100)
    audio.write(tmp_path / "bad.wav", np.zeros(500), RATE)
    with pytest.raises(audio.AudioError, match="bad.wav: silent") as caught:
        Reverberation(Rooms(tmp_path)).draw(generator(), 100)
    assert (caught.value.kind, caught.value.path) == ("silent", str(tmp_path / "bad.wav"))


# ------------------------------------------------------------------------------------------------------ applying
def as_before(wave, noise, snr_db, rir):
    """Version 0.1.0's one function for room and noise."""

    def level(rows):
        return rows.square().mean(dim=1, keepdim=True).sqrt()

    wave, noise, rir = wave.float(), noise.float(), rir.float()
    n_fft = scipy.fft.next_fast_len(wave.shape[1] + rir.shape[1] - 1, real=True)
    wet = torch.fft.irfft(torch.fft.rfft(wave, n_fft) * torch.fft.rfft(rir, n_fft), n_fft)[:, : wave.shape[1]]
    speech = wet * (level(wave) / level(wet).clamp_min(1e-12))
    return speech + level(speech) / level(noise).clamp_min(1e-12) * 10 ** (-snr_db.float()[:, None] / 20) * noise


def test_two_transforms_give_the_numbers_of_the_one_that_they_replace(batch):
    wave, noise, snr_db, rir = batch
    for rows in (wave, wave.half(), wave.double(), 1e-4 * wave):
        assert torch.equal(apply(rows, noise, snr_db, rir), as_before(rows, noise, snr_db, rir))
    nothing = torch.zeros_like(noise), torch.full((5,), torch.inf), torch.eye(1, 800).expand(5, -1)
    assert torch.equal(apply(wave, *nothing), as_before(wave, *nothing))


def test_a_pipeline_in_which_nothing_was_drawn_gives_the_waves_back(batch):
    wave = batch[0]
    assert Pipeline([Noise(Noises("unused"))]).apply(wave, {}) is wave
    assert Pipeline([]).draw(generator(), 100) == {} and Pipeline([]).apply(wave, {}) is wave


def test_a_pipeline_applies_its_steps_in_order(batch):
    wave, noise, snr_db, rir = batch
    first = Pipeline([Noise(Noises("unused")), Reverberation(Rooms("unused"))])
    other_way = first.apply(wave, {"0.noise": noise, "0.snr_db": snr_db, "1.rir": rir})
    expected = reverberate(Noise(Noises("unused")).apply(wave, {"noise": noise, "snr_db": snr_db}), rir)
    assert torch.equal(other_way, expected) and not torch.equal(other_way, apply(wave, noise, snr_db, rir))
    inner = Pipeline([Pipeline([Noise(Noises("unused"))]), Reverberation(Rooms("unused"))])
    nested = inner.apply(wave, {"0.0.noise": noise, "0.0.snr_db": snr_db, "1.rir": rir})
    assert torch.equal(nested, other_way)


def test_reverberate_convolves_and_keeps_the_level(batch):
    wave, _, _, rir = batch
    wet = reverberate(wave, rir)
    for row in range(5):
        expected = np.convolve(wave[row].double(), rir[row].double())[:4000]
        expected *= np.sqrt(np.mean(wave[row].double().numpy() ** 2) / np.mean(expected**2))
        np.testing.assert_allclose(wet[row], expected, atol=1e-6)
    torch.testing.assert_close(level_db(wet), level_db(wave), atol=1e-4, rtol=0)


def test_no_tail_comes_round_to_the_start():
    wave, rir = torch.zeros(1, 400), torch.zeros(1, 113)  # 512 samples in all, a length the transform likes
    wave[0, 399] = 1
    rir[0, [0, 112]] = 1.0
    assert reverberate(wave, rir)[0, :300].abs().max() < 1e-6


def test_noise_is_added_at_the_snr_below_speech_of_unchanged_level(batch):
    wave, noise, snr_db, rir = batch
    speech = apply(wave, torch.zeros_like(noise), snr_db, rir)
    torch.testing.assert_close(level_db(speech), level_db(wave), atol=1e-3, rtol=0)
    added = apply(wave, noise, snr_db, rir) - speech
    torch.testing.assert_close((level_db(speech) - level_db(added)).float(), snr_db, atol=0.01, rtol=0)
    similarity = torch.cosine_similarity(added, noise)
    torch.testing.assert_close(similarity, torch.ones(5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("level", [1e-5, 1.0, 100.0])
def test_the_snr_holds_for_quiet_and_loud_recordings(batch, level):
    wave, noise, snr_db, rir = batch
    speech = reverberate(level * wave, rir)
    added = apply(level * wave, noise, snr_db, rir) - speech
    torch.testing.assert_close((level_db(speech) - level_db(added)).float(), snr_db, atol=0.1, rtol=0)


def test_unit_impulse_and_infinite_snr_change_nothing(batch):
    wave, noise, _, rir = batch
    unchanged = apply(wave, noise, torch.full((5,), torch.inf), torch.eye(1, 800).expand(5, -1))
    torch.testing.assert_close(unchanged, wave, atol=1e-6, rtol=0)


def test_a_row_does_not_depend_on_its_neighbours(batch):
    wave, noise, snr_db, rir = batch
    wave = wave * torch.tensor([1.0, 1000.0, 1e-3, 1.0, 0.0])[:, None]
    together = apply(wave, noise, snr_db, rir)
    alone = torch.cat([apply(*(argument[i : i + 1] for argument in (wave, noise, snr_db, rir))) for i in range(5)])
    scale = together.abs().amax(dim=1, keepdim=True).clamp_min(1)
    torch.testing.assert_close(together / scale, alone / scale, atol=1e-6, rtol=0)


def test_silence_stays_finite(batch):
    wave, noise, snr_db, rir = batch
    zeros = torch.zeros_like(wave)
    assert not apply(zeros, noise, snr_db, rir).any()
    torch.testing.assert_close(apply(wave, zeros, snr_db, rir), reverberate(wave, rir))
    assert not apply(zeros, zeros, torch.full((5,), torch.inf), torch.zeros_like(rir)).any()


def test_the_inputs_are_left_as_they_were(batch):
    before = [argument.clone() for argument in batch]
    apply(*batch)
    assert all(torch.equal(*pair) for pair in zip(before, batch))


def test_half_precision_input_gives_float32(batch):
    wave, noise, snr_db, rir = batch
    made = apply(wave.half(), noise.half(), snr_db, rir)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, apply(wave, noise, snr_db, rir), atol=2e-3, rtol=0)


def test_the_noises_and_rooms_at_hand_can_be_used():
    if not DATA.exists():
        pytest.skip("no recordings in ../shared/data")
    noises, rooms = Noises(DATA / "noise" / "noise.csv"), Rooms(DATA / "rir" / "rir.csv")
    assert {kind: len(paths) for kind, paths in noises.paths.items()} == {"noise": 13, "babble": 16}
    assert all(Path(path).is_file() for path in [*sum(noises.paths.values(), []), *rooms.paths])
    assert not set(rooms.paths) & set(Rooms(DATA / "rir" / "rir.csv", split="test").paths)
    source, rng = Pipeline([Reverberation(rooms), Noise(noises)]), generator()
    drawn = [source.draw(rng, 32000) for _ in range(20)]
    names = ("1.noise", "1.snr_db", "0.rir")
    noise, snr_db, rir = (torch.tensor(np.stack([d[name] for d in drawn])) for name in names)
    wave = torch.randn(20, 32000)
    added = apply(wave, noise, snr_db, rir) - reverberate(wave, rir)
    torch.testing.assert_close((level_db(wave) - level_db(added)).float(), snr_db, atol=0.1, rtol=0)
