"""The same expression or equation, written otherwise: order, factors, quotients, identities, equivalent equations."""

from __future__ import annotations

import re
from fractions import Fraction
from random import Random

from .golds import Golds
from .latex import (
    SQUARE_FREE,
    coprime,
    decimal,
    distinct,
    frac,
    fraction,
    join_sum,
    multiply,
    nonzero,
    polynomial,
    powers,
    root,
    split_sum,
    sum_of,
)
from .pair import Draft, Drafts, same

LETTERS = "xyzabkmnprt"


def linear(a: int, b: int, variable: str = "x") -> str:
    """ax + b."""
    return polynomial([b, a], variable)


@same("terms of a sum in another order")
def commuted_sum(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        terms = split_sum(gold.text)
        if terms and (order := rng.sample(terms, len(terms))) != terms:
            yield Draft(gold.text, join_sum(order), gold.source)
    while True:
        made = powers([nonzero(rng, -9, 9) for _ in range(rng.randint(3, 5))], rng.choice(LETTERS))
        yield Draft(sum_of(made), sum_of(rng.sample(made, len(made))))


@same("factors of a product in another order")
def commuted_product(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if found := re.fullmatch(r"(\d+) ?(\\sqrt\{?\d+\}?|\\pi|[a-zA-Z]\^?\d?)", gold.text):
            yield Draft(gold.text, f"{found[2]} \\cdot {found[1]}", gold.source)
        elif found := re.fullmatch(r"(\([^()]*\))(\([^()]*\))", gold.text):
            yield Draft(gold.text, f"{found[2]}{found[1]}", gold.source)
    while True:
        x, y = rng.sample(LETTERS, 2)
        a, b, c = rng.randint(2, 9), nonzero(rng, -9, 9), nonzero(rng, -9, 9)
        first, second = linear(1, b, x), linear(1, c, x)
        yield rng.choice(
            (
                Draft(f"({first})({second})", f"({second})({first})"),
                Draft(f"{a}{x}({second})", f"{a}({second}){x}"),
                Draft(f"{a}{x}^2{y}", f"{a}{y}{x}^2"),
                Draft(f"{a}\\sqrt{{{x}}}{y}", f"{a}{y}\\sqrt{{{x}}}"),
            )
        )


@same("polynomial multiplied out")
def expanded(golds: Golds, rng: Random) -> Drafts:
    while True:
        x = rng.choice(LETTERS)
        first, second = [nonzero(rng, -9, 9), rng.randint(1, 4)], [nonzero(rng, -9, 9), rng.randint(1, 4)]
        third, k = [nonzero(rng, -5, 5), 1], rng.randint(2, 5)
        square = multiply(first, first)
        yield rng.choice(
            (
                Draft(f"({polynomial(first, x)})({polynomial(second, x)})", polynomial(multiply(first, second), x)),
                Draft(f"({polynomial(first, x)})^2", polynomial(square, x)),
                Draft(
                    f"{k}({polynomial(first, x)})({polynomial(third, x)})",
                    polynomial([k * c for c in multiply(first, third)], x),
                ),
                Draft(f"({polynomial(third, x)})^3", polynomial(multiply(third, multiply(third, third)), x)),
            )
        )


@same("polynomial in factors")
def factored(golds: Golds, rng: Random) -> Drafts:
    while True:
        x = rng.choice(LETTERS)
        first, second = [nonzero(rng, -9, 9), rng.randint(1, 4)], [nonzero(rng, -9, 9), rng.randint(1, 4)]
        k, a, b = rng.randint(2, 9), rng.randint(1, 9), nonzero(rng, -9, 9)
        yield rng.choice(
            (
                Draft(polynomial(multiply(first, second), x), f"({polynomial(first, x)})({polynomial(second, x)})"),
                Draft(polynomial([k * b, k * a], x), f"{k}({linear(a, b, x)})"),
                Draft(polynomial([0, b, 1], x), f"{x}({linear(1, b, x)})"),
                Draft(f"{x}^2 - {k * k}", f"({x} - {k})({x} + {k})"),
                Draft(f"{x}^3 - {k**3}", f"({x} - {k})({x}^2 + {k}{x} + {k * k})"),
            )
        )


@same("quadratic with its square completed")
def completed_square(golds: Golds, rng: Random) -> Drafts:
    while True:
        h, k, a = nonzero(rng, -9, 9), nonzero(rng, -20, 20), rng.randint(1, 5)
        gold = polynomial([a * h * h + k, -2 * a * h, a])
        yield Draft(gold, f"{a if a > 1 else ''}({linear(1, -h)})^2 {'+' if k > 0 else '-'} {abs(k)}")


@same("sum over one denominator, or as separate fractions")
def split_quotient(golds: Golds, rng: Random) -> Drafts:
    while True:
        x, (a, b), d = rng.choice(LETTERS), (rng.randint(1, 12), nonzero(rng, -12, 12)), rng.randint(2, 20)
        whole = f"\\frac{{{linear(a, b, x)}}}{{{d}}}"
        top = "" if a == 1 else str(a)
        yield rng.choice(
            (
                Draft(whole, f"\\frac{{{top}{x}}}{{{d}}} {'+' if b > 0 else '-'} {frac(Fraction(abs(b), d))}"),
                Draft(whole, f"\\frac{{1}}{{{d}}}({linear(a, b, x)})"),
                Draft(whole, f"({linear(a, b, x)})/{d}"),
            )
        )


@same("fractional coefficient before or over the variable, or decimal")
def coefficient(golds: Golds, rng: Random) -> Drafts:
    while True:
        value, x = abs(fraction(rng, (2, 4, 5, 8), 15)), rng.choice(LETTERS)
        b = sum_of([(nonzero(rng, -9, 9), "")])
        tail = f" + {b}" if b[0] != "-" else f" - {b[1:]}"
        top = "" if value.numerator == 1 else str(value.numerator)
        over = f"\\frac{{{top}{x}}}{{{value.denominator}}}{tail}"
        before, point = f"{frac(value)}{x}{tail}", f"{decimal(value)}{x}{tail}"
        first, second = rng.sample((over, before, point), 2)
        yield Draft(first, second)


@same("coefficient, exponent or term that changes nothing: 1x, x^1, + 0")
def neutral(golds: Golds, rng: Random) -> Drafts:
    while True:
        x, a, b = rng.choice(LETTERS), rng.randint(2, 9), rng.randint(1, 9)
        yield rng.choice(
            (
                Draft(f"{x} + {b}", f"1{x} + {b}"),
                Draft(f"{a}{x} + {b}", f"{a}{x}^1 + {b}"),
                Draft(f"{x}^2 + {a}{x}", f"{x}^2 + {a}{x} + 0"),
                Draft(f"{x}^{a} - {b}", f"1 \\cdot {x}^{a} - {b}"),
            )
        )


@same("rational expressions over a common denominator")
def common_denominator(golds: Golds, rng: Random) -> Drafts:
    while True:
        x, (a, b), p, q = rng.choice(LETTERS), distinct(rng, 2, -9, 9), rng.randint(1, 6), rng.randint(1, 6)
        first, second = linear(1, a, x), linear(1, b, x)
        separate = f"\\frac{{{p}}}{{{first}}} + \\frac{{{q}}}{{{second}}}"
        bottom = f"({first})({second})" if rng.random() < 0.5 else polynomial(multiply([a, 1], [b, 1]), x)
        together = f"\\frac{{{linear(p + q, p * b + q * a, x)}}}{{{bottom}}}"
        yield rng.choice((Draft(separate, together), Draft(together, separate)))


@same("powers and roots of variables")
def variable_powers(golds: Golds, rng: Random) -> Drafts:
    while True:
        x, n, k = rng.choice("xyzt"), rng.randint(2, 9), rng.randint(2, 9)
        yield rng.choice(
            (
                Draft(f"\\frac{{{k}}}{{{x}^{n}}}", f"{k}{x}^{{-{n}}}"),
                Draft(f"{x}^{n} {x}^{k}", f"{x}^{{{n + k}}}"),
                Draft(f"({k}{x})^{n}", f"{k**n}{x}^{n}"),
                Draft(f"({x}^{n})^{k}", f"{x}^{{{n * k}}}"),
                Draft(f"{k}^{{{x} + 2}}", f"{k * k} \\cdot {k}^{x}"),
            )
        )


@same("trigonometric identities")
def trigonometry(golds: Golds, rng: Random) -> Drafts:
    while True:
        x, k, c = rng.choice(("x", "t", "\\theta", "\\alpha")), rng.randint(2, 9), rng.randint(2, 20)
        yield rng.choice(
            (
                Draft(f"{c}\\sin^2 {x}", f"{c} - {c}\\cos^2 {x}"),
                Draft(f"{c}\\sin {k * 2}{x}", f"{2 * c}\\sin {k}{x} \\cos {k}{x}"),
                Draft(f"{c}\\cos {k * 2}{x}", f"{c}\\left(1 - 2\\sin^2 {k}{x}\\right)"),
                Draft(f"{c}\\tan {k}{x}", f"\\frac{{{c}\\sin {k}{x}}}{{\\cos {k}{x}}}"),
                Draft(f"{c}\\cot {k}{x}", f"\\frac{{{c}}}{{\\tan {k}{x}}}"),
                Draft(f"{c}\\sec {k}{x}", f"\\frac{{{c}}}{{\\cos {k}{x}}}"),
                Draft(f"{c}\\sin {x}", f"{c}\\cos\\left(\\frac{{\\pi}}{{2}} - {x}\\right)"),
                Draft(f"\\sin {k}{x} + {c}", f"{c} - \\sin(-{k}{x})"),
            )
        )


@same("function spelled otherwise: \\sin(x), \\operatorname{sin} x, \\arcsin")
def functions(golds: Golds, rng: Random) -> Drafts:
    while True:
        k, c, name = rng.randint(2, 9), rng.randint(2, 20), rng.choice(("sin", "cos", "tan"))
        yield rng.choice(
            (
                Draft(f"{c}\\{name} {k}x", f"{c}\\{name}({k}x)"),
                Draft(f"{c}\\{name} {k}x", f"{c}\\operatorname{{{name}}}({k}x)"),
                Draft(f"\\{name}^2 {k}x", f"(\\{name} {k}x)^2"),
                Draft(f"\\arc{name} \\frac{{1}}{{{c}}}", f"\\{name}^{{-1}} \\frac{{1}}{{{c}}}"),
                Draft(f"\\ln {c}x", f"\\ln({c}x)"),
                Draft(f"\\ln({c}x)", f"\\log_e({c}x)"),
            )
        )


@same("value with its name: x = 5, f(x) = ...")
def named(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if not re.search(r"[=<>,]|text|\\in|mbox|_|\\\$", gold.text):
            letters = "xnkabSNA" if re.fullmatch(r"[\\\d{}./fracsqtpi +-]+", gold.text) else ""
            if letters:
                yield Draft(gold.text, f"{rng.choice(letters)} = {gold.text}", gold.source)
            elif found := re.fullmatch(r"[\d\s^+-]*([a-z])[\d\s^+-]*(\1[\d\s^+-]*)*", gold.text):
                yield Draft(gold.text, f"{rng.choice(('f', 'p', 'P'))}({found[1]}) = {gold.text}", gold.source)


@same("value without its name")
def unnamed(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if found := re.fullmatch(r"x ?= ?(-?\d+)", gold.text):
            yield Draft(gold.text, found[1], gold.source)
    while True:
        value = rng.choice(
            (frac(fraction(rng)), str(rng.randint(-99, 99)), root(rng.randint(2, 9), rng.choice(SQUARE_FREE)))
        )
        yield Draft(f"{rng.choice('xyntk')} = {value}", value)


@same("chain of equalities that ends in the answer")
def chain(golds: Golds, rng: Random) -> Drafts:
    for gold, value in golds.numbers(rng, lambda value: value.denominator == 1):
        if not re.fullmatch(r"-?\d+", gold.text):
            continue
        a, k = rng.randint(1, 50), rng.randint(2, 9)
        start = rng.choice(
            (f"{a} + {value - a}" if value > a else f"{value + a} - {a}", f"\\frac{{{value * k}}}{{{k}}}")
        )
        yield Draft(gold.text, f"{rng.choice(('', 'x = ', 'N = '))}{start} = {gold.text}", gold.source)


def _line(rng: Random, letters: str = "xy") -> list[int]:
    return coprime(rng, len(letters) + 1, -9, 9)


def equation(coefficients: list[int], letters: str = "xy", right: int = 0) -> str:
    """ax + by + c = right; the constant is the last coefficient."""
    return f"{sum_of(list(zip(coefficients, [*letters, ''], strict=True)))} = {right}"


def _given_planes(golds: Golds) -> list[tuple[str, list[int], str]]:
    return [(gold.text, [5, -7, 11, 4], gold.source) for gold in golds.math if gold.text == "5x - 7y + 11z + 4 = 0"]


def _lines(golds: Golds, rng: Random) -> list[tuple[str, list[int], str]]:
    made = [_line(rng, rng.choice(("xy", "xyz"))) for _ in range(200)]
    return _given_planes(golds) + [(equation(line, "xyz"[: len(line) - 1]), line, "made") for line in made]


@same("equation multiplied by a constant")
def scaled_equation(golds: Golds, rng: Random) -> Drafts:
    for gold, line, source in _lines(golds, rng):
        k = rng.choice((-3, -2, -1, 2, 3, 4, 5, Fraction(1, 2), Fraction(-1, 3)))
        terms = list(zip([k * c for c in line], [*"xyz"[: len(line) - 1], ""], strict=True))
        yield Draft(gold, f"{sum_of(terms)} = 0", source)


@same("equation with its sides swapped")
def swapped_sides(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if found := re.fullmatch(r"([^=]+) = ([^=]+)", gold.text):
            yield Draft(gold.text, f"{found[2]} = {found[1]}", gold.source)
    while True:
        line = _line(rng)
        left, right = sum_of([(line[0], "x"), (line[1], "y")]), str(-line[2])
        yield Draft(f"{left} = {right}", f"{right} = {left}")


@same("equation with terms moved to the other side")
def moved_terms(golds: Golds, rng: Random) -> Drafts:
    for gold, line, source in _lines(golds, rng):
        letters = [*"xyz"[: len(line) - 1], ""]
        cut = rng.randint(1, len(line) - 1)
        left = sum_of(list(zip(line[:cut], letters[:cut], strict=True)))
        right = sum_of(list(zip([-c for c in line[cut:]], letters[cut:], strict=True)))
        yield Draft(gold, f"{left} = {right}", source)


@same("line as y = mx + b and as ax + by + c = 0")
def slope_form(golds: Golds, rng: Random) -> Drafts:
    given = {"y = 2x + 3": "2x - y + 3 = 0", "y = -2x": "2x + y = 0"}
    for gold in golds.shuffled(rng):
        if gold.text in given:
            yield Draft(gold.text, given[gold.text], gold.source)
    while True:
        a, b, c = _line(rng)
        slope = f"y = {sum_of([(Fraction(-a, b), 'x'), (Fraction(-c, b), '')])}"
        yield rng.choice((Draft(slope, equation([a, b, c])), Draft(equation([a, b, c]), slope)))


@same("equation of a circle or parabola multiplied out")
def curves(golds: Golds, rng: Random) -> Drafts:
    while True:
        h, k, r = nonzero(rng, -9, 9), nonzero(rng, -9, 9), rng.randint(1, 9)
        constant = h * h + k * k - r * r
        circle = f"({linear(1, -h)})^2 + ({linear(1, -k, 'y')})^2 = {r * r}"
        general = sum_of([(1, "x^2"), (1, "y^2"), (-2 * h, "x"), (-2 * k, "y"), (constant, "")])
        parabola = polynomial([h * h + k, -2 * h, 1])
        yield rng.choice(
            (
                Draft(circle, f"{general} = 0"),
                Draft(f"y = {parabola}", f"y = ({linear(1, -h)})^2 {'+' if k > 0 else '-'} {abs(k)}"),
            )
        )


@same("finite sum with \\sum worked out, or with another index")
def bound_variables(golds: Golds, rng: Random) -> Drafts:
    while True:
        n, a, b = rng.randint(3, 30), rng.randint(2, 9), rng.randint(1, 9)
        value = a * n * (n + 1) // 2 + b * n
        yield rng.choice(
            (
                Draft(f"\\sum_{{i=1}}^{{{n}}} ({a}i + {b})", f"\\sum_{{k=1}}^{{{n}}} ({a}k + {b})"),
                Draft(f"\\sum_{{k=1}}^{{{n}}} ({a}k + {b})", str(value)),
            )
        )
