"""Golds: the right answers of MATH-500 and of GSM8K's test file, as the datasets write them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random

_SEPARATED = re.compile(r"-?\d{1,3}(?:,(?:\\!)? ?\d{3})+")
_DECIMAL = re.compile(r"-?\d*\.\d+|-?\d+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac(?:\{(-?\d+)\}| ?(\d))(?:\{(\d+)\}| ?(\d))")


@dataclass(frozen=True)
class Gold:
    """One right answer. source: "MATH-500" or "GSM8K"."""

    text: str
    question: str
    source: str

    @property
    def asks_percent(self) -> bool:
        """Whether the question speaks of percent, so that a bare number may stand for a percentage."""
        return bool(re.search(r"%|percent", self.question, re.IGNORECASE))


@dataclass(frozen=True)
class Golds:
    """All right answers, in the order of the files."""

    math: tuple[Gold, ...]
    gsm8k: tuple[Gold, ...]

    def shuffled(self, rng: Random) -> list[Gold]:
        """MATH-500's golds in an order drawn by `rng`."""
        return rng.sample(self.math, len(self.math))

    def numbers(self, rng: Random, wanted: Callable[[Fraction], bool]) -> Iterator[tuple[Gold, Fraction]]:
        """MATH-500's golds that are one rational number of the wanted kind, in an order drawn by `rng`."""
        for gold in self.shuffled(rng):
            value = rational(gold.text)
            if value is not None and wanted(value):
                yield gold, value


def read_golds(folder: Path) -> Golds:
    """Read gsm8k/test.jsonl and math500/test.jsonl below a folder. Raises OSError where one is not there."""
    math = _rows(folder / "math500" / "test.jsonl", "The answer is:", "MATH-500")
    return Golds(math, _rows(folder / "gsm8k" / "test.jsonl", "####", "GSM8K"))


def _rows(path: Path, marker: str, source: str) -> tuple[Gold, ...]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return tuple(Gold(row["answer"].rpartition(marker)[2].strip(), row["question"], source) for row in rows)


def rational(text: str) -> Fraction | None:
    """The number that a gold is, where it is one rational number and nothing else (no unit, sign %, base)."""
    if _SEPARATED.fullmatch(text):
        return Fraction(re.sub(r"[^\d-]", "", text))
    if _DECIMAL.fullmatch(text):
        return Fraction(text)
    if found := _FRACTION.fullmatch(text):
        minus, numerator, digit, denominator, other = found.groups()
        value = Fraction(int(numerator or digit), int(denominator or other))
        return -value if minus else value
    return None
