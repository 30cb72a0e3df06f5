"""The analysis of labelled embeddings: the numbers of plain loops, known configurations, maps."""

import math

import numpy as np
import pytest
import torch

from sv_ssl.analysis import sphere
from sv_ssl.core.errors import InputError
from sv_ssl.losses import geometry


def rows(n=40, dim=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def labelled(n=40, classes=4, seed=0):
    return np.random.default_rng(seed + 100).integers(0, classes, n)


def pair_by_pair(x, labels, a, b):
    """The mean of 1 - cosine over the pairs of different rows of two classes, and the deviation / mean, as in ADD."""
    z = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    pairs = [(i, j) for i in np.flatnonzero(labels == a) for j in np.flatnonzero(labels == b) if i != j]
    distances = np.array([1 - z[i] @ z[j] for i, j in pairs])
    return distances.mean(), distances.std(ddof=1) / distances.mean()


@pytest.mark.parametrize("block", [7, 512])
def test_everything_is_as_geometry_defines_it(block, monkeypatch):
    monkeypatch.setattr(sphere, "BLOCK", block)
    x, labels = rows(), labelled()
    found = sphere.pairs(x, labels)
    summary = sphere.summary(x, labels, found)
    z, y = torch.from_numpy(x), torch.from_numpy(labels)
    assert summary["uniformity"] == pytest.approx(geometry.uniformity(z).item(), rel=1e-9)
    assert summary["tolerance"] == pytest.approx(geometry.tolerance(z, y).item(), abs=1e-6)
    assert summary["alignment"] == pytest.approx(geometry.alignment(z, y).item(), abs=1e-6)
    for a in range(4):
        for b in range(4):
            assert (found.mean[a, b], found.cv[a, b]) == pytest.approx(pair_by_pair(x, labels, a, b), rel=1e-6)


def test_the_golden_pair_of_classes():
    import json
    from pathlib import Path

    cases = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())["cases"]
    case = next(case for case in cases if case["function"] == "pair_stats")
    x, labels = np.array(case["inputs"]["x"]), np.array(case["inputs"]["labels"])
    found = sphere.pairs(x, labels)
    a, b = (found.classes.index(case["params"][name]) for name in "ab")
    assert found.mean[a, b] == pytest.approx(case["expected"]["mean"], rel=1e-9)
    assert found.cv[a, b] == pytest.approx(case["expected"]["cv"], rel=1e-8)


def test_by_hand():
    """Classes at 0 and 60 degrees, and at 90 and 180, each twice as long as before: lengths do not matter."""
    angles = np.radians([0, 60, 90, 180])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([[1], [2], [4], [8]])
    found = sphere.pairs(x, ["a", "a", "b", "b"])
    assert found.mean[[0, 1], [0, 1]] == pytest.approx([0.5, 1.0]) and found.number.tolist() == [[2, 4], [4, 2]]
    between = 1 - np.cos(np.radians([90, 180, 30, 120]))
    assert found.mean[0, 1] == pytest.approx(between.mean())
    assert found.cv[0, 1] == pytest.approx(between.std(ddof=1) / between.mean())
    summary = sphere.summary(x, ["a", "a", "b", "b"], found)
    assert summary["tolerance"] == pytest.approx(0.25) and summary["nearest"]["classes"] == ["a", "b"]
    assert summary["centres"]["largest_cosine"] == pytest.approx(abs(math.cos(math.radians(105))))


def test_classes_on_orthogonal_axes_reach_the_welch_bound():
    x, labels = np.repeat(np.eye(4), 3, axis=0), np.repeat(list("abcd"), 3)
    summary = sphere.summary(x, labels, sphere.pairs(x, labels))
    assert summary["within"] == {"mean": pytest.approx(0, abs=1e-12), "cv": None} or summary["within"]["mean"] < 1e-12
    assert summary["between"]["mean"] == pytest.approx(1) and summary["between"]["cv"] == pytest.approx(0, abs=1e-6)
    assert summary["centres"] == summary["welch"] == {"mean_squared_cosine": 0, "largest_cosine": 0}


