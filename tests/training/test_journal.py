"""What a run remembers beside its weights, alone and of several processes."""

import copy

import pytest

from sv_ssl.data.views import Note
from sv_ssl.training import journal
from sv_ssl.training.journal import Journal


def test_means_are_over_the_steps_that_measured():
    found = Journal()
    found.watched = [{"spread": 1.0}, {"spread": 0.5, "hard": 3.0}]
    assert found.means() == pytest.approx({"spread": 0.75, "hard": 3.0}) and Journal().means() == {}


def test_the_journal_adds_up_what_processes_noted(monkeypatch):
    """Two processes with three places: what is noted is kept or counted once, however often they share."""
    monkeypatch.setattr(journal, "NOTES_KEPT", 3)
    pair, letters = (Journal(), Journal()), iter("abcdefgh")

    def share():
        brought = [
            copy.deepcopy((one.notes, {k: n - one.shared.get(k, 0) for k, n in one.more.items()})) for one in pair
        ]
        monkeypatch.setattr(journal, "gather_objects", lambda own: brought)
        for one in pair:
            one.gather()

    for expected in (4, 4, 8):
        if expected > pair[0].count("skipped"):
            for one in pair:
                one.note([Note(f"{next(letters)}.wav", "skipped", "damaged") for _ in range(2)])
        share()
        assert vars(pair[0]) == vars(pair[1])
        assert pair[0].count("skipped") == expected and len(pair[0].notes["skipped"]) == 3
