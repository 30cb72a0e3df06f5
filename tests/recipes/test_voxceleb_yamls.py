"""Every YAML of the speaker recipes builds, reads no key in vain, says what each key means, and names its command."""

import re
from functools import lru_cache
from pathlib import Path

import pytest
import yaml

from sv_ssl.core.errors import InputError
from sv_ssl.training import recipe_yaml
from sv_ssl.training.settings import SpeakerSettings, known

ROOT = Path(__file__).parents[2]
YAMLS = sorted(p for p in ROOT.glob("recipes/voxceleb/hparams/*.yaml") if p.stem != "demo")


@lru_cache
def read(path):
    return recipe_yaml.read(path, known(SpeakerSettings))


def build(path, **changes):
    return recipe_yaml.build(path, read(path).text, changes)


def test_those_are_all():
    assert len(YAMLS) >= 16, [p.name for p in YAMLS]


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_builds_and_reads_every_key(path):
    built = build(path, data_folder="/data", noise_folder="/noise", room_folder="/rooms", corpus="c")
    assert built["method"].embedder is built["embedder"]
    assert 0 < built["lr"](0.5) <= built["peak_lr"]
    idle = [
        key for key in read(path).written if key not in known(SpeakerSettings) and f"<{key}>" not in read(path).text
    ]
    assert not idle


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_launch_command_is_on_top(path):
    commands = re.findall(r"^#   python (\S+) (\S+)", path.read_text(), re.MULTILINE)
    assert commands
    for script, yaml_file in commands:
        assert (ROOT / script).is_file() and (ROOT / script).parent / yaml_file == path


def test_names_are_all_different():
    names = [read(path).written["name"] for path in YAMLS]
    assert len(set(names)) == len(names)


def test_variants_hold_what_differs():
    """Of each variant a value that is written is another than that of the file beneath, or has another comment."""
    for path in YAMLS:
        own = recipe_yaml.top_level(path.read_text(), path)
        if "extends" in own:
            below = read(path.parent / own.pop("extends"))
            same = [key for key in own if own[key] == below.written.get(key)]
            assert all(read(path).meanings.get(key) != below.meanings.get(key) for key in same), path


def test_every_demo_key_is_known_somewhere():
    demo = ROOT / "recipes" / "voxceleb" / "hparams" / "demo.yaml"
    keys = {key for path in YAMLS for key in read(path).written}
    assert set(yaml.safe_load(demo.read_text())) <= keys | {"threads"}  # a setting that no YAML writes down


def test_papers_settings():
    """What the paper reports is what am.yaml says: symmetric, margin 0.1, temperature 1/30, batch 200, 150 epochs."""
    built = build(YAMLS[0].parent / "am.yaml", noise_folder="/noise", room_folder="/rooms")
    loss = built["method"].loss
    assert loss.symmetric and loss.margin.keywords == {"m": 0.1}
    assert 1 / loss.temperature == pytest.approx(30)
    assert (built["batch_size"], built["epochs"], built["embedder"].dim) == (200, 150, 512)


@pytest.mark.parametrize(
    "name, key, value, text",
    [
        ("am", "n_mels", 0, "n_mels is 0: wanted a whole number of at least 1"),
        ("am", "hop_seconds", 0, "hop_seconds is 0: wanted a number of at least 0.001"),
        ("sslsv", "n_mels", 1.5, "n_mels is 1.5: wanted a whole number"),
        ("am", "dim", 0, "dim is 0: wanted a whole number of at least 1"),
        ("am", "temperature", 0, "temperature is 0: wanted a number of at least 1e-06"),
        ("moco", "temperature", -1, "temperature is -1"),
        ("am", "margin", -0.1, "margin is -0.1: wanted a number of at least 0"),
        ("clar_semi", "class_margin", -0.1, "margin is -0.1"),
        ("aam_softmax", "scale", 0, "scale is 0"),
        ("clar_semi", "ce_weight", -1, "weight of the cross-entropy is -1"),
        ("acl", "alpha", 1.1, "alpha is 1.1: wanted 1 at most"),
        ("acl", "margin_rad", 4, "margin_rad is 4: wanted 3.14159 at most"),
        ("add_soft", "lambda_mu", -1, "lambda_mu is -1"),
        ("add_soft", "lambda_sigma", -1, "lambda_sigma is -1"),
        ("add_soft", "smoothing", 1, "mixup is 0.5 and smoothing 1"),
        ("am", "noise_prob", 2, "prob of a noise is 2: wanted 1 at most"),
        ("am", "reverb_prob", -1, "prob of a room is -1: wanted a number of at least 0"),
    ],
)
def test_what_takes_a_number_checks_it(name, key, value, text):
    with pytest.raises(InputError, match=re.escape(text)):
        build(YAMLS[0].parent / f"{name}.yaml", noise_folder="/noise", room_folder="/rooms", **{key: value})
