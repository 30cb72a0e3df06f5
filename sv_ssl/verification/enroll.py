"""Models of several enrolment utterances: which utterances make a model, and the model's embedding. numpy alone.

A file of models is recognised by its content; utterances are in any order, blank lines and # lines are skipped:

    modelid segmentid side    NIST: a line of names, then a line an utterance, tabs, commas or blanks; side is ignored
    model utt1 utt2 utt3      Kaldi's spk2utt: a line a model
    model utt1                a line an utterance
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from sv_ssl.core.errors import InputError
from sv_ssl.core.files import first_few
from sv_ssl.embeddings.store import Embeddings, unit
from sv_ssl.verification.columns import quoted, split
from sv_ssl.verification.trial_lines import TrialText, read_text
from sv_ssl.verification.trials import Trials

ROLES = {  # of columns, by the names they have
    **dict.fromkeys(("model", "modelid", "model_id", "enroll"), "model"),
    **dict.fromkeys(("segment", "segmentid", "segment_id", "utt", "utterance"), "utterance"),
}
SHOWN = 10  # lines or ids named in one message
LEAST = 1e-5  # length of a mean of unit vectors that float32 can still tell from zero
WANTED = "wanted lines `model utterance` or `model utt1 utt2 ...`, or a line of names such as `modelid segmentid side`"


# --- the file -------------------------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """How the lines of a file of models are parted."""

    separator: bytes | None  # None: runs of blanks
    names: list[str]  # of the columns: model, utterance, "" for others; none without a line of names

    def record(self, text: bytes) -> list[str]:
        """Split a line into the model and its utterances; [reason] where it has a fault."""
        fields = [field.decode() for field in split(text, self.separator)]
        if self.names and len(fields) != len(self.names):
            return [f"{len(fields)} columns where {len(self.names)} are expected"]
        if self.names:
            fields = [fields[self.names.index(role)] for role in ("model", "utterance")]
        if not all(fields):
            return ["a name is empty"]
        return fields if len(fields) > 1 else ["a model without utterances"]


def read_models(path: str | os.PathLike) -> dict[str, list[str]]:
    """Read the utterances of each model; bad lines are named by number and text.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "models.tsv"
    >>> _ = path.write_text("modelid\\tsegmentid\\tside\\nanna\\t1.wav\\ta\\nanna\\t2.wav\\ta\\notto\\t3.wav\\ta\\n")
    >>> read_models(path)
    {'anna': ['1.wav', '2.wav'], 'otto': ['3.wav']}
    """
    lines = _lines(path)
    form = _form([text for _, text in lines])
    lines = lines[bool(form.names) :]
    models: dict[str, dict[str, int]] = {}  # the line of each utterance
    bad = []
    for number, text in lines:
        model, *utterances = form.record(text)
        reason = _repeated(utterances, models.get(model, {})) if utterances else model
        if reason:
            bad.append(f"{number}: {reason}: {quoted(text)}")
        else:
            models.setdefault(model, {}).update(dict.fromkeys(utterances, number))
    if len(bad) == 1:
        raise InputError(f"{path}:{bad[0]}")
    if bad:
        head = f"{path}: {len(bad):,} bad lines of {len(lines):,}, nothing was scored"
        raise InputError("\n  line ".join([head, *bad[:SHOWN]]))
    if not models:
        raise InputError(f"{path}: no models, only a line of names")
    return {model: list(utterances) for model, utterances in models.items()}


def _repeated(utterances: list[str], known: dict[str, int]) -> str:
    """Say what a model's line repeats of itself or of the lines above, whose utterances are `known`; "" if nothing."""
    lines = list(islice(known.values(), 2))
    if lines and (len(utterances) > 1 or len(lines) > len(set(lines))):
        return f"the model is on line {lines[0]} already"
    twice = [u for u in utterances if u in known] or [u for u, count in Counter(utterances).items() if count > 1]
    return f"{quoted(twice[0].encode())} is in the model already" if twice else ""


def _lines(path: str | os.PathLike) -> list[tuple[int, bytes]]:
    """Read the lines that are neither blank nor comments, with their numbers."""
    name, data, _ = read_text(path, WANTED)
    lines = list(chain(*TrialText(name, data).blocks()))
    if not lines:
        raise InputError(f"{path}: no models, the file is empty: {WANTED}")
    return lines


def _form(texts: list[bytes]) -> _Form:
    """Recognise the form: by a line of names, else commas if most lines have them and no blanks."""
    for separator in (b",", b"\t", None):
        names = [ROLES.get(field.decode().lower(), "") for field in split(texts[0], separator)]
        if "model" in names and "utterance" in names:
            return _Form(separator, names)
    commas = sum(b"," in text and len(b"".join(split(text, b",")).split()) == 1 for text in texts)
    return _Form(b"," if 2 * commas > len(texts) else None, [])


# --- the embeddings -------------------------------------------------------------------------------------------------


