import subprocess
import sys

import numpy as np
import pytest
import torch

import sv_ssl
from sv_ssl import audio
from sv_ssl.core.errors import InputError
from sv_ssl.embeddings import extraction
from sv_ssl.models import folder as model
from sv_ssl.models.embedder import Embedder
from sv_ssl.models.features import LogMel
from sv_ssl.models.resnet import FastResNet34
from sv_ssl.verification import scoring

WAVE = (np.random.default_rng(0).normal(size=16000), 16000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    return model.save(tmp_path_factory.mktemp("api") / "model", Embedder(LogMel(40), FastResNet34(40, "small", 16)), {})


@pytest.fixture(scope="module")
def loaded(folder):
    return sv_ssl.load(folder)


def test_importing_the_package_imports_nothing_slow():
    code = "import sys, sv_ssl; print([name for name in ('torch', 'numpy', 'scipy', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_has_three_names():
    assert sv_ssl.InputError is InputError and sv_ssl.Model.__name__ == "Model"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sv_ssl.nothing


def test_embeddings_are_those_of_the_files(loaded, folder, speech):
    paths = [speech(f"{i}.wav", 0.5 + i, rate=8000, seed=i) for i in range(2)]
    one, both = loaded.embed(paths[0]), loaded.embed([paths[1], str(paths[0])])
    assert one.shape == (16,) and both.shape == (2, 16) and (loaded.dim, loaded.sample_rate) == (16, 16000)
    embedder = model.load(folder)
    expected = [extraction.embed_wave(embedder, audio.read(path)) for path in paths]
    assert np.allclose(one, expected[0], atol=1e-6) and np.allclose(both, expected[::-1], atol=1e-6)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_samples_are_what_a_file_of_them_would_be(loaded, tmp_path, dtype, channels):
    import soundfile

    samples = np.random.default_rng(0).integers(-9000, 9000, (8000, *channels))
    soundfile.write(tmp_path / "a.wav", samples.astype(np.int16), 8000)
    if dtype == "int32":
        given = samples.astype(np.int32) * 2**16
    else:
        given = samples.astype(dtype) / (1 if dtype == "int16" else 32768)
    expected = loaded.embed(tmp_path / "a.wav")
    for wave in (given.astype(dtype), given.astype(dtype).T, torch.from_numpy(given.astype(dtype))):
        assert np.allclose(loaded.embed((wave, 8000)), expected, atol=1e-5)


def test_verify_is_the_cosine(loaded, speech):
    paths = [speech(f"{i}.wav", 1.5, seed=i) for i in range(2)]
    one, other = (loaded.embed(path) for path in paths)
    score = loaded.verify(*paths)
    assert isinstance(score, float)
    assert score == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other), abs=1e-5)


def test_verify_by_crops_is_the_mean_of_all_pairs(loaded, speech):
    paths = [speech(f"{i}.wav", 2.0, seed=i) for i in range(2)]
    crops = [
        [loaded.embed((audio.read(path, begin, begin + 8000), 16000)) for begin in (0, 12000, 24000)] for path in paths
    ]
    pairs = [scoring.crop_score(a[None], b[None]) for a in crops[0] for b in crops[1]]
    assert loaded.verify(*paths, crops=3, crop_seconds=0.5) == pytest.approx(np.mean(pairs), abs=1e-5)


def test_windows_have_times_and_silence_has_none(loaded, tmp_path):
    wave = 0.1 * np.random.default_rng(0).standard_normal(40000)
    wave[16000:32000] = 0
    audio.write(tmp_path / "a.wav", wave, 16000)
    for recording in (tmp_path / "a.wav", (audio.read(tmp_path / "a.wav"), 16000)):
        starts, stops, rows = loaded.windows(recording, window=0.5, hop=0.5)
        assert starts.tolist() == [0, 0.5, 2.0] and stops.tolist() == [0.5, 1.0, 2.5]
        assert np.allclose(rows[2], loaded.embed((wave[32000:], 16000)), atol=1e-3)  # but for 16-bit steps
    assert loaded.windows((wave[8000:16000], 16000))[2].shape == (1, 16)
    assert loaded.windows((wave[16000:32000], 16000))[2].shape == (0, 16)
    with pytest.raises(InputError, match="the samples given: silent"):
        loaded.embed((wave[16000:32000], 16000))


