"""WatchedRun: the curves of a run as the doctor reads them.

Invariant: what comes out is finite; a gap, a null or a NaN in the rows is left out, whichever curve it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, TypeVar

from .trend import Trend, window

T = TypeVar("T")
Row = dict[str, Any]
Points = list[tuple[int, float]]

RECENT_LEAST = 5
"""Steps before a level is judged, so that one odd rollout is none."""
SOLVED = 0.9
"""Share of right answers above which little entropy, equal groups and a reward that stays are signs of success."""
LARGEST = 1e100
"""What is larger is as good as infinite; below it no sum of squares overflows."""


class WatchedRun:
    """The curves of a run, without gaps."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.policy = sorted((row for row in rows if row["phase"] == "policy"), key=lambda row: row["step"])

    def points(self, name: str) -> Points:
        """(step, value) of a curve where it is a finite number."""
        return [(row["step"], row[name]) for row in self.policy if is_number(row.get(name))]

    def trend(self, name: str) -> Trend | None:
        """How a curve has moved; None where it is too short to say."""
        return Trend.of(self.points(name))

    def recent(self, name: str) -> tuple[int, float] | None:
        """The last step and the mean of the last window of a curve; None where it is too short to say."""
        points = self.points(name)
        return (points[-1][0], fmean(value for _, value in newest(points))) if len(points) >= RECENT_LEAST else None

    def right(self) -> float | None:
        """The share of right answers now, in training or held out, whichever is higher.

        None where it is unknown, as with verifiers that give scores: they never say right.
        """
        known = []
        correct, wrong = self.recent("outcome/correct"), self.recent("outcome/wrong")
        if correct is not None and wrong is not None and correct[1] + wrong[1] >= 0.5:
            known.append(correct[1])
        scores = [points[-1][1]["accuracy"] for points in self.held_out().values()]
        if any(scores):
            known.append(min(scores))
        return max(known, default=None)

    def solved(self) -> bool:
        """Whether nearly all answers are right, as far as is known."""
        return (self.right() or 0.0) >= SOLVED

    def held_out(self) -> dict[str, list[tuple[int, Row]]]:
        """(step, row) of the evaluations of each environment; of several at one step the last."""
        found: dict[str, dict[int, Row]] = {}
        for row in self.rows:
            numbers = is_number(row.get("accuracy")) and is_number(row.get("tasks"))
            if row["phase"] == "eval" and numbers and 0 <= row["accuracy"] <= 1 and row["tasks"] > 0:
                found.setdefault(row["env"], {})[row["step"]] = row
        return {env: sorted(points.items()) for env, points in found.items()}


def newest(values: Sequence[T]) -> Sequence[T]:
    """The last window of the values of a curve, RECENT_LEAST at least where there are so many."""
    return values[-max(RECENT_LEAST, window(len(values))) :]


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
