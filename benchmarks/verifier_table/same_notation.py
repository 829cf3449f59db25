"""Other notation for the same answer: commands, spacing, brackets, roots, degrees, Unicode, Python, text processors."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from random import Random

from .golds import Golds, rational
from .latex import SQUARE_FREE, decimal, distinct, frac, fraction, nonzero, polynomial, root, sum_of
from .pair import Draft, Drafts, rewrite, same

_FRAC = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")


def made_expression(rng: Random) -> str:
    """LaTeX of a root, a fraction, a polynomial, a multiple of pi or a complex number."""
    kind = rng.randrange(5)
    if kind == 0:
        return root(fraction(rng, range(2, 9), 20), rng.choice(SQUARE_FREE))
    if kind == 1:
        return f"{rng.randint(2, 30)} + {root(rng.randint(2, 9), rng.choice(SQUARE_FREE))}"
    if kind == 2:
        return polynomial([nonzero(rng, -9, 9) for _ in range(rng.randint(3, 5))], rng.choice("xntr"))
    if kind == 3:
        return f"\\frac{{{rng.choice((2, 4, 5, 7, 8))}\\pi}}{{{rng.choice((3, 9, 11))}}}"
    return f"{rng.randint(2, 30)} - {rng.randint(2, 30)}i"


def then_made(golds: Golds, rng: Random, change: Callable[[str], str | None]) -> Drafts:
    """MATH-500's golds rewritten, then those of `made_expression`."""
    yield from rewrite(golds, rng, change)
    while True:
        gold = made_expression(rng)
        answer = change(gold)
        if answer is not None and answer != gold:
            yield Draft(gold, answer)


@same("\\frac as \\dfrac, \\tfrac or \\cfrac")
def frac_command(golds: Golds, rng: Random) -> Drafts:
    return rewrite(golds, rng, lambda text: re.sub(r"\\[dt]?frac", lambda _: f"\\{rng.choice('dtc')}frac", text))


@same("\\frac{a}{b} as a/b")
def slash(golds: Golds, rng: Random) -> Drafts:
    def change(text: str) -> str | None:
        found = _FRAC.search(text)
        # After a digit it is a mixed number; before a letter it is a coefficient.
        if not found or re.search(r"[\d\w}]\s*$", text[: found.start()]) or re.match(r"[\w\\]", text[found.end() :]):
            return None
        return _FRAC.sub(r"\1/\2", text)

    yield from rewrite(golds, rng, change)


@same("\\frac without braces, or with spaces")
def frac_braces(golds: Golds, rng: Random) -> Drafts:
    def change(gold: str) -> str | None:
        text = re.sub(r"frac ?(\d) ?(\d)", r"frac{\1}{\2}", gold)
        short = re.sub(r"frac\{(\d)\}\{(\d)\}", lambda found: rng.choice(("frac{}{}", "frac {} {}")), text)
        if "frac{}" in short or "frac {}" in short:
            found = re.findall(r"frac\{(\d)\}\{(\d)\}", text)
            return short.format(*[digit for pair in found for digit in pair]) if short.count("{") == 2 else None
        return text if "frac" in gold else None

    yield from rewrite(golds, rng, change)
    while True:
        value = fraction(rng, range(2, 10), 9)
        sign = "-" if value < 0 else ""
        yield Draft(frac(value), f"{sign}\\frac{abs(value.numerator)}{value.denominator}")


@same("\\frac{a}{b} as {a \\over b}")
def over(golds: Golds, rng: Random) -> Drafts:
    pattern = r"\\[dt]?frac\{((?:[^{}]|\{[^{}]*\})*)\}\{([^{}]*)\}"
    return rewrite(golds, rng, lambda text: re.sub(pattern, r"{\1 \\over \2}", text))


@same("parentheses or braces around the whole")
def parentheses(golds: Golds, rng: Random) -> Drafts:
    def change(text: str) -> str | None:
        if re.search(r"[,=()\[\]]|text|mbox|begin|pm|_|\\\$|circ|\\\{", text) or re.fullmatch(r"-?\d+", text):
            return None
        return rng.choice(("({})", "\\left({}\\right)", "{{{}}}")).format(text)

    return rewrite(golds, rng, change)


@same("\\left and \\right put in or taken out")
def left_right(golds: Golds, rng: Random) -> Drafts:
    def change(text: str) -> str | None:
        if "\\left" in text:
            return re.sub(r"\\left|\\right", "", text)
        if not re.fullmatch(r"[^()\[\]]*([(\[][^()\[\]]+[)\]][^()\[\]]*)+", text) or "text" in text:
            return None
        return re.sub(r"([)\]])", r"\\right\1", re.sub(r"([(\[])", r"\\left\1", text))

    yield from rewrite(golds, rng, change)
    while True:
        a, b = fraction(rng), rng.randint(-20, 20)
        yield Draft(f"({frac(a)}, {b})", f"\\left({frac(a)}, {b}\\right)")


