"""Numbers as people and models write them, read into exact rationals and written back exactly.

Invariant: reading is exact and bounded; no float is ever made, and a text over MAX_CHARS is no number.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import Literal

MAX_CHARS = 200
"""Longest text that is read as one number."""

Percent = Literal["unit", "hundredth"]

CURRENCY = "$€£¥₹₩₽₺₫฿"
MINUS = "-−‐‑‒–﹣－"
_VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
_GROUPED = r"[0-9]{1,3}(?:[,\u00a0\u202f\u2009][0-9]{3})+(?![0-9])"
_DECIMAL = rf"(?:(?:{_GROUPED}|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_LATEX_FRACTION = r"\\[dt]?frac\s?\{\s?(?P<top>[0-9]+)\s?\}\s?\{\s?(?P<under>[0-9]+)\s?\}"

NUMBER = re.compile(
    rf"(?P<sign>[{MINUS}+]\s?)?"
    rf"(?:\\?[{CURRENCY}]\s?)?"
    rf"(?P<inner_sign>[{MINUS}+])?"
    r"(?:"
    rf"{_LATEX_FRACTION}"
    rf"|(?P<mixed>[0-9]+)\s(?P<num>[0-9]+)\s?[/⁄]\s?(?P<den>[0-9]+)"
    rf"|(?P<whole>[0-9]*)\s?(?P<vulgar>[{_VULGAR}])"
    rf"|(?P<left>{_DECIMAL})(?:(?P<slash>\s?[/⁄]\s?)(?P<right>{_DECIMAL}))?"
    r")"
    rf"(?:\s?[{CURRENCY}](?![0-9]))?"
    r"(?P<percent>\s?\\?[%％])?"
)
"""One number with its sign, currency and percent sign; no group in it can match a long text in two ways."""


def _plain(text: str) -> Fraction:
    return Fraction(re.sub(r"[,\s]", "", text))


def match_value(match: re.Match[str], percent: Percent = "unit") -> Fraction | None:
    """The value of a match of NUMBER; None where a denominator is zero, or there are two signs."""
    if len(match.group()) > MAX_CHARS or (match["sign"] and match["inner_sign"]):
        return None
    if match["top"] is not None:
        parts = ("0", match["top"], match["under"])
    elif match["mixed"] is not None:
        parts = (match["mixed"], match["num"], match["den"])
    elif match["vulgar"] is not None:
        top, under = unicodedata.normalize("NFKC", match["vulgar"]).split("⁄")
        parts = (match["whole"] or "0", top, under)
    else:
        parts = ("0", match["left"], match["right"] or "1")
    whole, numerator, denominator = map(_plain, parts)
    if denominator == 0:
        return None
    value = whole + numerator / denominator
    if (match["sign"] or match["inner_sign"] or "+").strip() != "+":
        value = -value
    return value / 100 if match["percent"] and percent == "hundredth" else value


def parse_number(text: str, percent: Percent = "unit") -> Fraction | None:
    """The exact value of a text that is one number and nothing else, else None.

    Reads integers, decimals, fractions (3/4, ¾, \\frac{3}{4}), mixed numbers (2 3/4), thousands separators (1,200),
    currency signs and the Unicode minus. percent "unit": "50%" is 50, as the answers of word problems are written;
    "hundredth": it is 1/2.
    """
    stripped = text.strip()
    if not stripped or len(stripped) > MAX_CHARS:
        return None
    match = NUMBER.fullmatch(stripped)
    return None if match is None else match_value(match, percent)


def format_number(value: Fraction, places: int = 12) -> str:
    """Exact text: an integer, a decimal where it ends within `places` places, else a fraction "a/b"."""
    if value.denominator == 1:
        return str(value.numerator)
    scaled = value * 10**places
    if scaled.denominator != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(scaled.numerator)).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:].rstrip('0')}"
