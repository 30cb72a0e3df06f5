"""sv-extract: embed recordings with a model folder."""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sv_ssl.cli.extract import arguments
from sv_ssl.core import host
from sv_ssl.core.command import run
from sv_ssl.core.errors import InputError, Skipped
from sv_ssl.core.files import atomic_write, plain
from sv_ssl.core.guard import check_outputs, check_room

BATCH = 32  # waves that pass together on a GPU

if TYPE_CHECKING:
    from sv_ssl.embeddings.parts import Part
    from sv_ssl.embeddings.plan import Plan
    from sv_ssl.verification.trials import Trials


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(lambda: _extract(arguments.check(arguments.parser().parse_intermixed_args(argv))), "sv-extract")


def _extract(given: argparse.Namespace) -> int:
    from sv_ssl.embeddings import parts, store
    from sv_ssl.verification import trials

    store.check_target(given.out)
    check_outputs(_read(given), _written(given))
    listed = trials.read_trials(given.score) if given.score else None
    started = time.perf_counter()
    if host.processes() > 1:
        from sv_ssl.core import distributed

        return distributed.run(lambda: _extract_together(given, listed))
    if given.merge:
        return _write(given.out, parts.merged(given.merge), listed, started)
    part = _embed(given, _plan(given), *(given.shard or (1, 1)))
    return _write_part(given.out, part) if given.shard else _write(given.out, part, listed, started)