@same("brackets of other sizes")
def bracket_sizes(golds: Golds, rng: Random) -> Drafts:
    def change(text: str) -> str | None:
        plain = re.sub(r"\\left|\\right", "", text)
        if not re.fullmatch(r"[^()\[\]]*([(\[][^()\[\]]+[)\]][^()\[\]]*)+", plain) or "text" in text:
            return None
        size = rng.choice(("big", "Big", "bigg", "Bigg"))
        return re.sub(r"([)\]])", rf"\\{size}r\1", re.sub(r"([(\[])", rf"\\{size}l\1", plain))

    yield from rewrite(golds, rng, change)
    while True:
        a, b = fraction(rng), rng.randint(-20, 20)
        yield Draft(f"({frac(a)}, {b})", f"\\bigl({frac(a)}, {b}\\bigr)")


@same("spacing macros")
def spacing(golds: Golds, rng: Random) -> Drafts:
    def change(text: str) -> str | None:
        if re.search(r"text|mbox|begin|!|\^\{-|\d,\d{3}", text):
            return None
        space = rng.choice(("\\,", "\\;", "\\:", "\\!", "~", "\\ ", "\\quad ", "  "))
        pattern = r"(?<=[\w)}]) ?([-+,=]|\\pm|\\cup|\\in(?!f)) ?(?=[\w\\(\[])"
        return re.sub(pattern, lambda found: f"{space}{found[1]}{space}", text)

    return then_made(golds, rng, change)


@same("spaces around the answer")
def outer_space(golds: Golds, rng: Random) -> Drafts:
    spaces = ("\\,{}\\,", "~{}~", "\\;{}\\;", " {}\n", "\\ {}\\ ", "\\quad {}")
    return rewrite(golds, rng, lambda text: rng.choice(spaces).format(text))


@same("style commands: \\displaystyle, \\mathbf, \\bf, \\color")
def style(golds: Golds, rng: Random) -> Drafts:
    commands = ("\\displaystyle {}", "\\displaystyle{{{}}}", "\\mathbf{{{}}}", "\\bf {}", "\\textcolor{{red}}{{{}}}")

    def change(text: str) -> str | None:
        return None if "text" in text or "mbox" in text else rng.choice(commands).format(text)

    return rewrite(golds, rng, change)


@same("product with \\cdot, \\times or *")
def product_sign(golds: Golds, rng: Random) -> Drafts:
    pattern = r"(?<![\^_\d{])(\d+) ?(?=\\sqrt|\\pi|[a-hj-z](?![a-z])|\()"

    def change(text: str) -> str | None:
        if re.search(r"text|mbox|begin|circ", text):
            return None
        sign = rng.choice(("\\cdot", "\\times", "*"))
        return re.sub(pattern, lambda found: f"{found[1]} {sign} ", text)

    return then_made(golds, rng, change)


@same("exponents and indices with or without braces")
def script_braces(golds: Golds, rng: Random) -> Drafts:
    def change(text: str) -> str | None:
        if re.search(r"[\^_]\{\w\}", text):
            return re.sub(r"([\^_])\{(\w)\}", r"\1\2", text)
        return re.sub(r"([\^_])(\w|\\circ)", r"\1{\2}", text)

    return then_made(golds, rng, change)


@same("root without braces")
def bare_root(golds: Golds, rng: Random) -> Drafts:
    def change(text: str) -> str | None:
        if re.search(r"\\sqrt\d", text):
            return re.sub(r"\\sqrt(\d)", r"\\sqrt{\1}", text)
        return re.sub(r"\\sqrt\{(\d)\}", rng.choice((r"\\sqrt\1", r"\\sqrt \1")), text)

    return then_made(golds, rng, change)


@same("square root as a power")
def root_as_power(golds: Golds, rng: Random) -> Drafts:
    def change(text: str) -> str | None:
        exponent = rng.choice(("{1/2}", "{\\frac{1}{2}}", "{0.5}"))
        text = re.sub(r"(\d) ?\\sqrt", r"\1 \\cdot \\sqrt", text)
        answer = re.sub(r"\\sqrt\{(\d+)\}", lambda found: f"{found[1]}^{exponent}", text)
        return None if "sqrt" in answer else answer

    return then_made(golds, rng, change)


