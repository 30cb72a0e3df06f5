"""Every command that writes bears a kill, a full disk and a second one beside it."""

from functools import cache

import pytest

from tests.faults.__main__ import some
from tests.faults.cases import Case, why_no_disk
from tests.faults.commands import COMMANDS
from tests.faults.server import Server
from tests.faults.twice import twice


@pytest.fixture(scope="module")
def case():
    """Return a function: the name of a command -> its case, made once."""
    with Server() as server:
        yield cache(lambda name: Case(server, name))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_kill_leaves_the_old_or_the_new(case, name):
    results = list(map(case(name).killed, some(case(name).kills(3, seed=0), 9)))
    assert [(result.fault, result.faults) for result in results if result.faults] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_where_no_room_is_left_the_old_stays(case, name):
    results = list(map(case(name).filled, some(case(name).full(), 9)))
    assert [(result.fault, result.faults) for result in results if result.faults] == []


@pytest.mark.parametrize("name", ["extract npz", "extract ark", "index, add", "score", "import", "prepare wavs"])
def test_a_disk_that_fills_up_leaves_the_old(case, name, tmp_path):
    if why := why_no_disk(tmp_path):
        pytest.skip(f"no small disk can be mounted here: {why}")
    results = list(map(case(name).filled, some(case(name).disks(), 9)))
    assert [(result.fault, result.faults) for result in results if result.faults] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_two_at_once_leave_one_whole(case, name):
    assert twice(case(name)) == []