def _read(given: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield the files that are read, with those that an scp names; of folders of audio nothing can be replaced."""
    from sv_ssl.embeddings import store

    if given.merge:
        yield from (("--merge", path) for path in given.merge)
    else:
        yield "MODEL", given.model
        yield from (("INPUT", path) for name in given.input if not os.path.isdir(name) for path in store.files(name))
    if given.score:
        yield "--score", given.score


def _written(given: argparse.Namespace) -> Iterator[tuple[str, str | Path]]:
    """Yield the files that are written: the embeddings and what lies beside them."""
    from sv_ssl.embeddings import parts, store

    if given.shard:
        yield "--out", parts.path_of(given.out, *given.shard)
        return
    yield from (("--out", path) for path in store.new_files(given.out) or [Path(given.out, "0.npy")])  # of a folder
    endings = {".skipped.csv": True, ".windows.csv": given.window, ".scores.txt": given.score}
    yield from (("--out", _beside(given.out, ending)) for ending, wanted in endings.items() if wanted)


def _extract_together(given: argparse.Namespace, listed: Trials | None) -> int:
    """Embed a part as one of torchrun's processes; the first one plans before and merges after."""
    from sv_ssl.core import distributed
    from sv_ssl.embeddings import parts

    started = time.perf_counter()
    distributed.start("cpu")  # they talk little, so over gloo, whatever they embed on
    plan = distributed.made_by_first(lambda: _plan(given, divided=True))
    shard, shards = distributed.rank() + 1, distributed.world_size()
    paths = [parts.path_of(given.out, number, shards) for number in range(1, shards + 1)]
    distributed.made_by_all(lambda: parts.write(paths[shard - 1], _embed(given, plan, shard, shards)))
    return distributed.made_by_first(lambda: _write_merged(given.out, paths, listed, started))


def _plan(given: argparse.Namespace, divided: bool = False) -> Plan:
    """Find what to embed, and refuse ids that OUT cannot hold before hours are spent on them."""
    from sv_ssl.embeddings import plan, store

    weigh = bool(divided or given.shard) and not given.crops
    made = plan.make_plan(given.input, given.audio, given.window, given.hop, weigh)
    store.check_target(given.out, plan.crop_ids((u.id for u in made.utterances), given.crops or 0))
    return made


def _embed(given: argparse.Namespace, work: Plan, shard: int, shards: int) -> Part:
    """Load the model and embed one part."""
    import torch

    from sv_ssl.core import distributed
    from sv_ssl.embeddings import extraction, plan
    from sv_ssl.models import folder

    device = given.device
    if host.processes() > 1:
        device = distributed.device(device)
        torch.set_num_threads(host.cores_each())
    embedder = folder.load(given.model, device)
    options = extraction.Options(
        precision=given.precision,
        batch=given.batch or BATCH,
        grid=given.length_grid,
        crops=given.crops or 0,
        crop_seconds=given.crop_seconds or 3.5,
        longest=given.longest,
    )
    check_room("--out", given.out, 4 * embedder.dim * len(work.utterances) * max(1, options.crops) // shards)
    kept = None if given.no_cache else extraction.cache_of(embedder)
    workers = given.workers
    if workers is None:
        workers = plan.usual_workers(work, shards, host.cores_each())
    return plan.embed_part(embedder, work, options, shard, shards, kept, workers, distributed.is_main())


def _write_part(out: str, part: Part) -> int:
    from sv_ssl.embeddings import parts

    path = parts.path_of(out, part.shard, part.shards)
    parts.write(path, part)
    skipped = part.skipped + part.unplanned
    _show_skipped(skipped)
    print(
        f"wrote {path}: {len(part.ids):,} recordings; {len(skipped):,} skipped\n"
        f"next, with all {part.shards}: sv-extract --merge {_beside(out, '.*.part')} --out {out}"
    )
    return 3 if skipped else 0


def _write_merged(out: str, paths: list[Path], listed: Trials | None, started: float) -> int:
    from sv_ssl.embeddings import parts

    if absent := [str(path) for path in paths if not path.exists()]:
        raise InputError(
            f"{absent[0]} is not here: machines without a folder in common keep their parts; copy them to "
            "one, and there: sv-extract --merge"
        )
    code = _write(out, parts.merged(paths), listed, started)
    for path in paths:
        path.unlink(missing_ok=True)
    return code


def _write(out: str, part: Part, listed: Trials | None, started: float) -> int:
    """Write the whole and what belongs beside it; return the exit code."""
    from sv_ssl.embeddings import plan, store

    if listed and not part.crops:
        raise InputError("--score wants parts of --crops")
    skipped = part.unplanned + part.skipped
    rows = part.rows.reshape(-1, part.rows.shape[2])
    tables: dict[str, list[tuple]] = {
        ".skipped.csv": [("id", "reason"), *((plain(one.id), plain(one.reason)) for one in skipped)],
        ".windows.csv": [("id", "recording", "start", "stop"), *part.windows],
    }
    with ExitStack() as beside:  # all of them are written before one takes the place of an earlier one
        for ending, table in tables.items():
            if table[1:]:
                _write_csv(beside.enter_context(atomic_write(_beside(out, ending))), table)
        if part.ids:
            store.write(out, plan.crop_ids(part.ids, part.crops), rows)
    _report_skipped(_beside(out, ".skipped.csv"), skipped)
    if not part.ids:
        raise InputError(f"none of {len(skipped):,} recordings could be embedded; the first: {skipped[0].reason}")
    elapsed = time.perf_counter() - started
    pace = f"{part.seconds:,.1f} s of audio embedded in {elapsed:.1f} s, {part.seconds / elapsed:.0f} x real time"
    print(
        f"wrote {out}: {len(rows):,} embeddings of {rows.shape[1]} dimensions; "
        f"{pace if part.seconds else 'all of them were kept from before'}"
    )
    if part.windows:
        print(f"wrote {_beside(out, '.windows.csv')}: when they start and stop")
    if listed:
        _write_scores(_beside(out, ".scores.txt"), listed, part)
    else:
        print(f"next: {_next(out, part)}")
    return 3 if skipped else 0


def _next(out: str, part: Part) -> str:
    """Return what to do with the file."""
    if part.windows:
        return f"a row of {out} is a window: {_beside(out, '.windows.csv')} has the times, in the same order"
    if part.crops:
        return "--score TRIALS scores a list by all pairs of crops"
    return f"sv-score TRIALS --embeddings {out}"


def _beside(out: str, ending: str) -> Path:
    return Path(out).with_suffix(ending)


def _report_skipped(path: Path, skipped: list[Skipped]) -> None:
    """Say what was skipped and where it is listed; take away the list of an earlier run."""
    if not skipped:
        path.unlink(missing_ok=True)
        return
    _show_skipped(skipped)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in Counter(one.kind for one in skipped).most_common())
    print(f"skipped {len(skipped):,} recordings, listed in {path}: {kinds}", file=sys.stderr)


def _show_skipped(skipped: list[Skipped]) -> None:
    for one in skipped[:10]:
        print(f"skipped: {one.reason}", file=sys.stderr)


def _write_scores(path: Path, listed: Trials, part: Part) -> None:
    from sv_ssl.embeddings import extraction
    from sv_ssl.verification import scoring, trials
    from sv_ssl.verification.crops import crop_scores

    scored = scoring.leave_out(listed, part.ids)
    extracted = extraction.Extracted(part.ids, part.rows, part.skipped, part.seconds)
    trials.write_scores(path, scored, crop_scores(extracted, scored))
    for note in scored.notes:
        print(f"note: {note}")
    print(f"wrote {path}: {len(scored.enroll):,} scores\nnext: sv-score {path}")


def _write_csv(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows(rows)
