"""Exact values: what can be calculated with whole numbers and fractions alone.

Invariant: no number over MAX_BITS bits is ever made; before an operation could make one, TooLarge is raised.
"""

from __future__ import annotations

import math
from fractions import Fraction

import flint

from .errors import TooLarge, Undefined
from .expression import Node
from .work import Work

MAX_BITS = 200_000
"""Largest number of bits of a numerator or denominator."""
MAX_FACTORIAL = 10_000
MAX_TERMS = 1_000
"""Most terms of a sum or product that are added up."""


def bits(value: Fraction) -> int:
    """Number of bits of the larger of numerator and denominator."""
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def exact(node: Node, work: Work) -> Fraction | None:
    """The exact value of a node, or None where it is no rational number as far as fractions alone can tell.

    Raises Undefined where it is undefined (1/0), TooLarge where a guard stops.
    """
    op = node.op
    work.spend()
    if op == "num":
        return node.number
    if op in ("sym", "const", "text", "opaque"):
        return None
    if op == "percent":
        inner = exact(node.args[0], work)
        return None if inner is None else inner / 100
    if op == "add":
        total = Fraction(0)
        for arg in node.args:
            value = exact(arg, work)
            if value is None:
                return None
            if bits(total) + bits(value) > 2 * MAX_BITS:
                raise TooLarge(f"a number has more than {MAX_BITS} bits")
            work.spend((bits(total) + bits(value)) // 200)
            total += value
        return total
    if op == "mul":
        product = Fraction(1)
        for arg in node.args:
            value = exact(arg, work)
            if value is None:
                return None
            if bits(product) + bits(value) > MAX_BITS:
                raise TooLarge(f"a number has more than {MAX_BITS} bits")
            work.spend((bits(product) + bits(value)) // 100)
            product *= value
        return product
    if op == "pow":
        base, exponent = exact(node.args[0], work), exact(node.args[1], work)
        return None if base is None or exponent is None else _power(base, exponent, work)
    if op == "fn":
        return _function(node, work)
    return None


def _power(base: Fraction, exponent: Fraction, work: Work) -> Fraction | None:
    if exponent.denominator != 1:
        root = _root(base, exponent.denominator, work)
        return None if root is None else _power(root, Fraction(exponent.numerator), work)
    count = exponent.numerator
    if base == 0 and count < 0:
        raise Undefined("there is a division by zero")
    if base in (0, 1):
        return base if count else Fraction(1)
    if base == -1:
        return Fraction(-1 if count % 2 else 1)
    if bits(base) * abs(count) > MAX_BITS:
        raise TooLarge(f"a power has more than {MAX_BITS} bits")
    work.spend(bits(base) * abs(count) // 100)
    return base**count


def _root(value: Fraction, degree: int, work: Work) -> Fraction | None:
    """The rational root, with the sign of the value for odd degrees, or None where there is none."""
    if value < 0:
        root = _root(-value, degree, work) if degree % 2 else None
        return None if root is None else -root
    if degree > 1_000:
        return None
    work.spend(bits(value) // 10)
    top, bottom = whole_root(value.numerator, degree), whole_root(value.denominator, degree)
    return None if top is None or bottom is None else Fraction(top, bottom)


def whole_root(value: int, degree: int) -> int | None:
    """The whole number whose `degree`-th power is `value` (0 or more), or None."""
    root = int(flint.fmpz(value).root(degree))
    return root if root**degree == value else None


def _function(node: Node, work: Work) -> Fraction | None:
    name = node.value
    if name in ("sum", "prod"):
        return _series(node, work)
    values: list[Fraction] = []
    for arg in node.args:
        value = exact(arg, work)
        if value is None:
            return None
        values.append(value)
    if not values:
        return None
    first = values[0]
    whole = all(value.denominator == 1 for value in values)
    if name == "root" and len(values) == 2:
        degree = values[1]
        if degree.denominator != 1 or degree < 1:
            return None
        return _root(first, int(degree), work)
    if name == "abs":
        return abs(first)
    if name == "floor":
        return Fraction(math.floor(first))
    if name == "ceil":
        return Fraction(math.ceil(first))
    if name in ("factorial", "double_factorial") and whole:
        if first < 0:
            raise Undefined("there is a factorial of a negative number")
        if first > MAX_FACTORIAL:
            raise TooLarge(f"there is a factorial of a number over {MAX_FACTORIAL}")
        work.spend(int(first) // 5)
        return Fraction(math.factorial(int(first)) if name == "factorial" else math.prod(range(int(first), 0, -2)))
    if name == "binomial" and whole and len(values) == 2:
        n, k = map(int, values)
        if n < 0:
            return None
        if n > MAX_FACTORIAL:
            raise TooLarge(f"there is a binomial coefficient of a number over {MAX_FACTORIAL}")
        work.spend(n // 5)
        return Fraction(math.comb(n, k) if k >= 0 else 0)
    if name in ("gcd", "lcm") and whole:
        if sum(map(bits, values)) > MAX_BITS:
            raise TooLarge(f"a number has more than {MAX_BITS} bits")
        return Fraction((math.gcd if name == "gcd" else math.lcm)(*map(int, values)))
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    return None


def series_terms(node: Node, work: Work) -> list[Node] | None:
    """The terms of a sum or product between whole bounds; None where the bounds are no such numbers."""
    body, variable, low, high = node.args
    first, last = exact(low, work), exact(high, work)
    if first is None or last is None or first.denominator != 1 or last.denominator != 1:
        return None
    if last - first >= MAX_TERMS:
        raise TooLarge(f"a sum has more than {MAX_TERMS} terms")

    def put(part: Node, value: Node) -> Node:
        work.spend()
        if part == variable:
            return value
        return Node(part.op, part.value, tuple(put(arg, value) for arg in part.args)) if part.args else part

    return [put(body, Node("num", Fraction(index))) for index in range(int(first), int(last) + 1)]


def _series(node: Node, work: Work) -> Fraction | None:
    terms = series_terms(node, work)
    if terms is None:
        return None
    return exact(Node("add" if node.value == "sum" else "mul", None, tuple(terms)), work)
