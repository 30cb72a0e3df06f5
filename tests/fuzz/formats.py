"""The formats that are tried, each with the door through which the product reads it and what must hold of the answer.

`reads(path)` returns where the file was taken, raises InputError where it was refused, and AssertionError where what
came back is not what the file's format promises: the wrong shape, a number that is not finite, a name that breaks a
line. `beside` makes the files that the reader wants next to it. Everything is read as users read it: an attack that
only a private function could meet is none.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import shutil
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sv_ssl.core import command
from sv_ssl.core.errors import InputError

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "v1"
RECIPE = ROOT / "recipes" / "voxceleb" / "train_simclr_am.py"
RATE = 16000
MPG123 = r"(Warning|Note): |\[src/libmpg123/"  # whom libsndfile asks for MP3, and for what may be one
COSINE = 1.001  # the most that a cosine of float32 may be
WIDEST = 1 << 20  # dimensions, beyond which an embedding is none
VICTIM = np.ones(4096, np.float32).tobytes()
LONGEST = 10_000  # characters of a line of a message
CONTROL = {"Cc", "Zl", "Zp"}  # categories of Unicode: control characters, ends of lines and of paragraphs
TURNS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # change the direction of what follows


class Format(NamedTuple):
    """How a file is called, what reads it and what lies beside it."""

    file: str  # its name, by whose ending readers go
    reads: Callable[[Path], object]
    beside: Callable[[Path], object] = lambda folder: None
    murmur: str = ""  # a regular expression of lines that a foreign library writes to standard error by itself


# ---------------------------------------------------------------------------------------------------- what must hold
def shown(error: InputError) -> str:
    """Return the line that a command prints of a refusal, without the command's name."""
    printed = io.StringIO()

    def refused() -> None:
        raise error

    with contextlib.redirect_stderr(printed):
        command.run(refused)
    return printed.getvalue().removesuffix("\n").partition(": ")[2]


def fault_of(message: str) -> str:
    r"""Return what is wrong with a printed refusal; nothing where it is right.

    It is one line; a list of bad lines has its own, `  line 7: ...`, and ten of them at most.

    >>> fault_of("a.wav: is empty"), fault_of("a.wav: " + chr(27))
    ('', "a control character, '\\x1b'")
    """
    first, *listed = message.split("\n  line ")
    if not first or len(listed) > 10:
        return f"{len(listed)} lines"
    for line in (first, *listed):
        if odd := control(line):
            return f"a control character, {odd!r}"
        if len(line) > LONGEST:
            return f"a line of {len(line)} characters"
    return ""


def control(text: str) -> str:
    """Return the first character that a terminal acts on; nothing where there is none."""
    text = text.replace("\t", " ")
    return next((one for one in text if unicodedata.category(one) in CONTROL or one in TURNS), "")


def each(doors: Iterable[Callable[[], object]]) -> None:
    """Go through several doors to one file; it is refused if all of them refuse it."""
    refusals: list[InputError | None] = []
    for door in doors:
        try:
            door()
        except InputError as error:
            refusals.append(error)
            assert not (fault := fault_of(shown(error))), f"the message of a refusal has {fault}: {error}"
        else:
            refusals.append(None)
    if refusals[0] and all(refusals):
        raise refusals[0]


class Terminal(io.StringIO):
    """What is printed where somebody looks at it."""

    def isatty(self) -> bool:
        return True


