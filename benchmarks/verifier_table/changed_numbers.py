"""Another number: signs, digits, factors, roots, tiny and huge differences, other functions."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from math import factorial
from random import Random

from .golds import Golds, rational
from .latex import SQUARE_FREE, decimal, distinct, frac, fraction, nonzero, root
from .pair import Draft, Drafts, different


def perturbed(golds: Golds, rng: Random, change: Callable[[str, Fraction], str | None]) -> Drafts:
    """MATH-500's rational golds with a change of their text; only where the number really is another one."""
    for gold, value in golds.numbers(rng, lambda value: True):
        answer = change(gold.text, value)
        if answer is not None and (other := rational(answer)) is not None and other != value:
            yield Draft(gold.text, answer, gold.source)


@different("sign of a number")
def sign(golds: Golds, rng: Random) -> Drafts:
    return perturbed(golds, rng, lambda text, _: text[1:] if text[0] == "-" else f"-{text}")


@different("sign of a root or a multiple of π")
def sign_of_surd(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if re.fullmatch(r"-?(\d* ?\\sqrt\{?\d+\}?|\d* ?\\pi|\\d?frac\{\d*\\(sqrt|pi).*)", gold.text):
            yield Draft(gold.text, gold.text[1:] if gold.text[0] == "-" else f"-{gold.text}", gold.source)
    while True:
        text = rng.choice((root(rng.randint(1, 9), rng.choice(SQUARE_FREE)), f"{rng.randint(2, 30)}\\pi"))
        yield rng.choice((Draft(text, f"-{text}"), Draft(f"-{text}", text)))


@different("one digit")
def one_digit(golds: Golds, rng: Random) -> Drafts:
    def change(text: str, _: Fraction) -> str:
        place = rng.choice([i for i, character in enumerate(text) if character.isdecimal()])
        return text[:place] + rng.choice([d for d in "123456789" if d != text[place]]) + text[place + 1 :]

    return perturbed(golds, rng, change)


@different("two digits transposed")
def transposed(golds: Golds, rng: Random) -> Drafts:
    def change(text: str, _: Fraction) -> str | None:
        places = [i for i in range(len(text) - 1) if re.fullmatch(r"\d\d", text[i : i + 2]) and text[i] != text[i + 1]]
        if not places or not text[places[0]].isdecimal():
            return None
        i = rng.choice(places)
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]

    return perturbed(golds, rng, change)


@different("off by one")
def off_by_one(golds: Golds, rng: Random) -> Drafts:
    return perturbed(golds, rng, lambda text, value: frac(value + rng.choice((-1, 1))))


@different("factor 2")
def factor_two(golds: Golds, rng: Random) -> Drafts:
    return perturbed(golds, rng, lambda text, value: frac(value * rng.choice((2, Fraction(1, 2)))))


@different("decimal point moved, or a zero too many")
def point_moved(golds: Golds, rng: Random) -> Drafts:
    def change(text: str, value: Fraction) -> str | None:
        return None if "frac" in text else decimal(value * rng.choice((10, Fraction(1, 10), 100, Fraction(1, 1000))))

    return perturbed(golds, rng, change)


@different("fraction upside down")
def inverse(golds: Golds, rng: Random) -> Drafts:
    return perturbed(golds, rng, lambda text, value: None if value.denominator == 1 else frac(1 / value))


@different("numerator or denominator")
def part_of_fraction(golds: Golds, rng: Random) -> Drafts:
    def change(text: str, value: Fraction) -> str | None:
        if value.denominator == 1:
            return None
        top, bottom = value.numerator, value.denominator
        return frac(rng.choice((Fraction(top + 1, bottom), Fraction(top, bottom + 1), Fraction(top, bottom + 2))))

    return perturbed(golds, rng, change)


@different("numerator alone")
def numerator(golds: Golds, rng: Random) -> Drafts:
    return perturbed(golds, rng, lambda text, value: None if value.denominator == 1 else str(value.numerator))


