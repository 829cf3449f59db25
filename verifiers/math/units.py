"""Units of measure: which words mean the same one, and how many of one make another.

Invariant: a unit is an exact factor and powers of base units; a word that is no unit is a base unit of its own.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

_TABLE = """
m: 1 m meter metre
km: 1000 m kilometer kilometre Km
cm: 1/100 m centimeter centimetre
mm: 1/1000 m millimeter millimetre
in: 127/5000 m inch inche
ft: 381/1250 m foot feet
yd: 1143/1250 m yard
mi: 201168/125 m mile
g: 1 g gram gramme
kg: 1000 g kilogram kilo Kg KG
mg: 1/1000 g milligram
t: 1000000 g tonne
lb: 45359237/100000 g lbs pound
oz: 45359237/1600000 g ounce
s: 1 s sec second
ms: 1/1000 s millisecond
min: 60 s minute
h: 3600 s hr hour
day: 86400 s
week: 604800 s wk
month: 1 month
year: 12 month yr
L: 1 L liter litre l
mL: 1/1000 L milliliter millilitre ml cc
gal: 1 gal gallon
qt: 1/4 gal quart
pt: 1/8 gal pint
cup: 1/16 gal
$: 1 $ dollar usd buck
cent: 1/100 $ ¢ penny pennie
€: 1 € euro eur
£: 1 £ gbp
¥: 1 ¥ yen jpy
₹: 1 ₹ rupee inr
deg: 1 deg degree
rad: 1 rad radian
N: 1 N newton
J: 1 J joule
kJ: 1000 J kilojoule
W: 1 W watt
kW: 1000 W kilowatt
V: 1 V volt
A: 1 A amp ampere
Hz: 1 Hz hertz
Pa: 1 Pa pascal
mol: 1 mol mole
K: 1 K kelvin
mph: 1397/3125 m/s
kph: 5/18 m/s kmh
unit: 1 unit
"""


class Unit(NamedTuple):
    """factor: how many base units it is. powers: base units and their exponents, sorted."""

    factor: Fraction
    powers: tuple[tuple[str, int], ...]


def _read_table() -> dict[str, tuple[Fraction, dict[str, int]]]:
    units: dict[str, tuple[Fraction, dict[str, int]]] = {}
    for line in _TABLE.strip().splitlines():
        name, definition = line.split(": ")
        factor, *words = definition.split()
        base = words[0] if words and name != "day" else ("s" if name == "day" else "")
        powers = {"m": 1, "s": -1} if base == "m/s" else ({base: 1} if base else {})
        if base and base not in units and not powers.keys() - {name}:
            powers = {name: 1}
        for word in {name, *words[1:]}:
            units[word] = (Fraction(factor), powers)
    return units


UNITS = _read_table()
"""Every known spelling (in the singular) with its factor and base units."""

_BASES = {base for _, powers in UNITS.values() for base in powers}
CURRENCIES = "$€£¥₹¢"
_WORD = re.compile(r"[^\W\d_]+|[$€£¥₹¢]|\^?\{?-?\d+\}?|[/*·.\-]|\S", re.UNICODE)
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS_AFTER = {"squared": 2, "cubed": 3}
_SILENT = {"of", "the", "a", "an"}


def known(word: str) -> tuple[Fraction, dict[str, int]] | None:
    """A unit by its symbol or its name in the singular or plural."""
    if word in UNITS:
        return UNITS[word]
    lower = word.lower()
    if len(word) > 2 and lower in UNITS:  # m and M, mg and Mg are different ones
        return UNITS[lower]
    if lower.endswith("s") and lower[:-1] in UNITS and len(lower) > 2 and lower != "ms":
        return UNITS[lower[:-1]]
    return None


def _singular(word: str) -> str:
    word = word.lower()
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


@lru_cache(maxsize=4096)
def read_unit(text: str) -> Unit | None:
    """The unit that a text names, such as "cm^2", "square inches", "miles per hour"; None where it is none."""
    if len(text) > 80:
        return None
    factor = Fraction(1)
    powers: dict[str, int] = {}
    side, following = 1, 1
    last: tuple[Fraction, dict[str, int], int] | None = None
    for piece in _WORD.findall(text.replace("\\", " ")):
        lower = piece.lower()
        number = piece.strip("^{}")
        if lower in ("/", "per"):
            side, following = -1, 1
        elif lower in _POWERS:
            following = _POWERS[lower]
        elif lower in _POWERS_AFTER or (
            last is not None
            and number.lstrip("-").isdecimal()
            and (piece[0] == "^" or last[1].keys() <= _BASES)
            and len(number) <= 2
        ):
            if last is None:
                return None
            exponent = _POWERS_AFTER.get(lower) or int(number)
            scale, bases, sign = last
            factor *= scale ** (sign * (exponent - 1))
            for base, count in bases.items():
                powers[base] = powers.get(base, 0) + sign * count * (exponent - 1)
            last = None
        elif lower in ("*", "·", ".", "-") or lower in _SILENT:
            continue
        elif piece[0].isalpha() or piece in CURRENCIES:
            scale, bases = known(piece) or (Fraction(1), {_singular(piece): 1})
            sign = side * following
            factor *= scale**sign
            for base, count in bases.items():
                powers[base] = powers.get(base, 0) + sign * count
            last = (scale, bases, side) if following == 1 else None
            following = 1
        else:
            return None
    return Unit(factor, tuple(sorted((base, count) for base, count in powers.items() if count)))
