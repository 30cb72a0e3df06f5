"""A run's output folder: one run at a time, with one set of settings, and where its result goes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sv_ssl.core import seeds
from sv_ssl.core.distributed import barrier, is_main, world_size
from sv_ssl.core.errors import InputError, check_number
from sv_ssl.core.files import atomic_write, exclusive
from sv_ssl.core.guard import check_outputs
from sv_ssl.core.host import cores_each
from sv_ssl.core.json_file import read_object
from sv_ssl.training import settings as fields
from sv_ssl.training.command_line import Config
from sv_ssl.training.recipe_yaml import describes_object
from sv_ssl.training.settings import Settings

RECORD = "settings.json"
AFRESH = "choose another --output_folder, or delete it to start afresh"


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Refuse another run while this one works in the folder; of several processes the first sees to it."""
    if not is_main():
        yield
        return
    with exclusive(folder, "a run", "--output_folder"):
        yield


def check(values: Mapping[str, Any]) -> None:
    """Refuse, before any work, folders that cannot be written to, and a begun run that cannot go on."""
    folder = Path(str(values["output_folder"]))
    writes = [("--output_folder", folder / RECORD)]
    if values["results_folder"]:
        writes.append(("--results_folder", Path(str(values["results_folder"])) / "runs" / "a.json"))
    check_outputs([], writes)
    begun(folder)


def begun(folder: Path) -> dict[str, Any]:
    """Return the settings of the run that the folder holds, nothing if it holds none; refuse one that cannot go on."""
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        record = read_object(path)
        if "threads" in record:
            check_number("threads", record["threads"], at_least=1, at_most=1024, whole=True)
    except InputError as error:
        raise InputError(f"{path} is damaged ({error}): {AFRESH}") from error
    streams = record.get("streams", 1)  # version 0.1 did not name them
    if streams != seeds.VERSION:
        raise InputError(
            f"{folder} holds a run that another version of sv_ssl began: its random streams (version {streams}) are "
            f"gone, today's are version {seeds.VERSION}, so it cannot be resumed: {AFRESH}"
        )
    return record


def threads(settings: Settings) -> int:
    """Return the threads of this process: as asked for, as before if the run is resumed, else one for each core.

    Processes that torchrun has started on this machine share its cores.
    """
    before = begun(Path(settings.output_folder))
    if settings.threads:
        return settings.threads
    if "threads" in before and before.get("processes") == world_size():
        return int(before["threads"])
    return cores_each()


def claim(config: Config, folder: Path, sources: Mapping[str, Any], identity: Mapping[str, str], threads: int) -> None:
    """Write down the run's settings, or refuse a folder that holds a run with others, which would end as neither.

    `sources` is what `Task.sources` returned, `identity` what they do not say, such as the data's hash.
    """
    about = fields.known(config.kind)
    values = {**config.final(sources), **identity}
    plain = {key: value for key, value in values.items() if key not in about or not about[key].resumable}
    if before := begun(folder):
        before = {**fields.defaults(config.kind), **before}
        if changed := [key for key in plain if before.get(key) != plain[key]]:
            raise InputError(f"{folder} holds a run with {_difference(changed, before, plain)}: {AFRESH}")
    elif is_main():
        record = {**plain, "streams": seeds.VERSION, "threads": threads, "processes": world_size()}
        for name, text in (("hyperparams.yaml", config.resolved(sources)), (RECORD, json.dumps(record, indent=2))):
            with atomic_write(folder / name) as temporary:
                temporary.write_text(text.rstrip() + "\n")
    barrier()


def _difference(changed: list[str], before: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    """Return in words what another run has: of plain values the two, of an object, which is long, the name."""
    key = min(changed, key=lambda name: describes_object(plain[name]))
    if describes_object(plain[key]):
        return f"another {key} (compare its hyperparams.yaml with what --print_config prints)"
    return f"{key} {before.get(key)}, this one has {plain[key]}"


def results_folder(settings: Settings) -> Path:
    """Return where the result's JSON goes: into the output folder, unless it was asked to be recorded elsewhere."""
    if settings.results_folder:
        return Path(settings.results_folder)
    return Path("results") if settings.record else Path(settings.output_folder) / "results"
