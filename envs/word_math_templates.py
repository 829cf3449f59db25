"""The templates of ludus/WordMath-v0: short texts with numbers to draw, the steps that solve them, typical mistakes.

A step is an expression; {0}, {1}, … in it stand for the results of earlier steps.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from itertools import groupby
from typing import Literal

import numpy as np

from ..verifiers.numbers import format_number
from .calculator import evaluate

Split = Literal["train", "test"]
Steps = tuple[str, ...]

LARGEST = 99_999
"""No number on the way to an answer is larger."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES: dict[Split, tuple[str, ...]] = {
    "train": _words(
        "Ann Ben Carla Dan Ella Finn Gina Hugo Ida Jack Kim Leo Mia Nick Olga Paul Quinn Rosa Sam Tina Uma Vera "
        "Will Xena Yara Zoe"
    ),
    "test": _words("Anton Bella Cleo Dina Emil Fay Greta Hans Iris June Karl Lena Max Nora Oscar Pia Ravi Sofia"),
}
THINGS = _words("apples books cards coins eggs flowers marbles pears pens shells stamps stickers")
FRACTIONS = tuple((top, under) for under in range(2, 27) for top in range(1, under) if np.gcd(top, under) == 1)
PERCENTS = (5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 80)


@cache
def belongs(number: int, split: Split) -> bool:
    """Whether an integer may stand in the prompts of a split; each integer belongs to exactly one.

    A checksum puts a fifth of the integers from 10 on into the test split. It follows no pattern of digits, so that
    every digit and every pair of digits still occurs within numbers of the train split.
    """
    return (number >= 10 and zlib.crc32(f"ludus{number}".encode()) % 5 == 0) == (split == "test")


@lru_cache(maxsize=4096)
def fitting(split: Split, low: int, high: int, multiple_of: int) -> tuple[tuple[int, ...], ...]:
    """The multiples from low to high that belong to a split, in tuples: those below 100, below 1,000 and so on."""
    numbers = [n for n in range(low + -low % multiple_of, high + 1, multiple_of) if belongs(n, split)]
    return tuple(tuple(group) for _, group in groupby(numbers, key=lambda n: len(str(max(n, 10)))))


class Draw:
    """Random names, things and numbers of one split."""

    def __init__(self, rng: np.random.Generator, split: Split) -> None:
        self.rng = rng
        self.split = split

    def names(self, count: int) -> list[str]:
        """Different first names."""
        known = NAMES[self.split]
        return [known[int(i)] for i in self.rng.choice(len(known), size=count, replace=False)]

    def things(self) -> str:
        """A plural noun."""
        return THINGS[int(self.rng.integers(len(THINGS)))]

    def number(self, low: int, high: int, multiple_of: int = 1) -> int:
        """An integer of the split from low to high, both included; below 100, 1,000 and 10,000 are equally likely."""
        by_size = fitting(self.split, low, high, multiple_of)
        numbers = by_size[int(self.rng.integers(len(by_size)))]
        return numbers[int(self.rng.integers(len(numbers)))]

    def fraction(self) -> tuple[int, int]:
        """Numerator and denominator of a proper fraction in lowest terms, both of the split."""
        own = [f for f in FRACTIONS if belongs(f[0], self.split) and belongs(f[1], self.split)]
        return own[int(self.rng.integers(len(own)))]

    def percent(self) -> int:
        """A round percentage."""
        own = [p for p in PERCENTS if belongs(p, self.split)]
        return own[int(self.rng.integers(len(own)))]

    def price(self, high: int) -> str:
        """A price below `high` with two decimals, each part of the split."""
        return f"{self.number(1, high)}.{self.number(15, 95, 5)}"


@dataclass(frozen=True)
class Problem:
    """A text, the numbers in it, the steps that solve it, and the steps of each typical mistake.

    whole: the answer counts things, so it must be an integer; numbers are drawn until it is.
    """

    text: str
    operands: tuple[int | str, ...]
    steps: Steps
    flawed: tuple[Steps, ...]
    whole: bool = True


@dataclass(frozen=True)
class Template:
    """One kind of problem. level: 1 for one operation, 2 for two or a hidden difficulty, 3 for three."""

    name: str
    level: int
    build: Callable[[Draw], Problem]


@dataclass(frozen=True)
class Solution:
    """Steps with their numbers filled in, and the last value. fits: all values are short and not negative."""

    expressions: Steps
    value: Fraction
    fits: bool


def solve(steps: Sequence[str]) -> Solution | None:
    """Calculate the steps in turn; None where a result is too large or no short decimal."""
    results: list[str] = []
    expressions: list[str] = []
    values: list[Fraction] = []
    for step in steps:
        expressions.append(step.format(*results))
        values.append(evaluate(expressions[-1]))
        results.append(format_number(values[-1]))
        if abs(values[-1]) > LARGEST or len(results[-1].lstrip("-")) > 7 or "/" in results[-1]:
            return None
    if any(re.search(r"-[0-9.]*$", text) for text in results[:-1]):
        return None
    return Solution(tuple(expressions), values[-1], all(value >= 0 for value in values))


