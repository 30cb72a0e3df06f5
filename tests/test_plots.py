import numpy as np
import pytest
from scipy.stats import norm

from sv_ssl import plots
from sv_ssl.files import InputError


@pytest.fixture
def figures(monkeypatch):
    """Figures as they are saved."""
    saved = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: saved.append(figure))
    return saved


def gaussian(n=4000, shift=2.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return rng.normal(size=n) + shift * labels, labels


@pytest.mark.parametrize("ending, magic", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_files_of_each_format_are_written(tmp_path, ending, magic):
    scores, labels = gaussian()
    plots.det_curve(tmp_path / f"det.{ending}", {"system": (scores, labels)})
    plots.score_histogram(tmp_path / f"scores.{ending}", scores, labels, 1.0)
    for path in (tmp_path / f"det.{ending}", tmp_path / f"scores.{ending}"):
        assert path.read_bytes().startswith(magic)
    assert len(list(tmp_path.iterdir())) == 2


def test_gaussian_scores_give_a_straight_det_line(figures):
    plots.det_curve("det.png", {"system": gaussian(40000)})
    _, thick, *_ = figures[0].axes[0].lines
    x, y = (np.asarray(data)[np.isfinite(data)] for data in (thick.get_xdata(), thick.get_ydata()))
    inside = np.abs(x + 1) < 1
    assert np.polyfit(x[inside], y[inside], 1) == pytest.approx([-1, -2], abs=0.06)  # shift 2, equal deviations


def test_the_line_is_pale_where_fewer_than_30_errors_are_left(figures):
    scores, labels = gaussian(2000)
    plots.det_curve("det.png", {"system": (scores, labels)})
    thin, thick, *_ = figures[0].axes[0].lines
    drawn = np.isfinite(thick.get_ydata())
    fewest = norm.ppf(30 / 1000) - 1e-6
    assert thick.get_ydata()[drawn].min() >= fewest and thick.get_xdata()[drawn].min() >= fewest
    assert thin.get_ydata().min() < fewest
    plots.det_curve("det.png", {"system": gaussian(40)})
    assert np.isnan(figures[1].axes[0].lines[1].get_ydata()).all()


def test_every_system_is_named_with_its_eer_and_lies_inside(figures):
    systems = {"good": gaussian(), "poor": gaussian(shift=0.2), "perfect": ([0.0, 1.0], [0, 1])}
    plots.det_curve("det.png", systems)
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts[0].startswith("good: EER 1") and texts[1].startswith("poor: EER 4")
    assert texts[2] == "perfect: EER 0.00 %"
    low, high = figures[0].axes[0].get_xlim()
    assert low < norm.ppf(0.16) < norm.ppf(0.46) < high


def test_the_histogram_counts_each_class_and_the_threshold(figures):
    scores, labels = np.array([0.1, 0.2, 0.6, 0.5, 0.9, 0.8, np.inf]), [0, 0, 0, 1, 1, 1, 1]
    plots.score_histogram("scores.png", scores, labels, 0.55)
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts == [
        "non-target: different speakers (3)",
        "target: same speaker (4)",
        "threshold 0.55: 25.00 % missed, 33.33 % false alarms",
    ]


def test_many_trials_draw_few_points(figures):
    plots.det_curve("det.png", {"system": gaussian(200000)})
    assert len(figures[0].axes[0].lines[0].get_xdata()) < 10000


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(InputError, match="at least one system"):
        plots.det_curve(tmp_path / "det.png", {})
    with pytest.raises(InputError, match="no target trial"):
        plots.det_curve(tmp_path / "det.png", {"system": ([1.0], [0])})
    with pytest.raises(InputError, match="finite scores"):
        plots.score_histogram(tmp_path / "scores.png", [np.inf, -np.inf], [1, 0], 0)
    with pytest.raises(InputError, match="cannot write"):
        (tmp_path / "file").write_text("")
        plots.det_curve(tmp_path / "file" / "det.png", {"system": ([0.0, 1.0], [0, 1])})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