@different("whole part of a mixed number left out, or multiplied")
def mixed_number(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if found := re.fullmatch(r"(\d+) ?(\\frac\{\d+\}\{\d+\})", gold.text):
            yield Draft(gold.text, found[2], gold.source)
    while True:
        whole, part = rng.randint(2, 30), Fraction(rng.randint(1, 6), 7)
        other = rng.choice((frac(part), frac(whole * part), f"{whole + 1}{frac(part)}", f"{whole} \\cdot {frac(part)}"))
        yield Draft(f"{whole}{frac(part)}", other)


@different("percent sign added where the question does not speak of percent")
def percent_added(golds: Golds, rng: Random) -> Drafts:
    for gold, _ in golds.numbers(rng, bool):
        if not gold.asks_percent and "frac" not in gold.text:
            yield Draft(gold.text, f"{gold.text}\\%", gold.source)


@different("percentage that is another one")
def percentage(golds: Golds, rng: Random) -> Drafts:
    while True:
        n = rng.randint(2, 99)
        yield Draft(f"{n}\\%", rng.choice((f"{n + 1}\\%", f"{decimal(Fraction(n, 1000))}", f"{10 * n}\\%", f"-{n}\\%")))


@different("root taken away")
def root_removed(golds: Golds, rng: Random) -> Drafts:
    pattern = r"\\sqrt\{?(\d+)\}?"
    for gold in golds.shuffled(rng):
        if len(re.findall(r"\\sqrt", gold.text)) == 1 and "," not in gold.text:
            yield Draft(
                gold.text,
                re.sub(r"(\d) ?" + pattern, r"\1 \\cdot \2", re.sub(r"(?<!\d)(?<!\d )" + pattern, r"\1", gold.text)),
                gold.source,
            )
    while True:
        a, b = rng.randint(2, 9), rng.choice(SQUARE_FREE)
        yield rng.choice((Draft(f"{a}\\sqrt{{{b}}}", str(a * b)), Draft(f"\\sqrt{{{b}}}", str(b))))


@different("number under the root, or before it")
def radicand(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if found := re.fullmatch(r"(\d*) ?\\sqrt\{?(\d+)\}?", gold.text):
            a, b = int(found[1] or 1), int(found[2])
            yield Draft(gold.text, rng.choice((root(a, b + 1), root(a + 1, b), root(b, a + 1))), gold.source)
    while True:
        a, b = rng.randint(2, 12), rng.choice(SQUARE_FREE)
        if a != b:
            yield Draft(
                root(a, b),
                rng.choice((root(a, b + 1), root(a + 1, b), root(b, a), f"\\sqrt{{{a * b}}}", f"\\sqrt[3]{{{b}}}")),
            )


@different("exponent")
def exponent(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, n = rng.randint(2, 12), rng.randint(3, 90)
        gold = f"{a}^{{{n}}}"
        yield rng.choice(
            (Draft(gold, f"{a}^{{{n + 1}}}"), Draft(gold, f"{a}^{{-{n}}}"), Draft(gold, f"{a} \\cdot {n}"))
        )


@different("power of ten in scientific notation")
def power_of_ten(golds: Golds, rng: Random) -> Drafts:
    while True:
        mantissa, n = decimal(Fraction(rng.randint(11, 99), 10)), rng.randint(3, 15)
        gold = f"{mantissa} \\times 10^{{{n}}}"
        yield Draft(
            gold, rng.choice((f"{mantissa} \\times 10^{{{n - 1}}}", f"{mantissa} \\times 10^{{-{n}}}", mantissa))
        )


@different("π or e left out, or another power of it")
def constant(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if re.fullmatch(r"\d+ ?\\pi", gold.text):
            yield Draft(gold.text, gold.text.replace("\\pi", "").strip(), gold.source)
    while True:
        a, name = rng.randint(2, 60), rng.choice(("\\pi", "e"))
        text = f"{a}{name}"
        yield Draft(text, rng.choice((str(a), f"{a}{name}^2", f"{a + 1}{name}", f"\\frac{{{a}}}{{{name}}}")))


@different("i left out, or complex conjugate")
def imaginary(golds: Golds, rng: Random) -> Drafts:
    for _ in range(2):
        for gold in golds.shuffled(rng):
            if found := re.fullmatch(r"(-?\d+) ?([-+]) ?(\d*)i", gold.text):
                a, minus, b = found.groups()
                other = "+" if minus == "-" else "-"
                yield Draft(
                    gold.text,
                    rng.choice((f"{a} {other} {b}i", f"{a} {minus} {b or 1}", f"{a}i {minus} {b or 1}")),
                    gold.source,
                )
    while True:
        a, b = rng.randint(2, 20), rng.randint(2, 20)
        if a != b:
            yield Draft(
                f"{a} + {b}i", rng.choice((f"{a} - {b}i", f"{a} + {b}", f"{b} + {a}i", f"-{a} - {b}i", f"{a}i + {b}"))
            )


@different("tiny term added: + 10^{-12}")
def tiny_term(golds: Golds, rng: Random) -> Drafts:
    for gold, _ in golds.numbers(rng, lambda value: True):
        if "," not in gold.text:
            yield Draft(gold.text, f"{gold.text} {rng.choice('+-')} 10^{{-{rng.randint(9, 30)}}}", gold.source)


@different("tiny fraction: 1/2^{99} for 1/2^{98}")
def tiny_fraction(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, n = rng.choice((2, 3, 5, 10)), rng.randint(40, 400)
        yield rng.choice(
            (
                Draft(f"\\frac{{1}}{{{a}^{{{n}}}}}", f"\\frac{{1}}{{{a}^{{{n + 1}}}}}"),
                Draft(f"1 - \\frac{{1}}{{{a}^{{{n}}}}}", f"1 - \\frac{{1}}{{{a}^{{{n + 1}}}}}"),
                Draft(f"1 - \\frac{{1}}{{{a}^{{{n}}}}}", "1"),
                Draft(f"{a}^{{-{n}}}", "0"),
            )
        )


@different("huge factorial: 1/2004! for 1/2006!")
def huge_factorial(golds: Golds, rng: Random) -> Drafts:
    while True:
        n, k = rng.randint(100, 3000), rng.randint(1, 3)
        yield rng.choice(
            (
                Draft(f"\\frac{{1}}{{{n}!}}", f"\\frac{{1}}{{{n + k}!}}"),
                Draft(f"{n}!", f"{n + k}!"),
                Draft(f"\\frac{{{n}!}}{{2}}", f"\\frac{{{n}!}}{{3}}"),
                Draft(f"1 + \\frac{{1}}{{{n}!}}", "1"),
            )
        )


@different("large integer with another last digit")
def large_integer(golds: Golds, rng: Random) -> Drafts:
    while True:
        value = rng.randint(10**17, 10 ** rng.choice((18, 30, 60)))
        n = rng.randint(20, 60)
        yield rng.choice(
            (
                Draft(str(value), str(value + 1)),
                Draft(f"10^{{{n}}}", f"10^{{{n}}} + 1"),
                Draft(f"10^{{{n}}} - 1", f"10^{{{n}}}"),
            )
        )


@different("fractions or roots that are almost equal")
def almost_equal(golds: Golds, rng: Random) -> Drafts:
    while True:
        n, k = rng.randint(10**9, 10**12), rng.randint(9, 15)
        yield rng.choice(
            (
                Draft(f"\\frac{{{n}}}{{{n + 1}}}", f"\\frac{{{n + 1}}}{{{n + 2}}}"),
                Draft(f"\\sqrt{{{n * n + 1}}}", str(n)),
                Draft(f"\\frac{{1}}{{{n}}}", f"\\frac{{1}}{{{n + 1}}}"),
                Draft(f"\\pi + 10^{{-{k}}}", "\\pi"),
            )
        )


@different("sign inside a sum: 1 - 1/e for 1 + 1/e")
def sign_in_sum(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b, c = rng.randint(1, 20), rng.randint(1, 9), rng.choice(SQUARE_FREE)
        term = rng.choice((f"\\frac{{{b}}}{{e}}", root(b, c), f"\\ln {c}", f"\\frac{{\\pi}}{{{b + 1}}}", f"e^{{-{b}}}"))
        first, second = rng.sample("+-", 2)
        yield Draft(f"{a} {first} {term}", f"{a} {second} {term}")


@different("trigonometric function or its argument")
def trigonometry(golds: Golds, rng: Random) -> Drafts:
    while True:
        k, c = rng.randint(2, 9), rng.randint(2, 9)
        yield rng.choice(
            (
                Draft(f"{c}\\sin {k}x", f"{c}\\cos {k}x"),
                Draft(f"{c}\\sin {k}x", f"{c * k}\\sin x"),
                Draft(f"\\tan {k}x", f"\\cot {k}x"),
                Draft(f"\\sin^2 {k}x", f"\\sin {k}x^2"),
                Draft(f"{c} - \\cos^2 {k}x", f"{c} + \\cos^2 {k}x"),
                Draft(f"\\arcsin \\frac{{1}}{{{c}}}", f"\\frac{{1}}{{\\sin \\frac{{1}}{{{c}}}}}"),
                Draft(f"\\sin \\frac{{\\pi}}{{{c + 4}}}", f"\\cos \\frac{{\\pi}}{{{c + 4}}}"),
            )
        )


@different("logarithm: base, argument, sum for product")
def logarithm(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b = distinct(rng, 2, 3, 30)
        yield rng.choice(
            (
                Draft(f"\\log_{{2}} {a}", f"\\log_{{3}} {a}"),
                Draft(f"\\ln {a} + \\ln {b}", f"\\ln {a + b}"),
                Draft(f"\\ln {a}", f"\\ln {b}"),
                Draft(f"\\frac{{\\ln {a}}}{{\\ln {b}}}", f"\\frac{{\\ln {b}}}{{\\ln {a}}}"),
                Draft(f"2\\ln {a}", f"\\ln {2 * a}"),
            )
        )


@different("root of a sum as a sum of roots, power of a sum as a sum of powers")
def false_linearity(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b = distinct(rng, 2, 2, 20)
        yield rng.choice(
            (
                Draft(f"\\sqrt{{{a + b}}}", f"\\sqrt{{{a}}} + \\sqrt{{{b}}}"),
                Draft(f"(x + {a})^2", f"x^2 + {a * a}"),
                Draft(f"\\frac{{1}}{{{a} + \\sqrt{{3}}}}", f"\\frac{{1}}{{{a}}} + \\frac{{1}}{{\\sqrt{{3}}}}"),
                Draft(f"e^{{{a}}} + e^{{{b}}}", f"e^{{{a + b}}}"),
                Draft(f"({a} + x)^3", f"{a**3} + x^3"),
            )
        )


@different("grouping: another reading of the same signs")
def grouping(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b, c = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 9)
        yield rng.choice(
            (
                Draft(f"\\frac{{1}}{{{a}}}x", f"\\frac{{1}}{{{a}x}}"),
                Draft(f"\\frac{{x + {b}}}{{{a}}}", f"x + \\frac{{{b}}}{{{a}}}"),
                Draft(f"{a}(x + {b})", f"{a}x + {b}"),
                Draft(f"-{a}^2", f"(-{a})^2"),
                Draft(f"{a}^{{x + {b}}}", f"{a}^x + {b}"),
                Draft(f"(x - {a}) - {b}x", f"x - ({a} - {b}x)"),
                Draft(f"({a}x)^{b}", f"{a}x^{b}"),
                Draft(f"\\frac{{{a}}}{{\\frac{{{b}}}{{{c + 9}}}}}", f"\\frac{{\\frac{{{a}}}{{{b}}}}}{{{c + 9}}}"),
            )
        )


@different("factorial, binomial coefficient or sum with another bound")
def bounds(golds: Golds, rng: Random) -> Drafts:
    while True:
        n, k = rng.randint(6, 14), rng.randint(2, 4)
        yield rng.choice(
            (
                Draft(f"{n}!", f"{n - 1}!"),
                Draft(f"{n}!", str(factorial(n) + nonzero(rng, -9, 9))),
                Draft(f"\\binom{{{n + 4}}}{{{k}}}", f"\\binom{{{n + 4}}}{{{k + 1}}}"),
                Draft(f"\\binom{{{n + 4}}}{{{k}}}", f"\\frac{{{n + 4}}}{{{k}}}"),
                Draft(f"\\sum_{{k=1}}^{{{n}}} k^{k}", f"\\sum_{{k=1}}^{{{n + 1}}} k^{k}"),
            )
        )


@different("another fraction within a tenth")
def other_fraction(golds: Golds, rng: Random) -> Drafts:
    while True:
        first, second = fraction(rng), fraction(rng)
        if first != second and abs(first - second) < Fraction(1, 10):
            yield Draft(frac(first), frac(second))
