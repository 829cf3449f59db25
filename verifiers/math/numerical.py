"""Nearness: whether two expressions can have the same value.

Invariant: DIFFERENT is proven, by two balls that do not touch. EQUAL means that the balls touch at a precision at which
nothing that either expression adds up is small enough to be lost; where something is, the answer is UNSURE.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from enum import Enum
from fractions import Fraction
from typing import Any

from flint import acb

from .balls import Evaluation, balls, magnitude, precision, upper_magnitude
from .errors import Imprecise, NoValue, TooLarge, TooMuchWork, Undefined
from .expression import Node
from .work import Work

PRECISIONS = (512, 2048, 8192)
"""Bits; a finer one is used where a coarser one cannot tell."""
RANGES = ((0, 1), (1, 10), (-10, 0), (10, 100), (-100, -10), (-1, 1), (100, 10_000), (-10_000, -100))
"""Where points are drawn, one range after the other: an answer that is right only near 0, or only above it, is not."""
POINTS, CANDIDATES = 8, 64
"""Points at which expressions with variables are compared, and how many are tried to find them."""
ENOUGH = 4
"""So many points must be found where the right answer is defined."""


class ResponseUndefined(Exception):
    """The right answer has a value there, the other one has none."""


class Nearness(Enum):
    """What two evaluations say."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNSURE = "unsure"


def approximate(node: Node, work: Work, bits: int = 256) -> Any | None:
    """The real ball of a node without symbols, or None where it has no real value."""
    with precision(bits):
        try:
            value = Evaluation(bits, {}, work).value(node)
        except NoValue:
            return None
        return value.real if value.imag.contains(0) else None


_INTEGERS_ONLY = {"factorial", "double_factorial", "binomial", "gcd", "lcm", "sum", "prod"}


def nearness(gold: Node, response: Node, seed: str, work: Work, log_base: int | None = None) -> Nearness:
    """Whether two expressions have the same value, everywhere where the first is defined (and real, if it can be).

    Expressions with symbols are compared at POINTS points drawn from a generator seeded with `seed`. log_base: the base
    of a logarithm written without one; None is e. Raises NoValue where they cannot be evaluated, TooLarge where a guard
    stops.
    """
    names = sorted(gold.symbols() | response.symbols())
    if not names:
        try:
            return _at(gold, response, {}, work, log_base)
        except ResponseUndefined:
            return Nearness.DIFFERENT
    rng = generator(seed)
    whole = {
        name
        for side in (gold, response)
        for node in side.walk()
        if node.op == "fn" and node.value in _INTEGERS_ONLY
        for name in node.symbols()
    }
    complex_too = any(node.op == "const" and node.value == "i" for node in gold.walk())
    found, undefined, unsure = 0, 0, False
    for attempt in range(CANDIDATES):
        point = draw_point(rng, names, attempt, whole)
        try:
            if not _defined(gold, point, work, log_base, complex_too):
                continue
            verdict = _at(gold, response, point, work, log_base)
        except TooMuchWork:
            raise
        except ResponseUndefined:
            undefined += 1
            continue
        except TooLarge:  # an exponential at a large point
            continue
        if verdict is Nearness.DIFFERENT:
            return verdict
        unsure |= verdict is Nearness.UNSURE
        found += 1
        if found == POINTS:
            break
    if found >= ENOUGH:
        return Nearness.UNSURE if unsure else Nearness.EQUAL
    if undefined >= ENOUGH:
        return Nearness.DIFFERENT
    raise NoValue("the right answer is defined nowhere where it was tried")


def proportional(gold: Node, response: Node, seed: str, work: Work, positive: bool = False) -> Nearness:
    """Whether one expression is the other times a constant that is not zero (or, asked for, is positive).

    So two equations, each brought to one side, are the same. Raises as `nearness` does.
    """
    names = sorted(gold.symbols() | response.symbols())
    rng = generator(seed)
    first: tuple[Any, Any] | None = None
    found = 0
    for attempt in range(CANDIDATES):
        point = draw_point(rng, names, attempt, set())
        try:
            with precision(PRECISIONS[0]):
                evaluation = Evaluation(PRECISIONS[0], balls(point), work)
                left, right = evaluation.value(gold), evaluation.value(response)
                if not (left.imag.contains(0) and right.imag.contains(0)):
                    continue
                if left.contains(acb(0)) or right.contains(acb(0)):
                    if left.contains(acb(0)) and right.contains(acb(0)):
                        continue
                    return Nearness.DIFFERENT
                if positive and (left / right).real < 0:
                    return Nearness.DIFFERENT
                if first is None:
                    first = (left, right)
                elif not (left * first[1] - right * first[0]).contains(acb(0)):
                    return Nearness.DIFFERENT
                if evaluation.lost:
                    return Nearness.UNSURE
        except TooMuchWork:
            raise
        except (Undefined, Imprecise, TooLarge):
            continue
        found += 1
        if found == POINTS:
            break
    return Nearness.EQUAL if found >= ENOUGH else Nearness.UNSURE


def generator(seed: str) -> random.Random:
    """A generator that depends on the text alone."""
    return random.Random(hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest())


def draw_point(rng: random.Random, names: Sequence[str], attempt: int, whole: set[str]) -> dict[str, Fraction]:
    """Values of the symbols, drawn from one of RANGES after the other; small whole numbers for those in `whole`."""
    low, high = RANGES[attempt % len(RANGES)]
    point: dict[str, Fraction] = {}
    for name in names:
        if name in whole:
            point[name] = Fraction(rng.randint(1, 9 + attempt // 4))
            continue
        size = rng.randint(1_000, 10_000)
        point[name] = Fraction(rng.randint(low * size + 1, high * size - 1), size)
    return point


def _defined(gold: Node, point: dict[str, Fraction], work: Work, log_base: int | None, complex_too: bool) -> bool:
    """Whether the right answer has a value there. Raises NoValue where it could not be calculated anywhere."""
    with precision(PRECISIONS[0]):
        try:
            value = Evaluation(PRECISIONS[0], balls(point), work, log_base).value(gold)
        except (Undefined, Imprecise):
            return False
        return complex_too or bool(value.imag.contains(0))


def _at(gold: Node, response: Node, point: dict[str, Fraction], work: Work, log_base: int | None) -> Nearness:
    for bits in PRECISIONS:
        with precision(bits):
            evaluation = Evaluation(bits, balls(point), work, log_base)
            try:
                right = evaluation.value(gold)
            except Imprecise:
                continue
            try:
                difference = right - evaluation.value(response)
            except Imprecise:
                continue
            except Undefined:
                raise ResponseUndefined from None
            if not difference.contains(acb(0)):
                return Nearness.DIFFERENT
            if not evaluation.lost and _sharp(right, difference, bits):
                return Nearness.EQUAL
    return Nearness.UNSURE


def _sharp(right: Any, difference: Any, bits: int) -> bool:
    """Whether the ball around the difference is much smaller than the value (or than 1, where that may be zero)."""
    size = magnitude(right) or 0
    radius = upper_magnitude(difference)
    return radius is None or radius < size - bits // 2
