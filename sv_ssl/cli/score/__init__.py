"""sv-score: score a trial list, measure the errors."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sv_ssl.cli.score import options
from sv_ssl.core.command import run
from sv_ssl.core.errors import InputError
from sv_ssl.core.files import aside

if TYPE_CHECKING:
    import numpy as np

    from sv_ssl.verification.calibrate import Calibration
    from sv_ssl.verification.system import System
    from sv_ssl.verification.trials import Trials


def main(argv: Sequence[str] | None = None) -> int:
    """sv-score: command line -> exit code."""
    given = sys.argv[1:] if argv is None else argv
    return run(lambda: _score(options.parser().parse_args(given), ["sv-score", *given]))


def _score(arguments: argparse.Namespace, command: Sequence[str]) -> None:
    from sv_ssl.cli.score import table
    from sv_ssl.verification import metrics, scoring

    options.check(arguments)
    listed = _read(arguments, arguments.trials)
    if listed.labels is None:
        options.refuse_measures(arguments, listed.name)
    print(listed.summary())
    listed, scores, used, ratios = _scores(arguments, listed)
    for line in (f"scores: {used}", *(f"note: {note}" for note in listed.notes)):
        print(line)
    points = {metrics.point_name(point): point for point in [*metrics.POINTS, *arguments.p_target]}
    report = {**scoring.report(listed, scores, list(points.values()), arguments.ci), "scores": used}
    rows: list[dict] = []
    if listed.labels is not None:
        if arguments.raw_cost:
            report["min_cost"] = {
                name: report["min_dcf"][name] * min(c_miss * p, c_fa * (1 - p))
                for name, (p, c_miss, c_fa) in points.items()
            }
        print(table.metrics(report, points, ratios, arguments.raw_cost))
        rows = _conditions(arguments, listed, scores, list(points.values()))
        if arguments.by:
            report["conditions"] = rows
            print(table.breakdown(rows, list(points)))
        if arguments.against:
            report["against"] = _against(arguments, listed, listed.labels, scores, list(points.values()))
            print(table.comparison(report["against"], listed.name, arguments.against))
    _write(arguments, listed, scores, report, rows, ratios, shlex.join(command))


def _read(arguments: argparse.Namespace, path: str) -> Trials:
    from sv_ssl.verification import columns as layout
    from sv_ssl.verification import trials

    columns = layout.check_columns(arguments.columns) if arguments.columns else None
    return trials.read_trials(path, columns, keep=[name for by in arguments.by for name in (by, by.split(":")[0])])


# --- the scores -----------------------------------------------------------------------------------------------------


def _scores(arguments: argparse.Namespace, listed: Trials) -> tuple[Trials, np.ndarray, str, bool]:
    """A list -> the trials that are scored, (T,) scores, what they are, whether they are likelihood ratios."""
    system, about = _system(arguments, listed)
    listed, columns, names, used = _columns(listed, system, about)
    if not (arguments.calibrate or arguments.calibration):
        return listed, columns[:, 0], used, arguments.llr
    import numpy as np

    from sv_ssl.verification import calibrate, score_columns, trials

    fused = [trials.read_trials(path) for path in arguments.fuse]
    if fused:
        columns = np.column_stack([columns, score_columns.join(fused, listed)])
        names += [f"score {i}" for i in range(2, 2 + len(fused))]
    known = arguments.calibration
    learnt = calibrate.read(known) if known else _learn(arguments, system, about, names)
    if list(learnt.columns) != names:
        raise InputError(f"{known or 'DEV'} is for {', '.join(learnt.columns)}; here are {', '.join(names)}")
    print(f"calibration: {learnt.summary()}")
    listed = listed._replace(notes=[*listed.notes, *learnt.notes])
    if arguments.calibration_out:
        calibrate.write(arguments.calibration_out, learnt)
        print(f"wrote {arguments.calibration_out}")
    used = f"log-likelihood ratios from {', '.join([used, *arguments.fuse])}"
    return listed, calibrate.apply(learnt, columns), used, True


def _learn(arguments: argparse.Namespace, system: System | None, about: str, names: list[str]) -> Calibration:
    """What --calibrate's lists teach."""
    import numpy as np

    from sv_ssl.verification import calibrate, score_columns

    lists = [_read(arguments, path) for path in arguments.calibrate]
    first, columns, own, _ = _columns(lists[0], system, about)
    if first.labels is None:
        raise InputError(f"{first.name} has no labels: nothing can be learnt from it")
    if lists[1:]:
        columns = np.column_stack([columns, score_columns.join(lists[1:], first)])
    return calibrate.fit(columns, first.labels, arguments.prior, names, lists)


def _columns(listed: Trials, system: System | None, about: str) -> tuple[Trials, np.ndarray, list[str], str]:
    """A list's own scores, or what the system gives it -> trials, (T, K) columns, their names, what the scores are."""
    if system is not None:
        return *system.score(listed), about
    if listed.scores is None:
        raise InputError(f"{listed.name} has no scores: pass --embeddings or --model")
    return listed, listed.scores[:, None], ["score"], "as the file has them"


def _system(arguments: argparse.Namespace, listed: Trials) -> tuple[System | None, str]:
    """Where scores come from by the arguments -> a system, None if the list's own are taken; in words."""
    named = arguments.embeddings or arguments.model
    if listed.scores is not None and not named:
        for option in ("norm", "enroll", "allow_missing", "quality"):
            if getattr(arguments, option):
                name = option.replace("_", "-")
                raise InputError(f"{listed.name} has scores already, so --{name} would do nothing: pass --embeddings")
        return None, ""
    from sv_ssl.embeddings import store
    from sv_ssl.verification import enroll, normalise, system

    source, about = _model(arguments) if arguments.model else _file(arguments, listed)
    cohort = None
    if arguments.norm:
        who = arguments.cohort_speakers
        known = normalise.read_speakers(who) if who and who != "ids" else None
        found = store.read(arguments.cohort)
        cohort = system.Cohort(found, arguments.norm, arguments.top_n, known, means=bool(who))
    if unknown := [name for name in arguments.quality if name not in system.QUALITIES]:
        raise InputError(f"--quality {unknown[0]}: wanted {', '.join(system.QUALITIES)}")
    models = enroll.read_models(arguments.enroll) if arguments.enroll else None
    return system.System(
        source, models, arguments.combine, cohort, arguments.allow_missing, arguments.quality, arguments.manifest
    ), about


