"""Another answer of the same kind: tuples, matrices, units, money, words, choices, bases, ratios."""

from __future__ import annotations

import re
from fractions import Fraction
from random import Random

from .golds import Golds
from .latex import decimal, distinct, frac, fraction
from .pair import Draft, Drafts, different
from .same_answers import UNITS, WORDS, matrices, matrix, measured


def _points(golds: Golds, rng: Random) -> list[tuple[str, list[str], str]]:
    rows = []
    for gold in golds.shuffled(rng):
        found = re.fullmatch(r"(?:\\left)?\( ?([^()\[\]]*,[^()\[\]]*?) ?(?:\\right)?\)", gold.text)
        if found and "infty" not in gold.text:
            rows.append((gold.text, [part.strip() for part in found[1].split(",")], gold.source))
    for _ in range(200):
        cells: list[int | Fraction] = list(distinct(rng, rng.randint(2, 4)))
        if rng.random() < 0.4:
            cells[0] = fraction(rng)
        texts = [frac(cell) for cell in cells]
        rows.append((f"({', '.join(texts)})", texts, "made"))
    return rows


@different("coordinates in another order")
def swapped_coordinates(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in _points(golds, rng):
        i, j = rng.sample(range(len(texts)), 2)
        other = list(texts)
        other[i], other[j] = other[j], other[i]
        yield Draft(gold, f"({', '.join(other)})", source)


@different("coordinate that is another one, or left out, or of the other sign")
def other_coordinate(golds: Golds, rng: Random) -> Drafts:
    for gold, texts, source in _points(golds, rng):
        i, other = rng.randrange(len(texts)), list(texts)
        other[i] = str(rng.randint(31, 60))
        shorter = texts[:i] + texts[i + 1 :]
        spelled = [f"({', '.join(other)})", shorter[0] if len(shorter) == 1 else f"({', '.join(shorter)})"]
        yield Draft(gold, rng.choice(spelled), source)


@different("matrix with entries swapped, or transposed")
def swapped_entries(golds: Golds, rng: Random) -> Drafts:
    for rows, source in matrices(golds, rng):
        if len({cell for row in rows for cell in row}) < 3:
            continue
        transposed = [list(column) for column in zip(*rows, strict=True)]
        swapped = [*rows[1:], rows[0]]
        other = rng.choice((transposed, swapped)) if len(rows) == len(rows[0]) else swapped
        if other != rows:
            yield Draft(matrix(rows), matrix(other), source)


@different("matrix with another entry, or another sign")
def other_entry(golds: Golds, rng: Random) -> Drafts:
    for rows, source in matrices(golds, rng):
        i, j, other = rng.randrange(len(rows)), rng.randrange(len(rows[0])), [list(row) for row in rows]
        cell = other[i][j]
        turned = cell[1:] if cell[0] == "-" else f"-{cell}"
        other[i][j] = rng.choice((turned, str(rng.randint(31, 60)))) if cell != "0" else "1"
        yield Draft(matrix(rows), matrix(other), source)


@different("matrix with a row or column left out")
def smaller_matrix(golds: Golds, rng: Random) -> Drafts:
    for rows, source in matrices(golds, rng):
        yield Draft(matrix(rows), matrix(rows[:-1] if len(rows) > 1 else [row[:-1] for row in rows]), source)


@different("another unit: m for cm, cm^3 for cm^2, minutes for hours")
def other_unit(golds: Golds, rng: Random) -> Drafts:
    wrong = {"cm": "m", "m": "ft", "in": "cm", "ft": "in", "cm^2": "cm", "in^2": "in", "m^3": "cm^2", "kg": "cm"}
    wrong |= {"h": "min", "min": "h", "km/h": "mph", "mph": "km/h", "cents": "kg"}
    for gold, number, unit, source in measured(golds, rng):
        yield Draft(gold, f"{number}{rng.choice(UNITS[wrong[unit]])}", source)


@different("another number with the right unit")
def other_amount(golds: Golds, rng: Random) -> Drafts:
    for gold, number, unit, source in measured(golds, rng):
        other = decimal(Fraction(number) + rng.choice((1, 10, Fraction(1, 2))))
        yield Draft(gold, f"{other}{rng.choice(UNITS[unit])}", source)


@different("radians for degrees")
def radians(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if found := re.fullmatch(r"(\d+)\^\\circ", gold.text):
            yield Draft(gold.text, f"{found[1]}\\text{{ {rng.choice(('radians', 'rad'))}}}", gold.source)
    while True:
        angle = rng.randint(1, 179)
        yield Draft(f"{angle}^\\circ", f"{angle}\\text{{ {rng.choice(('radians', 'rad'))}}}")


@different("another angle")
def other_angle(golds: Golds, rng: Random) -> Drafts:
    while True:
        angle = rng.randint(1, 170)
        yield Draft(
            f"{angle}^\\circ",
            rng.choice(
                (
                    f"{angle + 1}^\\circ",
                    f"{180 - angle}^\\circ" if angle != 90 else "91^\\circ",
                    f"\\frac{{{angle}\\pi}}{{181}}",
                )
            ),
        )


@different("cents for dollars")
def cents(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.math:
        if found := re.fullmatch(r"\\\$([\d,.!\\]+)", gold.text):
            yield Draft(gold.text, f"{found[1]}\\text{{ cents}}", gold.source)
    while True:
        amount = rng.choice((str(rng.randint(2, 900)), f"{rng.randint(1, 99)}.{rng.randint(10, 99)}"))
        yield Draft(f"\\${amount}", rng.choice((f"{amount}\\text{{ cents}}", f"{amount} cents", f"{amount}¢")))


@different("another sum of money")
def money(golds: Golds, rng: Random) -> Drafts:
    while True:
        dollars, c = rng.randint(1, 99), rng.randint(10, 98)
        gold = f"\\${dollars}.{c}"
        yield Draft(
            gold, rng.choice((f"\\${dollars}.{c + 1}", f"\\${dollars + 1}.{c}", f"\\${dollars}{c}", f"\\${dollars}"))
        )


@different("another word")
def word(golds: Golds, rng: Random) -> Drafts:
    given = [
        (gold.text, found[1], gold.source)
        for gold in golds.math
        if (found := re.fullmatch(r"\\text\{(\w{2,})\}", gold.text))
    ]
    made = [(f"\\text{{{text}}}", text, "made") for text in rng.sample(WORDS, len(WORDS))]
    for gold, text, source in [*given, *made]:
        other = rng.choice([one for one in WORDS if one.lower() != text.lower()])
        yield Draft(gold, rng.choice(("\\text{{{}}}", "{}", "\\textbf{{{}}}")).format(other), source)


@different("word denied: not even")
def denied(golds: Golds, rng: Random) -> Drafts:
    given = [
        (gold.text, found[1], gold.source)
        for gold in golds.math
        if (found := re.fullmatch(r"\\text\{(\w{2,})\}", gold.text))
    ]
    made = [(f"\\text{{{text}}}", text, "made") for text in rng.sample(WORDS, len(WORDS))]
    for gold, text, source in [*given, *made]:
        yield Draft(gold, rng.choice((f"\\text{{not {text}}}", f"\\text{{is not {text}}}")), source)


@different("another letter of a choice")
def choice(golds: Golds, rng: Random) -> Drafts:
    spelled = ("{}", "({})", "\\text{{{}}}", "\\text{{({})}}", "\\textbf{{({})}}")
    given = [
        (gold.text, gold.text[7], gold.source) for gold in golds.math if re.fullmatch(r"\\text\{\([A-E]\)\}", gold.text)
    ]
    made = [(gold.format(letter), letter, "made") for gold in spelled[:4] for letter in "ABCDE"]
    for gold, letter, source in [*given * 4, *made * 2]:
        yield Draft(
            gold, rng.choice(spelled).format(rng.choice([other for other in "ABCDE" if other != letter])), source
        )


@different("another base")
def base(golds: Golds, rng: Random) -> Drafts:
    for gold in golds.shuffled(rng):
        if found := re.fullmatch(r"(\d+)_\{?(\d)\}?", gold.text):
            yield Draft(gold.text, f"{found[1]}_{{{int(found[2]) + 1}}}", gold.source)
    while True:
        b = rng.randint(4, 8)
        digits = f"{rng.randint(1, b - 1)}{rng.randrange(b)}{rng.randrange(b)}"
        yield Draft(f"{digits}_{b}", f"{digits}_{{{rng.choice((b + 1, 10))}}}")


@different("another digit of a number with its base")
def base_digits(golds: Golds, rng: Random) -> Drafts:
    while True:
        b = rng.randint(4, 9)
        first, second, third = rng.randint(1, b - 2), rng.randrange(b), rng.randrange(b)
        yield Draft(f"{first}{second}{third}_{b}", f"{first + 1}{second}{third}_{b}")


@different("ratio the other way round")
def ratio(golds: Golds, rng: Random) -> Drafts:
    while True:
        a, b = rng.sample(range(2, 30), 2)
        yield Draft(f"{a}:{b}", rng.choice((f"{b}:{a}", f"{a}:{b + 1}", f"{b} : {a}")))


@different("answer of another kind")
def other_kind(golds: Golds, rng: Random) -> Drafts:
    others = (
        "\\text{even}",
        "(1, 2)",
        "\\infty",
        "\\text{none}",
        "x^2 + 1",
        "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
        "[0, 1]",
        "\\emptyset",
        "y = 2x",
    )
    for gold, _ in golds.numbers(rng, lambda value: True):
        yield Draft(gold.text, rng.choice(others), gold.source)
