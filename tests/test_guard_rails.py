"""Today's commands give today's outputs: what version 0.1.0 wrote into tests/golden/v1 is written and read the same.

Only the outer surface is used (the commands by their names in setup.cfg, `sv_ssl.load`, `python -m`, files), so that
these tests stay as they are when modules move. tests/golden/v1/README.md says what each file is.
"""

import configparser
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import kaldiio
import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml
from hyperpyyaml import resolve_references
from ruamel.yaml import YAML

from sv_ssl.embeddings import search
from sv_ssl.training import recipe_yaml
from sv_ssl.training.settings import ClipSettings, SpeakerSettings, known

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "v1"
NAMES = (
    "sv-score",
    "sv-extract",
    "sv-verify",
    "sv-diarize",
    "sv-import",
    "sv-export",
    "sv-index",
    "sv-identify",
    "sv-analyze",
)
MODELS = {"model_fast": "embeddings.npz", "model_ecapa": "embeddings_ecapa.npz", "model_plain": "embeddings_plain.npz"}
FORMS = (
    "embeddings.npz",
    "embeddings.npy",
    "embeddings.ark",
    "embeddings.scp",
    "kaldi.scp",
    "embeddings.parquet",
    "embeddings.pt",
    "embeddings_files",
)
PASSING = {"version", "versions", "commit", "time", "date", "seconds", "minutes"}  # keys that differ from run to run
# A calibration is fitted by scipy now, whose versions round differently: last digits differ, and so its digest.
CALIBRATED = {"calibration.json", "calibrated.json", "calibrated.txt", "fusion.json", "fused.json", "fused.txt"}
# What was added since: a sample of the trials that a calibration was learnt from, and a note where these are measured.
FLATTERS = (
    "the calibration was learnt from these very trials, so the numbers look better than they are: measure on others"
)
ON_ITS_OWN = {"calibrate", "calibration", "fuse"}  # commands
# Cllr is summed in float64 by the order of the scores since, no longer in float32 by that of the lines.
CLLR_MOVES = 1e-6
# p of a paired test is 2 q, q being the share of 1,000 draws of speakers with the rarer sign. The draws are others
# since random streams have names: q has a standard deviation of at most sqrt(0.25 / 1000), the difference of two such
# estimates sqrt(2) times that, and four standard deviations are allowed. The intervals of the golden files do not
# move: with four speakers the percentiles lie on the few values that a replicate can have.
P_MOVES = 4 * 2 * (2 * 0.25 / 1000) ** 0.5


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


COMMANDS = read_json(GOLDEN / "commands.json") if GOLDEN.is_dir() else []
RESOLVED = read_json(GOLDEN / "resolved.json") if (GOLDEN / "resolved.json").is_file() else {}