def combine(
    embeddings: Embeddings,
    trials: Trials,
    models: Mapping[str, Sequence[str]],
    how: str = "embeddings",
    allow_missing: bool = False,
) -> tuple[Embeddings, Trials, np.ndarray]:
    """Make the models' embeddings for T trials whose enrolment ids are models.

    N ids, (N, D) -> embeddings of what the trials name, the same trials in their order, (U,) factors

    In the returned trials models have ids of their own, so that a model may have the name of an utterance. A model's
    row is the mean of its utterances' vectors of length one. The score of a trial is

        cosine(embeddings, trials) * factor[trials.enroll]

    With "embeddings" every factor is 1: the cosine with the normalised mean. With "scores" it is the mean of the
    cosines with each utterance: the same times the length of that mean, which differs by model and so changes the EER.
    A model that lacks the embedding of any of its utterances is an error, or with `allow_missing` has no embedding.

    >>> from sv_ssl.verification.scoring import cosine
    >>> trials = Trials("list", "", "", ["anna", "c"], np.array([0]), np.array([1]), None, None)
    >>> rows = ["a", "b", "c"], np.array([[3, 0], [0, 2], [1, 1]], np.float32)
    >>> for how in ("embeddings", "scores"):
    ...     rows_of_models, listed, factor = combine(rows, trials, {"anna": ["a", "b"]}, how)
    ...     print((cosine(rows_of_models, listed) * factor[listed.enroll]).round(4))
    [1.]
    [0.7071]
    """
    if how not in ("embeddings", "scores"):
        raise InputError(f'utterances of a model are combined as "embeddings" or "scores", not "{how}"')
    (enrolled, enroll), (tested, test) = (_used(trials.ids, codes) for codes in (trials.enroll, trials.test))
    absent = [model for model in enrolled if not models.get(model)]
    if absent:
        had = f"the file of models has {len(models):,}, such as {next(iter(models), '-')}"
        raise InputError(
            f"{trials.name}: {len(absent):,} of {len(enrolled):,} models have no enrolment utterances: "
            f"{first_few(absent)}; {had}"
        )
    row = dict(zip(embeddings[0], range(len(embeddings[0]))))
    whole = _whole(row, enrolled, models, allow_missing)
    made_of = [[row[u] for u in models[enrolled[m]]] for m in whole]
    means, lengths = _means(embeddings[1], made_of, [enrolled[m] for m in whole])
    known = [i for i in tested if i in row]  # whoever scores says what is missing
    names = _other_names(enrolled, tested)
    factor = np.ones(len(tested) + len(names), np.float32)
    if how == "scores":
        factor[len(tested) + whole] = lengths
    rows = np.concatenate([embeddings[1][[row[i] for i in known]], means])
    notes = trials.notes + _own_tests([models[model] for model in enrolled], tested, enroll, test)
    both = trials._replace(ids=tested + names, enroll=enroll + np.int32(len(tested)), test=test, notes=notes)
    return (known + [names[m] for m in whole], rows), both, factor


def _used(ids: Sequence[str], codes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the ids that have trials, and the trials' codes into them: U ids, (T,) -> ids, (T,) int32."""
    used = np.zeros(len(ids), bool)
    used[codes] = True
    return [ids[i] for i in np.flatnonzero(used).tolist()], (np.cumsum(used, dtype=np.int32) - np.int32(1))[codes]


def _other_names(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Return as many names in the same order, all different and none of them taken."""
    seen, clash, others = {*taken, *names}, set(taken).intersection(names), []
    for name in names:
        other = name
        while name in clash and other in seen:
            other += " (model)"
        seen.add(other)
        others.append(other)
    return others


def _own_tests(made_of: list[Sequence[str]], tested: list[str], enroll: np.ndarray, test: np.ndarray) -> list[str]:
    """Return a note if a model is tested with an utterance of its own; (T,) codes of models and of tests."""
    number = dict(zip(tested, range(len(tested))))
    pairs = [m * len(tested) + number[u] for m, utterances in enumerate(made_of) for u in utterances if u in number]
    count = int(np.isin(enroll.astype(np.int64) * len(tested) + test, pairs).sum()) if pairs else 0
    return [f"{count:,} trials test a model with an utterance that it is made of"] if count else []


def _whole(
    row: Mapping[str, int], enrolled: Sequence[str], models: Mapping[str, Sequence[str]], allow_missing: bool
) -> np.ndarray:
    """Return the codes of the models that have all their embeddings; others are an error unless `allow_missing`."""
    whole = np.array([all(u in row for u in models[model]) for model in enrolled])
    if not whole.all() and not (allow_missing and whole.any()):
        missing = list(dict.fromkeys(u for model in enrolled for u in models[model] if u not in row))
        cure = "" if allow_missing else "; --allow-missing leaves the trials of these models out"
        raise InputError(
            f"{len(missing):,} enrolment utterances, of {(~whole).sum():,} models, have no embedding: "
            f"{first_few(missing)}; ids must be equal, such as {next(iter(row))}{cure}"
        )
    return np.flatnonzero(whole)


def _means(rows: np.ndarray, made_of: Sequence[Sequence[int]], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of each model's unit vectors, and their lengths.

    (N, D), the rows that make each of M models -> (M, D), (M,) float32
    """
    counts = np.array([len(parts) for parts in made_of])
    units = unit(rows[list(chain(*made_of))])
    means = np.add.reduceat(units, np.cumsum(counts) - counts, dtype=np.float64)
    means /= counts[:, None]
    lengths = np.sqrt(np.einsum("md,md->m", means, means))
    if (lengths < LEAST).any():
        name = names[int(lengths.argmin())]
        raise InputError(f"the embeddings of the model {name} cancel: their mean has no direction")
    return means.astype(np.float32), lengths.astype(np.float32)
