"""Measure: sides take turns, so that a machine that slows down slows all of them; what counts is the median."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median


class BenchmarkError(Exception):
    """A benchmark that cannot run here; its text is one sentence that names the fix."""


@dataclass(frozen=True)
class Sample:
    """One quantity, measured several times."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the values."""
        return median(self.values)

    def __format__(self, spec: str) -> str:
        """The median and, where there are several values, smallest and largest, each in the format `spec`."""
        text = format(self.median, spec)
        if len(self.values) == 1:
            return text
        return f"{text} ({min(self.values):{spec}} to {max(self.values):{spec}})"


def need(package: str) -> None:
    """BenchmarkError where an optional package, which is also the name of an extra, is not installed."""
    if find_spec(package) is None:
        raise BenchmarkError(f"{package} is not installed; run: pip install 'ludus[{package}]'.")


def seconds_of(call: Callable[[], object]) -> float:
    """Wall-clock seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turns(sides: Mapping[str, Callable[[], float]], repetitions: int, warmups: int = 1) -> dict[str, Sample]:
    """Call each side, which returns its number, `repetitions` times in turns, after `warmups` that do not count."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmups + repetitions):
        for name, side in sides.items():
            value = side()
            if turn >= warmups:
                values[name].append(value)
    return {name: Sample(tuple(found)) for name, found in values.items()}


def ratio(ours: Sample, peer: Sample) -> Sample:
    """ours / peer, turn by turn."""
    return Sample(tuple(a / b for a, b in zip(ours.values, peer.values, strict=True)))
