"""Views of an answer: the several answers in one, its name and value, its number and unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from .errors import TooLarge
from .expression import DEGREE, MINUS_ONE, Node, mul, neg
from .units import CURRENCIES, known

_NUMERAL_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMERALS = {name: value for value, name in enumerate(_NUMERAL_NAMES.split())}
NUMERALS |= {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_OTHER_NUMBER_WORDS = (
    "or and not maybe either nor neither but except unless otherwise else if isn doesn don never "
    "is are was were be been being its vs versus possibly perhaps probably likely presumably rather just kidding ou "
    "to through until at least most less fewer under below above than too wrong incorrect false "
    "hundred(?:th)?s? thousand(?:th)?s? (?:m|b|tr|quadr|quint)illion(?:th)?s? dozens? lakhs? crores? grand(?!.total) "
    "score gross pairs? tens repeating recurring point points basis root factorial twelfths? twentieths? "
    "k b mn bn tn mil bil "
    "half halves thirds? quarter fourths? fifths? sixths? sevenths? eighths? ninths? tenths? "
    "plus minus divided multiplied x squared cubed doubled tripled halved negative"
)
OTHER_NUMBER = re.compile(rf"\b(?:{'|'.join([*_OTHER_NUMBER_WORDS.split(), *NUMERALS])})\b", re.IGNORECASE)
"""A word behind a number that leaves open which one is meant, or makes it another ("5 million", "5 minus one").
"times", "over" and "quarters" (the coins) are left out: "5 times" and "5 left over" are 5."""


def numeral(words: str) -> Fraction | None:
    """The value of a number in words, such as "twenty-one", "three hundred" or "half"."""
    parts = words.casefold().replace("-", " ").split()
    if parts in (["half"], ["one", "half"], ["a", "half"]):
        return Fraction(1, 2)
    total = 0
    for place, part in enumerate(parts):
        if part == "hundred" and place == 1 and 0 < total < 10:
            total *= 100
        elif part in NUMERALS and (
            place == 0 or (total % 100 == 0 and total) or (total % 10 == 0 < NUMERALS[part] < 10)
        ):
            total += NUMERALS[part]
        else:
            return None
    return Fraction(total) if parts else None


def kind_of(node: Node) -> str:
    """What an answer is, in words for a reason: "a tuple or interval is not a set"."""
    names = {
        **{"rel": "relation", "list": "list of answers", "seq": "tuple or interval", "set": "set", "text": "word"},
        **{"union": "union", "percent": "percentage", "based": "number with a base", "ratio": "ratio"},
        **{"matrix": "matrix"},
    }
    return names.get(node.op, "value")


def spread(node: Node) -> Node:
    """± as two answers, in the answer itself and among several; a list of one is that one."""
    if node.op in ("list", "set"):
        if any(part.op == "pm" and part.value == "-" for part in node.walk()) and len(node.args) > 1:
            raise TooLarge("± and ∓ stand in several answers")
        items = [part for item in node.args for part in _signs(item)]
        if len(items) == 1 and node.op == "list":
            return items[0]
        return Node(node.op, "±" if node.op == "list" and len(items) > len(node.args) else node.value, tuple(items))
    if node.has("pm"):
        return Node("list", "±", tuple(_signs(node)))
    return node


def _signs(node: Node) -> list[Node]:
    """An answer with each choice of its signs; ± and ∓ together change together."""
    signs = [part for part in node.walk() if part.op == "pm"]
    if not signs:
        return [node]
    if len(signs) > 4:
        raise TooLarge("there are more than four signs ±")
    together = any(sign.value == "-" for sign in signs)
    if together:
        return [_choose(node, "+"), _choose(node, "-")]
    variants = [node]
    for _ in signs:
        variants = [choice for variant in variants for choice in _first_sign(variant)]
    return variants


def _choose(node: Node, upper: str) -> Node:
    """The answer with all upper signs ("+"), or with all lower ones ("-")."""
    args = tuple(_choose(arg, upper) for arg in node.args)
    if node.op == "pm":
        return args[0] if node.value == upper else neg(args[0])
    return Node(node.op, node.value, args) if args else node


def _first_sign(node: Node) -> list[Node]:
    """Both choices of the first ± in a node."""
    if node.op == "pm":
        return [node.args[0], neg(node.args[0])]
    for index, arg in enumerate(node.args):
        if arg.has("pm"):
            before, after = node.args[:index], node.args[index + 1 :]
            return [Node(node.op, node.value, (*before, choice, *after)) for choice in _first_sign(arg)]
    return [node]


def items_of(node: Node) -> tuple[Node, ...]:
    """The several answers in a list, set or tuple; else the one."""
    return node.args if node.op in ("list", "set", "seq") else (node,)


def name_of(node: Node) -> str | None:
    """The name that a side of an equation is: x, f(x), (x, y), \\text{Area}."""
    if node.op == "sym":
        return str(node.value)
    if node.op == "opaque" and str(node.value).startswith("call "):
        return f"{str(node.value)[5:]}({','.join(sorted(node.symbols()))})"
    if node.op == "text" and str(node.value).replace(" ", "").isalpha():
        return str(node.value)
    if node.op == "seq" and node.value == "()" and all(part.op == "sym" for part in node.args):
        return f"({','.join(str(part.value) for part in node.args)})"
    return None


def assignment(node: Node) -> tuple[str | None, Node | None]:
    """The name and the value of "x = 5" (or "5 = x"); (None, None) where it is no such thing."""
    if node.op != "rel" or node.value not in ("=", "≈", "→") or len(node.args) != 2:
        return None, None
    left, right = node.args
    for side, value in ((left, right), (right, left)):
        name = name_of(side)
        if (
            name is not None
            and not ({name.partition("(")[0]} | (side.symbols() if side.op == "seq" else set())) & value.symbols()
        ):
            return name, value
    return None, None


def named_value(item: Node) -> tuple[str | None, Node] | None:
    """The name (None without one) and the value of one of several answers; None where it is another relation."""
    if item.op != "rel":
        return None, item
    name, value = assignment(item)
    return None if value is None else (name, value)


def last_equation(node: Node) -> Node:
    """The last of several equal sides with the first: a = b = c as a = c."""
    if node.op == "rel" and set(str(node.value)) == {"="} and len(node.args) > 2:
        return Node("rel", "=", (node.args[0], node.args[-1]))
    return node


def decimal_places(text: str) -> int | None:
    """The decimal places of a right answer that is written as a decimal, zeros at its end included; else None."""
    match = re.fullmatch(r"[-+$\\ ]*[\d,]*\.(\d+)[^\d.]*", text)
    return None if match is None else len(match[1])


MORE = ("more", "at most", "at least", "up", "off")
"""Words that alone behind a number make another answer of it."""
_UNCLEAR_LETTERS = ("m", "K", "M")
"""5 m may be five metres and five million."""


def take_unit(node: Node, letters: Literal["none", "clear", "all"]) -> tuple[Node, str | None]:
    """A value and its unit. letters: which single letters after a number, as in "5 g", may be one."""
    if node.op == "percent":
        return node, None
    if node.op != "mul":
        return node, None
    rest: list[Node] = []
    words: list[str] = []
    unclear = False
    for arg in node.args:
        base, exponent = (arg.args[0], arg.args[1]) if arg.op == "pow" else (arg, None)
        if arg == DEGREE:
            words.append("deg")
        elif base.op == "text":
            text = str(base.value)
            power = _whole(exponent)
            if power is None or not (rest or text.strip("\\") in CURRENCIES or words):
                return node, None
            words.append(text if power == 1 else f"/ {text}" if power == -1 else f"{text}^{power}")
        elif (letters != "none" or words) and rest and base.op == "sym" and known(str(base.value)) and _is_number(rest):
            power = _whole(exponent)
            if power is None:
                return node, None
            unclear |= str(base.value) in _UNCLEAR_LETTERS
            words.append(
                f"{base.value}" if power == 1 else f"/ {base.value}" if power == -1 else f"{base.value}^{power}"
            )
        else:
            rest.append(arg)
    if not words or not rest or (unclear and len(words) == 1 and letters == "clear"):
        return node, None
    return mul(*rest), " ".join(words)


def _whole(exponent: Node | None) -> int | None:
    """The exponent of a unit: 1 without one, None where it is no small whole number."""
    if exponent is None:
        return 1
    if exponent.op != "num" or exponent.number.denominator != 1 or abs(exponent.number) > 9:
        return None
    return int(exponent.number)


def is_written_number(node: Node) -> bool:
    """Whether a node is a number or a fraction as written down."""
    if node.op == "percent":
        return is_written_number(node.args[0])
    top, *below = node.args if node.op == "mul" else (node,)
    if top == MINUS_ONE and below:
        top, *below = below
    if not below:
        return top.op == "num"
    one = len(below) == 1 and below[0].op == "pow" and below[0].args[1] == MINUS_ONE
    return one and top.op == below[0].args[0].op == "num"


def _is_number(nodes: Sequence[Node]) -> bool:
    return not any(node.symbols() for node in nodes)
