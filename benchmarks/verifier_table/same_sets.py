"""The same numbers, listed or enclosed otherwise: several answers, sets, intervals, inequalities, unions."""

from __future__ import annotations

import re
from fractions import Fraction
from random import Random

from .golds import Golds
from .latex import SQUARE_FREE, decimal, distinct, frac, fraction, list_of, root
from .pair import Draft, Drafts, rewrite, same


@same("± as two answers")
def plus_minus(golds: Golds, rng: Random) -> Drafts:
    joints = (", ", " \\text{ and } ", " \\text{ or } ")

    def change(text: str) -> str | None:
        if "\\pm" not in text or "{" in text.split("\\pm")[0]:
            return None
        return text.replace("\\pm", "+") + rng.choice(joints) + text.replace("\\pm", "-")

    yield from rewrite(golds, rng, change)
    while True:
        a, surd = rng.randint(1, 20), root(rng.randint(1, 5), rng.choice(SQUARE_FREE))
        gold = rng.choice((f"{a} \\pm {surd}", f"\\pm {surd}", f"-{a} \\pm {surd}", f"\\frac{{{a} \\pm {surd}}}{{7}}"))
        first, second = (
            gold.replace("\\pm ", "" if gold[1] == "p" else "+ "),
            gold.replace("\\pm ", "-" if gold[1] == "p" else "- "),
        )
        forward, backward = f"{first}{rng.choice(joints)}{second}", f"{second}{rng.choice(joints)}{first}"
        yield rng.choice((Draft(gold, forward), Draft(gold, backward), Draft(forward, gold)))


def solutions(golds: Golds, rng: Random) -> list[tuple[str, list[str], str]]:
    """(gold, its solutions, source) of lists without order: MATH-500's first, then made ones."""
    rows = [
        (gold.text, re.split(r", ?", gold.text), gold.source)
        for gold in golds.math
        if re.fullmatch(r"-?\d+(, ?-?\d+)+", gold.text) and not re.search(r"\d,\d{3}", gold.text)
    ]
    for _ in range(200):
        values: list[Fraction | int] = list(distinct(rng, rng.randint(2, 4)))
        if rng.random() < 0.4:
            values[0] = fraction(rng)
        texts = [frac(value) for value in values]
        if rng.random() < 0.2:
            texts[-1] = root(rng.randint(1, 5), rng.choice(SQUARE_FREE))
        rows.append((", ".join(texts), texts, "made"))
    return rows


def _reordered(rng: Random, texts: list[str]) -> list[str]:
    while (order := rng.sample(texts, len(texts))) == texts:
        pass
    return order


