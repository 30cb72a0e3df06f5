"""A setting is written down once: its default, check, help and resume rule follow from its field."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.reporting import record
from sv_ssl.training import command_line, recipe_yaml, run_folder, settings
from sv_ssl.training.settings import ClipSettings, SpeakerSettings, setting

ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / "recipes" / "voxceleb" / "train_simclr_am.py")
KINDS = {"voxceleb": SpeakerSettings, "audio_probes": ClipSettings}
YAMLS = [p for name in KINDS for p in sorted(ROOT.glob(f"recipes/{name}/hparams/*.yaml")) if p.stem != "demo"]


# ------------------------------------------------------------------------------------------------ one place a setting
@dataclass(frozen=True, kw_only=True)
class More(SpeakerSettings):
    patience: int = setting(3, "epochs without a better one", at_least=1, at_most=9, resumable=True)
    kind_of_noise: str = setting("any", "what is added", choices=("any", "music", "babble"))


def read(*words, kind=More):
    return command_line.read(kind, RECIPE, ["hparams/am.yaml", "--data_folder=/data", *words])


def test_a_new_setting_has_its_default_and_takes_a_value():
    assert read().plain["patience"] == 3 and read("--patience", "5").plain["patience"] == 5
    assert read("--kind_of_noise=music").facts()["overrides"] == {"data_folder": ".../data", "kind_of_noise": "music"}


@pytest.mark.parametrize(
    "word, text",
    [
        ("--patience=0", "--patience is 0: wanted a whole number of at least 1"),
        ("--patience=1.5", "--patience is 1.5: wanted a whole number of at least 1"),
        ("--patience=10", "--patience is 10: wanted 9 at most"),
        ("--patience=[1]", "--patience is [1]: wanted one value, not a list"),
        ("--kind_of_noise=rain", "--kind_of_noise is 'rain': choose any, music or babble"),
        ("--patienc=1", "am.yaml has no key 'patienc': did you mean patience?"),
    ],
)
def test_a_new_setting_is_checked(word, text):
    with pytest.raises(InputError) as caught:
        read(word)
    assert str(caught.value).startswith(text)


def test_a_new_setting_is_in_the_help():
    page = command_line.help_page(More, RECIPE, ["hparams/am.yaml", "--help"])
    entry = "\n  --patience 3\n      epochs without a better one (from 1 to 9; may differ when resumed)\n"
    assert entry in page and "\n  --kind_of_noise any\n      what is added (any or music or babble)\n" in page


def test_a_new_setting_may_differ_on_resume_as_its_field_says(tmp_path):
    def claim(*words):
        run_folder.claim(read(*words), tmp_path / "out", {}, {"training": "x"}, threads=1)

    claim()
    claim("--patience=5")
    with pytest.raises(InputError, match="holds a run with kind_of_noise any, this one has music: choose another"):
        claim("--kind_of_noise=music")
    assert "patience" not in json.loads((tmp_path / "out" / "settings.json").read_text())


def test_a_run_that_was_begun_before_a_setting_existed_had_its_default(tmp_path):
    run_folder.claim(read(kind=SpeakerSettings), tmp_path, {}, {}, threads=1)
    run_folder.claim(read(), tmp_path, {}, {}, threads=1)
    with pytest.raises(InputError, match="a run with kind_of_noise any, this one has babble"):
        run_folder.claim(read("--kind_of_noise=babble"), tmp_path, {}, {}, threads=1)


# ------------------------------------------------------------------------------------------------------- all settings
@pytest.mark.parametrize("kind", KINDS.values())
def test_every_setting_has_a_meaning_and_a_default_that_it_accepts(kind):
    for name, default in settings.defaults(kind).items():
        about = settings.known(kind)[name]
        assert about.meaning and not about.meaning.endswith("."), name
        assert about.built or not settings.fault(default, settings.types(kind)[name], about), name


def test_results_pass_over_what_is_the_machines():
    """`record.MACHINE` is read with results of any age, so it is a list of its own; seeds are told apart elsewhere."""
    machine = {name for kind in KINDS.values() for name, about in settings.known(kind).items() if about.machine}
    assert {"seed", *machine} == record.MACHINE


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: f"{p.parts[-3]}/{p.stem}")
def test_every_key_is_in_the_help_with_what_it_means(path):
    kind = KINDS[path.parts[-3]]
    found = recipe_yaml.read(path, settings.known(kind))
    page = command_line.help_page(kind, RECIPE, [str(path)])
    entries = dict(zip(page.splitlines(), page.splitlines()[1:]))
    objects = {key for key, about in settings.known(kind).items() if about.built}
    for key in {*settings.known(kind), *found.written} - objects:
        [meaning] = [below for head, below in entries.items() if head.startswith(f"  --{key} ")]
        assert meaning.startswith("      ") and len(meaning.split()) > 1, key


# ------------------------------------------------------------------------------------------------------ command lines
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
    assert command_line.arguments(text) == ("a.yaml", given)


def test_two_files_or_none_are_refused():
    for argv in ([], ["a.yaml", "b.yaml"]):
        with pytest.raises(InputError, match="wanted one YAML file"):
            command_line.arguments(argv)


def test_a_yaml_without_a_needed_key_is_refused(tmp_path):
    (tmp_path / "short.yaml").write_text("name: a\nepochs: 1\n")
    with pytest.raises(InputError, match="short.yaml lacks the key batch_size: start from a copy"):
        command_line.read(SpeakerSettings, RECIPE, [str(tmp_path / "short.yaml")])


def test_reading_makes_nothing_and_says_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = command_line.read(SpeakerSettings, RECIPE, ["hparams/am.yaml"])
    assert config.built_in and config.plain["epochs"] == 14  # of demo.yaml
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_the_whole_yaml_is_printed_as_it_would_be_run(tmp_path):
    changes = ["--epochs=7", "--cohort=5", "--margin=0.3", "--print_config"]
    config = command_line.read(SpeakerSettings, RECIPE, ["hparams/aam.yaml", "--data_folder=/data", *changes])
    text = config.resolved()
    assert config.print_only and "!ref" not in text and "\nepochs: 7" in text and "\ncohort: 5\n" in text
    assert text.count("m: 0.3") == 1 and "margin.angular" in text
    (tmp_path / "again.yaml").write_text(text)
    again = recipe_yaml.read(tmp_path / "again.yaml", ())
    assert recipe_yaml.top_level(recipe_yaml.resolved(again.path, again.text, {}), again.path) == again.written
