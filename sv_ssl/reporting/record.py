"""Results on disk: the JSON of a run or of a benchmark is written and read here alone.

    results/runs/<run>.json     of speakers: settings, metrics with intervals, versions, device, minutes
    results/audio/<run>.json    of labelled clips: the same, accuracies in place of error rates
    results/benchmarks/*.json   of benchmarks/ and recipes/diarization/: title, about, columns, rows

Error rates and accuracies are fractions. `sv_ssl.reporting.result_tables` makes the tables.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sv_ssl.core import seeds
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import atomic_write

NEEDED = ("name", "corpus", "seed")
PACKAGES = ("torch", "torchaudio", "speechbrain", "numpy")
MACHINE = {  # overrides that say where things are, or how fast, and not what is learnt
    "seed",
    "num_workers",
    "threads",
    "record",
    "device",
    "data_folder",
    "output_folder",
    "results_folder",
    "audio_root",
    "noise_folder",
    "room_folder",
    "valid_trials",
    "test_trials",
}


# --- runs -----------------------------------------------------------------------------------------------------------


def record(folder: str | os.PathLike, result: Mapping[str, Any]) -> Path:
    """Write a run's result as JSON and return its path; the same run done again replaces its file.

    A result has a name, a corpus and a seed. One of speakers has "test", a `scoring.report`, and goes to folder/runs;
    one of labelled clips has "accuracy" and goes to folder/audio. Paths of this machine are cut to .../NAME. The
    version of the random streams, the commit and the versions of the packages are added.
    """
    kind = "accuracy" if "accuracy" in result else "test"
    if absent := [key for key in (*NEEDED, kind) if key not in result]:
        wanted = f"{', '.join(NEEDED)} and test or accuracy"
        raise InputError(f"a run to be recorded needs {wanted}; this one has no {', '.join(absent)}")
    overrides = {key: here(value) for key, value in result.get("overrides", {}).items()}
    result = {**result, "overrides": overrides}
    parts = [result["name"], result["corpus"], f"seed{result['seed']}"]
    if kind == "test":
        result = _with_list_names(result)
        parts.insert(2, Path(result["test"]["list"]).stem)
    if changed(result):
        parts.append(hashlib.sha1(changed(result).encode()).hexdigest()[:6])
    path = Path(folder) / ("audio" if kind == "accuracy" else "runs") / f"{_file_name(parts)}.json"
    write(path, result)
    return path


def _with_list_names(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result whose reports name their lists without folders."""
    named = {**result, "test": _named(result["test"])}
    if "lists" in result:
        named["lists"] = {stem: _named(report) for stem, report in result["lists"].items()}
    return named


def _named(report: Mapping[str, Any]) -> dict[str, Any]:
    return {**report, "list": Path(report["list"]).name}


def _file_name(parts: Iterable[str]) -> str:
    return re.sub(r"[^\w.-]+", "_", "-".join(parts))


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result with the version of the random streams, the commit and the versions of the packages.

    A result of clips, which holds a digit a test clip and a speaker, stands on one line.
    """
    made_by = {"commit": commit(), "versions": versions()}
    result = {"streams": seeds.VERSION, **result, **made_by}
    indent = None if "accuracy" in result else 2
    text = json.dumps(result, indent=indent, allow_nan="accuracy" in result)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read a result of either kind; InputError if it is none."""
    result = _read_json(path, "run")
    if not isinstance(result, dict) or not (result.keys() & {"test", "accuracy"} and result.keys() >= set(NEEDED)):
        raise InputError(f"{path} is not the record of a run: wanted {', '.join(NEEDED)} and test or accuracy")
    return result


def _read_json(path: Path, kind: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not the record of a {kind}: {type(error).__name__} {error}") from error


def here(value: Any) -> Any:
    """Return an option's value with paths as .../NAME: where a machine keeps its data is nobody's business.

    >>> here(["/data/a/O.txt", 1]), here("exp/a")
    (['.../O.txt', 1], 'exp/a')
    """
    if isinstance(value, list):
        return [here(item) for item in value]
    return f".../{Path(value).name}" if isinstance(value, str) and value.startswith("/") else value


def changed(result: Mapping[str, Any]) -> str:
    """Say which overrides of a run are neither the seed nor a matter of the machine.

    >>> changed({"overrides": {"epochs": 3, "seed": 1, "output_folder": "/tmp/x"}})
    'epochs 3'
    """
    kept = {key: value for key, value in sorted(result.get("overrides", {}).items()) if key not in MACHINE}
    return ", ".join(f"{key} {here(value)}" for key, value in kept.items())


def streams_note(results: Collection[Mapping[str, Any]]) -> list[str]:
    """Return the line that says which results were made with older random streams; none where there are none.

    >>> streams_note([{}, {"streams": seeds.VERSION}])
    ['1 of 2 runs were made with the random streams of version 1, until they are made again.']
    >>> streams_note([{"streams": seeds.VERSION}])
    []
    """
    older = [version for result in results if (version := result.get("streams", 1)) < seeds.VERSION]
    if not older:
        return []
    which = "All runs" if len(older) == len(results) else f"{len(older)} of {len(results)} runs"
    named = " and ".join(map(str, sorted(set(older))))
    return [f"{which} were made with the random streams of version {named}, until they are made again."]


# --- what made them -------------------------------------------------------------------------------------------------


def commit() -> str:
    """Return the git commit of the checkout that runs ("-dirty" if changed), else the installed package's version."""
    home = Path(__file__).resolve().parents[2]
    if (home / ".git").exists():
        command = ["git", "-C", str(home), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass  # no git here, or nothing committed yet
    return _version("sv_ssl") or "unknown"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    known = {package: _version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **{package: version for package, version in known.items() if version}}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


# --- benchmarks -----------------------------------------------------------------------------------------------------


def write_benchmark(path: str | os.PathLike, title: str, about: str, columns: Sequence[str], rows: Iterable) -> None:
    """Write one benchmark table (title, columns, rows of text) as JSON."""
    document = {"title": title, "about": about, "columns": list(columns), "rows": [list(row) for row in rows]}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {path}; next: python -m sv_ssl.results results/")


def read_benchmark(path: Path) -> dict[str, Any]:
    """Read one benchmark table; InputError if the file is none."""
    document = _read_json(path, "benchmark")
    try:
        texts = [document["title"], document["about"], *document["columns"]]
        texts += [cell for row in document["rows"] for cell in row]
    except (LookupError, TypeError) as error:
        raise InputError(f"{path} is not the record of a benchmark: {type(error).__name__} {error}") from error
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{path} is not the record of a benchmark: wanted text in every cell")
    return document
