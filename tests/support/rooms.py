"""The rooms of the package: their order and their files. Used by test_layers.py, tests/docs and sizes.py."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
# Imports point down this list.
ROOMS = [
    "cli",
    "study",
    "training",
    "reporting",
    "analysis",
    "verification",
    "diarization",
    "embeddings",
    "methods",
    "data",
    "losses",
    "models",
    "audio",
    "core",
]
AT_ROOT = {"__init__", "api", "results", "speechbrain"}  # what users import or run by its name


def modules():
    """Return the paths of all modules of the package."""
    return sorted((ROOT / "sv_ssl").rglob("*.py"))


def room(path):
    """Return the room of a file: `losses` for sv_ssl/losses/margin.py, the module's own name at the root."""
    return path.relative_to(ROOT / "sv_ssl").parts[0].removesuffix(".py")
