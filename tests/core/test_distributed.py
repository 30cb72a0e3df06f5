"""A process alone, and how one is missed; several of them are in test_several_processes.py."""

import os

import pytest
import torch
import torch.distributed as dist

from sv_ssl.core import distributed
from sv_ssl.core import peers as peers_module
from sv_ssl.core.errors import InputError

PATIENCE = distributed.PATIENCE


def test_alone_there_is_nothing_to_gather():
    rows = torch.ones(2, 3, requires_grad=True)
    assert distributed.gather(rows) is rows
    assert not distributed.gather_plain(rows).requires_grad
    assert torch.equal(distributed.gather_batch(rows), rows)
    assert distributed.gather_objects("x") == ["x"]
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    distributed.barrier()


def test_alone_everything_is_made_here():
    def fail():
        raise InputError("no such file")

    assert distributed.made_by_first(lambda: 3) == distributed.made_by_all(lambda: 3) == 3
    with pytest.raises(InputError, match="no such file"):
        distributed.made_by_all(fail)


@pytest.mark.parametrize("error", ["shapes do not match", "[gloo/transport/tcp/pair.cc:152] timed out connecting"])
def test_an_error_that_is_no_loss_is_not_hidden(error):
    """Nor is one of meeting the others at all."""

    def command():
        raise RuntimeError(error)

    with pytest.raises(RuntimeError) as raised:
        distributed.run(command)
    assert str(raised.value) == error


@pytest.fixture
def peers():
    """Two processes that share a store."""
    store = dist.HashStore()
    return [peers_module.Peers(store, rank, 2) for rank in range(2)]


def times(peers, *moments):
    """-> whom the first process misses at the last of the moments, at each of which it gives a sign itself."""
    for moment in moments:
        peers[0].sign()
        missing = peers[0].missing(peers[0].looked + moment)
    return missing


def test_a_silent_process_is_missed(peers):
    steps = [PATIENCE / 4] * 4
    assert not times(peers, *steps)
    [missing] = times(peers, *steps)
    assert missing.startswith(f"process 1 of 2 (pid {os.getpid()} on ")
    peers[1].sign()
    assert not times(peers, PATIENCE / 4)


def test_who_was_away_itself_asks_again(peers):
    assert not times(peers, PATIENCE / 4, 10 * PATIENCE)


def test_who_has_left_is_not_missed(peers):
    peers[1].leave(failed=False)
    assert not times(peers, *[PATIENCE / 4] * 9)


def test_one_speaks_and_nobody_after_a_failure(peers, capsys, monkeypatch):
    ends = []
    monkeypatch.setattr(os, "_exit", ends.append)
    for one in peers:
        one.end("process 2 is lost")
    [line] = capsys.readouterr().err.split("\n")[1:-1]
    assert "process 2 is lost" in line and "the same command goes on" in line and ends == [1, 1]


def test_nobody_speaks_after_a_failure_that_was_told(peers, capsys, monkeypatch):
    monkeypatch.setattr(os, "_exit", lambda code: None)
    peers[1].leave(failed=True)
    peers[0].end("process 1 is lost")
    assert not capsys.readouterr().err


def test_the_thread_ends_a_process_that_waits_in_vain(peers, capsys, monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", lambda code: (ended.append(code), peers[0].left.set()))
    monkeypatch.setattr(peers_module, "PATIENCE", 0.2)
    peers[0].watch()
    assert ended == [1] and "process 1 of 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"LOCAL_RANK": "0"}, "has LOCAL_RANK and not RANK: let torchrun set all of them"),
        ({"LOCAL_RANK": "abc"}, "LOCAL_RANK is 'abc': wanted a whole number"),
        ({"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc'"),
        ({"LOCAL_RANK": "0", "SV_SSL_PATIENCE": "abc"}, "SV_SSL_PATIENCE is 'abc'"),
    ],
)
def test_an_environment_that_torchrun_does_not_make_is_one_line(monkeypatch, environment, words):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=words):
        distributed.start("cpu")
