"""What all tests share: a tiny corpus, made once a session, short recordings, the recordings of ../shared, markers."""

import os
import signal
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores: one thread each, and that before torch
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from support.markers import markers_of

from sv_ssl import audio
from sv_ssl.data.synthetic import corpus

# A busy machine is no fault.
settings.register_profile("sv_ssl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sv_ssl")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a job in the background: its children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


TESTS = Path(__file__).parent
SHARED = TESTS.parents[1] / "shared"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Hide SpeechBrain's lazy modules from hypothesis, and set the markers of support/markers.py.

    The lazy modules raise ImportError when looked at, and hypothesis looks at all modules.
    """
    for name, module in list(sys.modules.items()):
        if "LazyModule" in [kind.__name__ for kind in type(module).__mro__]:
            del sys.modules[name]
    for item in items:
        if item.path.is_relative_to(TESTS):
            test_id = f"{item.path.relative_to(TESTS).as_posix()}::{item.name}"
            names = markers_of(test_id) | ({"shared"} & set(getattr(item, "fixturenames", ())))
            for name in sorted(names):
                item.add_marker(name)


@pytest.fixture(scope="session")
def shared():
    """Return the folder ../shared beside the repository, or skip the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs recordings that are not part of the repository: {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Return the folder of a small built-in corpus: 6 training, 2 validation and 3 test speakers."""
    return corpus.corpus(
        tmp_path_factory.mktemp("tiny") / "corpus",
        progress=False,
        workers=1,
        n_train=6,
        n_valid=2,
        n_test=3,
        sessions=2,
        utterances=2,
        test_sessions=2,
        test_utterances=2,
        seconds=1.5,
        n_noises=6,
        n_rooms=4,
        n_meetings=0,
    )


@pytest.fixture
def speech(tmp_path):
    """Return a function that writes a noise-like recording and returns its path: speech(name, seconds)."""

    def write(name, seconds=1.0, rate=16000, seed=0):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate)), rate)
        return path

    return write
