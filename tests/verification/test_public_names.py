"""The names that rooms offer are there, and a room is imported without what they need."""

import math
import re
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from sv_ssl import verification
from sv_ssl.core.errors import InputError
from sv_ssl.verification import calibrate, normalise
from sv_ssl.verification.trials import Trials


@pytest.mark.parametrize("room", ["verification", "reporting", "analysis"])
def test_public_names_are_there(room):
    package = import_module(f"sv_ssl.{room}")
    assert len(package.__all__) > 5 and all(callable(getattr(package, name)) for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'none'"):
        package.none


BOTH = [0.1, 0.5, 0.3], [1, 0, 0]
HUGE = [0.1, 10**400, 0.3], [1, 0, 0]
SPEAKERS = list("aba"), list("bab")
LISTED = ["a", "b", "c"], np.array([0, 1, 0]), np.array([1, 2, 2]), np.array([True, False, False]), None
TRIALS = Trials("list", "", "", *LISTED)
ROWS = np.eye(3, dtype=np.float32)
REFUSED = {
    "huge scores": (lambda: verification.eer(*HUGE), "scores must be numbers"),
    "complex scores": (lambda: verification.cllr([1j, 2, 3], [1, 0, 0]), "scores must be numbers: they are complex"),
    "labels of no shape": (lambda: verification.auc(BOTH[0], [[1, 2], [3]]), "labels must be 1 (target)"),
    "p_target": (lambda: verification.min_dcf(*BOTH, "x"), "an operating point is p_target, c_miss, c_fa"),
    "two numbers": (lambda: verification.evaluate(*BOTH, [(0.1, 1)]), "three numbers, not (0.1, 1)"),
    "no point": (lambda: verification.report(TRIALS, np.array(BOTH[0]), [None]), "three numbers, not None"),
    "speakers of two kinds": (
        lambda: verification.intervals(*BOTH, [1, None, 2], list("bab")),
        "speakers must be names",
    ),
    "speakers in a table": (lambda: verification.intervals(*BOTH, np.zeros((3, 1)), [1, 2, 3]), "in two lists"),
    "no resampling": (lambda: verification.intervals(*BOTH, *SPEAKERS, n=0), "the number of resamplings is 0"),
    "half a resampling": (lambda: verification.compare(BOTH[0], *BOTH, *SPEAKERS, n=1.5), "wanted a whole number"),
    "embeddings of no shape": (lambda: verification.cosine((LISTED[0], ROWS[0]), TRIALS), "embeddings of shape (3,)"),
    "more ids": (
        lambda: verification.cosine((["z", *LISTED[0]], ROWS), TRIALS),
        "4 ids and embeddings of shape (3, 3)",
    ),
    "zero": (lambda: verification.cosine((LISTED[0], ROWS * [[1], [0], [1]]), TRIALS), "the embedding of b is zero"),
    "codes": (
        lambda: verification.cosine((LISTED[0], ROWS), TRIALS._replace(test=np.array([1, 2, 3]))),
        "list: a trial names an id beyond the 3 that there are",
    ),
    "a mask too short": (
        lambda: verification.evaluate_each(TRIALS, BOTH[0], [("sex", "f", np.ones(2, bool))]),
        "sex f: wanted True or False for each of 3 trials",
    ),
    "scores too few": (lambda: verification.write_scores("none", TRIALS, [1, 2]), "scores of shape (2,) for 3 trials"),
    "scores to write": (
        lambda: verification.write_scores("none", TRIALS, [1, math.nan, 2]),
        "wanted a number for each",
    ),
    "norm": (
        lambda: normalise.normalise(ROWS[0], TRIALS, ROWS[0], ROWS[0], "x"),
        "scores are normalised by z, t, s, as",
    ),
    "prior": (lambda: calibrate.fit([1, 2, 3], [0, 1, 1], "x"), "the prior must lie between 0 and 1, not x"),
}


@pytest.mark.parametrize("call, message", REFUSED.values(), ids=REFUSED)
def test_bad_numbers_are_named(call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call()


def test_columns_without_both_sides_are_refused(tmp_path):
    (tmp_path / "list.txt").write_text("a b 1\nc d 0\n")
    with pytest.raises(InputError, match="enroll and test among them"):
        verification.read_trials(tmp_path / "list.txt", columns=["x", "y", "label"])


def test_rooms_are_imported_at_once():
    code = "import sys, sv_ssl.verification, sv_ssl.reporting, sv_ssl.analysis; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
