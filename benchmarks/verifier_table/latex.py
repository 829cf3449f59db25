"""LaTeX: how fractions, sums, polynomials, roots and lists are written, and how a written sum is taken apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from math import gcd, isqrt
from random import Random

Number = int | Fraction
Term = tuple[Number, str]
"""A coefficient and what it multiplies; "" is one."""

SQUARE_FREE = [n for n in range(2, 80) if all(n % (d * d) for d in range(2, isqrt(n) + 1))]
ENDING = (2, 4, 5, 8, 10, 16, 20, 25, 40, 50)
"""Denominators of decimals that end."""


def frac(value: Number, command: str = "\\frac") -> str:
    """An integer, or a reduced fraction with its sign before it."""
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return f"{sign}{command}{{{abs(value.numerator)}}}{{{value.denominator}}}"


def decimal(value: Number) -> str:
    """A decimal that ends, with nothing lost: 0.35, -2.5, 7."""
    value = Fraction(value)
    digits = next(n for n in range(40) if (value * 10**n).denominator == 1)
    scaled = str(abs(value) * 10**digits).zfill(digits + 1)
    text = scaled if digits == 0 else f"{scaled[:-digits]}.{scaled[-digits:]}"
    return f"-{text}" if value < 0 else text


def sum_of(terms: Sequence[Term]) -> str:
    """The terms in their order, those with coefficient 0 left out: 3x^2 - x + 1/2."""
    text = ""
    for coefficient, factor in terms:
        if coefficient == 0:
            continue
        size = abs(Fraction(coefficient))
        body = factor if factor and size == 1 else f"{frac(size)}{factor}"
        if text:
            text += f" {'-' if coefficient < 0 else '+'} {body}"
        else:
            text = f"{'-' if coefficient < 0 else ''}{body}"
    return text or "0"


def powers(coefficients: Sequence[Number], variable: str) -> list[Term]:
    """Terms of a polynomial, highest power first. coefficients: lowest first."""
    names = ["", variable] + [f"{variable}^{k if k < 10 else f'{{{k}}}'}" for k in range(2, len(coefficients))]
    return list(reversed(list(zip(coefficients, names, strict=False))))


def polynomial(coefficients: Sequence[Number], variable: str = "x") -> str:
    """A polynomial, highest power first. coefficients: lowest first."""
    return sum_of(powers(coefficients, variable))


def multiply(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """The product of two polynomials, coefficients lowest first."""
    product = [0] * (len(first) + len(second) - 1)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            product[i + j] += a * b
    return product


def root(coefficient: Number, radicand: int) -> str:
    """3sqrt(2) as 3\\sqrt{2}, a fraction as \\frac{3\\sqrt{2}}{4}."""
    value = Fraction(coefficient)
    size = "" if abs(value.numerator) == 1 else str(abs(value.numerator))
    top = f"{size}\\sqrt{{{radicand}}}"
    sign = "-" if value < 0 else ""
    return f"{sign}{top}" if value.denominator == 1 else f"{sign}\\frac{{{top}}}{{{value.denominator}}}"


def nonzero(rng: Random, low: int, high: int) -> int:
    """An integer between low and high, both included, and not 0."""
    while not (value := rng.randint(low, high)):
        pass
    return value


def fraction(rng: Random, denominators: Sequence[int] = range(2, 31), largest: int = 60) -> Fraction:
    """A fraction that is no integer; negative one time in four."""
    while True:
        value = Fraction(rng.randint(1, largest), rng.choice(denominators))
        if value.denominator > 1:
            return -value if rng.random() < 0.25 else value


def distinct(rng: Random, count: int, low: int = -20, high: int = 20) -> list[int]:
    """Different integers in an order of chance."""
    return rng.sample(range(low, high + 1), count)


def coprime(rng: Random, count: int, low: int, high: int) -> list[int]:
    """Integers other than 0 without a common divisor."""
    while True:
        values = [nonzero(rng, low, high) for _ in range(count)]
        if gcd(*values) == 1:
            return values


def split_sum(text: str) -> list[str] | None:
    """The signed terms of a sum that stands alone: "6 - 5i" gives ["+6", "-5i"]; None for lists, relations, words."""
    if re.search(r"[,=<>]|\\(?:pm|mp|text|mbox|cup|in|begin|le|ge)(?![a-z])|\\\{", text):
        return None
    terms, depth = [""], 0
    for character in text.replace(" ", "") if "\\" not in text else text:
        depth += {"{": 1, "(": 1, "}": -1, ")": -1}.get(character, 0)
        if character in "+-" and depth == 0 and not terms[-1].endswith(("^", "_")):
            terms.append(character)
        else:
            terms[-1] += character
    parts = [term.strip() for term in terms if term.strip()]
    signed = [part if part[0] in "+-" else f"+{part}" for part in parts]
    return [f"{part[0]}{part[1:].strip()}" for part in signed] if len(signed) > 1 else None


def join_sum(terms: Sequence[str]) -> str:
    """The inverse of `split_sum`."""
    text = " ".join(f"{term[0]} {term[1:]}" for term in terms)
    return text[2:] if text[0] == "+" else f"-{text[2:]}"


def list_of(values: Sequence[Number]) -> str:
    """Numbers with commas between them."""
    return ", ".join(frac(value) for value in values)
