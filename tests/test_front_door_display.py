"""The progress display: plain lines now and then, bars on a terminal, and counts that evaluations do not disturb."""

from __future__ import annotations

import io
import os
import pty

import pytest

from ludus.progress import Display, clock_time, short


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def display(clock: Clock) -> tuple[Display, io.StringIO]:
    stream = io.StringIO()
    return Display(stream, clock=clock), stream


def test_lines_come_now_and_then_and_always_at_the_end(clock: Clock) -> None:
    shown, stream = display(clock)
    with shown:
        shown.phase("policy", 100)
        for step in range(1, 101):
            clock.now += 0.5
            shown.update(step, reward=step / 100)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "policy: 100 steps"
    assert lines[1] == "policy 1/100  2/s, 0:50 left  reward 0.01"
    assert lines[-1] == "policy 100/100  2/s, 0:50 in all  reward 1"
    assert len(lines) == 12


def test_the_time_of_an_evaluation_is_not_counted_as_training(clock: Clock) -> None:
    shown, stream = display(clock)
    shown.phase("policy", 10)
    clock.now += 1
    shown.update(1)
    shown.phase("evaluation", 2)
    clock.now += 500
    shown.update(1)
    shown.phase("policy", 10)
    clock.now += 1
    shown.update(2)
    clock.now += 8
    shown.update(10)
    assert stream.getvalue().splitlines()[-1] == "policy 10/10  1/s, 0:10 in all"


def test_a_resumed_run_is_not_credited_with_the_steps_before(clock: Clock) -> None:
    shown, stream = display(clock)
    shown.phase("policy", 300)
    clock.now += 4
    shown.update(201)
    assert stream.getvalue().splitlines()[-1] == "policy 201/300  4 s each, 6:36 left"


def test_a_phase_that_ended_can_begin_again(clock: Clock) -> None:
    shown, stream = display(clock)
    for _ in range(2):
        shown.phase("evaluation", 2)
        clock.now += 2
        shown.update(2)
    assert stream.getvalue().splitlines().count("evaluation: 2 steps") == 2


def test_notes_are_shown_as_they_are(clock: Clock) -> None:
    shown, stream = display(clock)
    shown.note("[bold]accuracy[/bold] [0.1, 0.2]")
    assert stream.getvalue() == "[bold]accuracy[/bold] [0.1, 0.2]\n"


def test_an_update_before_a_phase_is_a_programming_error(clock: Clock) -> None:
    shown, _ = display(clock)
    with pytest.raises(RuntimeError, match=r"before Display\.phase"):
        shown.update(1)


def test_a_terminal_gets_bars_with_rate_and_values() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        with Display(terminal) as shown:
            shown.phase("policy", 4)
            shown.note("[bold] stays text")
            shown.phase("evaluation", 2)
            shown.update(2, accuracy=0.5)
            shown.phase("policy", 4)
            shown.update(3, reward=0.25)
        print("the end", file=terminal, flush=True)
        text = ""
        while "the end" not in text:
            text += os.read(ours, 100_000).decode(errors="replace")
    os.close(ours)
    assert "[bold] stays text" in text
    assert "3/4" in text and "reward 0.25" in text and "accuracy 0.5" in text and "━" in text


def test_times_and_numbers_are_short() -> None:
    assert [clock_time(seconds) for seconds in (0, 7.4, 754, 3723)] == ["0:00", "0:07", "12:34", "1:02:03"]
    assert [short(value) for value in (0.123456, 12345, None, True, "x")] == ["0.1235", "12,345", "-", "True", "x"]