TEMPLATES: dict[str, Template] = {}


def template(level: int) -> Callable[[Callable[[Draw], Problem]], Callable[[Draw], Problem]]:
    """Register a template under the name of its function."""

    def register(build: Callable[[Draw], Problem]) -> Callable[[Draw], Problem]:
        TEMPLATES[build.__name__] = Template(build.__name__, level, build)
        return build

    return register


@template(1)
def gain(d: Draw) -> Problem:
    """a + b."""
    (name,), things, a, b = d.names(1), d.things(), d.number(3, 9999), d.number(3, 9999)
    text = f"{name} has {a} {things} and buys {b} more. How many is that?"
    return Problem(text, (a, b), (f"{a}+{b}",), ((f"{a}-{b}",),))


@template(1)
def loss(d: Draw) -> Problem:
    """a - b."""
    (name, other), things, a, b = d.names(2), d.things(), d.number(40, 9999), d.number(3, 999)
    text = f"{name} has {a} {things} and gives {b} to {other}. How many are left?"
    return Problem(text, (a, b), (f"{a}-{b}",), ((f"{b}-{a}",), (f"{a}+{b}",)))


@template(1)
def boxes(d: Draw) -> Problem:
    """a * b."""
    (name,), things, a, b = d.names(1), d.things(), d.number(3, 99), d.number(3, 999)
    text = f"{name} fills {a} boxes with {b} {things} each. How many is that?"
    return Problem(text, (a, b), (f"{a}*{b}",), ((f"{a}+{b}",),))


@template(1)
def share(d: Draw) -> Problem:
    """a / b, a whole number."""
    (name,), things, b = d.names(1), d.things(), d.number(3, 99)
    a = d.number(3 * b, 60 * b, b)
    text = f"{name} shares {a} {things} among {b} friends. How many does each get?"
    return Problem(text, (a, b), (f"{a}/{b}",), ((f"{a}-{b}",), (f"{a}*{b}",)))


@template(1)
def pour(d: Draw) -> Problem:
    """a / b, often a fraction."""
    (name,), a, b = d.names(1), d.number(3, 999), d.number(3, 60)
    text = f"{name} pours {a} liters of juice into {b} jugs. How many are in a jug?"
    return Problem(text, (a, b), (f"{a}/{b}",), ((f"{a}*{b}",), (f"{a}-{b}",)), whole=False)


@template(1)
def compare(d: Draw) -> Problem:
    """a - b, told with the word "more"."""
    (name, other), things, a, b = d.names(2), d.things(), d.number(11, 9999), d.number(3, 999)
    text = f"{name} has {a} {things}, {b} more than {other}. How many has {other}?"
    return Problem(text, (a, b), (f"{a}-{b}",), ((f"{a}+{b}",),))


@template(2)
def part_of(d: Draw) -> Problem:
    """a * top / under."""
    (name,), things, (top, under) = d.names(1), d.things(), d.fraction()
    a = d.number(under, 200 * under, under)
    text = f"{name} has {a} {things} and sells {top}/{under} of them. How many are sold?"
    return Problem(text, (a, f"{top}/{under}"), (f"{a}*{top}", f"{{0}}/{under}"), ((f"{a}*{top}",), (f"{a}-{top}",)))


@template(2)
def percent_of(d: Draw) -> Problem:
    """a * p%."""
    (name,), p, a = d.names(1), d.percent(), d.number(20, 999)
    text = f"{name} has {a} dollars and spends {p}% of it. How much is spent?"
    return Problem(text, (a, f"{p}%"), (f"{a}*{p}%",), ((f"{a}-{p}",), (f"{a}/{p}",)), whole=False)


@template(2)
def extra_number(d: Draw) -> Problem:
    """a + c; an age stands first, which does not count."""
    (name,), things, a, b, c = d.names(1), d.things(), d.number(11, 9999), d.number(6, 99), d.number(11, 9999)
    text = f"{name}, aged {b}, has {a} {things} and finds {c} more. How many is that?"
    return Problem(text, (b, a, c), (f"{a}+{c}",), ((f"{b}+{a}",), (f"{b}+{c}",)))


@template(2)
def extra_days(d: Draw) -> Problem:
    """a * b; a number of days stands first, which does not count."""
    (name,), things, a, b, c = d.names(1), d.things(), d.number(3, 99), d.number(3, 999), d.number(3, 99)
    text = f"In {c} days {name} fills {a} bags with {b} {things} each. How many is that?"
    return Problem(text, (c, a, b), (f"{a}*{b}",), ((f"{c}*{a}",), (f"{c}*{b}",)))


@template(2)
def gain_then_loss(d: Draw) -> Problem:
    """a + b - c."""
    (name,), things, a, b, c = d.names(1), d.things(), d.number(11, 9999), d.number(11, 9999), d.number(3, 999)
    text = f"{name} has {a} {things}, buys {b} and loses {c}. How many are left?"
    return Problem(text, (a, b, c), (f"{a}+{b}", f"{{0}}-{c}"), ((f"{a}+{b}",), (f"{a}+{b}", f"{{0}}+{c}")))


