"""Trackers: copies of metrics.jsonl for those who watch elsewhere, and what a recipe says of them.

Invariant: metrics.jsonl is the truth. A copy that fails is told of once and left, and the run goes on
(tests/test_trackers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from pydantic import Field

from .agents.config import Section

Row = dict[str, Any]
Dated = tuple[Row, float]
"""A row of metrics, and when it was logged, in seconds since 1970."""


class WandbConfig(Section):
    """A run of Weights & Biases, whose id stays the same when the run is resumed."""

    project: str = Field("ludus", min_length=1)
    entity: str | None = Field(None, min_length=1, description="user or team; your own if unset")
    mode: Literal["online", "offline"] | None = Field(
        None, description="offline writes to the run folder alone; as WANDB_MODE says if unset"
    )


class TrackersConfig(Section):
    """Where metrics go beside metrics.jsonl, which every run has."""

    tensorboard: bool = True
    wandb: WandbConfig | None = Field(None, description="Weights & Biases; {} for the usual project")


class Tracker(Protocol):
    """One copy of the metrics."""

    def write(self, row: Row, wall_time: float) -> None:
        """Add one row."""
        ...

    def rewrite(self, rows: Sequence[Dated]) -> None:
        """The rows there are now: a resume or a roll-back took back some of those written."""
        ...

    def close(self, failed: bool = False) -> None:
        """Let go of files and processes. failed: the run ended by an exception."""
        ...


class Trackers:
    """The copies of one run, by name. tell: says one line to whoever watches."""

    def __init__(self, tell: Callable[[str], None] = print) -> None:
        self.tell = tell
        self._open: dict[str, Tracker] = {}

    def add(self, name: str, tracker: Tracker) -> None:
        """Write to one more, or to another in the place of one of the same name."""
        self._open[name] = tracker

    def remove(self, name: str, failed: bool = False) -> None:
        """Close one, if it is there, and write to it no more."""
        self._each(lambda tracker: tracker.close(failed), [name])
        self._open.pop(name, None)

    def write(self, row: Row, wall_time: float) -> None:
        """Add one row to each."""
        self._each(lambda tracker: tracker.write(row, wall_time))

    def rewrite(self, rows: Sequence[Dated]) -> None:
        """Tell each which rows there are now."""
        self._each(lambda tracker: tracker.rewrite(rows))

    def close(self) -> None:
        """Close each; a row that comes later opens it again."""
        self._each(lambda tracker: tracker.close())

    @contextmanager
    def also(self, name: str, tracker: Tracker) -> Iterator[None]:
        """Write to one more inside the block, and tell it at its end whether an exception ended it."""
        self.add(name, tracker)
        try:
            yield
        except BaseException:
            self.remove(name, failed=True)
            raise
        self.remove(name)

    def _each(self, do: Callable[[Tracker], None], names: Sequence[str] | None = None) -> None:
        for name in names or list(self._open):
            if name not in self._open:
                continue
            try:
                do(self._open[name])
            except Exception as error:  # whatever a foreign package raises: no copy is worth a run
                del self._open[name]
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
                self.tell(f"{name} failed ({reason}); the run goes on, and metrics.jsonl has every row.")
