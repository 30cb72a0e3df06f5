"""k-means on the sphere: the golden values, empty clusters, ties, and the figures of a clustering."""

import json
import tracemalloc
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sv_ssl.core.errors import InputError
from sv_ssl.methods import kmeans

CASES = json.loads((Path(__file__).parents[1] / "golden" / "ssl.json").read_text())["cases"]
TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-5}


def cases(function):
    return [pytest.param(case, id=case["name"]) for case in CASES if case["function"] == function]


def unit(rows, dtype):
    return F.normalize(torch.tensor(rows, dtype=dtype), dim=1)


def equal(result, expected, dtype):
    clusters, centroids = result
    assert clusters.tolist() == expected["assignments"]
    torch.testing.assert_close(
        centroids, torch.tensor(expected["centroids"], dtype=dtype), rtol=0, atol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", cases("spherical_kmeans"))
def test_golden_kmeans(case, dtype):
    inputs, iterations = case["inputs"], case["params"]["iters"]
    rows, starts = unit(inputs["x"], dtype), torch.tensor(inputs["start"])
    equal(kmeans.spherical_kmeans(rows, starts, iterations, reseed=False), case["expected"], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", cases("online_kmeans"))
def test_golden_online_kmeans(case, dtype):
    inputs = case["inputs"]
    result = kmeans.follow(unit(inputs["centroids"], dtype), unit(inputs["y"], dtype), case["params"]["momentum"])
    equal(result, case["expected"], dtype)


@pytest.mark.parametrize("case", cases("nearby_clusters"))
def test_golden_neighbours(case):
    centroids = unit(case["inputs"]["centroids"], torch.float64)
    assert kmeans.neighbours(centroids, case["params"]["m"]).tolist() == case["expected"]
    some = torch.tensor([2, 0])
    assert kmeans.neighbours(centroids, case["params"]["m"], some).tolist() == [case["expected"][k] for k in (2, 0)]


@pytest.mark.parametrize("case", cases("clustering"))
def test_golden_quality(case):
    measured = kmeans.quality(case["inputs"]["labels"], case["inputs"]["clusters"], **case["params"])
    assert measured == pytest.approx(case["expected"], abs=1e-8)


def test_many_clusters_of_many_recordings_need_no_table_of_both():
    """Of VoxCeleb2's recordings and 25,000 clusters it would have 29 GB."""
    kmeans.quality([0, 1], [0, 1])  # what is imported once
    pairs = torch.arange(3000) // 2
    tracemalloc.start()
    measured = kmeans.quality(pairs, pairs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert measured["purity"] == 1 and peak < 8 * 1500**2 / 4


def test_blocks_change_nothing(monkeypatch):
    rows = F.normalize(torch.randn(50, 6), dim=1)
    starts = kmeans.draw_starts(50, 7, 0)
    whole, near = kmeans.spherical_kmeans(rows, starts), kmeans.neighbours(rows[:7], 3)
    monkeypatch.setattr(kmeans, "CELLS", 20)
    parts = kmeans.spherical_kmeans(rows, starts)
    assert whole[0].equal(parts[0]) and near.equal(kmeans.neighbours(rows[:7], 3))
    torch.testing.assert_close(whole[1], parts[1])


def test_an_empty_cluster_takes_a_row_of_the_largest():
    rows = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.05], [1.0, -0.05], [0.6, 0.8]]), dim=1)
    starts = torch.tensor([0, 0])  # the second is never the nearest
    kept, _ = kmeans.spherical_kmeans(rows, starts, iterations=1, reseed=False)
    moved, centroids = kmeans.spherical_kmeans(rows, starts, iterations=1)
    assert kept.tolist() == [1, 1, 1, 0]  # it stays, and wins rows once the other has moved
    assert moved.tolist() == [0, 0, 0, 1] and centroids[1].equal(rows[3])


def test_starts_are_drawn_by_seed_and_none_twice():
    starts = kmeans.draw_starts(10, 10, 0, 3)
    assert sorted(starts.tolist()) == list(range(10)) and starts.equal(kmeans.draw_starts(10, 10, 0, 3))
    assert not starts.equal(kmeans.draw_starts(10, 10, 0, 4)) and not starts.equal(kmeans.draw_starts(10, 10, 1, 3))
    with pytest.raises(InputError, match="11 clusters cannot be made of 10 utterances"):
        kmeans.draw_starts(10, 11, 0)
    with pytest.raises(InputError, match="there are 2 others"):
        kmeans.neighbours(torch.eye(3), 3)
