"""From text to tokens: LaTeX, Unicode mathematics and plain text are brought to one notation.

Invariant: linear in the text, whatever it holds; a text over MAX_CHARS is refused before any work.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..braces import closing_brace
from .errors import TooLarge

MAX_CHARS = 10_000
"""Longest answer that is read."""

_UNICODE = {
    **dict.fromkeys("−‐‑‒–—﹣－", "-"),
    **dict.fromkeys("×✕✖⨯", r"\times "),
    **dict.fromkeys("·⋅∙•∗", r"\cdot "),
    **dict.fromkeys("÷∕⁄", "/"),
    **dict.fromkeys("\u00a0\u2007\u2009\u202f\u200a\u2002\u2003\u3000\t\r\n", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u2061\u2062", ""),
    **dict.fromkeys("“”„", '"'),
    **dict.fromkeys("‘’′", "'"),
    "√": r"\sqrt ",
    "∛": r"\sqrt[3]",
    "∜": r"\sqrt[4]",
    "∞": r"\infty ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "⩽": r"\le ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "≡": r"\equiv ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∖": r"\setminus ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}",
    "±": r"\pm ",
    "∓": r"\mp ",
    "°": r"^\circ ",
    "º": r"^\circ ",
    "˚": r"^\circ ",
    "…": "...",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "∑": r"\sum ",
    "∏": r"\prod ",
    "∫": r"\int ",
    "％": "%",
    "，": ",",
    "（": "(",
    "）": ")",
    "＝": "=",
    "＋": "+",
    "½": r"\frac{1}{2}",
    "⅓": r"\frac{1}{3}",
    "⅔": r"\frac{2}{3}",
    "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}",
    "⅖": r"\frac{2}{5}",
    "⅗": r"\frac{3}{5}",
    "⅘": r"\frac{4}{5}",
    "⅙": r"\frac{1}{6}",
    "⅚": r"\frac{5}{6}",
    "⅐": r"\frac{1}{7}",
    "⅛": r"\frac{1}{8}",
    "⅜": r"\frac{3}{8}",
    "⅝": r"\frac{5}{8}",
    "⅞": r"\frac{7}{8}",
    "⅑": r"\frac{1}{9}",
    "⅒": r"\frac{1}{10}",
    **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
}
_GREEK_LETTERS = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩϕϵ"
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega phi epsilon"
)
_GREEK = dict(zip(_GREEK_LETTERS, _GREEK_NAMES.split(), strict=True))
_TRANSLATION = str.maketrans({**_UNICODE, **{letter: rf"\{name} " for letter, name in _GREEK.items()}})
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n")

_SIMPLE = re.compile(r"[\x21-\x7e ]*")
_PROSE_UNIT = re.compile(r"(?<=\d) ?([cdkm]?m|ft|in|yd|mi)([²³])(?![\w^])")
"""Square and cubic units as prose writes them: in 5 m², m is no variable."""
_GROUPING = re.compile(r"(?<=\d)(?:\{,\}|,?\\[!,;:]|(?<!\\)\\ |~) ?(?=\d{3}(?!\d))")
_SPACED = re.compile(r"(?<![\d.,_^])\d{1,3}(?: \d{3})+(?![\d])")
_ALIGNED = re.compile(r"\\(?:begin|end)\{(?:aligned|align\*?|gathered|gather\*?|equation\*?|split|center)\}")
_ROW_END = re.compile(r"\\\\\s*(?=(=)?)")
_BROKEN_LINE = re.compile(r"(?<=[^\s+\-*/=<>^_({\[,;&\\|])[ \t]*\n\s*(?=[^\s+\-*/=<>^_)}\],;&|\\]|\\text)")
_REPLACEMENTS = (
    (re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?"), " "),
    (re.compile(r"\\(?:display|text|script|scriptscript)style(?![a-zA-Z])"), " "),
    (re.compile(r"(?<!\\)\\[,;:! ]|\\(?:quad|qquad|thinspace|hfill|limits|nolimits)(?![a-zA-Z])|~"), " "),
    (re.compile(r"\\(?:bf|it|rm|sf|tt|cal|normalfont)(?![a-zA-Z])\s*(?!\s*\{)|\\phantom\{[^{}]*\}"), " "),
    (
        re.compile(r"\\(?:tiny|small|large|Large|LARGE|huge|Huge|underline|checkmark|blacksquare|square)(?![a-zA-Z])"),
        " ",
    ),
    (re.compile(r"\\(?:textcolor|color)\s*\{[a-zA-Z]*\}"), " "),
    (re.compile(r"\\(?:mathrm|operatorname|mathsf|text)\s*\{\s*([ie])\s*\}"), r" \1 "),
    (re.compile(r"\\imath(?![a-zA-Z])"), " i "),
    (re.compile(r"\\vert(?![a-zA-Z])"), "|"),
    (re.compile(r"\\colon(?![a-zA-Z])|\{:\}"), ":"),
    (re.compile(r"\\(?:d|t|c)frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:d|t)binom(?![a-zA-Z])"), r"\\binom"),
)


def clean(text: str) -> str:
    """The text in one notation: spacing and sizes gone, Unicode signs as LaTeX, digits not grouped by small spaces."""
    if len(text) > MAX_CHARS:
        raise TooLarge(f"the answer has {len(text)} characters, over {MAX_CHARS}")
    if "\n" in text:  # two lines are two answers, unless the first goes on in the second
        text = _BROKEN_LINE.sub(" , ", text.strip())
    if not _SIMPLE.fullmatch(text):
        text = _PROSE_UNIT.sub(lambda match: rf"\text{{{match[1]}}}{match[2]}", text)
        text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda match: "^{" + match.group().translate(_RAISED) + "}", text)
        text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉ₙ]+", lambda match: "_{" + match.group().translate(_LOWERED) + "}", text)
        text = text.translate(_TRANSLATION)
    if "\\" in text or "{" in text or "~" in text:
        text = _GROUPING.sub("", text)
        if _ALIGNED.search(text):
            text = _ALIGNED.sub(" ", text).replace("&", " ")
            text = _ROW_END.sub(lambda match: " " if match.group(1) else " , ", text)
        for pattern, replacement in _REPLACEMENTS:
            text = pattern.sub(replacement, text)
    if " " in text:
        text = _SPACED.sub(lambda match: match.group().replace(" ", ""), text)
    return unwrap(text)


_MAX_WRAPPERS = 20
_MATH_SIGNS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_WRAPPERS = (*_MATH_SIGNS, *((mark, mark) for mark in ("**", "__", "*", "_", "`")))


def unwrap(text: str) -> str:
    """Without the signs around a formula, a box around all of it, emphasis and the full stop at the end."""
    text = text.strip()
    for _ in range(_MAX_WRAPPERS):
        before = text
        for left, right in _WRAPPERS:
            inner = text[len(left) : -len(right)]
            if len(text) >= len(left) + len(right) and text.startswith(left) and text.endswith(right):
                if inner.endswith("\\") or right in inner.replace("\\$", ""):
                    continue
                text = inner.strip()
        if text.endswith((".", ",", ";", ":")) and not text.endswith(("..", "\\.", "\\,", "\\;", "\\:")):
            text = text[:-1].rstrip()
        if text.endswith("\\") and not text.endswith("\\\\"):  # what is left of "\\ " at the end
            text = text[:-1].rstrip()
        for opening in ("\\boxed{", "\\fbox{"):
            if text.startswith(opening) and closing_brace(text, len(opening)) == len(text) - 1:
                text = text[len(opening) : -1].strip()
        if text == before and text.startswith("*"):  # an item of a list, or emphasis not closed; no formula begins so
            text = text.lstrip("*").lstrip()
        if text == before:
            break
    return text


class Token(NamedTuple):
    """kind: number, word, command, text, dots, mark, end. spaced: whether a space stands before it."""

    kind: str
    text: str
    spaced: bool = False


END = Token("end", "")
_TOKEN = re.compile(
    r"(?P<number>(?:\d{1,3}(?:,\d{3}){1,60}(?![\d,]\d|\d)|\d+)(?:\.(?!\.)\d*)?(?:[eE](?:-?\d+|\+\d{2,})(?![\d.a-zA-Z]))?|\.\d+)"
    r"|\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|mbox|hbox|mathrm|operatorname\*?|rm)"
    r"\s*\{(?P<text>[^{}\\$]*(?:\\[ ,;!][^{}\\$]*)*)\}"
    r"|(?P<command>\\(?:[A-Za-z]+\*?|.))"
    r"|(?P<dots>\.\.\.+)"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<mark>\*\*|<=|>=|!=|=>|==|.)",
    re.DOTALL,
)
_DOTS = {r"\ldots", r"\dots", r"\cdots", r"\dotsc", r"\dotsb"}


def tokens(text: str) -> list[Token]:
    """The tokens of a cleaned text. A number may carry separators of thousands, an exponent (1e5) and a last point."""
    found: list[Token] = []
    spaced = False
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "mark"
        piece = match.group(kind)
        if piece == " ":
            spaced = True
            continue
        if kind == "command" and piece in _DOTS:
            kind = "dots"
        found.append(Token(kind, piece, spaced))
        spaced = False
    found.append(END)
    return found


def plain_words(text: str) -> str:
    """Words for comparison: no commands for text, no braces and signs, small letters, single spaces."""
    text = re.sub(r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|mbox|hbox|mathrm|mathbf|operatorname)\s*(?=\{)", "", text)
    text = re.sub(r"[{}$*_`\"']|(?<![0-9])[.,;:!?]|[.,;:!?](?![0-9])", "", text)
    return " ".join(text.casefold().split())