def by_command(main: Callable[[list[str]], int], words: list[str]) -> str:
    """Run a command as on a terminal and return what it printed; its refusal is an InputError with the printed line."""
    out, err = Terminal(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    assert code in (0, 2), f"exit code {code}: {err.getvalue()[:300]}"
    if code == 2:
        raise InputError(err.getvalue().removesuffix("\n"))
    assert not err.getvalue(), f"on standard error: {err.getvalue()[:300]}"
    shown = out.getvalue()
    assert not control(shown.replace("\n", " ")), f"control characters are shown: {shown[:300]!r}"
    return shown


def _finite(value: object) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


# -------------------------------------------------------------------------------------------------------------- audio
def _audio(path: Path) -> None:
    from sv_ssl import audio

    def whole() -> None:
        about = audio.info(path)
        assert about.rate > 0 and about.frames > 0 and about.channels > 0, about
        wave = audio.read(path, strict=False)
        wanted = -(-about.frames * RATE // about.rate)
        assert wave.dtype == np.float32 and wave.ndim == 1 and np.isfinite(wave).all(), (wave.dtype, wave.shape)
        assert abs(len(wave) - wanted) <= 1, f"{len(wave)} samples of {wanted}: {about}"

    def crops() -> None:
        rows, _ = audio.crops(path, 0, None, [0.0, 0.5, 1.0], 4000)
        assert rows.shape == (3, 4000) and rows.dtype == np.float32 and np.isfinite(rows).all(), rows.shape

    each([whole, crops])


# --------------------------------------------------------------------------------------------------------- embeddings
def _rows(ids: list[str], rows: np.ndarray) -> None:
    assert rows.dtype == np.float32 and rows.ndim == 2 and len(ids) == len(rows) > 0, (rows.dtype, rows.shape)
    assert np.isfinite(rows).all() and rows.any(axis=1).all(), "rows that are not finite, or zero"
    assert all(isinstance(i, str) and i and not set("\n\r\0") & set(i) for i in ids), "ids that break a line"
    assert len(set(ids)) == len(ids), "ids that come twice"


def _embeddings(path: Path) -> None:
    from sv_ssl.embeddings import store

    assert all(isinstance(name, str) for name in store.files(path)), "names of files"
    _rows(*store.read(path))


def _ids(folder: Path) -> None:
    shutil.copy(GOLDEN / "embeddings.ids", folder / "input.ids")


def _ark(folder: Path) -> None:
    shutil.copy(GOLDEN / "embeddings.ark", folder / "embeddings.ark")


def _part(path: Path) -> None:
    from sv_ssl.embeddings import parts, store

    part = parts.read(path)
    assert part.rows.ndim == 3 and len(part.ids) == len(part.rows), (len(part.ids), part.rows.shape)
    store.write(path.with_name("merged.npz"), part.ids, part.rows[:, 0])
    merged = parts.merged([path])
    assert _finite(merged.seconds) and merged.seconds >= 0, merged.seconds
    assert all(isinstance(text, str) for skipped in merged.skipped + merged.unplanned for text in skipped)
    _rows(merged.ids, merged.rows.reshape(-1, merged.rows.shape[2]))


def _index(path: Path) -> None:
    from sv_ssl.embeddings import search

    try:
        index = search.load(path)
    finally:
        assert path.with_name("victim.bin").read_bytes() == VICTIM, "another file was changed"
    assert isinstance(index.dim, int) and 0 < index.dim <= WIDEST, index.dim
    names = list(index.numbers)
    assert all(isinstance(name, str) for name in names), "names that are no text"
    rng = np.random.default_rng(0)
    for nearest in index.search(rng.standard_normal((3, index.dim), dtype=np.float32), k=5):
        cosines = [cosine for _, cosine in nearest]
        assert len(nearest) == min(5, len(names)), f"{len(nearest)} neighbours of {len(names)} speakers"
        assert all(name in index.numbers for name, _ in nearest), "speakers that are not enrolled"
        assert all(_finite(cosine) and abs(cosine) <= COSINE for cosine in cosines), f"cosines {cosines}"
        assert cosines == sorted(cosines, reverse=True), f"cosines {cosines}"


def _victim(folder: Path) -> None:
    """What an index must not be led to: a file beside it."""
    (folder / "victim.bin").write_bytes(VICTIM)


# -------------------------------------------------------------------------------------------------------------- models
def _model(path: Path) -> None:
    import sv_ssl

    model = sv_ssl.load(path.parent)
    wave = 0.1 * np.random.default_rng(0).standard_normal(RATE // 2)
    row = model.embed((wave, RATE))
    assert row.shape == (model.dim,) and row.dtype == np.float32 and np.isfinite(row).all(), row.shape
    assert 1000 <= model.sample_rate <= 1_000_000, model.sample_rate


def _no_weights(folder: Path) -> None:
    from tests.fuzz import whole

    (folder / "model.safetensors").write_bytes(whole.no_weights())


def _config(folder: Path) -> None:
    from tests.fuzz import whole

    (folder / "config.json").write_bytes(whole.config_of_weights())


def _checkpoint(path: Path) -> None:
    from sv_ssl.models import convert

    def kind(name: str) -> Callable[[], object]:
        return lambda: convert.read(path, name)

    each([kind(name) for name in convert.FRONT_ENDS])


# ------------------------------------------------------------------------------------------------- lists and settings
def _calibration(path: Path) -> None:
    from sv_ssl.verification import calibrate

    learnt = calibrate.read(path)
    lists = (learnt.weights, learnt.columns, learnt.ranges, learnt.lists, learnt.notes)
    assert all(isinstance(one, tuple) for one in lists), "what is no list where one is wanted"
    assert all(isinstance(one, tuple) and len(one) == 2 for one in learnt.ranges + learnt.lists), "what is no pair"
    texts = [*learnt.columns, *learnt.notes, *itertools.chain(*learnt.lists)]
    assert all(isinstance(text, str) for text in texts), "what is no text where some is wanted"
    numbers = [*learnt.weights, *itertools.chain(*learnt.ranges), learnt.offset, learnt.prior, learnt.n_target]
    numbers += [learnt.n_nontarget, learnt.cllr_before, learnt.cllr_after]
    assert all(map(_finite, numbers)), "what is no finite number where one is wanted"
    width = len(learnt.columns)
    assert width == len(learnt.weights) == len(learnt.ranges) > 0, "columns, weights and ranges of different numbers"
    assert all(low <= high for low, high in learnt.ranges), "ranges that end before they begin"
    assert 0 < learnt.prior < 1 and learnt.n_target > 0 and learnt.n_nontarget > 0, "a training that cannot have been"
    assert learnt.summary(), "no summary"
    ratios = calibrate.apply(learnt, np.array([[low for low, _ in learnt.ranges], [high for _, high in learnt.ranges]]))
    assert ratios.shape == (2,) and np.isfinite(ratios).all(), ratios


def _trials(path: Path) -> None:
    from sv_ssl.verification import scoring, trials

    listed = trials.read_trials(path)
    assert len(listed.enroll) == len(listed.test) > 0, "sides of different lengths"
    assert not control(" ".join([listed.summary(), *listed.notes])), "control characters in what is shown"
    _agree(listed)
    json.dumps(scoring.report(listed, np.linspace(-1, 1, len(listed.enroll))), allow_nan=False)


def _agree(listed) -> None:
    """See that a pair has one label, whichever way round, and that a trial of an utterance with itself is noted."""
    if listed.labels is None:
        return
    seen: dict[tuple[int, int], bool] = {}
    for enrolled, tested, label in zip(listed.enroll.tolist(), listed.test.tolist(), listed.labels.tolist()):
        assert enrolled != tested or listed.notes, f"{listed.ids[enrolled]} against itself, and not a word of it"
        pair = min(enrolled, tested), max(enrolled, tested)
        assert seen.setdefault(pair, label) == label, f"{[listed.ids[i] for i in pair]} has both labels"


def _models(path: Path) -> None:
    from sv_ssl.verification import enroll

    models = enroll.read_models(path)
    assert models and all(model and all(utterances) for model, utterances in models.items()), "empty names"


def _scores(path: Path) -> None:
    from sv_ssl.cli import score

    made = path.with_name("metrics.json")
    made.unlink(missing_ok=True)
    by_command(score.main, [str(path), "--json", str(made)])
    metrics = json.loads(made.read_text(encoding="utf-8"), parse_constant=_no_number)
    for name in ("eer", "min_cllr"):
        assert metrics.get(name) is None or 0 <= metrics[name] <= 1, f"{name} {metrics[name]}"
    assert all(0 <= cost <= 1 for cost in metrics.get("min_dcf", {}).values()), metrics["min_dcf"]


def _no_number(text: str) -> None:
    raise AssertionError(f"{text} in a JSON that was written")


def _manifest(path: Path) -> None:
    from sv_ssl.audio import noise
    from sv_ssl.data import clips, manifest
    from sv_ssl.verification import manifest_columns

    def utterances() -> None:
        frame = manifest.read(path)
        assert len(frame) > 0 and frame["ID"].is_unique, "ids that come twice"
        assert np.isfinite(frame["duration"]).all() and (frame["duration"] > 0).all(), "durations"
        assert (frame["start"] >= 0).all() and (frame["stop"] > frame["start"]).all(), "starts and stops"

    def noises() -> None:
        assert all(paths for paths in noise.Noises(path).paths.values())

    def columns() -> None:
        values = manifest_columns.read_manifest(path, ["id1/a/00001.wav", "id4/b/00001.wav"])
        assert all(len(column) == 2 for column in values.values()), values

    each([utterances, noises, columns, lambda: clips.table(path.parent)])


def _rttm(path: Path) -> None:
    from sv_ssl.data import rttm

    def turns() -> None:
        for listed in rttm.read(path).values():
            assert all(0 <= turn.start < turn.stop < math.inf and turn.speaker for turn in listed), listed[:3]
            merged = rttm.merged(listed)
            assert all(one.stop < other.start for one, other in itertools.pairwise(merged)), merged[:3]

    def regions() -> None:
        for listed in rttm.read_uem(path).values():
            assert all(0 <= region.start < region.stop < math.inf for region in listed), listed[:3]

    each([turns, regions])


def _yaml(path: Path) -> None:
    from sv_ssl.training import experiment

    text = by_command(lambda words: experiment.main(str(RECIPE), "", words), [str(path), "--print_config"])
    assert text.strip(), "nothing was shown"


FORMATS = {
    "wav": Format("input.wav", _audio, murmur=MPG123),
    "flac": Format("input.flac", _audio, murmur=MPG123),
    "ogg": Format("input.ogg", _audio, murmur=MPG123),
    "mp3": Format("input.mp3", _audio, murmur=MPG123),
    "npz": Format("input.npz", _embeddings),
    "npy": Format("input.npy", _embeddings, _ids),
    "ark": Format("input.ark", _embeddings),
    "scp": Format("input.scp", _embeddings, _ark),
    "parquet": Format("input.parquet", _embeddings),
    "safetensors": Format("input.safetensors", _embeddings),
    "pt": Format("input.pt", _embeddings),
    "part": Format("input.1-of-1.part", _part),
    "index": Format("input.index", _index, _victim),
    "config": Format("config.json", _model, _no_weights),
    "weights": Format("model.safetensors", _model, _config),
    "checkpoint": Format("input.ckpt", _checkpoint),
    "calibration": Format("input.json", _calibration),
    "trials": Format("input.txt", _trials),
    "models": Format("input.txt", _models),
    "scores": Format("input.txt", _scores),
    "manifest": Format("clips.csv", _manifest),
    "rttm": Format("input.rttm", _rttm),
    "yaml": Format("input.yaml", _yaml),
}