@same("several answers in another order")
def another_order(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in solutions(golds, rng):
        yield Draft(gold, ", ".join(_reordered(rng, texts)), source)


@same("several answers joined by and, or, semicolons, or with their name")
def joined(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in solutions(golds, rng):
        *head, last = texts
        front = ", ".join(head)
        spelled = (
            f"{front} \\text{{ and }} {last}",
            f"{front} \\text{{ or }} {last}",
            f"{front} and {last}",
            f"x = {', '.join(texts)}",
            ", ".join(f"x = {text}" for text in texts),
            " \\text{ or } ".join(f"x = {text}" for text in texts),
            "; ".join(texts),
            f"x_1 = {texts[0]}, x_2 = {texts[1]}" if len(texts) == 2 else ",".join(texts),
        )
        yield Draft(gold, rng.choice(spelled), source)


@same("set with or without braces")
def braces(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in solutions(golds, rng):
        order = rng.choice((texts, _reordered(rng, texts)))
        yield Draft(gold, rng.choice(("\\{{{}\\}}", "\\left\\{{{}\\right\\}}")).format(", ".join(order)), source)
        if source == "made":
            yield Draft(f"\\{{{gold}\\}}", ", ".join(order))


@same("set in another order")
def another_set_order(golds: Golds, rng: Random) -> Drafts:
    for row in golds.math:
        if row.text == "\\{1\\pm\\sqrt{5},-2\\}":
            yield Draft(row.text, "\\{-2, 1 - \\sqrt{5}, 1 + \\sqrt{5}\\}", row.source)
    for gold, texts, source in solutions(golds, rng):
        if source == "made":
            yield Draft(f"\\{{{gold}\\}}", f"\\{{{', '.join(_reordered(rng, texts))}\\}}")


End = Fraction | int | None
"""None is infinity."""


def interval(rng: Random) -> tuple[End, End, bool, bool]:
    """(low, high, low closed, high closed), never a pair in round brackets, which would read as a point."""
    low, high = sorted(Fraction(n, rng.choice((1, 1, 1, 2, 3))) for n in distinct(rng, 2, -30, 30))
    if low == high:
        return interval(rng)
    kind = rng.randrange(5)
    if kind == 3:
        return None, high, False, rng.random() < 0.5
    if kind == 4:
        return low, None, rng.random() < 0.5, False
    return low, high, *((True, True), (True, False), (False, True))[kind]


def written(low: End, high: End, left: bool, right: bool) -> str:
    """An interval in brackets."""
    first, last = "-\\infty" if low is None else frac(low), "\\infty" if high is None else frac(high)
    return f"{'[' if left else '('}{first}, {last}{']' if right else ')'}"


LESS, MORE = {True: "\\le", False: "<"}, {True: "\\ge", False: ">"}


def as_inequality(low: End, high: End, left: bool, right: bool, backward: bool = False) -> str:
    """An interval of x as an inequality; backward: with its sides swapped."""
    first, last = frac(low or 0), frac(high or 0)
    if high is None:
        return f"{first} {LESS[left]} x" if backward else f"x {MORE[left]} {first}"
    if low is None:
        return f"{last} {MORE[right]} x" if backward else f"x {LESS[right]} {last}"
    if backward:
        return f"{last} {MORE[right]} x {MORE[left]} {first}"
    return f"{first} {LESS[left]} x {LESS[right]} {last}"


_GIVEN: dict[str, tuple[End, End, bool, bool]] = {
    "(3,4]": (3, 4, False, True),
    "(2,\\infty)": (2, None, False, False),
    "(5,\\infty)": (5, None, False, False),
    "(-\\infty, 0]": (None, 0, False, True),
    "\\left(\\frac{3}{5},\\frac{8}{3}\\right]": (Fraction(3, 5), Fraction(8, 3), False, True),
    "x \\in [-2,7]": (-2, 7, True, True),
}


def intervals(golds: Golds, rng: Random) -> list[tuple[str, tuple[End, End, bool, bool], str]]:
    """(gold, the interval, source): MATH-500's first, then made ones."""
    rows = [(gold.text, _GIVEN[gold.text], gold.source) for gold in golds.math if gold.text in _GIVEN]
    made = [interval(rng) for _ in range(200)]
    return rows + [(written(*ends), ends, "made") for ends in made]


@same("interval as an inequality")
def interval_as_inequality(golds: Golds, rng: Random) -> Drafts:
    for gold, ends, source in intervals(golds, rng):
        yield Draft(gold, as_inequality(*ends, backward=rng.random() < 0.3), source)


@same("inequality as an interval")
def inequality_as_interval(golds: Golds, rng: Random) -> Drafts:
    while True:
        ends = interval(rng)
        yield Draft(as_inequality(*ends), rng.choice(("{}", "x \\in {}")).format(written(*ends)))


@same("inequality with its sides swapped")
def swapped_inequality(golds: Golds, rng: Random) -> Drafts:
    while True:
        ends = interval(rng)
        yield Draft(as_inequality(*ends), as_inequality(*ends, backward=True))


@same("inequality signs spelled otherwise: \\leq, \\leqslant, <=")
def inequality_signs(golds: Golds, rng: Random) -> Drafts:
    while True:
        text = as_inequality(*interval(rng))
        if "\\le" in text or "\\ge" in text:
            ending = rng.choice(("q", "qslant"))
            answer = rng.choice(
                (re.sub(r"\\([lg])e", rf"\\\1e{ending}", text), text.replace("\\le", "<=").replace("\\ge", ">="))
            )
            yield Draft(text, answer)


@same("interval in set-builder notation")
def set_builder(golds: Golds, rng: Random) -> Drafts:
    for gold, ends, source in intervals(golds, rng):
        text = as_inequality(*ends)
        yield Draft(
            gold,
            rng.choice((f"\\{{x \\mid {text}\\}}", f"\\{{x : {text}\\}}", f"\\{{x \\in \\mathbb{{R}} : {text}\\}}")),
            source,
        )


@same("x ∈ put before an interval, or left out")
def element_of(golds: Golds, rng: Random) -> Drafts:
    for gold, ends, source in intervals(golds, rng):
        plain = written(*ends)
        yield Draft(gold, plain if "\\in " in gold else f"x \\in {plain}", source)
        if source == "made":
            yield Draft(f"x \\in {plain}", plain)


@same("interval with +∞, other spacing, or ends spelled otherwise")
def interval_spelling(golds: Golds, rng: Random) -> Drafts:
    for gold, ends, source in intervals(golds, rng):
        text = written(*ends)
        answer = text.replace(" \\infty", rng.choice((" +\\infty", "+\\infty", " \\infty ")))
        answer = re.sub(
            r"\\frac\{(\d+)\}\{(\d+)\}", rng.choice((r"\1/\2", r"\\dfrac{\1}{\2}", r"\\tfrac{\1}{\2}")), answer
        )
        answer = answer.replace(", ", rng.choice((",", ",\\,", " , ", ",\\ ")))
        if answer != gold:
            yield Draft(gold, answer, source)


@same("union in another order")
def union_order(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if "\\cup" in gold.text:
            first, second = gold.text.split(" \\cup ")
            yield Draft(gold.text, f"{second} \\cup {first}", gold.source)
    while True:
        parts = unions(rng)
        yield Draft(" \\cup ".join(parts), rng.choice((" \\cup ", "\\cup")).join(_reordered(rng, parts)))


def unions(rng: Random) -> list[str]:
    """Two or three intervals without a common point, in rising order."""
    ends = sorted(distinct(rng, 4, -40, 40))
    first = written(None if rng.random() < 0.5 else ends[0], ends[1], False, rng.random() < 0.5)
    last = written(ends[2], None if rng.random() < 0.5 else ends[3], rng.random() < 0.5, False)
    middle = (
        [written(Fraction(2 * ends[1] + 1, 2), Fraction(4 * ends[1] + 3, 4), True, True)] if rng.random() < 0.3 else []
    )
    return [first, *middle, last]


@same("line without points as a union or with ≠")
def punctured(golds: Golds, rng: Random) -> Drafts:
    while True:
        a = rng.choice((rng.randint(-30, 30), fraction(rng)))
        union = f"(-\\infty, {frac(a)}) \\cup ({frac(a)}, \\infty)"
        yield rng.choice(
            (
                Draft(union, f"\\mathbb{{R}} \\setminus \\{{{frac(a)}\\}}"),
                Draft(union, f"x \\neq {frac(a)}"),
                Draft(union, f"x < {frac(a)} \\text{{ or }} x > {frac(a)}"),
            )
        )


@same("list of values written as decimals")
def list_decimals(golds: Golds, rng: Random) -> Drafts:
    while True:
        values = [fraction(rng, (2, 4, 5, 8)), Fraction(rng.randint(-20, 20))]
        yield Draft(list_of(values), ", ".join(decimal(value) for value in rng.sample(values, 2)))
