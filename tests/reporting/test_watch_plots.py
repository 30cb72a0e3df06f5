"""The picture of a run: its panels, its limits, the epochs beyond them."""

import math

import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.reporting import watch_plots
from sv_ssl.reporting.plots import COLORS
from sv_ssl.training import watch

LIMITS = {alarm.figure: (alarm.low, alarm.high) for alarm in watch.ALARMS}
RUN = [
    {"epoch": 1, "loss": 3.0, "spread": 0.9, "rank": 20.0, "usage_share": 0.9, "kl": 0.5},
    {"epoch": 2, "loss": 2.0, "spread": math.nan, "rank": 10.0, "usage_share": 0.05, "eer": 0.2, "coverage": 0.6},
    {"epoch": 3, "loss": 1.5, "spread": 0.04, "rank": 9.0, "usage_share": 0.04, "eer": 0.25, "coverage": 0.1},
]


@pytest.fixture
def drawn(monkeypatch):
    """Return the axes of a picture by the beginnings of their titles."""
    saved = []
    monkeypatch.setattr(watch_plots, "save", lambda figure, path: saved.append(figure))

    def draw(records):
        watch_plots.watched("watch.png", records, LIMITS, "dino")
        return {axes.get_title(loc="left"): axes for axes in saved[-1].axes if axes.get_visible()}

    return draw


def beyond(axes):
    """Return the epochs that are marked as beyond a limit."""
    marked = [line for line in axes.lines if line.get_linestyle() == "None" and line.get_color() == COLORS[1]]
    return [int(x) for line in marked for x in line.get_xdata()]


def test_a_panel_for_each_figure_that_the_run_has(drawn):
    assert list(drawn(RUN)) == [
        "Loss",
        "Validation EER: 25.00 %, lowest 20.00 %",
        "Spread of unit embeddings: 0.04",
        "Rank: directions in use: 9.0",
        "Prototypes in use, of possible: 4 %",
        "Sampled positives: 10 %",
    ]
    assert list(drawn(RUN[:1]))[0] == "Loss" and "Validation" not in str(drawn(RUN[:1]))


def test_limits_are_lines_and_epochs_beyond_them_are_marked(drawn):
    panels = {title.partition(":")[0].partition(",")[0]: axes for title, axes in drawn(RUN).items()}
    expected = {
        "Spread of unit embeddings": (0.05, [3]),
        "Prototypes in use": (8, [2, 3]),
        "Sampled positives": (20, [3]),
    }
    for title, (limit, epochs) in expected.items():
        flat = [line for line in panels[title].lines if line.is_dashed() and len(line.get_ydata())]
        assert [line.get_ydata()[0] for line in flat] == [pytest.approx(limit)], title
        assert beyond(panels[title]) == epochs, title
    assert beyond(panels["Rank"]) == [] and beyond(panels["Loss"]) == []


def test_what_is_not_known_of_an_epoch_is_left_out(drawn):
    line = drawn(RUN)["Spread of unit embeddings: 0.04"].lines[0]
    assert list(line.get_xdata()) == [1, 3] and list(line.get_ydata()) == [0.9, 0.04]


def test_every_figure_that_warns_is_in_a_panel():
    assert LIMITS.keys() <= {name for panel in watch_plots.PANELS for name in panel.lines}


def test_the_file_is_the_same_each_time(tmp_path):
    for name in ("one", "two"):
        watch_plots.watched(tmp_path / f"{name}.png", RUN, LIMITS, "dino, seed 0")
    one, two = ((tmp_path / f"{name}.png").read_bytes() for name in ("one", "two"))
    assert one.startswith(b"\x89PNG") and one == two


def test_a_run_without_an_epoch_is_refused():
    with pytest.raises(InputError, match="needs an epoch at least"):
        watch_plots.watched("watch.png", [], LIMITS, "dino")
