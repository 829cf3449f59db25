"""Nobody waits in silence."""

from __future__ import annotations

import re
import threading

import pytest

from ludus.agents.waiting import Waiting, told


def test_a_call_that_takes_long_is_told_of_until_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ludus.agents.waiting.SAY_AFTER_S", 0.0)
    monkeypatch.setattr("ludus.agents.waiting.POLL_S", 0.01)
    said: list[str] = []
    twice = threading.Event()

    def note(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            twice.set()

    with told(note, "the moon"):
        assert twice.wait(60)
    assert all(re.fullmatch(r"Waiting since \d\d:\d\d:\d\d \(\d+ s\) for the moon\.", line) for line in said)
    assert "ludus-waiting" not in [thread.name for thread in threading.enumerate()]


def test_what_takes_a_moment_is_not_told_of() -> None:
    said: list[str] = []
    with told(said.append, "a moment"):
        pass
    assert said == [] and Waiting().line(lambda: "a moment") is None


def test_an_error_comes_through() -> None:
    with pytest.raises(ZeroDivisionError), told(print, "a number"):
        _ = 1 / 0