@pytest.mark.parametrize(
    "recording, words",
    [
        ("gone.wav", "gone.wav: no such file"),
        ((np.full(16000, np.nan), 16000), "the samples given: NaN"),
        ((np.ones(10), 16000), "the samples given: .* too short"),
        ((np.ones(16000), 0), "a sample rate of 0"),
        ((np.ones(16000), 16000.5), "a sample rate of 16000.5"),
        ((np.ones(16000), "16000"), "a sample rate of 16000: wanted a whole number"),
        ((np.ones(16000), None), "a sample rate of None"),
        ((np.ones(16000), np.nan), "a sample rate of nan"),
        ((np.ones(16000), np.inf), "a sample rate of inf"),
        ((np.ones(16000), 2**31 - 1), "a sample rate of 2147483647: .* 1,000,000 at most"),
        (([[1, 2], [3]], 16000), "samples that are no array"),
        ((torch.ones(16000, requires_grad=True), 16000), "samples that are no array"),
        ((np.ones(16000, np.int64), 16000), "type int64: wanted"),
        ((np.ones((2, 2, 2)), 16000), "shape .2, 2, 2. "),
        (np.ones(16000), "not ndarray"),
        (("a.wav",), "not tuple"),
    ],
)
def test_bad_recordings(loaded, recording, words):
    for use in (loaded.embed, loaded.windows, lambda bad: loaded.verify(bad, bad)):
        with pytest.raises(InputError, match=words):
            use(recording)


def test_a_window_that_is_damaged_is_an_error(loaded, tmp_path):
    wave = 0.1 * np.random.default_rng(0).standard_normal(32000)
    wave[20000] = np.inf
    with pytest.raises(InputError, match="NaN or infinite"):
        loaded.windows((wave, 16000))


def test_what_is_no_model_folder(tmp_path):
    with pytest.raises(InputError, match="is not a model folder"):
        sv_ssl.load(tmp_path)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda folder, _: sv_ssl.load(folder, precision="fp8"), "precision 'fp8': wanted fp32 or bf16"),
        (lambda folder, _: sv_ssl.load(folder, precision=None), "precision None: wanted fp32 or bf16"),
        (lambda *_: sv_ssl.load(None), "wanted the path of a model folder, not None"),
        (lambda *_: sv_ssl.load(b"m"), "wanted the path of a model folder, not b'm'"),
        (lambda *_: sv_ssl.load("a\0b"), "wanted the path of a model folder"),
        (lambda _, m: m.verify(WAVE, WAVE, crops=-1), "crops is -1: wanted a whole number of at least 0"),
        (lambda _, m: m.verify(WAVE, WAVE, crops="2"), "crops is '2'"),
        (lambda _, m: m.verify(WAVE, WAVE, crops=10**9), "crops is 1000000000: wanted 10000 at most"),
        (lambda _, m: m.verify(WAVE, WAVE, 2, crop_seconds=0), "crop_seconds is 0: wanted a number of at least 0.1"),
        (lambda _, m: m.verify(WAVE, WAVE, 2, crop_seconds=1e9), "crop_seconds is 1000000000.0: wanted 18000 at most"),
        (lambda _, m: m.verify(WAVE, WAVE, 2, crop_seconds=float("nan")), "crop_seconds is nan"),
        (lambda _, m: m.embed([WAVE], workers=-1), "workers is -1: wanted a whole number of at least 0"),
        (lambda _, m: m.embed([WAVE], workers="2"), "workers is '2'"),
        (lambda _, m: m.windows(WAVE, workers=-1), "workers is -1"),
        (lambda _, m: m.windows(WAVE, window="a"), "window is 'a': wanted a number"),
        (lambda _, m: m.windows(WAVE, hop=None), "hop is None: wanted a number"),
    ],
)
def test_bad_values_are_one_line(folder, loaded, call, words):
    with pytest.raises(InputError, match=words) as caught:
        call(folder, loaded)
    assert "\n" not in str(caught.value)