def test_an_equiangular_frame_meets_the_welch_bound_and_no_centres_go_below():
    """Three lines at 120 degrees in the plane: cosine^2 is 1/4, the least there can be."""
    angles = np.radians([0, 120, 240])
    frame = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    summary = sphere.summary(frame, ["a", "b", "c"], sphere.pairs(frame, ["a", "b", "c"]))
    assert summary["centres"]["mean_squared_cosine"] == pytest.approx(summary["welch"]["mean_squared_cosine"]) == 0.25
    assert summary["centres"]["largest_cosine"] == pytest.approx(summary["welch"]["largest_cosine"]) == 0.5
    for seed in range(5):
        x, labels = rows(60, 3, seed), np.arange(60) % 12
        summary = sphere.summary(x, labels, sphere.pairs(x, labels))
        for name, least in summary["welch"].items():
            assert 0 < least < summary["centres"][name]


def test_classes_of_one_row_have_no_inside():
    x = rows(3)
    found = sphere.pairs(x, ["a", "b", "c"])
    assert np.isnan(np.diag(found.mean)).all() and np.isfinite(found.mean[~np.eye(3, dtype=bool)]).all()
    summary = sphere.summary(x, ["a", "b", "c"], found)
    assert summary["tolerance"] is summary["alignment"] is summary["within"]["mean"] is None
    assert sphere.summary(x, ["a", "a", "c"], sphere.pairs(x, ["a", "a", "c"]))["tolerance"] is not None


def test_a_class_whose_rows_cancel_is_no_error():
    x, labels = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), ["a", "a", "b"]
    assert sphere.summary(x, labels, sphere.pairs(x, labels))["centres"]["largest_cosine"] == 0


def test_pca_is_sklearns_up_to_sign():
    from sklearn.decomposition import PCA

    x = rows(50, 6)
    points, shares = sphere.pca(x)
    theirs = PCA(2)
    expected = theirs.fit_transform(x / np.linalg.norm(x, axis=1, keepdims=True))
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-5)
    np.testing.assert_allclose(shares, theirs.explained_variance_ratio_, rtol=1e-5)
    np.testing.assert_array_equal(points, sphere.pca(x)[0])
    assert sphere.pca(x[:, :1])[0].shape == (50, 2) and np.isfinite(sphere.pca(np.ones((4, 3)))[0]).all()


def test_tsne_keeps_neighbours_and_its_seed():
    x = np.repeat(np.eye(3, 8), 12, axis=0) + 0.05 * rows(36, 8)
    points = sphere.tsne(x)
    apart = np.linalg.norm(points[:, None] - points, axis=2) + 1e9 * np.eye(36)
    assert (apart.argmin(axis=1) // 12 == np.arange(36) // 12).all()
    np.testing.assert_array_equal(points, sphere.tsne(x))


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: sphere.pairs(rows(3), ["a", "a", "a"]), 'all 3 labels are "a"'),
        (lambda: sphere.pairs(rows(3), ["a", "b"]), "3 embeddings and 2 labels"),
        (lambda: sphere.tsne(rows(4)), "4 embeddings are too few for t-SNE"),
        (lambda: sphere.tsne(np.ones((20, 3))), "all 20 embeddings are one point"),
    ],
)
def test_what_cannot_be_analysed_is_refused(call, text):
    with pytest.raises(InputError, match=text):
        call()


def test_one_distance_has_no_spread():
    found = sphere.pairs(np.random.default_rng(0).standard_normal((5, 4)), ["a", "a", "b", "b", "c"])
    alone = [[True, False, False], [False, True, False], [False, False, True]]
    assert np.isnan(found.cv).tolist() == alone and np.isnan(found.mean).sum() == 1 and np.isnan(found.mean[2, 2])
    assert np.isnan(sphere.pairs(np.eye(2), ["a", "b"]).cv).all()


def test_one_number_has_no_map_by_t_sne():
    with pytest.raises(InputError, match="choose the map pca"):
        sphere.tsne(np.arange(1.0, 9.0)[:, None])