@same("n-th root as a power")
def nth_root(golds: Golds, rng: Random) -> Drafts:
    while True:
        n, a, c = rng.randint(3, 6), rng.randint(2, 40), rng.randint(2, 9)
        yield rng.choice(
            (
                Draft(f"\\sqrt[{n}]{{{a}}}", f"{a}^{{1/{n}}}"),
                Draft(f"{c}\\sqrt[{n}]{{{a}}}", f"{c} \\cdot {a}^{{\\frac{{1}}{{{n}}}}}"),
                Draft(f"\\sqrt[{n}]{{{a}^2}}", f"{a}^{{\\frac{{2}}{{{n}}}}}"),
            )
        )


@same("degrees spelled otherwise")
def degrees(golds: Golds, rng: Random) -> Drafts:
    spellings = ("{}°", "{}^{{\\circ}}", "{} degrees", "{}\\text{{ degrees}}", "{}^\\circ", "{} ^ \\circ", "{}\\degree")

    def change(text: str) -> str | None:
        found = re.fullmatch(r"(.*?)(\^\\circ|\\text\{ degrees\})", text)
        return rng.choice(spellings).format(found[1]) if found else None

    for _ in range(3):
        yield from rewrite(golds, rng, change)
    while True:
        angle = rng.randint(1, 179)
        yield Draft(f"{angle}^\\circ", rng.choice(spellings).format(angle))


@same("degrees in radians")
def radians(golds: Golds, rng: Random) -> Drafts:
    def spell(angle: int) -> str:
        part = Fraction(angle, 180)
        top = "\\pi" if part.numerator == 1 else f"{part.numerator}\\pi"
        text = top if part.denominator == 1 else f"\\frac{{{top}}}{{{part.denominator}}}"
        return text + rng.choice(("", "\\text{ radians}"))

    for gold in golds.shuffled(rng):
        if found := re.fullmatch(r"(\d+)\^\\circ", gold.text):
            yield Draft(gold.text, spell(int(found[1])), gold.source)
    while True:
        angle = rng.randrange(3, 360, 3)
        yield Draft(f"{angle}^\\circ", spell(angle))


_UNICODE = [
    (r"\^\\circ", "°"),
    (r"\\sqrt\{(\w)\}", r"√\1"),
    (r"\\sqrt\{(\d+)\}", r"√(\1)"),
    (r"\\sqrt(\d)", r"√\1"),
    (r"\\pi", "π"),
    (r"\\infty", "∞"),
    (r"\\cup", "∪"),
    (r"\\in(?![a-z])", "∈"),
    (r"\\pm", "±"),
    (r"\\left|\\right", ""),
    (r"\^2(?!\d)", "²"),
    (r"\^3(?!\d)", "³"),
    (r"-", "−"),
]


@same("Unicode signs: √ π − ² ∞ ∪ ° ±")
def unicode_signs(golds: Golds, rng: Random) -> Drafts:
    def change(text: str) -> str | None:
        if re.search(r"begin|text|mbox|frac\{\\|frac\{\d+\\|,\\!", text):
            return None
        for pattern, sign in _UNICODE:
            text = re.sub(pattern, sign, text)
        return text

    return then_made(golds, rng, change)


@same("Unicode fractions: ½ ¾ ⅔")
def unicode_fractions(golds: Golds, rng: Random) -> Drafts:
    signs = {"1/2": "½", "1/4": "¼", "3/4": "¾", "1/3": "⅓", "2/3": "⅔", "1/5": "⅕", "2/5": "⅖", "3/5": "⅗", "4/5": "⅘"}
    signs |= {"1/6": "⅙", "5/6": "⅚", "1/8": "⅛", "3/8": "⅜", "5/8": "⅝", "7/8": "⅞"}
    for gold, value in golds.numbers(rng, lambda value: str(value) in signs):
        yield Draft(gold.text, signs[str(value)], gold.source)
    while True:
        text, sign = rng.choice(list(signs.items()))
        yield rng.choice((Draft(frac(Fraction(text)), sign), Draft(f"-{frac(Fraction(text))}", f"-{sign}")))


@same("Unicode inequalities and products: ≤ ≥ · ×")
def unicode_relations(golds: Golds, rng: Random) -> Drafts:
    while True:
        (a, b), k = sorted(distinct(rng, 2)), rng.randint(2, 9)
        yield rng.choice(
            (
                Draft(f"x \\ge {a}", f"x ≥ {a}"),
                Draft(f"x \\le {a}", f"x ≤ {a}"),
                Draft(f"{a} \\le x \\le {b}", f"{a} ≤ x ≤ {b}"),
                Draft(f"{k} \\cdot 10^{{{abs(b) + 2}}}", f"{k} × 10^{{{abs(b) + 2}}}"),
                Draft(f"{k}\\pi\\sqrt{{{abs(b) + 2}}}", f"{k}·π·√({abs(b) + 2})"),
            )
        )


