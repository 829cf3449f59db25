"""The same number, written otherwise: fractions, decimals, separators, powers, roots, logarithms, trigonometry."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import comb, factorial, gcd
from random import Random

from .golds import Golds
from .latex import ENDING, SQUARE_FREE, decimal, frac, fraction, nonzero, root
from .pair import Draft, Drafts, same


def _numbers(
    golds: Golds, rng: Random, wanted: Callable[[Fraction], bool], make: Callable[[Random], Fraction]
) -> Iterator[tuple[str, Fraction, str]]:
    """(gold, its value, source): MATH-500's wanted ones, then made ones without end."""
    for gold, value in golds.numbers(rng, wanted):
        yield gold.text, value, gold.source
    while True:
        value = make(rng)
        yield frac(value), value, "made"


def _proper(value: Fraction) -> bool:
    return value.denominator > 1


def _written(top: int, bottom: int) -> str:
    return f"{'-' if top < 0 else ''}\\frac{{{abs(top)}}}{{{bottom}}}"


@same("fraction not reduced")
def unreduced(golds: Golds, rng: Random) -> Drafts:
    for gold, value in golds.numbers(rng, lambda value: _proper(value) and value.denominator < 1000):
        k = rng.randint(2, 9)
        if "frac" in gold.text:
            yield Draft(gold.text, _written(k * value.numerator, k * value.denominator), gold.source)


@same("fraction as a decimal that ends")
def fraction_as_decimal(golds: Golds, rng: Random) -> Drafts:
    def ends(value: Fraction) -> bool:
        return value.denominator in ENDING

    for gold, value, source in _numbers(golds, rng, ends, lambda rng: fraction(rng, ENDING)):
        if "frac" in gold:
            yield Draft(gold, decimal(value), source)


@same("decimal that ends as a fraction")
def decimal_as_fraction(golds: Golds, rng: Random) -> Drafts:
    for gold, value in golds.numbers(rng, _proper):
        if "." in gold.text:
            yield Draft(gold.text, frac(value), gold.source)
    while True:
        value = fraction(rng, ENDING, 200)
        yield Draft(decimal(value), frac(value))


@same("repeating decimal with a bar as a fraction")
def repeating(golds: Golds, rng: Random) -> Drafts:
    while True:
        length = rng.randint(1, 3)
        period, whole = rng.randint(1, 10**length - 2), rng.randint(0, 5)
        value = whole + Fraction(period, 10**length - 1)
        yield Draft(frac(value), f"{whole}.\\overline{{{period:0{length}}}}")


def mixed(value: Fraction) -> str:
    """1\\frac{4}{5}."""
    whole, rest = divmod(abs(value), 1)
    return f"{'-' if value < 0 else ''}{whole}{frac(rest)}"


@same("improper fraction as a mixed number")
def improper_as_mixed(golds: Golds, rng: Random) -> Drafts:
    for gold, value, source in _numbers(golds, rng, _proper, lambda rng: fraction(rng, range(2, 12))):
        if abs(value) > 1 and "frac" in gold:
            yield Draft(gold, mixed(value), source)