@template(2)
def boxes_then_eat(d: Draw) -> Problem:
    """a * b - c."""
    (name,), things, a, b, c = d.names(1), d.things(), d.number(3, 99), d.number(3, 99), d.number(3, 999)
    text = f"{name} buys {a} boxes of {b} {things} and drops {c}. How many are left?"
    return Problem(text, (a, b, c), (f"{a}*{b}", f"{{0}}-{c}"), ((f"{a}*{b}",), (f"{a}*{b}", f"{{0}}+{c}")))


@template(2)
def gain_then_share(d: Draw) -> Problem:
    """(a + b) / c."""
    (name,), things, a, b, c = d.names(1), d.things(), d.number(11, 999), d.number(11, 999), d.number(3, 60)
    text = f"{name} has {a} {things}, finds {b} and fills {c} equal rows. How many are in a row?"
    return Problem(text, (a, b, c), (f"{a}+{b}", f"{{0}}/{c}"), ((f"{a}+{b}",), (f"{a}+{b}", f"{{0}}*{c}")))


@template(2)
def change(d: Draw) -> Problem:
    """c - a * b."""
    (name,), a, b, c = d.names(1), d.number(3, 99), d.number(3, 99), d.number(20, 9999)
    text = f"{name} pays {c} dollars for {a} books at {b} dollars each. How much comes back?"
    return Problem(text, (c, a, b), (f"{a}*{b}", f"{c}-{{0}}"), ((f"{a}*{b}",), (f"{c}-{b}",)))


@template(2)
def decimal_price(d: Draw) -> Problem:
    """a * price + b, in dollars and cents."""
    (name,), price, a, b = d.names(1), d.price(60), d.number(3, 99), d.number(3, 99)
    text = f"{name} buys {a} pens at {price} dollars each and a bag for {b}. How much is that?"
    steps = (f"{a}*{price}", f"{{0}}+{b}")
    return Problem(text, (a, price, b), steps, (steps[:1], (f"{price}+{b}",)), whole=False)


@template(3)
def part_left(d: Draw) -> Problem:
    """a - a * top / under."""
    (name,), things, (top, under) = d.names(1), d.things(), d.fraction()
    a = d.number(under, 200 * under, under)
    text = f"{name} has {a} {things} and loses {top}/{under} of them. How many are left?"
    steps = (f"{a}*{top}", f"{{0}}/{under}", f"{a}-{{1}}")
    return Problem(text, (a, f"{top}/{under}"), steps, (steps[:2],))


@template(3)
def two_shelves(d: Draw) -> Problem:
    """a * b + c * e."""
    (name,), things = d.names(1), d.things()
    a, b, c, e = d.number(3, 99), d.number(3, 99), d.number(3, 99), d.number(3, 99)
    text = f"{name} has {a} bags of {b} {things} and {c} bags of {e}. How many is that?"
    steps = (f"{a}*{b}", f"{c}*{e}", "{0}+{1}")
    return Problem(text, (a, b, c, e), steps, ((f"{a}*{b}", "{0}+" + str(c), "{1}+" + str(e)), (f"{a}*{b}",)))


@template(3)
def discount(d: Draw) -> Problem:
    """a * b less p%."""
    (name,), a, b, p = d.names(1), d.number(3, 99), d.number(10, 99), d.percent()
    text = f"{name} buys {a} lamps at {b} dollars each with {p}% off. How much is that?"
    steps = (f"{a}*{b}", f"{{0}}*{p}%", "{0}-{1}")
    return Problem(text, (a, b, f"{p}%"), steps, (steps[:2], (f"{a}*{b}", f"{{0}}-{p}")), whole=False)


@template(3)
def share_of_rest(d: Draw) -> Problem:
    """(a * b - c) / e."""
    (name,), things = d.names(1), d.things()
    a, b, c, e = d.number(3, 99), d.number(3, 99), d.number(3, 99), d.number(3, 60)
    text = f"{name} has {a} bags of {b} {things}, eats {c} and fills {e} equal piles. How many are in a pile?"
    steps = (f"{a}*{b}", f"{{0}}-{c}", f"{{1}}/{e}")
    return Problem(text, (a, b, c, e), steps, ((f"{a}*{b}", f"{{0}}/{e}"), steps[:2]))


@template(3)
def extra_in_chain(d: Draw) -> Problem:
    """(a + b) * c; an age stands first, which does not count."""
    (name,), things = d.names(1), d.things()
    a, b, c, e = d.number(11, 999), d.number(11, 999), d.number(3, 60), d.number(6, 99)
    text = f"{name}, aged {e}, has {a} {things}, finds {b} and sells all at {c} dollars each. How much is that?"
    return Problem(text, (e, a, b, c), (f"{a}+{b}", f"{{0}}*{c}"), ((f"{a}+{b}", f"{{0}}*{e}"), (f"{a}+{b}",)))