def entry_points():
    """{command: module:function} as setup.cfg has them."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options.entry_points"]["console_scripts"].split("\n")
    return dict(re.split(r"\s*=\s*", line.strip()) for line in lines if line.strip())


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As when the files were made; on shared cores it is faster too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """A folder with the model folders that are kept as archives."""
    folder = tmp_path_factory.mktemp("models")
    for path in GOLDEN.glob("*.tar.xz"):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def golden(unpacked, tmp_path, monkeypatch):
    """A copy of the golden folder to work in, with its models and a cache that is empty."""
    folder = tmp_path / "v1"
    shutil.copytree(GOLDEN, folder)
    for path in unpacked.iterdir():
        (folder / path.name).symlink_to(path)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    """call("sv-score ...") -> exit code and what was printed; the command is found as its console script is."""

    def run(line):
        words = line.split()
        module, function = entry_points()[words[0]].split(":")
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        try:
            code = getattr(importlib.import_module(module), function)()
        except SystemExit as stop:
            code = stop.code
        return code or 0, capsys.readouterr().out

    return run


def python(*words, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True)


# ------------------------------------------------------------------------------------------------------- comparing
def read_embeddings(path):
    """{id: row} by the libraries of each form, not by ours."""
    if path.suffix == ".npz":
        with np.load(path) as found:
            return dict(zip(found["ids"].tolist(), found["embeddings"], strict=True))
    if path.suffix == ".npy":
        return dict(zip(path.with_suffix(".ids").read_text().splitlines(), np.load(path), strict=True))
    if path.suffix == ".ark":
        return dict(kaldiio.load_ark(str(path)))
    if path.suffix == ".scp":
        return dict(kaldiio.load_scp(str(path)))
    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path).to_pydict()
        return dict(zip(table["id"], map(np.float32, table["embedding"]), strict=True))
    if path.suffix == ".pt":
        found = torch.load(path, weights_only=True)
        return dict(zip(found["ids"], found["embeddings"].numpy(), strict=True))
    return {p.relative_to(path).with_suffix("").as_posix(): np.load(p) for p in path.rglob("*.npy")}


def assert_same_rows(found, wanted):
    """Lengths and directions to 1e-6."""
    assert list(found) == list(wanted)
    found, wanted = np.stack(list(found.values())), np.stack(list(wanted.values()))
    length = np.linalg.norm(wanted, axis=1, keepdims=True)
    assert found.dtype == wanted.dtype == np.float32 and found.shape == wanted.shape
    np.testing.assert_allclose(found / length, wanted / length, rtol=0, atol=1e-6)


def lasting(value):
    """JSON without what differs from run to run."""
    if isinstance(value, dict):
        return {key: lasting(one) for key, one in value.items() if key not in PASSING}
    return [lasting(one) for one in value] if isinstance(value, list) else value


def assert_close(found, wanted):
    """Numbers to 1e-9 of themselves, whatever the nesting; all else exactly."""
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted.keys() - {"digest"}:
            assert_close(found[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_close(one, other)
    else:
        assert found == (pytest.approx(wanted, rel=1e-9) if isinstance(wanted, float) else wanted)


def numbers_of(path):
    """The lines of a score file, `enroll test score label`."""
    rows = [line.split() for line in path.read_text().splitlines()]
    return [[*row[:2], float(row[2]), *row[3:]] for row in rows]


def without_p(value):
    """What was printed or written of paired tests without their p, and all p in order."""
    if isinstance(value, dict):
        pairs = {key: without_p(one) for key, one in value.items() if key != "p"}
        own = [value["p"]] if "p" in value else []
        return {key: one for key, (one, _) in pairs.items()}, own + [p for _, more in pairs.values() for p in more]
    if isinstance(value, list):
        pairs = [without_p(one) for one in value]
        return [one for one, _ in pairs], [p for _, more in pairs for p in more]
    match = re.search(r"  p = (\S+)$", value) if isinstance(value, str) else None
    return (value[: match.start()], [float(match[1])]) if match else (value, [])


def assert_same(found, wanted):
    """All exactly but p, which the draws move."""
    (found, p), (wanted, p_wanted) = without_p(found), without_p(wanted)
    assert found == wanted and p == pytest.approx(p_wanted, abs=P_MOVES)


def assert_same_index(found, wanted):
    assert (found.kind, found.names) == (wanted.kind, wanted.names)
    rows, others = (index.rows.reconstruct_n(0, len(index)) for index in (found, wanted))
    assert np.allclose(rows, others, rtol=0, atol=1e-4)


def with_additions(name, wanted):
    """What a JSON of version 0.1.0 holds today."""
    if wanted.get("format") == "sv_ssl calibration 1":
        rest = {key: value for key, value in wanted.items() if key != "digest"}
        sample = read_json(Path(name))["trials"]
        return {**rest, "format": "sv_ssl calibration 1.1", "trials": sample, "digest": wanted["digest"]}
    return {**wanted, "notes": [FLATTERS]} if name in CALIBRATED | {"calibrated_later.json"} else wanted


def assert_same_file(name, exact):
    """Numbers of JSON and text to the last digit if `exact`, else (a model made them) scores to 1e-5."""
    found, wanted = Path(name), GOLDEN / name
    if found.suffix in (".npz", ".npy", ".ark", ".scp", ".parquet", ".pt") or wanted.is_dir():
        assert_same_rows(read_embeddings(found), read_embeddings(wanted))
    elif name in CALIBRATED:
        if found.suffix == ".json":
            assert_close(lasting(read_json(found)), with_additions(name, lasting(read_json(wanted))))
        else:
            assert_close(numbers_of(found), numbers_of(wanted))
    elif found.suffix == ".json":
        found, wanted = lasting(read_json(found)), with_additions(name, lasting(read_json(wanted)))
        assert found.pop("cllr", 0) == pytest.approx(wanted.pop("cllr", 0), abs=CLLR_MOVES)
        assert_same(found, wanted)
    elif found.suffix == ".index":
        assert_same_index(search.load(found), search.load(wanted))
    elif exact:
        assert found.read_text(encoding="utf-8") == wanted.read_text(encoding="utf-8")
    else:
        rows, others = ([line.split() for line in path.read_text().splitlines()] for path in (found, wanted))
        assert [row[:2] + row[3:] for row in rows] == [row[:2] + row[3:] for row in others]
        assert [float(row[2]) for row in rows] == pytest.approx([float(row[2]) for row in others], abs=1e-5)


# -------------------------------------------------------------------------------------------------------- commands
def test_every_command_is_there():
    assert set(NAMES) <= set(entry_points())
    assert {row["command"].split()[0] for row in COMMANDS} == set(NAMES) - {"sv-import", "sv-export"}


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help(call, name):
    code, out = call(f"{name} --help")
    assert code == 0 and out.startswith(f"usage: {name} ")


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row["name"])
def test_writes_and_prints_what_it_did(golden, call, row):
    """What stood there is deleted first; sv-extract alone prints times."""
    for name in row["writes"]:
        shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    code, out = call(row["command"])
    assert code == row["code"] == 0
    if row["command"].split()[0] != "sv-extract":
        printed = row["printed"]
        if row["name"] in ON_ITS_OWN:
            above = printed.index("")  # the metrics
            printed = [*printed[:above], f"note: {FLATTERS}", *printed[above:]]
        assert_same(out.splitlines(), printed)
    for name in row["writes"]:
        assert_same_file(name, exact=name != "crops.scores.txt")


@pytest.mark.parametrize("form", FORMS)
def test_old_embeddings_give_the_same_scores(golden, call, form):
    assert call(f"sv-score trials.txt --embeddings {form} --scores-out new.txt --json new.json")[0] == 0
    assert Path("new.txt").read_text() == (GOLDEN / "scores.txt").read_text()
    assert read_json(Path("new.json"))["eer"] == read_json(GOLDEN / "metrics.json")["eer"]


def test_a_calibration_is_the_same_when_learnt_and_when_applied():
    assert (GOLDEN / "calibrated.txt").read_text() == (GOLDEN / "calibrated_later.txt").read_text()
    assert (GOLDEN / "calibrated.txt").read_text() != (GOLDEN / "scores.txt").read_text()


def test_a_new_index_finds_the_same(golden, call):
    assert call("sv-index new.index --enrol enrol.npz --speakers ids")[0] == 0
    assert call("sv-identify new.index embeddings.npz --top 3 --out new.tsv")[0] == 0
    assert Path("new.tsv").read_text() == (GOLDEN / "identified.tsv").read_text()


def test_an_old_index_can_be_changed(golden, call):
    """id1 is forgotten: all others keep their cosines."""
    assert call("sv-index speakers.index --remove id1")[0] == 0
    assert call("sv-identify speakers.index embeddings.npz --top 2 --out new.tsv")[0] == 0
    old = [line.split("\t") for line in (GOLDEN / "identified.tsv").read_text().splitlines()]
    new = [line.split("\t") for line in Path("new.tsv").read_text().splitlines()]
    assert [(row[0], *row[2:]) for row in new] == [(row[0], *row[2:]) for row in old if row[2] != "id1"]


# ---------------------------------------------------------------------------------------------- models and the API
@pytest.mark.parametrize("folder, rows", MODELS.items(), ids=list(MODELS))
def test_an_old_model_folder_loads(golden, folder, rows):
    import sv_ssl

    model, wanted = sv_ssl.load(folder), read_embeddings(GOLDEN / rows)
    assert (model.dim, model.sample_rate) == (len(next(iter(wanted.values()))), 16000)
    made = model.embed([f"data/wav/{name}" for name in wanted])
    assert_same_rows(dict(zip(wanted, made, strict=True)), wanted)


def test_the_api_compares_as_the_score_file_does(golden):
    import sv_ssl

    model = sv_ssl.load("model_fast")
    for line in (GOLDEN / "scores.txt").read_text().splitlines()[:3]:
        one, other, score = line.split()[:3]
        assert model.verify(f"data/wav/{one}", f"data/wav/{other}") == pytest.approx(float(score), abs=1e-5)


def test_the_api_has_the_windows_of_sv_extract(golden):
    import sv_ssl

    starts, stops, rows = sv_ssl.load("model_fast").windows("meeting.wav", 1.5, 0.75)
    lines = [line.split(",") for line in Path("windows.windows.csv").read_text().splitlines()[1:]]
    assert [(float(line[2]), float(line[3])) for line in lines] == list(zip(starts, stops, strict=True))
    wanted = read_embeddings(GOLDEN / "windows.npz")
    assert_same_rows(dict(zip(wanted, rows, strict=True)), wanted)


# ------------------------------------------------------------------------------------------------------ python -m
def test_the_study_has_help(tmp_path):
    done = python("sv_ssl.study", "--help", folder=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m sv_ssl.study ")


def test_the_tables_of_old_results_are_made_again(golden):
    for name in ("summary.csv", "README.md"):
        (golden / "results" / name).unlink()
    done = python("sv_ssl.results", "results", folder=golden)
    assert done.returncode == 0 and done.stdout == "wrote results/README.md, results/summary.csv\n"
    assert (golden / "results" / "summary.csv").read_text() == (GOLDEN / "results" / "summary.csv").read_text()
    note = "All runs were made with the random streams of version 1, until they are made again."
    lines = (golden / "results" / "README.md").read_text().splitlines()
    assert lines.count(note) == 1
    lines.remove(note)
    assert lines == (GOLDEN / "results" / "README.md").read_text().splitlines()


def test_the_results_have_help(tmp_path):
    """In version 0.1.0 this made tables in a folder of that name."""
    done = python("sv_ssl.results", "--help", folder=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m sv_ssl.results ")
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------------------- YAMLs
def plain(node):
    """A YAML node as nested data; an object is {its tag: what it is built from}, a reference is what it refers to."""
    if isinstance(node, yaml.MappingNode):
        value = {plain(key): plain(one) for key, one in node.value}
    elif isinstance(node, yaml.SequenceNode):
        value = [plain(one) for one in node.value]
    else:
        value = node.value if node.style in ("'", '"') else YAML(typ="safe").load(node.value)
    return {node.tag: value} if node.tag.startswith("!") else value


def resolved(path):
    """A recipe's YAML, laid over what it extends, with its references resolved, nothing built."""
    task = {"voxceleb": SpeakerSettings, "audio_probes": ClipSettings}[path.parts[-3]]
    text = recipe_yaml.read(path, known(task)).text
    return plain(yaml.compose(resolve_references(text).read(), Loader=yaml.SafeLoader))


