"""Trends: whether a noisy curve has risen, fallen or swung, each time measured against its own noise.

The noise is taken from the differences between neighbouring steps, which a slow movement hardly touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import fmean, median

LEAST = 20
"""Steps before anything is called a trend; the noise of fewer says too little."""
LONGEST_WINDOW = 20
"""Steps in a window: enough to average the noise of single steps away, few enough to tell what is now from before."""
BLOCK = 5
"""Steps of which a swing is judged by their mean, and a start by their median."""
DEVIATIONS = 6.0
"""Standard errors that a swing or a fall from the best window has at least. The range of forty means of pure noise is
about four."""


@dataclass(frozen=True)
class Trend:
    """A curve at its start and now.

    start: the median of the first BLOCK values, for what may change within a window. first, last, best: the means of
    the first, the last, and the highest window. error: standard error of the difference between two windows.
    last_step: the step of the last value. steps: how many values there are.
    """

    start: float
    first: float
    last: float
    best: float
    error: float
    last_step: int
    steps: int

    @classmethod
    def of(cls, points: Sequence[tuple[int, float]]) -> Trend | None:
        """The trend of (step, value) in the order of steps; None for fewer than LEAST."""
        if len(points) < LEAST:
            return None
        values = [value for _, value in points]
        size = window(len(values))
        means = [fmean(values[i : i + size]) for i in range(len(values) - size + 1)]
        error = noise(values) * sqrt(2 / size)
        return cls(median(values[:BLOCK]), means[0], means[-1], max(means), error, points[-1][0], len(points))


def window(count: int) -> int:
    """Steps in a window of a curve of `count`: a quarter of them, at most LONGEST_WINDOW."""
    return max(1, min(LONGEST_WINDOW, count // 4))


def noise(values: Sequence[float]) -> float:
    """Standard deviation of single values around a slow movement; 0 for fewer than two."""
    squares = [(b - a) ** 2 for a, b in pairwise(values)]
    return sqrt(fmean(squares) / 2) if squares else 0.0


def turns(values: Sequence[float], least: float) -> int:
    """How often the values turned round after a movement of at least `least` in one direction and then the other.

    0 where least is 0, as in a curve that never moves.
    """
    if not values or least <= 0:
        return 0
    count = direction = 0
    low = high = values[0]
    for value in values:
        low, high = min(low, value), max(high, value)
        if direction >= 0 and high - value >= least:
            count += direction
            direction, low, high = -1, value, value
        elif direction <= 0 and value - low >= least:
            count -= direction
            direction, low, high = 1, value, value
    return count


def slow_turns(values: Sequence[float], least: float) -> int:
    """`turns` of the means of blocks, by `least` and beyond their noise."""
    blocks = [values[i : i + BLOCK] for i in range(0, len(values) - BLOCK + 1, BLOCK)]
    if not blocks:
        return 0
    within = fmean(fmean((value - fmean(block)) ** 2 for value in block) for block in blocks) * BLOCK / (BLOCK - 1)
    return turns([fmean(block) for block in blocks], max(least, DEVIATIONS * sqrt(within / BLOCK)))


def alternation(values: Sequence[float], longest: int = 4) -> float:
    """The lowest autocorrelation of lags 1 to `longest` around a moving mean: near -1 for a regular swing of single
    steps, near 0 for noise; 0 where nothing moves."""
    reach = 10
    near = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    rest = [value - fmean(around) for value, around in zip(values, near, strict=True)]
    power = sum(value * value for value in rest)
    if power <= 1e-24 * sum(value * value for value in values):
        return 0.0
    return min(sum(a * b for a, b in zip(rest, rest[lag:], strict=False)) / power for lag in range(1, longest + 1))
