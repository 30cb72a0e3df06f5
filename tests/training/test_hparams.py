"""Every YAML of every recipe builds, reads no key in vain, and names its own launch command."""

import re
from pathlib import Path

import pytest
import yaml

from sv_ssl.core.errors import InputError
from sv_ssl.training import settings

ROOT = Path(__file__).parents[2]
YAMLS = sorted(p for p in ROOT.glob("recipes/voxceleb/hparams/*.yaml") if p.stem != "demo")


def plain(path):
    return settings.top_level(path.read_text(), path)


def test_those_are_all():
    assert len(YAMLS) == 16, [p.name for p in YAMLS]


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_builds_and_reads_every_key(path):
    known = plain(path)
    named = {"data_folder": "/data", "noise_folder": "/noise", "room_folder": "/rooms", "corpus": "c"}
    built = settings.build(path, named)
    assert built["method"].embedder is built["embedder"]
    assert 0 < built["lr"](0.5) <= built["peak_lr"]
    text = path.read_text()
    read = settings.NEEDED | settings.OPTIONAL.keys() | {"__set_seed"}
    idle = [key for key in known if key not in read and f"<{key}>" not in text]
    assert not idle


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_launch_command_is_on_top(path):
    commands = re.findall(r"^#   python (\S+) (\S+)", path.read_text(), re.MULTILINE)
    assert commands
    for script, yaml_file in commands:
        assert (ROOT / script).is_file() and (ROOT / script).parent / yaml_file == path


def test_names_are_all_different():
    names = [plain(path)["name"] for path in YAMLS]
    assert len(set(names)) == len(names)


def test_every_demo_key_is_known_somewhere():
    for demo in ROOT.glob("recipes/voxceleb/hparams/demo.yaml"):
        known = {key for path in demo.parent.glob("*.yaml") if path != demo for key in plain(path)}
        sizes = yaml.safe_load(demo.read_text())
        own = {key: value for key, value in sizes.items() if isinstance(value, dict)}
        assert all((demo.parents[1] / f"{recipe}.py").is_file() for recipe in own)
        assert set(sizes) - set(own) | set().union(*own.values()) <= known


def test_a_recipe_may_have_demo_sizes_of_its_own():
    known = {"epochs": 100, "temperature": 0.03, "batch_size": 256}
    folder = ROOT / "recipes" / "voxceleb"
    moco, simclr = (settings.demo_sizes(str(folder / f"train_{name}_am.py"), known) for name in ("moco", "simclr"))
    assert moco == {**simclr, "epochs": 18, "temperature": 0.01} and simclr == {"epochs": 16, "batch_size": 64}


def test_papers_settings():
    """What the paper reports is what am.yaml says: symmetric, margin 0.1, temperature 1/30, batch 200, 150 epochs."""
    built = settings.build(YAMLS[0].parent / "am.yaml", {"noise_folder": "/noise", "room_folder": "/rooms"})
    loss = built["method"].loss
    assert loss.symmetric and loss.margin.keywords == {"m": 0.1}
    assert 1 / loss.temperature == pytest.approx(30)
    assert (built["batch_size"], built["epochs"], built["embedder"].dim) == (200, 150, 512)


@pytest.mark.parametrize(
    "text, given",
    [
        (["a.yaml", "--x=/a=b/c"], {"x": "/a=b/c"}),
        (["a.yaml", "--x", "1e-3"], {"x": 0.001}),
        (["--x=1", "a.yaml"], {"x": 1}),
        (["a.yaml", "--flag"], {"flag": True}),
        (["a.yaml", "--flag", "--x=no: yes"], {"flag": True, "x": "no: yes"}),
        (["a.yaml", "--x=[3, 7]"], {"x": [3, 7]}),
        (["a.yaml", "--x=null"], {"x": None}),
        (["a.yaml", "--x="], {"x": None}),
    ],
)
def test_command_lines(text, given):
    assert settings.arguments(text) == ("a.yaml", given)


def test_two_files_or_none_are_refused():
    for argv in ([], ["a.yaml", "b.yaml"]):
        with pytest.raises(InputError, match="wanted one YAML file"):
            settings.arguments(argv)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "a: !new:no.such.Class\n", "a: !ref <b>\n"])
def test_a_broken_yaml_is_one_line(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="bad.yaml") as caught:
        settings.build(path, settings.top_level(text, path) and {})
    assert "\n" not in str(caught.value)