def without_modules(value):
    """Tags without the modules of this package, which may move: `!new:sv_ssl.encoders.ECAPA` is `!new:ECAPA`."""
    if isinstance(value, dict):
        return {re.sub(r"^(!\w+:)sv_ssl\.(\w+\.)*", r"\1", key): without_modules(one) for key, one in value.items()}
    return [without_modules(one) for one in value] if isinstance(value, list) else value


# What was changed on purpose since version 0.1.0.
RENAMED = {
    "!new:Siamese": "!new:SimCLR",  # named as the papers name them
    "!new:Momentum": "!new:MoCo",
}
GONE = {
    "__set_seed",  # the engine seeds, before it builds
    "augment",  # now `transforms`
}
# Keywords of a class that are gone, or have another name.
KEYWORDS = {
    "!new:MoCo": {"momentum": "ema"},  # as the YAMLs' key
    # What is random in the transforms is the data's; the classifier is made when the classes are counted.
    "!new:Labelled": {"augment": None, "seed": None, "n_classes": None},
}


def intended(name, record):
    """What a YAML of version 0.1.0 is to say today."""
    record = renamed({key: value for key, value in record.items() if key not in GONE})
    record["transforms"] = pipeline(RESOLVED[name]["augment"], RESOLVED[name]["method"])
    if (
        record.get("encoder_size") == 1024
    ):  # numbers of channels have the field's names, so that "small" may replace them
        record["encoder_size"] = "c1024"
        record["embedder"]["!new:Embedder"]["encoder"]["!apply:named"]["size"] = "c1024"
        method = next(iter(record["method"].values()))
        method["embedder"] = record["embedder"]
    record["results_folder"] = None  # results go into the output folder, unless they are to be recorded
    [(kind, arguments)] = record["method"].items()
    if kind in ("!new:SimCLR", "!new:MoCo"):
        record.setdefault("labels", "utterance")  # a key of every YAML whose method compares rows...
        arguments["labels"] = record["labels"]  # ... which the method takes
    else:
        record.pop("labels", None)  # supervision says it
        if "mixup" in arguments:
            arguments["mixup"]["!new:Mixup"].pop("n_classes")  # told when the classes are counted
    return record


