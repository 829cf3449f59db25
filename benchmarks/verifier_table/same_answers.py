"""The same answer of another kind: tuples, matrices, units, money, words, choices, bases, ratios."""

from __future__ import annotations

import re
from random import Random

from .golds import Golds
from .latex import SQUARE_FREE, decimal, distinct, frac, fraction, root
from .pair import Draft, Drafts, same

WORDS = re.findall(
    r"\w+",
    """
    east north south west even odd ellipse parabola hyperbola circle line Evelyn Navin Monday Tuesday Friday yes no
    true false increasing decreasing rational irrational convex red blue isosceles equilateral rhombus trapezoid
    January October triangle pentagon hexagon Angela Briana linear quadratic divergent convergent never
    """,
)
"""Answers in a word; no two of them mean the same."""
UNITS = {
    "cm": (
        "\\text{ cm}",
        "\\mathrm{cm}",
        "\\,\\text{cm}",
        " cm",
        "\\text{ centimeters}",
        "\\mbox{ cm}",
        " centimetres",
    ),
    "m": ("\\text{ m}", "\\text{ meters}", "\\,\\mathrm{m}", "\\text{ metres}", " meters"),
    "in": ("\\text{ inches}", "\\mbox{ inches}", "\\text{ in}", " inches", "\\text{ in.}"),
    "ft": ("\\text{ feet}", "\\text{ ft}", "\\,\\text{ft}", " feet"),
    "cm^2": (
        "\\text{ cm}^2",
        "\\mbox{ cm}^2",
        "\\text{ square centimeters}",
        "\\text{ cm}^{2}",
        " cm²",
        "\\text{ sq. cm}",
    ),
    "in^2": ("\\mbox{ inches}^2", "\\text{ inches}^2", "\\text{ in}^2", "\\text{ square inches}", "\\text{ sq in}"),
    "m^3": ("\\text{ m}^3", "\\text{ cubic meters}", "\\,\\mathrm{m}^3", " m³"),
    "kg": ("\\text{ kg}", "\\text{ kilograms}", "\\,\\mathrm{kg}", " kg"),
    "h": ("\\text{ hours}", "\\text{ h}", " hours", "\\text{ hrs}"),
    "min": ("\\text{ minutes}", "\\text{ min}", " minutes", "\\text{ mins}"),
    "km/h": ("\\text{ km/h}", "\\text{ kilometers per hour}", "\\text{ kph}", " km/h"),
    "mph": ("\\text{ mph}", "\\text{ miles per hour}", " mph"),
    "cents": ("\\text{ cents}", " cents", "\\text{ ¢}"),
}
"""Spellings of a unit; those of two units never mean the same."""


def measured(golds: Golds, rng: Random) -> list[tuple[str, str, str, str]]:
    """(gold, its number, its unit, source): MATH-500's first, then made ones."""
    spelled = {spelling: unit for unit, spellings in UNITS.items() for spelling in spellings}
    rows = []
    for gold in golds.math:
        found = re.fullmatch(r"([\d.]+) ?(\\(?:text|mbox).*)", gold.text)
        unit = next((spelled[s] for s in spelled if found and s.replace(" ", "") == found[2].replace(" ", "")), None)
        if found and unit:
            rows.append((gold.text, found[1], unit, gold.source))
    for _ in range(400):
        number = rng.choice((str(rng.randint(2, 900)), decimal(fraction(rng, (2, 4, 5))).lstrip("-")))
        unit = rng.choice(list(UNITS))
        rows.append((f"{number}{rng.choice(UNITS[unit])}", number, unit, "made"))
    return rows


