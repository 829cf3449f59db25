"""Another expression or equation: terms, coefficients, variables, zeros, lines, circles, sequences."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from .golds import Golds
from .latex import coprime, distinct, frac, fraction, join_sum, nonzero, polynomial, split_sum
from .pair import Draft, Drafts, different
from .same_algebra import LETTERS, equation

_FLIPPED = {"+": "-", "-": "+"}


def _sums(golds: Golds, rng: Random, change: Callable[[list[str]], list[str]]) -> Drafts:
    """Sums with other terms: MATH-500's, then polynomials. No term of them is 0 and no two are like."""
    for gold in golds.shuffled(rng):
        if terms := split_sum(gold.text):
            yield Draft(gold.text, join_sum(change(terms)), gold.source)
    while True:
        text = polynomial([nonzero(rng, -9, 9) for _ in range(rng.randint(3, 5))], rng.choice(LETTERS))
        terms = split_sum(text)
        assert terms
        yield Draft(text, join_sum(change(terms)))


@different("term of a sum left out")
def missing_term(golds: Golds, rng: Random) -> Drafts:
    def change(terms: list[str]) -> list[str]:
        out = rng.randrange(len(terms))
        return terms[:out] + terms[out + 1 :]

    return _sums(golds, rng, change)


@different("sign of a term")
def sign_of_term(golds: Golds, rng: Random) -> Drafts:
    def change(terms: list[str]) -> list[str]:
        i = rng.randrange(len(terms))
        return [*terms[:i], _FLIPPED[terms[i][0]] + terms[i][1:], *terms[i + 1 :]]

    return _sums(golds, rng, change)


@different("coefficient or constant of a polynomial")
def coefficient(golds: Golds, rng: Random) -> Drafts:
    while True:
        coefficients, x = [nonzero(rng, -9, 9) for _ in range(rng.randint(2, 5))], rng.choice(LETTERS)
        other = list(coefficients)
        other[rng.randrange(len(other))] += rng.choice((-1, 1, 10))
        yield Draft(polynomial(coefficients, x), polynomial(other, x))


@different("exponent of a variable")
def exponent(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if len(re.findall(r"\^\d", gold.text)) == 1 and not re.search(r"circ|text|mbox|pi", gold.text):
            yield Draft(gold.text, re.sub(r"\^(\d)", lambda found: f"^{int(found[1]) + 1}", gold.text), gold.source)
    while True:
        x, a, n, b = rng.choice(LETTERS), rng.randint(2, 9), rng.randint(2, 6), rng.randint(1, 9)
        yield Draft(
            f"{a}{x}^{n} + {b}", rng.choice((f"{a}{x}^{n + 1} + {b}", f"{a}{x} + {b}", f"{a}{x}^{{-{n}}} + {b}"))
        )


@different("variable renamed")
def renamed(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        letters = set(re.findall(r"(?<![\\a-zA-Z])[a-hj-z](?![a-z])", gold.text))
        if len(letters) == 1 and not re.search(r"[=,]|text|mbox|\\in|begin", gold.text):
            letter = letters.pop()
            other = rng.choice([x for x in "xyzt" if x != letter])
            yield Draft(gold.text, re.sub(rf"(?<![\\a-zA-Z]){letter}(?![a-z])", other, gold.text), gold.source)
    while True:
        coefficients, (x, y) = [nonzero(rng, -9, 9) for _ in range(rng.randint(2, 4))], rng.sample(LETTERS, 2)
        yield Draft(polynomial(coefficients, x), polynomial(coefficients, y))


@different("factor with another zero")
def factors(golds: Golds, rng: Random) -> Drafts:
    while True:
        (a, b), x = distinct(rng, 2, 1, 9), rng.choice(LETTERS)
        gold = f"({x} + {a})({x} - {b})"
        yield Draft(
            gold,
            rng.choice(
                (f"({x} - {a})({x} + {b})", f"({x} + {a})({x} + {b})", f"({x} + {a})^2", f"({x} + {a}) + ({x} - {b})")
            ),
        )


@different("equation of another line or plane")
def line(golds: Golds, rng: Random) -> Drafts:
    yield Draft("3x-y+13=0", "3x+4y+14=0")
    while True:
        letters = rng.choice(("xy", "xyz"))
        coefficients = coprime(rng, len(letters) + 1, -9, 9)
        other, place = list(coefficients), rng.randrange(len(letters) + 1)
        other[place] = -other[place] if rng.random() < 0.5 else other[place] + (1 if other[place] > 0 else -1)
        # Two lines are one where their coefficients are proportional.
        if any(a * d != b * c for (a, b), (c, d) in zip(_pairs(coefficients), _pairs(other), strict=True)):
            yield Draft(equation(coefficients, letters), equation(other, letters))


def _pairs(values: list[int]) -> list[tuple[int, int]]:
    return [(values[i], values[j]) for i in range(len(values)) for j in range(i)]


@different("slope or intercept of y = mx + b")
def slope(golds: Golds, rng: Random) -> Drafts:
    given = {"y = 2x + 3": ("y = 2x - 3", "y = 3x + 2", "x = 2y + 3"), "y = -2x": ("y = 2x", "y = -2", "x = -2y")}
    for gold in golds.math:
        for answer in given.get(gold.text, ()):
            yield Draft(gold.text, answer, gold.source)
    while True:
        m, b = distinct(rng, 2, 2, 9)
        yield Draft(
            f"y = {m}x + {b}",
            rng.choice((f"y = {m}x - {b}", f"y = {b}x + {m}", f"y = -{m}x + {b}", f"y = {m}x", f"x = {m}y + {b}")),
        )


@different("equation of a circle: centre or radius")
def circle(golds: Golds, rng: Random) -> Drafts:
    while True:
        h, k, r = rng.randint(1, 9), rng.randint(1, 9), rng.randint(2, 9)
        gold = f"(x - {h})^2 + (y + {k})^2 = {r * r}"
        others = (
            f"(x + {h})^2 + (y - {k})^2 = {r * r}",
            f"(x - {h})^2 + (y + {k})^2 = {r}",
            f"(x - {h})^2 - (y + {k})^2 = {r * r}",
        )
        yield Draft(gold, rng.choice(others))


@different("value of a named variable")
def named(golds: Golds, rng: Random) -> Drafts:
    while True:
        value, x = rng.choice((str(rng.randint(2, 99)), frac(abs(fraction(rng))))), rng.choice("xyntk")
        yield Draft(f"{x} = {value}", rng.choice((f"{x} = -{value}", f"{x} = {value} + 1", f"-{value}")))


@different("sequence with dots: 1,2,...,n for 1,3,...,2n-1")
def sequence(golds: Golds, rng: Random) -> Drafts:
    yield Draft("1,3,\\ldots,2n-1", "1,2,\\ldots,n")
    while True:
        a, d, e = rng.randint(1, 9), *distinct(rng, 2, 2, 9)
        dots = rng.choice(("\\ldots", "\\dots", "..."))

        def spell(step: int, first: int = a, dots: str = dots) -> str:
            return f"{first}, {first + step}, {dots}, {polynomial([first - step, step], 'n')}"

        yield Draft(spell(d), spell(e))
