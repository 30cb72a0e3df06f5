"""Every reader takes a file or refuses it in a line: each attack of the corpus, and a few damaged files of each format.

`python -m tests.fuzz` tries more of them, for as long as one likes.
"""

import pytest

from tests.fuzz.explore import explore
from tests.fuzz.formats import FORMATS
from tests.fuzz.make_corpus import CORPUS, attacks, data_of, path_of
from tests.fuzz.whole import MAKERS, whole
from tests.fuzz.worker import Worker

EXAMPLES = 60  # files of a format, the same each time
ATTACKS = list(attacks())
FOUND = sorted({path for path in CORPUS.rglob("*") if path.is_file()} - {path_of(*one) for one in ATTACKS})


@pytest.fixture(scope="module")
def worker():
    with Worker() as worker:
        yield worker


@pytest.mark.parametrize("name, attack", ATTACKS, ids=lambda value: getattr(value, "name", value))
def test_an_attack_is_borne(worker, name, attack):
    outcome = worker.read(name, data_of(name, attack))
    assert outcome.kind != "failed", outcome
    assert outcome.kind == "refused" or not attack.refused, "it was taken"


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_was_found_once_is_borne(worker, path):
    outcome = worker.read(path.parent.name, path.read_bytes())
    assert outcome.kind != "failed", outcome


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_borne(worker, name):
    count = explore(worker, name, EXAMPLES, seed=0)
    assert not count.faults, "\n".join(f"{where}: {count.first[where].text}" for where in count.faults)
    assert count.kinds["refused"] > EXAMPLES / 20, "the damage is idle"


@pytest.mark.parametrize("name", FORMATS)
def test_whole_files_are_taken(worker, name):
    outcomes = [worker.read(name, data) for data in whole(name)]
    assert not [outcome for outcome in outcomes if outcome.kind == "failed"]
    assert name == "checkpoint" or any(outcome.kind == "accepted" for outcome in outcomes), outcomes


def test_the_corpus_is_small():
    assert MAKERS.keys() == FORMATS.keys()
    assert all(path.stat().st_size <= 20_000 and path.parent.name in FORMATS for path in CORPUS.rglob("*.*"))


@pytest.fixture(scope="module")
def faulty():
    with Worker("tests.fuzz.faulty", seconds=2) as worker:
        yield worker


@pytest.mark.parametrize(
    "reader, kind, where",
    [
        ("takes", "accepted", ""),
        ("refuses", "refused", ""),
        ("shows control characters", "refused", ""),  # `InputError` spells them out
        ("waits", "failed", "took too long at "),
        ("heeds nothing", "failed", "did not come back"),
        ("holds", "failed", "took more than 1 GB"),
        ("grows", "failed", "took more than 1 GB"),
        ("dies", "failed", "died of SIGSEGV"),
        ("exits", "failed", "died of exit(7)"),
        ("warns", "failed", "spilled "),
        ("says", "failed", "spilled hm"),
        ("runs", "failed", "ran what the file says"),
        ("breaks", "failed", "KeyError at faulty.py:"),
    ],
)
def test_the_worker_notices(faulty, reader, kind, where):
    outcome = faulty.read(reader, b"")
    assert outcome.kind == kind and outcome.where.startswith(where), outcome
    assert faulty.read("takes", b"").kind == "accepted"
