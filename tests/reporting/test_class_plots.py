"""Pictures of classes: confusion, distances, maps."""

import numpy as np
import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.reporting import class_plots


@pytest.fixture
def figures(monkeypatch):
    """The figures, instead of files."""
    drawn = []
    monkeypatch.setattr(class_plots, "save", lambda figure, path: drawn.append(figure))
    return drawn


def names(n):
    return [f"class {i}" for i in range(n)]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_confusion_matrix_shows_shares_of_the_true_classes(figures):
    class_plots.confusion_matrix("c.png", ["no", "yes"], np.array([[3, 1], [0, 10]]))
    axes = figures[0].axes[0]
    assert axes.images[0].get_array().tolist() == [[75, 25], [0, 100]]
    assert [(text.get_position(), text.get_text()) for text in axes.texts] == [
        ((0, 0), "75"),
        ((1, 0), "25"),
        ((1, 1), "100"),
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no", "yes"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert legend(figures[0]) == ["accuracy 92.86 % of 14 clips"]


def test_a_class_without_clips_and_many_classes_are_no_error(figures):
    class_plots.confusion_matrix("c.png", ["a", "b"], np.array([[0, 0], [1, 2]]))
    assert figures[0].axes[0].images[0].get_array()[0].tolist() == [0, 0]
    class_plots.confusion_matrix("c.png", names(60), np.eye(60, dtype=int))
    assert not figures[1].axes[0].texts and not figures[1].axes[0].get_xticklabels()


def test_distances_of_classes(figures):
    mean = np.array([[0.1, 0.9], [0.9, np.nan]])
    class_plots.class_distances("d.png", ["a", "b"], mean, mean / 2)
    upper, lower = figures[0].axes[:2]
    assert upper.images[0].get_clim() == (0.1, 0.9) and lower.images[0].get_clim() == (0.05, 0.45)
    assert upper.images[0].get_array().mask.tolist() == [[False, False], [False, True]]
    class_plots.class_distances(
        "d.png", ["a", "b"], np.zeros((2, 2)), np.full((2, 2), np.nan)
    )  # all rows are one point
    assert figures[1].axes[1].images[0].get_array().mask.all()


def test_a_map_draws_every_row_once_and_names_the_classes(figures):
    points = np.random.default_rng(0).standard_normal((50, 2))
    labels = np.array(["b", "a"])[np.arange(50) % 2]
    class_plots.embedding_map("m.png", points, labels, "Map", "one", "two")
    axes = figures[0].axes[0]
    drawn = np.concatenate([collection.get_offsets() for collection in axes.collections])
    assert sorted(map(tuple, drawn.tolist())) == sorted(map(tuple, points.tolist()))
    assert legend(figures[0]) == ["a", "b"] and axes.get_title("left") == "Map: 50 of 2 classes"
    shown = [(line.get_marker(), line.get_color()) for line in axes.lines]
    assert len(set(shown)) == 2 and [tuple(points[labels == name][0]) for name in "ab"] == [
        tuple(collection.get_offsets()[0]) for collection in axes.collections
    ]


def test_classes_look_different_and_very_many_have_no_names(figures):
    class_plots.embedding_map("m.png", np.zeros((40, 2)), np.arange(40), "Map")
    assert len({(line.get_marker(), line.get_color()) for line in figures[0].axes[0].lines}) == 40
    class_plots.embedding_map("m.png", np.zeros((200, 2)), np.arange(200), "Map")
    assert legend(figures[1]) == ["too many classes to name"] and len(figures[1].axes[0].collections) == 200


def test_the_same_classes_give_the_same_file(tmp_path):
    points = np.random.default_rng(0).standard_normal((50, 2))
    for name in ("one.png", "two.png"):
        class_plots.confusion_matrix(tmp_path / f"c{name}", ["$a", "_b"], np.eye(2))
        class_plots.class_distances(tmp_path / f"d{name}", ["a", "b"], np.eye(2), np.eye(2))
        class_plots.embedding_map(tmp_path / f"m{name}", points, np.arange(50) % 3, "Map")
    for kind in "cdm":
        assert (tmp_path / f"{kind}one.png").read_bytes() == (tmp_path / f"{kind}two.png").read_bytes()


def test_intervals_are_a_line_a_name_within_the_limits(figures):
    points = {"probe": {"a": (50, 40, 60), "b": (99, 90, 110)}, "classifier": {"b": (70, 60, 80)}}
    class_plots.intervals("i.png", ["a", "b"], points, "Accuracies", "%", (0, 100))
    axes = figures[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    dots = [line.get_xydata().tolist() for line in axes.lines]
    assert [[x for x, _ in some] for some in dots] == [[50, 99], [70]] and dots[0][0][1] < 0.5 < dots[1][0][1]
    ends = [path.vertices[:, 0].tolist() for path in axes.collections[0].get_paths()]
    assert ends == [[40, 60], [90, 100]] and legend(figures[0]) == ["probe", "classifier"]


@pytest.mark.parametrize(
    "draw, text",
    [
        (
            lambda path: class_plots.confusion_matrix(path, ["a"], np.zeros((1, 1))),
            "a confusion matrix of 1 classes needs 1 x 1",
        ),
        (lambda path: class_plots.confusion_matrix(path, ["a"], np.ones((2, 2))), r"got \(2, 2\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, draw, text):
    with pytest.raises(InputError, match=text):
        draw(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
