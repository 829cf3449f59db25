"""Traps for a verifier that samples points, rounds, reads a part of the answer, or only looks for the gold in it."""

from __future__ import annotations

import re
from random import Random

from .golds import Golds
from .latex import distinct, nonzero, polynomial, sum_of
from .pair import Draft, Drafts, different
from .same_answers import matrices, matrix
from .same_sets import solutions


@different("equal where x is positive, or near 0, and nowhere else")
def half_line(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b = rng.randint(2, 40), rng.randint(2, 9)
        yield rng.choice(
            (
                Draft(f"|x| + {a}", f"x + {a}"),
                Draft(f"x + {a}", f"\\sqrt{{x^2}} + {a}"),
                Draft(f"{a}x^{2 * b + 1}", f"{a}|x|^{{{2 * b + 1}}}"),
                Draft(f"|x - {a}|", f"{a} - x"),
                Draft(f"|x + {a}|", f"x + {a}"),
                Draft(f"{a}x", f"{a}\\arctan(\\tan x)"),
                Draft(f"x + {a}", f"\\arcsin(\\sin x) + {a}"),
            )
        )


@different("equal at small integers, and nowhere else")
def integers_only(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b = rng.randint(2, 20), nonzero(rng, -20, 20)
        gold = sum_of([(a, "x"), (b, "")])
        yield rng.choice(
            (
                Draft(gold, f"{gold} + \\sin(\\pi x)"),
                Draft(gold, f"{gold} + x(x - 1)(x + 1)(x - 2)(x + 2)(x - 3)"),
                Draft(f"{a}", f"{a}\\cos(2\\pi x)"),
                Draft(f"x^2 + {a}", f"x^2 + {a}\\cos^2(\\pi x)"),
                Draft(gold, f"{a}\\lfloor x \\rfloor {'-' if b < 0 else '+'} {abs(b)}"),
            )
        )


@different("expressions that differ by a tiny coefficient or at large x only")
def tiny_coefficient(golds: Golds, rng: Random) -> Drafts:
    while True:
        gold, n = polynomial([nonzero(rng, -9, 9) for _ in range(3)]), rng.randint(8, 20)
        yield rng.choice(
            (
                Draft(gold, f"{gold} + 10^{{-{n}}}x"),
                Draft(gold, f"{gold} - \\frac{{x^3}}{{10^{{{n}}}}}"),
                Draft(f"\\sin x + {n}", f"\\sin(x + 10^{{-{n}}}) + {n}"),
                Draft(f"x^{{{n + 80}}}", f"x^{{{n + 81}}}"),
            )
        )


@different("numbers famous for being almost equal")
def famous(golds: Golds, rng: Random) -> Drafts:
    known = [
        ("\\pi", "\\frac{355}{113}"),
        ("\\pi", "\\frac{103993}{33102}"),
        ("e^6", "\\pi^4 + \\pi^5"),
        ("e^{\\pi} - \\pi", "20"),
        ("e^{\\pi\\sqrt{163}}", "262537412640768744"),
        ("e^{\\pi\\sqrt{163}}", "640320^3 + 744"),
        ("\\sqrt{2} + \\sqrt{3}", "\\pi"),
        ("\\ln 2", "\\frac{9}{13}"),
        ("\\sqrt{2}", "\\frac{665857}{470832}"),
        ("\\frac{1 + \\sqrt{5}}{2}", "\\frac{987}{610}"),
        ("3987^{12} + 4365^{12}", "4472^{12}"),
        ("\\sqrt[4]{\\frac{2143}{22}}", "\\pi"),
    ]
    while True:
        (first, second), k = rng.choice(known), rng.randint(2, 9)
        if rng.random() < 0.5:
            first, second = second, first
        yield rng.choice((Draft(first, second), Draft(f"{k}\\left({first}\\right)", f"{k}\\left({second}\\right)")))


@different("gold inside another expression")
def inside(golds: Golds, rng: Random) -> Drafts:
    forms = (
        "\\frac{{1}}{{{}}}",
        "{}x",
        "x^{{{}}}",
        "x > {}",
        "{},000",
        "1{}",
        "\\sqrt{{{}}}",
        "({}, {})",
        "{}\\pi",
        "{}^2",
        "\\ln {}",
        "{}!",
    )
    for gold, value in golds.numbers(rng, lambda value: value.denominator == 1 and value > 2):
        if re.fullmatch(r"\d{1,3}", gold.text):
            yield Draft(gold.text, rng.choice(forms).format(*[value] * 2), gold.source)


@different("list run together, or with other operators for its commas")
def run_together(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in solutions(golds, rng):
        if all(re.fullmatch(r"-?\d+", text) for text in texts):
            digits = [text.lstrip("-") for text in texts]
            others = ("".join(digits), " + ".join(digits), f"({')('.join(texts)})", " < ".join(texts))
            yield Draft(gold, rng.choice(others), source)


@different("determinant bars for a matrix")
def determinant(golds: Golds, rng: Random) -> Drafts:
    for rows, source in matrices(golds, rng):
        if len(rows) == len(rows[0]):
            yield Draft(matrix(rows), matrix(rows, "vmatrix"), source)


@different("equation made a formula, an inequality, or the equation of another curve")
def relation(golds: Golds, rng: Random) -> Drafts:
    while True:
        m, b = distinct(rng, 2, 2, 9)
        gold = f"y = {m}x + {b}"
        others = (
            f"y > {m}x + {b}",
            f"y \\neq {m}x + {b}",
            f"{m}x + {b} = 0",
            f"y^2 = ({m}x + {b})^2",
            f"xy = {m}x + {b}",
        )
        yield Draft(gold, rng.choice(others))
