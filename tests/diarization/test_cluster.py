import time
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from sv_ssl.core.errors import InputError
from sv_ssl.diarization import cluster


def talk(n_speakers, n, dim=64, spread=0.6, seed=0, turn=8):
    """(n, dim) windows of speakers by turns of `turn` windows, (n,) who; overlapping windows resemble each other."""
    rng = np.random.default_rng(seed)
    voices = rng.standard_normal((n_speakers, dim))
    who = rng.permutation(np.arange(-(-n // turn)) % n_speakers).repeat(turn)[:n]
    own = rng.standard_normal((n + 1, dim))
    return (voices[who] + spread * (own[1:] + own[:-1])).astype(np.float32), who


@pytest.mark.parametrize("n_speakers", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n", [160, 1200])
def test_the_eigengap_finds_how_many_and_who(n_speakers, n):
    rows, who = talk(n_speakers, n)
    assert adjusted_rand_score(who, cluster.spectral(rows)) == 1.0


@pytest.mark.parametrize("given", [{"n_speakers": 4}, {"threshold": 0.25}])
def test_average_linkage_finds_who(given):
    rows, who = talk(4, 300)
    assert adjusted_rand_score(who, cluster.agglomerative(rows, **given)) == 1.0


@pytest.mark.parametrize("n_speakers", [1, 2, 3, 7])
def test_a_given_number_is_kept(n_speakers):
    rows, _ = talk(3, 200)
    assert len(set(cluster.spectral(rows, n_speakers))) == n_speakers
    assert len(set(cluster.agglomerative(rows, n_speakers))) == n_speakers


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_windows(n):
    rows = np.eye(3, 5)[:n]
    assert cluster.spectral(rows).tolist() == [0] * n
    assert cluster.agglomerative(rows, threshold=0.5).tolist() == list(range(n))
    for labels in (cluster.spectral(rows, 2), cluster.agglomerative(rows, 2)):
        assert len(labels) == n and len(set(labels)) == min(n, 2)


def test_equal_windows_are_one_speaker():
    assert set(cluster.spectral(np.ones((50, 4)))) == {0}
    assert set(cluster.agglomerative(np.ones((50, 4)), threshold=0.9)) == {0}


def test_windows_without_direction_are_tolerated():
    rows, _ = talk(2, 60)
    rows[7] = 0
    assert len(cluster.spectral(rows)) == len(cluster.agglomerative(rows, 2)) == 60


@pytest.mark.parametrize("method", [cluster.spectral, lambda rows: cluster.agglomerative(rows, threshold=0.25)])
def test_labels_are_numbered_as_they_appear_and_the_same_each_time(method):
    rows, _ = talk(4, 200)
    labels = method(rows)
    first = [np.flatnonzero(labels == i)[0] for i in range(4)]
    assert first == sorted(first) and first[0] == 0 and set(labels) == set(range(4))
    np.random.seed(5)
    assert (method(rows) == labels).all() and (method(rows * np.float32(7)) == labels).all()


def test_dense_and_sparse_agree(monkeypatch):
    rows, _ = talk(4, 900, spread=1.2)
    dense = cluster.spectral(rows)
    monkeypatch.setattr(cluster, "FEW", 10)
    monkeypatch.setattr(cluster, "CELLS", 7000)
    assert (cluster.spectral(rows) == dense).all()


def test_average_linkage_is_that_of_its_definition():
    """Merge the pair of the largest mean cosine until it falls below the threshold."""
    rows, _ = talk(3, 40, dim=4, spread=1.0)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    groups = [[i] for i in range(40)]
    while True:
        pairs = [((unit[a] @ unit[b].T).mean(), i, j) for i, a in enumerate(groups) for j, b in enumerate(groups[:i])]
        best, i, j = max(pairs)
        if best < 0.4:
            break
        groups[j] += groups.pop(i)
    wanted = np.empty(40, int)
    for number, group in enumerate(groups):
        wanted[group] = number
    assert 2 < len(groups) < 20
    assert adjusted_rand_score(wanted, cluster.agglomerative(rows, threshold=0.4)) == 1.0


def test_average_linkage_of_many_windows_goes_by_parts(monkeypatch):
    rows, who = talk(5, 2000)
    monkeypatch.setattr(cluster, "LARGE", 300)
    assert adjusted_rand_score(who, cluster.agglomerative(rows, threshold=0.3)) == 1.0


@pytest.mark.parametrize(
    "rows, options, message",
    [
        (np.zeros(3), {}, r"must be \(windows, dimensions\), not \(3,\)"),
        ([[0, 1], [np.nan, 0]], {}, "embedding 2 to cluster is not finite"),
        (np.eye(3), {"n_speakers": 0}, "the number of speakers is 0"),
    ],
)
def test_bad_input(rows, options, message):
    with pytest.raises(InputError, match=message):
        cluster.spectral(rows, **options)


def test_more_parts_than_speakers_that_are_told_apart():
    rows, _ = talk(14, 14 * 16, spread=0.1)
    assert 1 < len(set(cluster.spectral(rows))) <= cluster.MOST
    assert len(set(cluster.spectral(rows, most=20))) == len(set(cluster.spectral(rows, 14))) == 14


def test_average_linkage_needs_one_stop():
    for options in ({}, {"n_speakers": 2, "threshold": 0.5}):
        with pytest.raises(InputError, match="either a number of speakers or a threshold"):
            cluster.agglomerative(np.eye(3), **options)


@pytest.mark.parametrize("method", [cluster.spectral, lambda rows: cluster.agglomerative(rows, threshold=0.25)])
def test_an_hour_takes_seconds(method):
    rows, who = talk(6, 4800, dim=192)
    start = time.process_time()
    labels = method(rows)
    assert time.process_time() - start < 30
    assert adjusted_rand_score(who, labels) == 1.0


def test_memory_does_not_grow_with_the_square():
    """The cosines of 12,000 windows would be 576 MB, those of the 48,000 of ten hours 9 GB."""
    rows, _ = talk(6, 12000, dim=2)
    tracemalloc.start()
    try:
        graph = cluster._graph(cluster._unit(rows, None))
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert graph.shape == (12000, 12000) and graph.nnz <= 2 * 12000 * cluster.neighbours(12000)