@same("tuple with entries spelled otherwise")
def tuple_entries(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if re.fullmatch(r"(\\left)?\(.*,.*\)", gold.text) and "infty" not in gold.text and "cup" not in gold.text:
            answer = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", gold.text).replace(", ", ",").replace(",", ",\\ ")
            yield Draft(gold.text, answer, gold.source)
    while True:
        a, b, c = fraction(rng, (2, 4, 5, 8)), rng.randint(-20, 20), root(rng.randint(2, 5), rng.choice(SQUARE_FREE))
        same_root = re.sub(r"(\d)\\sqrt\{(\d+)\}", lambda found: f"\\sqrt{{{int(found[1]) ** 2 * int(found[2])}}}", c)
        yield rng.choice(
            (
                Draft(f"({frac(a)}, {b})", f"({decimal(a)}, {b})"),
                Draft(f"({frac(a)}, {b}, {c})", f"({decimal(a)},{b},{same_root})"),
                Draft(f"({b}, {c})", f"\\left({b}.0, {same_root}\\right)"),
                Draft(f"({b}, {frac(a)})", f"(x, y) = ({b}, {frac(a)})"),
            )
        )


def matrices(golds: Golds, rng: Random) -> list[tuple[list[list[str]], str]]:
    """(rows of entries, source): MATH-500's first, then made ones with different entries."""
    rows = []
    for gold in golds.shuffled(rng):
        if found := re.fullmatch(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", gold.text):
            rows.append(([[cell.strip() for cell in row.split("&")] for row in found[1].split("\\\\")], gold.source))
    for _ in range(200):
        height, width = rng.choice(((2, 2), (3, 1), (2, 1), (3, 3), (2, 3)))
        cells = [str(value) for value in distinct(rng, height * width)]
        if rng.random() < 0.5:
            value = fraction(rng)
            cells[rng.randrange(len(cells))] = f"{value.numerator}/{value.denominator}"
        rows.append(([cells[i * width : (i + 1) * width] for i in range(height)], "made"))
    return rows


def matrix(rows: list[list[str]], environment: str = "pmatrix", end: str = " \\\\ ") -> str:
    """A matrix of the written entries."""
    return f"\\begin{{{environment}}} {end.join(' & '.join(row) for row in rows)} \\end{{{environment}}}"


@same("matrix in brackets, or by array or \\left( \\matrix")
def matrix_environment(golds: Golds, rng: Random) -> Drafts:
    for rows, source in matrices(golds, rng):
        columns = "c" * len(rows[0])
        spelled = (
            matrix(rows, "bmatrix"),
            f"\\left({matrix(rows, 'matrix')}\\right)",
            f"\\left[{matrix(rows, 'array').replace('{array}', '{array}{' + columns + '}', 1)}\\right]",
            f"\\left({matrix(rows, 'array').replace('{array}', '{array}{' + columns + '}', 1)}\\right)",
        )
        yield Draft(matrix(rows), rng.choice(spelled), source)


@same("matrix with entries or line ends spelled otherwise")
def matrix_entries(golds: Golds, rng: Random) -> Drafts:
    for rows, source in matrices(golds, rng):
        command = rng.choice(("frac", "dfrac"))
        fractions = [[re.sub(r"(-?)(\d+)/(\d+)", rf"\1\\{command}{{\2}}{{\3}}", cell) for cell in row] for row in rows]
        answer = matrix(fractions, end=rng.choice((" \\\\ ", "\\\\\n", "\\\\[4pt]")))
        if answer != matrix(rows):
            yield Draft(matrix(rows), answer, source)


@same("unit spelled otherwise")
def unit_spelling(golds: Golds, rng: Random) -> Drafts:
    for _ in range(2):
        for gold, number, unit, source in measured(golds, rng):
            answer = f"{number}{rng.choice(UNITS[unit])}"
            if answer != gold:
                yield Draft(gold, answer, source)


@same("unit left out")
def unit_dropped(golds: Golds, rng: Random) -> Drafts:
    for gold, number, _, source in measured(golds, rng):
        yield Draft(gold, number, source)


@same("unit of the question added to a bare number")
def unit_added(golds: Golds, rng: Random) -> Drafts:
    words = {"centimeters": "cm", "inches": "in", "feet": "ft", "meters": "m", "minutes": "min", "hours": "h"}
    words |= {"miles per hour": "mph", "square inches": "in^2", "square centimeters": "cm^2", "cents": "cents"}
    for gold in (*golds.math, *golds.gsm8k):
        found = re.search(r"how many (square inches|square centimeters|\w+)", gold.question, re.IGNORECASE)
        if found and found[1].lower() in words and re.fullmatch(r"\d+", gold.text):
            yield Draft(gold.text, f"{gold.text}{rng.choice(UNITS[words[found[1].lower()]])}", gold.source)


@same("dollar sign left out, put in, or in words")
def dollars(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.math:
        if found := re.fullmatch(r"\\\$(.*)", gold.text):
            number = found[1].replace("\\!", "")
            for answer in (number, f"${number}", f"{number}\\text{{ dollars}}", f"\\${number.replace(',', '')}"):
                if answer[0] != "$":
                    yield Draft(gold.text, answer, gold.source)
    money = r"how (much|many dollars)\b[^.?]*(cost|earn|pay|paid|spen[dt]|save|money|dollars|profit|owe)[^.?]*\?$"
    asks = [gold for gold in golds.gsm8k if re.search(money, gold.question, re.IGNORECASE)]
    for gold in rng.sample(asks, len(asks)):
        if "$" in gold.question and "percent" not in gold.question and "%" not in gold.question:
            spelled = ("\\${}", "\\text{{\\${}}}", "{}\\text{{ dollars}}", "{} dollars", "\\${}.00", "\\text{{USD }}{}")
            yield Draft(gold.text, rng.choice(spelled).format(gold.text), gold.source)


@same("word in \\text, \\textbf, \\mathrm, quotes or nothing, in another case, with a full stop")
def words(golds: Golds, rng: Random) -> Drafts:
    spelled = (
        "{}",
        "\\text{{{}}}",
        "\\textbf{{{}}}",
        "\\mathrm{{{}}}",
        "\\text{{{}.}}",
        "\\textit{{{}}}",
        "\\mbox{{{}}}",
        "\\text{{ {} }}",
    )
    given = [
        (gold.text, found[1], gold.source)
        for gold in golds.math
        if (found := re.fullmatch(r"\\text\{(\w{2,})\}", gold.text))
    ]
    made = [(f"\\text{{{word}}}", word, "made") for word in rng.sample(WORDS, len(WORDS))]
    for gold, word, source in [*given, *made] * 3:
        case = rng.choice((str, str.lower, str.capitalize, str.upper))
        answer = rng.choice(spelled).format(case(word))
        if answer != gold:
            yield Draft(gold, answer, source)


@same("letter of a choice in brackets, bold, or bare")
def choices(golds: Golds, rng: Random) -> Drafts:
    spelled = (
        "{}",
        "({})",
        "\\text{{{}}}",
        "\\text{{({})}}",
        "\\textbf{{({})}}",
        "\\mathrm{{({})}}",
        "\\mathbf{{{}}}",
        "\\text{{{}.}}",
        "\\textbf{{({}) }}",
    )
    given = [
        (gold.text, gold.text[7], gold.source) for gold in golds.math if re.fullmatch(r"\\text\{\([A-E]\)\}", gold.text)
    ]
    made = [(gold.format(letter), letter, "made") for gold in spelled[:4] for letter in "ABCDE"]
    for gold, letter, source in [*given * 6, *made * 3]:
        answer = rng.choice(spelled).format(letter)
        if answer != gold:
            yield Draft(gold, answer, source)


@same("number with its base, spelled otherwise")
def bases(golds: Golds, rng: Random) -> Drafts:
    spelled = ("{}_{{{}}}", "({})_{}", "{}_{}", "({})_{{{}}}", "{{{}}}_{}")
    rows = [
        (gold.text, *found.groups(), gold.source)
        for gold in golds.math
        if (found := re.fullmatch(r"(\d+)_\{?(\d)\}?", gold.text))
    ]
    for _ in range(200):
        base = rng.randint(3, 9)
        digits = str(rng.randint(1, base - 1)) + "".join(str(rng.randrange(base)) for _ in range(rng.randint(1, 4)))
        rows.append((f"{digits}_{base}", digits, str(base), "made"))
    for gold, digits, base_text, source in rows:
        answer = rng.choice(spelled).format(digits, base_text)
        if answer != gold:
            yield Draft(gold, answer, source)


@same('ratio with other spacing, or with \\colon or "to"')
def ratios(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b = rng.sample((2, 3, 5, 7, 11, 13), 2)
        yield Draft(
            f"{a}:{b}", rng.choice((f"{a} : {b}", f"{a}\\colon {b}", f"{a} \\text{{ to }} {b}", f"{a}{{:}}{b}"))
        )
