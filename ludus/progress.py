"""Display: how far long work has come, on a terminal as bars that move, elsewhere as a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S = 5.0


@dataclass
class _Phase:
    """One kind of work. Only the time in which it is the current phase counts for its rate."""

    name: str
    total: int | None
    first: int
    step: int
    busy_s: float = 0.0
    shown_before: bool = False
    shown: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return self.total is not None and self.step >= self.total

    def pace(self) -> str:
        """Rate and time left: `2.5/s, 1:20 left`."""
        done = self.step - self.first
        if done <= 0 or self.busy_s <= 0:
            return ""
        rate = done / self.busy_s
        text = f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each"
        if self.total is None or self.finished:
            return f"{text}, {clock_time(self.busy_s)} in all" if self.finished else text
        return f"{text}, {clock_time((self.total - self.step) / rate)} left"

    def values(self) -> str:
        return "  ".join(f"{name} {short(value)}" for name, value in self.shown.items())


class Display:
    """Shows the phases of a run; use it as a context manager.

    with Display() as display:
        display.phase("policy", total=300)
        display.update(1, reward=0.4)

    A phase that is opened again goes on where it was, or starts anew if it had finished: an evaluation in the middle
    of training does not disturb the count of the training.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        line_every_s: float = LINE_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._line_every_s = line_every_s
        self._clock = clock
        self._phases: dict[str, _Phase] = {}
        self._current: _Phase | None = None
        self._since = clock()
        self._last_line = float("-inf")
        self._bars: dict[str, TaskID] = {}
        self._progress: Progress | None = _rich_progress(self._stream) if self._stream.isatty() else None

    def __enter__(self) -> Display:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin, or go on with, a phase of `total` steps (None: unknown)."""
        self._tick()
        phase = self._phases.get(name)
        if phase is None or phase.finished:
            phase = self._phases[name] = _Phase(name, total, first=0, step=0)
            if self._progress:
                if name in self._bars:
                    self._progress.remove_task(self._bars[name])
                self._bars[name] = self._progress.add_task(name, total=total, pace="", values="")
        phase.total = total
        self._current = phase
        if not self._progress and not phase.shown_before:
            self._line(f"{name}: {total if total is not None else 'unknown number of'} steps")

    def update(self, step: int, **shown: Any) -> None:
        """`step` steps of the current phase are done; `shown` are values to stand beside it."""
        if self._current is None:
            raise RuntimeError("Display.update was called before Display.phase.")
        self._tick()
        phase = self._current
        if not phase.shown_before:
            phase.first = max(phase.first, step - 1)  # a resumed run begins in the middle
            phase.shown_before = True
        phase.step = step
        phase.shown.update(shown)
        if self._progress:
            bar = self._bars[phase.name]
            self._progress.update(bar, completed=step, total=phase.total, pace=phase.pace(), values=phase.values())
        elif phase.finished or self._clock() - self._last_line >= self._line_every_s:
            count = f"{step}/{phase.total}" if phase.total is not None else f"{step}"
            self._line("  ".join(part for part in (f"{phase.name} {count}", phase.pace(), phase.values()) if part))
            self._last_line = self._clock()

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._progress:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._line(text)

    def _tick(self) -> None:
        now = self._clock()
        if self._current is not None:
            self._current.busy_s += now - self._since
        self._since = now

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def short(value: Any) -> str:
    """A number in four digits."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def clock_time(seconds: float) -> str:
    """0:07, 12:34, 1:02:03."""
    whole = int(seconds + 0.5)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _rich_progress(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}", markup=False, style="bold"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}", markup=False, style="cyan"),
        TextColumn("{task.fields[values]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=Console(file=stream),
        refresh_per_second=5,
    )
