import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from sv_ssl.core.errors import InputError
from sv_ssl.reporting import plots
from sv_ssl.verification import metrics


@pytest.fixture
def figures(monkeypatch):
    """Figures as they are saved."""
    saved = []
    monkeypatch.setattr(plots, "save", lambda figure, path: saved.append(figure))
    return saved


def gaussian(n=4000, shift=2.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return rng.normal(size=n) + shift * labels, labels


def texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def marks(figure, shape):
    """The operating points that are drawn with this marker."""
    found = [line for line in figure.axes[0].lines if line.get_marker() == shape and len(line.get_xdata())]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in found]


DRAWINGS = {
    "det": lambda path, *system: plots.det_curve(path, {"system": system}),
    "scores": lambda path, *system: plots.score_histogram(path, *system, {"EER": 1.0, "minDCF(0.01)": 2.0}),
    "calibration": lambda path, *system: plots.calibration(path, {"system": system}),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
@pytest.mark.parametrize("ending, magic", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_files_of_each_format_are_written_the_same_each_time(tmp_path, draw, ending, magic):
    for name in ("one", "two"):
        draw(tmp_path / f"{name}.{ending}", *gaussian())
    one, two = (tmp_path / f"{name}.{ending}" for name in ("one", "two"))
    assert one.read_bytes().startswith(magic) and one.read_bytes() == two.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_an_open_buffer_gets_svg_with_texts(draw):
    file = io.StringIO()
    draw(file, *gaussian(400))
    assert "<svg" in file.getvalue() and "</text>" in file.getvalue()


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
    assert texts(figures[0])[0].startswith("good: EER 1") and texts(figures[0])[1].startswith("poor: EER 4")
    assert texts(figures[0])[2] == "perfect: EER 0.00 %"
    low, high = figures[0].axes[0].get_xlim()
    assert low < norm.ppf(0.16) < norm.ppf(0.46) < high


def test_the_points_of_least_cost_are_marked(figures):
    scores, labels = gaussian(20000)
    points = [(0.1, 1, 1), (0.5, 1, 1), (0.01, 10, 1)]
    plots.det_curve("det.png", {"system": (scores, labels)}, points)
    assert marks(figures[0], "o") == [pytest.approx([norm.ppf(metrics.eer(scores, labels)[0])] * 2)]
    for point, shape in zip(points, "sDv"):
        least, threshold = metrics.min_dcf(scores, labels, *point)
        p_fa, p_miss = (scores[labels == 0] >= threshold).mean(), (scores[labels == 1] < threshold).mean()
        assert marks(figures[0], shape) == [pytest.approx([norm.ppf(p_fa), norm.ppf(p_miss)])]
        assert f"minDCF({metrics.point_name(point)}) {least:.3f}" in texts(figures[0])


def test_a_mark_beyond_the_axes_stands_on_their_edge(figures):
    plots.det_curve("det.png", {"no false alarm": ([0.1, 0.2, 0.3, 0.2, 0.7, 0.8], [0, 0, 0, 1, 1, 1])}, [(0.01, 1, 1)])
    low, high = figures[0].axes[0].get_xlim()
    assert marks(figures[0], "s") == [pytest.approx([low, norm.ppf(1 / 3)])]


def test_names_are_shown_as_they_are(figures):
    plots.det_curve("det.png", dict.fromkeys(["$a_1$", "_b", "c\n\udcff", "d" * 99], gaussian(400)))
    shown = [text.split(": EER")[0] for text in texts(figures[0])]
    assert shown[:3] == [r"\$a_1\$", " _b", "c\ufffd\ufffd"] and len(shown[3]) < 40
    plots.save(figures[0], io.StringIO())


def test_no_system_and_no_point_is_left_out(figures):
    points = [(p / 20, 1, 1) for p in range(1, 12)]
    systems = {f"system {i}": gaussian(400, seed=i) for i in range(8)}
    plots.det_curve("det.png", systems, points)
    plots.calibration("calibration.png", systems, points)
    for figure in figures:
        assert [
            name
            for name in [*systems, *map(metrics.point_name, points)]
            if not any(f"{name}:" in text or f"DCF({name})" in text for text in texts(figure))
        ] == []


def test_the_histogram_counts_each_class_and_the_threshold(figures):
    scores, labels = np.array([0.1, 0.2, 0.6, 0.5, 0.9, 0.8, np.inf]), [0, 0, 0, 1, 1, 1, 1]
    plots.score_histogram("scores.png", scores, labels, 0.55)
    assert texts(figures[0]) == [
        "non-target: different speakers (3)",
        "target: same speaker (4)",
        "threshold at 0.55: 25.00 % missed, 33.33 % false alarms",
    ]


def test_the_histogram_shows_several_thresholds(figures):
    plots.score_histogram("scores.png", [0.1, 0.2, 0.6, 0.5], [0, 0, 1, 1], {"EER": 0.3, "minDCF(0.01)": np.inf})
    assert texts(figures[0])[2:] == [
        "EER at 0.3: 0.00 % missed, 0.00 % false alarms",
        "minDCF(0.01) at inf: 100.00 % missed, 0.00 % false alarms",
    ]
    assert [line.get_xdata()[0] for line in figures[0].axes[0].lines[-2:]] == [0.3, np.inf]


@pytest.mark.parametrize(
    "scores",
    [
        [0.5, 0.5],
        [1e16, 1e16 + 2],
        [-1e308, 1e308, 0.5],
        [1e-320, 0.0],
        [-np.inf, 0.5],
        [1e9, -1e9],
        [5e-324, 1e-300],
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_scores_of_any_size_can_be_drawn(scores):
    labels = np.arange(len(scores)) % 2
    for draw in DRAWINGS.values():
        draw(io.StringIO(), scores, labels)


@given(st.lists(st.tuples(st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.25, 2.0, np.inf]), st.booleans()), min_size=1))
@settings(max_examples=60)
def test_bayes_costs_are_those_of_the_metrics(trials):
    scores, labels = [score for score, _ in trials] + [0.1, 0.2], [label for _, label in trials] + [False, True]
    log_odds = np.array([-8.0, -2.0, -0.25, 0.0, 0.5, 1.1, 8.0])
    actual, least = plots.bayes_costs(metrics.operating_points(scores, labels), log_odds)
    for i, prior in enumerate(1 / (1 + np.exp(-log_odds))):
        assert least[i] == pytest.approx(metrics.min_dcf(scores, labels, prior)[0], rel=1e-9)
        if log_odds[i] in (-8, 1.1, 8):  # at the others a score may equal the threshold, which rounds differently
            assert actual[i] == pytest.approx(metrics.act_dcf(scores, labels, prior), rel=1e-9)


def test_calibrated_scores_cost_little_more_than_the_least_and_shifted_ones_much():
    scores, labels = gaussian(40000)
    ratios = 2 * (scores - 1)  # of two unit normals two apart
    actual, least = plots.bayes_costs(metrics.operating_points(ratios, labels), np.linspace(-3, 3, 61))
    assert (least <= actual).all() and (actual - least).max() < 0.05 and actual.max() < 1
    actual, _ = plots.bayes_costs(metrics.operating_points(ratios + 4, labels), np.linspace(-3, 3, 61))
    assert actual.max() > 2


def test_the_calibration_picture_marks_the_actual_costs(figures):
    scores, labels = gaussian(4000)
    points = [(0.05, 1, 1), (0.3, 2, 1)]
    plots.calibration("calibration.png", {"system": (scores, labels)}, points)
    for (p, c_miss, c_fa), shape in zip(points, "sD"):
        cost = metrics.act_dcf(scores, labels, p, c_miss, c_fa)
        assert marks(figures[0], shape) == [pytest.approx([np.log(c_miss * p / (c_fa * (1 - p))), cost])]
        assert f"actDCF({metrics.point_name((p, c_miss, c_fa))}) {cost:.3f}" in texts(figures[0])
    assert figures[0].axes[0].get_xlim() == (-8, 8)


def test_costs_that_leave_the_calibration_picture_are_told(figures):
    scores, labels = gaussian(4000)
    plots.calibration("calibration.png", {"bold": (20 * scores, labels)})
    assert figures[0].axes[0].get_ylim()[1] == 2 and texts(figures[0])[0].startswith("bold: actual cost (up to ")


def test_many_trials_draw_few_points(figures):
    plots.det_curve("det.png", {"system": gaussian(200000)})
    plots.calibration("calibration.png", {"system": gaussian(200000)})
    assert all(len(line.get_xdata()) < 10000 for figure in figures for line in figure.axes[0].lines)


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_a_picture_of_many_trials_is_a_small_file(draw):
    file = io.StringIO()
    draw(file, *gaussian(600000))
    assert len(file.getvalue()) < 150_000


def test_what_cannot_be_drawn_is_refused(tmp_path):
    for draw in (plots.det_curve, plots.calibration):
        with pytest.raises(InputError, match="at least one system"):
            draw(tmp_path / "a.png", {})
        with pytest.raises(InputError, match="no target trial"):
            draw(tmp_path / "a.png", {"system": ([1.0], [0])})
        with pytest.raises(InputError, match="p_target must lie between 0 and 1"):
            draw(tmp_path / "a.png", {"system": gaussian(40)}, [(1.5, 1, 1)])
    with pytest.raises(InputError, match="finite scores"):
        plots.score_histogram(tmp_path / "scores.png", [np.inf, -np.inf], [1, 0], 0)
    for name in ("scores", "scores.doc"):
        with pytest.raises(InputError, match=f"{name}: its ending must be .png, .svg or .pdf"):
            plots.score_histogram(tmp_path / name, [0.0, 1.0], [0, 1], 0)
    with pytest.raises(InputError, match="cannot write"):
        (tmp_path / "file").write_text("")
        plots.det_curve(tmp_path / "file" / "det.png", {"system": ([0.0, 1.0], [0, 1])})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