def _file(arguments: argparse.Namespace, listed: Trials) -> tuple[Callable, str]:
    from sv_ssl.embeddings import store

    usual = [Path("embeddings.npz"), Path(listed.name).parent / "embeddings.npz"]
    path = arguments.embeddings or next((path for path in usual if path.is_file()), None)
    if path is None:
        places = " or ".join(str(path) for path in dict.fromkeys(usual))
        wanted = "pass --embeddings FILE, or --model DIR --audio ROOT"
        raise InputError(f"{listed.name} has no scores and there is no {places}: {wanted}")
    found = store.read(path)
    count, dim = found[1].shape
    return lambda ids: found, f"cosine of {path} ({count:,} embeddings of {dim} dimensions)"


def _model(arguments: argparse.Namespace) -> tuple[Callable, str]:
    from sv_ssl.embeddings import extraction
    from sv_ssl.models import folder as model

    embedder = model.load(arguments.model, arguments.device)

    kept = extraction.cache_of(embedder)

    def source(ids: Sequence[str]) -> Any:
        names = list(dict.fromkeys(ids))
        return extraction.embed_trials(embedder, names, arguments.audio, skip=arguments.allow_missing, kept=kept)

    return source, f"cosine of embeddings by {arguments.model}"


# --- what is measured and written -----------------------------------------------------------------------------------


def _conditions(arguments: argparse.Namespace, listed: Trials, scores: np.ndarray, points: Sequence) -> list[dict]:
    from sv_ssl.verification import conditions
    from sv_ssl.verification.manifest_columns import read_manifest

    if not arguments.by:
        return []
    own = {*listed.columns, "session"}
    wanted = [name for name in arguments.by if not {name, name.split(":")[0]} & own]
    if wanted and not arguments.manifest:
        raise InputError(f"--by {wanted[0]}: {listed.name} has no such column: pass --manifest FILE, which has it")
    columns = read_manifest(arguments.manifest, listed.ids) if arguments.manifest else {}
    split = conditions.split(listed, arguments.by, columns)
    return conditions.evaluate_each(listed, scores, split, points, arguments.ci)


def _against(
    arguments: argparse.Namespace, listed: Trials, labels: np.ndarray, scores: np.ndarray, points: Sequence
) -> dict:
    from sv_ssl.verification import bootstrap, score_columns, scoring, trials

    other = score_columns.join([trials.read_trials(arguments.against)], listed)[:, 0]
    sides, _ = scoring.clusters(listed)
    return bootstrap.compare(scores, other, labels, *sides, points)


def _write(
    arguments: argparse.Namespace,
    listed: Trials,
    scores: np.ndarray,
    report: dict,
    rows: list[dict],
    ratios: bool,
    command: str,
) -> None:
    """Write what was asked for, and say so; then say what could be next."""
    from sv_ssl.verification import conditions, trials

    if (arguments.plot or arguments.report) and not (abs(scores) < math.inf).any():
        raise InputError(f"{listed.name}: all scores are infinite: leave out --plot and --report, nothing can be drawn")
    if arguments.scores_out:
        trials.write_scores(arguments.scores_out, listed, scores)
        print(f"wrote {arguments.scores_out}: {len(scores):,} lines")
    if arguments.json:
        with aside(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        print(f"wrote {arguments.json}")
    if listed.labels is None:
        print("no labels, so no metrics")
        return
    if arguments.csv:
        every = {key: report[key] for key in ("n_target", "n_nontarget", "eer", "min_dcf", "ci") if key in report}
        conditions.write_csv(arguments.csv, [{"by": "all", "value": "", **every}, *rows])
        print(f"wrote {arguments.csv}: {1 + len(rows)} conditions")
    if arguments.plot:
        _plot(Path(arguments.plot), Path(listed.name).name, scores, listed.labels, report, ratios)
    if arguments.report:
        from sv_ssl.reporting import scores_page

        scores_page.write(arguments.report, listed, scores, report, rows, notes=listed.notes, command=command)
        print(f"wrote {arguments.report}: open it in a browser")
    hints = {
        "--scores-out FILE keeps the scores": arguments.scores_out,
        "--json FILE keeps the metrics": arguments.json,
        "--ci adds 95 % intervals": arguments.ci,
        "--report FILE makes a page of it": arguments.report,
    }
    if more := [hint for hint, given in hints.items() if not given]:
        print(f"next: {', '.join(more)}")


def _plot(folder: Path, name: str, scores: np.ndarray, labels: np.ndarray, report: dict, ratios: bool) -> None:
    from sv_ssl.reporting import plots

    systems = {name: (scores, labels)}
    thresholds = {f"minDCF {p}": threshold for p, threshold in report["min_dcf_threshold"].items()}
    thresholds = {"EER": report["eer_threshold"], **thresholds}
    plots.det_curve(folder / "det.png", systems)
    plots.score_histogram(folder / "scores.png", scores, labels, {k: float(t) for k, t in thresholds.items()})
    if ratios:
        plots.calibration(folder / "calibration.png", systems)
    print(f"wrote {folder}: det.png, scores.png" + ", calibration.png" * ratios)
