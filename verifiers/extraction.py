"""Find the answer in a response: after `####`, in `<answer>`, in `\\boxed{}`, the bare response, or its last number.

Invariant: the rules are tried in the given order and the first one whose marker is present decides alone. A marker
whose content is not exactly one number is a wrong answer, not a reason to look further.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from .errors import VerifierError
from .numbers import CURRENCY, MINUS, NUMBER, Percent, match_value, parse_number

Rule = Literal["hash", "tag", "boxed", "bare", "last"]
"""hash: the line after the last ####. tag: the last <answer>…</answer>. boxed: the last \\boxed{…}. bare: the whole
response. last: the last number anywhere, the weak form: it also finds numbers that were not meant as the answer."""

STRICT: tuple[Rule, ...] = ("hash", "tag", "boxed", "bare")
LENIENT: tuple[Rule, ...] = ("hash", "tag", "boxed", "last")

MAX_RESPONSE_CHARS = 200_000
"""Only so many characters at the end of a response are read."""
_MAX_MARKED_CHARS = 300
_LAST_NUMBER_CHARS = 4_000
_UNIT = re.compile(r"\s?[^\W\d_][^\W\d_.'’²³/-]*(?:[ .'’²³/-]{1,2}[^\W\d_]+){0,5}[.²³]?")
_HEDGES = "or and not to maybe either"
_SCALES = (
    "hundred(?:th)?s? thousand(?:th)?s? millions? billions? trillions? dozens? lakhs? crores? grand(?!.total) "
    "k m(?!/) b mn bn tn mil bil"
)
_NUMERALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
_FRACTIONS = "half halves thirds? quarter fourths? fifths? sixths? sevenths? eighths? ninths? tenths?"
_OPERATORS = "plus minus divided multiplied x squared cubed doubled tripled halved negative"
# "times", "over" and "quarters" (the coins) are left out: "5 times" and "5 left over" are 5, and in "5 times two" and
# "5 over two" the second number is found.
_OTHER_NUMBER = re.compile(
    rf"\b(?:{'|'.join(' '.join((_HEDGES, _SCALES, _NUMERALS, _FRACTIONS, _OPERATORS)).split())})\b", re.IGNORECASE
)
"""A word that leaves open which number is meant, or makes it another one ("5 million", "5 minus one")."""
_GLUED = re.compile(r"(?<!\w)(?:[0-9]+[.,](?=[0-9]))*\w*(?:[0-9][eE][-+]|[^\W\d_])[0-9]\w*(?:\.[0-9]\w*)?")
"""A word in which a digit follows a letter (1e3, 2e-3, x2): no number, and none is inside."""


@dataclass(frozen=True)
class Extracted:
    """What a rule found: its marked text, and the number in it (None where the text is not exactly one number)."""

    rule: Rule
    text: str
    value: Fraction | None


def check_order(order: Sequence[Rule]) -> None:
    """Raise VerifierError where a rule is unknown or there is none."""
    known = get_args(Rule)
    unknown = [rule for rule in order if rule not in known]
    if unknown or not order:
        raise VerifierError(f"Unknown extraction rule {unknown[0] if unknown else ()!r}. Known: {', '.join(known)}.")


def _marked(rule: Rule, text: str) -> str | None:
    """The text that a marker marks, or None where the marker is absent."""
    if rule == "hash":
        start = text.rfind("####")
        return None if start == -1 else text[start + 4 :].lstrip("#").strip(" \t").split("\n", 1)[0]
    if rule == "tag":
        end = text.rfind("</answer>")
        start = text.rfind("<answer>", 0, end) if end != -1 else -1
        return None if start == -1 else text[start + len("<answer>") : end]
    if rule == "boxed":
        start = text.rfind("\\boxed{")
        return None if start == -1 else _until_brace(text, start + len("\\boxed{"))
    return text


def _until_brace(text: str, start: int) -> str:
    depth = 1
    for position in range(start, min(len(text), start + _MAX_MARKED_CHARS)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return ""


def one_number(text: str, units: bool = True, percent: Percent = "unit") -> Fraction | None:
    """The number in a text that holds exactly one and says nothing else but, with `units`, what is counted.

    "$18", "18 eggs" and "**18**." are 18; "42 or 43", "not 42", "42 43" and "42 million" are None.
    """
    text = text.strip()
    if len(text) > _MAX_MARKED_CHARS:
        return None
    text = re.sub(r"^\\[(\[]|\\[)\]]$|\\text\s?(?=\{)", "", text.strip("*_` \n\t"))
    text = text.lstrip("= ").replace("{,}", ",").replace("\\!", "")
    if text.count("$") >= 2 and text[0] == text[-1] == "$":
        text = text.strip("$")
    text = text.strip().removesuffix(".").strip("*_` ")
    value = parse_number(text, percent)
    if value is not None or not units:
        return value
    match = NUMBER.match(text)
    if match is None:
        return None
    unit = text[match.end() :].replace("{", " ").replace("}", " ").strip()
    if not _UNIT.fullmatch(unit) or _OTHER_NUMBER.search(unit):
        return None
    if any(char.isnumeric() for char in re.sub(r"(?<=[A-Za-z])[²³]", "", unit)):
        return None
    return match_value(match, percent)


def last_number(text: str, percent: Percent = "unit") -> tuple[str, Fraction] | None:
    """The last number in a text and its value; a minus right after a digit, letter or bracket is a subtraction."""
    text = _GLUED.sub("x", text[-_LAST_NUMBER_CHARS:])
    found = None
    for match in NUMBER.finditer(text):
        before = text[match.start() - 1] if match.start() else " "
        piece = match.group()
        if piece[0] in MINUS + "+" and (before.isalnum() or before in ")]%" + CURRENCY):
            retry = NUMBER.match(text, match.start() + 1)
            if retry is None:
                continue
            match = retry
        value = match_value(match, percent)
        if value is not None:
            found = (match.group().strip(), value)
    return found


def extract_answer(
    text: str, order: Sequence[Rule] = STRICT, units: bool = True, percent: Percent = "unit"
) -> Extracted | None:
    """What the first applicable rule of `order` finds, or None where no rule applies.

    "bare" always applies and therefore ends the order; "last" applies where there is a number.
    """
    text = text[-MAX_RESPONSE_CHARS:]
    for rule in order:
        if rule == "last":
            found = last_number(text, percent)
            if found is not None:
                return Extracted(rule, *found)
            continue
        marked = _marked(rule, text)
        if marked is not None:
            return Extracted(rule, marked.strip()[:_MAX_MARKED_CHARS], one_number(marked, units, percent))
    return None