def renamed(value):
    """The same with today's names of classes and keywords."""
    if isinstance(value, list):
        return [renamed(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {RENAMED.get(key, key): renamed(one) for key, one in value.items()}
    for kind in KEYWORDS.keys() & found.keys():
        names = KEYWORDS[kind]
        found[kind] = {names.get(key, key): one for key, one in found[kind].items() if names.get(key, key)}
    return found


def pipeline(augment, method):
    """The transforms that take the place of Augment and WaveAugment: rooms, noises, and CLAR's of the method."""
    [(kind, old)] = without_modules(augment).items()
    if kind == "!new:WaveAugment":
        return {"!new:Pipeline": {"steps": {"!apply:named": old}}}
    room = {"!new:Reverberation": {"rooms": old["rooms"], "prob": old["reverb_prob"]}}
    noise = {"!new:Noise": {"noises": old["noises"], "prob": old["noise_prob"]}}
    [(_, arguments)] = without_modules(method).items()
    clar = [{"!apply:named": one["!new:WaveAugment"]} for key, one in arguments.items() if key == "augment"]
    return {"!new:Pipeline": {"steps": [room, noise, *({"!new:Pipeline": {"steps": one}} for one in clar)]}}


def test_every_yaml_on_record_is_there():
    folders = [ROOT / "recipes" / recipe / "hparams" for recipe in ("voxceleb", "audio_probes")]
    paths = {str(path.relative_to(ROOT)) for folder in folders for path in folder.glob("*.yaml")}
    assert set(RESOLVED) <= paths and len(RESOLVED) == 26


@pytest.mark.parametrize("name", RESOLVED)
def test_a_yaml_says_what_it_said(name):
    found, wanted = without_modules(resolved(ROOT / name)), intended(name, without_modules(RESOLVED[name]))
    assert {key: found[key] for key in found if found[key] != wanted.get(key, "absent")} == {}
    assert found == wanted


# --------------------------------------------------------------------------------------------- runs begun before
def test_the_run_begun_before_is_whole():
    """Its settings, its log of an epoch, and a checkpoint whose files have the checksums that it names."""
    run = GOLDEN / "run_begun"
    assert read_json(run / "settings.json")["name"] == "tiny" and (run / "hyperparams.yaml").is_file()
    assert [json.loads(line)["epoch"] for line in (run / "train_log.jsonl").read_text().splitlines()] == [1]
    [checkpoint] = (run / "save").glob("CKPT*")
    sums = read_json(checkpoint / "sums.json")
    assert {path.name for path in checkpoint.iterdir()} == {*sums, "sums.json"}
    assert {name: zlib.crc32((checkpoint / name).read_bytes()) for name in sums} == sums
    assert read_json(GOLDEN / "run_begun_am" / "settings.json")["name"] == "simclr_am"
