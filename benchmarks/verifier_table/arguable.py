"""What mathematicians would argue about: shown beside the table, and counted in no total."""

from __future__ import annotations

import re
from fractions import Fraction
from math import pi, sqrt
from random import Random

from .golds import Golds
from .latex import SQUARE_FREE, decimal, distinct, frac, fraction, root
from .pair import Draft, Drafts, ambiguous
from .same_answers import matrices, matrix
from .same_sets import solutions


@ambiguous("base left out")
def base(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.math:
        if found := re.fullmatch(r"(\d+)_\{?\d\}?", gold.text):
            yield Draft(gold.text, found[1], gold.source)
    while True:
        digits = f"{rng.randint(1, 4)}{rng.randrange(5)}{rng.randrange(5)}"
        yield Draft(f"{digits}_5", digits)


@ambiguous("rounded decimal of a fraction: 0.33 for 1/3")
def rounded_fraction(golds: Golds, rng: Random) -> Drafts:
    while True:
        value = abs(fraction(rng, (3, 6, 7, 9, 11, 13)))
        if any(value.denominator % prime == 0 for prime in (3, 7, 11, 13)):
            yield Draft(frac(value), f"{float(value):.{rng.randint(2, 6)}f}")


@ambiguous("rounded decimal of a root or of π")
def rounded_root(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b, places = rng.randint(2, 9), rng.choice(SQUARE_FREE), rng.randint(2, 6)
        yield rng.choice((Draft(root(a, b), f"{a * sqrt(b):.{places}f}"), Draft(f"{a}\\pi", f"{a * pi:.{places}f}")))


@ambiguous("rounded decimal of a decimal")
def rounded_decimal(golds: Golds, rng: Random) -> Drafts:
    while True:
        value = rng.randint(1001, 99999)
        if value % 10 not in (0, 5):
            yield Draft(decimal(Fraction(value, 1000)), f"{value / 1000:.2f}")


@ambiguous("tuple for a list, or list for a tuple")
def tuple_for_list(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in solutions(golds, rng):
        yield rng.choice((Draft(gold, f"({', '.join(texts)})", source), Draft(f"({gold})", ", ".join(texts))))


@ambiguous("column for a tuple, or row for a column")
def column_for_tuple(golds: Golds, rng: Random) -> Drafts:
    for rows, source in matrices(golds, rng):
        if len(rows[0]) == 1:
            cells = [row[0] for row in rows]
            yield Draft(
                matrix(rows),
                rng.choice((f"({', '.join(cells)})", matrix([cells]), f"\\langle {', '.join(cells)} \\rangle")),
                source,
            )


@ambiguous("degree sign left out")
def degree(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.math:
        if found := re.fullmatch(r"(\d+)\^\\circ", gold.text):
            yield Draft(gold.text, found[1], gold.source)
    while True:
        angle = rng.randint(1, 179)
        yield Draft(f"{angle}^\\circ", str(angle))


@ambiguous("percent sign left out, or added where the question asks for percent")
def percent(golds: Golds, rng: Random) -> Drafts:
    for gold in (*golds.math, *golds.gsm8k):
        if re.search(r"percent[^.]*\?$", gold.question, re.IGNORECASE) and re.fullmatch(r"\d+", gold.text):
            yield Draft(gold.text, f"{gold.text}\\%", gold.source)
            yield Draft(f"{gold.text}\\%", gold.text, gold.source)


@ambiguous("unit converted: 1.5 m for 150 cm")
def converted(golds: Golds, rng: Random) -> Drafts:
    units = (("cm", "m", 100), ("minutes", "hours", 60), ("inches", "feet", 12), ("cents", "dollars", 100))
    while True:
        (small, large, factor), n = rng.choice(units), rng.randint(1, 40)
        yield Draft(f"{n * factor // 2}\\text{{ {small}}}", f"{decimal(Fraction(n, 2))}\\text{{ {large}}}")


@ambiguous("ratio as a fraction")
def ratio(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b = rng.sample((2, 3, 5, 7, 11, 13), 2)
        yield Draft(f"{a}:{b}", f"\\frac{{{a}}}{{{b}}}")


@ambiguous("mixed number in plain text: 1 4/5")
def plain_mixed(golds: Golds, rng: Random) -> Drafts:
    while True:
        whole, part = rng.randint(1, 30), Fraction(rng.randint(1, 6), 7)
        yield Draft(frac(whole + part), f"{whole} {part}")


@ambiguous("open interval of two numbers for x between them")
def point_or_interval(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b = sorted(distinct(rng, 2))
        yield Draft(f"({a}, {b})", f"{a} < x < {b}")


@ambiguous("solution given twice")
def repeated(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in solutions(golds, rng):
        yield Draft(gold, ", ".join([*texts, texts[0]]), source)


@ambiguous("box for each of several answers")
def several_boxes(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in solutions(golds, rng):
        boxes = " and ".join(f"$\\boxed{{{text}}}$" for text in texts)
        yield Draft(gold, ", ".join(texts), source, f"The answers are {boxes}.")


@ambiguous("box that names two answers of which the gold is the last")
def hedged_after(golds: Golds, rng: Random) -> Drafts:
    for gold, value in golds.numbers(rng, lambda value: True):
        yield Draft(
            gold.text,
            gold.text,
            gold.source,
            f"I would say $\\boxed{{{frac(value + 1)}}}$, or rather $\\boxed{{{gold.text}}}$.",
        )