def plain(text: str, power: str, multiply: str) -> str | None:
    """LaTeX of a number or polynomial as one line of plain text; None where a command has no plain counterpart."""
    if re.search(r"text|mbox|begin|left|pm|cup|_|\$|\\!|circ|\d\\frac|\d \\frac|,|=|\[", text):
        return None
    text = re.sub(r"frac ?(\d) ?(\d)", r"frac{\1}{\2}", text)
    text = re.sub(r"frac(\d)\{", r"frac{\1}{", text)
    text = re.sub(r"\\sqrt(\d)", r"\\sqrt{\1}", text)
    text = re.sub(r"(\d) ?(?=\\sqrt|\\pi|[a-zA-Z](?![a-z])|\()", rf"\1{multiply}", text.replace("\\sqrt", " \\sqrt"))
    text = re.sub(r"(\)|[a-z]) ?(?=\()", rf"\1{multiply}" if multiply else r"\1", text)
    text = re.sub(r"\\pi", "pi", re.sub(r"\s*\\sqrt\{(\d+)\}", r"sqrt(\1)", text))
    text = re.sub(r"\\[dt]?frac\{([\w]+)\}\{(\w+)\}", r"\1/\2", text)
    text = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{(\w+)\}", r"(\1)/\2", text)
    return None if "\\" in text else re.sub(r"\^\{?(\d+)\}?", rf"{power}\1", text)


@same("Python style: sqrt(2)*3, x**2")
def python_style(golds: Golds, rng: Random) -> Drafts:
    def change(text: str) -> str | None:
        answer = plain(text, "**", "*")
        return None if answer is None or (rational(text) is not None and "/" not in answer) else answer

    return then_made(golds, rng, change)


@same("calculator style: 3sqrt(2), x^2, (1+sqrt(5))/2")
def calculator_style(golds: Golds, rng: Random) -> Drafts:
    def change(text: str) -> str | None:
        answer = plain(text, "^", "")
        return None if answer is None or (rational(text) is not None and "/" not in answer) else answer

    return then_made(golds, rng, change)


@same("text processor style: x², 3√2, 7⁄2")
def word_style(golds: Golds, rng: Random) -> Drafts:
    superscripts = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

    def change(text: str) -> str | None:
        answer = plain(text, "^", "")
        if answer is None or (rational(text) is not None and "/" not in answer):
            return None
        answer = re.sub(r"sqrt\((\d)\)", r"√\1", re.sub(r"pi", "π", answer))
        answer = re.sub(r"\^(\d+)", lambda found: found[1].translate(superscripts), answer)
        return answer.replace("sqrt", "√").replace("-", "–")

    return then_made(golds, rng, change)


@same("e-notation: 5.4e6")
def e_notation(golds: Golds, rng: Random) -> Drafts:
    while True:
        mantissa, exponent = Fraction(rng.randint(11, 99), 10), nonzero(rng, -8, 12)
        sign = rng.choice(("e", "E"))
        value = mantissa * Fraction(10) ** exponent
        answer = f"{decimal(mantissa)}{sign}{exponent}"
        # Not in a box: between dollars, e would be Euler's number.
        yield Draft(decimal(value), answer, response=rng.choice(("The answer is {}.", "#### {}", "{}")).format(answer))


@same("absolute value bars")
def bars(golds: Golds, rng: Random) -> Drafts:
    while True:
        inner = sum_of([(rng.choice((1, 2, 3)), "x"), (nonzero(rng, -9, 9), "")])
        left, right = rng.choice((("\\left|", "\\right|"), ("\\lvert ", "\\rvert"), ("\\vert ", "\\vert")))
        tail = rng.randint(1, 9)
        yield Draft(f"|{inner}| + {tail}", f"{left}{inner}{right} + {tail}")


@same("the imaginary unit as \\mathrm{i} or \\imath, or before its factor")
def imaginary(golds: Golds, rng: Random) -> Drafts:
    def change(text: str) -> str | None:
        found = re.fullmatch(r"(-?\d+) ?([-+]) ?(\d+)i", text)
        if not found:
            return None
        a, sign, b = found.groups()
        return f"{a} {sign} " + rng.choice(
            (f"{b}\\mathrm{{i}}", f"i{b}", f"{b} \\cdot i", f"{b}\\,i", f"{b}\\text{{i}}")
        )

    yield from rewrite(golds, rng, change)
    while True:
        gold = f"{rng.randint(-20, 20)} {rng.choice('+-')} {rng.randint(2, 20)}i"
        yield Draft(gold, str(change(gold)))