@same("mixed number as a fraction or decimal")
def mixed_as_fraction(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if found := re.fullmatch(r"(\d+) ?\\frac\{(\d+)\}\{(\d+)\}", gold.text):
            whole, top, bottom = map(int, found.groups())
            yield Draft(gold.text, frac(whole + Fraction(top, bottom)), gold.source)
    while True:
        value = fraction(rng, ENDING)
        if abs(value) > 1:
            yield Draft(mixed(value), rng.choice((frac, decimal))(value))


@same("percent sign spelled otherwise")
def percent_sign(golds: Golds, rng: Random) -> Drafts:
    while True:
        text = decimal(Fraction(rng.randint(1, 400), rng.choice((1, 1, 2, 4))))
        yield Draft(
            f"{text}\\%", rng.choice(("{}%", "{} \\%", "{}\\,\\%", "{}\\text{{ percent}}", "{} percent")).format(text)
        )


@same("percentage as a decimal or fraction")
def percent_value(golds: Golds, rng: Random) -> Drafts:
    while True:
        value = Fraction(rng.randint(1, 400), rng.choice((1, 1, 2, 4)))
        yield Draft(f"{decimal(value)}\\%", rng.choice((frac, decimal))(value / 100))


@same("scientific notation")
def scientific(golds: Golds, rng: Random) -> Drafts:
    def spell(value: Fraction) -> str:
        exponent = 0
        while abs(value) >= 10:
            value, exponent = value / 10, exponent + 1
        while abs(value) < 1:
            value, exponent = value * 10, exponent - 1
        sign = rng.choice(("\\times", "\\cdot"))
        return f"{decimal(value)} {sign} 10^{{{exponent}}}"

    def wanted(value: Fraction) -> bool:
        return bool(value) and ((value.denominator == 1 and value % 1000 == 0) or 0 < abs(value) < Fraction(1, 100))

    for gold, value in golds.numbers(rng, wanted):
        if "frac" not in gold.text:
            yield Draft(gold.text, spell(value), gold.source)
    while True:
        value = rng.randint(11, 999) * Fraction(10) ** rng.choice((-9, -8, -7, -6, 3, 4, 5, 6, 7))
        yield Draft(decimal(value), spell(value))


def _separated(golds: Golds, rng: Random, separators: tuple[str, ...]) -> Drafts:
    rows = [gold for gold in (*golds.math, *golds.gsm8k) if re.fullmatch(r"\d[\d,!\\ ]{3,}", gold.text)]
    for gold in rng.sample(rows, len(rows)):
        value = int(re.sub(r"\D", "", gold.text))
        if value >= 1000 and "," not in gold.text:
            yield Draft(gold.text, f"{value:,}".replace(",", rng.choice(separators)), gold.source)


@same("thousands with a comma")
def thousands_comma(golds: Golds, rng: Random) -> Drafts:
    return _separated(golds, rng, (",",))


@same("thousands with {,} or ,\\!")
def thousands_latex(golds: Golds, rng: Random) -> Drafts:
    return _separated(golds, rng, ("{,}", ",\\!", ",\\! "))


@same("thousands with a thin space")
def thousands_space(golds: Golds, rng: Random) -> Drafts:
    return _separated(golds, rng, ("\\,", "\\;", "\u2009", "\u202f", "~", " "))


@same("thousands without a separator")
def thousands_none(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if re.fullmatch(r"\d{1,3}(,(\\!)? ?\d{3})+", gold.text):
            yield Draft(gold.text, re.sub(r"\D", "", gold.text), gold.source)
    while True:
        value = rng.randint(1000, 10 ** rng.randint(4, 10))
        yield Draft(f"{value:,}".replace(",", rng.choice((",", ",\\!", "{,}"))), str(value))


@same("zeros at the end of a decimal")
def trailing_zeros(golds: Golds, rng: Random) -> Drafts:
    decimals = [gold for gold in golds.math if re.fullmatch(r"-?\d*\.\d+", gold.text)]
    for gold in rng.sample(decimals, len(decimals)):
        yield Draft(gold.text, gold.text + "0" * rng.randint(1, 3), gold.source)
    for gold, _ in golds.numbers(rng, lambda value: value.denominator == 1):
        if re.fullmatch(r"-?\d+", gold.text):
            yield Draft(gold.text, f"{gold.text}.{'0' * rng.randint(1, 3)}", gold.source)


@same("zero before the point put in or left out")
def leading_zero(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if found := re.fullmatch(r"0?(\.\d+)", gold.text):
            yield Draft(gold.text, found[1] if gold.text[0] == "0" else f"0{gold.text}", gold.source)
    while True:
        text = decimal(Fraction(rng.randint(1, 999), 1000))
        yield rng.choice((Draft(text, text[1:]), Draft(text[1:], text), Draft(f"-{text}", f"-{text[1:]}")))


@same("minus sign elsewhere in a fraction")
def minus_in_fraction(golds: Golds, rng: Random) -> Drafts:
    def wanted(value: Fraction) -> bool:
        return value < 0 and _proper(value)

    for gold, value, source in _numbers(golds, rng, wanted, lambda rng: -abs(fraction(rng))):
        a, b = -value.numerator, value.denominator
        spelled = (f"\\frac{{-{a}}}{{{b}}}", f"\\frac{{{a}}}{{-{b}}}", f"-\\frac{{-{a}}}{{-{b}}}", f"\\frac{{-{a}}}{b}")
        yield Draft(gold, rng.choice(spelled[: 4 if b < 10 else 3]), source)


@same("two minus signs, or a plus sign")
def double_negation(golds: Golds, rng: Random) -> Drafts:
    for gold, value in golds.numbers(rng, lambda value: value > 0):
        yield Draft(
            gold.text, rng.choice(("-(-{})", "-\\left(-{}\\right)", "+{}", "-(-({}))")).format(frac(value)), gold.source
        )


@same("nested fractions")
def nested(golds: Golds, rng: Random) -> Drafts:
    def wanted(value: Fraction) -> bool:
        return _proper(value) and value > 0

    for gold, value, source in _numbers(golds, rng, wanted, lambda rng: abs(fraction(rng))):
        a, b, k = value.numerator, value.denominator, rng.randint(2, 9)
        spelled = [
            f"\\frac{{1}}{{\\frac{{{b}}}{{{a}}}}}",
            f"\\frac{{\\frac{{{a}}}{{{k}}}}}{{\\frac{{{b}}}{{{k}}}}}",
            f"\\frac{{\\frac{{{a * k}}}{{{b}}}}}{{{k}}}",
            f"\\frac{{{a}/{k}}}{{{b}/{k}}}",
        ]
        yield Draft(gold, rng.choice(spelled), source)


@same("powers of integers worked out")
def powers(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, n, b, m = rng.randint(2, 9), rng.randint(2, 12), rng.choice((3, 5, 7, 11)), rng.randint(1, 4)
        yield rng.choice(
            (
                Draft(f"{a}^{{{n}}}", str(a**n)),
                Draft(f"{a}^{{{n}}} \\cdot {b}^{m}", str(a**n * b**m)),
                Draft(f"{a}^{{{n}}} - {b}", str(a**n - b)),
                Draft(f"\\frac{{1}}{{{a}^{{{n}}}}}", f"{a}^{{-{n}}}"),
                Draft(f"{a}^{{-{n}}}", f"\\frac{{1}}{{{a**n}}}"),
            )
        )


@same("factorials and binomial coefficients worked out")
def factorials(golds: Golds, rng: Random) -> Drafts:
    while True:
        n = rng.randint(5, 14)
        k = rng.randint(2, n - 2)
        yield rng.choice(
            (
                Draft(f"{n}!", str(factorial(n))),
                Draft(f"\\binom{{{n}}}{{{k}}}", str(comb(n, k))),
                Draft(f"\\dbinom{{{n}}}{{{k}}}", f"\\frac{{{n}!}}{{{k}!{n - k}!}}"),
                Draft(str(comb(n, k)), f"\\binom{{{n}}}{{{n - k}}}"),
                Draft(f"\\frac{{{n}!}}{{{k}!}}", str(factorial(n) // factorial(k))),
            )
        )


@same("factor drawn into the root, or out of it")
def into_root(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if found := re.fullmatch(r"(\d+) ?\\sqrt\{?(\d+)\}?", gold.text):
            yield Draft(gold.text, f"\\sqrt{{{int(found[1]) ** 2 * int(found[2])}}}", gold.source)
    while True:
        a, b, k = rng.randint(2, 15), rng.choice(SQUARE_FREE), rng.randint(2, 9)
        yield rng.choice(
            (
                Draft(f"\\sqrt{{{a * a * b}}}", root(a, b)),
                Draft(f"\\frac{{\\sqrt{{{b}}}}}{{{a}}}", f"\\sqrt{{\\frac{{{b}}}{{{a * a}}}}}"),
                Draft(f"{k} + {root(a, b)}", f"{k} + \\sqrt{{{a * a * b}}}"),
            )
        )


@same("root of a product as a product of roots")
def product_of_roots(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b, k = rng.choice((2, 3, 5, 6)), rng.choice((7, 11, 13, 17)), rng.randint(2, 9)
        yield rng.choice(
            (
                Draft(f"\\sqrt{{{a * b}}}", f"\\sqrt{{{a}}}\\sqrt{{{b}}}"),
                Draft(f"\\sqrt{{{a * b}}}", f"\\sqrt{{{b}}} \\cdot \\sqrt{{{a}}}"),
                Draft(root(k, a * b), f"{k}\\sqrt{{{b}}}\\sqrt{{{a}}}"),
            )
        )


@same("like roots not collected")
def uncollected(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b, c = rng.randint(2, 12), rng.randint(2, 12), rng.choice(SQUARE_FREE)
        yield Draft(root(a + b, c), f"{root(a, c)} + {root(b, c)}")


@same("root in the denominator made rational, or not")
def rationalised(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b, n = rng.randint(1, 30), rng.choice(SQUARE_FREE), rng.randint(2, 9)
        fixed, plain = root(Fraction(a, b), b), f"\\frac{{{a}}}{{\\sqrt{{{b}}}}}"
        norm = abs(b - n * n)
        sign = 1 if b > n * n else -1
        conjugate = f"\\sqrt{{{b}}} - {n}" if sign > 0 else f"{n} - \\sqrt{{{b}}}"
        binomial = conjugate if norm == 1 else f"\\frac{{{conjugate}}}{{{norm}}}"
        yield rng.choice(
            (Draft(fixed, plain), Draft(plain, fixed), Draft(binomial, f"\\frac{{1}}{{\\sqrt{{{b}}} + {n}}}"))
        )


@same("nested roots resolved")
def nested_roots(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b = rng.sample([n for n in SQUARE_FREE if n < 30], 2)
        if gcd(a, b) == 1:
            yield Draft(f"\\sqrt{{{a}}} + \\sqrt{{{b}}}", f"\\sqrt{{{a + b} + 2\\sqrt{{{a * b}}}}}")
        n = rng.randint(2, 9)
        yield Draft(f"{n} + \\sqrt{{{a}}}", f"\\sqrt{{{n * n + a} + {2 * n}\\sqrt{{{a}}}}}")


@same("logarithms of numbers")
def logarithms(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b, n = rng.choice((2, 3, 5, 6, 7)), rng.choice((11, 13, 17, 19)), rng.randint(2, 6)
        yield rng.choice(
            (
                Draft(f"{n}\\ln {a}", f"\\ln {a**n}"),
                Draft(f"\\ln {a * b}", f"\\ln {a} + \\ln {b}"),
                Draft(f"\\ln \\frac{{{a}}}{{{b}}}", f"\\ln {a} - \\ln {b}"),
                Draft(f"\\log_{{{a}}} {b}", f"\\frac{{\\ln {b}}}{{\\ln {a}}}"),
                Draft(f"\\log_{a} {b}", f"\\frac{{\\log_{{10}} {b}}}{{\\log_{{10}} {a}}}"),
                Draft(str(n), f"\\log_{a} {a**n}"),
            )
        )


@same("exact values of trigonometric functions")
def trigonometric_values(golds: Golds, rng: Random) -> Drafts:
    table = [
        ("\\sin", 6, "\\frac{1}{2}"),
        ("\\sin", 4, "\\frac{\\sqrt{2}}{2}"),
        ("\\sin", 3, "\\frac{\\sqrt{3}}{2}"),
        ("\\cos", 6, "\\frac{\\sqrt{3}}{2}"),
        ("\\cos", 4, "\\frac{\\sqrt{2}}{2}"),
        ("\\cos", 3, "\\frac{1}{2}"),
        ("\\tan", 6, "\\frac{\\sqrt{3}}{3}"),
        ("\\tan", 3, "\\sqrt{3}"),
        ("\\cos", 5, "\\frac{1 + \\sqrt{5}}{4}"),
        ("\\cos", 12, "\\frac{\\sqrt{6} + \\sqrt{2}}{4}"),
        ("\\sin", 12, "\\frac{\\sqrt{6} - \\sqrt{2}}{4}"),
    ]
    while True:
        name, part, value = rng.choice(table)
        function = f"{name} \\frac{{\\pi}}{{{part}}}"
        k = rng.randint(2, 9)
        yield rng.choice(
            (Draft(function, value), Draft(value, function), Draft(f"{k}{function}", f"{k} \\cdot {value}"))
        )


@same("complex number in polar form")
def polar(golds: Golds, rng: Random) -> Drafts:
    units = {"3": "1 + \\sqrt{3}i", "6": "\\sqrt{3} + i"}
    while True:
        part, k = rng.choice("36"), rng.randint(1, 20)
        spelled = (
            f"{2 * k}e^{{\\frac{{\\pi i}}{{{part}}}}}",
            f"{2 * k}\\left(\\cos \\frac{{\\pi}}{{{part}}} + i\\sin \\frac{{\\pi}}{{{part}}}\\right)",
        )
        gold = units[part] if k == 1 else f"{k}({units[part]})"
        yield Draft(gold, rng.choice(spelled))


@same("exponential function as a power of e")
def exponential(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b = rng.randint(2, 9), nonzero(rng, -9, 9)
        yield rng.choice(
            (
                Draft(f"{a}e^{{{b}}}", f"{a}\\exp({b})"),
                Draft(f"e^{{{a}x}}", f"\\exp({a}x)"),
                Draft(f"e^{{x + {a}}}", f"e^{a} e^x"),
                Draft(f"\\frac{{{a}}}{{e^{abs(b)}}}", f"{a}e^{{-{abs(b)}}}"),
            )
        )
