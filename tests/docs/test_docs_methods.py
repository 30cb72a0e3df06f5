"""docs/methods.md: its commands run, its table of passes is what a step does, its figures are those of the YAMLs."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from support import pages

from sv_ssl.data.batch import Batch
from sv_ssl.data.synthetic import corpus
from sv_ssl.methods import Facts
from sv_ssl.models.embedder import Embedder
from sv_ssl.training import experiment, recipe_yaml, watch
from sv_ssl.training.settings import SpeakerSettings, known

PAGE = pages.read("docs/methods.md")
RECIPE = pages.ROOT / "recipes" / "voxceleb" / "train.py"
HPARAMS = RECIPE.parent / "hparams"
CELLS = pages.command_cells(PAGE)
LINES = pages.command_lines(PAGE)
# Sizes with which a command takes seconds; a YAML without a key is not given it.
RUN = {"batch_size": 4, "crop_seconds": 0.4, "epochs": 2, "valid_every": 2, "num_workers": 0, "device": "cpu"}
RUN |= {"threads": 1, "watch_every": 3, "baselines": False, "dim": 24, "debug": True}
RUN |= {"encoder": "ECAPA", "encoder_size": "small"}
PARTS = {"hidden": 16, "bottleneck": 8, "projection": 8, "predictor_hidden": 16, "prototypes": 8, "clusters": 4}
PARTS |= {"queue_size": 16, "positives_queue": 16, "codes_queue": 16, "codes_start": 1, "start": 1}
CROPS = {"short_seconds": 0.3, "clean_seconds": 0.4, "cohort": 8}
RATE = 16000


def yaml_of(name):
    return recipe_yaml.read(HPARAMS / name, known(SpeakerSettings))


def sizes(name, *more):
    """Return the small sizes of those keys that a YAML has."""
    written = yaml_of(name).written
    found = {key: value for small in (PARTS, *more) for key, value in small.items() if key in written}
    return found | ({"clusters": [2, 3, 4]} if isinstance(written.get("clusters"), list) else {})


def run(line, data, monkeypatch):
    """Run a line of the page in this process, /data/ being in `data`, and return its exit code."""
    script, yaml, *given = [word.replace("/data/", f"{data}/data/") for word in shlex.split(line)[1:]]
    named = {word[2:] for word in given if word.startswith("--")}
    small = {**RUN, **sizes(Path(yaml).name, CROPS)}
    words = [f"--{key}={value}".replace(" ", "") for key, value in small.items() if key not in named - {"epochs"}]
    monkeypatch.chdir(data)
    return experiment.main(str(pages.ROOT / script), "the recipe's page", [yaml, *given, *words])


@pytest.fixture
def data(tiny, tmp_path, monkeypatch):
    """A folder with data/VoxCeleb, beside it the built-in corpus: both are small."""
    (tmp_path / "data" / "VoxCeleb").mkdir(parents=True)
    for path in tiny.iterdir():
        if path.name != "corpus.json":
            (tmp_path / "data" / "VoxCeleb" / path.name).symlink_to(path)
    monkeypatch.setattr(corpus, "corpus", lambda **sizes: tiny)
    return tmp_path


@pytest.mark.parametrize("line", CELLS)
def test_the_command_of_a_row_runs(line, data, monkeypatch, capsys):
    assert run(line, data, monkeypatch) == 0, capsys.readouterr()


def test_the_commands_of_the_blocks_run_in_their_order(data, monkeypatch, capsys):
    assert len(LINES) == 4
    for line in LINES:
        assert run(line, data, monkeypatch) == 0, capsys.readouterr()


# ------------------------------------------------------------------------------------------------------------- cost
def rows_of(heading):
    """Return the cells of the first table below a heading, row by row, without its head."""
    table = re.search(rf"^## {heading}\n[\s\S]*?((?:^\|.*\n)+)", PAGE, re.MULTILINE)[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def counted(cell):
    """Return the crops of a cell such as `2 x 3 s, 4 x 2 s`: {seconds: number}."""
    return {float(seconds): int(number) for number, seconds in re.findall(r"(\d+) x (\d+) s", cell)}


COST = [
    (name, [counted(cell) for cell in cells], float(work))
    for names, *cells, work in rows_of("Cost")
    for name in re.findall(r"`(\S+\.yaml)`", names)
]


def step_of(name):
    """Return a method, and a batch of 4 recordings with crops as long as its YAML says."""
    yaml = yaml_of(name)
    folders = {"data_folder": "/data", "noise_folder": "/noise", "room_folder": "/rooms", "corpus": "c"}
    small = {"encoder": "ECAPA", "encoder_size": "small", "dim": 24, **sizes(name), "start": 0}
    small = {key: value for key, value in small.items() if key in yaml.written}
    built = recipe_yaml.build(HPARAMS / name, yaml.text, {**folders, **small})
    sides = {"n_views": "crop_seconds", "n_short": "short_seconds", "n_clean": "clean_seconds"}
    views, short, clean = (
        torch.randn(built.get(number, 0), 4, int(RATE * built.get(seconds, 1))) for number, seconds in sides.items()
    )
    crops = {"short": short if len(short) else None, "clean": clean if len(clean) else None}
    return built["method"], Batch(views, torch.arange(4), **crops)


@pytest.mark.parametrize("name, passes, work", COST, ids=[row[0] for row in COST])
def test_what_passes_through_the_encoder(name, passes, work, monkeypatch):
    seen = [{}, {}, {}]  # with gradient, without, and of an encoder at rest
    forward = Embedder.forward

    def count(self, wave):
        kind = seen[0 if torch.is_grad_enabled() else 1 if self.training else 2]
        seconds = wave.shape[1] / RATE
        kind[seconds] = kind.get(seconds, 0) + len(wave) / 4
        return forward(self, wave)

    method, batch = step_of(name)
    method.prepare(Facts(16, None, 0, steps=4, epochs=2, seed=0))
    method.train().on_epoch_start(1)
    monkeypatch.setattr(Embedder, "forward", count)
    method(batch).loss.backward()
    assert seen == passes
    seconds = [sum(length * number for length, number in kind.items()) for kind in seen]
    assert work == 3 * seconds[0] + seconds[1] + seconds[2]


# ---------------------------------------------------------------------------------------------------- what it names
METHODS = {Path(shlex.split(line)[2]).name for line in CELLS}
OLDER = {"am.yaml", "am_ecapa.yaml", "align_uniform.yaml", "moco.yaml", "moco_am.yaml"}


def test_every_method_without_labels_has_its_row():
    there = {path.name for path in HPARAMS.glob("*.yaml") if "voxceleb/train.py hparams" in path.read_text()}
    assert there <= METHODS and METHODS - there == OLDER
    assert {name for name, *_ in COST} >= there


def test_the_yamls_and_the_page_report_the_same():
    for line in re.findall(r"^\| `python .*$", PAGE, re.MULTILINE):
        head = (HPARAMS / re.search(r"hparams/(\S+)`", line)[1]).read_text().partition("\nextends")[0]
        figures = re.findall(r"(\d+\.\d+) %", " ".join(re.findall(r"^# (.*)$", head, re.MULTILINE)))
        assert [figure for figure in figures if figure not in line] == [], line


def test_the_picture_shows_what_there_is():
    [picture] = [block.text for block in pages.blocks(PAGE, "mermaid")]
    nodes = set(re.findall(r"\b([a-z]\w*)[\[(]", picture))
    assert len(nodes) > 14 and all((HPARAMS / f"{node}.yaml").is_file() for node in nodes)
    sampled = re.search(r"^  ssps\(.* -\.-> (.*)$", picture, re.MULTILINE)[1].split(" & ")
    assert {"ssps"} | {f"ssps_{node}" for node in sampled} - {"ssps_am"} == {p.stem for p in HPARAMS.glob("ssps*.yaml")}


def test_files_and_options_that_are_named_are_there():
    assert all((HPARAMS / name).is_file() for name in re.findall(r"`(?:hparams/)?(\w+\.yaml)\b", PAGE))
    keys = {key for path in HPARAMS.glob("*.yaml") for key in yaml_of(path.name).written if path.stem != "demo"}
    keys |= known(SpeakerSettings).keys()
    assert set(re.findall(r"`--(\w+)", PAGE)) <= keys | {"init_from"}


def test_the_limits_of_the_figures_are_those_that_warn():
    rows = {row[0]: row[2] for row in rows_of("What the log shows")}
    limits = {alarm.figure: alarm for alarm in watch.ALARMS}
    wanted = {
        "spread": f"below {limits['spread'].low:g}; below {watch.COLLAPSED:g} the run ends",
        "rank": f"below {limits['rank'].low:g}",
        "variance_lack": f"above {limits['variance_lack'].high:g}",
        "usage": f"below {limits['usage_share'].low:.0%}",
        "target entropy": f"above {limits['entropy_share'].high:.0%}",
        "sampled positives": f"below {limits['coverage'].low:.0%}",
        "clustered": f"below {limits['clustered'].low:.0%}",
    }
    assert len(limits) == len(wanted)
    for figure, text in wanted.items():
        assert rows[figure].startswith(text.replace("%", " %")), figure


def test_what_dino_goes_on_from_has_its_encoder():
    keys = ("encoder", "encoder_size", "dim", "n_mels", "hop_seconds")
    for pair in (("moco_c3", "dino_c3"), ("am_ecapa", "ssps"), ("am_ecapa", "dino"), ("am_ecapa", "sdpn")):
        first, second = (yaml_of(f"{name}.yaml").written for name in pair)
        assert [first[key] for key in keys] == [second[key] for key in keys], pair
