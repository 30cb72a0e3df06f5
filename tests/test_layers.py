"""Imports point down only: the layers as the README draws them."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = [
    ["files", "progress"],
    ["audio", "cache", "metrics", "layout", "kaldi", "schedules", "distributed", "geometry", "voice",
     "rttm", "cluster"],
    ["manifest", "augment", "features", "losses", "trials", "bootstrap", "embeddings", "scene", "plots", "results",
     "encoders", "heads", "waveaugment", "der", "vad"],
    ["scoring", "page", "plots_classes", "calibrate", "normalise", "conditions", "enroll", "synthetic", "data",
     "audio_encoders", "sources", "peer_encoders", "export", "index", "xvectors",
     "analyze", "probe", "held_out", "sounds"],
    ["methods", "model", "report", "system", "convert", "shards", "clips"],
    ["pyannote", "embed"],
    ["checkpoints", "settings", "corpus", "api", "diarize"],
    ["brain", "cli"],
    ["recipe", "classify"],
    ["study"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules():
    return [p for p in (ROOT / "sv_ssl").rglob("*.py") if p != ROOT / "sv_ssl" / "__init__.py"]


def unit(path):
    """sv_ssl/losses/margin.py belongs to `losses`."""
    return path.relative_to(ROOT / "sv_ssl").parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sv_ssl":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("sv_ssl")]
        for name in names:
            yield name.split(".")[1]


def test_every_module_has_a_layer():
    assert {unit(path) for path in modules()} == set(LEVEL)


def test_imports_point_down():
    upward = [f"{path.name} imports {name}" for path in modules() for name in imports(path)
              if name in LEVEL and name != unit(path) and LEVEL[name] >= LEVEL[unit(path)]]
    assert not upward


def test_one_place_for_each_of_these():
    """torch.distributed in distributed.py, soundfile in audio.py, argparse in cli.py."""
    for package, home in (("soundfile", "audio"), ("argparse", "cli")):
        users = [unit(p) for p in modules() if f"import {package}" in p.read_text()]
        assert set(users) <= {home}, (package, users)


def test_preparation_stands_on_the_lower_layers():
    """data_prep waits for no torch, and has no argparse and no soundfile of its own."""
    paths = list((ROOT / "data_prep").glob("*.py"))
    assert len(paths) > 6
    assert {name for path in paths for name in imports(path)} <= {"audio", "cli", "files", "manifest", "trials"}
    texts = [path.read_text() for path in paths]
    assert not any(f"import {package}" in text for text in texts for package in ("soundfile", "argparse", "torch"))
