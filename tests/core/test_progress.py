import sys
import time

from sv_ssl.core.progress import watched


def test_items_pass_through_whoever_watches(monkeypatch, capsys):
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
        assert list(watched(range(5), "counting", "steps")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""  # done before anybody could wonder


def test_a_bar_with_the_time_left_appears_after_two_seconds(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for _ in watched(range(23), "counting", " steps", scale=10):
        time.sleep(0.1)
    shown = capsys.readouterr().err
    assert "counting" in shown and "/230" in shown and "<00:" in shown
